//! The fabric over TCP: one connection a pair of nodes, with TLS unless the topology says otherwise.
//!
//! Nothing here has a thread. [`Fabric::poll`] parks in epoll and serves all links; what a publish
//! queues is a set of ranges for each peer, and what leaves for a peer is a **batch**: the content
//! of all its queued ranges at that moment, which the peer lets land as one. So a peer's copy is
//! always the row as it was at some flush, and that is how order is kept while a newer value of a
//! counter replaces an older one that has not left yet.
//!
//! A batch is made only when the connection has less than 256 KiB waiting. A peer that does not
//! read costs, at most: its set of ranges (at most as much as the row is long), twice 256 KiB and
//! one batch (the row + 8 bytes) or message (8 MiB), 128 KiB in TLS, and 16 MiB of messages waiting;
//! on the reading side one frame and a turn of 1 MiB.
//!
//! The node with the higher index dials, again and again with growing pauses; the bytes of a link
//! are in `docs/formats/fabric-tcp.md`.
//!
//! | module | what it holds |
//! |---|---|
//! | `options` | what a fabric is made from |
//! | `wire` | frames and their strict decoding |
//! | `connection` | one socket with its buffers and TLS |
//! | `links` | dialling, accepting, greeting, losing |
//! | `base` | what providers that carry rows in another way build upon |

mod base;
mod connection;
mod links;
mod options;
mod wire;

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener as StdListener},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpListener};

use self::{
    connection::{BACKLOG_BYTES, Connection, Failure, Handler, Phase},
    wire::{Header, Hello, Kind},
};
use super::{
    Counters, Fabric, FabricError, FabricEvent, LANE_BYTES_MAX, LANE_MESSAGES_MAX,
    MESSAGE_BYTES_MAX, NodeId, Wake,
    ranges::{RangeSet, WORD},
    region::Region,
};
use crate::tls::Protocol;
pub(in crate::fabric) use base::Note;
pub use options::{Security, TcpError, TcpNode, TcpOptions, Timing};

/// What is asked from the kernel at once.
const SCRATCH_BYTES: usize = 256 << 10;

const WAKE: Token = Token(0);
const LISTENER: Token = Token(1);
/// Tokens from here on are those of a provider built upon this one.
const FOREIGN: usize = usize::MAX / 2;

/// Links to all other nodes of a site; see the module.
pub struct TcpFabric {
    options: TcpOptions,
    accepting: Option<Arc<rustls::ServerConfig>>,
    queue: Poll,
    happened: Events,
    waker: Arc<TcpWake>,
    listener: TcpListener,
    accept_at: Option<Instant>,
    /// When [`Self::timers`] was to be called again.
    due: Option<Instant>,
    connections: Vec<Option<Box<Connection>>>,
    tokens: usize,
    peers: Vec<PeerLink>,
    region: Option<Region>,
    scratch: Box<[u8]>,
    pending: Vec<FabricEvent>,
    /// What a provider built upon this one wants to know; `None` if there is none.
    notes: Option<Vec<Note>>,
    /// Whether it wants messages as notes, too.
    message_notes: bool,
    counters: Counters,
}

/// What is known of a peer, whether there is a link or not.
#[derive(Debug, Default)]
struct PeerLink {
    /// The connection that is up.
    link: Option<usize>,
    /// When to dial, if it is us who dials and no attempt is under way.
    dial_at: Option<Instant>,
    attempts: u32,
    up_since: Option<Instant>,
    incarnation: u64,
    /// The view that the peer has prepared; 0 for none.
    view: u64,
    /// Ranges to send, and all those ever published to this peer in this view.
    unsent: RangeSet,
    published: RangeSet,
    lane: VecDeque<(Kind, Vec<u8>)>,
    lane_bytes: usize,
    complaint: Option<String>,
    changed: bool,
}

struct TcpWake {
    waker: mio::Waker,
    pending: AtomicBool,
}

impl Wake for TcpWake {
    fn wake(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            // It fails only if the kernel's counter is full, which is a wake-up already.
            _ = self.waker.wake();
        }
    }
}

impl TcpFabric {
    /// Listens at the own address of `options` and begins to dial.
    ///
    /// # Errors
    /// [`TcpError`].
    pub fn bind(options: TcpOptions) -> Result<Self, TcpError> {
        let address = options.nodes[options.own.index()].address;
        let listen = |source| TcpError::Listen { address, source };
        let listener = StdListener::bind(address).map_err(listen)?;
        Self::with_listener(options, listener)
    }

    /// As [`Self::bind`], with a socket that listens already.
    ///
    /// # Errors
    /// [`TcpError`].
    ///
    /// # Panics
    /// If the own node is not among the nodes of `options`.
    pub fn with_listener(options: TcpOptions, listener: StdListener) -> Result<Self, TcpError> {
        assert!(options.own.index() < options.nodes.len(), "the own node is among the nodes");
        let queue = Poll::new().map_err(TcpError::Queue)?;
        let waker = mio::Waker::new(queue.registry(), WAKE).map_err(TcpError::Queue)?;
        listener.set_nonblocking(true).map_err(TcpError::Queue)?;
        let mut listener = TcpListener::from_std(listener);
        let registry = queue.registry();
        registry.register(&mut listener, LISTENER, Interest::READABLE).map_err(TcpError::Queue)?;
        let accepting = match &options.security {
            Security::Tls(credentials) => Some(credentials.server(Protocol::Group)),
            Security::Plain => None,
        };
        let now = Instant::now();
        let peer = |index| PeerLink {
            dial_at: (index < options.own.index()).then_some(now),
            ..PeerLink::default()
        };
        Ok(Self {
            accepting,
            queue,
            happened: Events::with_capacity(64),
            waker: Arc::new(TcpWake { waker, pending: AtomicBool::new(false) }),
            listener,
            accept_at: None,
            due: None,
            connections: Vec::new(),
            tokens: 0,
            peers: (0..options.nodes.len()).map(peer).collect(),
            region: None,
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            pending: Vec::new(),
            notes: None,
            message_notes: false,
            counters: Counters::default(),
            options,
        })
    }

    /// Where this fabric listens.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    fn view(&self) -> u64 {
        self.region.as_ref().map_or(0, |region| region.view)
    }

    fn region(&self) -> &Region {
        self.region.as_ref().expect("no view is prepared")
    }

    /// Seals what waits for the connection's peer, as far as the backlog allows. `true` if anything.
    fn fill(&mut self, connection: &mut Connection) -> bool {
        let (Phase::Up, Some(node)) = (connection.phase, connection.peer) else {
            return false;
        };
        let view = self.view();
        let peer = &mut self.peers[node.index()];
        let mut filled = false;
        while connection.backlog() < BACKLOG_BYTES {
            // Ranges before messages: a message comes after all that was published before it.
            if !peer.unsent.is_empty() && peer.view == view {
                let row = self.region.as_ref().expect("ranges are of a view").row(self.options.own);
                wire::encode_batch(view, &peer.unsent, row, connection.out());
                peer.unsent.clear();
                self.counters.batches_sent += 1;
            } else if let Some((kind, message)) = peer.lane.pop_front() {
                peer.lane_bytes -= message.len();
                connection.put(kind, 0, &message);
                self.counters.messages_sent += u64::from(kind == Kind::Message);
            } else {
                break;
            }
            filled = true;
        }
        let backlog = (connection.backlog() + peer.lane_bytes) as u64;
        self.counters.backlog_bytes_max = self.counters.backlog_bytes_max.max(backlog);
        filled
    }

    /// Seals and writes until nothing is left or the kernel takes no more.
    fn push_out(&mut self, connection: &mut Connection, now: Instant) -> Result<(), Failure> {
        loop {
            let filled = self.fill(connection);
            self.counters.bytes_sent += connection.write(now)? as u64;
            if !filled || !connection.writable {
                return Ok(());
            }
        }
    }

    /// Moves bytes of one connection in both directions.
    fn serve(&mut self, slot: usize, now: Instant) {
        let Some(mut connection) = self.connections[slot].take() else { return };
        let read = connection.read(&mut self.scratch, now);
        self.counters.bytes_received += *read.as_ref().unwrap_or(&0) as u64;
        // Frames that came before the end of the stream count.
        let outcome = connection
            .frames(self)
            .and_then(|()| read.map(drop))
            .and_then(|()| self.push_out(&mut connection, now));
        match outcome {
            Ok(()) => self.connections[slot] = Some(connection),
            Err(failure) => self.fail(slot, connection, &failure, now),
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        match self.queue.poll(&mut self.happened, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => self.happened.clear(),
            Err(error) => panic!("the kernel's event queue is broken: {error}"),
        }
        let mut accept = false;
        for event in &self.happened {
            match event.token() {
                WAKE => {
                    self.waker.pending.store(false, Ordering::Release);
                    self.pending.push(FabricEvent::Woken);
                }
                LISTENER => accept = true,
                token if token.0 >= FOREIGN => {
                    self.notes.get_or_insert_default().push(Note::Ready(token));
                }
                token => {
                    let mut all = self.connections.iter_mut().flatten();
                    if let Some(connection) = all.find(|connection| connection.token == token) {
                        connection.note(event);
                    }
                }
            }
        }
        if accept {
            self.accept(Instant::now());
        }
    }

    /// How long the kernel may keep us.
    fn patience(&self, deadline: Option<Instant>, now: Instant) -> Option<Duration> {
        let busy = !self.pending.is_empty()
            || self.notes.as_ref().is_some_and(|notes| !notes.is_empty())
            || self.peers.iter().any(|peer| peer.changed)
            || self.connections.iter().flatten().any(|connection| connection.readable);
        if busy {
            return Some(Duration::ZERO);
        }
        let first = deadline.into_iter().chain(self.next_timer()).min();
        first.map(|first| first.saturating_duration_since(now))
    }

    fn admit_batch(&mut self, peer: NodeId, header: Header) -> Result<bool, Failure> {
        let Header { kind, length: found, view } = header;
        let current = self.view();
        if view < current {
            self.counters.stale_dropped += 1;
            return Ok(false);
        }
        let Some(region) = self.region.as_ref().filter(|region| region.view == view) else {
            let words =
                format!("a batch of view {view}, but this node told of view {current} only");
            return Err(Failure::Refused(words));
        };
        if !region.is_member(peer) {
            return Err(Failure::Refused(format!("{peer} is no member of view {view}")));
        }
        let max = wire::batch_bytes_max(region.row_len);
        if found > max {
            return Err(wire::WireError::Length { kind, found, max }.into());
        }
        Ok(true)
    }

    /// Sends what is queued, parks until there is something to do or the deadline, and does it.
    fn turn(&mut self, deadline: Option<Instant>) -> Instant {
        self.flush();
        let patience = self.patience(deadline, Instant::now());
        self.wait(patience);
        let now = Instant::now();
        for slot in 0..self.connections.len() {
            let connection = self.connections[slot].as_ref();
            if connection.is_some_and(|c| c.readable || (c.writable && c.wants_write())) {
                self.serve(slot, now);
            }
        }
        self.timers(now);
        now
    }

    /// Whether this view can be prepared; see [`Fabric::prepare`].
    pub(in crate::fabric) fn check_view(
        &self,
        view: u64,
        members: &[NodeId],
        row_len: usize,
    ) -> Result<(), FabricError> {
        Region::check_view(
            view,
            self.view(),
            members,
            row_len,
            (self.options.own, self.peers.len()),
        )
    }

    fn note(&mut self, note: Note) {
        if let Some(notes) = &mut self.notes {
            notes.push(note);
        }
    }

    fn report(&mut self, events: &mut Vec<FabricEvent>) {
        events.append(&mut self.pending);
        for (index, peer) in self.peers.iter_mut().enumerate() {
            if std::mem::take(&mut peer.changed) {
                events.push(FabricEvent::RowChanged { peer: node_id(index) });
            }
        }
    }
}

impl Fabric for TcpFabric {
    fn prepare(
        &mut self,
        view: u64,
        members: &[NodeId],
        row_len: usize,
    ) -> Result<(), FabricError> {
        self.check_view(view, members, row_len)?;
        let nodes = self.peers.len();
        self.region = Some(Region::new(view, members, row_len, nodes));
        for peer in &mut self.peers {
            peer.unsent.clear();
            peer.published.clear();
            peer.changed = false;
            if let Some(connection) = peer.link.and_then(|slot| self.connections[slot].as_mut()) {
                connection.put(Kind::Prepared, view, &[]);
            }
        }
        Ok(())
    }

    fn store(&mut self, offset: usize, bytes: &[u8]) {
        let region = self.region.as_mut().expect("no view is prepared");
        region.row_mut(self.options.own)[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn publish(&mut self, range: Range<usize>, peers: &[NodeId]) {
        self.counters.publishes += 1;
        let region = self.region.as_ref().expect("no view is prepared");
        region.check(&range);
        for &node in peers {
            assert!(region.is_member(node), "{node} is no member of view {}", region.view);
            if node != self.options.own {
                let peer = &mut self.peers[node.index()];
                peer.unsent.insert(&range);
                peer.published.insert(&range);
            }
        }
    }

    fn flush(&mut self) {
        let now = Instant::now();
        for index in 0..self.peers.len() {
            let Some(slot) = self.peers[index].link else { continue };
            let Some(mut connection) = self.connections[slot].take() else { continue };
            match self.push_out(&mut connection, now) {
                Ok(()) => self.connections[slot] = Some(connection),
                Err(failure) => self.fail(slot, connection, &failure, now),
            }
        }
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
        if peer.link.is_none()
            || message.len() > MESSAGE_BYTES_MAX
            || peer.lane.len() >= LANE_MESSAGES_MAX
            || peer.lane_bytes + message.len() > LANE_BYTES_MAX
        {
            return false;
        }
        peer.lane_bytes += message.len();
        peer.lane.push_back((Kind::Message, message.to_vec()));
        true
    }

    fn poll(&mut self, timeout: Option<Duration>, events: &mut Vec<FabricEvent>) {
        let before = events.len();
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let now = self.turn(deadline);
            self.report(events);
            if events.len() > before || deadline.is_some_and(|deadline| now >= deadline) {
                return;
            }
        }
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.waker) as _
    }

    fn disconnect(&mut self, peer: NodeId, reason: &str) {
        let slot = self.peers.get(peer.index()).and_then(|peer| peer.link);
        if let Some((slot, connection)) =
            slot.and_then(|slot| Some((slot, self.connections[slot].take()?)))
        {
            self.fail(slot, connection, &Failure::Refused(reason.to_owned()), Instant::now());
        }
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

impl Handler for TcpFabric {
    fn admit(&mut self, connection: &Connection, header: Header) -> Result<bool, Failure> {
        match (connection.phase, connection.peer, header.kind) {
            (_, _, Kind::Farewell) | (Phase::Greeting(_), _, Kind::Hello) => Ok(true),
            (Phase::Up, Some(peer), Kind::Batch) => self.admit_batch(peer, header),
            (Phase::Up, _, Kind::Prepared | Kind::Message | Kind::KeepAlive | Kind::Beneath) => {
                Ok(true)
            }
            _ => Err(wire::WireError::Malformed(header.kind).into()),
        }
    }

    fn handle(
        &mut self,
        connection: &mut Connection,
        header: Header,
        body: &[u8],
    ) -> Result<(), Failure> {
        if header.kind == Kind::Farewell {
            return Err(Failure::Farewell(wire::farewell_words(body)));
        }
        if header.kind == Kind::Hello {
            return self.greet(connection, &Hello::decode(body)?);
        }
        let node = connection.peer.expect("a connection that is up has a peer");
        let peer = &mut self.peers[node.index()];
        match header.kind {
            Kind::Prepared => peer.view = header.view,
            Kind::Batch => {
                let region = self.region.as_mut().expect("admitted for the view");
                wire::land_batch(body, region.row_mut(node))?;
                peer.changed = true;
                self.counters.batches_received += 1;
                self.note(Note::Landed(node));
            }
            Kind::Beneath => self.note(Note::Words(node, body.to_vec())),
            Kind::Message => {
                let bytes = body.to_vec();
                match self.message_notes {
                    true => self.note(Note::Message(node, bytes)),
                    false => self.pending.push(FabricEvent::Message { peer: node, bytes }),
                }
                self.counters.messages_received += 1;
            }
            Kind::KeepAlive | Kind::Hello | Kind::Farewell => {}
        }
        Ok(())
    }
}

/// The node with this index in the site's list.
fn node_id(index: usize) -> NodeId {
    NodeId(u16::try_from(index).expect("a site has far fewer nodes"))
}
