//! A node that does not notice for a while that others go on without it.

use tradewind_site_protocol::NodeId;

use super::plan::MS;
use super::world::{Event, World};

impl World<'_> {
    /// One node gets no messages for a while, and of some others nothing at all. Soon after, a link between two others
    /// breaks: they stop, and perhaps go on in a view without the one that did not hear of it. Or it is paused meanwhile.
    pub(super) fn veil(&mut self) {
        self.coverage.veils += 1;
        let until = self.now + self.rng.range(60 * MS..280 * MS);
        let node = NodeId(self.rng.index(self.nodes.len()) as u16);
        let mut others: Vec<_> = (0..self.nodes.len() as u16).map(NodeId).collect();
        others.retain(|other| *other != node);
        for other in &others {
            let nothing = self.rng.percent(50);
            let lane = self.lanes.entry((*other, node)).or_default();
            lane.messages_held_until = until;
            if nothing {
                lane.held_until = until;
            }
            let what = if nothing { "nothing" } else { "no message" };
            self.tell(|| format!("{what} gets from {other} to {node} until {} ms", until / MS));
        }
        if self.rng.percent(10) {
            self.nodes[node.index()].paused_until = until;
        }
        let (a, b) = (others.remove(self.rng.index(others.len())), *self.rng.pick(&others));
        let at = self.now + self.rng.range(MS..20 * MS);
        self.at(at, Event::Break(a, b));
        let at = until + self.rng.range(MS..2 * self.plan.fault_every);
        self.at(at, Event::Fault);
    }
}
