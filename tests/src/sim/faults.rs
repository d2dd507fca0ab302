//! What goes wrong, and coming back from it.

use tradewind_site_protocol::{NodeCore, NodeId};

use super::check::Check;
use super::disk::Disk;
use super::plan::MS;
use super::world::{Event, World};

impl World<'_> {
    pub(super) fn fault(&mut self) {
        if self.healed {
            return;
        }
        let count = self.nodes.len();
        let node = NodeId(self.rng.index(count) as u16);
        match self.rng.range(0..12) {
            0..=3 => self.crash(node),
            4 => {
                self.tell(|| "power loss: all nodes crash".into());
                for index in 0..count {
                    self.crash(NodeId(index as u16));
                }
            }
            5 => {
                for index in 0..count {
                    if self.rng.percent(50) {
                        self.crash(NodeId(index as u16));
                    }
                }
            }
            6..=7 => {
                let peer = NodeId(self.rng.index(count) as u16);
                if peer != node {
                    self.tell(|| format!("the link between {node} and {peer} breaks"));
                    self.break_link(node, peer);
                }
            }
            8 => {
                let pause = self.rng.range(MS..1_000 * MS);
                self.tell(|| format!("{node} is paused for {} ms", pause / MS));
                self.coverage.pauses += 1;
                self.nodes[node.index()].paused_until = self.now + pause;
            }
            9..=10 => {
                // So that a crash finds much that is not synced.
                let slow = self.rng.range(20 * MS..300 * MS);
                self.tell(|| format!("the disks of {node} are slow for {} ms", slow / MS));
                self.nodes[node.index()].slow_until = self.now + slow;
                self.at(self.now + slow, Event::Crash(node));
            }
            _ => {
                let jump = self.rng.range(0..20_000_000) as i64 - 10_000_000;
                self.tell(|| format!("the clock of {node} jumps by {} ms", jump / 1000));
                self.nodes[node.index()].skew += jump;
            }
        }
        let at = self.now + self.rng.range(1..2 * self.plan.fault_every);
        self.at(at, Event::Fault);
    }

    pub(super) fn crash(&mut self, node: NodeId) {
        if self.nodes[node.index()].core.is_none() {
            return;
        }
        self.tell(|| format!("{node} crashes"));
        let state = &mut self.nodes[node.index()];
        let core = state.core.take().expect("it runs");
        self.coverage.add(&core.status().counters);
        self.coverage.crashes += 1;
        state.crashes += 1;
        state.rows = None;
        state.links.clear();
        state.inbox.clear();
        state.turn_at = None;
        state.paused_until = 0;
        // What was on its way to it is lost.
        state.incarnation += 1;
        for disk in state.disks.values_mut() {
            disk.crash(&mut self.rng);
        }
        for shard in 0..self.plan.shards.len() {
            let longest = self.disks(shard).iter().map(|disk| disk.entries().len()).max();
            self.checker.forget_lost(shard, longest.unwrap_or(0));
        }
        for index in 0..self.nodes.len() {
            let peer = NodeId(index as u16);
            if peer != node {
                self.break_link(node, peer);
            }
        }
        let at = self.now + self.rng.range(30 * MS..250 * MS);
        self.at(at, Event::Restart(node));
    }

    pub(super) fn restart(&mut self, node: NodeId) -> Check {
        let state = &mut self.nodes[node.index()];
        if state.core.is_some() {
            // Healing: make sure that it is linked to everybody.
            self.link_all(node);
            return Ok(());
        }
        state.incarnation += 1;
        let incarnation = state.incarnation;
        let recovered = state.disks.values().map(Disk::recover).collect();
        let config = self.plan.config(node, incarnation);
        let now = self.clock(node);
        let mut core = NodeCore::new(config, recovered, now).expect("a valid configuration");
        core.plant(self.plan.mutation);
        self.nodes[node.index()].core = Some(core);
        self.tell(|| format!("{node} starts as incarnation {incarnation}"));
        self.perform(node)?;
        self.wake(node);
        self.link_all(node);
        Ok(())
    }

    pub(super) fn link_all(&mut self, node: NodeId) {
        for index in 0..self.nodes.len() {
            let peer = NodeId(index as u16);
            if peer != node {
                let at = self.now + self.rng.range(MS..30 * MS);
                self.at(at, Event::Relink(node.min(peer), node.max(peer)));
            }
        }
    }
}
