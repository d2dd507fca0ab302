//! What a provider builds upon that carries rows in another way, but links, messages and the first
//! picture of a row (for a peer that comes, or falls behind) over TCP.

use std::{mem, ops::Range, sync::atomic::Ordering, time::Instant};

use mio::{Registry, Token};

use super::{FOREIGN, Kind, TcpFabric};
use crate::fabric::{FabricEvent, NodeId, region::Region};

/// What such a provider has to know, in the order in which it happened.
#[derive(Debug)]
pub(in crate::fabric) enum Note {
    /// The link to a peer is up.
    Up(NodeId),
    /// It is gone.
    Down(NodeId),
    /// A batch of a peer has landed.
    Landed(NodeId),
    /// The peer's provider has said something.
    Words(NodeId, Vec<u8>),
    /// A message, for who has asked for [`TcpFabric::take_messages`]: then it is no event.
    Message(NodeId, Vec<u8>),
    /// Something registered with [`TcpFabric::registry`] is ready.
    Ready(Token),
}

impl TcpFabric {
    /// The token of that number, to register something for [`Note::Ready`].
    pub(in crate::fabric) fn foreign_token(number: usize) -> Token {
        Token(FOREIGN + number)
    }

    /// Where to register what is to end a turn.
    pub(in crate::fabric) fn registry(&self) -> &Registry {
        self.queue.registry()
    }

    /// Begins to collect notes, which are to be taken after each turn from now on.
    pub(in crate::fabric) fn take_notes(&mut self) -> Vec<Note> {
        mem::take(self.notes.get_or_insert_default())
    }

    /// One turn of [`Fabric::poll`](crate::fabric::Fabric::poll), without its report.
    pub(in crate::fabric) fn take_turn(&mut self, deadline: Option<Instant>) -> Instant {
        self.turn(deadline)
    }

    /// Whether [`Wake::wake`](crate::fabric::Wake::wake) was called and not reported yet.
    pub(in crate::fabric) fn is_woken(&self) -> bool {
        self.waker.pending.load(Ordering::Acquire) || self.pending.contains(&FabricEvent::Woken)
    }

    /// Appends what happened since the last report.
    pub(in crate::fabric) fn report_to(&mut self, events: &mut Vec<FabricEvent>) {
        self.report(events);
    }

    /// Says something to a peer's provider, in order with messages; lost without a link.
    pub(in crate::fabric) fn say(&mut self, peer: NodeId, words: Vec<u8>) {
        let state = &mut self.peers[peer.index()];
        if state.link.is_some() {
            state.lane_bytes += words.len();
            state.lane.push_back((Kind::Beneath, words));
        }
    }

    /// Takes note that a peer was shown a range in another way: a new link shows it again.
    pub(in crate::fabric) fn shown(&mut self, peer: NodeId, range: &Range<usize>) {
        self.peers[peer.index()].published.insert(range);
    }

    /// Whether a peer has prepared the present view and all that was published is sealed for it.
    pub(in crate::fabric) fn is_even(&self, peer: NodeId) -> bool {
        let state = &self.peers[peer.index()];
        state.view == self.present_view() && state.unsent.is_empty()
    }

    /// The view that is prepared; 0 for none.
    pub(in crate::fabric) fn present_view(&self) -> u64 {
        self.view()
    }

    /// The incarnation of a peer that is connected.
    pub(in crate::fabric) fn incarnations(&self, peer: NodeId) -> u64 {
        self.peers[peer.index()].incarnation
    }

    /// The own node, and how many there are.
    pub(in crate::fabric) fn place(&self) -> (NodeId, usize) {
        (self.options.own, self.peers.len())
    }

    /// The own incarnation.
    pub(in crate::fabric) fn incarnation(&self) -> u64 {
        self.options.incarnation
    }

    /// A node's name.
    pub(in crate::fabric) fn name(&self, node: NodeId) -> &str {
        &self.options.nodes[node.index()].name
    }

    /// The rows of the present view.
    ///
    /// # Panics
    /// If no view is prepared.
    pub(in crate::fabric) fn rows(&self) -> &Region {
        self.region()
    }

    /// Writes to the copy of a member's row, in a turn.
    ///
    /// # Panics
    /// If no view is prepared, `peer` is no member of it, or the bytes end beyond the row.
    pub(in crate::fabric) fn land(&mut self, peer: NodeId, offset: usize, bytes: &[u8]) {
        let region = self.region.as_mut().expect("no view is prepared");
        region.row_mut(peer)[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.peers[peer.index()].changed = true;
    }
}

/// What only the provider that goes by RDMA asks for.
#[cfg(any(feature = "verbs", feature = "verbs-dlopen"))]
impl TcpFabric {
    /// From now on messages are notes, in order with all others, and no events.
    pub(in crate::fabric) fn take_messages(&mut self) {
        self.message_notes = true;
    }

    /// Whether the link to a peer is up.
    pub(in crate::fabric) fn has_link(&self, peer: NodeId) -> bool {
        self.peers[peer.index()].link.is_some()
    }

    /// The view that a peer has told of last; 0 for none.
    pub(in crate::fabric) fn view_of(&self, peer: NodeId) -> u64 {
        self.peers[peer.index()].view
    }

    /// What these ranges of the own row hold now, as a batch of the wire without its head.
    pub(in crate::fabric) fn seal(
        &self,
        ranges: &crate::fabric::ranges::RangeSet,
        out: &mut Vec<u8>,
    ) {
        let own = self.options.own;
        super::wire::encode_ranges(ranges, self.region().row(own), out);
    }

    /// Lands a batch from a peer that came in another way, in a turn: all of it or nothing.
    ///
    /// # Errors
    /// In words, if it is no batch for this row.
    pub(in crate::fabric) fn land_batch(
        &mut self,
        peer: NodeId,
        batch: &[u8],
    ) -> Result<(), String> {
        let region = self.region.as_mut().expect("no view is prepared");
        super::wire::land_batch(batch, region.row_mut(peer)).map_err(|error| error.to_string())?;
        self.peers[peer.index()].changed = true;
        Ok(())
    }

    /// The longest batch of the present view.
    pub(in crate::fabric) fn batch_bytes_max(&self) -> usize {
        super::wire::batch_bytes_max(self.region().row_len)
    }

    /// The address of the own node.
    pub(in crate::fabric) fn own_address(&self) -> std::net::SocketAddr {
        self.options.nodes[self.options.own.index()].address
    }
}
