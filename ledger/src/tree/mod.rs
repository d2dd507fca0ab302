//! The RFC 6962 Merkle tree over a ledger's entries, with SHA-256.
//!
//! A *node* `(level, index)` is the hash of the full subtree over the leaves
//! `index * 2^level .. (index + 1) * 2^level`. Full subtrees never change, so they are all that is ever
//! stored ([`HashSource`]); roots and proofs of any size are put together from them.

mod proof;

use alloc::vec::Vec;

pub use proof::{
    ProofError, consistency_proof, inclusion_proof, root_from_inclusion, verify_consistency,
    verify_inclusion,
};
use sha2::{Digest as _, Sha256, block_api::compress256};

use crate::ids::{Digest, Version};

/// Hash of a leaf: `SHA-256(00 || entry)` (RFC 6962, section 2.1).
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Digest {
    if entry.len() <= SHORT {
        return short_hash::<2, _>(0, [entry]);
    }
    if entry.len() <= MEDIUM {
        return short_hash::<8, _>(0, [entry]);
    }
    let mut hash = Sha256::new();
    hash.update([0]);
    hash.update(entry);
    Digest(hash.finalize().into())
}

/// Hash of an inner node: `SHA-256(01 || left || right)` (RFC 6962, section 2.1).
#[must_use]
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    short_hash::<2, _>(1, [&left.0, &right.0])
}

/// Bytes that fit two blocks, and eight, beside a prefix and the end of a message.
const SHORT: usize = 2 * 64 - 10;
const MEDIUM: usize = 8 * 64 - 10;

/// The state that SHA-256 begins with (FIPS 180-4, section 5.3.3).
const BEGIN: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// `SHA-256(prefix || parts)` of a message that fits so many blocks with its end: padded here (FIPS 180-4, section 5.1.1)
/// and hashed in one go, which takes a tenth to a fifth less than a hasher that takes whatever comes. Most of a node's
/// hashing is of such messages.
fn short_hash<const BLOCKS: usize, const PARTS: usize>(
    prefix: u8,
    parts: [&[u8]; PARTS],
) -> Digest {
    let mut blocks = [[0; 64]; BLOCKS];
    let bytes = blocks.as_flattened_mut();
    bytes[0] = prefix;
    let mut len = 1;
    for part in parts {
        bytes[len..len + part.len()].copy_from_slice(part);
        len += part.len();
    }
    bytes[len] = 0x80;
    let used = (len + 9).div_ceil(64);
    bytes[used * 64 - 8..used * 64].copy_from_slice(&(8 * len as u64).to_be_bytes());
    let mut state = BEGIN;
    compress256(&mut state, &blocks[..used]);
    let mut digest = [0; 32];
    for (bytes, word) in digest.as_chunks_mut().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    Digest(digest)
}

/// Root of the tree without leaves: `SHA-256("")`.
#[must_use]
pub fn empty_root() -> Digest {
    value_digest(&[])
}

/// Plain SHA-256: names a detached value.
#[must_use]
pub fn value_digest(value: &[u8]) -> Digest {
    Digest(Sha256::digest(value).into())
}

/// [`value_digest`], of a value that comes in pieces.
#[derive(Clone, Debug, Default)]
pub struct ValueHasher(Sha256);

impl ValueHasher {
    /// What follows in the value.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was given.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// The right edge of a growing tree: the roots of its maximal full subtrees, widest first. It costs
/// O(log size) memory and gives the root after each push.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactRange {
    size: u64,
    parts: Vec<Digest>,
}

impl CompactRange {
    /// The empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes up a tree of `size` leaves from the roots of its maximal full subtrees, widest first;
    /// `None` unless there is one part for each 1 bit of `size`.
    #[must_use]
    pub fn from_parts(size: Version, parts: Vec<Digest>) -> Option<Self> {
        let fits = parts.len() == size.0.count_ones() as usize;
        fits.then_some(Self { size: size.0, parts })
    }

    /// Adds a leaf.
    pub fn push(&mut self, leaf: Digest) {
        self.push_with(leaf, |_, _, _| ());
    }

    /// Adds a leaf and tells `node(level, index, hash)` of every full subtree that this completes,
    /// the leaf itself (level 0) first.
    pub fn push_with(&mut self, leaf: Digest, mut node: impl FnMut(u8, u64, Digest)) {
        let mut hash = leaf;
        node(0, self.size, hash);
        // Each trailing 1 bit of the size is a full subtree that the new leaf completes to a wider one.
        for level in 1..=self.size.trailing_ones() {
            let left = self.parts.pop().expect("one part for each 1 bit of the size");
            hash = node_hash(&left, &hash);
            node(level as u8, self.size >> level, hash);
        }
        self.parts.push(hash);
        self.size = self.size.checked_add(1).expect("a ledger never reaches 2^64 entries");
    }

    /// The root over all leaves so far.
    #[must_use]
    pub fn root(&self) -> Digest {
        fold_parts(self.parts.iter().rev().copied())
    }

    /// Leaves so far.
    #[must_use]
    pub fn size(&self) -> Version {
        Version(self.size)
    }

    /// The roots of the maximal full subtrees, widest first.
    #[must_use]
    pub fn parts(&self) -> &[Digest] {
        &self.parts
    }
}

/// The root over parts given from the narrowest to the widest.
fn fold_parts(parts: impl Iterator<Item = Digest>) -> Digest {
    parts.reduce(|right, left| node_hash(&left, &right)).unwrap_or_else(empty_root)
}

/// The RFC 6962 root over a list of leaf hashes.
#[must_use]
pub fn root_of(leaves: impl IntoIterator<Item = Digest>) -> Digest {
    let mut range = CompactRange::new();
    leaves.into_iter().for_each(|leaf| range.push(leaf));
    range.root()
}

/// Gives the hashes of full subtrees.
pub trait HashSource {
    /// The hash over the leaves `index * 2^level .. (index + 1) * 2^level`; `None` if it is not held
    /// (the tree is smaller, or it cannot be read).
    fn node(&self, level: u8, index: u64) -> Option<Digest>;
}

impl<T: HashSource + ?Sized> HashSource for &T {
    fn node(&self, level: u8, index: u64) -> Option<Digest> {
        (**self).node(level, index)
    }
}

/// A node that a computation needs is not held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tree's node at level {level}, index {index} is not held")]
pub struct MissingNode {
    /// Level of the node: it covers `2^level` leaves.
    pub level: u8,
    /// Index within the level.
    pub index: u64,
}

/// The maximal full subtrees of the leaves `begin .. end`, from left to right, as `(level, index)`.
/// `begin` must be a multiple of the widest power of two that is at most `end - begin`, as it is for
/// the subtrees of RFC 6962.
fn full_subtrees(begin: u64, end: u64) -> impl Iterator<Item = (u8, u64)> {
    let mut at = begin;
    core::iter::from_fn(move || {
        let rest = end.checked_sub(at).filter(|rest| *rest > 0)?;
        let level = rest.ilog2();
        let index = at >> level;
        at += 1 << level;
        Some((level as u8, index))
    })
}

/// Root of the subtree over the leaves `begin .. end`; see [`full_subtrees`] for what is allowed.
fn subtree(source: &impl HashSource, begin: u64, end: u64) -> Result<Digest, MissingNode> {
    let mut parts = Vec::new();
    for (level, index) in full_subtrees(begin, end) {
        parts.push(source.node(level, index).ok_or(MissingNode { level, index })?);
    }
    Ok(fold_parts(parts.into_iter().rev()))
}

/// The root of the first `size` leaves. Fails if the source does not hold a node that it takes.
pub fn root_at(source: &impl HashSource, size: Version) -> Result<Digest, MissingNode> {
    subtree(source, 0, size.0)
}

/// The right edge at `size`, to go on from there. Fails if the source does not hold a part of it.
pub fn compact_range_at(
    source: &impl HashSource,
    size: Version,
) -> Result<CompactRange, MissingNode> {
    let part = |(level, index)| source.node(level, index).ok_or(MissingNode { level, index });
    let parts = full_subtrees(0, size.0).map(part).collect::<Result<_, _>>()?;
    Ok(CompactRange { size: size.0, parts })
}

/// A whole tree in memory, 64 bytes a leaf: for tests, tools, and the not yet published tail.
#[derive(Clone, Debug, Default)]
pub struct MemoryTree {
    levels: Vec<Vec<Digest>>,
    range: CompactRange,
}

impl MemoryTree {
    /// The empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a leaf.
    pub fn push(&mut self, leaf: Digest) {
        let levels = &mut self.levels;
        self.range.push_with(leaf, |level, _, hash| {
            let level = usize::from(level);
            if level == levels.len() {
                levels.push(Vec::new());
            }
            levels[level].push(hash);
        });
    }

    /// Leaves so far.
    #[must_use]
    pub fn size(&self) -> Version {
        self.range.size()
    }

    /// The root over all leaves so far.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.range.root()
    }
}

impl HashSource for MemoryTree {
    fn node(&self, level: u8, index: u64) -> Option<Digest> {
        let level = self.levels.get(usize::from(level))?;
        level.get(usize::try_from(index).ok()?).copied()
    }
}

impl FromIterator<Digest> for MemoryTree {
    fn from_iter<I: IntoIterator<Item = Digest>>(leaves: I) -> Self {
        let mut tree = Self::new();
        leaves.into_iter().for_each(|leaf| tree.push(leaf));
        tree
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_any_length_are_those_of_sha_256() {
        let bytes: Vec<u8> = (0..2 * MEDIUM).map(|at| (at * 7) as u8).collect();
        for len in 0..bytes.len() {
            let mut whole = Vec::from([0]);
            whole.extend_from_slice(&bytes[..len]);
            assert_eq!(leaf_hash(&bytes[..len]), value_digest(&whole), "{len} bytes");
        }
        let (left, right) = (value_digest(&[1]), value_digest(&[2]));
        let whole = [&[1][..], &left.0, &right.0].concat();
        assert_eq!(node_hash(&left, &right), value_digest(&whole));
    }
}
