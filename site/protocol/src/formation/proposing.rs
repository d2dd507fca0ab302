//! Proposals: who makes them, of whom and of what, and how they become views (docs/protocol.md, section 7).

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use tradewind_ledger::{Digest, Hlc, ViewId};

use super::choosing::Choice;
use super::completion::{Completion, Goal};
use super::{Forming, Stage};
use crate::access::StoreAccess;
use crate::action::{Action, Promise};
use crate::config::Mutation;
use crate::error::{Divergence, Fatal, Refusal};
use crate::ids::{Instant, NodeId, Now, ShardIndex};
use crate::node::{NodeCore, Phase};
use crate::roster::Span;
use crate::shard::Seats;
use crate::wire::{Control, Hello, LedgerState, Proposal, Target};

/// How often a proposal gets more time because it needs the ones that are late.
const EXTENSIONS: u32 = 20;

/// A proposal of the own node's that is out.
#[derive(Clone, Debug)]
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
    /// At the lowest node of a majority: proposes a view once all of it that can be waited for is there and settled.
    pub(super) fn try_propose(&mut self, now: Now) {
        self.reconsider(now);
        let Phase::Forming(forming) = &self.phase else { return };
        if forming.leading.is_some() || !matches!(forming.stage, Stage::Gathering) {
            return;
        }
        let there = self.goes_on();
        let since = forming.majority_since.filter(|_| there).unwrap_or(now.instant);
        let waited = now.instant.since(since) >= self.config.limits.formation_us;
        let settled = |node: &NodeId| forming.is_settled(*node);
        let spared = self.spared(now, forming);
        // Who held the others up leaves it to them to make a view.
        let leads = waited || !spared.contains(&self.config.own);
        // Those who are late for proposals or slow in views are left out, if there are enough without them.
        let quick = |node: NodeId| {
            self.is_in_time(now, forming, node)
                && (!waited || settled(&node))
                && !spared.contains(&node)
        };
        let chosen = self.without_laggards(forming, quick);
        let chosen = chosen.or_else(|| self.choice(forming, quick));
        // But not at the price of going by an older roster: others would not follow that.
        let foremost = self.foremost(forming);
        let newest = foremost.as_ref().map(|choice| choice.span.roster);
        let chosen = chosen.filter(|chosen| Some(chosen.span.roster) >= newest).or(foremost);
        let ready = chosen.filter(|Choice { members, .. }| {
            let absent = |node: &NodeId| {
                !members.contains(node)
                    && !spared.contains(node)
                    && self.is_waited_for(forming, *node)
            };
            leads
                && members.first() == Some(&self.config.own)
                && members.iter().all(settled)
                && (waited || !self.other_nodes().iter().any(absent))
        });
        if let Phase::Forming(forming) = &mut self.phase {
            forming.majority_since = there.then_some(since);
        }
        if let Some(choice) = ready {
            self.propose(now, &choice);
        }
    }

    /// At the leader of a proposal: gives it up once a view of a newer roster can be made, for others will not follow it
    /// then; once two of its members are not linked any more, for neither will they; or, while it waits for somebody who
    /// lacks much, once a view can be made without.
    fn reconsider(&mut self, now: Now) {
        let Phase::Forming(forming) = &self.phase else { return };
        let Some(leading) = &forming.leading else { return };
        if self.is_outdated(forming, &leading.proposal) {
            self.out.counters.outdated += 1;
            return self.withdraw(now);
        }
        if is_apart(forming, &leading.proposal) {
            self.out.counters.parted += 1;
            return self.withdraw(now);
        }
        let mut places = leading.proposal.members.iter().zip(&leading.accepted);
        if !places.any(|((node, _), accepted)| !accepted && self.is_laggard(forming, *node)) {
            return;
        }
        let spared = self.spared(now, forming);
        let ready = |node: NodeId| {
            forming.is_settled(node)
                && self.is_in_time(now, forming, node)
                && !spared.contains(&node)
        };
        if self.without_laggards(forming, ready).is_none() {
            return;
        }
        self.out.counters.laggards += 1;
        self.withdraw(now);
    }

    /// Whether no proposal was given up because of this node, and it has waited as long as it has to.
    pub(super) fn is_in_time(&self, now: Now, forming: &Forming, node: NodeId) -> bool {
        !forming.is_late(node) && now.instant >= self.peers[node.index()].admit_at
    }

    /// At the leader: nothing is to come of its proposal.
    fn withdraw(&mut self, now: Now) {
        if let Phase::Forming(forming) = &mut self.phase {
            forming.drop_if(now, |_| true);
        }
        self.attempt += 1;
        self.tell_all(now);
    }

    fn propose(&mut self, now: Now, Choice { span, members }: &Choice) {
        let Phase::Forming(forming) = &self.phase else { return };
        let told = |node: &NodeId| Some((*node, forming.hellos[node.index()].clone()?));
        let hellos: Vec<(NodeId, Hello)> = members.iter().filter_map(told).collect();
        let targets = match self.targets(*span, &hellos) {
            Ok(targets) => targets,
            Err(divergence) => return self.diverged(divergence),
        };
        self.highest = ViewId(self.highest.max(self.promise.view).0 + 1);
        let proposal = Proposal {
            view: self.highest,
            stamp: Hlc::from_micros(now.wall_us),
            schedule: self.config.limits.bulk.schedule,
            members: hellos.iter().map(|(node, hello)| (*node, hello.stand)).collect(),
            roster: span.roster,
            established: span.established,
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
    fn targets(
        &self,
        span: Span,
        hellos: &[(NodeId, Hello)],
    ) -> Result<Vec<Option<Target>>, Box<Divergence>> {
        let members: Vec<NodeId> = hellos.iter().map(|(node, _)| *node).collect();
        let target = |shard: ShardIndex| {
            if !self.config.runs(self.needed(span), shard, &members)
                && self.planted != Some(Mutation::MinorityInstalls)
            {
                return Ok(None);
            }
            let state = |(node, hello): &(NodeId, Hello)| {
                let mut ledgers = hello.ledgers.iter();
                Some((*node, ledgers.find(|state| state.shard == shard)?.clone()))
            };
            let told: Vec<(NodeId, LedgerState)> = hellos.iter().filter_map(state).collect();
            self.best(shard, &told)
        };
        self.config.shard_indexes().map(target).collect()
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
            && proposal.roster >= self.begun()
            && self.carries(proposal.span(), &proposal.nodes())
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
        let outdated = match &self.phase {
            Phase::Forming(forming) => self.is_outdated(forming, &proposal),
            _ => false,
        };
        let Phase::Forming(forming) = &mut self.phase else {
            self.out.counters.stale_messages += 1;
            return;
        };
        if !current {
            self.out.counters.stale_messages += 1;
            return;
        }
        if outdated {
            self.out.counters.outdated += 1;
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
    pub(super) fn promise(&mut self, now: Now) {
        let Phase::Forming(forming) = &self.phase else { return };
        let Some(proposal) = forming.stage.proposal().filter(|proposal| self.has_heard(proposal))
        else {
            // The hello of one of them is on its way, and goes on here.
            return;
        };
        if self.is_outdated(forming, proposal) {
            self.out.counters.outdated += 1;
            return self.give_up(now);
        }
        let Phase::Forming(forming) = &mut self.phase else { return };
        let stage = core::mem::replace(&mut forming.stage, Stage::Gathering);
        let Stage::CatchingUp(proposal, _) = stage else { return };
        self.promise = Promise {
            view: proposal.view,
            members: proposal.nodes(),
            roster: proposal.roster,
            digest: self.config.roster(proposal.roster).digest,
            established: self.promise.established.max(proposal.established),
        };
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
        let row_len = self.config.layout(proposal.roster).row_len();
        forming.stage = Stage::Accepted(proposal);
        self.rows = false;
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
        let patience = u64::from(2 * EXTENSIONS) * formation_us;
        let Phase::Forming(forming) = &mut self.phase else { return };
        if let Some(leading) = forming.leading.as_mut().filter(|l| now.instant >= l.until) {
            let view = leading.proposal.view;
            let places = leading.proposal.nodes().into_iter().zip(&leading.accepted);
            let (there, late): (Vec<_>, Vec<_>) = places.partition(|(_, accepted)| **accepted);
            let [there, late] = [there, late]
                .map(|part| part.into_iter().map(|(node, _)| node).collect::<Vec<NodeId>>());
            let needed = !self.config.carries(leading.proposal.span(), &there)
                || late.contains(&self.config.own);
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
            forming.late = late.into_iter().filter(|node| *node != own).collect();
            let late = forming.late.clone();
            forming.drop_if(now, |proposal| proposal.view == view);
            // So that who has much to catch up does not keep the others from working meanwhile.
            late.into_iter().for_each(|node| self.put_off(now, node));
            self.out.counters.abandoned += 1;
            self.attempt += 1;
            return self.tell_all(now);
        }
        // A member: its leader is still there, and yet nothing comes of it. If a view of a newer roster can be made by now, nothing
        // will: others do not follow it, and the leader may not know.
        let Phase::Forming(forming) = &self.phase else { return };
        let waits = !matches!(forming.stage, Stage::Gathering) && forming.leading.is_none();
        let waited = now.instant.since(forming.stage_since);
        let outdated = |it| self.is_outdated(forming, it);
        let in_vain = waited > patience
            || waited > formation_us && forming.stage.proposal().is_some_and(outdated);
        if waits && in_vain {
            let Phase::Forming(forming) = &mut self.phase else { return };
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
        let members = proposal.nodes();
        self.roster = proposal.roster;
        self.layout = self.config.layout(self.roster);
        let before = core::mem::replace(&mut self.members, members);
        self.note_left_out(now, &before);
        for (node, stand) in &proposal.members {
            self.peers[node.index()].stand = Some(*stand);
        }
        let shards = self.config.shard_indexes().zip(&proposal.targets);
        for (replica, (shard, target)) in self.replicas.iter_mut().zip(shards) {
            let Some(replica) = replica else { continue };
            let takes_part =
                self.config.roster(self.roster).shard(shard).contains(&self.config.own);
            if target.is_none() || !takes_part {
                self.out.counters.suspended += u64::from(target.is_none());
                replica.discard(&mut self.out);
                continue;
            }
            let seats = Seats::of(&self.config, self.roster, shard, &self.layout);
            let seats = seats.expect("keys of a roster were looked at when the node was made");
            let begin = (view, seats, proposal.stamp, proposal.schedule);
            replica.begin_view(begin, &self.members, &self.config.limits, now, &mut self.out);
        }
        self.view = view;
        self.note_members();
        self.rows = true;
        self.barriers.begin_view();
        self.phase = Phase::Active;
        // What was asked before does not matter any more, and may never be answered.
        self.peers.iter_mut().for_each(|peer| peer.owes = None);
        self.out.counters.views += 1;
        let seats = self.config.roster(self.roster).seats.len();
        self.out.counters.partial_views += u64::from(self.members.len() < seats);
        if self.promise.established < self.roster {
            // All members promised it: from here on it stands alone, and is remembered so.
            self.out.counters.rosters += 1;
            self.promise.established = self.roster;
            self.out.actions.push_back(Action::Promise(self.promise.clone()));
        }
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

/// Whether a member of a proposal told that it has no link to another one.
fn is_apart(forming: &Forming, proposal: &Proposal) -> bool {
    let told =
        proposal.members.iter().filter_map(|(node, _)| forming.hellos[node.index()].as_ref());
    told.flat_map(|hello| &hello.waiting_for).any(|node| proposal.stand(*node).is_some())
}
