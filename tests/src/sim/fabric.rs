//! The simulated fabric: rows that peers see late and in part, links that break, a control lane.
//!
//! Each ordered pair of nodes is a FIFO with random delays, save that publishes overtake messages that are held back;
//! nothing is ordered between pairs. A publish may arrive with what the row holds by then instead of what it held at the
//! call, as a real fabric may send it.

use std::collections::BTreeMap;
use std::ops::Range;

use tradewind_ledger::ViewId;
use tradewind_site_protocol::{Memory, NodeId};

/// The rows of one view at one node, and what was published and not yet handed to the links.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) view: ViewId,
    pub(crate) own: Vec<u8>,
    copies: BTreeMap<NodeId, Vec<u8>>,
    pub(crate) published: Vec<(NodeId, Range<usize>, Vec<u8>)>,
}

impl Rows {
    pub(crate) fn new(own: NodeId, view: ViewId, members: &[NodeId], row_len: usize) -> Self {
        let peers = members.iter().filter(|node| **node != own);
        let copies = peers.map(|node| (*node, vec![0; row_len])).collect();
        Self { view, own: vec![0; row_len], copies, published: Vec::new() }
    }

    /// A frame lands.
    pub(crate) fn land(&mut self, from: NodeId, offset: usize, bytes: &[u8]) {
        if let Some(copy) = self.copies.get_mut(&from) {
            copy[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
    }
}

impl Memory for Rows {
    fn store(&mut self, offset: usize, bytes: &[u8]) {
        self.own[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn publish(&mut self, range: Range<usize>, peers: &[NodeId]) {
        for peer in peers {
            assert!(self.copies.contains_key(peer), "a row is published to members only");
            self.published.push((*peer, range.clone(), self.own[range.clone()].to_vec()));
        }
    }

    fn load(&self, peer: NodeId, offset: usize) -> u64 {
        assert!(offset.is_multiple_of(8), "counters are aligned");
        let copy = &self.copies[&peer];
        u64::from_le_bytes(copy[offset..offset + 8].try_into().expect("eight bytes"))
    }

    fn copy(&self, peer: NodeId, offset: usize, out: &mut [u8]) {
        out.copy_from_slice(&self.copies[&peer][offset..offset + out.len()]);
    }
}

/// Something on its way from one node to another.
#[derive(Debug)]
pub(crate) enum Frame {
    /// A range of the sender's row.
    Publish { view: ViewId, offset: usize, bytes: Vec<u8> },
    /// A message of the control lane.
    Message(Vec<u8>),
}

/// One direction of a link.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// When the last frame arrives that is not held back: nothing overtakes it.
    pub(crate) last_arrival: u64,
    /// When the last message arrives: no other message overtakes it.
    pub(crate) last_message: u64,
    /// One-way trouble: nothing arrives before this.
    pub(crate) held_until: u64,
    /// No message arrives before this.
    pub(crate) messages_held_until: u64,
}

impl Lane {
    /// When a frame arrives that would take until `at` if it were alone.
    pub(crate) fn arrival(&mut self, frame: &Frame, at: u64) -> u64 {
        let at = at.max(self.last_arrival).max(self.held_until);
        self.last_arrival = at;
        match frame {
            Frame::Publish { .. } => at,
            Frame::Message(_) => {
                self.last_message = at.max(self.last_message).max(self.messages_held_until);
                self.last_message
            }
        }
    }

    /// A new link: what the last one held back is lost with it, and nothing arrives before `at`.
    pub(crate) fn begin(&mut self, at: u64) {
        *self = Self { last_arrival: at, ..Self::default() };
    }
}

/// A link between two nodes; each time it breaks it comes back with the next generation, and frames of older
/// ones are lost.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(crate) generation: u64,
    pub(crate) up: bool,
}
