//! A shard as one of its members runs it: rings and counters of the view, the replicated machine, and what
//! waits for the disk. Here a view begins, stops, and leaves a ledger behind; what it does meanwhile is in `turning`,
//! what becomes of that once it is on disks in `settling`.

mod agreeing;
mod pace;
mod reading;
mod recent;
mod seats;
mod settling;
mod timers;
mod turning;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use tradewind_ledger::{Entry, Hlc, Replay, SnapshotRecord, Version, ViewId};

use crate::access::StoreAccess;
use crate::action::{Action, Answer};
use crate::batch::Values;
use crate::bulk::{Bulk, Staged};
use crate::checkpoint::Marks;
use crate::config::{Limits, Mutation, NodeConfig, Schedule};
use crate::formation::ShardStep;
use crate::ids::{BodyId, NodeId, Now, ShardIndex};
use crate::layout::ShardLayout;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::order::Order;
use crate::outbox::Outbox;
use crate::payload::{Assembly, Checker};
use crate::ring::{Flags, Reader, Words, Writer};
use crate::status::{Counters, ReplicaStatus};
use crate::taking::{Coming, Taking};
use crate::wire::Shelf;
use agreeing::Agreeing;
use pace::Pace;
use reading::Reads;
use recent::Recent;
pub(crate) use seats::{Elders, Seats};
use timers::Timers;

/// What a turn gives to the outside.
#[derive(Clone, Default, Debug)]
pub(crate) struct Outputs {
    pub(crate) actions: VecDeque<Action>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) counters: Counters,
}

/// What a turn works with.
pub(crate) struct Turn<'a, M> {
    pub(crate) now: Now,
    pub(crate) memory: &'a mut M,
    pub(crate) config: &'a NodeConfig,
    pub(crate) out: &'a mut Outputs,
    /// By node: how far its last stamp was ahead of the own clock.
    pub(crate) clock_ahead: &'a mut [u64],
    pub(crate) planted: Option<Mutation>,
}

impl<M> Turn<'_, M> {
    /// Whether this bug is planted; never outside the simulator.
    fn planted(&self, mutation: Mutation) -> bool {
        self.planted == Some(mutation)
    }
}

/// A message that waits for its place in the order.
#[derive(Clone, Debug)]
struct Item {
    flags: Flags,
    stamp: Hlc,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    /// An own message: it completes so many of the own submissions.
    Own(usize),
    /// A peer's payload.
    Peer(Vec<u8>),
    /// A snapshot that a majority made.
    Snapshot(SnapshotRecord),
}

/// What belongs to one view and is forgotten with it.
#[derive(Clone, Debug)]
struct Flow {
    /// The other members that are in the view, with their ranks.
    others: Vec<(usize, NodeId)>,
    /// Whether the own node is the lowest of those in the view.
    leads: bool,
    /// The size right after the VIEW entry: until so much is on disk at a majority, nothing is committed.
    begun: Version,
    stage: Stage,
    order: Order<Item>,
    writer: Writer,
    /// By rank; the own one is not used.
    readers: Vec<Reader>,
    checkers: Vec<Checker>,
    assemblies: Vec<Assembly>,
    bulk: Bulk,
    /// Whom the others wait for.
    pace: Pace,
    /// The counters as last published.
    published: Vec<u64>,
    /// Seal requests and marks that are sent and not delivered.
    seals_sent: usize,
    marks_sent: usize,
    /// The newest snapshot that was sent.
    snapshot_sent: Version,
}

/// How far a view has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Running,
    /// Nothing more is sent or delivered, unless a majority goes on.
    Stopped,
    /// What was received is delivered as far as its order is known.
    Drained,
}

/// A member's part of one shard.
#[derive(Clone, Debug)]
pub(crate) struct Replica<S> {
    shard: ShardIndex,
    own: usize,
    members: Vec<NodeId>,
    /// The other members that are in the view.
    peers: Vec<NodeId>,
    layout: ShardLayout,
    machine: Machine,
    store: S,
    outbox: Outbox,
    marks: Marks,
    flow: Option<Flow>,
    timers: Timers,
    /// On the own disk.
    durable: Version,
    /// By rank: on the disk of each member, as last heard.
    durable_at: Vec<Version>,
    committed: Version,
    /// What is handed to the log and not on disk: up to which version, how many bytes.
    backlog: VecDeque<(Version, usize)>,
    backlog_bytes: usize,
    recent: Recent,
    agreeing: Agreeing,
    /// The next body's name.
    next_body: BodyId,
    reads: Reads,
    /// The snapshot that is being taken from others.
    pub(crate) taking: Option<Taking>,
    /// Whether the shell was asked to begin with one, and has not yet said what is here of it: until then no ledger is made of
    /// the one before.
    pub(crate) beginning: bool,
    /// What came of the part of it that is asked for.
    pub(crate) coming: Coming,
    /// Whether the shell is cutting the ledger, or replacing it.
    rewinding: bool,
    planting: bool,
    scratch: Vec<u8>,
}

impl<S: StoreAccess> Replica<S> {
    /// Takes up a recovered shard; everything in `replay` is on disk.
    pub(crate) fn new(
        config: &NodeConfig,
        shard: ShardIndex,
        seats: Seats,
        replay: Replay,
        store: S,
    ) -> Self {
        let Seats { members, own, layout, policy, .. } = seats;
        let durable = replay.size();
        Self {
            shard,
            own,
            peers: Vec::new(),
            layout,
            machine: Machine::new(replay, config.limits.seal, config.limits.snapshots),
            store,
            agreeing: Agreeing::new(own, members.len()),
            outbox: Outbox::default(),
            marks: Marks::new(policy, own),
            flow: None,
            timers: Timers::default(),
            durable,
            durable_at: vec![Version::ZERO; members.len()],
            members,
            committed: Version::ZERO,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            recent: Recent::new(&config.limits),
            next_body: BodyId(0),
            reads: Reads::default(),
            taking: None,
            beginning: false,
            coming: Coming::default(),
            rewinding: false,
            planting: false,
            scratch: Vec::new(),
        }
    }

    pub(crate) fn replay(&self) -> &Replay {
        self.machine.replay()
    }

    /// The view of the last VIEW entry.
    pub(crate) fn view(&self) -> ViewId {
        self.machine.replay().view()
    }

    pub(crate) fn members(&self) -> &[NodeId] {
        &self.members
    }

    /// The other members that are in the view.
    pub(crate) fn peers(&self) -> &[NodeId] {
        &self.peers
    }

    pub(crate) fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    pub(crate) fn marks(&mut self) -> &mut Marks {
        &mut self.marks
    }

    pub(crate) fn store(&mut self) -> &mut S {
        &mut self.store
    }

    /// Entries on the own disk.
    pub(crate) fn durable(&self) -> Version {
        self.durable
    }

    /// Whether all that was delivered is on the own disk, and nothing is left to be delivered.
    pub(crate) fn is_settled(&self) -> bool {
        self.durable == self.machine.size() && !self.is_undrained() && !self.is_rewinding()
    }

    /// Whether a view ran here, and of what it leaves something may be left to be delivered or to be synced.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.flow.is_some() && !self.is_settled()
    }

    /// Whether messages of a stopped view may be left to be delivered.
    pub(crate) fn is_undrained(&self) -> bool {
        self.flow.as_ref().is_some_and(|flow| flow.stage == Stage::Stopped)
    }

    /// Whether the shard is part of a running view.
    pub(crate) fn is_running(&self) -> bool {
        self.flow.as_ref().is_some_and(|flow| flow.stage == Stage::Running)
    }

    /// How far it is.
    pub(crate) fn step(&self) -> ShardStep {
        match self.flow.as_ref().map(|flow| flow.stage) {
            _ if self.is_rewinding() => ShardStep::Rewinding,
            None => ShardStep::Idle,
            Some(Stage::Running) => ShardStep::Running,
            Some(Stage::Stopped) => ShardStep::Stopped,
            Some(Stage::Drained) => ShardStep::Drained,
        }
    }

    /// Whether the ledger is being cut, or replaced.
    pub(crate) fn is_rewinding(&self) -> bool {
        self.rewinding || self.planting
    }

    /// What is known to be on disk at a majority.
    pub(crate) fn committed(&self) -> Version {
        self.committed
    }

    /// What the running view has to give to those who are not in it: only what is committed in it, for that is in
    /// every later view.
    pub(crate) fn shelf(&self) -> Option<Shelf> {
        let flow = self.flow.as_ref().filter(|flow| flow.stage == Stage::Running)?;
        let kept = self.committed.min(self.durable);
        let near = self.recent.near();
        let (size, near) = match kept >= flow.begun {
            true => (kept, near.min(kept)),
            false => (Version::ZERO, near),
        };
        Some(Shelf { shard: self.shard, size, near })
    }

    /// Bytes handed to the log that are not on disk.
    pub(crate) fn backlog_bytes(&self) -> usize {
        self.backlog_bytes
    }

    /// The log says how much is on disk.
    pub(crate) fn set_durable(&mut self, size: Version) {
        assert!(size <= self.machine.size(), "the log has more than it was given");
        self.durable = self.durable.max(size);
        while self.backlog.front().is_some_and(|(end, _)| *end <= size) {
            self.backlog_bytes -= self.backlog.pop_front().map_or(0, |(_, bytes)| bytes);
        }
    }

    /// A piece of a body was written. Returns who sent one that is not what it was announced as.
    pub(crate) fn set_staged(&mut self, body: BodyId, staged: Staged) -> Option<NodeId> {
        let rank = self.flow.as_mut()?.bulk.staged(body, staged)?;
        Some(self.members[rank])
    }

    /// Whether there is more to do at once.
    pub(crate) fn is_busy(&self) -> bool {
        self.flow.as_ref().is_some_and(|flow| flow.bulk.is_busy())
    }

    /// Begins an empty ledger.
    pub(crate) fn begin(&mut self, genesis: &Entry, out: &mut Outputs) {
        let Self { machine, store, .. } = self;
        store.with_mut(|store| machine.begin(store, genesis));
        self.hand_to_log(out);
    }

    /// Takes up entries from a peer while no view runs.
    pub(crate) fn follow(
        &mut self,
        entry: &[u8],
        values: &mut Values,
    ) -> Result<(), alloc::string::String> {
        let Self { machine, store, .. } = self;
        store.with_mut(|store| machine.follow(store, entry, values))
    }

    /// A view is installed, with these members of the shard.
    pub(crate) fn begin_view(
        &mut self,
        (view, seats, stamp, schedule): (ViewId, Seats, Hlc, Schedule),
        present: &[NodeId],
        limits: &Limits,
        now: Now,
        out: &mut Outputs,
    ) {
        self.requeue(out);
        let elders = seats.elders(present);
        let Seats { members, own, layout, policy, .. } = seats;
        let records = policy.members().to_vec();
        self.durable_at = vec![Version::ZERO; members.len()];
        self.agreeing.begin_view(own, &self.members, &members);
        (self.members, self.own, self.layout) = (members, own, layout);
        self.marks.begin_view(policy, own, elders);
        self.recent.begin(self.machine.size().next());
        let here = |(_, node): &(usize, NodeId)| present.contains(node);
        let ranks = self.members.iter().copied().enumerate();
        let (inside, outside): (Vec<_>, Vec<_>) = ranks.partition(here);
        let leads = inside.first().is_some_and(|(rank, _)| *rank == self.own);
        let others: Vec<_> = inside.into_iter().filter(|(rank, _)| *rank != self.own).collect();
        self.peers = others.iter().map(|(_, node)| *node).collect();
        let mut order = Order::new(self.members.len(), self.own);
        outside.into_iter().for_each(|(rank, _)| order.set_absent(rank));
        let words = |node: &NodeId| Words::new(view, *node);
        let members = (self.own, &self.members[..]);
        let bulk =
            Bulk::new(self.shard, members, &others, (view, schedule), limits.bulk.ring_bytes);
        let senders = self.members.len();
        self.flow = Some(Flow {
            others,
            leads,
            begun: self.machine.size().next(),
            stage: Stage::Running,
            order,
            writer: Writer::new(words(&self.members[self.own]), limits.ring_bytes),
            readers: self
                .members
                .iter()
                .map(|m| Reader::new(words(m), limits.ring_bytes))
                .collect(),
            checkers: (0..senders).map(|_| Checker::default()).collect(),
            assemblies: (0..senders).map(|_| Assembly::default()).collect(),
            bulk,
            pace: Pace::new(senders),
            published: vec![0; ShardLayout::columns(senders)],
            seals_sent: 0,
            marks_sent: 0,
            snapshot_sent: Version::ZERO,
        });
        let Self { machine, store, .. } = self;
        store.with_mut(|store| machine.begin_view(store, view, records, stamp));
        self.timers = Timers::of_view(now.instant, self.replay().segment().segment());
        self.note_progress(now, out);
        self.take_marks(out);
        self.hand_to_log(out);
    }

    /// The view stopped: nothing more is sent in it, nor delivered, unless a majority goes on.
    pub(crate) fn stop(&mut self, planted: Option<Mutation>, out: &mut Outputs) {
        if let Some(flow) = &mut self.flow {
            flow.stage = Stage::Stopped;
        }
        self.reads = Reads::default();
        if planted == Some(Mutation::PendingForgotten) {
            self.discard(out);
            self.outbox.forget();
        }
    }

    /// A majority goes on, and this node with it: delivers what was received in the stopped view as far as its order is
    /// known, stable or not. Others may have less or more: the longest log wins.
    pub(crate) fn drain<M: Memory>(&mut self, turn: &mut Turn<'_, M>, rows: bool) {
        let again = self.flow.is_some() && turn.planted(Mutation::DeliveryAfterStop);
        if !self.is_undrained() && !again {
            return;
        }
        if rows {
            // What landed before the end counts. If a row makes no sense, what was taken before stands.
            let _ = self.receive(turn);
        }
        let flow = self.flow.as_mut().expect("looked at above");
        flow.order.release();
        let before: u64 = (0..self.members.len()).map(|rank| flow.order.delivered(rank)).sum();
        self.deliver(turn);
        let flow = self.flow.as_mut().expect("looked at above");
        let after: u64 = (0..self.members.len()).map(|rank| flow.order.delivered(rank)).sum();
        turn.out.counters.drained += after - before;
        flow.stage = Stage::Drained;
        self.note_progress(turn.now, turn.out);
        self.hand_to_log(turn.out);
    }

    /// Forgets what a stopped view did not deliver; what of it was submitted here is sent again.
    pub(crate) fn discard(&mut self, out: &mut Outputs) {
        self.requeue(out);
        self.flow = None;
        self.peers.clear();
    }

    fn requeue(&mut self, out: &mut Outputs) {
        if let Some(flow) = &mut self.flow {
            flow.bulk.abandon(out);
        }
        out.counters.resent += self.outbox.requeue() as u64;
    }

    /// The shell cuts the ledger.
    pub(crate) fn begin_rewind(&mut self, to: Version, out: &mut Outputs) {
        assert!(self.is_settled() && to < self.durable, "only what is on disk is cut, once");
        self.discard(out);
        self.rewinding = true;
        let (shard, dropped) = (self.shard, self.durable.since(to));
        out.counters.rewinds += 1;
        out.actions.push_back(Action::Rewind { shard, to, dropped });
    }

    /// The ledger was cut: goes on from what is left.
    pub(crate) fn rewound(&mut self, replay: Replay, store: S, limits: &Limits, out: &mut Outputs) {
        assert!(self.rewinding, "the shell cuts what it was asked to cut");
        self.rewinding = false;
        self.durable = replay.size();
        self.machine = Machine::new(replay, limits.seal, limits.snapshots);
        self.store = store;
        self.backlog.clear();
        self.backlog_bytes = 0;
        self.marks.forget();
        let unknown = self.outbox.forget_after(self.durable);
        if !unknown.is_empty() {
            out.actions.push_back(Action::Unknown(unknown));
        }
    }

    /// The shell replaces the ledger by one that begins with the snapshot which was taken.
    pub(crate) fn begin_plant(&mut self, size: Version, out: &mut Outputs) {
        assert!(self.is_settled() && size > self.durable, "only what is behind is replaced, once");
        self.discard(out);
        self.planting = true;
        out.actions.push_back(Action::Plant { shard: self.shard, size });
    }

    /// The ledger was replaced: goes on from there.
    pub(crate) fn planted(&mut self, replay: Replay, store: S, limits: &Limits, out: &mut Outputs) {
        assert!(self.planting, "the shell replaces what it was asked to replace");
        (self.planting, self.rewinding) = (false, true);
        // Whoever lacks what is before it is told by this node, too, that it was pruned: so it gives on what it has taken.
        let taken = self.taking.take().expect("what the ledger was replaced by");
        self.agreeing.took(taken.agreed().expect("its manifest was verified"));
        // Which of the entries that were here are before the snapshot is not known: none of them is answered.
        let unknown = self.outbox.forget_after(Version::ZERO);
        if !unknown.is_empty() {
            out.actions.push_back(Action::Unknown(unknown));
        }
        self.rewound(replay, store, limits, out);
    }

    pub(crate) fn hand_to_log(&mut self, out: &mut Outputs) {
        let Some(append) = self.machine.take_appended(self.shard) else { return };
        let Action::Append { entries, values, bodies, .. } = &append else {
            unreachable!("made just now")
        };
        let bytes = entries.bytes() + values.iter().map(|(_, value)| value.len()).sum::<usize>();
        self.backlog.push_back((self.machine.size(), bytes));
        self.backlog_bytes += bytes;
        // Bodies are on disk already; a node that is behind has to fetch them like any value.
        let beside = bodies.iter().map(|body| body.len as usize).sum::<usize>();
        self.recent.push(self.machine.size(), bytes + beside);
        out.actions.push_back(append);
        let shard = self.shard;
        let snapshot = |(pin, base)| Action::Snapshot { shard, pin: Box::new(pin), base };
        out.actions.extend(self.machine.take_pins().map(snapshot));
    }

    pub(crate) fn status(&self) -> ReplicaStatus {
        let received =
            |flow: &Flow| (0..self.members.len()).map(|rank| flow.order.received(rank)).collect();
        let delivered =
            |flow: &Flow| (0..self.members.len()).map(|rank| flow.order.delivered(rank)).collect();
        let named = |flow: &Flow| {
            let named = |rank: usize| match rank == self.own {
                true => flow.bulk.ordered(),
                false => flow.checkers[rank].named(),
            };
            (0..self.members.len()).map(named).collect()
        };
        let held = |flow: &Flow| (0..self.members.len()).map(|rank| flow.bulk.held(rank)).collect();
        ReplicaStatus {
            delivered: self.machine.size(),
            durable: self.durable,
            committed: self.committed,
            signed: self.marks.signed_size(),
            checkpoint: self.marks.checkpoint_size(),
            hlc: self.replay().last_hlc(),
            received: self.flow.as_ref().map(received).unwrap_or_default(),
            delivered_messages: self.flow.as_ref().map(delivered).unwrap_or_default(),
            durable_at: self.durable_at.clone(),
            pending: self.outbox.len(),
            bodies_held: self.flow.as_ref().map(held).unwrap_or_default(),
            bodies_named: self.flow.as_ref().map(named).unwrap_or_default(),
        }
    }
}
