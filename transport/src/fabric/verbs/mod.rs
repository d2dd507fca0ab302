//! The fabric over RDMA verbs: rows by RDMA WRITE, all else over [`tcp`](super::tcp).
//!
//! Each pair of nodes has a reliable connection (an RC queue pair) beside its link of TCP, and each
//! end a registered **ring** that the other writes to. What leaves is the batch that TCP would send, a
//! picture of the published ranges, in pieces; each piece is an RDMA WRITE with an immediate, and a
//! poll lands a batch in the private copy of the row once the completion of its last piece was taken. So
//! nothing is concluded from the order in which a card writes to memory, copies stand still between
//! polls, and what a misbehaving peer writes is decoded as strictly as what comes over TCP.
//!
//! The link of TCP, encrypted and authenticated as ever, carries the addresses and keys of the rings,
//! messages and signs of life. A queue pair lives for one link and one view.
//!
//! # From TCP to RDMA
//!
//! Rows go over TCP until both ends are connected in the present view. Then the writer, once
//! nothing waits to be sealed for TCP, says `Attach`: what was published before is visible when that is
//! read, and only from then on does the reader land pieces. There is no way back but the end of the link
//! or of the view; what a new link has to show again, TCP's set of all that was published knows.
//!
//! # Revocation
//!
//! `prepare` destroys the queue pairs of the view before, and ends the registration of their rings,
//! before the next view's are made: what an evicted node still writes is refused by the card. What the
//! own node had sent in the old view and is not known to be taken is sent once more over TCP before.
//!
//! | module | what it holds |
//! |---|---|
//! | `find` | which device is on an address |
//! | `device` | an opened device, errors in words |
//! | `pair` | one queue pair and its memory: all calls of libibverbs on the fast path |
//! | `window` | which part of a ring is in use, and what an immediate says |
//! | `words` | what two such fabrics tell each other |
//! | `peer` | what is known of a peer, and how its batches leave and land |
//! | `notes` | what links and peers tell |

mod device;
mod find;
mod notes;
mod pair;
mod peer;
mod window;
mod words;

#[cfg(not(feature = "verbs"))]
use rdma_mummy_sys as ffi;
/// The binding: linked to libibverbs, or opening it when it is first used. Both have one interface.
#[cfg(feature = "verbs")]
use rdma_sys as ffi;

use std::{
    net::IpAddr,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use mio::{Interest, unix::SourceFd};

use self::{device::Device, peer::PeerPair, words::Words};
pub use self::{
    device::VerbsError,
    find::{DeviceName, Why, device_for},
};
use super::{
    Counters, Fabric, FabricError, FabricEvent, NodeId, PathKind, Paths, Wake, tcp::TcpFabric,
};

/// Whether RDMA can be used on an address: a device is there, may be opened, and may lock memory.
///
/// # Errors
/// [`VerbsError`], with the remedy.
pub fn usable_on(address: IpAddr) -> Result<(), VerbsError> {
    pair::Pair::new(&Device::open(device_for(address)?)?).map(drop)
}

/// The number of the completion channel beside the sockets.
const CHANNEL: usize = 0;

/// The fabric of a site whose nodes have RDMA devices; see the module.
pub struct VerbsFabric {
    tcp: TcpFabric,
    /// Whether a peer that cannot be reached by RDMA is refused.
    required: bool,
    peers: Vec<PeerPair>,
    device: Arc<Device>,
    others: Vec<NodeId>,
    /// Messages to be told before what TCP reports, and after it.
    early: Vec<FabricEvent>,
    late: Vec<FabricEvent>,
    paths: Arc<Paths>,
    counters: Counters,
}

impl VerbsFabric {
    /// Puts RDMA beneath the rows of `tcp`, with the device on its own address. With `required`, peers
    /// that cannot be reached by it are refused; without, rows reach them over TCP.
    ///
    /// # Errors
    /// [`VerbsError`], with the remedy.
    pub fn new(mut tcp: TcpFabric, required: bool) -> Result<Self, VerbsError> {
        let device = Device::open(device_for(tcp.own_address().ip())?)?;
        let token = TcpFabric::foreign_token(CHANNEL);
        let fd = device::raw(&device);
        tcp.registry()
            .register(&mut SourceFd(&fd), token, Interest::READABLE)
            .map_err(|source| device.error("epoll", source))?;
        // To see now rather than at the first peer whether memory may be locked.
        drop(pair::Pair::new(&device)?);
        tcp.take_notes();
        tcp.take_messages();
        let (_, nodes) = tcp.place();
        Ok(Self {
            tcp,
            required,
            peers: (0..nodes).map(|_| PeerPair::default()).collect(),
            device,
            others: Vec::new(),
            early: Vec::new(),
            late: Vec::new(),
            paths: Arc::new(Paths::new(nodes, PathKind::Tcp, "no link yet")),
            counters: Counters::default(),
        })
    }

    /// How rows reach each peer.
    #[must_use]
    pub fn paths(&self) -> Arc<Paths> {
        Arc::clone(&self.paths)
    }

    /// The peers' numbers.
    fn all(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.peers.len()).map(|index| NodeId(index as u16))
    }

    /// Sends what waits, to all who take it now.
    fn push(&mut self) {
        for peer in self.all() {
            let state = &mut self.peers[peer.index()];
            if let Err(reason) = state.push(&self.tcp, &mut self.counters) {
                self.fail(peer, &reason);
            }
        }
    }

    /// Takes completions and lands what has come. Whether there was anything.
    fn drain(&mut self) -> bool {
        let mut any = false;
        for peer in self.all() {
            let state = &mut self.peers[peer.index()];
            match state.drain(peer, &mut self.tcp, &mut self.counters) {
                Ok(some) => any |= some,
                Err(reason) => self.fail(peer, &reason),
            }
        }
        any
    }

    /// A queue pair does not work any more: the link ends with it, and what was published is shown again
    /// by the next one. Unless it is because the peer has left the view.
    fn fail(&mut self, peer: NodeId, reason: &str) {
        if self.tcp.view_of(peer) > self.tcp.present_view() {
            self.leave(peer);
            return;
        }
        let words = format!("RDMA to {}: {reason}", self.tcp.name(peer));
        self.peers[peer.index()].end_link();
        self.tcp.disconnect(peer, &words);
    }

    /// Lets completions wake us. `false` if there is something to do already.
    fn arm(&mut self) -> bool {
        self.peers.iter_mut().filter_map(|peer| peer.pair.as_mut()).for_each(pair::Pair::arm);
        !self.drain() && self.late.is_empty() && self.early.is_empty()
    }

    /// Reports what happened.
    fn report(&mut self, events: &mut Vec<FabricEvent>) {
        for peer in self.all() {
            self.peers[peer.index()].release(peer, &mut self.late);
        }
        events.append(&mut self.early);
        self.tcp.report_to(events);
        events.append(&mut self.late);
    }
}

impl Fabric for VerbsFabric {
    fn prepare(
        &mut self,
        view: u64,
        members: &[NodeId],
        row_len: usize,
    ) -> Result<(), FabricError> {
        self.tcp.check_view(view, members, row_len)?;
        let old = self.tcp.present_view();
        for peer in self.all() {
            // Over TCP, whose bytes come before what tells of the new view.
            for range in self.peers[peer.index()].not_taken() {
                self.tcp.publish(range, &[peer]);
            }
        }
        self.tcp.flush();
        self.tcp.prepare(view, members, row_len)?;
        for peer in self.all() {
            self.peers[peer.index()].leave_view(old);
            self.paths.set(peer, PathKind::Tcp, "RDMA is not connected in this view yet");
        }
        for peer in self.all() {
            self.make_pair(peer);
        }
        Ok(())
    }

    fn store(&mut self, offset: usize, bytes: &[u8]) {
        self.tcp.store(offset, bytes);
    }

    fn publish(&mut self, range: Range<usize>, peers: &[NodeId]) {
        self.counters.publishes += 1;
        self.tcp.rows().check(&range);
        let mut others = std::mem::take(&mut self.others);
        others.clear();
        for &peer in peers {
            match self.peers.get_mut(peer.index()) {
                Some(state) if state.attached => {
                    state.unsent.insert(&range);
                    self.tcp.shown(peer, &range);
                }
                _ => others.push(peer),
            }
        }
        if !others.is_empty() {
            self.tcp.publish(range, &others);
        }
        self.others = others;
    }

    fn flush(&mut self) {
        self.push();
        self.tcp.flush();
    }

    fn load(&self, peer: NodeId, offset: usize) -> u64 {
        self.tcp.load(peer, offset)
    }

    fn copy(&self, peer: NodeId, offset: usize, out: &mut [u8]) {
        self.tcp.copy(peer, offset, out);
    }

    fn send(&mut self, peer: NodeId, message: &[u8]) -> bool {
        let view = self.tcp.present_view();
        if let Some(batches) = self.peers.get_mut(peer.index()).and_then(PeerPair::waits_for) {
            self.tcp.say(peer, Words::After { view, batches }.encode());
        }
        self.tcp.send(peer, message)
    }

    fn poll(&mut self, timeout: Option<Duration>, events: &mut Vec<FabricEvent>) {
        let before = events.len();
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            self.push();
            let wait_until = match self.arm() {
                true => deadline,
                false => Some(Instant::now()),
            };
            let now = self.tcp.take_turn(wait_until);
            self.handle_notes();
            self.attach();
            self.drain();
            self.report(events);
            if events.len() > before || deadline.is_some_and(|deadline| now >= deadline) {
                self.push();
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
