//! Reading a ledger: entries, values and hashes of what is durable.

use std::sync::Arc;

use tradewind_ledger::entry::MAX_ENTRY;
use tradewind_ledger::ids::{Digest, Version};
use tradewind_ledger::segment_file::RECORD_HEADER;
use tradewind_ledger::tree::HashSource;

use crate::error::ReadError;
use crate::scrub::Scrubber;
use crate::shared::{SealedSegment, Shared};
use crate::values::{self, ValueFile};

/// Bytes of the longest record.
const MAX_RECORD: usize = RECORD_HEADER + MAX_ENTRY;

/// Reads a ledger's durable entries, from any thread; cheap to clone. It sees what the writer makes
/// durable. As a [`HashSource`] it gives the hashes for proofs at every durable size.
#[derive(Clone)]
pub struct LedgerReader {
    shared: Arc<Shared>,
}

impl LedgerReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// How many entries survive a loss of power.
    #[must_use]
    pub fn durable_size(&self) -> Version {
        self.shared.durable()
    }

    /// The first entry that is kept; those before it were pruned, and only their hashes are here.
    #[must_use]
    pub fn first(&self) -> Version {
        self.shared.first()
    }

    /// The bytes of the entry at `version`.
    ///
    /// # Errors
    /// If it was pruned or is not durable, or its file cannot be read or is damaged.
    pub fn entry(&self, version: Version) -> Result<Vec<u8>, ReadError> {
        let mut buffer = Vec::new();
        let mut entry = Vec::new();
        let end = Version(version.0.saturating_add(1));
        self.shared.read(version, end, MAX_RECORD, &mut buffer, |found| {
            entry.extend_from_slice(found);
        })?;
        Ok(entry)
    }

    /// The entries from `first` up to `end`, as far as they are durable and their records fit
    /// `max_bytes` (at least one always does: less than the longest record counts as that).
    ///
    /// # Errors
    /// If the first one was pruned or is not durable, or a file cannot be read or is damaged.
    pub fn entries(
        &self,
        first: Version,
        end: Version,
        max_bytes: usize,
    ) -> Result<Vec<Vec<u8>>, ReadError> {
        let mut entries = Vec::new();
        self.for_each(first, end, max_bytes, |_, entry| entries.push(entry.to_vec()))?;
        Ok(entries)
    }

    /// Shows the entries that [`LedgerReader::entries`] returns, without a copy of each; the version
    /// to go on at.
    ///
    /// # Errors
    /// As [`LedgerReader::entries`]; some may have been shown before.
    pub fn for_each(
        &self,
        first: Version,
        end: Version,
        max_bytes: usize,
        mut show: impl FnMut(Version, &[u8]),
    ) -> Result<Version, ReadError> {
        let mut next = first;
        let mut left = max_bytes.max(MAX_RECORD);
        let mut buffer = Vec::new();
        while next < end && (next == first || next < self.durable_size()) {
            let from = next;
            let mut version = from;
            let show = |entry: &[u8]| {
                show(version, entry);
                version = version.next();
            };
            next = self.shared.read(from, end, left, &mut buffer, show)?;
            if next == from {
                break;
            }
            left -= buffer.len();
        }
        Ok(next)
    }

    /// The detached value with this digest, checked against it; `None` if it is not there.
    ///
    /// # Errors
    /// If its file cannot be read, or holds something else.
    pub fn value(&self, digest: &Digest) -> Result<Option<Vec<u8>>, ReadError> {
        values::load(&self.shared.layout, digest)
    }

    /// The same, to be read piece by piece.
    ///
    /// # Errors
    /// As [`value`](Self::value).
    pub fn open_value(&self, digest: &Digest) -> Result<Option<ValueFile>, ReadError> {
        ValueFile::open(&self.shared.layout, digest)
    }

    /// Goes through the files of this ledger for bit rot. One is enough.
    #[must_use]
    pub fn scrubber(&self) -> Scrubber {
        Scrubber::new(Arc::clone(&self.shared))
    }

    /// The sealed segments from the first that is kept on.
    #[must_use]
    pub fn sealed_segments(&self) -> Vec<SealedSegment> {
        self.shared.segments()
    }
}

impl HashSource for LedgerReader {
    fn node(&self, level: u8, index: u64) -> Option<Digest> {
        self.shared.tree().node(level, index)
    }
}
