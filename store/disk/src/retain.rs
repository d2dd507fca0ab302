//! How much of a ledger's history is kept.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tradewind_ledger::segment_file::SegmentName;
use tradewind_ledger::{Hlc, Version};
use tradewind_ledger_disk::{LedgerReader, SealedSegment};

/// How much history a process keeps, beside the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retain {
    /// All of it.
    #[default]
    All,
    /// Entries that are younger than this, at least.
    Age(Duration),
    /// The newest segments that have so many bytes together, at least.
    Bytes(u64),
}

impl Retain {
    /// Whether what lies before an entry made at `hlc`, with so many bytes of segments from there on, need not be kept.
    pub(crate) fn may_prune(self, now: Hlc, hlc: Hlc, bytes_after: u64) -> bool {
        match self {
            Self::All => false,
            Self::Age(age) => {
                let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
                now.micros().saturating_sub(hlc.micros()) > age
            }
            Self::Bytes(bytes) => bytes_after >= bytes,
        }
    }
}

/// The bytes of all segments of a ledger that are sealed and kept. Asks the file system for each.
#[must_use]
pub fn kept_bytes(dir: &Path, reader: &LedgerReader) -> u64 {
    bytes_from(dir, &reader.sealed_segments(), Version::ZERO)
}

/// The bytes of the sealed segments from `first` on.
pub(crate) fn bytes_from(dir: &Path, segments: &[SealedSegment], first: Version) -> u64 {
    let files = segments.iter().filter(|segment| segment.first >= first).map(|segment| {
        let name = SegmentName { first: segment.first, last: Some(segment.last) };
        dir.join("segments").join(name.to_string())
    });
    files.filter_map(|file| Some(fs::metadata(file).ok()?.len())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_goes_only_when_enough_is_left() {
        let hour = Duration::from_secs(3600);
        let (then, now) = (Hlc::from_micros(0), Hlc::from_micros(3_600_000_001));
        assert!(Retain::Age(hour).may_prune(now, then, 0));
        assert!(!Retain::Age(2 * hour).may_prune(now, then, u64::MAX));
        assert!(Retain::Bytes(10).may_prune(now, now, 10));
        assert!(!Retain::Bytes(10).may_prune(now, then, 9));
        assert!(!Retain::All.may_prune(now, then, u64::MAX));
    }
}
