//! Completing ledgers for a proposed view: what a node that is behind asks for and takes up, and what a node that has
//! more gives (docs/protocol.md, section 7).

use alloc::string::String;

use tradewind_ledger::{Digest, Version, ViewId};

use super::{Forming, Stage};
use crate::access::StoreAccess;
use crate::action::{Action, ReadFor};
use crate::batch::EntryBatch;
use crate::catch_up::{CatchUp, Step};
use crate::error::{Fatal, PeerFault};
use crate::ids::{NodeId, Now, ShardIndex};
use crate::node::{NodeCore, Phase};
use crate::shard::Replica;
use crate::wire::Control;

impl<S: StoreAccess> NodeCore<S> {
    /// Completes one ledger after the other; then prepares rows and accepts.
    pub(super) fn catch_up(&mut self) {
        let Phase::Forming(Forming { stage: Stage::CatchingUp(proposal, running), .. }) =
            &mut self.phase
        else {
            return;
        };
        if let Some(running) = running {
            let (shard, source, target) = (running.shard, running.source, running.target);
            let replica = self.replicas[shard.index()].as_ref().expect("an own shard");
            let size = replica.replay().size();
            if !running.is_idle() {
                return;
            }
            // One chunk at a time, and no faster than the own disk.
            if size < target {
                if replica.backlog_bytes() <= self.config.limits.chunk_bytes {
                    running.asked = true;
                    let (view, first, end) = (proposal.view, size, target);
                    self.send(source, Control::Fetch { view, shard, first, end });
                }
                return;
            }
        }
        let view = proposal.view;
        for (index, target) in proposal.targets.clone().into_iter().enumerate() {
            let Some(replica) = &self.replicas[index] else { continue };
            let (size, root) = (replica.replay().size(), replica.replay().root());
            let shard = ShardIndex(index as u16);
            if size == target.size {
                if root != target.root {
                    let pair = [(self.config.own, root), (target.source, target.root)];
                    return self.diverged(self.divergence(shard, size, pair));
                }
                continue;
            }
            if size > target.size || target.source == self.config.own {
                // Made of an older state of this node: the leader will learn of the present one.
                self.out.counters.stale_messages += 1;
                return;
            }
            let catch_up = CatchUp::new(shard, target.source, target.size);
            if let Phase::Forming(Forming { stage: Stage::CatchingUp(_, running), .. }) =
                &mut self.phase
            {
                *running = Some(catch_up);
            }
            let (first, end) = (size, target.size);
            return self.send(target.source, Control::Fetch { view, shard, first, end });
        }
        self.accept();
    }

    /// Whether the own node has the shard, and the asking one too.
    pub(super) fn serves(&self, shard: ShardIndex, from: NodeId) -> bool {
        let replica = self.replicas.get(shard.index()).and_then(Option::as_ref);
        replica.is_some_and(|replica| replica.members().contains(&from))
    }

    pub(super) fn handle_fetch(
        &mut self,
        now: Now,
        from: NodeId,
        view: ViewId,
        (shard, first, end): (ShardIndex, Version, Version),
    ) {
        if !self.serves(shard, from) {
            return self.peer_faulty(now, from, PeerFault::Message("fetch of a foreign shard"));
        }
        // What was told in a hello is on disk, and ledgers only grow.
        let held = self.replicas[shard.index()].as_ref().map(Replica::durable);
        if first >= end || held < Some(end) {
            return self.peer_faulty(now, from, PeerFault::Message("fetch beyond the ledger"));
        }
        let reader = ReadFor { peer: from, view, shard };
        let max_bytes = self.config.limits.chunk_bytes;
        self.out.actions.push_back(Action::ReadLog { reader, first, end, max_bytes });
    }

    /// The ledger that is being completed in this view from this source.
    pub(super) fn running(
        &mut self,
        (from, view, shard): (NodeId, ViewId, ShardIndex),
    ) -> Option<&mut CatchUp> {
        match &mut self.phase {
            Phase::Forming(Forming {
                stage: Stage::CatchingUp(proposal, Some(running)), ..
            }) if proposal.view == view && running.shard == shard && running.source == from => {
                Some(running)
            }
            _ => {
                self.out.counters.stale_messages += 1;
                None
            }
        }
    }

    pub(super) fn handle_entries(
        &mut self,
        now: Now,
        of: (NodeId, ViewId, ShardIndex),
        first: Version,
        root_before: Digest,
        entries: &EntryBatch,
    ) {
        let (from, _, shard) = of;
        let Some(running) = self.running(of) else { return };
        let (target, asked) = (running.target, running.asked);
        let replica = self.replicas[shard.index()].as_ref().expect("an own shard");
        let (size, root) = (replica.replay().size(), replica.replay().root());
        if !asked
            || first != size
            || entries.is_empty()
            || entries.len() as u64 > target.since(size)
        {
            let fault = PeerFault::Message("entries that were not asked for");
            return self.peer_faulty(now, from, fault);
        }
        if root != root_before {
            let pair = [(self.config.own, root), (from, root_before)];
            return self.diverged(self.divergence(shard, size, pair));
        }
        if let Some(running) = self.running(of) {
            running.add(entries);
        }
        self.out.counters.caught_up += entries.len() as u64;
        self.take_up(of);
    }

    pub(super) fn handle_value_part(
        &mut self,
        now: Now,
        of: (NodeId, ViewId, ShardIndex),
        digest: Digest,
        offset: u64,
        bytes: &[u8],
    ) {
        let Some(running) = self.running(of) else { return };
        match running.add_piece(digest, offset, bytes) {
            Ok(true) => self.take_up(of),
            Ok(false) => self.out.counters.stale_messages += 1,
            Err(problem) => self.peer_faulty(now, of.0, PeerFault::Message(problem)),
        }
    }

    /// Takes up what arrived as far as it is complete.
    pub(super) fn take_up(&mut self, of: (NodeId, ViewId, ShardIndex)) {
        let (from, view, shard) = of;
        loop {
            let Some(running) = self.running(of) else { return };
            let step = running.next().map_err(String::from);
            let replica = self.replicas[shard.index()].as_mut().expect("an own shard");
            let problem = match step {
                Ok(Step::Take(entry, mut values)) => {
                    self.out.counters.values_caught_up += values.len() as u64;
                    match replica.follow(&entry, &mut values) {
                        Ok(()) => continue,
                        Err(problem) => problem,
                    }
                }
                Ok(Step::Value(digest, offset)) => {
                    let ask = Control::FetchValue { view, shard, digest, offset };
                    replica.hand_to_log(&mut self.out);
                    return self.send(from, ask);
                }
                Ok(Step::Done) => {
                    replica.hand_to_log(&mut self.out);
                    return self.catch_up();
                }
                Err(problem) => problem,
            };
            let at = replica.replay().size();
            let ledger = self.config.shards[shard.index()].genesis.ledger.clone();
            let peer = self.name(from);
            return self.fail(Fatal::CatchUp { peer, ledger, at, problem });
        }
    }
}
