//! Completing ledgers for a proposed view: what a node that is behind asks for and takes up, and what a node that has
//! more gives (docs/protocol.md, section 7).

use alloc::string::String;
use core::cmp::Ordering;

use tradewind_ledger::{Digest, Version, ViewId};

use super::rewinding::Search;
use super::{Forming, Stage};
use crate::access::StoreAccess;
use crate::action::{Action, ReadFor};
use crate::batch::EntryBatch;
use crate::catch_up::{CatchUp, Step};
use crate::config::Mutation;
use crate::error::{Fatal, PeerFault};
use crate::ids::{NodeId, Now, ShardIndex};
use crate::node::{NodeCore, Phase};
use crate::shard::Replica;
use crate::wire::{Control, Target};

/// The completing of ledgers for one proposal: at most one of these is at work.
#[derive(Debug, Default)]
pub(super) struct Completion {
    fetch: Option<CatchUp>,
    /// The shard whose own ledger is no beginning of the proposed one.
    apart: Option<ShardIndex>,
    pub(super) search: Option<Search>,
}

/// How the own ledger of a shard stands to the proposed one.
enum Standing {
    Same,
    /// Of the same view: the proposed one goes on where it ends. Or of an older view: perhaps.
    Behind,
    /// It ends with entries of an older view that the proposed one does not have, as far as it can be seen.
    Apart,
    /// It has more than it told: the proposal is made of an older state of this node.
    Ahead,
}

impl<S: StoreAccess> NodeCore<S> {
    /// Completes one ledger after the other; then promises.
    pub(super) fn catch_up(&mut self, now: Now) {
        let Phase::Forming(Forming { stage: Stage::CatchingUp(proposal, completion), .. }) =
            &mut self.phase
        else {
            return;
        };
        if completion.search.is_some() || self.replicas.iter().flatten().any(Replica::is_rewinding)
        {
            return;
        }
        if let Some(running) = &mut completion.fetch {
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
        completion.fetch = None;
        let apart = completion.apart.take();
        let targets = proposal.targets.clone();
        for (index, target) in targets.into_iter().enumerate() {
            let Some(replica) = &self.replicas[index] else { continue };
            let (Some(target), shard) = (target, ShardIndex(index as u16)) else { continue };
            let (size, root) = (replica.replay().size(), replica.replay().root());
            let standing = match self.standing(replica, &target) {
                Standing::Behind if apart == Some(shard) => Standing::Apart,
                standing => standing,
            };
            match standing {
                Standing::Same => {}
                Standing::Apart if replica.view() == target.view => {
                    let pair = [(self.config.own, root), (target.source, target.root)];
                    return self.diverged(self.divergence(shard, size, pair));
                }
                // Only what is on disk is compared.
                Standing::Apart if !replica.is_settled() => return self.note_apart(shard),
                Standing::Apart => return self.compare(now, shard, target.source, target.size),
                Standing::Ahead => return self.give_up(now),
                Standing::Behind => {
                    return self.fetch(CatchUp::new(shard, target.source, target.size), size);
                }
            }
        }
        self.promise();
    }

    fn standing(&self, replica: &Replica<S>, target: &Target) -> Standing {
        let (view, size) = (replica.view(), replica.replay().size());
        if size == target.size && replica.replay().root() == target.root {
            return Standing::Same;
        }
        match view.cmp(&target.view) {
            _ if self.planted == Some(Mutation::ShortestLogWins) && size >= target.size => {
                Standing::Apart
            }
            Ordering::Greater => Standing::Ahead,
            Ordering::Equal if size > target.size => Standing::Ahead,
            _ if target.source == self.config.own => Standing::Ahead,
            _ if size < target.size => Standing::Behind,
            Ordering::Equal | Ordering::Less => Standing::Apart,
        }
    }

    fn note_apart(&mut self, shard: ShardIndex) {
        if let Phase::Forming(Forming { stage: Stage::CatchingUp(_, completion), .. }) =
            &mut self.phase
        {
            completion.apart = Some(shard);
        }
    }

    /// The proposal does not fit: tells the present state.
    fn give_up(&mut self, now: Now) {
        self.out.counters.stale_messages += 1;
        if let Phase::Forming(forming) = &mut self.phase {
            forming.drop_if(now, |_| true);
        }
        self.attempt += 1;
        self.tell_all(now);
    }

    fn fetch(&mut self, catch_up: CatchUp, first: Version) {
        let (shard, source, end) = (catch_up.shard, catch_up.source, catch_up.target);
        let Phase::Forming(Forming { stage: Stage::CatchingUp(proposal, completion), .. }) =
            &mut self.phase
        else {
            return;
        };
        completion.fetch = Some(catch_up);
        let view = proposal.view;
        self.send(source, Control::Fetch { view, shard, first, end });
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
        let replica = self.replicas[shard.index()].as_ref().expect("it serves the shard");
        if first >= end || replica.is_rewinding() || replica.durable() < end {
            // Its ledger was cut since it told of it; the other will hear of its new stand.
            self.out.counters.stale_messages += 1;
            return;
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
                stage: Stage::CatchingUp(proposal, Completion { fetch: Some(running), .. }),
                ..
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
            if let Phase::Forming(Forming {
                stage: Stage::CatchingUp(proposal, completion), ..
            }) = &mut self.phase
                && proposal.targets[shard.index()].as_ref().is_some_and(|t| t.view > replica.view())
            {
                (completion.fetch, completion.apart) = (None, Some(shard));
                return self.catch_up(now);
            }
            let pair = [(self.config.own, root), (from, root_before)];
            return self.diverged(self.divergence(shard, size, pair));
        }
        if let Some(running) = self.running(of) {
            running.add(entries);
        }
        self.out.counters.caught_up += entries.len() as u64;
        self.take_up(now, of);
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
            Ok(true) => self.take_up(now, of),
            Ok(false) => self.out.counters.stale_messages += 1,
            Err(problem) => self.peer_faulty(now, of.0, PeerFault::Message(problem)),
        }
    }

    /// Takes up what arrived as far as it is complete.
    pub(super) fn take_up(&mut self, now: Now, of: (NodeId, ViewId, ShardIndex)) {
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
                    return self.catch_up(now);
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
