//! The part of the fabric that a core may touch.

use core::ops::Range;

use crate::ids::NodeId;

/// Symmetric one-sided memory: one row a node, written by its owner only, copied to its peers.
///
/// The core passes offsets below the `row_len` of the view's [`crate::Action::Prepare`] and
/// touches memory only between that action and the loss of a peer. What the implementation must keep:
///
/// - while the view lasts and the peer is connected, what was published becomes visible there, sooner or
///   later; when, in which order, and whether as published or as stored later, does not matter: records
///   in rings show by themselves whether they landed, and counters only grow;
/// - the counters of one shard are published as one range; within it, lower addresses do not become visible
///   after higher ones;
/// - an aligned word of eight bytes is never torn;
/// - rows of the current view are zero until their owner published in this view.
///
/// Offsets of `load` and of the ends of published ranges are multiples of eight.
pub trait Memory {
    /// Writes `bytes` to the own row at `offset`. Local: nothing moves yet.
    fn store(&mut self, offset: usize, bytes: &[u8]);
    /// Makes `range` of the own row visible at `peers`, as it is at the time of this call.
    fn publish(&mut self, range: Range<usize>, peers: &[NodeId]);
    /// The little-endian counter at `offset` (a multiple of eight) of the local copy of `peer`'s row.
    fn load(&self, peer: NodeId, offset: usize) -> u64;
    /// Copies `out.len()` bytes at `offset` of the local copy of `peer`'s row.
    fn copy(&self, peer: NodeId, offset: usize, out: &mut [u8]);
}
