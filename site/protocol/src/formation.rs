//! How the nodes of a site agree on a view: at the start, and each time one is lost or comes back
//! (docs/protocol.md, section 7).
//!
//! 1. Who is in no running view tells everybody its *stand* and its ledgers ([`Hello`]). Who hears that from a
//!    member of its running view stops too.
//! 2. The lowest node of the largest set of nodes that are linked with each other proposes a view of these, once they
//!    are a majority and what they have is on their disks: its number, the stands that it is made of, and for each
//!    shard the best ledger and who has it.
//! 3. Who is behind fetches the rest; who has entries of an older view that the best ledger lacks cuts them off. Then it
//!    promises durably to accept no other view of this number, prepares rows and accepts.
//! 4. When all members have accepted, the leader commits; who gets that installs the view: its first entry is VIEW.
//!
//! While a view runs, who is not in it learns beside it (`learning`), and is let in once it lacks little: then one of
//! the members stops the view, and all of this begins again.
//!
//! A stand grows each time a node stops a view or gives up a proposal, and a proposal counts for a member only while it
//! names that member's own present stand and its peers' newest ones. So nothing of an older attempt has an effect, and a
//! view that was installed anywhere began everywhere with the same ledgers.

mod choosing;
mod completion;
mod learning;
mod pace;
mod proposing;
mod quorum;
mod recalling;
mod rewinding;
mod sources;
mod steps;
mod taking;

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

use tradewind_ledger::{Digest, ViewId};

use crate::access::StoreAccess;
use crate::action::{Action, ReadFor, Stop};
use crate::config::{Limits, Mutation};
use crate::error::{Fatal, PeerFault, Refusal};
use crate::ids::{Instant, NodeId, Now, ShardIndex};
use crate::node::{NodeCore, Phase};
use crate::roster::RosterId;
use crate::shard::Replica;
use crate::wire::{Control, Hello, LedgerState, Proposal, Stand};
use completion::Completion;
use learning::Running;
use proposing::Leading;
pub use recalling::Recollection;
pub(crate) use sources::Owed;
pub use steps::{ShardStep, Step};
use taking::Piece;

/// What a node holds while no view runs.
#[derive(Clone, Debug)]
pub(crate) struct Forming {
    pub(crate) since: Instant,
    /// By node, the own one too: what it told in this forming.
    hellos: Vec<Option<Hello>>,
    stage: Stage,
    /// When the stage began.
    stage_since: Instant,
    /// At the leader: the proposal that is out.
    leading: Option<Leading>,
    /// Since when a majority could make a view.
    majority_since: Option<Instant>,
    /// Because of whom the own node gave up its last proposal.
    late: Vec<NodeId>,
    /// Who held the others up in the view that the own node stopped.
    slow: Vec<NodeId>,
    /// Whether the last own hello said "settled", and when the next one is due.
    told_settled: bool,
    tell_at: Instant,
    /// A view that runs without this node.
    running: Option<Running>,
}

/// What a member does about a proposal.
#[derive(Clone, Debug)]
enum Stage {
    /// No proposal.
    Gathering,
    /// None, and a view runs without this node: completing ledgers beside it.
    Learning(Completion),
    /// Completing ledgers for this one.
    CatchingUp(Proposal, Completion),
    /// The promise is being written.
    Promising(Proposal),
    /// Ready for this one.
    Accepted(Proposal),
}

impl Stage {
    fn proposal(&self) -> Option<&Proposal> {
        match self {
            Stage::Gathering | Stage::Learning(_) => None,
            Stage::CatchingUp(proposal, _)
            | Stage::Promising(proposal)
            | Stage::Accepted(proposal) => Some(proposal),
        }
    }
}

impl Forming {
    pub(crate) fn new(since: Instant, nodes: usize) -> Self {
        Self {
            since,
            hellos: vec![None; nodes],
            stage: Stage::Gathering,
            stage_since: since,
            leading: None,
            majority_since: None,
            late: Vec::new(),
            slow: Vec::new(),
            told_settled: false,
            tell_at: since,
            running: None,
        }
    }

    /// The view that runs without this node.
    pub(crate) fn running(&self) -> Option<ViewId> {
        self.running.as_ref().map(|running| running.view)
    }

    /// The completing of ledgers that is at work.
    fn completion(&mut self) -> Option<&mut Completion> {
        match &mut self.stage {
            Stage::Learning(completion) | Stage::CatchingUp(_, completion) => Some(completion),
            _ => None,
        }
    }

    /// Whether anybody gave up a proposal because of this node. All go by what all told: if each went by its own, one might
    /// wait for another to lead a view that this one would not.
    fn is_late(&self, node: NodeId) -> bool {
        self.hellos.iter().flatten().any(|hello| hello.late.contains(&node))
    }

    /// Whether a proposal may be made of what this node told.
    fn is_settled(&self, node: NodeId) -> bool {
        self.hellos[node.index()].as_ref().is_some_and(|hello| hello.settled)
    }

    /// Who held the others up in the view that stopped, by what all told. Who does not keep up may have looked at old rows: what
    /// those tell of whom it is told counts only if nobody else tells anything.
    fn slow_ones(&self) -> Vec<NodeId> {
        let told_by = |counts: &dyn Fn(NodeId) -> bool| {
            let hellos = self.hellos.iter().zip(0..).filter(|(_, node)| counts(NodeId(*node)));
            let told = hellos.flat_map(|(hello, _)| hello.iter().flat_map(|hello| &hello.slow));
            let told: BTreeSet<NodeId> = told.copied().collect();
            told
        };
        let told = told_by(&|_| true);
        let by_others = told_by(&|node| !told.contains(&node));
        let of = if by_others.is_empty() { told } else { by_others };
        of.into_iter().collect()
    }

    /// Drops what is proposed if that fits; returns whether anything was.
    fn drop_if(&mut self, now: Now, stale: impl Fn(&Proposal) -> bool) -> bool {
        let staged = self.stage.proposal().is_some_and(&stale);
        if staged {
            self.stage = Stage::Gathering;
            self.stage_since = now.instant;
        }
        let led = self.leading.as_ref().is_some_and(|leading| stale(&leading.proposal));
        if led {
            self.leading = None;
        }
        staged || led
    }
}

impl<S: StoreAccess> NodeCore<S> {
    pub(crate) fn handle_control(&mut self, now: Now, from: NodeId, message: Control) {
        if matches!(self.phase, Phase::Failed(_)) {
            return;
        }
        match message {
            Control::Hello(hello) => self.handle_hello(now, from, hello),
            Control::Refuse(Refusal::LostData(lost)) if lost.name == self.name(self.config.own) => {
                self.fail(Fatal::LostData { by: self.name(from), lost });
            }
            Control::Refuse(refusal @ Refusal::Removed { .. })
                if refusal.is_of(&self.name(self.config.own)) =>
            {
                self.fail(Fatal::Removed { by: self.name(from), refusal: Box::new(refusal) });
            }
            Control::Refuse(refusal) => self.peers[from.index()].refusal = Some(refusal),
            Control::Propose(proposal) => self.handle_proposal(now, from, proposal),
            Control::Accept { view } => self.handle_accept(from, view),
            Control::Commit { view } => self.handle_commit(now, from, view),
            Control::Running { view, members, ledgers } => {
                self.handle_running(now, from, (view, members), ledgers);
            }
            Control::Snapshot { shard, record } => self.handle_snapshot(now, from, shard, record),
            Control::Progress { view } => self.handle_progress(from, view),
            Control::Outbid { accepted } => self.handle_outbid(now, accepted),
            Control::Fetch { view, shard, first, end } => {
                self.handle_fetch(now, from, view, (shard, first, end));
            }
            Control::FetchValue { view, shard, digest, offset } => {
                let reader = ReadFor { peer: from, view, shard };
                if self.serves(shard, from) {
                    let max_bytes = self.config.limits.chunk_bytes;
                    let action = Action::ReadValue { reader, digest, offset, max_bytes };
                    self.out.actions.push_back(action);
                }
            }
            Control::Entries { view, shard, first, root_before, entries } => {
                self.handle_entries(now, (from, view, shard), first, root_before, &entries);
            }
            Control::ValuePart { view, shard, digest, offset, bytes } => {
                self.handle_value_part(now, (from, view, shard), digest, offset, &bytes);
            }
            Control::AskRoots { view, shard, sizes } => {
                self.handle_ask_roots(now, from, view, (shard, sizes));
            }
            Control::Pruned { view, shard, snapshot } => {
                self.handle_pruned(now, (from, view, shard), snapshot);
            }
            Control::FetchPart { view, shard, size, part, offset } => {
                self.handle_fetch_part(now, from, (view, shard), (size, part, offset));
            }
            Control::Part { view, shard, size, part, offset, total, bytes } => {
                let piece = Piece { size, part, offset, total, bytes };
                self.handle_part(now, (from, view, shard), piece);
            }
            Control::Roots { view, shard, roots } => {
                self.take_roots(now, (from, view, shard), &roots);
            }
        }
    }

    pub(crate) fn drain_inbox(&mut self, now: Now) {
        while let Some(message) = self.inbox.pop_front() {
            self.handle_control(now, self.config.own, message);
        }
    }

    pub(crate) fn send(&mut self, to: NodeId, message: Control) {
        if to == self.config.own {
            self.inbox.push_back(message);
        } else if self.peers[to.index()].connected {
            self.out.actions.push_back(Action::Send { to, message: message.encode() });
        }
    }

    pub(crate) fn peer_lost(&mut self, now: Now, peer: NodeId) {
        self.peers[peer.index()].connected = false;
        self.peers[peer.index()].owes = None;
        if self.is_active() {
            if self.members.contains(&peer) && self.planted != Some(Mutation::SuspicionTakenBack) {
                self.stop(now, Stop::Lost(peer));
            }
            return;
        }
        let Phase::Forming(forming) = &mut self.phase else { return };
        forming.hellos[peer.index()] = None;
        if forming.drop_if(now, |proposal| proposal.stand(peer).is_some()) {
            self.attempt += 1;
        }
        self.source_lost(now, peer);
        self.tell_all(now);
        self.continue_forming(now);
    }

    pub(crate) fn peer_faulty(&mut self, now: Now, peer: NodeId, reason: PeerFault) {
        self.out.actions.push_back(Action::Disconnect { peer, reason });
        self.peer_lost(now, peer);
    }

    fn own_stand(&self) -> Stand {
        Stand { incarnation: self.config.incarnation, attempt: self.attempt }
    }

    /// Stops the running view and begins to form the next.
    fn stop(&mut self, now: Now, why: Stop) {
        self.remember(now, true);
        self.out.actions.push_back(Action::Stopped { view: self.view, why });
        for replica in self.replicas.iter_mut().flatten() {
            replica.stop(self.planted, &mut self.out);
        }
        self.out.counters.stalls += 1;
        self.ran = true;
        // In the view the members showed in their rows that they live.
        for node in &self.members {
            let peer = &mut self.peers[node.index()];
            peer.heard_at = peer.heard_at.max(peer.moved_at);
        }
        let slow = self.held_up_by(now);
        self.out.counters.slow += slow.len() as u64;
        let forming = Forming::new(now.instant, self.config.nodes.len());
        self.phase = Phase::Forming(Forming { slow, ..forming });
        self.attempt += 1;
        self.tell_all(now);
    }

    /// Tells everybody where this node stands, if no view runs.
    pub(crate) fn tell_all(&mut self, now: Now) {
        let hello = self.hello();
        let quarter = self.config.limits.silence_us / 4;
        let Phase::Forming(forming) = &mut self.phase else { return };
        forming.told_settled = hello.settled;
        forming.tell_at = now.instant.plus(quarter);
        // At once: what is proposed from now on is made of the present stand.
        forming.hellos[self.config.own.index()] = Some(hello.clone());
        for node in self.other_nodes() {
            self.send(node, Control::Hello(hello.clone()));
        }
        self.inbox.push_back(Control::Hello(hello));
    }

    fn is_settled(&self) -> bool {
        self.replicas.iter().flatten().all(Replica::is_settled)
    }

    /// Whether a proposal may be made of what this node has: it is on its disk, and stays as it is.
    fn may_be_proposed(&self) -> bool {
        self.is_settled() && !self.is_learning() && !self.lags()
    }

    fn hello(&self) -> Hello {
        let ledger = |(index, replica): (usize, &Option<Replica<S>>)| {
            let replay = replica.as_ref()?.replay();
            Some(LedgerState {
                shard: ShardIndex(index as u16),
                lineage: self.lineages[index],
                view: replay.view(),
                size: replay.size(),
                root: replay.root(),
            })
        };
        let mut waiting_for = self.other_nodes();
        waiting_for.retain(|node| !self.peers[node.index()].connected);
        let told = |of: fn(&Forming) -> &Vec<NodeId>| match &self.phase {
            Phase::Forming(forming) => of(forming).clone(),
            _ => Vec::new(),
        };
        Hello {
            stand: self.own_stand(),
            rosters: self.config.rosters.iter().map(|roster| roster.digest).collect(),
            begun: self.begun(),
            established: self.promise.established,
            last_view: self.view.max(self.promise.view),
            waiting_for,
            settled: self.may_be_proposed(),
            unfinished: self.replicas.iter().flatten().any(Replica::is_unfinished),
            late: told(|forming| &forming.late),
            slow: told(|forming| &forming.slow),
            ledgers: self.replicas.iter().enumerate().filter_map(ledger).collect(),
        }
    }

    fn handle_hello(&mut self, now: Now, from: NodeId, hello: Hello) {
        if from == self.config.own {
            if hello.stand != self.own_stand() {
                return;
            }
        } else if !self.hear_hello(now, from, &hello) {
            return;
        }
        self.highest = self.highest.max(hello.last_view);
        if let Phase::Forming(forming) = &mut self.phase {
            forming.hellos[from.index()] = Some(hello);
            self.member_stopped(now, from);
            self.try_propose(now);
            // A proposal may have waited for this.
            self.continue_forming(now);
        }
    }

    /// What a peer's hello changes here. Returns whether it counts for the forming of a view.
    fn hear_hello(&mut self, now: Now, from: NodeId, hello: &Hello) -> bool {
        if let Some(refusal) = self.refusal(from, hello).or_else(|| self.lost_data(from, hello)) {
            self.peers[from.index()].refusal = Some(refusal.clone());
            self.send(from, Control::Refuse(refusal));
            if let Phase::Forming(forming) = &mut self.phase {
                forming.hellos[from.index()] = None;
                if forming.drop_if(now, |proposal| proposal.stand(from).is_some()) {
                    self.attempt += 1;
                    self.tell_all(now);
                }
            }
            return false;
        }
        (self.peers[from.index()].refusal, self.peers[from.index()].heard) = (None, true);
        self.peers[from.index()].file = Some(hello.last());
        let known = self.peers[from.index()].stand;
        if known > Some(hello.stand) {
            self.out.counters.stale_messages += 1;
            return false;
        }
        self.peers[from.index()].stand = Some(hello.stand);
        self.note_start(from, hello.stand.incarnation);
        let is_new = known != Some(hello.stand);
        let admits = self.is_active() && self.admits(now, from, hello);
        match &mut self.phase {
            Phase::Active if self.members.contains(&from) => {
                if !is_new {
                    self.out.counters.stale_messages += 1;
                    return false;
                }
                // It stopped, or is new: then this node has to know everybody's present state again.
                self.stop(now, Stop::Followed(from));
            }
            Phase::Active if admits => {
                self.out.counters.admissions += 1;
                self.admitting = Some(from);
                self.stop(now, Stop::Admits(from));
            }
            Phase::Active => {
                self.tell_running(from);
                return false;
            }
            Phase::Forming(forming) => {
                if !is_new {
                    return true;
                }
                let stale = |proposal: &Proposal| {
                    proposal.stand(from).is_some_and(|stand| stand != hello.stand)
                };
                // The leader may have heard of it before this node did; then the proposal is as good as the stand.
                let dropped = forming.drop_if(now, stale);
                if dropped {
                    self.attempt += 1;
                    self.tell_all(now);
                } else {
                    let hello = self.hello();
                    self.send(from, Control::Hello(hello));
                }
            }
            Phase::Failed(_) => return false,
        }
        true
    }

    /// A view begins: who was in the last one and is not in this has to wait before it is let in again, longer each time.
    fn note_left_out(&mut self, now: Now, before: &[NodeId]) {
        // And whoever the last view stopped for in vain.
        let admitted = self.admitting.take().filter(|node| !before.contains(node));
        for node in before.iter().copied().chain(admitted) {
            if !self.members.contains(&node) {
                self.put_off(now, node);
            }
        }
    }

    fn put_off(&mut self, now: Now, node: NodeId) {
        let Limits { backoff_us, slow_us, .. } = self.config.limits;
        let (least, most) = match &self.phase {
            Phase::Forming(forming) if forming.slow_ones().contains(&node) => {
                (slow_us, 16 * slow_us)
            }
            _ => (backoff_us, 64 * backoff_us),
        };
        let peer = &mut self.peers[node.index()];
        let stayed = now.instant.since(peer.admit_at) > 16 * peer.admit_wait;
        peer.admit_wait = match stayed {
            true => least,
            // But never shorter than before.
            false => (2 * peer.admit_wait).clamp(least, most.max(peer.admit_wait)),
        };
        peer.admit_at = peer.admit_at.max(now.instant.plus(peer.admit_wait));
    }

    pub(crate) fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Active)
    }

    /// Why a peer can be no part of this site.
    fn refusal(&self, from: NodeId, hello: &Hello) -> Option<Refusal> {
        let ours = self.config.rosters.iter().map(|roster| roster.digest);
        // Of two topology files one has to begin with all that the other tells.
        let theirs = hello.rosters.iter().copied();
        let mut pairs = ours.zip(theirs.chain(hello.rosters.is_empty().then_some(Digest::ZERO)));
        if let Some((ours, theirs)) = pairs.find(|(ours, theirs)| ours != theirs) {
            return Some(Refusal::Topology { ours, theirs });
        }
        let (established, last) = (self.promise.established, self.config.last());
        let mut to_come = (established.0..=last.0).map(RosterId);
        if !to_come.any(|roster| self.config.is_seated(roster, from)) {
            return Some(Refusal::Removed { name: self.name(from), roster: established });
        }
        if hello.last() < self.begun() {
            return Some(Refusal::OldRoster { ours: self.begun(), theirs: hello.last() });
        }
        hello.ledgers.iter().find_map(|state| {
            let (ours, theirs) = (*self.lineages.get(state.shard.index())?, state.lineage);
            let ledger = self.config.shards[state.shard.index()].genesis.ledger.clone();
            (ours != theirs).then_some(Refusal::Lineage { ledger, ours, theirs })
        })
    }

    pub(crate) fn fail(&mut self, fatal: Fatal) {
        self.out.actions.push_back(Action::Failed(fatal.clone()));
        self.phase = Phase::Failed(fatal);
    }

    /// Goes on with what the log, or a message, made possible.
    pub(crate) fn continue_forming(&mut self, now: Now) {
        let settled = self.may_be_proposed();
        let Phase::Forming(forming) = &mut self.phase else { return };
        match forming.stage {
            Stage::Gathering if settled && !forming.told_settled => self.tell_all(now),
            Stage::CatchingUp(..) | Stage::Learning(_) => self.catch_up(now),
            _ => {}
        }
    }

    /// What time brings while no view runs: hellos again, silent peers, proposals that do not get through.
    pub(crate) fn watch_forming(&mut self, now: Now) {
        let (slept, silence) = (self.slept(now), self.config.limits.silence_us);
        let Phase::Forming(forming) = &self.phase else { return };
        if now.instant >= forming.tell_at {
            self.tell_all(now);
        }
        for node in self.other_nodes() {
            let peer = &mut self.peers[node.index()];
            if slept {
                peer.heard_at = now.instant;
            }
            let silent = now.instant.since(peer.heard_at);
            if peer.connected && silent > silence {
                self.peer_faulty(now, node, PeerFault::Silent(silent));
            }
        }
        self.watch_sources(now);
        self.watch_proposals(now);
        self.try_propose(now);
    }

    pub(crate) fn forming_timeout(&self) -> Option<Instant> {
        let Phase::Forming(forming) = &self.phase else { return None };
        let formation_us = self.config.limits.formation_us;
        let grace = forming.majority_since.map(|since| since.plus(formation_us));
        let grace = grace.filter(|at| *at > self.turned_at && forming.leading.is_none());
        let deadline = forming.leading.as_ref().map(|leading| leading.until);
        [Some(forming.tell_at), grace, deadline].into_iter().flatten().min()
    }
}
