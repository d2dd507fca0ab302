//! What the nodes of a simulated network share: who runs, their links, what is under way, and the time.

use std::{collections::VecDeque, mem, time::Duration};

use super::SimOptions;
use crate::fabric::NodeId;

/// Something on its way from one node to another.
#[derive(Debug)]
pub(super) enum Frame {
    /// The link is up, as its `generation`-th; each end is told before anything else comes over it.
    Up { generation: u64, incarnation: u64 },
    /// It is gone.
    Down(String),
    /// It cannot be made.
    Unreachable(String),
    /// The sender has made its rows of this view.
    Prepared(u64),
    /// Ranges of the sender's row with their offsets, which land as one.
    Batch { view: u64, ranges: Vec<(usize, Vec<u8>)> },
    /// A message of the control lane.
    Message(Vec<u8>),
}

impl Frame {
    /// Bytes of the caller's.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Batch { ranges, .. } => ranges.iter().map(|(_, bytes)| bytes.len()).sum(),
            Self::Message(bytes) => bytes.len(),
            _ => 0,
        }
    }

    /// Whether an end learns this by itself, not from its peer.
    fn is_local(&self) -> bool {
        matches!(self, Self::Up { .. } | Self::Down(_) | Self::Unreachable(_))
    }
}

/// One direction of a link: a queue with random delays.
#[derive(Debug, Default)]
struct Lane {
    queue: VecDeque<(Duration, Frame)>,
    /// When the last frame arrives: none overtakes it.
    last: Duration,
    bytes: usize,
    cut: bool,
}

impl Lane {
    fn clear(&mut self) {
        self.queue.clear();
        self.bytes = 0;
    }

    /// When the next frame arrives, if any does.
    fn due(&self) -> Option<Duration> {
        let (at, frame) = self.queue.front()?;
        (!self.cut || frame.is_local()).then_some(*at)
    }
}

/// Two nodes' connection.
#[derive(Clone, Debug, Default)]
struct Link {
    generation: u64,
    up: bool,
    /// When the next one is to be made.
    up_at: Option<Duration>,
}

/// A node's place.
#[derive(Debug, Default)]
pub(super) struct Seat {
    /// The start that runs.
    incarnation: Option<u64>,
    /// When it was last heard to be in its reactor, and whether it is parked there.
    pub(super) alive_at: Duration,
    pub(super) parked: bool,
    pub(super) woken: bool,
}

/// All that is shared, behind one lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) now: Duration,
    pub(super) options: SimOptions,
    pub(super) seats: Vec<Seat>,
    /// Whether frames came or went since somebody was told.
    pub(super) stirred: bool,
    dice: u64,
    /// By lower node, then by higher one.
    links: Vec<Link>,
    /// By sender, then by receiver.
    lanes: Vec<Lane>,
}

impl State {
    pub(super) fn new(nodes: u16, options: SimOptions, seed: u64) -> Self {
        let pairs = usize::from(nodes) * usize::from(nodes);
        Self {
            now: Duration::ZERO,
            options,
            seats: (0..nodes).map(|_| Seat::default()).collect(),
            stirred: false,
            dice: seed,
            links: vec![Link::default(); pairs],
            lanes: (0..pairs).map(|_| Lane::default()).collect(),
        }
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        let nodes = u16::try_from(self.seats.len()).expect("made from a u16");
        (0..nodes).map(NodeId)
    }

    /// A number below `bound` (SplitMix64).
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.dice ^ (self.dice >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn delay(&mut self) -> Duration {
        let longest = match self.below(100) {
            0..95 => self.options.delay,
            _ => self.options.delay_max.max(self.options.delay),
        };
        let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX - 1);
        Duration::from_nanos(self.below(nanos + 1))
    }

    fn lane(&mut self, from: NodeId, to: NodeId) -> &mut Lane {
        let nodes = self.seats.len();
        &mut self.lanes[from.index() * nodes + to.index()]
    }

    fn link(&mut self, a: NodeId, b: NodeId) -> &mut Link {
        let nodes = self.seats.len();
        &mut self.links[a.min(b).index() * nodes + a.max(b).index()]
    }

    fn runs(&self, node: NodeId) -> bool {
        self.seats[node.index()].incarnation.is_some()
    }

    fn push(&mut self, from: NodeId, to: NodeId, frame: Frame) {
        self.stirred = true;
        let arrival = self.now + self.delay();
        let lane = self.lane(from, to);
        lane.last = lane.last.max(arrival);
        lane.bytes += frame.len();
        let last = lane.last;
        lane.queue.push_back((last, frame));
    }

    /// # Panics
    /// If the node runs.
    pub(super) fn start(&mut self, node: NodeId, incarnation: u64) {
        assert!(!self.runs(node), "{node} runs already");
        let now = self.now;
        self.seats[node.index()] =
            Seat { incarnation: Some(incarnation), alive_at: now, ..Seat::default() };
        for peer in self.nodes().filter(|peer| *peer != node) {
            self.lane(peer, node).clear();
            match self.runs(peer) {
                true => self.connect_later(node, peer),
                false => self.push(peer, node, Frame::Unreachable(format!("{peer} is down"))),
            }
        }
    }

    /// The node is gone, as if killed.
    pub(super) fn stop(&mut self, node: NodeId) {
        self.seats[node.index()].incarnation = None;
        for peer in self.nodes().filter(|peer| *peer != node) {
            self.break_link(node, peer, "closed by the peer");
            self.link(node, peer).up_at = None;
        }
    }

    fn connect_later(&mut self, a: NodeId, b: NodeId) {
        let pause = self.delay() + self.options.pause;
        let at = self.now + pause;
        let link = self.link(a, b);
        if !link.up {
            link.up_at.get_or_insert(at);
        }
    }

    /// Loses all that is under way between two nodes; they connect anew, after a pause.
    pub(super) fn break_link(&mut self, a: NodeId, b: NodeId, reason: &str) {
        if !mem::take(&mut self.link(a, b).up) {
            return;
        }
        for (from, to) in [(a, b), (b, a)] {
            self.lane(from, to).clear();
            self.push(from, to, Frame::Down(reason.to_owned()));
        }
        self.connect_later(a, b);
    }

    pub(super) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.lane(from, to).cut = true;
    }

    pub(super) fn mend(&mut self, from: NodeId, to: NodeId) {
        self.lane(from, to).cut = false;
        if self.runs(from) && self.runs(to) {
            self.connect_later(from, to);
        }
    }

    pub(super) fn is_cut(&mut self, from: NodeId, to: NodeId) -> bool {
        self.lane(from, to).cut
    }

    /// Makes the links that are due.
    pub(super) fn connect(&mut self) {
        for (a, b) in self.nodes().flat_map(|b| (0..b.0).map(move |a| (NodeId(a), b))) {
            if self.link(a, b).up_at.is_none_or(|at| at > self.now) {
                continue;
            }
            self.link(a, b).up_at = None;
            let cut = self.is_cut(a, b) || self.is_cut(b, a);
            if !cut {
                let link = self.link(a, b);
                link.up = true;
                link.generation += 1;
            }
            let generation = self.link(a, b).generation;
            for (from, to) in [(a, b), (b, a)] {
                let incarnation = self.seats[from.index()].incarnation;
                let frame = match incarnation.filter(|_| !cut) {
                    Some(incarnation) => Frame::Up { generation, incarnation },
                    None => Frame::Unreachable("no answer".to_owned()),
                };
                self.push(from, to, frame);
            }
        }
    }

    /// Whether the link that an end knows as its `generation`-th is up.
    pub(super) fn holds(&mut self, a: NodeId, b: NodeId, generation: u64) -> bool {
        let link = self.link(a, b);
        link.up && link.generation == generation
    }

    /// Sends over the link that the sender knows; over an older one it is lost.
    pub(super) fn transmit(&mut self, from: NodeId, to: NodeId, generation: u64, frame: Frame) {
        if self.holds(from, to, generation) {
            self.push(from, to, frame);
        }
    }

    /// Bytes on their way.
    pub(super) fn under_way(&mut self, from: NodeId, to: NodeId) -> usize {
        self.lane(from, to).bytes
    }

    /// The next frame for a node that has arrived.
    pub(super) fn take(&mut self, to: NodeId) -> Option<(NodeId, Frame)> {
        let due = self.nodes().filter_map(|from| Some((self.lane(from, to).due()?, from))).min();
        let (_, from) = due.filter(|(at, _)| *at <= self.now)?;
        let lane = self.lane(from, to);
        let (_, frame) = lane.queue.pop_front()?;
        lane.bytes -= frame.len();
        self.stirred = true;
        Some((from, frame))
    }

    /// When something happens next to a node, or to its links.
    pub(super) fn next(&mut self, node: NodeId) -> Option<Duration> {
        let others = || self.nodes().filter(|peer| *peer != node);
        let (froms, peers): (Vec<_>, Vec<_>) = (others().collect(), others().collect());
        let arrivals = froms.into_iter().filter_map(|from| self.lane(from, node).due()).min();
        let links = peers.into_iter().filter_map(|peer| self.link(node, peer).up_at).min();
        arrivals.into_iter().chain(links).min()
    }
}
