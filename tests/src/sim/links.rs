//! Links between nodes: publishes and messages on their way, breaks, new generations.

use tradewind_site_protocol::NodeId;

use super::coverage::{Fault, Point, Side};
use super::fabric::Frame;
use super::plan::MS;
use super::world::{Event, Input, World};

impl World<'_> {
    /// Hands what was published in a turn to the links, peer by peer.
    pub(super) fn flush(&mut self, node: NodeId) {
        let Some(rows) = &mut self.nodes[node.index()].rows else { return };
        let (view, mut published) = (rows.view, std::mem::take(&mut rows.published));
        published.sort_by_key(|(peer, ..)| *peer);
        for of_peer in published.chunk_by(|(one, ..), (other, ..)| one == other) {
            if !self.passes(node, Point::Publish, Side::Before) {
                return;
            }
            for (peer, range, bytes) in of_peer {
                // A large range may travel in pieces, lower addresses first.
                let cut = match bytes.len() > 64 && self.rng.percent(50) {
                    true => self.rng.index(bytes.len() / 8) * 8,
                    false => 0,
                };
                let (head, tail) = bytes.split_at(cut);
                for (offset, bytes) in [(range.start, head), (range.start + cut, tail)] {
                    if !bytes.is_empty() {
                        let bytes = bytes.to_vec();
                        self.transmit(node, *peer, Frame::Publish { view, offset, bytes });
                    }
                }
            }
            if !self.passes(node, Point::Publish, Side::After) {
                return;
            }
        }
    }

    pub(super) fn transmit(&mut self, from: NodeId, to: NodeId, mut frame: Frame) {
        let sender = &self.nodes[from.index()];
        let Some(generation) = sender.links.get(&to).copied() else { return };
        if let (Frame::Publish { view, offset, bytes }, Some(rows)) = (&mut frame, &sender.rows)
            && rows.view == *view
            && self.rng.percent(30)
        {
            // A fabric may send what the range holds by then.
            let len = bytes.len();
            bytes.copy_from_slice(&rows.own[*offset..*offset + len]);
        }
        let link = &self.links[&pair(from, to)];
        if !link.up || link.generation != generation {
            return;
        }
        let (usual, longest) = self.plan.delay;
        let arrival = self.now + self.rng.delay(usual, longest);
        let lane = self.lanes.entry((from, to)).or_default();
        let (at, incarnation) = (lane.arrival(&frame, arrival), self.nodes[to.index()].incarnation);
        if let Frame::Message(message) = &frame
            && self.now < self.nodes[from.index()].doubles_until
        {
            // No fabric promises to be as bad as this: once more, perhaps after later ones.
            let again = Input::Frame(from, generation, Frame::Message(message.clone()));
            let later = at + self.rng.range(1..5 * MS);
            self.at(later, Event::Input(to, incarnation, again));
            self.hit(Fault::Duplicate);
        }
        self.at(at, Event::Input(to, incarnation, Input::Frame(from, generation, frame)));
    }

    pub(super) fn break_link(&mut self, a: NodeId, b: NodeId) {
        // One end may not notice before the next link is there.
        let both = [(a, b), (b, a)].into_iter();
        let noticed: Vec<_> = both.filter(|_| self.rng.percent(85)).collect();
        self.break_link_at(a, b, &noticed);
    }

    /// The link breaks; these ends notice, each named before the other.
    pub(super) fn break_link_at(&mut self, a: NodeId, b: NodeId, noticed: &[(NodeId, NodeId)]) {
        let link = self.links.entry(pair(a, b)).or_default();
        if !link.up {
            return;
        }
        link.up = false;
        self.troubled_at = self.troubled_at.max(self.now + 15 * MS);
        let generation = link.generation;
        self.hit(Fault::BrokenLink);
        self.coverage.faults.add(Fault::UnnoticedBreak, u64::from(noticed.len() < 2));
        for (node, peer) in noticed {
            let at = self.now + self.rng.range(10..15 * MS);
            let incarnation = self.nodes[node.index()].incarnation;
            let input = Input::Unlinked(*peer, generation);
            self.at(at, Event::Input(*node, incarnation, input));
        }
        let at = self.now + self.rng.range(20 * MS..80 * MS);
        self.at(at, Event::Relink(a, b));
    }

    pub(super) fn relink(&mut self, a: NodeId, b: NodeId) {
        let running = |node: NodeId| self.nodes[node.index()].core.is_some();
        if !running(a)
            || !running(b)
            || !self.know_each_other(a, b)
            || self.cut.contains(&pair(a, b))
        {
            return;
        }
        let link = self.links.entry(pair(a, b)).or_default();
        if link.up {
            return;
        }
        link.up = true;
        if link.generation > 0 {
            // One end may learn only by this that the last one broke.
            self.troubled_at = self.troubled_at.max(self.now + 2 * MS);
        }
        let link = self.links.entry(pair(a, b)).or_default();
        link.generation += 1;
        let generation = link.generation;
        for (node, peer) in [(a, b), (b, a)] {
            let at = self.now + self.rng.range(10..2 * MS);
            // Nothing arrives before the link is known.
            self.lanes.entry((peer, node)).or_default().begin(at);
            let incarnation = self.nodes[node.index()].incarnation;
            self.at(at, Event::Input(node, incarnation, Input::Linked(peer, generation)));
        }
    }
}

pub(super) fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}
