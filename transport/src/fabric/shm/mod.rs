//! The fabric between processes of one host: rows through shared memory, all else over [`tcp`](super::tcp).
//!
//! Each node owns, for each view, memory with a ring in it; its peers map that read-only. A publish
//! appends a record to the ring once, whoever it is for; a peer's poll lands the records in its
//! private copy of the row, which therefore stands still between polls as it does with TCP. The
//! link of TCP, encrypted and authenticated as ever, carries greetings, messages and signs of life,
//! tells deaths, and carries the rows of a peer that cannot be reached by shared memory, or that
//! fell behind: the path is chosen for each pair, and changes while publishes go on.
//!
//! # From TCP to the ring and back
//!
//! Rows go over TCP until both ends have mapped each other's memory of the same view. Then the owner,
//! once nothing waits to be sealed for TCP, says `Attach` with a position: what was published before
//! is visible when that message is read, and from there the ring goes on. A peer for which the ring
//! would have to wait is detached: what it may have missed is published over TCP (the ranges of the
//! records that it has not taken), and it is attached again when it answers. A batch that lands over
//! TCP tells the reader that it was detached: it stops reading the ring at once, so that no older
//! value lands over a newer one. Messages wait at the reader while it knows that it was overtaken.
//!
//! # Sleep
//!
//! A thread that parks says so in its memory; a writer that sees this writes to an eventfd, which
//! lies in the same epoll as the sockets. Nobody asleep, no system call. Before it parks, a thread looks at
//! the rings for some microseconds if that has paid lately (`patience`); with nothing to do nothing spins.
//!
//! # Revocation
//!
//! Memory is of one view: `prepare` drops all maps of the view before, and makes new memory. An
//! evicted node's late writes go to memory that nobody looks at.
//!
//! | module | what it holds |
//! |---|---|
//! | `ring` | the words that processes share, and the order in which they are written and read |
//! | `mapping` | memory with a title, sealed and mapped |
//! | `patience` | whether to look at the rings before parking, and how long |
//! | `door` | handing over files |
//! | `words` | what two such fabrics tell each other |
//! | `peer` | what is known of a peer |

/// What `ring` is made of; its test puts the atomics of loom in this place.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering, fence};

    /// Words of a cache line: words of different writers, or for different readers, lie so far apart.
    pub(super) const LINE: usize = 8;
    /// Nodes that have a bit and a counter.
    pub(super) const NODES_MAX: usize = 64;
}

mod door;
mod mapping;
mod notes;
mod patience;
mod peer;
mod ring;
#[cfg(test)]
mod tests;
mod words;

use std::{
    io,
    ops::Range,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use mio::{Interest, unix::SourceFd};
use rustix::event::{EventfdFlags, eventfd};

use self::{
    door::Door,
    mapping::{Mapping, Title},
    patience::Patience,
    peer::PeerMemory,
    ring::{Found, Reader, Writer},
    words::Words,
};
use super::{
    Counters, Fabric, FabricError, FabricEvent, NodeId, PathKind, Paths, Wake, ranges::WORD,
    tcp::TcpFabric,
};

/// Numbers of what is registered beside the sockets.
const DOOR: usize = 0;
const BELL: usize = 1;

/// How far a reader comes before it tells the writer.
const TELL_WORDS: u64 = (64 << 10) / 8;

/// The fabric of a site whose nodes, or some of them, share a host; see the module.
pub struct ShmFabric {
    tcp: TcpFabric,
    /// Whether a peer that cannot be reached by shared memory is refused.
    required: bool,
    door: Door,
    bell: OwnedFd,
    own: Option<OwnMemory>,
    peers: Vec<PeerMemory>,
    /// Bits of the peers to which rows go through the ring.
    attached: u64,
    /// Bits of the peers for which there are records since the last commit.
    dirty: u64,
    /// Whether any ring is read, or any message held.
    reads: bool,
    retry_at: Option<Instant>,
    patience: Patience,
    aside: Box<[u8]>,
    others: Vec<NodeId>,
    paths: Arc<Paths>,
    counters: Counters,
}

/// The own memory of the present view.
struct OwnMemory {
    mapping: Mapping,
    writer: Writer,
}

fn bit(node: NodeId) -> u64 {
    1 << node.0
}

impl ShmFabric {
    /// Puts shared memory beneath the rows of `tcp`. With `required`, peers that cannot be reached by
    /// it are refused; without, rows reach them over TCP.
    ///
    /// # Errors
    /// If the kernel gives no socket or bell, or the site has more nodes than shared memory is for.
    pub fn new(mut tcp: TcpFabric, required: bool) -> io::Result<Self> {
        let (_, nodes) = tcp.place();
        if nodes > atomic::NODES_MAX {
            let words =
                format!("shared memory serves {} nodes, the site has {nodes}", atomic::NODES_MAX);
            return Err(io::Error::other(words));
        }
        let door = Door::open(tcp.registry(), TcpFabric::foreign_token(DOOR))?;
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let token = TcpFabric::foreign_token(BELL);
        // Edge-triggered: each ring is an event, and nobody has to read the count.
        tcp.registry().register(&mut SourceFd(&bell.as_raw_fd()), token, Interest::READABLE)?;
        tcp.take_notes();
        Ok(Self {
            tcp,
            required,
            door,
            bell,
            own: None,
            peers: (0..nodes).map(|_| PeerMemory::default()).collect(),
            attached: 0,
            dirty: 0,
            reads: false,
            retry_at: None,
            patience: Patience::default(),
            aside: vec![0; ring::RECORD_BYTES_MAX].into_boxed_slice(),
            others: Vec::new(),
            paths: Arc::new(Paths::new(nodes, PathKind::Tcp, "no link yet")),
            counters: Counters::default(),
        })
    }

    /// How rows reach each peer.
    #[must_use]
    pub fn paths(&self) -> Arc<Paths> {
        Arc::clone(&self.paths)
    }

    /// Appends records of a range for the peers in `nodes`; gives those that were detached for it.
    fn append(&mut self, range: &Range<usize>, nodes: u64) -> u64 {
        let mut start = range.start - range.start % WORD;
        let end = range.end.next_multiple_of(WORD);
        while start < end {
            let piece = start..end.min(start + ring::RECORD_BYTES_MAX);
            if !self.own.as_ref().is_some_and(|own| own.has_room(piece.len())) {
                self.make_room(piece.len());
            }
            let now = nodes & self.attached;
            if now == 0 {
                break;
            }
            let own = self.own.as_mut().expect("somebody is attached");
            let row = &self.tcp.rows().row(self.tcp.place().0)[piece.clone()];
            own.writer.append(own.mapping.words(), now, start, row);
            self.dirty |= now;
            start = piece.end;
        }
        nodes & !self.attached
    }

    /// Makes room in the own ring for a record, by detaching those who read too slowly if need be.
    fn make_room(&mut self, bytes: usize) {
        let own_node = self.tcp.place().0.index();
        let positions = (0..self.peers.len()).filter(|index| self.attached >> index & 1 == 1);
        let positions = positions.map(|index| (index, self.peers[index].taken(own_node)));
        let positions: Vec<(usize, u64)> = positions.collect();
        let slowest = positions.iter().map(|(_, taken)| *taken).min().unwrap_or(u64::MAX);
        let Some(own) = &mut self.own else { return };
        if own.writer.room(own.mapping.words(), bytes, slowest) {
            return;
        }
        let needed = own.writer.lowest_after(own.mapping.words(), bytes);
        for &(index, taken) in positions.iter().filter(|(_, taken)| *taken < needed) {
            self.detach(super::NodeId(index as u16), taken);
        }
        let present = positions.iter().map(|(_, taken)| *taken).filter(|taken| *taken >= needed);
        let slowest = present.min().unwrap_or(u64::MAX);
        let own = self.own.as_mut().expect("looked at above");
        let room = own.writer.room(own.mapping.words(), bytes, slowest);
        assert!(room, "nobody is left who is behind");
    }

    /// Leaves a peer that is too slow for the ring to TCP, until it has caught up.
    fn detach(&mut self, peer: NodeId, taken: u64) {
        self.attached &= !bit(peer);
        self.counters.laps += 1;
        let own = self.own.as_ref().expect("it was attached");
        let missed: Vec<_> = own.writer.ranges(own.mapping.words(), taken, bit(peer)).collect();
        for range in missed {
            self.tcp.publish(range, &[peer]);
        }
        let view = self.tcp.present_view();
        self.peers[peer.index()].mapped = false;
        self.tcp.say(peer, Words::Ask { view }.encode());
        self.paths.set(
            peer,
            PathKind::Tcp,
            "it fell behind; shared memory again when it has caught up",
        );
    }

    /// Attaches those who are ready for it.
    fn attach(&mut self) {
        for index in 0..self.peers.len() {
            let peer = NodeId(index as u16);
            let state = &mut self.peers[index];
            let ready = state.mapped && state.theirs.is_some() && self.attached & bit(peer) == 0;
            if let (true, Some(own)) = (ready && self.tcp.is_even(peer), &self.own) {
                state.from = own.writer.at();
                let view = self.tcp.present_view();
                self.tcp.say(peer, Words::Attach { view, position: state.from }.encode());
                self.attached |= bit(peer);
                self.paths.set(peer, PathKind::Shm, "a process of the same host");
            }
        }
    }

    /// Shows what was appended, and wakes those who sleep.
    fn commit(&mut self) {
        let Some(own) = &mut self.own else { return };
        if self.dirty == 0 || !own.writer.commit(own.mapping.words()) {
            return;
        }
        self.counters.batches_sent += 1;
        let mut nodes = std::mem::take(&mut self.dirty) & self.attached;
        while nodes != 0 {
            let index = nodes.trailing_zeros() as usize;
            nodes &= nodes - 1;
            self.counters.bells_rung += u64::from(self.peers[index].ring());
        }
    }

    /// Lands what is in the rings of the peers.
    fn drain(&mut self) {
        if !self.reads {
            return;
        }
        let own_node = self.tcp.place().0;
        for index in 0..self.peers.len() {
            let peer = NodeId(index as u16);
            let (Some(own), state) = (&self.own, &mut self.peers[index]) else { return };
            let (Some(theirs), Some(reader)) = (&state.theirs, &mut state.reader) else { continue };
            let words = theirs.mapping.words();
            let head = Reader::head(words);
            if head <= reader.at() {
                continue;
            }
            self.counters.batches_received += 1;
            let mut told = reader.at();
            let found = loop {
                if reader.at() >= head {
                    break Found::ForOthers;
                }
                match reader.next(words, head, &mut self.aside) {
                    Found::Record(range) => {
                        let length = range.len();
                        self.tcp.land(peer, range.start, &self.aside[..length]);
                    }
                    Found::ForOthers => {}
                    found => break found,
                }
                if reader.at() - told >= TELL_WORDS {
                    told = reader.at();
                    ring::tell_taken(own.mapping.words(), index, told);
                }
            };
            ring::tell_taken(own.mapping.words(), index, reader.at());
            match found {
                Found::Lapped => (state.reader, state.lapped) = (None, true),
                Found::Broken => {
                    state.reader = None;
                    let words =
                        format!("{} finds a broken record in our ring", self.tcp.name(own_node));
                    self.tcp.disconnect(peer, &words);
                }
                Found::Record(_) | Found::ForOthers => {}
            }
        }
    }

    /// Whether there is what a look without the kernel finds: records, or a call of `wake`.
    fn has_news(tcp: &TcpFabric, peers: &[PeerMemory]) -> bool {
        tcp.is_woken() || peers.iter().any(PeerMemory::has_records)
    }

    /// Says that the own thread sleeps, unless there is something to read already.
    fn fall_asleep(&self) -> bool {
        let Some(own) = self.own.as_ref().filter(|_| self.reads) else { return true };
        ring::fall_asleep(own.mapping.words());
        let awake = self.peers.iter().any(PeerMemory::has_records);
        if awake {
            ring::wake_up(own.mapping.words());
        }
        !awake
    }

    fn wake_up(&self) {
        if let Some(own) = self.own.as_ref().filter(|_| self.reads) {
            ring::wake_up(own.mapping.words());
        }
    }

    /// Reports what happened; messages of a peer that has overtaken us wait for what they come after.
    fn report(&mut self, events: &mut Vec<FabricEvent>) {
        let before = events.len();
        self.tcp.report_to(events);
        if !self.peers.iter().any(|peer| peer.lapped || !peer.held.is_empty()) {
            return;
        }
        let new = events.split_off(before);
        for peer in self.peers.iter_mut().filter(|peer| !peer.lapped) {
            events.append(&mut peer.held);
        }
        for event in new {
            match &event {
                FabricEvent::Message { peer, .. } if self.peers[peer.index()].lapped => {
                    self.peers[peer.index()].held.push(event);
                }
                _ => events.push(event),
            }
        }
    }

    /// Makes the own memory of the present view; without it, rows go over TCP.
    fn make_memory(&mut self, row_len: usize) {
        let title = self.title(self.tcp.place().0, self.tcp.incarnation(), row_len);
        self.own = match Mapping::create(title) {
            Ok(mapping) => Some(OwnMemory { mapping, writer: Writer::default() }),
            Err(error) => {
                tracing::warn!(%error, "no shared memory for this view: rows go over TCP");
                None
            }
        };
    }

    fn title(&self, owner: NodeId, incarnation: u64, row_len: usize) -> Title {
        let view = self.tcp.present_view();
        Title { owner: owner.0, incarnation, view, row_len: row_len as u64 }
    }
}

impl OwnMemory {
    fn has_room(&self, bytes: usize) -> bool {
        self.writer.has_room(self.mapping.words(), bytes)
    }
}

impl Fabric for ShmFabric {
    fn prepare(
        &mut self,
        view: u64,
        members: &[NodeId],
        row_len: usize,
    ) -> Result<(), FabricError> {
        let unread = self.peers.iter().filter(|peer| peer.has_records()).count();
        self.tcp.prepare(view, members, row_len)?;
        self.counters.stale_dropped += unread as u64;
        self.attached = 0;
        self.dirty = 0;
        self.make_memory(row_len);
        for index in 0..self.peers.len() {
            let peer = NodeId(index as u16);
            self.peers[index].leave_view();
            self.offer(peer);
            self.unwrap_gift(peer);
        }
        self.look_who_reads();
        Ok(())
    }

    fn store(&mut self, offset: usize, bytes: &[u8]) {
        self.tcp.store(offset, bytes);
    }

    fn publish(&mut self, range: Range<usize>, peers: &[NodeId]) {
        self.counters.publishes += 1;
        self.tcp.rows().check(&range);
        let mut nodes = 0;
        let mut others = std::mem::take(&mut self.others);
        others.clear();
        for &peer in peers {
            match self.attached.checked_shr(u32::from(peer.0)).unwrap_or(0) & 1 {
                1 => nodes |= bit(peer),
                _ => others.push(peer),
            }
        }
        let mut shown = nodes;
        if nodes != 0 && !range.is_empty() {
            let slow = self.append(&range, nodes);
            shown &= !slow;
            others.extend((0..64).filter(|node| slow >> node & 1 == 1).map(NodeId));
        }
        while shown != 0 {
            let peer = NodeId(shown.trailing_zeros() as u16);
            shown &= shown - 1;
            self.tcp.shown(peer, &range);
        }
        if !others.is_empty() {
            self.tcp.publish(range, &others);
        }
        self.others = others;
    }

    fn flush(&mut self) {
        self.commit();
        self.tcp.flush();
    }

    fn load(&self, peer: NodeId, offset: usize) -> u64 {
        self.tcp.load(peer, offset)
    }

    fn copy(&self, peer: NodeId, offset: usize, out: &mut [u8]) {
        self.tcp.copy(peer, offset, out);
    }

    fn send(&mut self, peer: NodeId, message: &[u8]) -> bool {
        self.tcp.send(peer, message)
    }

    fn poll(&mut self, timeout: Option<Duration>, events: &mut Vec<FabricEvent>) {
        let before = events.len();
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            self.flush();
            let began = Instant::now();
            let waits = self.reads && deadline.is_none_or(|deadline| deadline > began);
            let (peers, tcp) = (&self.peers, &self.tcp);
            let news = || Self::has_news(tcp, peers);
            let found = waits && self.patience.look(began, Instant::now, news);
            let wait_until = match found || !self.fall_asleep() {
                true => Some(began),
                false => deadline.into_iter().chain(self.retry_at).min(),
            };
            let now = self.tcp.take_turn(wait_until);
            self.wake_up();
            if waits {
                let news = Self::has_news(&self.tcp, &self.peers);
                self.patience.learn(news.then(|| now - began));
            }
            self.handle_notes(now);
            self.attach();
            self.drain();
            self.report(events);
            if events.len() > before || deadline.is_some_and(|deadline| now >= deadline) {
                return;
            }
        }
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.tcp.waker()
    }

    fn disconnect(&mut self, peer: NodeId, reason: &str) {
        self.tcp.disconnect(peer, reason);
    }

    fn counters(&self) -> Counters {
        self.counters.upon(self.tcp.counters())
    }
}
