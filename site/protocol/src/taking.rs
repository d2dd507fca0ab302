//! A snapshot that a node takes from others, part by part, because they pruned the entries that it lacks
//! (docs/protocol.md, section 8). What is asked of whom, and when, is in `formation::taking`.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
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

/// What came of a part, piece by piece. It outlives the attempt that fetched it, so that a large one arrives even if no single
/// attempt lasts long enough for it.
#[derive(Clone, Default, Debug)]
pub(crate) struct Coming {
    of: Option<(Version, Want)>,
    bytes: Vec<u8>,
}

impl Coming {
    /// Goes on with a part of the snapshot of `size` entries; what came of another one is forgotten. A manifest is begun
    /// anew, for sources may have different ones.
    pub(crate) fn go_on(&mut self, size: Version, want: Want) {
        let of = Some((size, want));
        if self.of != of || want == Want::Part(Part::Manifest) {
            *self = Self { of, bytes: Vec::new() };
        }
    }

    /// How many bytes are here.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Takes the next piece of what has `total` bytes. Returns whether all are here.
    ///
    /// # Errors
    /// In words why it is no piece of it.
    pub(crate) fn add(&mut self, total: u64, bytes: &[u8]) -> Result<bool, &'static str> {
        let (len, most) =
            (self.len() + bytes.len() as u64, self.of.map(|(_, want)| want.max_bytes()));
        if bytes.is_empty() && total > 0 || len > total || most.is_none_or(|most| total > most) {
            return Err("a piece of a snapshot has the wrong length");
        }
        self.bytes.extend_from_slice(bytes);
        Ok(len == total)
    }

    /// Gives what came, and forgets it.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        core::mem::take(self).bytes
    }
}

/// A snapshot of which the manifest was verified.
#[derive(Clone, Debug)]
pub(crate) struct Taking {
    manifest: Box<Manifest>,
    blocks: u32,
    chunks: u32,
    /// Detached values that are not here, with their lengths.
    missing: BTreeMap<Digest, u64>,
}

impl Taking {
    pub(crate) fn new(manifest: Box<Manifest>, held: Held) -> Self {
        let Held { blocks, chunks, missing } = held;
        let missing = missing.into_iter().map(|(len, digest)| (digest, len)).collect();
        Self { manifest, blocks, chunks, missing }
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
        if let Some((digest, len)) = self.missing.first_key_value() {
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
            Want::Value(_, digest) => _ = self.missing.remove(&digest),
        }
        self.missing.extend(missing.into_iter().map(|(len, digest)| (digest, len)));
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use tradewind_ledger::note::Checkpoint;
    use tradewind_ledger::{
        Base, Ed25519Signer, Genesis, Hlc, LedgerId, Member, Replay, Signer, ViewId,
    };

    use super::*;

    /// Of an empty state, and of no use to anybody who would check it.
    fn manifest(chunks: usize) -> Box<Manifest> {
        let signer = Ed25519Signer::from_seed(&[1; 32]);
        let genesis = Genesis {
            deployment: "test".to_string(),
            site: "ams".to_string(),
            ledger: LedgerId::new("flights", 0).expect("a name"),
            members: alloc::vec![Member {
                name: "a1".to_string(),
                public_key: signer.public_key()
            }],
        };
        let (size, root, origin) = (Version(2), Digest::ZERO, genesis.origin());
        let mut replay = Replay::new();
        replay.push(&genesis.into_entry().to_bytes().expect("a genesis")).expect("it is the first");
        let seal = replay.segment().make_seal(Hlc(1), ViewId(0));
        replay.push(&seal.to_bytes().expect("a SEAL")).expect("it is the next");
        let checkpoint = Checkpoint { origin, size, root };
        let signature = checkpoint.sign(&signer);
        Box::new(Manifest {
            note: checkpoint.with_signatures(alloc::vec![signature]).expect("a note"),
            version: size,
            entry: Vec::new(),
            inclusion: Vec::new(),
            base: Base::clone(replay.base().expect("a SEAL")),
            consistency: Vec::new(),
            chunks: alloc::vec![Digest::ZERO; chunks],
            blocks: Vec::new(),
        })
    }

    fn value(number: u32) -> (u64, Digest) {
        let mut digest = Digest::ZERO;
        digest.0[..4].copy_from_slice(&number.to_be_bytes());
        (u64::from(number), digest)
    }

    #[test]
    fn values_come_before_the_next_chunk_each_once_however_many_there_are() {
        let many = 100_000;
        let missing = alloc::vec![value(1), value(2)];
        let mut taking = Taking::new(manifest(2), Held { blocks: 0, chunks: 0, missing });
        // A chunk names some that are known to be missing, and one twice.
        let named = (0..many).chain([5]).map(value).collect();
        taking.kept(Want::Part(Part::Chunk(0)), named);
        let mut came = 0;
        while let Some(want @ Want::Value(..)) = taking.next() {
            taking.kept(want, Vec::new());
            came += 1;
        }
        assert_eq!((came, taking.next()), (many, Some(Want::Part(Part::Chunk(1)))));
        taking.kept(Want::Part(Part::Chunk(1)), Vec::new());
        assert_eq!(taking.next(), None);
    }
}
