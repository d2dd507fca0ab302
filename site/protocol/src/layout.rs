//! Where each column lies in a row. All rows of a view have the same layout, whatever shards their owner
//! has a part in, so that an offset means the same at every node (docs/protocol.md, section 1).

use alloc::vec::Vec;
use core::ops::Range;

use crate::ids::{NodeId, ShardIndex};

/// Bytes of a counter.
const COUNTER: usize = 8;
/// Blocks begin at multiples of a cache line.
const LINE: usize = 64;
/// Bytes of an Ed25519 signature.
pub(crate) const SIGNATURE: usize = 64;

/// The offsets of one shard's columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShardLayout {
    counters: usize,
    senders: usize,
    signature: usize,
    ring: usize,
    bulk: usize,
}

impl ShardLayout {
    /// Messages put into the own ring.
    pub(crate) fn sent(&self) -> usize {
        self.counters
    }

    /// All own rounds below this are decided. Behind `sent` in address order: who sees a round sees the
    /// messages before it.
    pub(crate) fn rounds(&self) -> usize {
        self.counters + COUNTER
    }

    /// Entries executed.
    pub(crate) fn delivered(&self) -> usize {
        self.counters + 2 * COUNTER
    }

    /// Entries on the own disk.
    pub(crate) fn durable(&self) -> usize {
        self.counters + 3 * COUNTER
    }

    /// Messages of the sender of `rank` that were copied out of its ring.
    pub(crate) fn received(&self, rank: usize) -> usize {
        debug_assert!(rank < self.senders);
        self.counters + (4 + rank) * COUNTER
    }

    /// Blocks that were copied out of the bulk ring of the member of `rank`.
    pub(crate) fn taken(&self, rank: usize) -> usize {
        debug_assert!(rank < self.senders);
        self.counters + (4 + self.senders + rank) * COUNTER
    }

    /// Bodies of the member of `rank` that are here, whole and on the own disk.
    pub(crate) fn held(&self, rank: usize) -> usize {
        debug_assert!(rank < self.senders);
        self.counters + (4 + 2 * self.senders + rank) * COUNTER
    }

    /// All counters above, as one range to publish.
    pub(crate) fn counters(&self) -> Range<usize> {
        self.counters..self.counters + Self::columns(self.senders) * COUNTER
    }

    /// How many counters there are.
    pub(crate) fn columns(senders: usize) -> usize {
        4 + 3 * senders
    }

    /// Size of the last checkpoint that this node signed.
    pub(crate) fn signed_size(&self) -> Range<usize> {
        self.signature..self.signature + COUNTER
    }

    /// The signature over it.
    pub(crate) fn signature(&self) -> Range<usize> {
        self.signature + COUNTER..self.signature + COUNTER + SIGNATURE
    }

    /// First byte of the ring.
    pub(crate) fn ring(&self) -> usize {
        self.ring
    }

    /// First byte of the bulk ring.
    pub(crate) fn bulk(&self) -> usize {
        self.bulk
    }
}

/// The layout of every row of a site.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    shards: Vec<ShardLayout>,
    row_len: usize,
}

impl Layout {
    /// The heartbeat counter of the node.
    pub(crate) const HEARTBEAT: Range<usize> = 0..COUNTER;

    /// The last barrier that the node asked for.
    pub(crate) const BARRIER_ASKED: Range<usize> = LINE..LINE + COUNTER;

    /// The last barrier of `node` that the row's owner has seen.
    pub(crate) fn barrier_seen(node: NodeId) -> Range<usize> {
        let start = Self::BARRIER_ASKED.end + node.index() * COUNTER;
        start..start + COUNTER
    }

    /// Lays out shards with these members, rings of `ring_bytes` and bulk rings of `bulk_bytes` (multiples of 64), for a
    /// site of so many nodes.
    /// Counters of all shards come first, so that they share few pages, then the rings.
    pub(crate) fn new<'a>(
        nodes: usize,
        members: impl Iterator<Item = &'a [NodeId]> + Clone,
        ring_bytes: usize,
        bulk_bytes: usize,
    ) -> Self {
        let mut at = line_up(Self::BARRIER_ASKED.end + nodes * COUNTER);
        let mut shards = Vec::new();
        for members in members {
            let senders = members.len();
            let counters = at;
            at = line_up(counters + ShardLayout::columns(senders) * COUNTER);
            let signature = at;
            at = line_up(signature + COUNTER + SIGNATURE);
            shards.push(ShardLayout { counters, senders, signature, ring: 0, bulk: 0 });
        }
        for shard in &mut shards {
            shard.ring = at;
            at += ring_bytes;
        }
        for shard in &mut shards {
            shard.bulk = at;
            at += bulk_bytes;
        }
        Self { shards, row_len: at }
    }

    /// The columns of a shard.
    pub(crate) fn shard(&self, shard: ShardIndex) -> &ShardLayout {
        &self.shards[shard.index()]
    }

    /// Bytes of a row.
    pub(crate) fn row_len(&self) -> usize {
        self.row_len
    }
}

fn line_up(offset: usize) -> usize {
    offset.next_multiple_of(LINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_do_not_overlap_and_counters_are_aligned() {
        let members = [NodeId(0), NodeId(1), NodeId(2), NodeId(3), NodeId(4)];
        let lists = [&members[..], &members[1..4]];
        let layout = Layout::new(9, lists.iter().copied(), 4096, 2048);
        let mut used = alloc::vec![Layout::HEARTBEAT, Layout::BARRIER_ASKED];
        used.extend((0..9).map(|node| Layout::barrier_seen(NodeId(node))));
        for index in 0..2 {
            let shard = layout.shard(ShardIndex(index));
            used.extend([shard.counters(), shard.signed_size(), shard.signature()]);
            used.push(shard.ring()..shard.ring() + 4096);
            used.push(shard.bulk()..shard.bulk() + 2048);
            let last = lists[usize::from(index)].len() - 1;
            assert_eq!(shard.received(last) + 8, shard.taken(0));
            assert_eq!(shard.taken(last) + 8, shard.held(0));
            assert_eq!(shard.held(last) + 8, shard.counters().end);
            assert!(shard.sent() < shard.rounds() && shard.sent().is_multiple_of(8));
        }
        used.sort_by_key(|range| range.start);
        assert!(used.windows(2).all(|pair| pair[0].end <= pair[1].start));
        assert_eq!(used.last().map(|range| range.end), Some(layout.row_len()));
    }
}
