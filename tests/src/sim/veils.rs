//! Nodes that do not notice for a while that others go on without them.

use super::plan::MS;
use super::world::{Event, World};

impl World<'_> {
    /// One node gets no messages for a while, and of some others nothing at all; where nodes come and go also several, which
    /// hear each other. Soon after, a link between two others breaks: they stop, and perhaps go on in a view without those
    /// that did not hear of it. Or these are paused meanwhile.
    pub(super) fn veil(&mut self) {
        self.coverage.veils += 1;
        let until = self.now + self.rng.range(60 * MS..280 * MS);
        let mut others = self.present();
        // Two that still go by an older roster may be enough there, where it would be a wrong one.
        let most = if self.plan.last_roster() == 0 { 1 } else { (others.len() - 1) / 2 };
        let count = if most > 1 { self.rng.range(1..most as u64 + 1) } else { 1 };
        let mut veiled = Vec::new();
        for _ in 0..count {
            veiled.push(others.remove(self.rng.index(others.len())));
        }
        for node in veiled {
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
        }
        if others.len() > 1 {
            let (a, b) = (others.remove(self.rng.index(others.len())), *self.rng.pick(&others));
            let at = self.now + self.rng.range(MS..20 * MS);
            self.at(at, Event::Break(a, b));
        }
        let at = until + self.rng.range(MS..2 * self.plan.fault_every);
        self.at(at, Event::Fault);
    }
}
