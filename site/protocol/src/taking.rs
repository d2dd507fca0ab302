//! A snapshot that a node takes from others, part by part, because they pruned the entries that it lacks
//! (docs/protocol.md, section 8). What is asked of whom, and when, is in `formation::taking`.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use tradewind_ledger::manifest::BLOCK_LEAVES;
use tradewind_ledger::tree::root_of;
use tradewind_ledger::{Body, Digest, Entry, Manifest, SnapshotRecord, Version};
use tradewind_store::snapshot::{Chunk, MAX_CHUNK};

/// Bytes of a manifest at most: that of a state of a TiB after 10^9 entries has 40 MB.
const MAX_MANIFEST: u64 = 64 << 20;

/// A part of a snapshot, as it travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Part {
    /// What the other parts have to be.
    Manifest,
    /// Leaf hashes of the entries before it, one after the other.
    Block(u32),
    /// A chunk as it stands in a snapshot's file: two lengths, what is committed, values.
    Chunk(u32),
}

/// What of a snapshot is on the own disk. Blocks and chunks are kept in their order.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Held {
    /// How many blocks.
    pub blocks: u32,
    /// How many chunks.
    pub chunks: u32,
    /// Detached values that those chunks name and that are not there, with their lengths.
    pub missing: Vec<(u64, Digest)>,
}

/// What is to be fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Want {
    Part(Part),
    /// A detached value, of so many bytes.
    Value(u64, Digest),
}

impl Want {
    /// Bytes of it at most.
    pub(crate) fn max_bytes(self) -> u64 {
        match self {
            Want::Part(Part::Manifest) => MAX_MANIFEST,
            Want::Part(Part::Block(_)) => BLOCK_LEAVES * 32,
            Want::Part(Part::Chunk(_)) => 8 + MAX_CHUNK as u64,
            Want::Value(len, _) => len,
        }
    }
}

/// A snapshot of which the manifest was verified.
#[derive(Clone, Debug)]
pub(crate) struct Taking {
    manifest: Box<Manifest>,
    blocks: u32,
    chunks: u32,
    missing: VecDeque<(u64, Digest)>,
}

impl Taking {
    pub(crate) fn new(manifest: Box<Manifest>, held: Held) -> Self {
        let Held { blocks, chunks, missing } = held;
        Self { manifest, blocks, chunks, missing: missing.into() }
    }

    /// Entries that the snapshot is of.
    pub(crate) fn size(&self) -> Version {
        self.manifest.base.size()
    }

    /// What the ledger holds of it, and where, as a majority signed.
    pub(crate) fn agreed(&self) -> Option<(Version, SnapshotRecord)> {
        match Entry::decode(&self.manifest.entry).ok()?.body {
            Body::Snapshot(record) => Some((self.manifest.version, record)),
            _ => None,
        }
    }

    /// What to fetch next; `None` if all of it is here. Values first: so no more of their names wait than one chunk has.
    pub(crate) fn next(&self) -> Option<Want> {
        if let Some((len, digest)) = self.missing.front() {
            return Some(Want::Value(*len, *digest));
        }
        if (self.blocks as usize) < self.manifest.blocks.len() {
            return Some(Want::Part(Part::Block(self.blocks)));
        }
        let more = (self.chunks as usize) < self.manifest.chunks.len();
        more.then_some(Want::Part(Part::Chunk(self.chunks)))
    }

    /// Whether a part is what the manifest says.
    ///
    /// # Errors
    /// In words what it is instead.
    pub(crate) fn check(&self, part: Part, bytes: &[u8]) -> Result<(), &'static str> {
        match part {
            Part::Manifest => Err("a manifest is no part of its own"),
            Part::Block(index) => {
                let (hashes, rest) = bytes.as_chunks::<32>();
                let root = root_of(hashes.iter().copied().map(Digest));
                let first = u64::from(index) * BLOCK_LEAVES;
                let leaves = self.size().0.saturating_sub(first).min(BLOCK_LEAVES);
                let fits = rest.is_empty() && hashes.len() as u64 == leaves;
                match self.manifest.blocks.get(index as usize) == Some(&root) && fits {
                    true => Ok(()),
                    false => Err("leaf hashes that are not those of the ledger"),
                }
            }
            Part::Chunk(index) => {
                let other = "a chunk that is not the one that the ledger commits to";
                let chunk = Chunk::from_bytes(bytes).ok_or(other)?;
                if self.manifest.chunks.get(index as usize) != Some(&chunk.leaf()) {
                    return Err(other);
                }
                chunk.detached(index == 0).map(drop).map_err(|_| other)
            }
        }
    }

    /// This is on disk, and names values that are not.
    pub(crate) fn kept(&mut self, want: Want, missing: Vec<(u64, Digest)>) {
        match want {
            Want::Part(Part::Block(index)) => self.blocks = self.blocks.max(index + 1),
            Want::Part(Part::Chunk(index)) => self.chunks = self.chunks.max(index + 1),
            Want::Part(Part::Manifest) => {}
            Want::Value(_, digest) => self.missing.retain(|(_, other)| *other != digest),
        }
        for (len, digest) in missing {
            if self.missing.iter().all(|(_, other)| *other != digest) {
                self.missing.push_back((len, digest));
            }
        }
    }
}
