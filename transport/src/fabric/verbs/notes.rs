//! What links and peers tell: offering, connecting, attaching, leaving.

use super::{
    CHANNEL, Fabric as _, NodeId, PathKind, TcpFabric, VerbsFabric, Words, pair::Pair,
    peer::PeerPair, words::Offer,
};
use crate::fabric::tcp::Note;

impl VerbsFabric {
    pub(super) fn handle_notes(&mut self) {
        for note in self.tcp.take_notes() {
            match note {
                Note::Up(peer) => self.make_pair(peer),
                Note::Down(peer) => {
                    // What it said before is told before its loss.
                    let state = &mut self.peers[peer.index()];
                    state.release(peer, &mut self.early);
                    state.end_link();
                    self.paths.set(peer, PathKind::Tcp, "no link");
                }
                Note::Landed(peer) => {
                    let state = &mut self.peers[peer.index()];
                    if state.landing {
                        state.stop_landing();
                    }
                }
                Note::Message(peer, bytes) => self.peers[peer.index()].hold(bytes),
                Note::Words(peer, bytes) => match Words::decode(&bytes) {
                    Some(words) => self.hear(peer, words),
                    None => self.cannot(peer, "it has no RDMA device, or no fabric that uses it"),
                },
                Note::Ready(token) => {
                    debug_assert_eq!(token, TcpFabric::foreign_token(CHANNEL));
                    self.device.take_events();
                    let pairs = self.peers.iter_mut().filter_map(|peer| peer.pair.as_mut());
                    pairs.for_each(|pair| pair.armed = false);
                }
            }
        }
        let view = self.tcp.present_view();
        for peer in self.all() {
            if self.peers[peer.index()].attached && self.tcp.view_of(peer) > view {
                self.leave(peer);
            }
        }
    }

    /// A peer is in a newer view: what we write in the old one would be refused.
    pub(super) fn leave(&mut self, peer: NodeId) {
        let view = self.tcp.present_view();
        let state = &mut self.peers[peer.index()];
        let batches = state.begun + u64::from(!state.unsent.is_empty());
        if state.attached {
            self.tcp.say(peer, Words::Left { view, batches }.encode());
        }
        let state = &mut self.peers[peer.index()];
        state.leave_view(view);
        self.paths.set(peer, PathKind::Tcp, "it has left the view");
    }

    /// Makes our end for a peer that is connected and a member, and offers it.
    pub(super) fn make_pair(&mut self, peer: NodeId) {
        let (own, _) = self.tcp.place();
        let view = self.tcp.present_view();
        if view == 0 || peer == own || !self.tcp.has_link(peer) || !self.tcp.rows().is_member(peer)
        {
            return;
        }
        match Pair::new(&self.device) {
            Ok(pair) => {
                self.tcp.say(peer, Words::Offer(pair.offer(view)).encode());
                self.peers[peer.index()].pair = Some(pair);
                self.connect(peer);
            }
            Err(error) => {
                let reason = error.to_string();
                self.tcp.say(peer, Words::Refuse { reason: reason.clone() }.encode());
                self.cannot(peer, &reason);
            }
        }
    }

    /// Connects our end to the peer's, if both are there and of the present view.
    fn connect(&mut self, peer: NodeId) {
        let view = self.tcp.present_view();
        let PeerPair { pair: Some(pair), offer, .. } = &mut self.peers[peer.index()] else {
            return;
        };
        let Some(offer) = offer.take_if(|offer| offer.view == view && !pair.is_connected()) else {
            return;
        };
        match checked(offer).and_then(|offer| pair.connect(offer).map_err(|e| e.to_string())) {
            Ok(()) => self.tcp.say(peer, Words::Ready { view }.encode()),
            Err(reason) => {
                self.tcp.say(peer, Words::Refuse { reason: reason.clone() }.encode());
                self.cannot(peer, &reason);
            }
        }
    }

    /// Attaches those who are ready for it.
    pub(super) fn attach(&mut self) {
        let view = self.tcp.present_view();
        for peer in self.all() {
            let state = &mut self.peers[peer.index()];
            let connected = state.pair.as_ref().is_some_and(Pair::is_connected);
            if connected && state.ready && !state.attached && self.tcp.is_even(peer) {
                state.attached = true;
                self.tcp.say(peer, Words::Attach { view }.encode());
                let why = format!("RDMA device {}", self.device.at.name);
                self.paths.set(peer, PathKind::Verbs, &why);
            }
        }
    }

    fn hear(&mut self, peer: NodeId, words: Words) {
        let present = self.tcp.present_view();
        let state = &mut self.peers[peer.index()];
        match words {
            Words::Offer(offer) if offer.view >= present => {
                state.offer = Some(offer);
                self.connect(peer);
            }
            Words::Ready { view } => state.ready |= view == present && state.pair.is_some(),
            Words::Attach { view } => state.landing |= view == present && state.pair.is_some(),
            Words::After { view, batches } if view == present && state.landing => {
                state.after = batches;
            }
            Words::Left { view, batches } if view < present => {
                self.counters.stale_dropped += state.late(view, batches);
            }
            Words::Refuse { reason } => {
                self.cannot(peer, &format!("it does not take part: {reason}"));
            }
            // Of a view that we have left.
            Words::Offer(_) | Words::After { .. } | Words::Left { .. } => {}
        }
    }

    /// Rows cannot reach a peer by RDMA.
    fn cannot(&mut self, peer: NodeId, why: &str) {
        let state = &mut self.peers[peer.index()];
        if state.attached {
            return self.fail(peer, why);
        }
        state.pair = None;
        self.paths.set(peer, PathKind::Tcp, why);
        let name = self.tcp.name(peer);
        if self.required {
            let words = format!(
                "fabric = \"verbs\", but {name} cannot be reached by RDMA: {why}; or choose fabric = \"auto\""
            );
            self.tcp.disconnect(peer, &words);
        } else {
            tracing::info!(peer = name, why, "rows go over TCP");
        }
    }
}

/// An offer as far as it can be checked here: numbers of the widths that the wire has for them.
fn checked(offer: Offer) -> Result<Offer, String> {
    let fits = offer.queue_pair < 1 << 24 && offer.psn < 1 << 24;
    if !fits || !(1..=5).contains(&offer.mtu) {
        return Err(format!("an offer that makes no sense: {offer:?}"));
    }
    Ok(offer)
}
