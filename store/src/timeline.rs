//! When each entry was made: the index from time to version and back.

use alloc::vec::Vec;
use tradewind_ledger::{Hlc, Version};

/// Entries a chunk holds: it grows without ever copying what is there.
const CHUNK: usize = 8192;

/// The times of all entries, by version, strictly increasing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timeline {
    chunks: Vec<Vec<Hlc>>,
    length: u64,
}

impl Timeline {
    pub(crate) fn next(&self) -> Version {
        Version(self.length)
    }

    pub(crate) fn last(&self) -> Option<Hlc> {
        self.chunks.last()?.last().copied()
    }

    /// # Panics
    /// Unless `hlc` is later than all before.
    pub(crate) fn push(&mut self, hlc: Hlc) {
        assert!(self.last() < Some(hlc), "time goes forward: {hlc:?} after {:?}", self.last());
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(hlc),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(hlc);
                self.chunks.push(chunk);
            }
        }
        self.length += 1;
    }

    /// # Panics
    /// If there is no such version.
    pub(crate) fn at(&self, version: Version) -> Hlc {
        let index = usize::try_from(version.0).expect("a version in memory fits");
        self.chunks[index / CHUNK][index % CHUNK]
    }

    /// How many entries were made at `hlc` or before.
    pub(crate) fn through(&self, hlc: Hlc) -> Version {
        let chunk = self.chunks.partition_point(|chunk| chunk[0] <= hlc);
        let Some(last) = chunk.checked_sub(1) else { return Version(0) };
        let inside = self.chunks[last].partition_point(|&t| t <= hlc);
        Version((last * CHUNK + inside) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_by_version_and_back_across_chunks() {
        let mut timeline = Timeline::default();
        assert_eq!(timeline.through(Hlc(5)), Version(0));
        for n in 0..20_000 {
            timeline.push(Hlc(n * 10));
        }
        for n in [0, 1, 8191, 8192, 8193, 16383, 16384, 19_999] {
            assert_eq!(timeline.at(Version(n)), Hlc(n * 10));
            assert_eq!(timeline.through(Hlc(n * 10)), Version(n + 1));
            assert_eq!(timeline.through(Hlc(n * 10 + 9)), Version(n + 1));
        }
        assert_eq!(timeline.through(Hlc(u64::MAX)), timeline.next());
    }
}
