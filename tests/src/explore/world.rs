//! Everything at one moment: nodes, what is between them, and what is known. A step makes the next moment out of it; what a
//! step does not touch, both share.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use tradewind_ledger::ViewId;
use tradewind_site_protocol::{NodeCore, NodeId, ShardIndex, message_in_words};

use super::disk::Disk;
use super::known::Known;
use super::parts::{Frame, Link, Node, Setting, Watch};
use super::rows::Rows;
use super::step::{Channel, Step};
use crate::sim::{Check, Planted};

/// After so many steps through channels without a rest, the next one is drawn.
pub(super) const FAIR_FOR: usize = 100;

/// Everything at one moment.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) setting: Rc<Setting>,
    /// Which of the things that could happen comes first if nothing else is chosen.
    pub(super) order: usize,
    pub(super) nodes: Vec<Rc<Node>>,
    /// By sender and receiver.
    pub(super) lanes: Vec<Rc<VecDeque<Frame>>>,
    /// By the lower and the higher node.
    pub(super) links: Vec<Link>,
    pub(super) held: BTreeSet<Channel>,
    /// By command of the opening.
    pub(super) submitted: Vec<bool>,
    /// How often time had to pass since anything came of it.
    pub(super) waited: u32,
    /// How much came through channels since nothing was on its way.
    pub(super) busy: usize,
    pub(super) known: Rc<Known>,
}

impl World {
    /// Nodes with empty disks that do not run.
    pub(super) fn new(setting: Setting) -> Self {
        let count = setting.site.len();
        let node = |own: u16| Node {
            core: None,
            disk: Disk::default(),
            rows: Rows::new(NodeId(own), count, (ViewId(0), &[]), 0),
            runs: None,
            linked: vec![false; count],
            file: 0,
            clock: 0,
            print: 0,
        };
        Self {
            nodes: (0..count as u16).map(node).map(Rc::new).collect(),
            lanes: vec![Rc::default(); count * count],
            links: vec![Link::Down; count * count],
            held: BTreeSet::new(),
            submitted: vec![false; setting.commands.len()],
            waited: 0,
            busy: 0,
            order: 0,
            known: Rc::default(),
            setting: Rc::new(setting),
        }
    }

    /// From here on all nodes have a bug.
    pub(super) fn plant(&mut self, planted: Option<Planted>) {
        Rc::make_mut(&mut self.setting).planted = planted;
        for node in self.all() {
            if let Some(core) = &mut self.node_mut(node).core {
                core.plant(planted.and_then(Planted::in_core));
            }
        }
    }

    pub(super) fn node(&self, node: NodeId) -> &Node {
        &self.nodes[node.index()]
    }

    pub(super) fn node_mut(&mut self, node: NodeId) -> &mut Node {
        Rc::make_mut(&mut self.nodes[node.index()])
    }

    pub(super) fn all(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u16).map(NodeId)
    }

    pub(super) fn pairs(&self) -> impl Iterator<Item = (NodeId, NodeId)> + use<> {
        let count = self.nodes.len() as u16;
        (0..count).flat_map(move |a| (a + 1..count).map(move |b| (NodeId(a), NodeId(b))))
    }

    pub(super) fn is_up(&self, node: NodeId) -> bool {
        self.node(node).core.is_some()
    }

    pub(super) fn lane(&self, from: NodeId, to: NodeId) -> &VecDeque<Frame> {
        &self.lanes[from.index() * self.nodes.len() + to.index()]
    }

    pub(super) fn lane_mut(&mut self, from: NodeId, to: NodeId) -> &mut VecDeque<Frame> {
        let at = from.index() * self.nodes.len() + to.index();
        Rc::make_mut(&mut self.lanes[at])
    }

    pub(super) fn link(&self, a: NodeId, b: NodeId) -> Link {
        self.links[a.min(b).index() * self.nodes.len() + a.max(b).index()]
    }

    pub(super) fn set_link(&mut self, a: NodeId, b: NodeId, link: Link) {
        let at = a.min(b).index() * self.nodes.len() + a.max(b).index();
        self.links[at] = link;
    }

    /// Tells what each node has come to.
    pub(super) fn tell(&self, watch: &mut Watch) {
        for node in self.all() {
            let mut text = String::new();
            if let Some(core) = &self.node(node).core {
                core.describe(&mut text).expect("a string takes everything");
            }
            watch.tell(|| format!("{node}: {text}"));
        }
    }

    /// A hash of all that tells this moment from others.
    pub(super) fn print(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.nodes.iter().for_each(|node| node.print.hash(&mut hasher));
        for lane in &self.lanes {
            lane.len().hash(&mut hasher);
            for frame in lane.iter() {
                match frame {
                    Frame::Up => 0.hash(&mut hasher),
                    Frame::Down => 1.hash(&mut hasher),
                    Frame::Message(bytes, row) => {
                        (bytes, row.view.0, row.publishes, row.print).hash(&mut hasher);
                    }
                }
            }
        }
        let turns = self.busy.saturating_sub(FAIR_FOR);
        (&self.links, &self.held, &self.submitted, self.waited, turns).hash(&mut hasher);
        self.known.hash(&mut hasher);
        hasher.finish()
    }

    /// Makes the next moment.
    pub(super) fn take(&mut self, step: Step, watch: &mut Watch) -> Check {
        watch.tell(|| step.to_string());
        self.busy = match step {
            Step::Next(_) => self.busy + 1,
            _ => 0,
        };
        match step {
            Step::Next(Channel::Lane(from, to)) => self.receive(from, to, watch),
            Step::Next(Channel::Row(from, to)) => {
                let row = self.node(from).rows.shown.clone();
                self.node_mut(to).rows.land(from, &row);
                self.turn(to, watch)
            }
            Step::Next(Channel::Log(node)) => self.synced(node, watch),
            Step::Next(Channel::Promise(node)) => self.promise_written(node, watch),
            Step::Mend(a, b) if !self.is_up(a) || !self.is_up(b) => {
                // It comes up with them.
                self.set_link(a, b, Link::Down);
                Ok(())
            }
            Step::Next(Channel::Link(a, b)) | Step::Mend(a, b) => {
                self.waited = 0;
                self.set_link(a, b, Link::Up);
                self.lane_mut(a, b).push_back(Frame::Up);
                self.lane_mut(b, a).push_back(Frame::Up);
                Ok(())
            }
            Step::Hold(channel) => {
                self.held.insert(channel);
                Ok(())
            }
            Step::Release(channel) => {
                self.held.remove(&channel);
                Ok(())
            }
            Step::Submit(command) => self.submit(command, watch),
            Step::Cut(a, b) => {
                self.break_link(a, b, Link::Cut);
                Ok(())
            }
            Step::Crash(node, kept) => {
                self.crash(node, kept);
                Ok(())
            }
            Step::Outage => {
                let up: Vec<NodeId> = self.all().filter(|node| self.is_up(*node)).collect();
                up.into_iter().for_each(|node| self.crash(node, false));
                Ok(())
            }
            Step::Start(node) => self.start(node, watch),
            Step::Tick(node) => self.tick(node, watch),
            Step::Time => self.pass_time(watch),
        }
    }

    fn receive(&mut self, from: NodeId, to: NodeId, watch: &mut Watch) -> Check {
        let frame = self.lane_mut(from, to).pop_front().expect("there is one");
        let node = self.node_mut(to);
        let now = node.now();
        let core = node.core.as_mut().expect("it is up");
        match frame {
            Frame::Up => {
                node.linked[from.index()] = true;
                core.handle_connected(now, from);
            }
            Frame::Down => {
                node.linked[from.index()] = false;
                core.handle_lost(now, from);
            }
            Frame::Message(bytes, row) => {
                watch.tell(|| format!("  {}", in_words(&bytes)));
                node.rows.land(from, &row);
                core.handle_message(now, from, &bytes);
            }
        }
        self.turn(to, watch)
    }

    fn synced(&mut self, node: NodeId, watch: &mut Watch) -> Check {
        let state = self.node_mut(node);
        let (now, size) = (state.now(), state.disk.sync());
        let core = state.core.as_mut().expect("it is up");
        core.handle_durable(now, ShardIndex(0), size);
        self.turn(node, watch)
    }

    fn promise_written(&mut self, node: NodeId, watch: &mut Watch) -> Check {
        let forgotten = self.setting.planted == Some(Planted::PromiseForgotten);
        let state = self.node_mut(node);
        let now = state.now();
        let promise = state.disk.promising.take().expect("one is being written");
        let view = promise.view;
        if !forgotten {
            state.disk.promise = promise;
        }
        state.core.as_mut().expect("it is up").handle_promised(now, view);
        Rc::make_mut(&mut self.known).promised(view, node);
        self.turn(node, watch)
    }

    fn tick(&mut self, node: NodeId, watch: &mut Watch) -> Check {
        let state = self.node_mut(node);
        let due = state.core.as_ref().and_then(NodeCore::poll_timeout);
        state.clock = due.map_or(state.clock, |due| due.0.max(state.clock + 1));
        self.turn(node, watch)
    }

    fn pass_time(&mut self, watch: &mut Watch) -> Check {
        self.waited += 1;
        let forming = self.all().filter(|node| self.node(*node).runs.is_none());
        let until = |node: NodeId| {
            let due = self.node(node).core.as_ref()?.poll_timeout()?;
            Some(due.0.saturating_sub(self.node(node).clock))
        };
        let passed = forming.filter_map(until).min().unwrap_or_default().max(1);
        for node in self.all() {
            self.node_mut(node).clock += passed;
            if self.is_up(node) {
                self.turn(node, watch)?;
            } else {
                self.node_mut(node).seal();
            }
        }
        Ok(())
    }

    /// After each input: the core works on its rows, and what it asks for is done.
    pub(super) fn turn(&mut self, node: NodeId, watch: &mut Watch) -> Check {
        self.perform(node, watch)?;
        let state = self.node_mut(node);
        let now = state.now();
        if let Some(core) = &mut state.core {
            core.handle_rows(now, &mut state.rows);
        }
        self.perform(node, watch)?;
        let state = self.node_mut(node);
        if let Some(core) = &mut state.core {
            watch.counters.add(&core.take_counters());
        }
        state.seal();
        Ok(())
    }

    fn perform(&mut self, node: NodeId, watch: &mut Watch) -> Check {
        while let Some(action) = self.node_mut(node).core.as_mut().and_then(NodeCore::poll_action) {
            self.act(node, action, watch)?;
        }
        Ok(())
    }

    /// A node's link to a peer breaks; both are told.
    pub(super) fn break_link(&mut self, a: NodeId, b: NodeId, link: Link) {
        let was_up = self.link(a, b) == Link::Up;
        self.set_link(a, b, link);
        for (from, to) in [(a, b), (b, a)] {
            let knows = self.node(to).linked[from.index()];
            let lane = self.lane_mut(from, to);
            if was_up {
                lane.clear();
                if knows {
                    lane.push_back(Frame::Down);
                }
            }
        }
    }

    fn crash(&mut self, node: NodeId, kept: bool) {
        for peer in self.all().filter(|peer| *peer != node) {
            // A link that was cut stays so.
            let link = match self.link(node, peer) {
                Link::Cut => Link::Cut,
                _ => Link::Down,
            };
            self.break_link(node, peer, link);
            self.lane_mut(peer, node).clear();
        }
        let count = self.nodes.len();
        let state = self.node_mut(node);
        (state.core, state.runs) = (None, None);
        state.linked = vec![false; count];
        state.rows = Rows::new(node, count, (ViewId(0), &[]), 0);
        state.disk.crash(kept);
        state.seal();
        for of_disk in [Channel::Log(node), Channel::Promise(node)] {
            self.held.remove(&of_disk);
        }
        Rc::make_mut(&mut self.known).open.retain(|(of, _)| *of != node);
    }

    fn start(&mut self, node: NodeId, watch: &mut Watch) -> Check {
        self.waited = 0;
        let setting = self.setting.clone();
        let state = self.node_mut(node);
        state.disk.starts += 1;
        let config = setting.site.config(node, state.file, state.disk.starts);
        let recovered = vec![state.disk.recover()];
        let (promise, now) = (state.disk.promise.clone(), state.now());
        let core = NodeCore::new(config, recovered, promise, now);
        let mut core = core.expect("what a core wrote can be started with");
        core.plant(setting.planted.and_then(Planted::in_core));
        core.recall(state.disk.remembered.clone());
        state.core = Some(core);
        self.turn(node, watch)
    }

    /// For the actions of a core, which are in `shell`.
    pub(super) fn send(&mut self, from: NodeId, to: NodeId, message: Vec<u8>) {
        let row = self.node(from).rows.shown.clone();
        if self.link(from, to) == Link::Up {
            self.lane_mut(from, to).push_back(Frame::Message(message.into(), row));
        }
    }
}

/// A message, as far as it fits a line.
fn in_words(message: &[u8]) -> String {
    message_in_words(message).chars().take(160).collect()
}
