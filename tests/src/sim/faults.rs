//! What goes wrong, and coming back from it.

use tradewind_site_protocol::{NodeCore, NodeId};

use super::check::Check;
use super::plan::MS;
use super::world::{Event, Node, World};

impl World<'_> {
    pub(super) fn fault(&mut self) {
        if self.healed {
            return;
        }
        self.troubled_at = self.now + 1_000 * MS;
        let count = self.nodes.len();
        let node = NodeId(self.rng.index(count) as u16);
        match self.rng.range(0..19) {
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
            12..=13 => self.partition(),
            14 => {
                let peer = NodeId(self.rng.index(count) as u16);
                let until = self.now + self.rng.range(50 * MS..600 * MS);
                self.tell(|| format!("nothing gets from {node} to {peer} until {} ms", until / MS));
                self.coverage.one_way += 1;
                self.lanes.entry((node, peer)).or_default().held_until = until;
            }
            15 => {
                let peer = NodeId(self.rng.index(count) as u16);
                if peer != node {
                    self.tell(|| format!("the link between {node} and {peer} flaps"));
                    self.coverage.flapping += 1;
                    for _ in 0..self.rng.range(3..10) {
                        let at = self.now + self.rng.range(MS..800 * MS);
                        self.at(at, Event::Break(node, peer));
                    }
                }
            }
            16..=17 => self.lose_disk(node),
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
        self.troubled_at = self.troubled_at.max(self.now);
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
        let kept = self.rng.percent(50);
        if let Some(promise) = state.promising.take() {
            self.coverage.promises_torn += 1;
            if kept {
                state.promise = promise;
            }
        }
        if let Some((shard, to)) = state.rewinding.take().filter(|_| kept) {
            state.disks.get_mut(&shard).expect("an own shard").cut(to);
        }
        self.coverage.takings_interrupted += state.snapshots.crash();
        let planting = state.planting.take().filter(|_| kept);
        for disk in state.disks.values_mut() {
            disk.crash(&mut self.rng);
        }
        if let Some((shard, _)) = planting {
            self.replace_ledger(node, shard);
        }
        for index in 0..self.nodes.len() {
            let peer = NodeId(index as u16);
            if peer != node {
                self.break_link(node, peer);
            }
        }
        // Where history is pruned, some are away until what they lack is gone.
        let longer = if self.plan.prunes && self.rng.percent(40) { 8 } else { 1 };
        let at = self.now + longer * self.rng.range(30 * MS..250 * MS);
        self.at(at, Event::Restart(node));
    }

    pub(super) fn restart(&mut self, node: NodeId) -> Check {
        let state = &mut self.nodes[node.index()];
        if state.held {
            return Ok(());
        }
        if state.core.is_some() {
            // Healing: make sure that it is linked to everybody.
            self.link_all(node);
            return Ok(());
        }
        state.incarnation += 1;
        let incarnation = state.incarnation;
        let Node { snapshots, disks, .. } = state;
        let rule = &self.plan.limits.snapshots;
        let recovered = disks.iter().map(|(shard, disk)| snapshots.recover(*shard, disk, rule));
        let recovered = recovered.collect();
        // An empty disk begins to count anew.
        let counted = if state.lost.is_some() { 1 } else { incarnation };
        let config = self.plan.config(node, counted);
        let now = self.clock(node);
        let promise = self.nodes[node.index()].promise.clone();
        let core = NodeCore::new(config, recovered, promise, now);
        let mut core = core.expect("a valid configuration");
        core.plant(self.plan.mutation);
        core.recall(self.nodes[node.index()].remembered.clone());
        self.nodes[node.index()].core = Some(core);
        self.recall_snapshots(node, now);
        self.tell(|| format!("{node} starts as incarnation {incarnation}"));
        self.perform(node)?;
        self.wake(node);
        self.link_all(node);
        Ok(())
    }

    /// Keeps some nodes apart for a while: one alone, two parts, or two parts with a bridge.
    fn partition(&mut self) {
        let count = self.nodes.len() as u16;
        let sides: Vec<u64> = (0..count).map(|_| self.rng.range(0..5)).collect();
        let apart = |a: NodeId, b: NodeId| match (sides[a.index()], sides[b.index()]) {
            // The bridge.
            (4, _) | (_, 4) => false,
            (a, b) => (a < 2) != (b < 2),
        };
        let nodes = || (0..count).map(NodeId);
        let pairs: Vec<_> =
            nodes().flat_map(|a| nodes().map(move |b| (a, b))).filter(|(a, b)| a < b).collect();
        let pairs: Vec<_> = pairs.into_iter().filter(|(a, b)| apart(*a, *b)).collect();
        self.tell(|| format!("kept apart: {pairs:?}"));
        self.coverage.partitions += 1;
        for (a, b) in &pairs {
            self.cut.insert((*a, *b));
            self.break_link(*a, *b);
        }
        let at = self.now + self.rng.range(50 * MS..900 * MS);
        self.at(at, Event::Mend(pairs));
    }

    pub(super) fn mend(&mut self, pairs: &[(NodeId, NodeId)]) {
        for (a, b) in pairs {
            self.cut.remove(&(*a, *b));
            let at = self.now + self.rng.range(MS..30 * MS);
            self.at(at, Event::Relink(*a, *b));
        }
    }

    /// No more faults: all come back, or a majority first.
    pub(super) fn heal(&mut self) {
        self.tell(|| "healed: no more faults".into());
        self.troubled_at = self.now;
        for lane in self.lanes.values_mut() {
            lane.held_until = 0;
        }
        let cut: Vec<_> = std::mem::take(&mut self.cut).into_iter().collect();
        self.mend(&cut);
        if self.plan.majority_first {
            self.coverage.majorities_alone += 1;
            for _ in 0..(self.nodes.len() - 1) / 2 {
                let node = NodeId(self.rng.index(self.nodes.len()) as u16);
                self.tell(|| format!("{node} stays down"));
                self.crash(node);
                self.nodes[node.index()].held = true;
            }
        }
        self.come_back();
    }

    /// The last node starts, perhaps in place of another.
    pub(super) fn start_late(&mut self) {
        let Some(late) = self.late.take() else { return };
        let last = self.nodes.len() - 1;
        self.nodes[last].held = false;
        if late.needed {
            self.crash(NodeId(1));
            self.nodes[1].held = true;
        }
        self.at(self.now, Event::Restart(NodeId(last as u16)));
    }

    pub(super) fn heal_all(&mut self) {
        self.tell(|| "the rest comes back".into());
        self.nodes.iter_mut().for_each(|node| node.held = false);
        self.come_back();
    }

    fn come_back(&mut self) {
        for index in 0..self.nodes.len() {
            self.nodes[index].paused_until = 0;
            self.wake(NodeId(index as u16));
            self.at(self.now, Event::Restart(NodeId(index as u16)));
        }
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
