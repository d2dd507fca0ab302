//! The bulk lane of a shard at one member, in one view: large values travel beside the order, in blocks, and are on
//! every member's disk before anything that names them is ordered (docs/protocol.md, section 10).
//!
//! A value that travels here is a *body*. The bodies of one sender, its own or those of others that it passes on,
//! follow each other as blocks in the sender's bulk ring, which is a ring of records like that of messages
//! ([`crate::ring`]): each reader's `taken` counter is the credit. A block begins with
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | rank of the body's sender |
//! | 8 | 8 | number of the body among those of its sender in this view, from 0 |
//! | 16 | 8 | offset of the block in the body |
//! | 24 | 8 | length of the body (offset 0 only) |
//! | 32 | 32 | its SHA-256 (offset 0 only) |
//!
//! What was taken is written to the own disk at once, piece by piece, and forgotten: memory holds what is not written
//! yet, and what is not passed on yet.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use tradewind_ledger::{Digest, Hlc, ViewId};
use tradewind_store::{Apart, Body};

use crate::action::Action;
use crate::config::{BulkLimits, Schedule};
use crate::ids::{BodyId, NodeId, ShardIndex};
use crate::layout::ShardLayout;
use crate::memory::Memory;
use crate::ring::{Flags, Header, Landed, Reader, Words, Writer};
use crate::shard::Outputs;

/// Bytes before what a block carries.
const HEAD: usize = 24;
/// And in the first block of a body.
pub(crate) const FIRST_HEAD: usize = HEAD + 40;

/// The lane.
#[derive(Clone, Debug)]
pub(crate) struct Bulk {
    shard: ShardIndex,
    own: usize,
    /// Whose sections are read here.
    sources: Vec<Source>,
    /// Who reads the own section: the next member, or all others.
    readers: Vec<NodeId>,
    /// The rank of the next member, if blocks are passed on to it.
    successor: Option<usize>,
    writer: Writer,
    /// By rank of the sender.
    lanes: Vec<Lane>,
    /// Own bodies that are not sent completely.
    outgoing: VecDeque<Outgoing>,
    /// Blocks of others that are to be passed on.
    passing: VecDeque<Block>,
    /// Whether a block of others is due before an own one.
    passes: bool,
    /// Bytes that were taken and are not written yet.
    unstaged: usize,
    /// Own bodies that were named in messages.
    ordered: u64,
    /// Whether more can be done at once, in a turn of its own.
    busy: bool,
}

/// A member whose section is read here.
#[derive(Clone, Debug)]
struct Source {
    rank: usize,
    node: NodeId,
    reader: Reader,
    taken: u64,
}

/// The bodies of one sender.
#[derive(Clone, Debug, Default)]
struct Lane {
    /// Those that are not delivered, oldest first, and the number of the first.
    bodies: VecDeque<Coming>,
    first: u64,
    /// How many, from the first of the view on, are whole and on the own disk.
    held: u64,
    /// Bytes of those that no message named yet; of the own ones, that are not delivered.
    open_bytes: u64,
    /// How many were named, or delivered.
    closed: u64,
}

/// A body at this member.
#[derive(Clone, Copy, Debug)]
struct Coming {
    id: BodyId,
    apart: Apart,
    arrived: u64,
    staged: bool,
}

/// An own body on its way.
#[derive(Clone, Debug)]
struct Outgoing {
    number: u64,
    digest: Digest,
    bytes: Bytes,
    at: usize,
}

/// A block.
#[derive(Clone, Debug)]
struct Block {
    origin: usize,
    number: u64,
    offset: u64,
    /// Of the first block: what it is a block of.
    begins: Option<Apart>,
    bytes: Bytes,
}

/// What came of a piece that was to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Staged {
    /// So many bytes more are written.
    Part(usize),
    /// The body is on disk as a whole, under a name of its own, and has the digest that was asked for.
    Whole,
    /// It has another one.
    Wrong(Digest),
}

impl Bulk {
    /// The lane of a view in which the members of these ranks are present.
    pub(crate) fn new(
        shard: ShardIndex,
        (own, members): (usize, &[NodeId]),
        others: &[(usize, NodeId)],
        (view, schedule): (ViewId, Schedule),
        ring_bytes: usize,
    ) -> Self {
        let after = others.iter().find(|(rank, _)| *rank > own).or(others.first()).copied();
        let before = others.iter().rfind(|(rank, _)| *rank < own).or(others.last()).copied();
        let chain = schedule == Schedule::Chain;
        let read: Vec<_> = if chain { before.into_iter().collect() } else { others.to_vec() };
        let readers = match chain {
            true => after.iter().map(|(_, node)| *node).collect(),
            false => others.iter().map(|(_, node)| *node).collect(),
        };
        let source = |(rank, node): (usize, NodeId)| {
            let reader = Reader::new(Words::bulk(view, node), ring_bytes);
            Source { rank, node, reader, taken: 0 }
        };
        Self {
            shard,
            own,
            sources: read.into_iter().map(source).collect(),
            readers,
            successor: after.filter(|_| chain).map(|(rank, _)| rank),
            writer: Writer::new(Words::bulk(view, members[own]), ring_bytes),
            lanes: members.iter().map(|_| Lane::default()).collect(),
            outgoing: VecDeque::new(),
            passing: VecDeque::new(),
            passes: false,
            unstaged: 0,
            ordered: 0,
            busy: false,
        }
    }

    /// Blocks that were copied out of the section of the member of `rank`.
    pub(crate) fn taken(&self, rank: usize) -> u64 {
        self.sources.iter().find(|source| source.rank == rank).map_or(0, |source| source.taken)
    }

    /// Bodies of the member of `rank` that are here, whole and on the own disk.
    pub(crate) fn held(&self, rank: usize) -> u64 {
        self.lanes[rank].held
    }

    /// Own bodies that every member holds.
    pub(crate) fn held_everywhere<M: Memory>(
        &self,
        memory: &M,
        layout: &ShardLayout,
        peers: &[NodeId],
    ) -> u64 {
        let there = peers.iter().map(|peer| memory.load(*peer, layout.held(self.own)));
        there.min().unwrap_or(u64::MAX).min(self.held(self.own))
    }

    /// Whether a reader of the own section keeps others waiting: it has not taken what is published, or it has all that
    /// there is and does not hold what is held here.
    pub(crate) fn waits_for<M: Memory>(
        &self,
        memory: &M,
        layout: &ShardLayout,
        (rank, node): (usize, NodeId),
    ) -> bool {
        if !self.readers.contains(&node) {
            return false;
        }
        if memory.load(node, layout.taken(self.own)) < self.writer.written() {
            return true;
        }
        let passed = self.successor.is_some();
        let gives = |of: usize| of == self.own || passed && of != rank;
        let lacks = |of: usize| memory.load(node, layout.held(of)) < self.held(of);
        let whole = self.outgoing.is_empty() && self.passing.is_empty();
        whole && (0..self.lanes.len()).any(|of| gives(of) && lacks(of))
    }

    /// Own bodies that are named in messages, or about to be.
    pub(crate) fn ordered(&self) -> u64 {
        self.ordered
    }

    /// Own bodies below `named` are being ordered.
    pub(crate) fn note_ordered(&mut self, named: u64) {
        self.ordered = named;
    }

    /// Whether another turn can go on at once.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Whether own bodies of so many bytes may be begun now.
    pub(crate) fn may_begin(&self, bytes: u64, limits: &BulkLimits) -> bool {
        let open = self.lanes[self.own].open_bytes;
        open == 0 || open + bytes <= limits.window_bytes as u64
    }

    /// Begins to send own bodies; returns how many there are then, from the view's beginning.
    pub(crate) fn begin(&mut self, bodies: &[Body], next: &mut BodyId, out: &mut Outputs) -> u64 {
        for Body { digest, bytes } in bodies {
            let apart = Apart { len: bytes.len() as u64, digest: *digest };
            let (id, number) = (next.take(), self.lanes[self.own].end());
            let mut body = Coming::new(id, apart);
            body.arrived = apart.len;
            self.lanes[self.own].push(body);
            if !self.readers.is_empty() {
                let bytes = bytes.clone();
                self.outgoing.push_back(Outgoing { number, digest: *digest, bytes, at: 0 });
            }
            out.counters.bodies += 1;
            // Its digest was made of these very bytes.
            let (shard, bytes) = (self.shard, bytes.clone());
            out.actions.push_back(Action::Stage {
                shard,
                body: id,
                bytes,
                last: true,
                check: None,
            });
        }
        self.lanes[self.own].end()
    }

    /// Takes blocks that have landed, and frees what of the own section was taken by all.
    ///
    /// # Errors
    /// Whose section makes no sense.
    pub(crate) fn take<M: Memory>(
        &mut self,
        memory: &M,
        layout: &ShardLayout,
        (limits, longest): (&BulkLimits, usize),
        next: &mut BodyId,
        out: &mut Outputs,
    ) -> Result<(), (NodeId, &'static str)> {
        let credit = self.readers.iter().map(|node| memory.load(*node, layout.taken(self.own)));
        if let Some(taken) = credit.min() {
            self.writer.release(taken);
        }
        self.busy = false;
        let most = limits.block_bytes + FIRST_HEAD;
        for at in 0..self.sources.len() {
            let mut left = limits.turn_bytes;
            while self.unstaged <= limits.unstaged_bytes {
                let Source { rank, node, reader, taken } = &mut self.sources[at];
                let (rank, node) = (*rank, *node);
                let fault = |problem| (node, problem);
                let landed = reader.next(memory, node, layout.bulk(), most).map_err(fault)?;
                let Some(landed) = landed else { break };
                let block = Block::read(memory, node, &landed).map_err(fault)?;
                *taken += 1;
                left = left.saturating_sub(landed.len);
                self.add(rank, block, (limits, longest), next, out).map_err(fault)?;
                if left == 0 {
                    self.busy = true;
                    break;
                }
            }
        }
        Ok(())
    }

    /// A block from the section of the member of rank `from`.
    fn add(
        &mut self,
        from: usize,
        block: Block,
        (limits, longest): (&BulkLimits, usize),
        next: &mut BodyId,
        out: &mut Outputs,
    ) -> Result<(), &'static str> {
        let passed = self.successor.is_some();
        if block.origin == self.own || !(passed || block.origin == from) {
            return Err("a block of a sender that is not to be had from there");
        }
        let lane = self.lanes.get_mut(block.origin).ok_or("a block of no member")?;
        if let Some(apart) = block.begins {
            let most = longest.max(limits.window_bytes) as u64;
            if lane.open_bytes + apart.len > most || apart.len == 0 {
                return Err("a body that is longer than what may be on its way");
            }
            if block.number != lane.end() || lane.bodies.back().is_some_and(Coming::is_coming) {
                return Err("a body that does not follow the one before it");
            }
            lane.push(Coming::new(next.take(), apart));
        }
        let number = lane.end().wrapping_sub(1);
        let body = lane.bodies.back_mut().filter(|body| {
            let left = body.apart.len - body.arrived;
            block.number == number
                && block.offset == body.arrived
                && block.bytes.len() as u64 <= left
        });
        let body = body.ok_or("a block that does not follow the one before it")?;
        if block.bytes.is_empty() {
            return Err("an empty block");
        }
        body.arrived += block.bytes.len() as u64;
        let last = body.arrived == body.apart.len;
        let (shard, check) = (self.shard, last.then_some(body.apart.digest));
        let bytes = block.bytes.clone();
        out.counters.blocks_taken += 1;
        self.unstaged += bytes.len();
        out.actions.push_back(Action::Stage { shard, body: body.id, bytes, last, check });
        if self.successor.is_some_and(|rank| rank != block.origin) {
            self.passing.push_back(block);
        }
        Ok(())
    }

    /// Publishes blocks, own ones and those of others by turns, no more than a turn's share.
    pub(crate) fn send<M: Memory>(
        &mut self,
        memory: &mut M,
        layout: &ShardLayout,
        limits: &BulkLimits,
        out: &mut Outputs,
    ) {
        let mut left = limits.turn_bytes;
        while let Some(block) = self.next_block(limits.block_bytes) {
            let passes = block.origin != self.own;
            if left == 0 {
                self.busy = true;
                return;
            }
            let head = block.head();
            let Some(place) = self.writer.place(head.len() + block.bytes.len()) else {
                out.counters.bulk_no_credit += 1;
                return;
            };
            let header = Header { flags: Flags::default(), round: 0, stamp: Hlc(0) };
            let to = (layout.bulk(), &self.readers[..]);
            self.writer.write(memory, to, &place, header, &[&head, &block.bytes]);
            left = left.saturating_sub(block.bytes.len());
            out.counters.blocks += 1;
            out.counters.blocks_passed += u64::from(passes);
            self.passes = !passes;
            if passes {
                self.passing.pop_front();
            } else {
                let front = self.outgoing.front_mut().expect("an own block is of the front body");
                front.at += block.bytes.len();
                if front.at == front.bytes.len() {
                    self.outgoing.pop_front();
                }
            }
        }
    }

    /// The block that is due.
    fn next_block(&self, longest: usize) -> Option<Block> {
        let pass = self.passing.front().filter(|_| self.passes || self.outgoing.is_empty());
        if pass.is_some() {
            return pass.cloned();
        }
        let Some(Outgoing { number, digest, bytes, at }) = self.outgoing.front() else {
            return self.passing.front().cloned();
        };
        let end = bytes.len().min(at + longest);
        let begins = (*at == 0).then_some(Apart { len: bytes.len() as u64, digest: *digest });
        let (origin, number, offset) = (self.own, *number, *at as u64);
        Some(Block { origin, number, offset, begins, bytes: bytes.slice(*at..end) })
    }

    /// A piece was written. Returns the rank of the sender of a body that is not what it was announced as.
    pub(crate) fn staged(&mut self, id: BodyId, staged: Staged) -> Option<usize> {
        let own = self.own;
        let mut lanes = self.lanes.iter_mut().enumerate();
        let (rank, lane, at) = lanes.find_map(|(rank, lane)| {
            let at = lane.bodies.iter().position(|body| body.id == id)?;
            Some((rank, lane, at))
        })?;
        match staged {
            Staged::Part(bytes) if rank != own => {
                self.unstaged = self.unstaged.saturating_sub(bytes);
            }
            Staged::Part(_) => {}
            Staged::Whole => {
                lane.bodies[at].staged = true;
                let held = lane.bodies.iter().take_while(|body| body.staged).count();
                lane.held = lane.held.max(lane.first + held as u64);
            }
            Staged::Wrong(_) => return Some(rank),
        }
        None
    }

    /// A message of a peer named its bodies below `named`.
    pub(crate) fn close(&mut self, rank: usize, named: u64) {
        let lane = &mut self.lanes[rank];
        while lane.closed < named.min(lane.end()) {
            let at = (lane.closed - lane.first) as usize;
            lane.open_bytes -= lane.bodies[at].apart.len;
            lane.closed += 1;
        }
    }

    /// The bodies of the member of `rank` below `named` that were not delivered before: their command is.
    pub(crate) fn deliver(&mut self, rank: usize, named: u64) -> Vec<(BodyId, Apart)> {
        self.close(rank, named);
        let lane = &mut self.lanes[rank];
        let mut delivered = Vec::new();
        while lane.first < named {
            let body = lane.bodies.pop_front().expect("it was held when it was named");
            assert!(body.staged, "a body is on disk before it is ordered");
            delivered.push((body.id, body.apart));
            lane.first += 1;
        }
        delivered
    }

    /// The view is over: gives up what was not delivered.
    pub(crate) fn abandon(&mut self, out: &mut Outputs) {
        let (shard, lanes) = (self.shard, self.lanes.iter_mut());
        for body in lanes.flat_map(|lane| lane.bodies.drain(..)) {
            out.counters.bodies_dropped += 1;
            out.actions.push_back(Action::Unstage { shard, body: body.id });
        }
        self.outgoing.clear();
        self.passing.clear();
    }
}

impl Lane {
    /// Number of the next body.
    fn end(&self) -> u64 {
        self.first + self.bodies.len() as u64
    }

    fn push(&mut self, body: Coming) {
        self.open_bytes += body.apart.len;
        self.bodies.push_back(body);
    }
}

impl Coming {
    fn new(id: BodyId, apart: Apart) -> Self {
        Self { id, apart, arrived: 0, staged: false }
    }

    fn is_coming(&self) -> bool {
        self.arrived < self.apart.len
    }
}

impl Block {
    fn head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(FIRST_HEAD);
        for word in [self.origin as u64, self.number, self.offset] {
            head.extend_from_slice(&word.to_le_bytes());
        }
        if let Some(Apart { len, digest }) = &self.begins {
            head.extend_from_slice(&len.to_le_bytes());
            head.extend_from_slice(&digest.0);
        }
        head
    }

    /// Copies a block out of a peer's section.
    fn read<M: Memory>(memory: &M, peer: NodeId, landed: &Landed) -> Result<Self, &'static str> {
        let Landed { at, len, .. } = *landed;
        if len < HEAD {
            return Err("a block without its head");
        }
        let word = |index: usize| memory.load(peer, at + 8 * index);
        let (origin, number, offset) = (word(0), word(1), word(2));
        let head = if offset == 0 { FIRST_HEAD } else { HEAD };
        if len < head {
            return Err("a first block without its head");
        }
        let begins = (offset == 0).then(|| {
            let mut digest = [0; 32];
            memory.copy(peer, at + 32, &mut digest);
            Apart { len: word(3), digest: Digest(digest) }
        });
        let mut bytes = vec![0; len - head];
        memory.copy(peer, at + head, &mut bytes);
        let origin = usize::try_from(origin).unwrap_or(usize::MAX);
        Ok(Self { origin, number, offset, begins, bytes: bytes.into() })
    }
}

#[cfg(test)]
mod tests {
    use core::ops::Range;

    use proptest::prelude::*;

    use super::*;
    use crate::layout::Layout;

    /// The row of the other member.
    struct Row(Vec<u8>);

    impl Memory for Row {
        fn store(&mut self, offset: usize, bytes: &[u8]) {
            self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        fn publish(&mut self, _: Range<usize>, _: &[NodeId]) {}
        fn load(&self, _: NodeId, offset: usize) -> u64 {
            u64::from_le_bytes(self.0[offset..offset + 8].try_into().unwrap())
        }
        fn copy(&self, _: NodeId, offset: usize, out: &mut [u8]) {
            out.copy_from_slice(&self.0[offset..offset + out.len()]);
        }
    }

    proptest! {
        /// Whatever a peer says in well-formed records: blocks or an error, and never more than it may send.
        #[test]
        fn rubbish_in_blocks_is_an_error(
            blocks in proptest::collection::vec(
                ((0u64..4, 0u64..3, 0u64..40), proptest::collection::vec(0u8..3, 0..80)),
                1..8,
            ),
        ) {
            let members = [NodeId(0), NodeId(1)];
            let layout = Layout::new(members.len(), [&members[..]].into_iter(), 1024, 1024);
            let layout = layout.shard(ShardIndex(0));
            let limits = BulkLimits { ring_bytes: 1024, window_bytes: 64, ..Default::default() };
            let (view, others) = (ViewId(1), [(1, NodeId(1))]);
            let (at, out) = ((0, &members[..]), &mut Outputs::default());
            let mut bulk = Bulk::new(ShardIndex(0), at, &others, (view, Schedule::Direct), 1024);
            let (mut row, mut next) = (Row(vec![0; layout.bulk() + 1024]), BodyId(0));
            let mut writer = Writer::new(Words::bulk(view, NodeId(1)), 1024);
            for ((origin, number, offset), rest) in blocks {
                let head = [origin, number, offset].map(u64::to_le_bytes).concat();
                let Some(place) = writer.place(head.len() + rest.len()) else { break };
                let header = Header { flags: Flags::default(), round: 0, stamp: Hlc(0) };
                let to = (layout.bulk(), &[][..]);
                writer.write(&mut row, to, &place, header, &[&head, &rest]);
            }
            if bulk.take(&row, layout, (&limits, 64), &mut next, out).is_ok() {
                prop_assert!(bulk.lanes.iter().all(|lane| lane.open_bytes <= 64));
            }
        }
    }
}
