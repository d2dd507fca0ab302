//! Entries: what a ledger holds, one a leaf.
//!
//! The encoding is canonical (each entry has exactly one) and laid down for ever in
//! `docs/formats/entry.md`; its bytes are what is hashed. Decoding is strict: unknown versions, kinds
//! and tags, values out of range, and trailing bytes are errors, and no length is trusted before it
//! was compared with what is there.

mod codec;
mod error;

use alloc::string::String;
use alloc::vec::Vec;

pub use error::EntryError;

use crate::ids::{Digest, Hlc, KeyVersion, LedgerId, Lineage, RequestId, Version, ViewId};
use crate::tree::leaf_hash;

/// Version of the entry layout, the first byte of every entry.
pub const ENTRY_FORMAT: u8 = 1;
/// Bytes of an entry at most: C2SP entry bundles count them in 16 bits.
pub const MAX_ENTRY: usize = 65_535;
/// Bytes of a key at most; at least one.
pub const MAX_KEY: usize = 4_096;
/// Bytes of a value that may stand in the entry; a longer one is detached.
pub const MAX_INLINE_VALUE: usize = 32 * 1024;
/// Bytes of any value at most.
pub const MAX_VALUE: u64 = 128 << 20;
/// Members of a site at most.
pub const MAX_MEMBERS: usize = 255;

/// One leaf of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was delivered; strictly increasing along a ledger.
    pub hlc: Hlc,
    /// The view it was delivered in.
    pub view: ViewId,
    /// What it says.
    pub body: Body,
}

/// What an entry says. The kinds KEY, POLICY and ERASE have reserved bytes and no layout yet: decoding
/// one is [`EntryError::Unsupported`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A key got a value.
    Put(Write),
    /// A key was deleted.
    Delete(Write),
    /// Several keys changed at once.
    Txn(Txn),
    /// The end of a segment.
    Seal(Seal),
    /// A new view: its members.
    View(ViewRecord),
    /// What the state was after so many entries.
    Snapshot(SnapshotRecord),
    /// The beginning of the ledger.
    Genesis(Genesis),
}

/// One key's change by one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The request that asked for it.
    pub request: RequestId,
    /// The change; its value is `Some` in a put and `None` in a delete.
    pub update: Update,
}

/// Several keys' changes by one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    /// The request that asked for it.
    pub request: RequestId,
    /// The changes, by strictly ascending key.
    pub updates: Vec<Update>,
}

/// The change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The key, 1 to [`MAX_KEY`] bytes.
    pub key: Vec<u8>,
    /// Counts the changes of this key, from 1.
    pub key_version: KeyVersion,
    /// The entry that changed this key before; `None` iff `key_version` is 1.
    pub prev_version: Option<Version>,
    /// The new value; `None` deletes.
    pub value: Option<Value>,
}

/// A value, or what stands for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// In the entry itself, up to [`MAX_INLINE_VALUE`] bytes.
    Inline(Vec<u8>),
    /// Beside the ledger: the entry commits to its length and SHA-256.
    Detached {
        /// Bytes of the value, up to [`MAX_VALUE`].
        len: u64,
        /// SHA-256 of the value.
        digest: Digest,
    },
}

/// A node of a site: its name and Ed25519 key.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// The node's name in the topology.
    pub name: String,
    /// Its Ed25519 public key.
    pub public_key: [u8; 32],
}

/// The first entry of a ledger: whose it is and whom to believe. Its time and view are 0, so that all
/// nodes make the same bytes from the same topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// The deployment's name.
    pub deployment: String,
    /// The home site's name.
    pub site: String,
    /// Pool and shard.
    pub ledger: LedgerId,
    /// The nodes of the first view that hold this shard, by rank. Names and keys are distinct.
    pub members: Vec<Member>,
}

/// The first entry of each view after the genesis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewRecord {
    /// The new view; the same as the entry's.
    pub view: ViewId,
    /// Its members, by rank. Names and keys are distinct.
    pub members: Vec<Member>,
}

/// The last entry of a segment: chains it to the one before. See `docs/formats/ledger.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Number of the segment, from 0.
    pub segment: u64,
    /// Its first entry.
    pub first: Version,
    /// Its entries, this one included.
    pub count: u32,
    /// Leaf hash of the previous SEAL; zero in segment 0.
    pub prev_seal: Digest,
    /// Root over all entries before this one.
    pub root_before: Digest,
    /// RFC 6962 root over the segment's distinct keys in ascending order.
    pub keys_root: Digest,
    /// Time of the segment's first entry; of the SEAL itself if there is no other.
    pub hlc_first: Hlc,
    /// Time of the last entry before the SEAL; of the SEAL itself if there is none in the segment.
    pub hlc_last: Hlc,
    /// Number of the policy in force.
    pub policy_epoch: u64,
}

/// Commits the ledger to the state after its first `size` entries. Replicas that made a snapshot there agreed
/// on it; see `docs/formats/snapshot.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SnapshotRecord {
    /// Entries that the state is of; none of them is this one.
    pub size: Version,
    /// RFC 6962 root over the snapshot's chunks, as far as they are committed: values by their SHA-256.
    pub root: Digest,
    /// How many chunks there are, at least one.
    pub chunks: u32,
    /// Bytes of all chunks with their values.
    pub bytes: u64,
}

impl Entry {
    /// Appends the canonical encoding to `out`.
    ///
    /// # Errors
    /// If the entry has no encoding: something is out of range, doubled or out of order. `out` is then
    /// as before.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EntryError> {
        codec::encode(self, out)
    }

    /// The canonical encoding on its own; as [`Entry::encode`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, EntryError> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads an entry that takes up all of `bytes`. Re-encoding gives the same bytes.
    ///
    /// # Errors
    /// On anything but a canonical encoding of this format version.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        codec::decode(bytes)
    }

    /// The keys it changes, with what it does to them.
    #[must_use]
    pub fn updates(&self) -> &[Update] {
        match &self.body {
            Body::Put(write) | Body::Delete(write) => core::slice::from_ref(&write.update),
            Body::Txn(txn) => &txn.updates,
            Body::Seal(_) | Body::View(_) | Body::Snapshot(_) | Body::Genesis(_) => &[],
        }
    }

    /// The request that caused it, if a client did.
    #[must_use]
    pub fn request(&self) -> Option<RequestId> {
        match &self.body {
            Body::Put(write) | Body::Delete(write) => Some(write.request),
            Body::Txn(txn) => Some(txn.request),
            Body::Seal(_) | Body::View(_) | Body::Snapshot(_) | Body::Genesis(_) => None,
        }
    }
}

impl Genesis {
    /// The origin line of the ledger's checkpoints, and the name of its keys:
    /// `{deployment}/{site}/{pool}/{shard}`.
    #[must_use]
    pub fn origin(&self) -> String {
        let Self { deployment, site, ledger, .. } = self;
        alloc::format!("{deployment}/{site}/{}/{}", ledger.pool(), ledger.shard())
    }

    /// How many members are a majority.
    #[must_use]
    pub fn quorum(&self) -> usize {
        quorum(self.members.len())
    }

    /// The genesis entry: time 0, view 0.
    #[must_use]
    pub fn into_entry(self) -> Entry {
        Entry { hlc: Hlc(0), view: ViewId(0), body: Body::Genesis(self) }
    }

    /// The identity of the ledger that begins with this genesis. Fails if it has no encoding.
    pub fn lineage(&self) -> Result<Lineage, EntryError> {
        let bytes = self.clone().into_entry().to_bytes()?;
        Ok(Lineage(leaf_hash(&bytes)))
    }
}

/// How many of `members` are a majority.
#[must_use]
pub fn quorum(members: usize) -> usize {
    members / 2 + 1
}
