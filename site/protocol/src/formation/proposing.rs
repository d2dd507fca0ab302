//! Proposals: who makes them, of whom and of what, and how they become views (docs/protocol.md, section 7).

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use tradewind_ledger::{Digest, Hlc, Member, ViewId};

use super::completion::{Completion, Goal};
use super::quorum::quorum;
use super::{Forming, Stage};
use crate::access::StoreAccess;
use crate::action::{Action, Promise};
use crate::config::{Mutation, ShardConfig};
use crate::error::{Divergence, Fatal, Refusal};
use crate::ids::{Instant, NodeId, Now, ShardIndex};
use crate::node::{NodeCore, Phase};
use crate::wire::{Control, Hello, LedgerState, Proposal, Target};

/// How often a proposal gets more time because it needs the ones that are late.
const EXTENSIONS: u32 = 20;

/// A proposal of the own node's that is out.
#[derive(Debug)]
pub(super) struct Leading {
    pub(super) proposal: Proposal,
    /// By place among the members: who accepted it.
    accepted: Vec<bool>,
    /// It is given up then, unless those who have not accepted are needed; then only after some more time.
    pub(super) until: Instant,
    pub(super) extensions: u32,
    /// Whether somebody came closer to it since it got time.
    progressed: bool,
}

impl<S: StoreAccess> NodeCore<S> {
    fn is_majority(&self, nodes: usize) -> bool {
        nodes > self.config.nodes.len() / 2 || self.planted == Some(Mutation::MinorityInstalls)
    }

    /// The nodes that this one could make a view with.
    fn reachable(&self, forming: &Forming) -> Vec<NodeId> {
        quorum(self.config.own, &forming.hellos, |_| true)
    }

    /// Whether no view runs, and a majority with this node in it is there to make one.
    pub(crate) fn goes_on(&self) -> bool {
        let Phase::Forming(forming) = &self.phase else { return false };
        self.is_majority(self.reachable(forming).len())
    }

    /// Nodes that are wanting for a majority; none if one is there.
    pub(crate) fn missing(&self) -> Vec<NodeId> {
        let Phase::Forming(forming) = &self.phase else { return Vec::new() };
        let there = self.reachable(forming);
        if self.is_majority(there.len()) {
            return Vec::new();
        }
        self.other_nodes().into_iter().filter(|node| !there.contains(node)).collect()
    }

    /// At the lowest node of a majority: proposes a view once all of it that can be waited for is there and settled.
    pub(super) fn try_propose(&mut self, now: Now) {
        self.reconsider(now);
        let Phase::Forming(forming) = &self.phase else { return };
        if forming.leading.is_some() || !matches!(forming.stage, Stage::Gathering) {
            return;
        }
        let reachable = self.reachable(forming);
        let there = self.is_majority(reachable.len());
        let since = forming.majority_since.filter(|_| there).unwrap_or(now.instant);
        let waited = now.instant.since(since) >= self.config.limits.formation_us;
        let settled = |node: &NodeId| {
            forming.hellos[node.index()].as_ref().is_some_and(|hello| hello.settled)
        };
        // Those who hold the others up are left out, if there are enough without them.
        let quick = |node: NodeId| {
            !forming.is_slow(node)
                && (!waited || settled(&node))
                && now.instant >= self.peers[node.index()].admit_at
        };
        let mut members = match self.without_laggards(forming, quick) {
            Some(members) => members,
            None => quorum(self.config.own, &forming.hellos, quick),
        };
        if !self.is_majority(members.len()) {
            // As whoever is not slow to anybody would: all must take the same one for the leader.
            members = self.without_laggards(forming, |_| true).unwrap_or(reachable);
        }
        let leads = there && members.first() == Some(&self.config.own);
        let complete = members.iter().all(settled);
        let holds = waited
            || !self
                .other_nodes()
                .iter()
                .any(|node| !members.contains(node) && self.is_waited_for(forming, *node));
        if let Phase::Forming(forming) = &mut self.phase {
            forming.majority_since = there.then_some(since);
        }
        if leads && complete && holds {
            self.propose(now, &members);
        }
    }

    /// Those of the eligible nodes that lack little, if they make a majority, and if leaving out the others suspends no
    /// shard: who lacks much learns beside their view, which it could not if the shard did not run.
    fn without_laggards(
        &self,
        forming: &Forming,
        eligible: impl Fn(NodeId) -> bool,
    ) -> Option<Vec<NodeId>> {
        let quick = |node: NodeId| eligible(node) && !self.is_laggard(forming, node);
        let members = quorum(self.config.own, &forming.hellos, quick);
        let reachable = self.reachable(forming);
        let mut shards = self.config.shards.iter();
        let suspends = shards.any(|shard| {
            self.has_majority(shard, &reachable) && !self.has_majority(shard, &members)
        });
        (self.is_majority(members.len()) && !suspends).then_some(members)
    }

    /// Whether a node lacks much of what others told that they have.
    fn is_laggard(&self, forming: &Forming, node: NodeId) -> bool {
        let told = |node: NodeId| forming.hellos[node.index()].iter().flat_map(|h| &h.ledgers);
        let all = || (0..forming.hellos.len()).map(|index| NodeId(index as u16));
        if self.planted == Some(Mutation::AdmitsUnlearned) {
            return false;
        }
        told(node).any(|own| {
            let of_shard = all().flat_map(told).filter(|state| state.shard == own.shard);
            let best = of_shard.max_by_key(|state| (state.view, state.size));
            best.is_some_and(|b| {
                b.size.0.saturating_sub(own.size.0) > self.config.limits.lag_entries
            })
        })
    }

    /// At the leader of a proposal that waits for somebody who lacks much: gives it up once a view can be made without.
    fn reconsider(&mut self, now: Now) {
        let Phase::Forming(forming) = &self.phase else { return };
        let Some(leading) = &forming.leading else { return };
        let mut places = leading.proposal.members.iter().zip(&leading.accepted);
        if !places.any(|((node, _), accepted)| !accepted && self.is_laggard(forming, *node)) {
            return;
        }
        let ready = |node: NodeId| {
            let told = forming.hellos[node.index()].as_ref();
            told.is_some_and(|hello| hello.settled)
                && !forming.is_slow(node)
                && now.instant >= self.peers[node.index()].admit_at
        };
        if self.without_laggards(forming, ready).is_none() {
            return;
        }
        if let Phase::Forming(forming) = &mut self.phase {
            forming.drop_if(now, |_| true);
        }
        self.out.counters.laggards += 1;
        self.attempt += 1;
        self.tell_all(now);
    }

    /// Whether a node that is not there may yet come: at the start whoever was in the last view, later only who was
    /// not lost.
    fn is_waited_for(&self, forming: &Forming, node: NodeId) -> bool {
        match self.ran {
            true => self.peers[node.index()].connected && forming.hellos[node.index()].is_none(),
            false => {
                let expected =
                    self.promise.view == ViewId(0) || self.promise.members.contains(&node);
                expected && !self.is_laggard(forming, node)
            }
        }
    }

    fn propose(&mut self, now: Now, members: &[NodeId]) {
        let Phase::Forming(forming) = &self.phase else { return };
        let told = |node: &NodeId| Some((*node, forming.hellos[node.index()].clone()?));
        let hellos: Vec<(NodeId, Hello)> = members.iter().filter_map(told).collect();
        let targets = match self.targets(&hellos) {
            Ok(targets) => targets,
            Err(divergence) => return self.diverged(divergence),
        };
        self.highest = ViewId(self.highest.max(self.promise.view).0 + 1);
        let proposal = Proposal {
            view: self.highest,
            stamp: Hlc::from_micros(now.wall_us),
            schedule: self.config.limits.bulk.schedule,
            members: hellos.iter().map(|(node, hello)| (*node, hello.stand)).collect(),
            targets,
        };
        // Lower ranks give up sooner, so that two leaders do not go on disturbing each other.
        let rank = u64::from(self.config.own.0);
        let limits = &self.config.limits;
        let until = now.instant.plus(limits.formation_us + rank * limits.heartbeat_us);
        let accepted = vec![false; members.len()];
        if let Phase::Forming(forming) = &mut self.phase {
            forming.leading = Some(Leading {
                proposal: proposal.clone(),
                accepted,
                until,
                extensions: EXTENSIONS,
                progressed: false,
            });
        }
        self.out.counters.proposals += 1;
        self.out.counters.takeovers += u64::from(rank > 0);
        for node in members {
            self.send(*node, Control::Propose(proposal.clone()));
        }
    }

    /// By shard the best ledger: that of the latest view, and of these the longest. Whatever was acknowledged is in it,
    /// for it is in one ledger at least of any majority, in or before its latest view.
    fn targets(&self, hellos: &[(NodeId, Hello)]) -> Result<Vec<Option<Target>>, Box<Divergence>> {
        let members: Vec<NodeId> = hellos.iter().map(|(node, _)| *node).collect();
        let shards = self.config.shards.iter().zip(0..);
        let target = |(shard, index): (&ShardConfig, u16)| {
            if !self.has_majority(shard, &members)
                && self.planted != Some(Mutation::MinorityInstalls)
            {
                return Ok(None);
            }
            let state = |(node, hello): &(NodeId, Hello)| {
                let mut ledgers = hello.ledgers.iter();
                Some((*node, ledgers.find(|state| state.shard.0 == index)?.clone()))
            };
            let told: Vec<(NodeId, LedgerState)> = hellos.iter().filter_map(state).collect();
            self.best(ShardIndex(index), &told)
        };
        shards.map(target).collect()
    }

    fn best(
        &self,
        shard: ShardIndex,
        told: &[(NodeId, LedgerState)],
    ) -> Result<Option<Target>, Box<Divergence>> {
        for (at, (node, one)) in told.iter().enumerate() {
            let same = |(_, two): &&(NodeId, LedgerState)| {
                two.view == one.view && two.size == one.size && two.root != one.root
            };
            if let Some((other, two)) = told[..at].iter().find(same) {
                let pair = [(*node, one.root), (*other, two.root)];
                return Err(self.divergence(shard, one.size, pair));
            }
        }
        // Of equal ones the lowest node's.
        let key = |(_, state): &&(NodeId, LedgerState)| (state.view, state.size);
        let best = match self.planted {
            Some(Mutation::ShortestLogWins) => told.iter().min_by_key(key),
            Some(Mutation::LengthAloneWins) => told.iter().max_by_key(|(_, state)| state.size),
            _ => told.iter().rev().max_by_key(key),
        };
        Ok(best.map(|(node, state)| Target {
            view: state.view,
            size: state.size,
            root: state.root,
            source: *node,
        }))
    }

    pub(super) fn divergence(
        &self,
        shard: ShardIndex,
        size: tradewind_ledger::Version,
        [(node, root), (other, other_root)]: [(NodeId, Digest); 2],
    ) -> Box<Divergence> {
        Box::new(Divergence {
            ledger: self.config.shards[shard.index()].genesis.ledger.clone(),
            size,
            name: self.name(node),
            root,
            other_name: self.name(other),
            other_root,
        })
    }

    pub(super) fn diverged(&mut self, divergence: Box<Divergence>) {
        for node in self.other_nodes() {
            self.send(node, Control::Refuse(Refusal::Divergence(divergence.clone())));
        }
        self.fail(Fatal::Divergence(divergence));
    }

    /// Whether a proposal names this node's own present stand, and no other member's older than this one knows.
    fn is_current(&self, proposal: &Proposal) -> bool {
        let own = proposal.stand(self.config.own) == Some(self.own_stand());
        own && proposal.is_sound(self.peers.len(), self.replicas.len())
            && self.is_majority(proposal.members.len())
            && proposal.members.iter().all(|(node, stand)| {
                // A peer's hello to the leader may be faster than the one to this node.
                *node == self.config.own
                    || self.peers[node.index()].connected
                        && self.peers[node.index()].refusal.is_none()
                        && self.peers[node.index()].stand.is_none_or(|known| known <= *stand)
            })
    }

    pub(super) fn handle_proposal(&mut self, now: Now, from: NodeId, proposal: Proposal) {
        let current = proposal.leader() == Some(from) && self.is_current(&proposal);
        let Phase::Forming(forming) = &mut self.phase else {
            self.out.counters.stale_messages += 1;
            return;
        };
        if !current {
            self.out.counters.stale_messages += 1;
            return;
        }
        self.highest = self.highest.max(proposal.view);
        if proposal.view <= self.promise.view {
            self.out.counters.outbid += 1;
            return self.send(from, Control::Outbid { accepted: self.promise.view });
        }
        // Of two leaders the lower one is followed, until its proposal is given up.
        if forming.stage.proposal().and_then(Proposal::leader).is_some_and(|other| other < from) {
            self.out.counters.stale_messages += 1;
            return;
        }
        if from != self.config.own {
            forming.leading = None;
        }
        let goals = proposal.targets.iter().map(|target| target.as_ref().map(Goal::from));
        let completion = Completion::new(proposal.view, goals.collect(), now.instant);
        forming.stage = Stage::CatchingUp(proposal, completion);
        forming.stage_since = now.instant;
        self.continue_forming(now);
    }

    /// All own ledgers are as proposed: once all members were heard, asks for the promise to be written.
    pub(super) fn promise(&mut self) {
        let Phase::Forming(forming) = &self.phase else { return };
        if !forming.stage.proposal().is_some_and(|proposal| self.has_heard(proposal)) {
            // The hello of one of them is on its way, and goes on here.
            return;
        }
        let Phase::Forming(forming) = &mut self.phase else { return };
        let stage = core::mem::replace(&mut forming.stage, Stage::Gathering);
        let Stage::CatchingUp(proposal, _) = stage else { return };
        let members = proposal.members.iter().map(|(node, _)| *node).collect();
        self.promise = Promise { view: proposal.view, members };
        forming.stage = Stage::Promising(proposal);
        self.out.actions.push_back(Action::Promise(self.promise.clone()));
    }

    /// The promise is on disk: prepares rows and accepts.
    pub(crate) fn promised(&mut self, view: ViewId) {
        let Phase::Forming(forming) = &mut self.phase else { return };
        let stage = core::mem::replace(&mut forming.stage, Stage::Gathering);
        let proposal = match stage {
            Stage::Promising(proposal) if proposal.view == view => proposal,
            other => {
                forming.stage = other;
                return;
            }
        };
        let (leader, members) = (proposal.members[0].0, self.promise.members.clone());
        forming.stage = Stage::Accepted(proposal);
        self.rows = false;
        let row_len = self.layout.row_len();
        self.out.actions.push_back(Action::Prepare { view, members, row_len });
        self.send(leader, Control::Accept { view });
    }

    pub(super) fn handle_accept(&mut self, from: NodeId, view: ViewId) {
        let Phase::Forming(Forming { leading: Some(leading), .. }) = &mut self.phase else {
            self.out.counters.stale_messages += 1;
            return;
        };
        let place = leading.proposal.members.iter().position(|(node, _)| *node == from);
        let Some(place) = place.filter(|_| leading.proposal.view == view) else {
            self.out.counters.stale_messages += 1;
            return;
        };
        leading.accepted[place] = true;
        if leading.accepted.iter().all(|accepted| *accepted) {
            let members = leading.proposal.members.clone();
            for (node, _) in members {
                self.send(node, Control::Commit { view });
            }
        }
    }

    /// A member has accepted another proposal of this number or a higher one: proposes again, above it.
    pub(super) fn handle_outbid(&mut self, now: Now, accepted: ViewId) {
        self.highest = self.highest.max(accepted);
        if let Phase::Forming(forming) = &mut self.phase
            && forming.drop_if(now, |proposal| {
                proposal.leader() == Some(self.config.own) && proposal.view <= accepted
            })
        {
            self.try_propose(now);
        }
    }

    /// Gives up what does not get through in time.
    pub(super) fn watch_proposals(&mut self, now: Now) {
        let formation_us = self.config.limits.formation_us;
        let (patience, nodes) = (u64::from(2 * EXTENSIONS) * formation_us, self.peers.len());
        let Phase::Forming(forming) = &mut self.phase else { return };
        if let Some(leading) = forming.leading.as_mut().filter(|l| now.instant >= l.until) {
            let view = leading.proposal.view;
            let places = leading.proposal.members.iter().zip(&leading.accepted);
            let late: Vec<NodeId> =
                places.filter(|(_, accepted)| !**accepted).map(|((node, _), _)| *node).collect();
            let needed =
                leading.accepted.len() - late.len() <= nodes / 2 || late.contains(&self.config.own);
            if needed && (leading.progressed || leading.extensions > 0) {
                // Whoever comes closer may take as long as it needs.
                leading.extensions = match leading.progressed {
                    true => EXTENSIONS,
                    false => leading.extensions - 1,
                };
                self.out.counters.prolonged += u64::from(leading.progressed);
                leading.progressed = false;
                leading.until = now.instant.plus(formation_us);
                return;
            }
            let own = self.config.own;
            forming.slow = late.into_iter().filter(|node| *node != own).collect();
            let late = forming.slow.clone();
            forming.drop_if(now, |proposal| proposal.view == view);
            // So that who has much to catch up does not keep the others from working meanwhile.
            late.into_iter().for_each(|node| self.put_off(now, node));
            self.out.counters.abandoned += 1;
            self.attempt += 1;
            return self.tell_all(now);
        }
        // A member: its leader is still there, and yet nothing comes of it.
        let waits = !matches!(forming.stage, Stage::Gathering);
        if waits && forming.leading.is_none() && now.instant.since(forming.stage_since) > patience {
            forming.stage = Stage::Gathering;
            self.out.counters.abandoned += 1;
            self.attempt += 1;
            self.tell_all(now);
        }
    }

    /// A member came closer to what the own node proposed.
    pub(super) fn handle_progress(&mut self, from: NodeId, view: ViewId) {
        match &mut self.phase {
            Phase::Forming(Forming { leading: Some(leading), .. })
                if leading.proposal.view == view && leading.proposal.stand(from).is_some() =>
            {
                leading.progressed = true;
            }
            _ => self.out.counters.stale_messages += 1,
        }
    }

    pub(super) fn handle_commit(&mut self, now: Now, from: NodeId, view: ViewId) {
        let proposal = match &self.phase {
            Phase::Forming(Forming { stage: Stage::Accepted(proposal), .. })
                if proposal.view == view
                    && proposal.leader() == Some(from)
                    && self.is_current(proposal) =>
            {
                proposal.clone()
            }
            _ => {
                self.out.counters.stale_messages += 1;
                return;
            }
        };
        let members = proposal.members.iter().map(|(node, _)| *node).collect();
        let before = core::mem::replace(&mut self.members, members);
        self.note_left_out(now, &before);
        for (node, stand) in &proposal.members {
            self.peers[node.index()].stand = Some(*stand);
        }
        let shards = self.config.shards.iter().zip(&proposal.targets);
        for (replica, (shard, target)) in self.replicas.iter_mut().zip(shards) {
            let Some(replica) = replica else { continue };
            if target.is_none() {
                self.out.counters.suspended += 1;
                replica.discard(&mut self.out);
                continue;
            }
            let records: Vec<Member> = self.config.roster(shard);
            let begin = (view, records, proposal.stamp, proposal.schedule);
            replica.begin_view(begin, &self.members, &self.config.limits, now, &mut self.out);
        }
        self.view = view;
        self.note_members();
        self.rows = true;
        self.barriers.begin_view();
        self.phase = Phase::Active;
        self.out.counters.views += 1;
        self.out.counters.partial_views += u64::from(self.members.len() < self.config.nodes.len());
        self.reset_heartbeats(now);
        let members = self.members.clone();
        self.out.actions.push_back(Action::Installed { view, members: members.clone() });
        self.remember(now, true);
        self.tell_snapshots();
        for node in self.other_nodes().into_iter().filter(|node| !members.contains(node)) {
            self.tell_running(node);
        }
    }
}
