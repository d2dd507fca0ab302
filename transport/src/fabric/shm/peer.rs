//! What a node knows of the memory of one peer, as a reader of it and as the owner of its own.

use std::os::fd::OwnedFd;

use super::{
    door::Gift,
    mapping::Mapping,
    ring::{self, Reader},
    words::Random,
};
use crate::fabric::FabricEvent;

/// One peer. All of it ends with the link.
#[derive(Debug, Default)]
pub(super) struct PeerMemory {
    /// Proves that a gift is from this peer, over the present link.
    pub(super) token: Option<Random>,
    /// Where the peer wants our memory, and with which token.
    pub(super) invitation: Option<(Random, Random)>,
    /// A gift of a view that we have not prepared yet.
    pub(super) gift: Option<Gift>,
    /// The peer's memory of the present view.
    pub(super) theirs: Option<Theirs>,
    /// Where we are in its ring, while we are attached.
    pub(super) reader: Option<Reader>,
    /// We were overtaken in its ring, and wait for a batch over TCP.
    pub(super) lapped: bool,
    /// Messages that come after what we wait for.
    pub(super) held: Vec<FabricEvent>,
    /// Our memory of the present view was handed over.
    pub(super) offered: bool,
    /// The peer has mapped it, and is ready to be attached.
    pub(super) mapped: bool,
    /// Where the peer was attached last.
    pub(super) from: u64,
}

/// Memory of a peer.
#[derive(Debug)]
pub(super) struct Theirs {
    pub(super) mapping: Mapping,
    pub(super) bell: OwnedFd,
    /// The sleep in which we have rung.
    pub(super) rung: Option<u64>,
}

impl PeerMemory {
    /// Forgets what is of the present view only.
    pub(super) fn leave_view(&mut self) {
        self.theirs = None;
        self.reader = None;
        self.lapped = false;
        self.offered = false;
        self.mapped = false;
    }

    /// Whether there is something to read in the peer's ring.
    pub(super) fn has_records(&self) -> bool {
        let (Some(theirs), Some(reader)) = (&self.theirs, &self.reader) else { return false };
        Reader::head(theirs.mapping.words()) > reader.at()
    }

    /// How far the peer, which is attached, has read our ring (that of `own_node`).
    pub(super) fn taken(&self, own_node: usize) -> u64 {
        let theirs =
            self.theirs.as_ref().map(|theirs| ring::taken(theirs.mapping.words(), own_node));
        theirs.unwrap_or(0).max(self.from)
    }

    /// Wakes the peer if it sleeps; whether that took a ring of its bell.
    pub(super) fn ring(&mut self) -> bool {
        let Some(theirs) = &mut self.theirs else { return false };
        let sleep = ring::asleep(theirs.mapping.words());
        if sleep.is_none() || sleep == theirs.rung {
            return false;
        }
        theirs.rung = sleep;
        // It fails only if the count is full, and then the bell has rung.
        _ = rustix::io::write(&theirs.bell, &1_u64.to_ne_bytes());
        true
    }
}
