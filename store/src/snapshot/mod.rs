//! The state after the first N entries as bytes: sorted, in chunks, under one root (docs/formats/snapshot.md).
//!
//! A snapshot is made beside the deliveries, not instead of them. Where it is due, at the end of a segment, only what
//! cannot be looked at later is [pinned](Store::pin_if_due): sessions and counts. Keys and their values are read
//! afterwards, [slice by slice](Store::slice), as they were then; those since overwritten, out of the ledger.
//!
//! A chunk has two parts. What is *committed* holds of each value its digest, and is what the root covers; the *values*
//! stand beside it. So a value that is erased changes no root.

mod decode;
mod encode;

pub use decode::{Decoder, SnapshotError};
pub use encode::Encoder;

use crate::{Item, Stats, Store, session::Sessions};
use alloc::{boxed::Box, vec::Vec};
use core::ops::Bound;
use tradewind_ledger::tree::leaf_hash;
use tradewind_ledger::{Digest, Hlc, KeyVersion, Version};

/// A chunk is closed once it has so many bytes, both parts together.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Bytes that a chunk has at most: its last record may stand out.
pub const MAX_CHUNK: usize = CHUNK_BYTES + (1 << 16);

/// First byte of a chunk.
const HEAD: u8 = 0;
const KEYS: u8 = 1;
const SESSIONS: u8 = 2;
/// What a change made of a key.
const DELETED: u8 = 0;
const INLINE: u8 = 1;
const DETACHED: u8 = 2;

/// When a snapshot is due: after so many bytes of keys and values, or so many entries, but never more often than the
/// state is written anew in the meantime. So the work for snapshots is in proportion to that for writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotRule {
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
}

impl Default for SnapshotRule {
    fn default() -> Self {
        Self::every(256 << 20)
    }
}

impl SnapshotRule {
    /// Every so many bytes of keys and values, and as many entries as have that size with small values.
    pub fn every(bytes: u64) -> Self {
        Self { bytes, entries: (bytes / 256).max(1) }
    }
}

/// What was written since a snapshot was due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Since {
    pub(crate) version: Version,
    pub(crate) bytes: u64,
}

/// What a snapshot needs that cannot be looked at later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    at: Version,
    hlc: Hlc,
    stats: Stats,
    sessions: Sessions,
}

impl Pin {
    /// The snapshot's version: it holds the state after the first so many entries.
    pub fn at(&self) -> Version {
        self.at
    }
}

/// One chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// What the root covers.
    pub committed: Vec<u8>,
    /// The values that it names, one after the other.
    pub values: Vec<u8>,
}

impl Chunk {
    /// The leaf that it is in the tree of chunks.
    pub fn leaf(&self) -> Digest {
        leaf_hash(&self.committed)
    }

    /// As it stands in a file, and travels: the lengths of both parts (4 bytes each, big-endian), and they.
    pub fn to_bytes(&self) -> Vec<u8> {
        let length = |part: &[u8]| u32::try_from(part.len()).expect("a part is much shorter");
        let lengths = [&self.committed, &self.values].map(|part| length(part).to_be_bytes());
        [&lengths.concat()[..], &self.committed, &self.values].concat()
    }

    /// Reads what [`Chunk::to_bytes`] gives, and nothing else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (committed, rest) = bytes.split_first_chunk()?;
        let (values, rest) = rest.split_first_chunk()?;
        let (committed, values) = (u32::from_be_bytes(*committed), u32::from_be_bytes(*values));
        let (committed, rest) = rest.split_at_checked(committed as usize)?;
        let fits = rest.len() == values as usize && committed.len() + rest.len() <= MAX_CHUNK;
        fits.then(|| Self { committed: committed.to_vec(), values: rest.to_vec() })
    }

    /// Checks it as far as one chunk can be, its values against their digests included; gives length and digest of each
    /// detached value that it names.
    ///
    /// # Errors
    /// [`SnapshotError`], with the chunk's number as 0.
    pub fn detached(&self, is_first: bool) -> Result<Vec<(u64, Digest)>, SnapshotError> {
        decode::detached(self, is_first)
    }

    /// Bytes of both parts.
    pub fn size(&self) -> usize {
        self.committed.len() + self.values.len()
    }
}

/// The last change of a key in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyState {
    /// The key.
    pub key: Box<[u8]>,
    /// The entry that made the change.
    pub version: Version,
    /// Which change of the key it was.
    pub key_version: KeyVersion,
    /// When.
    pub hlc: Hlc,
    /// What the key was after it; `None` if it was deleted.
    pub item: Option<Item>,
}

impl Store {
    /// Pins the state for a snapshot if one is due here, after so much that was written since the last. Takes as long
    /// as there are sessions. To be asked at the end of each segment, also in a replay: so snapshots are due at the same
    /// places wherever a replica was restarted.
    pub fn pin_if_due(&mut self, rule: &SnapshotRule) -> Option<Pin> {
        let Since { version, bytes } = self.since;
        let keys = self.stats.keys + self.stats.deleted_keys;
        let entries = self.next().0 - version.0;
        let due = bytes >= rule.bytes.max(self.stats.bytes) || entries >= rule.entries.max(keys);
        let hlc = self.last_hlc().filter(|_| due && entries > 0)?;
        let at = self.next();
        self.since = Since { version: at, bytes: 0 };
        Some(Pin { at, hlc, stats: self.stats, sessions: self.sessions.clone() })
    }

    /// Up to `limit` keys after `after`, in ascending order, with what they were at `at`, and after which one to go on.
    /// `at` is not before the [base](Store::base). Values may be [`Logged`](crate::ItemValue::Logged).
    ///
    /// # Panics
    /// If `at` is before the base, and a change that is needed is not in memory any more.
    pub fn slice(
        &self,
        at: Version,
        after: Option<&[u8]>,
        limit: usize,
    ) -> (Vec<KeyState>, Option<Box<[u8]>>) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut states = Vec::new();
        for (examined, (key, record)) in
            (1..).zip(self.keys.range::<[u8], _>((from, Bound::Unbounded)))
        {
            let before = record.before(at).expect("what is after the base is in memory");
            if let Some((key_version, change)) = before {
                let item = record.item(at, &self.timeline).expect("as its change is");
                let (version, hlc) = (change.version(), record.hlc(change, &self.timeline));
                states.push(KeyState { key: Box::from(&key[..]), version, key_version, hlc, item });
            }
            if examined >= limit {
                return (states, Some(Box::from(&key[..])));
            }
        }
        (states, None)
    }
}
