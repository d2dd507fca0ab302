//! How much a node outside the running view may lack to be let into it: the newest entries, within bounds.

use alloc::collections::VecDeque;

use tradewind_ledger::Version;

use crate::config::Limits;

/// The entries delivered last, by the batches that were handed to the log.
#[derive(Clone, Debug)]
pub(super) struct Recent {
    /// Up to which version, how many bytes with their detached values.
    batches: VecDeque<(Version, usize)>,
    bytes: usize,
    /// Where the first of them begins.
    near: Version,
    bytes_max: usize,
    entries_max: u64,
}

impl Recent {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            batches: VecDeque::new(),
            bytes: 0,
            near: Version::ZERO,
            bytes_max: limits.lag_bytes,
            entries_max: limits.lag_entries / 8,
        }
    }

    /// A view begins, with its VIEW entry right below `near`: who does not have that is not near.
    pub(super) fn begin(&mut self, near: Version) {
        self.batches.clear();
        (self.bytes, self.near) = (0, near);
    }

    /// The ledger ends at `end` now, with `bytes` more than before.
    pub(super) fn push(&mut self, end: Version, bytes: usize) {
        self.batches.push_back((end, bytes));
        self.bytes += bytes;
        while self.bytes > self.bytes_max || end.since(self.near.min(end)) > self.entries_max {
            let Some((passed, bytes)) = self.batches.pop_front() else { break };
            self.bytes -= bytes;
            self.near = self.near.max(passed);
        }
    }

    /// Whoever has the ledger up to here lacks little.
    pub(super) fn near(&self) -> Version {
        self.near
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recent() -> Recent {
        let mut recent =
            Recent::new(&Limits { lag_bytes: 100, lag_entries: 80, ..Limits::default() });
        recent.begin(Version(5));
        recent
    }

    #[test]
    fn what_is_near_moves_with_the_bytes() {
        let mut recent = recent();
        recent.push(Version(7), 60);
        assert_eq!(recent.near(), Version(5));
        recent.push(Version(8), 60);
        assert_eq!(recent.near(), Version(7));
        recent.push(Version(9), 1_000);
        assert_eq!(recent.near(), Version(9), "one entry alone may be more than little");
    }

    #[test]
    fn what_is_near_moves_with_the_entries_and_never_behind_the_view() {
        let mut recent = recent();
        recent.push(Version(5), 1);
        recent.push(Version(15), 1);
        assert_eq!(recent.near(), Version(5));
        recent.push(Version(16), 1);
        assert_eq!(recent.near(), Version(15));
        recent.begin(Version(17));
        assert_eq!(recent.near(), Version(17));
    }
}
