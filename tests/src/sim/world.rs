//! The event loop of a run: real cores on simulated links, disks, clocks and clients.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use tradewind_ledger::{Checkpoint, Digest, RequestId, Signer, Version};
use tradewind_site_protocol::{
    Action, Answer, EntryBatch, Fatal, Instant, NodeCore, NodeId, Now, Promise, ReadFor,
    Recollection, ShardIndex, State, Stop, Submission, Ticket,
};
use tradewind_store::Store;

use super::check::{Check, Checker};
use super::client::Client;
use super::disk::Disk;
use super::fabric::{Frame, Lane, Link, Rows};
use super::loss::Lost;
use super::plan::{MS, Plan};
use super::rng::Rng;
use super::snapshots::{Done, Snapshots};
use super::{Coverage, Failure, Late, Violation};
use crate::linear::History;

/// Something that happens at a time.
#[derive(Debug)]
pub(super) enum Event {
    /// A node's shell wakes up and takes a turn.
    Turn(NodeId, u64),
    /// Something reaches a node that is (still) in this incarnation.
    Input(NodeId, u64, Input),
    /// A client looks at its request: submits, or repeats.
    Client(usize),
    /// The answer to an attempt reaches a client.
    Reply(usize, u64, Answer),
    Fault,
    Crash(NodeId),
    Restart(NodeId),
    Relink(NodeId, NodeId),
    Break(NodeId, NodeId),
    /// The nodes can reach each other again, as far as this trouble goes.
    Mend(Vec<(NodeId, NodeId)>),
    /// Faults end: everybody comes back, or a majority.
    Heal,
    /// The rest comes back.
    HealAll,
    /// Whether the end is reached.
    Look,
    /// The last node starts for the first time.
    Late,
}

#[derive(Debug)]
pub(super) enum Input {
    Frame(NodeId, u64, Frame),
    Linked(NodeId, u64),
    Unlinked(NodeId, u64),
    Synced(usize),
    Signed(usize, Version, [u8; 64]),
    LogRead(ReadFor, Version, Digest, EntryBatch),
    ValueRead(ReadFor, Digest, u64, Vec<u8>),
    Roots(ReadFor, Vec<(Version, Digest)>),
    /// The promise is on disk.
    Promised(Promise),
    /// What is known of the others is on disk.
    Remembered(Vec<Recollection>),
    /// The ledger is cut.
    Rewound(usize, Version),
    /// Something of snapshots is done.
    Snapshots(Done),
    Submit(usize, Submission),
}

/// A submission on its way or at work.
pub(super) struct Submitted {
    pub(super) client: usize,
    pub(super) attempt: u64,
    pub(super) shard: usize,
    pub(super) request: RequestId,
    /// The node that has it, as this incarnation of it.
    pub(super) node: NodeId,
    pub(super) incarnation: u64,
}

pub(super) struct Node {
    pub(super) core: Option<NodeCore<Store>>,
    pub(super) incarnation: u64,
    pub(super) crashes: u64,
    pub(super) rows: Option<Rows>,
    /// On disk, and on its way there.
    pub(super) promise: Promise,
    pub(super) promising: Option<Promise>,
    /// When the last write of a promise is done: they are done one after the other.
    pub(super) promised_at: u64,
    pub(super) rewinding: Option<(usize, Version)>,
    pub(super) snapshots: Snapshots,
    /// When the last thing that was done for snapshots is done.
    pub(super) snapshots_at: u64,
    pub(super) planting: Option<(usize, Version)>,
    /// What it wrote down of the others; and its own disk, while it runs with an empty one.
    pub(super) remembered: Vec<Recollection>,
    pub(super) lost: Option<Lost>,
    /// Stays down until the rest is healed.
    pub(super) held: bool,
    /// By shard.
    pub(super) disks: BTreeMap<usize, Disk>,
    /// By peer: the generation of the link, as this node knows it.
    pub(super) links: BTreeMap<NodeId, u64>,
    pub(super) inbox: VecDeque<Input>,
    pub(super) turn_at: Option<u64>,
    pub(super) paused_until: u64,
    /// An fsync that starts before ends after this.
    pub(super) slow_until: u64,
    /// Wall clock minus the world's, microseconds.
    pub(super) skew: i64,
}

/// A run.
pub(crate) struct World<'a> {
    pub(super) plan: &'a Plan,
    pub(super) rng: Rng,
    pub(super) now: u64,
    pub(super) serial: u64,
    pub(super) events: BinaryHeap<Reverse<(u64, u64)>>,
    pub(super) payloads: BTreeMap<u64, Event>,
    pub(super) nodes: Vec<Node>,
    pub(super) lanes: BTreeMap<(NodeId, NodeId), Lane>,
    pub(super) links: BTreeMap<(NodeId, NodeId), Link>,
    /// Pairs that cannot reach each other.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    pub(super) clients: Vec<Client>,
    pub(super) tickets: BTreeMap<Ticket, Submitted>,
    pub(super) checker: Checker,
    /// By shard: what clients were told.
    pub(super) histories: Vec<History>,
    pub(super) healed: bool,
    /// Since when progress may be expected.
    pub(super) rest_since: u64,
    pub(super) late: Option<Late>,
    /// When something went wrong last, or came back.
    pub(super) troubled_at: u64,
    /// By node: when it stopped a view to let somebody in.
    pub(super) admitting: Vec<Option<u64>>,
    /// Whether the present turn delivered anything.
    pub(super) delivered: bool,
    pub(crate) coverage: Coverage,
    pub(super) trace: Option<Box<dyn FnMut(String) + 'a>>,
}

/// Simulated microseconds that a healed group may take to come to rest, without what it has to catch up with.
pub(super) const REST_WITHIN: u64 = 20_000 * MS;

impl<'a> World<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        seed: u64,
        trace: Option<Box<dyn FnMut(String) + 'a>>,
    ) -> Self {
        let mut rng = Rng::new(seed.wrapping_add(1));
        let count = plan.nodes.len();
        let node = |index: usize| Node {
            core: None,
            incarnation: 0,
            crashes: 0,
            rows: None,
            promise: Promise::default(),
            promising: None,
            promised_at: 0,
            rewinding: None,
            snapshots: Snapshots::default(),
            snapshots_at: 0,
            planting: None,
            remembered: Vec::new(),
            lost: None,
            held: false,
            disks: (0..plan.shards.len())
                .filter(|shard| plan.members(*shard).contains(&NodeId(index as u16)))
                .map(|shard| (shard, Disk::default()))
                .collect(),
            links: BTreeMap::new(),
            inbox: VecDeque::new(),
            turn_at: None,
            paused_until: 0,
            slow_until: 0,
            skew: 0,
        };
        let mut nodes: Vec<_> = (0..count).map(node).collect();
        for node in &mut nodes {
            node.skew = rng.range(0..2_000_000) as i64 - 1_000_000;
        }
        let mut world = Self {
            plan,
            rng,
            now: 0,
            serial: 0,
            events: BinaryHeap::new(),
            payloads: BTreeMap::new(),
            nodes,
            lanes: BTreeMap::new(),
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            clients: (0..plan.clients).map(Client::new).collect(),
            tickets: BTreeMap::new(),
            checker: Checker::new(plan),
            histories: vec![History::default(); plan.shards.len()],
            healed: false,
            rest_since: plan.faults_until,
            late: plan.late,
            troubled_at: 0,
            admitting: vec![None; count],
            delivered: false,
            coverage: Coverage::default(),
            trace,
        };
        for index in 0..count {
            world.at(0, Event::Restart(NodeId(index as u16)));
        }
        for client in 0..plan.clients {
            world.at(client as u64 * MS, Event::Client(client));
        }
        if plan.fault_every > 0 {
            world.at(plan.fault_every, Event::Fault);
        }
        world.at(plan.faults_until, Event::Heal);
        if let Some(late) = plan.late {
            world.nodes[count - 1].held = true;
            (world.rest_since, world.troubled_at) = (late.after_us, 0);
            world.at(late.after_us, Event::Late);
        }
        world
    }

    /// Runs to the end.
    pub(crate) fn run(mut self) -> Result<Coverage, Failure> {
        let result = loop {
            let Some(Reverse((at, serial))) = self.events.pop() else {
                break Checker::invariant_progress_resumes(Some("nothing happens any more".into()));
            };
            self.now = at;
            let event = self.payloads.remove(&serial).expect("each event has its payload");
            let looks = matches!(event, Event::Look);
            let partly = self.nodes.iter().any(|node| node.held);
            if looks && partly && self.late.is_none() && self.majority_is_at_rest() {
                self.rest_since = self.now;
                self.at(self.now, Event::HealAll);
            } else if looks && !partly && self.is_at_rest() {
                break self.check_end();
            }
            if at > self.rest_since + REST_WITHIN && at > self.rest_until() {
                break Checker::invariant_progress_resumes(Some(self.unrest()));
            }
            if let Err(violation) = self.handle(event) {
                break Err(violation);
            }
        };
        for node in &mut self.nodes {
            if let Some(core) = &node.core {
                self.coverage.add(&core.status().counters);
            }
        }
        match result {
            Ok(()) => Ok(self.coverage),
            Err(violation) => {
                let text = format!("VIOLATED {violation}");
                self.tell(|| text);
                Err(Failure { violation, at_us: self.now })
            }
        }
    }

    pub(super) fn at(&mut self, time: u64, event: Event) {
        self.serial += 1;
        self.events.push(Reverse((time.max(self.now), self.serial)));
        self.payloads.insert(self.serial, event);
    }

    pub(super) fn tell(&mut self, text: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace(format!("{:>9}.{:03} ms  {}", now / MS, now % MS, text()));
        }
    }

    pub(super) fn clock(&self, node: NodeId) -> Now {
        let wall = 1_700_000_000_000_000 + self.now as i64 + self.nodes[node.index()].skew;
        Now { instant: Instant(self.now), wall_us: wall as u64 }
    }

    fn handle(&mut self, event: Event) -> Check {
        match event {
            Event::Turn(node, incarnation) => return self.turn(node, incarnation),
            Event::Input(node, incarnation, input) => {
                if self.nodes[node.index()].incarnation == incarnation {
                    self.give(node, input);
                }
            }
            Event::Client(client) => self.client(client),
            Event::Reply(client, attempt, answer) => self.answered(client, attempt, &answer),
            Event::Fault => self.fault(),
            Event::Crash(node) if !self.healed => self.crash(node),
            Event::Crash(_) => {}
            Event::Restart(node) => return self.restart(node),
            Event::Relink(a, b) => self.relink(a, b),
            Event::Break(a, b) if !self.healed => self.break_link(a, b),
            Event::Break(..) => {}
            Event::Heal => {
                self.healed = true;
                self.heal();
                self.at(self.now + 50 * MS, Event::Look);
            }
            Event::Mend(pairs) => self.mend(&pairs),
            Event::HealAll => self.heal_all(),
            Event::Late => self.start_late(),
            Event::Look => self.at(self.now + 5 * MS, Event::Look),
        }
        Ok(())
    }

    // Nodes.

    pub(super) fn give(&mut self, node: NodeId, input: Input) {
        self.nodes[node.index()].inbox.push_back(input);
        self.wake(node);
    }

    pub(super) fn wake(&mut self, node: NodeId) {
        let pause = self.nodes[node.index()].paused_until;
        let at = (self.now + self.rng.range(5..60)).max(pause);
        self.wake_at(node, at);
    }

    pub(super) fn wake_at(&mut self, node: NodeId, at: u64) {
        let state = &mut self.nodes[node.index()];
        if state.core.is_some() && state.turn_at.is_none_or(|planned| planned > at) {
            state.turn_at = Some(at);
            let incarnation = state.incarnation;
            self.at(at, Event::Turn(node, incarnation));
        }
    }

    /// What a shell does in a turn: takes (some of) what came, lets the core work on the rows, performs its actions.
    fn turn(&mut self, node: NodeId, incarnation: u64) -> Check {
        let state = &mut self.nodes[node.index()];
        if state.incarnation != incarnation || state.turn_at != Some(self.now) {
            return Ok(());
        }
        state.turn_at = None;
        if state.paused_until > self.now {
            let at = state.paused_until;
            self.wake_at(node, at);
            return Ok(());
        }
        let take = match self.rng.percent(20) {
            true => self.rng.index(state.inbox.len() + 1),
            false => state.inbox.len(),
        };
        let now = self.clock(node);
        for _ in 0..take {
            let Some(input) = self.nodes[node.index()].inbox.pop_front() else { break };
            self.take_input(node, now, input);
            self.perform(node)?;
        }
        let Node { core, rows, .. } = &mut self.nodes[node.index()];
        let Some(core) = core else { return Ok(()) };
        // A shell has no rows before the first Prepare; the core does not touch them then.
        let none = &mut Rows::new(node, tradewind_ledger::ViewId(0), &[], 0);
        core.handle_rows(now, rows.as_mut().unwrap_or(none));
        self.perform(node)?;
        self.flush(node);
        if std::mem::take(&mut self.delivered) {
            self.check_turn(node)?;
        }
        if !self.nodes[node.index()].inbox.is_empty() {
            self.wake(node);
        }
        let timeout = self.nodes[node.index()].core.as_ref().and_then(NodeCore::poll_timeout);
        if let Some(Instant(at)) = timeout {
            self.wake_at(node, at.max(self.now + 10));
        }
        Ok(())
    }

    fn take_input(&mut self, node: NodeId, now: Now, input: Input) {
        let Node {
            core,
            rows,
            links,
            disks,
            promise,
            promising,
            rewinding,
            remembered,
            snapshots,
            ..
        } = &mut self.nodes[node.index()];
        let Some(core) = core else { return };
        match input {
            Input::Frame(from, generation, frame) => {
                if links.get(&from) != Some(&generation) {
                    return;
                }
                match frame {
                    Frame::Message(message) => core.handle_message(now, from, &message),
                    Frame::Publish { view, offset, bytes } => {
                        if let Some(rows) = rows.as_mut().filter(|rows| rows.view == view) {
                            rows.land(from, offset, &bytes);
                        } else {
                            self.coverage.frames_of_old_views += 1;
                        }
                    }
                }
            }
            Input::Linked(peer, generation) => {
                links.insert(peer, generation);
                core.handle_connected(now, peer);
            }
            Input::Unlinked(peer, generation) => {
                if links.get(&peer) == Some(&generation) {
                    links.remove(&peer);
                    core.handle_lost(now, peer);
                }
            }
            Input::Synced(shard) => {
                let disk = disks.get_mut(&shard).expect("an own shard");
                let size = disk.finish_sync();
                core.handle_durable(now, ShardIndex(shard as u16), size);
                self.start_sync(node, shard);
            }
            Input::Signed(shard, size, signature) => {
                core.handle_signature(ShardIndex(shard as u16), size, signature);
            }
            Input::LogRead(reader, first, root_before, entries) => {
                core.handle_log_read(reader, first, root_before, entries);
            }
            Input::ValueRead(reader, digest, offset, bytes) => {
                core.handle_value_read(reader, digest, offset, bytes);
            }
            Input::Roots(reader, roots) => core.handle_roots(now, reader, roots),
            Input::Promised(written) => {
                let view = written.view;
                promising.take_if(|newest| newest.view == view);
                *promise = written;
                core.handle_promised(now, view);
            }
            Input::Remembered(written) => *remembered = written,
            Input::Rewound(shard, to) => {
                *rewinding = None;
                let disk = disks.get_mut(&shard).expect("an own shard");
                disk.cut(to);
                let rule = &self.plan.limits.snapshots;
                let recovered = snapshots.recover(shard, disk, rule);
                core.handle_rewound(now, ShardIndex(shard as u16), recovered);
            }
            Input::Snapshots(done) => self.take_snapshots(node, now, done),
            Input::Submit(shard, submission) => {
                let ticket = submission.ticket;
                if let Err(refused) = core.handle_submit(ShardIndex(shard as u16), submission) {
                    self.coverage.refused += 1;
                    self.tell(|| format!("{node} refuses a request: {refused}"));
                    self.tickets.remove(&ticket);
                }
            }
        }
    }

    pub(super) fn perform(&mut self, node: NodeId) -> Check {
        while let Some(action) =
            self.nodes[node.index()].core.as_mut().and_then(NodeCore::poll_action)
        {
            self.act(node, action)?;
        }
        Ok(())
    }

    fn act(&mut self, node: NodeId, action: Action) -> Check {
        let incarnation = self.nodes[node.index()].incarnation;
        match action {
            Action::Prepare { view, members, row_len } => {
                self.tell(|| format!("{node} prepares view {view}"));
                self.nodes[node.index()].rows = Some(Rows::new(node, view, &members, row_len));
            }
            Action::Send { to, message } => self.transmit(node, to, Frame::Message(message)),
            Action::Disconnect { peer, reason } => {
                self.tell(|| format!("{node} disconnects {peer}: {reason}"));
                self.coverage.disconnects += 1;
                self.break_link(node, peer);
            }
            Action::Append { shard, first, entries, values, .. } => {
                let shard = shard.index();
                self.tell(|| {
                    format!("{node} appends {} to shard {shard} at {first}", entries.len())
                });
                let disk = self.nodes[node.index()].disks.get_mut(&shard).expect("an own shard");
                self.coverage.detached += values.len() as u64;
                self.delivered = true;
                disk.append(first, &entries, values);
                self.checker.invariant_one_order(shard, disk, first, &entries)?;
                self.start_sync(node, shard);
            }
            Action::ReadLog { reader, first, end, max_bytes } => {
                let disk = &self.nodes[node.index()].disks[&reader.shard.index()];
                if first < disk.first() {
                    self.read_pruned(node, reader);
                    return Ok(());
                }
                let entries = disk.read(first, end, max_bytes);
                let input = Input::LogRead(reader, first, disk.root(first), entries);
                let at = self.now + self.rng.range(20..2_000);
                self.at(at, Event::Input(node, incarnation, input));
            }
            Action::ReadValue { reader, digest, offset, max_bytes } => {
                let value = self.nodes[node.index()].disks[&reader.shard.index()].value(&digest);
                let rest = value.get(offset as usize..).unwrap_or_default();
                let bytes = rest[..rest.len().min(max_bytes)].to_vec();
                let input = Input::ValueRead(reader, digest, offset, bytes);
                let at = self.now + self.rng.range(20..2_000);
                self.at(at, Event::Input(node, incarnation, input));
            }
            Action::Snapshot { .. }
            | Action::ReadPart { .. }
            | Action::Take { .. }
            | Action::Agreed { .. }
            | Action::KeepPart { .. }
            | Action::KeepValue { .. }
            | Action::Plant { .. } => self.act_on_snapshots(node, action)?,
            Action::Sign { shard, checkpoint } => self.sign(node, shard.index(), &checkpoint)?,
            Action::Answers(answers) => {
                for answer in answers {
                    self.answer(node, answer)?;
                }
            }
            Action::Committed { shard, version } => {
                let disks = members_disks(self.plan, &self.nodes, shard.index());
                let own = &self.nodes[node.index()].disks[&shard.index()];
                let of = shard.index();
                self.checker.invariant_committed_is_durable(of, version, own, &disks)?;
            }
            Action::Checkpoint { shard, size, note } => {
                self.tell(|| {
                    format!("{node} has a checkpoint of shard {} at {size}", shard.index())
                });
                self.checker.invariant_checkpoint_has_majority(shard.index(), size, &note)?;
                self.signed(node, shard.index(), size, note);
            }
            Action::Stopped { view, why } => {
                self.tell(|| format!("{node} stops view {view}: {why:?}"));
                let admits = matches!(why, Stop::Admits(_));
                self.admitting[node.index()] = admits.then_some(self.now);
            }
            Action::Installed { view, members } => {
                self.tell(|| format!("{node} installs view {view} of {members:?}"));
                self.admitted(node)?;
                self.checker.invariant_one_successor_view(view, &members)?;
                self.invariant_lost_disk_has_no_voice(node)?;
            }
            Action::Promise(promise) => {
                self.tell(|| {
                    format!("{node} promises view {} of {:?}", promise.view, promise.members)
                });
                let state = &mut self.nodes[node.index()];
                self.checker.promised(promise.view, node, state.crashes);
                state.promising = Some(promise.clone());
                let (usual, longest) = self.plan.fsync;
                let at = self.now + self.rng.delay(usual, longest);
                let done = &mut self.nodes[node.index()].promised_at;
                *done = at.max(*done);
                let at = *done;
                self.at(at, Event::Input(node, incarnation, Input::Promised(promise)));
            }
            Action::Remember(peers) => {
                let at = self.now + self.rng.delay(self.plan.fsync.0, self.plan.fsync.1);
                self.at(at, Event::Input(node, incarnation, Input::Remembered(peers)));
            }
            Action::ReadRoots { reader, sizes } => {
                let disk = &self.nodes[node.index()].disks[&reader.shard.index()];
                let roots = sizes.into_iter().map(|size| (size, disk.root(size))).collect();
                let at = self.now + self.rng.range(20..2_000);
                self.at(at, Event::Input(node, incarnation, Input::Roots(reader, roots)));
            }
            Action::Rewind { shard, to, dropped } => {
                let shard = shard.index();
                self.tell(|| format!("{node} cuts {dropped} entries of shard {shard}, to {to}"));
                let state = &mut self.nodes[node.index()];
                self.checker.invariant_rewind_keeps_committed(shard, &state.disks[&shard], to)?;
                state.rewinding = Some((shard, to));
                let at = self.now + self.rng.range(20..5_000);
                self.at(at, Event::Input(node, incarnation, Input::Rewound(shard, to)));
            }
            Action::Unknown(tickets) => {
                self.coverage.unknown += tickets.len() as u64;
                for ticket in &tickets {
                    self.tickets.remove(ticket);
                }
            }
            Action::SnapshotsDiffer { differ, .. } => {
                let detail = format!("{node}: two snapshots of {} entries differ", differ.size);
                return Err(Violation { invariant: "invariant_snapshots_identical", detail });
            }
            Action::Failed(Fatal::LostData { .. }) if self.nodes[node.index()].lost.is_some() => {
                self.find_disk(node);
            }
            Action::Failed(fatal) => {
                let detail = format!("{node}: {fatal}");
                return Err(Violation { invariant: "invariant_no_node_fails", detail });
            }
        }
        Ok(())
    }

    fn sign(&mut self, node: NodeId, shard: usize, checkpoint: &Checkpoint) -> Check {
        let disks: Vec<&Disk> = members_disks(self.plan, &self.nodes, shard);
        let own = &self.nodes[node.index()].disks[&shard];
        self.checker.invariant_signed_is_durable(shard, checkpoint, own, &disks)?;
        let signature = self.plan.signers[node.index()].sign(checkpoint.to_string().as_bytes());
        let input = Input::Signed(shard, checkpoint.size, signature);
        let at = self.now + self.rng.range(20..500);
        let incarnation = self.nodes[node.index()].incarnation;
        self.at(at, Event::Input(node, incarnation, input));
        Ok(())
    }

    pub(super) fn start_sync(&mut self, node: NodeId, shard: usize) {
        let state = &mut self.nodes[node.index()];
        if state.disks.get_mut(&shard).is_some_and(Disk::start_sync) {
            let (usual, longest) = self.plan.fsync;
            let start = self.now.max(state.slow_until);
            let (at, incarnation) = (start + self.rng.delay(usual, longest), state.incarnation);
            self.at(at, Event::Input(node, incarnation, Input::Synced(shard)));
        }
    }

    fn check_turn(&self, node: NodeId) -> Check {
        for shard in self.nodes[node.index()].disks.keys() {
            let members = self.plan.members(*shard).iter();
            let active = |member: &NodeId| {
                let core = self.nodes[member.index()].core.as_ref()?;
                let status = core.replica_status(ShardIndex(*shard as u16))?;
                (core.state() == State::Active).then_some((core.view().0, status))
            };
            let statuses: Vec<_> = members.filter_map(active).collect();
            Checker::invariant_stable_before_delivered(*shard, &statuses)?;
        }
        Ok(())
    }
}

pub(super) fn members_disks<'n>(plan: &Plan, nodes: &'n [Node], shard: usize) -> Vec<&'n Disk> {
    // A disk that is lost for a while still has what was told of it.
    let disk = |member: &NodeId| {
        let node = &nodes[member.index()];
        &node.lost.as_ref().map_or(&node.disks, |lost| &lost.disks)[&shard]
    };
    plan.members(shard).iter().map(disk).collect()
}
