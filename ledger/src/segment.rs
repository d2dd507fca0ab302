//! Segments: runs of entries that end in a SEAL.
//!
//! [`SegmentTracker`] is the running state of the open segment: it says when to cut and what the SEAL
//! must say. A node makes SEALs with it, and everybody who reads a ledger checks them with it.

use core::time::Duration;

use crate::base::Base;
use crate::entry::{Body, Entry, Seal};
use crate::ids::{Digest, Hlc, Version, ViewId};
use crate::keys::Keys;
use crate::tree::{CompactRange, leaf_hash};

/// Entries of a segment at most, its SEAL included: a reader refuses more.
pub const MAX_SEGMENT_ENTRIES: u32 = 1 << 18;
/// Bytes of a segment's entries at most: a reader refuses more.
pub const MAX_SEGMENT_BYTES: u64 = 256 << 20;

/// When to cut a segment. Whatever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealLimits {
    /// Bytes of entries.
    pub bytes: u64,
    /// Entries, the SEAL included.
    pub entries: u32,
    /// Time since the first entry of the segment.
    pub age: Duration,
    /// Time since the last SEAL when nothing came after it: shows that the ledger is up to date.
    pub heartbeat: Duration,
}

impl Default for SealLimits {
    fn default() -> Self {
        Self {
            bytes: 4 << 20,
            entries: 16_384,
            age: Duration::from_secs(1),
            heartbeat: Duration::from_secs(60),
        }
    }
}

/// Running state of the open segment and of the tree below it.
#[derive(Clone, Debug, Default)]
pub struct SegmentTracker {
    tree: CompactRange,
    segment: u64,
    first: Version,
    bytes: u64,
    prev_seal: Digest,
    keys: Keys,
    hlc_first: Hlc,
    hlc_last: Hlc,
    last_leaf: Digest,
}

impl SegmentTracker {
    /// The state before the first entry of a ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The state right after the SEAL of a base.
    pub(crate) fn after_seal(base: &Base) -> Self {
        let (_, seal) = base.seal();
        Self {
            tree: base.compact_range().clone(),
            segment: seal.segment + 1,
            first: base.size(),
            bytes: 0,
            prev_seal: base.last_leaf(),
            keys: Keys::default(),
            hlc_first: seal.hlc_first,
            hlc_last: base.last_hlc(),
            last_leaf: base.last_leaf(),
        }
    }

    /// Takes up the next entry; `bytes` is its encoding. A SEAL closes the segment, whatever it says:
    /// compare it first with [`SegmentTracker::seal`]. Returns the entry's leaf hash.
    pub fn observe(&mut self, bytes: &[u8], entry: &Entry) -> Digest {
        let leaf = leaf_hash(bytes);
        if self.is_empty() {
            self.hlc_first = entry.hlc;
        }
        self.tree.push(leaf);
        self.hlc_last = entry.hlc;
        self.last_leaf = leaf;
        if matches!(entry.body, Body::Seal(_)) {
            self.segment += 1;
            self.first = self.tree.size();
            self.prev_seal = leaf;
            self.bytes = 0;
            self.keys.clear();
        } else {
            self.bytes += bytes.len() as u64;
            entry.updates().iter().for_each(|update| self.keys.insert(&update.key));
        }
        leaf
    }

    /// Whether the segment is to be cut at the time `now`.
    #[must_use]
    pub fn due(&self, limits: &SealLimits, now: Hlc) -> bool {
        let since = |then: Hlc| Duration::from_micros(now.micros().saturating_sub(then.micros()));
        if self.is_empty() {
            return self.size() > Version::ZERO && since(self.hlc_last) >= limits.heartbeat;
        }
        self.bytes >= limits.bytes
            || self.count() + 1 >= limits.entries
            || since(self.hlc_first) >= limits.age
    }

    /// What a SEAL at the time `hlc` must say.
    #[must_use]
    pub fn seal(&self, hlc: Hlc) -> Seal {
        let (hlc_first, hlc_last) =
            if self.is_empty() { (hlc, hlc) } else { (self.hlc_first, self.hlc_last) };
        Seal {
            segment: self.segment,
            first: self.first,
            count: self.count() + 1,
            prev_seal: self.prev_seal,
            root_before: self.tree.root(),
            keys_root: self.keys.root(),
            hlc_first,
            hlc_last,
            policy_epoch: 0,
        }
    }

    /// The SEAL entry that closes the segment at the time `hlc`.
    #[must_use]
    pub fn make_seal(&self, hlc: Hlc, view: ViewId) -> Entry {
        Entry { hlc, view, body: Body::Seal(self.seal(hlc)) }
    }

    /// Entries of the open segment so far.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.size().since(self.first)).unwrap_or(u32::MAX - 1)
    }

    /// Whether the open segment has no entry yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.size() == self.first
    }

    /// Bytes of the open segment's entries.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of the open segment.
    #[must_use]
    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// First entry of the open segment.
    #[must_use]
    pub fn first(&self) -> Version {
        self.first
    }

    /// Leaf hash of the last SEAL; zero before the first.
    #[must_use]
    pub fn prev_seal(&self) -> Digest {
        self.prev_seal
    }

    /// Entries of the ledger so far.
    #[must_use]
    pub fn size(&self) -> Version {
        self.tree.size()
    }

    /// The right edge of the ledger's tree.
    #[must_use]
    pub fn tree(&self) -> &CompactRange {
        &self.tree
    }

    /// Time of the last entry; zero before the first.
    #[must_use]
    pub fn last_hlc(&self) -> Hlc {
        self.hlc_last
    }

    /// Leaf hash of the last entry; zero before the first.
    #[must_use]
    pub fn last_leaf(&self) -> Digest {
        self.last_leaf
    }
}
