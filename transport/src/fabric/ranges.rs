//! A set of byte ranges of a row: what a peer has still to be shown.

use std::ops::Range;

/// Providers send whole words, so that a counter is never seen torn.
pub(crate) const WORD: usize = 8;

/// Disjoint ranges of whole words, in order, with a gap between any two.
///
/// A row of n bytes has therefore at most n / 16 ranges, however they were inserted.
#[derive(Clone, Debug, Default)]
pub(crate) struct RangeSet {
    ranges: Vec<Range<usize>>,
}

impl RangeSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Range<usize>> {
        self.ranges.iter()
    }

    /// The number of bytes in the set.
    pub(crate) fn bytes(&self) -> usize {
        self.ranges.iter().map(Range::len).sum()
    }

    /// Adds a range, widened to whole words and merged with those that it meets.
    pub(crate) fn insert(&mut self, range: &Range<usize>) {
        if range.is_empty() {
            return;
        }
        let start = range.start - range.start % WORD;
        let end = range.end.next_multiple_of(WORD);
        let first = self.ranges.partition_point(|known| known.end < start);
        let after = first + self.ranges[first..].partition_point(|known| known.start <= end);
        match after - first {
            0 => self.ranges.insert(first, start..end),
            met => {
                let merged =
                    self.ranges[first].start.min(start)..self.ranges[after - 1].end.max(end);
                self.ranges[first] = merged;
                if met > 1 {
                    self.ranges.drain(first + 1..after);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_holds_exactly_the_words_inserted(
            inserted in prop::collection::vec((0_usize..400, 0_usize..60), 0..40),
        ) {
            let mut set = RangeSet::default();
            let mut words = vec![false; 60];
            for (start, len) in inserted {
                set.insert(&(start..start + len));
                if len > 0 {
                    words[start / WORD..(start + len).div_ceil(WORD)].fill(true);
                }
            }
            let mut found = vec![false; 60];
            let mut last_end = None;
            for range in set.iter() {
                prop_assert!(range.start % WORD == 0 && range.end % WORD == 0);
                prop_assert!(last_end.is_none_or(|end| end < range.start), "a gap between any two");
                found[range.start / WORD..range.end / WORD].fill(true);
                last_end = Some(range.end);
            }
            prop_assert_eq!(set.bytes(), words.iter().filter(|word| **word).count() * WORD);
            prop_assert_eq!(found, words);
        }
    }
}
