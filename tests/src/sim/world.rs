//! The event loop of a run: real cores on simulated links, disks, clocks and clients.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use tradewind_ledger::{Digest, RequestId, Version};
use tradewind_site_protocol::{
    Answer, Barrier, BodyId, EntryBatch, Instant, NodeCore, NodeId, Now, Promise, ReadFor,
    Recollection, ShardStep, Staged, Step, Submission, Ticket,
};
use tradewind_store::Store;

use super::check::{Check, Checker};
use super::client::Client;
use super::disk::Disk;
use super::fabric::{Frame, Lane, Link, Rows};
use super::loss::Lost;
use super::plan::{MS, Plan, Slow};
use super::points::Trap;
use super::readers::{Read, Reader};
use super::rng::Rng;
use super::script::Scene;
use super::snapshots::{Done, Snapshots};
use super::storage::Lie;
use super::{Coverage, Failure, Late};
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
    /// A reader begins a read, unless it has begun another one since this one.
    Reader(usize, u64),
    /// The answer to an attempt reaches a client.
    Reply(usize, u64, Answer),
    Fault,
    /// The time of the scene has come before which so many are left.
    Scene(usize),
    Crash(NodeId),
    Restart(NodeId),
    /// A node does not keep up from here on.
    Slow(Slow),
    Relink(NodeId, NodeId),
    Break(NodeId, NodeId),
    /// The nodes can reach each other again, as far as this trouble goes.
    Mend(Vec<(NodeId, NodeId)>),
    /// A node looks for bit rot.
    Scrub(NodeId),
    /// A disk that lied is honest again, or loses what it lied about.
    Honest(NodeId),
    /// Faults end: everybody comes back, or a majority.
    Heal,
    /// The rest comes back.
    HealAll,
    /// Whether the end is reached.
    Look,
    /// The last node starts for the first time.
    Late,
    /// Somebody writes a topology file that ends with this roster, and begins to give it to the nodes.
    Change(usize),
    /// A node gets it, and is restarted.
    File(NodeId, usize),
}

#[derive(Debug)]
pub(super) enum Input {
    Frame(NodeId, u64, Frame),
    Linked(NodeId, u64),
    Unlinked(NodeId, u64),
    Synced(usize),
    /// How far a body is written.
    Staged(usize, BodyId, Staged),
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
    Read(usize, Read),
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
    /// Its disk says to sync and does not; or lost something, and nobody told the node yet.
    pub(super) lie: Option<Lie>,
    /// Stays down until the rest is healed.
    pub(super) held: bool,
    /// The roster that its topology file ends with; none before it has one.
    pub(super) file: Option<usize>,
    /// It was told that it is removed.
    pub(super) dismissed: bool,
    /// By shard.
    pub(super) disks: BTreeMap<usize, Disk>,
    /// Those that it had under its former key; and what it has under one that it does not have yet.
    pub(super) former: BTreeMap<usize, Disk>,
    pub(super) none: Disk,
    /// By peer: the generation of the link, as this node knows it.
    pub(super) links: BTreeMap<NodeId, u64>,
    pub(super) inbox: VecDeque<Input>,
    /// Reads that wait for a barrier of their shard.
    pub(super) reads: Vec<(usize, Barrier, Read)>,
    pub(super) turn_at: Option<u64>,
    pub(super) paused_until: u64,
    /// Before this it stands still again and again, and takes little of what came when it does not.
    pub(super) starved_until: u64,
    /// An fsync that starts before ends after this.
    pub(super) slow_until: u64,
    /// Nothing new finds room on its disk before this.
    pub(super) full_until: u64,
    /// The fsync that ends next fails.
    pub(super) sync_fails: bool,
    /// Messages to others are sent twice before this.
    pub(super) doubles_until: u64,
    /// Where it was after the last input; and its shards.
    pub(super) step: Option<Step>,
    pub(super) shard_steps: BTreeMap<usize, ShardStep>,
    /// Wall clock minus the world's, microseconds.
    pub(super) skew: i64,
}

impl Node {
    /// What its disks begin to sync before this ends after it.
    pub(super) fn slow_down(&mut self, until: u64) {
        self.slow_until = self.slow_until.max(until);
    }

    /// A disk that is lost for a while still has what was told of it.
    fn told(&self, shard: usize) -> &Disk {
        &self.lost.as_ref().map_or(&self.disks, |lost| &lost.disks)[&shard]
    }

    pub(super) fn disk(&mut self, shard: usize) -> &mut Disk {
        self.disks.get_mut(&shard).expect("an own shard")
    }
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
    pub(super) readers: Vec<Reader>,
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
    /// The newest roster that there was a view of.
    pub(super) newest_roster: usize,
    /// Whether the present turn delivered anything.
    pub(super) delivered: bool,
    /// Where nodes are to crash.
    pub(super) traps: Vec<Trap>,
    /// What is laid down and not yet done.
    pub(super) scenes: VecDeque<Scene>,
    /// A node lost what its disk said to have synced: nothing else goes wrong until it is in a view, or ends for it.
    pub(super) liar: Option<NodeId>,
    /// It ended for it: that is the end of the run.
    pub(super) detected: bool,
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
            lie: None,
            held: false,
            file: plan.is_seated(NodeId(index as u16), 0).then_some(0),
            dismissed: false,
            disks: (0..plan.shards.len())
                .filter(|shard| plan.ever(*shard).contains(&NodeId(index as u16)))
                .map(|shard| (shard, Disk::default()))
                .collect(),
            former: BTreeMap::new(),
            none: Disk::default(),
            links: BTreeMap::new(),
            inbox: VecDeque::new(),
            reads: Vec::new(),
            turn_at: None,
            paused_until: 0,
            starved_until: 0,
            slow_until: 0,
            full_until: 0,
            sync_fails: false,
            doubles_until: 0,
            step: None,
            shard_steps: BTreeMap::new(),
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
            readers: (0..plan.readers).map(|_| Reader::default()).collect(),
            tickets: BTreeMap::new(),
            checker: Checker::new(plan),
            histories: vec![History::default(); plan.shards.len()],
            healed: false,
            rest_since: plan.faults_until,
            late: plan.late,
            troubled_at: 0,
            admitting: vec![None; count],
            newest_roster: 0,
            delivered: false,
            traps: plan.injections.iter().copied().map(Trap::Nth).collect(),
            scenes: plan.scenes.iter().cloned().collect(),
            liar: None,
            detected: false,
            coverage: Coverage::default(),
            trace,
        };
        for index in 0..count {
            world.at(0, Event::Restart(NodeId(index as u16)));
        }
        for client in 0..plan.clients {
            world.at(client as u64 * MS, Event::Client(client));
        }
        for reader in 0..plan.readers {
            world.at(reader as u64 * MS, Event::Reader(reader, 0));
        }
        if plan.fault_every > 0 {
            world.at(plan.fault_every, Event::Fault);
        }
        if plan.fault_every > 0 && !plan.veiled {
            world.set_trap_at_cut();
        }
        for (change, at) in plan.changes_at.iter().enumerate() {
            world.at(*at, Event::Change(change + 1));
        }
        world.at(plan.faults_until, Event::Heal);
        world.next_scene();
        for slow in &plan.slow {
            world.at(slow.at, Event::Slow(*slow));
        }
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
            if self.detected {
                break self.check_detected();
            }
        };
        for node in &mut self.nodes {
            if let Some(core) = &node.core {
                self.coverage.core.add(&core.status().counters);
            }
        }
        self.coverage.unscripted = self.scenes.len();
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
            Event::Scene(left) => self.scene(left),
            Event::Client(client) => self.client(client),
            Event::Reader(reader, number) => self.reader(reader, number),
            Event::Reply(client, attempt, answer) => self.answered(client, attempt, &answer),
            Event::Fault => self.fault(),
            Event::Crash(node) if !self.healed && self.liar.is_none() => self.crash(node),
            Event::Crash(_) => {}
            Event::Slow(slow) => self.slow(slow),
            Event::Scrub(node) => self.scrub(node),
            Event::Honest(node) => self.ends_lying(node),
            Event::Restart(node) => return self.restart(node),
            Event::Relink(a, b) => self.relink(a, b),
            Event::Break(a, b) if !self.healed && self.liar.is_none() => self.break_link(a, b),
            Event::Break(..) => {}
            Event::Heal => {
                self.healed = true;
                self.heal();
                self.at(self.now + 50 * MS, Event::Look);
            }
            Event::Mend(pairs) => self.mend(&pairs),
            Event::HealAll => self.heal_all(),
            Event::Late => self.start_late(),
            Event::Change(roster) => self.change(roster),
            Event::File(node, roster) => self.give_file(node, roster),
            Event::Look => self.at(self.now + 5 * MS, Event::Look),
        }
        Ok(())
    }
}

/// The disks of a shard's members on a roster.
pub(super) fn members_disks<'n>(
    plan: &Plan,
    nodes: &'n [Node],
    shard: usize,
    roster: usize,
) -> Vec<&'n Disk> {
    let disk = |member: &NodeId| {
        let node = &nodes[member.index()];
        let by = |file: usize| plan.key(*member, file);
        match node.file {
            Some(file) if by(file) == by(roster) => node.told(shard),
            Some(file) if file > roster => node.former.get(&shard).unwrap_or(&node.none),
            _ => &node.none,
        }
    };
    plan.members(shard, roster).iter().map(disk).collect()
}

/// The disks that some nodes have of a shard.
pub(super) fn disks_of<'n>(nodes: &'n [Node], shard: usize, of: &[NodeId]) -> Vec<&'n Disk> {
    of.iter().map(|node| nodes[node.index()].told(shard)).collect()
}
