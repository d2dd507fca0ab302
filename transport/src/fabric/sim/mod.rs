//! A fabric without a network, for tests: nodes of one process, chance from a seed, and no clock.
//!
//! [`SimNetwork`] is the network and the handle by which a test delays, cuts and breaks. Its time passes only while a
//! [`Fabric::poll`] waits for its time-out, or when [`SimNetwork::advance`] says so: nodes that one thread polls in turn
//! do the same in each run. A poll without a time-out parks until another thread sends, wakes or breaks something.
//!
//! Within the contract it is as unkind as it can be: each published range is a frame of its own with a delay of its own,
//! longer ones come in two pieces, lower addresses first; only what a slow reader leaves over is gathered to batches.
//!
//! The simulator of whole sites has other memory, which promises less: `docs/fabric.md` says why.

mod network;

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use self::network::{Frame, State};
use super::{
    Counters, Fabric, FabricError, FabricEvent, LANE_BYTES_MAX, LANE_MESSAGES_MAX,
    MESSAGE_BYTES_MAX, NodeId, Wake,
    ranges::{RangeSet, WORD},
    region::Region,
};

/// A frame leaves while fewer bytes than this are under way to its reader.
const BACKLOG_BYTES: usize = 256 << 10;

/// Published ranges that are kept as they were at the call, each for itself; what is beyond is gathered.
const PICTURES_BYTES_MAX: usize = 64 << 10;

/// How a simulated network behaves.
#[derive(Clone, Copy, Debug)]
pub struct SimOptions {
    /// The longest that a frame usually takes.
    pub delay: Duration,
    /// The longest that one in twenty takes.
    pub delay_max: Duration,
    /// The pause before a link is made anew.
    pub pause: Duration,
    /// A peer that was not in its poll for so long is lost.
    pub silence: Duration,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            delay: Duration::from_micros(200),
            delay_max: Duration::from_millis(5),
            pause: Duration::from_millis(10),
            silence: Duration::from_millis(500),
        }
    }
}

/// The network between simulated nodes, and how a test troubles it. Clones are the same network.
#[derive(Clone)]
pub struct SimNetwork(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl SimNetwork {
    /// A network for so many nodes, none of which runs; everything that is left to chance follows from `seed`.
    #[must_use]
    pub fn new(nodes: u16, options: SimOptions, seed: u64) -> Self {
        let state = Mutex::new(State::new(nodes, options, seed));
        Self(Arc::new(Shared { state, changed: Condvar::new() }))
    }

    /// Starts a node. Dropping the fabric ends it, as a kill would.
    ///
    /// # Panics
    /// If the node runs, or is none of this network's.
    #[must_use]
    pub fn start(&self, node: NodeId, incarnation: u64) -> SimFabric {
        let (left_at, nodes) = self.0.with(|state| {
            state.start(node, incarnation);
            (state.now, state.seats.len())
        });
        SimFabric {
            network: Arc::clone(&self.0),
            own: node,
            peers: (0..nodes).map(|_| Peer::default()).collect(),
            region: None,
            left_at,
            counters: Counters::default(),
        }
    }

    /// The time since this network began.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.0.lock().now
    }

    /// Lets time pass in which nobody polls.
    pub fn advance(&self, by: Duration) {
        self.0.with(|state| state.now += by);
    }

    /// From now on nothing that `from` sends reaches `to`; it waits for [`Self::mend`], or is lost with the link.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.0.with(|state| state.cut(from, to));
    }

    /// Ends a [`Self::cut`].
    pub fn mend(&self, from: NodeId, to: NodeId) {
        self.0.with(|state| state.mend(from, to));
    }

    /// Breaks a link; it is made anew after a pause.
    pub fn break_link(&self, a: NodeId, b: NodeId, reason: &str) {
        self.0.with(|state| state.break_link(a, b, reason));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that failed elsewhere says so itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something, for those who are parked to see.
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed.notify_all();
        changed
    }
}

/// A node of a [`SimNetwork`].
pub struct SimFabric {
    network: Arc<Shared>,
    own: NodeId,
    peers: Vec<Peer>,
    region: Option<Region>,
    /// When the last poll returned.
    left_at: Duration,
    counters: Counters,
}

/// What a node knows of a peer.
#[derive(Debug, Default)]
struct Peer {
    /// The link, if it is up as far as this node knows.
    generation: Option<u64>,
    /// The view that the peer has prepared; 0 for none.
    view: u64,
    heard: Duration,
    unsent: Unsent,
    /// All that was ever published to it in this view.
    published: RangeSet,
    lane: VecDeque<Vec<u8>>,
    lane_bytes: usize,
    complaint: Option<String>,
    changed: bool,
}

/// What a peer has still to be shown: pictures in their order, or ranges that go together.
#[derive(Debug, Default)]
struct Unsent {
    pictures: VecDeque<(usize, Vec<u8>)>,
    bytes: usize,
    gathered: RangeSet,
}

impl Unsent {
    fn publish(&mut self, range: &Range<usize>, row: &[u8]) {
        let words = range.start - range.start % WORD..range.end.next_multiple_of(WORD);
        self.bytes += words.len();
        if self.gathered.is_empty() && self.bytes <= PICTURES_BYTES_MAX {
            self.pictures.push_back((words.start, row[words].to_vec()));
            return;
        }
        for (offset, bytes) in self.pictures.drain(..) {
            self.gathered.insert(&(offset..offset + bytes.len()));
        }
        self.gathered.insert(&words);
    }

    fn clear(&mut self) {
        *self = Self::default();
    }

    /// The next ranges that are to land as one.
    fn take(&mut self, row: &[u8]) -> Option<Vec<(usize, Vec<u8>)>> {
        if let Some((offset, bytes)) = self.pictures.pop_front() {
            self.bytes -= bytes.len();
            return Some(vec![(offset, bytes)]);
        }
        let ranges: Vec<_> =
            self.gathered.iter().map(|range| (range.start, row[range.clone()].to_vec())).collect();
        self.clear();
        (!ranges.is_empty()).then_some(ranges)
    }
}

impl SimFabric {
    fn view(&self) -> u64 {
        self.region.as_ref().map_or(0, |region| region.view)
    }

    fn region(&self) -> &Region {
        self.region.as_ref().expect("no view is prepared")
    }

    /// Sends what waits, as far as the readers take it.
    fn pump(&mut self, state: &mut State) {
        let (own, view) = (self.own, self.view());
        for (peer, to) in self.peers.iter_mut().zip(state.nodes()) {
            let Some(generation) = peer.generation else { continue };
            while state.under_way(own, to) < BACKLOG_BYTES {
                // Ranges before messages: a message comes after all that was published before it.
                let row = self.region.as_ref().map(|region| region.row(own));
                let ranges =
                    row.filter(|_| peer.view == view).and_then(|row| peer.unsent.take(row));
                if let Some(ranges) = ranges {
                    self.counters.batches_sent += 1;
                    for ranges in pieces(state, ranges) {
                        let frame = Frame::Batch { view, ranges };
                        self.counters.bytes_sent += frame.len() as u64;
                        state.transmit(own, to, generation, frame);
                    }
                } else if let Some(message) = peer.lane.pop_front() {
                    peer.lane_bytes -= message.len();
                    self.counters.messages_sent += 1;
                    self.counters.bytes_sent += message.len() as u64;
                    state.transmit(own, to, generation, Frame::Message(message));
                } else {
                    break;
                }
            }
            let backlog = (state.under_way(own, to) + peer.lane_bytes) as u64;
            self.counters.backlog_bytes_max = self.counters.backlog_bytes_max.max(backlog);
        }
    }

    /// Takes what has arrived.
    fn take(&mut self, state: &mut State, events: &mut Vec<FabricEvent>) {
        while let Some((from, frame)) = state.take(self.own) {
            self.counters.bytes_received += frame.len() as u64;
            let view = self.view();
            let peer = &mut self.peers[from.index()];
            match frame {
                Frame::Up { generation, incarnation } => {
                    (peer.generation, peer.view, peer.heard) = (Some(generation), 0, state.now);
                    peer.complaint = None;
                    self.counters.links_made += 1;
                    events.push(FabricEvent::Connected { peer: from, incarnation });
                    if view > 0 {
                        state.transmit(self.own, from, generation, Frame::Prepared(view));
                    }
                }
                Frame::Down(reason) => self.lost(from, reason, events),
                Frame::Unreachable(reason) => {
                    if peer.complaint.as_ref() != Some(&reason) {
                        peer.complaint = Some(reason.clone());
                        events.push(FabricEvent::Unreachable { peer: from, reason });
                    }
                }
                Frame::Prepared(prepared) => peer.view = prepared,
                Frame::Batch { view: of, .. } if of < view => self.counters.stale_dropped += 1,
                Frame::Batch { view: of, ranges } => {
                    assert_eq!(of, view, "{from} waits until this node has prepared its view");
                    let region = self.region.as_mut().expect("a view is prepared");
                    for (offset, bytes) in ranges {
                        region.row_mut(from)[offset..offset + bytes.len()].copy_from_slice(&bytes);
                    }
                    peer.changed = true;
                    self.counters.batches_received += 1;
                }
                Frame::Message(bytes) => {
                    self.counters.messages_received += 1;
                    events.push(FabricEvent::Message { peer: from, bytes });
                }
            }
        }
    }

    fn lost(&mut self, from: NodeId, reason: String, events: &mut Vec<FabricEvent>) {
        let peer = &mut self.peers[from.index()];
        if peer.generation.take().is_none() {
            return;
        }
        peer.view = 0;
        peer.lane.clear();
        peer.lane_bytes = 0;
        peer.unsent.clear();
        peer.unsent.gathered = peer.published.clone();
        self.counters.links_lost += 1;
        events.push(FabricEvent::Lost { peer: from, reason });
    }

    /// Gives up the link to a peer.
    fn give_up(&mut self, state: &mut State, peer: NodeId, reason: &str) -> Option<FabricEvent> {
        let generation = self.peers[peer.index()].generation?;
        if state.holds(self.own, peer, generation) {
            state.break_link(self.own, peer, reason);
        }
        let mut told = Vec::new();
        self.lost(peer, reason.to_owned(), &mut told);
        told.pop()
    }

    /// Looks who was not heard for too long; tells when to look again.
    fn listen(&mut self, state: &mut State, events: &mut Vec<FabricEvent>) -> Option<Duration> {
        let silence = state.options.silence;
        let mut next = None;
        for from in state.nodes() {
            let peer = &mut self.peers[from.index()];
            if peer.generation.is_none() {
                continue;
            }
            if !state.is_cut(from, self.own) {
                let seat = &state.seats[from.index()];
                let alive_at = if seat.parked { state.now } else { seat.alive_at };
                peer.heard = peer.heard.max(alive_at);
            }
            let deadline = peer.heard + silence;
            if state.now >= deadline {
                let reason = format!("silent for {} ms", silence.as_millis());
                events.extend(self.give_up(state, from, &reason));
            } else {
                next = next.into_iter().chain([deadline]).min();
            }
        }
        next
    }

    fn report(&mut self, state: &mut State, events: &mut Vec<FabricEvent>) {
        for (peer, node) in self.peers.iter_mut().zip(state.nodes()) {
            if std::mem::take(&mut peer.changed) {
                events.push(FabricEvent::RowChanged { peer: node });
            }
        }
        if std::mem::take(&mut state.seats[self.own.index()].woken) {
            events.push(FabricEvent::Woken);
        }
    }
}

/// What lands as one, perhaps in two pieces: the lower addresses of a range first.
fn pieces(state: &mut State, ranges: Vec<(usize, Vec<u8>)>) -> Vec<Vec<(usize, Vec<u8>)>> {
    match &ranges[..] {
        [(start, bytes)] if bytes.len() > 64 && state.below(2) == 0 => {
            let (lower, upper) = bytes.split_at(bytes.len() / 2 / WORD * WORD);
            vec![vec![(*start, lower.to_vec())], vec![(start + lower.len(), upper.to_vec())]]
        }
        _ => vec![ranges],
    }
}

impl Fabric for SimFabric {
    fn prepare(
        &mut self,
        view: u64,
        members: &[NodeId],
        row_len: usize,
    ) -> Result<(), FabricError> {
        let nodes = self.peers.len();
        Region::check_view(view, self.view(), members, row_len, (self.own, nodes))?;
        self.region = Some(Region::new(view, members, row_len, nodes));
        let own = self.own;
        let peers = &mut self.peers;
        self.network.with(|state| {
            for (peer, to) in peers.iter_mut().zip(state.nodes()) {
                peer.unsent.clear();
                peer.published.clear();
                peer.changed = false;
                if let Some(generation) = peer.generation {
                    state.transmit(own, to, generation, Frame::Prepared(view));
                }
            }
        });
        Ok(())
    }

    fn store(&mut self, offset: usize, bytes: &[u8]) {
        let region = self.region.as_mut().expect("no view is prepared");
        region.row_mut(self.own)[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn publish(&mut self, range: Range<usize>, peers: &[NodeId]) {
        self.counters.publishes += 1;
        let region = self.region.as_ref().expect("no view is prepared");
        region.check(&range);
        for &node in peers {
            assert!(region.is_member(node), "{node} is no member of view {}", region.view);
            if node != self.own && !range.is_empty() {
                let peer = &mut self.peers[node.index()];
                peer.unsent.publish(&range, region.row(self.own));
                peer.published.insert(&range);
            }
        }
    }

    fn flush(&mut self) {
        let network = Arc::clone(&self.network);
        network.with(|state| self.pump(state));
    }

    fn load(&self, peer: NodeId, offset: usize) -> u64 {
        assert!(offset.is_multiple_of(WORD), "a word at {offset}");
        let word = &self.region().row(peer)[offset..offset + WORD];
        u64::from_le_bytes(word.try_into().expect("a word has eight bytes"))
    }

    fn copy(&self, peer: NodeId, offset: usize, out: &mut [u8]) {
        out.copy_from_slice(&self.region().row(peer)[offset..offset + out.len()]);
    }

    fn send(&mut self, peer: NodeId, message: &[u8]) -> bool {
        let Some(peer) = self.peers.get_mut(peer.index()) else { return false };
        if peer.generation.is_none()
            || message.len() > MESSAGE_BYTES_MAX
            || peer.lane.len() >= LANE_MESSAGES_MAX
            || peer.lane_bytes + message.len() > LANE_BYTES_MAX
        {
            return false;
        }
        peer.lane_bytes += message.len();
        peer.lane.push_back(message.to_vec());
        true
    }

    fn poll(&mut self, timeout: Option<Duration>, events: &mut Vec<FabricEvent>) {
        let network = Arc::clone(&self.network);
        let mut state = network.lock();
        // Time in which this node itself stood still says nothing about the others.
        let away = state.now - self.left_at;
        if away > state.options.silence / 6 {
            self.peers.iter_mut().for_each(|peer| peer.heard = state.now.min(peer.heard + away));
        }
        let (before, deadline) = (events.len(), timeout.map(|timeout| state.now + timeout));
        loop {
            state.connect();
            self.pump(&mut state);
            self.take(&mut state, events);
            self.pump(&mut state);
            let silent = self.listen(&mut state, events);
            self.report(&mut state, events);
            if events.len() > before || deadline.is_some_and(|deadline| state.now >= deadline) {
                break;
            }
            // Parked without a limit, time passes by what others do only.
            let next = state.next(self.own);
            let next = next.into_iter().chain(silent.filter(|_| deadline.is_some())).min();
            let Some(at) = next.into_iter().chain(deadline).min() else {
                // Others may wait for what was sent here, or for room that was made.
                if std::mem::take(&mut state.stirred) {
                    network.changed.notify_all();
                }
                state.seats[self.own.index()].parked = true;
                state = network.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.seats[self.own.index()].parked = false;
                continue;
            };
            state.now = state.now.max(at);
        }
        state.seats[self.own.index()].alive_at = state.now;
        self.left_at = state.now;
        network.changed.notify_all();
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::new(SimWake { network: Arc::clone(&self.network), node: self.own })
    }

    fn disconnect(&mut self, peer: NodeId, reason: &str) {
        let network = Arc::clone(&self.network);
        // The event is told by the next poll: what was under way is lost at once.
        network.with(|state| {
            let generation = self.peers.get(peer.index()).and_then(|peer| peer.generation);
            if generation.is_some_and(|generation| state.holds(self.own, peer, generation)) {
                state.break_link(self.own, peer, reason);
            }
        });
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

impl Drop for SimFabric {
    fn drop(&mut self) {
        self.network.with(|state| state.stop(self.own));
    }
}

struct SimWake {
    network: Arc<Shared>,
    node: NodeId,
}

impl Wake for SimWake {
    fn wake(&self) {
        self.network.with(|state| state.seats[self.node.index()].woken = true);
    }
}
