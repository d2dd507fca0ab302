//! Crashes, and coming back from them and from everything else.

use std::collections::BTreeMap;

use tradewind_site_protocol::{NodeCore, NodeId};

use super::Planted;
use super::check::Check;
use super::coverage::{Fault, Seen};
use super::disk::Loss;
use super::plan::MS;
use super::world::{Event, Node, World};

impl World<'_> {
    pub(super) fn crash(&mut self, node: NodeId) {
        if self.nodes[node.index()].core.is_none() {
            return;
        }
        self.tell(|| format!("{node} crashes"));
        self.troubled_at = self.troubled_at.max(self.now);
        let state = &mut self.nodes[node.index()];
        let core = state.core.take().expect("it runs");
        self.coverage.core.add(&core.status().counters);
        state.crashes += 1;
        state.rows = None;
        state.links.clear();
        state.inbox.clear();
        state.reads.clear();
        state.turn_at = None;
        (state.paused_until, state.starved_until) = (0, 0);
        (state.slow_until, state.full_until, state.sync_fails) = (0, 0, false);
        state.promised_at = 0;
        (state.step, state.shard_steps) = (None, BTreeMap::new());
        // What was on its way to it is lost.
        state.incarnation += 1;
        self.lose_what_was_not_synced(node);
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

    /// Of what was being written, any part may be on the disk; in scripts none is.
    fn lose_what_was_not_synced(&mut self, node: NodeId) {
        if self.liar.is_none() {
            // What a disk lied about is lost only when nothing else goes wrong.
            self.be_honest(node);
        }
        let least = self.plan.crashes_keep_least;
        let kept = self.rng.percent(50) && !least;
        let state = &mut self.nodes[node.index()];
        let (torn_promise, torn_cut) = (state.promising.take(), state.rewinding.take());
        self.coverage.faults.add(Fault::TornPromise, u64::from(torn_promise.is_some()));
        self.coverage.faults.add(Fault::TornCut, u64::from(torn_cut.is_some()));
        if let Some(promise) = torn_promise.filter(|_| kept) {
            state.promise = promise;
        }
        if let Some((shard, to)) = torn_cut.filter(|_| kept) {
            state.disk(shard).cut(to);
        }
        let torn_plant = state.planting.take();
        self.coverage.faults.add(Fault::TornPlant, u64::from(torn_plant.is_some()));
        self.coverage.seen.add(Seen::TakingInterrupted, state.snapshots.crash());
        for (shard, disk) in &mut state.disks {
            let Loss { torn, lost } = disk.crash(&mut self.rng, least);
            self.coverage.faults.add(Fault::TornWrite, u64::from(torn));
            self.coverage.faults.add(Fault::LostSync, u64::from(lost));
            if lost {
                state.snapshots.lose(*shard, disk.synced());
            }
        }
        if let Some((shard, _)) = torn_plant.filter(|_| kept) {
            self.replace_ledger(node, shard);
        }
    }

    pub(super) fn restart(&mut self, node: NodeId) -> Check {
        let state = &mut self.nodes[node.index()];
        let Some(file) = state.file.filter(|_| !state.held && !state.dismissed) else {
            return Ok(());
        };
        if state.core.is_some() {
            // Healing: make sure that it is linked to everybody.
            self.link_all(node);
            return Ok(());
        }
        if let Some((shard, damaged)) = self.damage(node) {
            self.see(Seen::RotFoundAtStart);
            self.tell(|| format!("{node} does not start: {damaged:?} of shard {shard}"));
            self.repair(node, shard, damaged);
            self.at(self.now + 20 * MS, Event::Restart(node));
            return Ok(());
        }
        let state = &mut self.nodes[node.index()];
        state.incarnation += 1;
        let incarnation = state.incarnation;
        // An empty disk begins to count anew.
        let counted = if state.lost.is_some() { 1 } else { incarnation };
        let config = self.plan.config(node, file, counted);
        let own = |shard: &usize| self.plan.members(*shard, file).contains(&node);
        let Node { snapshots, disks, .. } = &mut self.nodes[node.index()];
        let rule = &self.plan.limits.snapshots;
        let recovered = disks.iter().filter(|(shard, _)| own(shard));
        let recovered =
            recovered.map(|(shard, disk)| snapshots.recover(*shard, disk, rule)).collect();
        let now = self.clock(node);
        let promise = self.nodes[node.index()].promise.clone();
        let core = NodeCore::new(config, recovered, promise, now);
        let mut core = core.expect("a valid configuration");
        core.plant(self.plan.planted.and_then(Planted::in_core));
        core.recall(self.nodes[node.index()].remembered.clone());
        self.nodes[node.index()].core = Some(core);
        self.recall_snapshots(node, now);
        self.tell(|| format!("{node} starts as incarnation {incarnation}, file {file}"));
        self.perform(node)?;
        self.wake(node);
        self.link_all(node);
        Ok(())
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
        self.complete_changes();
        self.troubled_at = self.now;
        for lane in self.lanes.values_mut() {
            (lane.held_until, lane.messages_held_until) = (0, 0);
        }
        let cut: Vec<_> = std::mem::take(&mut self.cut).into_iter().collect();
        self.mend(&cut);
        if self.plan.majority_first && self.liar.is_none() && self.changes_are_complete() {
            self.see(Seen::MajorityAlone);
            let nodes = self.on_last_roster();
            for _ in 0..(nodes.len() - 1) / 2 {
                let node = *self.rng.pick(&nodes);
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
            (self.nodes[index].paused_until, self.nodes[index].starved_until) = (0, 0);
            self.nodes[index].sync_fails = false;
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
