//! Learning: a node that a view runs without takes up what is committed in it, from any of its members and beside
//! their work, and is let in once it lacks little (docs/protocol.md, section 8).
//!
//! ```text
//!                 a member tells what it has, more than little is missing
//!   Gathering  ------------------------------------------------------------>  Learning
//!   (settled)  <------------------------------------------------------------  (not settled)
//!                 all that was told of is here; or the view runs no more
//! ```
//!
//! Each lesson has a stand of its own, so nobody makes a view of ledgers that change meanwhile. What is learned is durable
//! in the own log at once: whatever interrupts a lesson, the next one goes on where it ended.

use alloc::vec;
use alloc::vec::Vec;

use tradewind_ledger::ViewId;

use super::completion::{Completion, Goal};
use super::{Forming, Stage};
use crate::access::StoreAccess;
use crate::action::Stop;
use crate::config::Mutation;
use crate::error::PeerFault;
use crate::ids::{NodeId, Now, ShardIndex};
use crate::node::{NodeCore, Phase};
use crate::roster::{RosterId, Span};
use crate::shard::Replica;
use crate::wire::{Control, Hello, LedgerState, Shelf, are_members};

/// A view that runs without this node.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) view: ViewId,
    pub(super) members: Vec<NodeId>,
    /// By node: what it told that it has to give.
    told: Vec<Option<Vec<Shelf>>>,
}

impl Running {
    /// What is told of a shard, and by whom.
    fn shelves(&self, shard: ShardIndex) -> impl Iterator<Item = (NodeId, &Shelf)> {
        let told = self.told.iter().zip(0..).flat_map(|(shelves, node)| {
            shelves.iter().flatten().map(move |shelf| (NodeId(node), shelf))
        });
        told.filter(move |(_, shelf)| shelf.shard == shard)
    }
}

impl<S: StoreAccess> NodeCore<S> {
    // At a member of the running view.

    /// Tells a node outside that this view runs, and what of it this node has to give.
    pub(super) fn tell_running(&mut self, to: NodeId) {
        if self.peers[to.index()].file < Some(self.roster) {
            // It may not even know who the members are.
            return;
        }
        let ledgers = self.replicas.iter().flatten().filter_map(Replica::shelf).collect();
        let (view, members) = (self.view, self.members.clone());
        self.send(to, Control::Running { view, members, ledgers });
    }

    /// At the lowest member of a running view that stays: whether to stop it in order to let a node in. It lacks little, then:
    /// what is missing is taken up while the view changes.
    pub(super) fn admits(&mut self, now: Now, from: NodeId, hello: &Hello) -> bool {
        let could = self.is_to_admit(from, hello)
            && (hello.settled && hello.ledgers.iter().all(|state| self.is_near(state))
                || self.planted == Some(Mutation::AdmitsUnlearned));
        let early = now.instant < self.peers[from.index()].admit_at;
        self.out.counters.backoffs += u64::from(could && early);
        could && !early
    }

    /// Whether a view of the members and this node could be made, and this one leads those that will be in it. The other is
    /// on their roster, or on a later one that they all know; and not on an older one than it has promised.
    fn is_to_admit(&self, from: NodeId, hello: &Hello) -> bool {
        let (established, last) = (self.promise.established, self.config.last());
        (self.roster.max(hello.begun).0..=last.0).map(RosterId).any(|roster| {
            // Others outside may be let in with it, and it may take several.
            let knocks = |node: &NodeId| {
                let peer = &self.peers[node.index()];
                let ready = peer.connected && peer.heard && peer.file >= Some(roster);
                !self.members.contains(node) && ready && !hello.waiting_for.contains(node)
            };
            let outside = self.other_nodes().into_iter().filter(knocks);
            let all = self.members.iter().copied().chain(outside);
            let seated: Vec<NodeId> =
                all.filter(|node| self.config.is_seated(roster, *node)).collect();
            let knows = |node: &NodeId| {
                *node == self.config.own || self.peers[node.index()].file >= Some(roster)
            };
            let leads = seated.iter().find(|node| self.members.contains(node));
            seated.contains(&from)
                && leads == Some(&self.config.own)
                && !seated.iter().any(|node| hello.waiting_for.contains(node))
                && seated.iter().all(knows)
                && self.config.carries(Span { established, roster }, &seated)
        })
    }

    /// Whether little is missing to this ledger, as far as this node can tell.
    fn is_near(&self, state: &LedgerState) -> bool {
        let replica = self.replicas.get(state.shard.index()).and_then(Option::as_ref);
        let Some((replica, shelf)) = replica.and_then(|r| Some((r, r.shelf()?))) else {
            return true;
        };
        state.view == replica.view() && state.size >= shelf.near
    }

    // At a node outside.

    /// A view runs without this node.
    pub(super) fn handle_running(
        &mut self,
        now: Now,
        from: NodeId,
        (view, members): (ViewId, Vec<NodeId>),
        ledgers: Vec<Shelf>,
    ) {
        let nodes = self.peers.len();
        let foreign = |shelf: &Shelf| shelf.shard.index() >= self.replicas.len();
        if !are_members(&members, nodes) || ledgers.iter().any(foreign) {
            return self.peer_faulty(now, from, PeerFault::Message("not a view of this site"));
        }
        self.highest = self.highest.max(view);
        let active = self.is_active();
        let old = view < self.view || active && view == self.view;
        if old || !members.contains(&from) || members.contains(&self.config.own) {
            self.out.counters.stale_messages += 1;
            return;
        }
        if active {
            self.stop(now, Stop::Overtaken(from));
        }
        let Phase::Forming(forming) = &mut self.phase else { return };
        forming.hellos[from.index()] = None;
        if forming.drop_if(now, |proposal| proposal.stand(from).is_some()) {
            self.attempt += 1;
            // At once: what this node proposes later must not be made of the stand before.
            self.tell_all(now);
        }
        let Phase::Forming(forming) = &self.phase else { return };
        let known = forming.running.as_ref().map(|running| running.view);
        if known > Some(view) {
            self.out.counters.stale_messages += 1;
            return;
        }
        if known != Some(view) {
            self.end_lesson();
            let running = Running { view, members, told: vec![None; nodes] };
            let Phase::Forming(forming) = &mut self.phase else { return };
            forming.running = Some(running);
            // Of an older view.
            forming.slow.clear();
        }
        if let Phase::Forming(Forming { running: Some(running), .. }) = &mut self.phase {
            running.told[from.index()] = Some(ledgers);
        }
        self.ask_anew();
        // The others went on without what is left of the own last view.
        for replica in self.replicas.iter_mut().flatten() {
            if replica.is_undrained() {
                replica.discard(&mut self.out);
            }
        }
        self.learn(now);
    }

    /// A member told what it has: if nobody had what is missing, that may be so no longer.
    fn ask_anew(&mut self) {
        if let Phase::Forming(Forming { stage: Stage::Learning(completion), .. }) = &mut self.phase
            && completion.awaited().is_none()
            && completion.asking.is_none()
        {
            completion.pruned.clear();
            completion.gone.clear();
        }
    }

    pub(super) fn is_learning(&self) -> bool {
        matches!(&self.phase, Phase::Forming(Forming { stage: Stage::Learning(_), .. }))
    }

    /// Whether a view runs without this node that has more than little which this node has not.
    pub(super) fn lags(&self) -> bool {
        let Phase::Forming(Forming { running: Some(running), .. }) = &self.phase else {
            return false;
        };
        self.own_shards().any(|(shard, replica)| {
            let (view, size) = (replica.view(), replica.replay().size());
            running.shelves(shard).any(|(_, shelf)| view < running.view || size < shelf.near)
        })
    }

    fn own_shards(&self) -> impl Iterator<Item = (ShardIndex, &Replica<S>)> {
        let shards = self.replicas.iter().zip(0..);
        shards.filter_map(|(replica, index)| Some((ShardIndex(index), replica.as_ref()?)))
    }

    /// By shard: what there is to learn by now.
    pub(super) fn lessons(&self, now: Now) -> Vec<Option<Goal>> {
        let mut goals = vec![None; self.replicas.len()];
        let Phase::Forming(Forming { running: Some(running), .. }) = &self.phase else {
            return goals;
        };
        for (shard, replica) in self.own_shards() {
            let (view, size) = (replica.view(), replica.replay().size());
            let more = |shelf: &Shelf| view < running.view || size < shelf.size;
            let found = self.teacher(now, running, shard).filter(|(_, shelf)| shelf.size.0 > 0);
            goals[shard.index()] = found.filter(|(_, shelf)| more(shelf)).map(|(source, shelf)| {
                Goal { view: running.view, size: shelf.size, root: None, source }
            });
        }
        goals
    }

    /// Who has of a shard what is to be had, but for little; and not one that has pruned it, or is silent, if there is another.
    fn teacher<'a>(
        &self,
        now: Now,
        running: &'a Running,
        shard: ShardIndex,
    ) -> Option<(NodeId, &'a Shelf)> {
        let near = running.shelves(shard).map(|(_, shelf)| shelf.near).max()?;
        self.one_of(running.shelves(shard), |(node, shelf)| {
            let kept = !self.has_pruned(shard, *node);
            (shelf.size.0 > 0, kept, self.readiness(now, *node), shelf.size.min(near))
        })
    }

    /// Begins a lesson if that is wanted, and goes on with the one that is under way.
    fn learn(&mut self, now: Now) {
        let wanted = self.lags() && self.lessons(now).iter().any(Option::is_some);
        let Phase::Forming(forming) = &mut self.phase else { return };
        if let (Stage::Gathering, Some(running), true) = (&forming.stage, &forming.running, wanted)
        {
            let completion = Completion::new(running.view, Vec::new(), now.instant);
            forming.stage = Stage::Learning(completion);
            forming.stage_since = now.instant;
            self.attempt += 1;
            self.out.counters.lessons += 1;
            self.tell_all(now);
        }
        self.continue_forming(now);
    }

    /// All that was told of is here: asks to be let in once it is on disk.
    pub(super) fn learned(&mut self, now: Now) {
        self.out.counters.learned += 1;
        self.end_lesson();
        self.continue_forming(now);
    }

    fn end_lesson(&mut self) {
        if let Phase::Forming(forming) = &mut self.phase
            && matches!(forming.stage, Stage::Learning(_))
        {
            forming.stage = Stage::Gathering;
        }
    }

    /// A member of the view that ran without this node has stopped: that view is over.
    pub(super) fn member_stopped(&mut self, now: Now, member: NodeId) {
        let Phase::Forming(forming) = &mut self.phase else { return };
        if forming.running.as_ref().is_some_and(|running| running.members.contains(&member)) {
            self.forget_running(now);
        }
    }

    /// A link is lost. The view that ran without this node runs no more as far as can be seen if all links to its members
    /// are.
    pub(super) fn source_lost(&mut self, now: Now, peer: NodeId) {
        let Phase::Forming(forming) = &mut self.phase else { return };
        let Some(running) = &mut forming.running else { return };
        running.told[peer.index()] = None;
        if running.members.iter().all(|node| !self.peers[node.index()].connected) {
            return self.forget_running(now);
        }
        if let Stage::Learning(completion) = &mut forming.stage
            && completion.abandon_source(peer)
        {
            self.out.counters.sources_lost += 1;
        }
    }

    fn forget_running(&mut self, now: Now) {
        self.end_lesson();
        if let Phase::Forming(forming) = &mut self.phase {
            forming.running = None;
        }
        self.continue_forming(now);
    }
}
