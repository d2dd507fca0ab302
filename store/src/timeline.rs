//! When each entry was made: the index from time to version and back.

use alloc::{collections::VecDeque, vec::Vec};
use tradewind_ledger::{Hlc, Version};

/// Entries a chunk holds: it grows without ever copying what is there.
const CHUNK: usize = 8192;

/// The times of the entries from `start` on, by version, strictly increasing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    start: u64,
    /// The first may hold fewer, the last holds what is left, all others are full; none is empty.
    chunks: VecDeque<Vec<Hlc>>,
    length: u64,
    last: Option<Hlc>,
}

impl Timeline {
    /// As if all times up to `last`, that of the entry before `start`, had been taken up and let go.
    pub(crate) fn starting_at(start: Version, last: Option<Hlc>) -> Self {
        Self { start: start.0, chunks: VecDeque::new(), length: start.0, last }
    }

    /// The first entry whose time is here.
    pub(crate) fn start(&self) -> Version {
        Version(self.start)
    }

    pub(crate) fn next(&self) -> Version {
        Version(self.length)
    }

    pub(crate) fn last(&self) -> Option<Hlc> {
        self.last
    }

    /// # Panics
    /// Unless `hlc` is later than all before.
    pub(crate) fn push(&mut self, hlc: Hlc) {
        assert!(self.last < Some(hlc), "time goes forward: {hlc:?} after {:?}", self.last);
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(hlc),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(hlc);
                self.chunks.push_back(chunk);
            }
        }
        self.last = Some(hlc);
        self.length += 1;
    }

    /// Lets go of the times of the entries before `version`.
    pub(crate) fn forget_before(&mut self, version: Version) {
        let version = version.0.min(self.length);
        while let Some(first) = self.chunks.front_mut()
            && self.start < version
        {
            let gone = (version - self.start).min(first.len() as u64);
            if gone == first.len() as u64 {
                self.chunks.pop_front();
            } else {
                // To its own, smaller, allocation; later chunks are not moved.
                let kept = first.split_off(gone as usize);
                *first = kept;
                if self.chunks.len() == 1 {
                    // The last chunk goes on growing, in place.
                    let room = CHUNK - self.chunks[0].len();
                    self.chunks[0].reserve_exact(room);
                }
            }
            self.start += gone;
        }
    }

    /// `None` if the version does not exist yet, or its time is not here any more.
    pub(crate) fn at(&self, version: Version) -> Option<Hlc> {
        if version.0.checked_add(1) == Some(self.length) {
            return self.last;
        }
        let mut index = usize::try_from(version.0.checked_sub(self.start)?).ok()?;
        let first = self.chunks.front()?.len();
        if index < first {
            return Some(self.chunks[0][index]);
        }
        index -= first;
        self.chunks.get(1 + index / CHUNK)?.get(index % CHUNK).copied()
    }

    /// How many entries were made at `hlc` or before; `None` if that is before the times that are here.
    pub(crate) fn through(&self, hlc: Hlc) -> Option<Version> {
        if self.last.is_some_and(|last| last <= hlc) {
            return Some(self.next());
        }
        let chunk = self.chunks.partition_point(|chunk| chunk[0] <= hlc);
        let Some(last) = chunk.checked_sub(1) else {
            return (self.start == 0).then_some(Version(0));
        };
        let before: usize = self.chunks.iter().take(last).map(Vec::len).sum();
        let inside = self.chunks[last].partition_point(|&t| t <= hlc);
        Some(Version(self.start + (before + inside) as u64))
    }
}

impl PartialEq for Timeline {
    /// How the times are cut into chunks makes no difference.
    fn eq(&self, other: &Self) -> bool {
        (self.start, self.length, self.last) == (other.start, other.length, other.last)
            && self.chunks.iter().flatten().eq(other.chunks.iter().flatten())
    }
}

impl Eq for Timeline {}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(count: u64) -> Timeline {
        let mut timeline = Timeline::default();
        (0..count).for_each(|n| timeline.push(Hlc(n * 10)));
        timeline
    }

    #[test]
    fn times_are_found_by_version_and_back_across_chunks() {
        assert_eq!(Timeline::default().through(Hlc(5)), Some(Version(0)));
        let timeline = filled(20_000);
        for n in [0, 1, 8191, 8192, 8193, 16383, 16384, 19_999] {
            assert_eq!(timeline.at(Version(n)), Some(Hlc(n * 10)));
            assert_eq!(timeline.through(Hlc(n * 10)), Some(Version(n + 1)));
            assert_eq!(timeline.through(Hlc(n * 10 + 9)), Some(Version(n + 1)));
        }
        assert_eq!(timeline.through(Hlc(u64::MAX)), Some(timeline.next()));
        assert_eq!(timeline.at(timeline.next()), None);
    }

    #[test]
    fn what_is_forgotten_is_told_from_what_never_was() {
        for start in [1, 8191, 8192, 8193, 12_345, 19_999, 20_000] {
            let mut timeline = filled(20_000);
            timeline.forget_before(Version(start / 2));
            timeline.forget_before(Version(start));
            assert_eq!(timeline.start(), Version(start));
            let mut anew = Timeline::starting_at(Version(start), Some(Hlc((start - 1) * 10)));
            (start..20_000).for_each(|n| anew.push(Hlc(n * 10)));
            assert!(anew == timeline);
            for n in [start, start + 1, start + 8192, 19_999].into_iter().filter(|n| *n < 20_000) {
                assert_eq!(timeline.at(Version(n)), Some(Hlc(n * 10)));
                assert_eq!(timeline.through(Hlc(n * 10)), Some(Version(n + 1)));
                assert_eq!(anew.at(Version(n)), timeline.at(Version(n)));
                assert_eq!(anew.through(Hlc(n * 10 + 1)), Some(Version(n + 1)));
            }
            if start < 20_000 {
                assert_eq!(timeline.through(Hlc(start * 10 - 1)), None);
                assert_eq!(timeline.at(Version(start - 1)), None);
            }
            timeline.push(Hlc(u64::MAX));
            assert_eq!(timeline.through(Hlc(u64::MAX)), Some(Version(20_001)));
        }
    }
}
