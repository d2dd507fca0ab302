//! What a node knows of one peer: how batches leave for it, and how its own land.

use std::{collections::VecDeque, mem, ops::Range};

use super::{
    pair::{Completion, Pair},
    window::{Immediate, Incoming, Outgoing},
    words::Offer,
};
use crate::fabric::{Counters, FabricEvent, NodeId, ranges::RangeSet, tcp::TcpFabric};

/// One peer. All but the offer and the held messages is of one view.
#[derive(Default)]
pub(super) struct PeerPair {
    pub(super) pair: Option<Pair>,
    /// What the peer has offered last.
    pub(super) offer: Option<Offer>,
    /// The peer's end is connected to ours.
    pub(super) ready: bool,
    /// What we publish goes by RDMA.
    pub(super) attached: bool,
    /// What the peer publishes comes by RDMA.
    pub(super) landing: bool,
    pub(super) unsent: RangeSet,
    /// The batch that is being sent, and how much of it was.
    batch: Vec<u8>,
    sent: usize,
    /// The ranges of the batches that are not known to be taken.
    in_flight: VecDeque<RangeSet>,
    outgoing: Outgoing,
    incoming: Incoming,
    /// Pieces that came, not landed yet; then those of a batch that is not whole.
    arrived: VecDeque<(usize, bool)>,
    inbound: Vec<u8>,
    /// Batches that were begun, those that landed, and what a message was last told to wait for.
    pub(super) begun: u64,
    landed: u64,
    told: u64,
    /// What the next message waits for; those that wait.
    pub(super) after: u64,
    held: VecDeque<(u64, Vec<u8>)>,
    /// The view before, and how many batches had landed in it.
    old: (u64, u64),
}

impl PeerPair {
    /// Sends what is to be sent, as far as the ring and the queue take it.
    pub(super) fn push(&mut self, tcp: &TcpFabric, counters: &mut Counters) -> Result<(), String> {
        let Some(pair) = self.pair.as_mut().filter(|pair| pair.is_connected()) else {
            return Ok(());
        };
        while pair.has_room()
            && let Some(pieces) = self.incoming.to_tell()
        {
            let taken = Immediate::Taken { pieces };
            pair.write(0, &[], taken).map_err(|error| error.to_string())?;
            counters.writes_posted += 1;
            self.incoming.told(pieces);
        }
        while self.attached && pair.has_room() {
            if self.sent == self.batch.len() {
                if self.unsent.is_empty() {
                    break;
                }
                let ranges = mem::take(&mut self.unsent);
                self.batch.clear();
                self.sent = 0;
                tcp.seal(&ranges, &mut self.batch);
                self.in_flight.push_back(ranges);
                self.begun += 1;
                counters.batches_sent += 1;
            }
            let rest = &self.batch[self.sent..];
            let Some((at, bytes)) = self.outgoing.take_room(rest.len()) else { break };
            let last = bytes == rest.len();
            let piece = Immediate::Piece { bytes, last };
            pair.write(at, &rest[..bytes], piece).map_err(|error| error.to_string())?;
            self.sent += bytes;
            counters.writes_posted += 1;
            counters.bytes_sent += bytes as u64;
        }
        Ok(())
    }

    /// Takes completions, and lands batches that are whole. Whether there was anything.
    pub(super) fn drain(
        &mut self,
        peer: NodeId,
        tcp: &mut TcpFabric,
        counters: &mut Counters,
    ) -> Result<bool, String> {
        let Some(pair) = self.pair.as_mut() else { return Ok(false) };
        let mut any = false;
        while let Some(completion) = pair.next()? {
            any = true;
            match completion {
                Completion::Left => {}
                Completion::Came(Immediate::Piece { bytes, last }) => {
                    self.arrived.push_back((bytes, last));
                }
                Completion::Came(Immediate::Taken { pieces }) => {
                    let batches = self.outgoing.give_back(pieces);
                    let batches = batches.ok_or("it took more than it was given")?;
                    self.in_flight.drain(..batches);
                }
            }
        }
        while self.landing
            && let Some((bytes, last)) = self.arrived.pop_front()
        {
            any = true;
            let at = self.incoming.take(bytes).ok_or("it wrote beyond the ring")?;
            if self.inbound.len() + bytes > tcp.batch_bytes_max() {
                return Err("it sent a batch longer than any can be".to_owned());
            }
            pair.read(at, bytes, &mut self.inbound);
            counters.bytes_received += bytes as u64;
            if last {
                tcp.land_batch(peer, &self.inbound)?;
                self.inbound.clear();
                self.landed += 1;
                counters.batches_received += 1;
            }
        }
        pair.post_receives().map_err(|error| error.to_string())?;
        Ok(any)
    }

    /// How many batches the next message to the peer comes after, if that was not said yet.
    pub(super) fn waits_for(&mut self) -> Option<u64> {
        let batches = self.begun + u64::from(!self.unsent.is_empty());
        let news = self.attached && batches > self.told;
        news.then(|| {
            self.told = batches;
            batches
        })
    }

    /// Keeps a message until what comes before it has landed.
    pub(super) fn hold(&mut self, message: Vec<u8>) {
        self.held.push_back((self.after, message));
    }

    /// Hands out the messages that wait for nothing more.
    pub(super) fn release(&mut self, peer: NodeId, events: &mut Vec<FabricEvent>) {
        while let Some((_, bytes)) = self.held.pop_front_if(|(after, _)| *after <= self.landed) {
            events.push(FabricEvent::Message { peer, bytes });
        }
    }

    /// What was published by RDMA and is not known to be taken.
    pub(super) fn not_taken(&self) -> Vec<Range<usize>> {
        if !self.attached {
            return Vec::new();
        }
        self.in_flight.iter().chain([&self.unsent]).flat_map(RangeSet::iter).cloned().collect()
    }

    /// What the peer publishes comes over TCP from now on, all that came by RDMA included.
    pub(super) fn stop_landing(&mut self) {
        self.landing = false;
        self.arrived.clear();
        self.wait_for_nothing();
    }

    /// Nothing more will land in this view.
    pub(super) fn wait_for_nothing(&mut self) {
        self.after = 0;
        self.held.iter_mut().for_each(|(after, _)| *after = 0);
    }

    /// Ends the queue pair and all that is of the view; `view` is that view.
    pub(super) fn leave_view(&mut self, view: u64) {
        self.wait_for_nothing();
        let (offer, held) = (self.offer.take(), mem::take(&mut self.held));
        let old = if self.begun + self.landed > 0 || self.landing {
            (view, self.landed)
        } else {
            self.old
        };
        *self = Self { offer, held, old, ..Self::default() };
    }

    /// Ends all that is of the link. What has not landed comes again over the next.
    pub(super) fn end_link(&mut self) {
        *self = Self::default();
    }

    /// How many batches of an old view did not land, of so many that were begun.
    pub(super) fn late(&self, view: u64, begun: u64) -> u64 {
        if self.old.0 == view { begun.saturating_sub(self.old.1) } else { begun }
    }
}
