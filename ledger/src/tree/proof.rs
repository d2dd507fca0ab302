//! Inclusion and consistency proofs: made as in RFC 6962, section 2.1, checked as in RFC 9162,
//! sections 2.1.3.2 and 2.1.4.2.

use alloc::vec::Vec;

use super::{HashSource, MissingNode, empty_root, node_hash, subtree};
use crate::ids::{Digest, Version};

/// Why a proof cannot be made or does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The entry is not in a tree of that size.
    #[error("entry {index} is not in a tree of {size} entries")]
    OutOfTree {
        /// The entry asked for.
        index: Version,
        /// The tree's size.
        size: Version,
    },
    /// The older tree is larger than the newer.
    #[error("the older tree has {old} entries, more than the {new} of the newer")]
    Shrinks {
        /// Size of the older.
        old: Version,
        /// Size of the newer.
        new: Version,
    },
    /// The number of hashes does not fit the positions.
    #[error("a proof of {found} hashes where {expected} are needed")]
    Length {
        /// Hashes given.
        found: usize,
        /// Hashes needed.
        expected: usize,
    },
    /// The hashes lead to another root.
    #[error("the proof leads to root {computed}, not to {expected}")]
    Root {
        /// What the proof gives.
        computed: Digest,
        /// What it should give.
        expected: Digest,
    },
    /// A node needed to make the proof is not held.
    #[error(transparent)]
    Missing(#[from] MissingNode),
}

/// The widest power of two below `leaves` (which is at least 2).
fn split(leaves: u64) -> u64 {
    1 << (leaves - 1).ilog2()
}

/// `PATH(index, D[size])`: the hashes from the leaf's sibling up to the root's child.
///
/// # Errors
/// If `index >= size` or the source lacks a node.
pub fn inclusion_proof(
    source: &impl HashSource,
    index: Version,
    size: Version,
) -> Result<Vec<Digest>, ProofError> {
    if index >= size {
        return Err(ProofError::OutOfTree { index, size });
    }
    let (mut begin, mut end) = (0, size.0);
    let mut path = Vec::new();
    while end - begin > 1 {
        let middle = begin + split(end - begin);
        if index.0 < middle {
            path.push(subtree(source, middle, end)?);
            end = middle;
        } else {
            path.push(subtree(source, begin, middle)?);
            begin = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The root that an inclusion proof leads to.
///
/// # Errors
/// If `index >= size` or the proof has not exactly the hashes that these positions need.
pub fn root_from_inclusion(
    leaf: &Digest,
    index: Version,
    size: Version,
    proof: &[Digest],
) -> Result<Digest, ProofError> {
    if index >= size {
        return Err(ProofError::OutOfTree { index, size });
    }
    let expected = inclusion_len(index.0, size.0);
    if proof.len() != expected {
        return Err(ProofError::Length { found: proof.len(), expected });
    }
    let (mut node, mut last) = (index.0, size.0 - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            // A node at the right edge without a sibling is its own parent.
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    Ok(hash)
}

/// Hashes of an inclusion proof: the levels up to where the paths of the leaf and of the last leaf
/// meet, then one for each left sibling.
fn inclusion_len(index: u64, size: u64) -> usize {
    let apart = index ^ (size - 1);
    let inner = u64::BITS - apart.leading_zeros();
    let border = index.checked_shr(inner).unwrap_or(0).count_ones();
    (inner + border) as usize
}

/// Whether `leaf` is entry `index` of the tree with `size` entries and this root.
///
/// # Errors
/// If it is not, or the proof has another length than needed.
pub fn verify_inclusion(
    leaf: &Digest,
    index: Version,
    size: Version,
    proof: &[Digest],
    root: &Digest,
) -> Result<(), ProofError> {
    let computed = root_from_inclusion(leaf, index, size, proof)?;
    if computed == *root { Ok(()) } else { Err(ProofError::Root { computed, expected: *root }) }
}

/// `PROOF(old, D[new])`: shows that the tree of `old` entries is a prefix of the one of `new`. Empty
/// if `old` is 0 or equals `new`.
///
/// # Errors
/// If `old > new` or the source lacks a node.
pub fn consistency_proof(
    source: &impl HashSource,
    old: Version,
    new: Version,
) -> Result<Vec<Digest>, ProofError> {
    if old > new {
        return Err(ProofError::Shrinks { old, new });
    }
    let mut path = Vec::new();
    if old == Version::ZERO || old == new {
        return Ok(path);
    }
    let (mut begin, mut end) = (0, new.0);
    while old.0 != end {
        let middle = begin + split(end - begin);
        if old.0 <= middle {
            path.push(subtree(source, middle, end)?);
            end = middle;
        } else {
            path.push(subtree(source, begin, middle)?);
            begin = middle;
        }
    }
    // The remaining subtree belongs to both; if it is the whole old tree the checker knows its hash.
    if begin != 0 {
        path.push(subtree(source, begin, end)?);
    }
    path.reverse();
    Ok(path)
}

/// Hashes of a consistency proof between two sizes, `0 < old < new`.
fn consistency_len(old: u64, new: u64) -> usize {
    let shift = old.trailing_zeros();
    let whole_old_tree = old.is_power_of_two();
    // The path of the old tree's last full subtree within the new tree, and its own hash first
    // unless that is the old root.
    let path = inclusion_len((old - 1) >> shift, ((new - 1) >> shift) + 1);
    path + usize::from(!whole_old_tree)
}

/// Whether the tree `(old, old_root)` is a prefix of `(new, new_root)`.
///
/// # Errors
/// If it is not, or the proof has another length than needed.
pub fn verify_consistency(
    old: Version,
    new: Version,
    old_root: &Digest,
    new_root: &Digest,
    proof: &[Digest],
) -> Result<(), ProofError> {
    let same = |computed: Digest, expected: Digest| {
        if computed == expected { Ok(()) } else { Err(ProofError::Root { computed, expected }) }
    };
    if old > new {
        return Err(ProofError::Shrinks { old, new });
    }
    if old == Version::ZERO || old == new {
        if !proof.is_empty() {
            return Err(ProofError::Length { found: proof.len(), expected: 0 });
        }
        return same(*old_root, if old == new { *new_root } else { empty_root() });
    }
    let expected = consistency_len(old.0, new.0);
    if proof.len() != expected {
        return Err(ProofError::Length { found: proof.len(), expected });
    }
    let (first, rest) =
        if old.0.is_power_of_two() { (*old_root, proof) } else { (proof[0], &proof[1..]) };
    let shift = (old.0 - 1).trailing_ones();
    let (mut node, mut last) = ((old.0 - 1) >> shift, (new.0 - 1) >> shift);
    let (mut old_hash, mut new_hash) = (first, first);
    for hash in rest {
        if node & 1 == 1 || node == last {
            old_hash = node_hash(hash, &old_hash);
            new_hash = node_hash(hash, &new_hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, hash);
        }
        node >>= 1;
        last >>= 1;
    }
    same(old_hash, *old_root)?;
    same(new_hash, *new_root)
}
