//! What goes wrong with disks beyond being slow and losing power: full, failing, lying and rotting ones.
//!
//! The shell here does what a node's does: it reads nothing without its checksum, leaves at once when an fsync fails, refuses
//! to start on damage, and has damage repaired from another replica, by hash.

use tradewind_ledger::Version;
use tradewind_site_protocol::{Fatal, NodeId, Promise, Recollection, ShardIndex, ShardStep};

use super::check::{Check, Violation};
use super::coverage::{Fault, Seen};
use super::disk::{Damaged, Disk};
use super::plan::MS;
use super::world::{Event, World, disks_of};

/// What is really on a disk that lies, beside its ledgers.
pub(super) struct Lie {
    promise: Promise,
    remembered: Vec<Recollection>,
}

impl World<'_> {
    pub(super) fn fill_disk(&mut self, node: NodeId) {
        let state = &mut self.nodes[node.index()];
        if state.core.is_none() {
            return;
        }
        state.full_until = state.full_until.max(self.now + self.rng.range(20 * MS..500 * MS));
        state.disks.values_mut().for_each(|disk| disk.fill(true));
        self.hit(Fault::FullDisk);
        self.tell(|| format!("the disk of {node} is full for a while"));
    }

    // Bit rot.

    /// A byte changes of an entry that is committed, and that another disk has undamaged.
    pub(super) fn rot(&mut self, node: NodeId) {
        let disks = &self.nodes[node.index()].disks;
        let Some((shard, disk)) = disks.iter().nth(self.rng.index(disks.len().max(1))) else {
            return;
        };
        let (shard, committed) = (*shard, self.checker.committed(*shard));
        let (least, most) = (disk.first().0.max(1), disk.synced().0.min(committed.0));
        // Who is to be removed may end, and never be repaired.
        let stays = |roster| self.plan.members(shard, roster).contains(&node);
        let elsewhere = disks_of(&self.nodes, shard, &self.plan.ever(shard));
        let rotten = elsewhere.iter().any(|disk| disk.is_rotten());
        if most <= least
            || rotten
            || self.plan.is_ever_alone(shard)
            || !(self.newest_roster..=self.plan.last_roster()).all(stays)
            || self.nodes.iter().any(|n| n.lost.is_some() || n.lie.is_some())
        {
            return;
        }
        let at = self.rng.range(least..most) as usize;
        // It may be of a suffix that the others went on without, and nobody has it.
        let here = disk.head(Version(at as u64 + 1));
        let (size, head) = self.checker.newest_committed(shard).expect("looked at above");
        let has = |other: &&Disk| !std::ptr::eq(*other, disk) && other.head(size) == Some(head);
        let elsewhere = elsewhere.iter().filter(|other| has(other));
        if !elsewhere.map(|other| other.head(Version(at as u64 + 1))).any(|other| other == here) {
            return;
        }
        let state = &mut self.nodes[node.index()];
        state.disk(shard).rot(at, &mut self.rng);
        self.hit(Fault::BitRot);
        self.tell(|| format!("a byte of entry {at} of shard {shard} rots at {node}"));
        let at = self.now + self.rng.range(50 * MS..900 * MS);
        self.at(at, Event::Scrub(node));
    }

    /// A running node looks for bit rot, and has it repaired.
    pub(super) fn scrub(&mut self, node: NodeId) {
        if self.nodes[node.index()].core.is_none() {
            // Its start looks.
            return;
        }
        let Some((shard, damaged)) = self.damage(node) else { return };
        self.see(Seen::RotFoundByScrub);
        if !self.repair(node, shard, damaged) {
            let at = self.now + 20 * MS;
            self.at(at, Event::Scrub(node));
        }
    }

    /// The first damage on a node's disks, found by checksums.
    pub(super) fn damage(&self, node: NodeId) -> Option<(usize, Damaged)> {
        let mut disks = self.nodes[node.index()].disks.iter();
        disks.find_map(|(shard, disk)| Some((*shard, disk.damage().err()?)))
    }

    /// Takes an entry from another replica in place of a damaged one. Returns whether any had it.
    pub(super) fn repair(&mut self, node: NodeId, shard: usize, damaged: Damaged) -> bool {
        let Damaged(at) = damaged;
        let mut disk = self.nodes[node.index()].disks.remove(&shard).expect("an own shard");
        let other = |other: &NodeId| self.nodes[other.index()].disks.get(&shard);
        let ever = self.plan.ever(shard);
        let mut others = ever.iter().filter_map(other);
        let repaired = others.any(|other| disk.mend(at, other));
        self.nodes[node.index()].disks.insert(shard, disk);
        if repaired {
            self.see(Seen::RotRepaired);
            self.tell(|| format!("{node} has entry {at} of shard {shard} again"));
        }
        repaired
    }

    // Lies.

    /// A disk begins to say that it syncs.
    pub(super) fn lie(&mut self, node: NodeId) {
        let alone = |shard: &usize| self.plan.is_ever_alone(*shard);
        let state = &mut self.nodes[node.index()];
        // What it lost must not be all that was left of a history that it pruned.
        let unfit = |disk: &Disk| disk.is_rotten() || disk.first() > Version::ZERO;
        let unfit = state.disks.values().any(unfit);
        let barred = state.lost.is_some() || state.lie.is_some() || unfit;
        if state.core.is_none() || barred || state.disks.keys().any(alone) {
            return;
        }
        let (promise, remembered) = (state.promise.clone(), state.remembered.clone());
        state.lie = Some(Lie { promise, remembered });
        state.disks.values_mut().for_each(|disk| disk.lie(true));
        self.tell(|| format!("the disk of {node} begins to lie"));
        let at = self.now + self.rng.range(10 * MS..300 * MS);
        self.at(at, Event::Honest(node));
    }

    /// It loses power with what it lied about, if nothing else is wrong: a node that lost what it acknowledged is as good
    /// as lost, so no more than the others may be needed. Otherwise it is honest again.
    pub(super) fn ends_lying(&mut self, node: NodeId) {
        if self.nodes[node.index()].lie.is_none() {
            return;
        }
        if self.healed || !self.all_is_well() {
            return self.be_honest(node);
        }
        self.liar = Some(node);
        self.crash(node);
        let state = &mut self.nodes[node.index()];
        if let Some(Lie { promise, remembered }) = state.lie.take() {
            (state.promise, state.remembered) = (promise, remembered);
        }
    }

    pub(super) fn be_honest(&mut self, node: NodeId) {
        let state = &mut self.nodes[node.index()];
        state.lie = None;
        state.disks.values_mut().for_each(|disk| disk.lie(false));
    }

    /// Whether all nodes are up and linked with each other, and go by one roster.
    fn all_is_well(&self) -> bool {
        let now = self.now;
        let present = self.present();
        let up = |node: &NodeId| {
            let state = &self.nodes[node.index()];
            state.core.is_some()
                && state.paused_until <= now
                && state.lost.is_none()
                && state.links.len() + 1 == present.len()
                && state.file == Some(self.newest_roster)
                && self.roster(*node) == self.newest_roster
        };
        present.iter().all(up)
            && self.cut.is_empty()
            && self
                .links
                .iter()
                .all(|((a, b), link)| link.up || !(present.contains(a) && present.contains(b)))
            && self.lanes.values().all(|lane| lane.held_until <= now)
            && self.nodes.iter().filter(|node| node.lie.is_some()).count() == 1
    }

    /// Who lost what it had acknowledged is in a view again: all of that is there, for the others had it.
    pub(super) fn invariant_lost_sync_is_made_good(&mut self, node: NodeId) -> Check {
        if self.liar.take_if(|liar| *liar == node).is_none() {
            return Ok(());
        }
        self.see(Seen::LostSyncSurvived);
        let state = &self.nodes[node.index()];
        for (shard, disk) in &state.disks {
            let step = state.core.as_ref().and_then(|c| c.shard_step(ShardIndex(*shard as u16)));
            if let Some((size, head)) = self.checker.newest_committed(*shard)
                && step == Some(ShardStep::Running)
                && disk.head(size) != Some(head)
            {
                let detail = format!("{node} is in a view without {size} entries of {shard}");
                return Err(Violation { invariant: "invariant_lost_sync_is_made_good", detail });
            }
        }
        Ok(())
    }

    /// Whether a node ends for what a disk lost.
    pub(super) fn detects_a_lie(&mut self, fatal: &Fatal) -> bool {
        let of_data =
            matches!(fatal, Fatal::LostData { .. } | Fatal::Rewind { .. } | Fatal::Divergence(_));
        if self.liar.is_some() && of_data {
            self.see(Seen::LostSyncDetected);
            self.detected = true;
        }
        self.detected
    }

    /// A lie was detected, and the operator is asked: all that was committed is still at one honest disk at least.
    pub(super) fn check_detected(&self) -> Check {
        for shard in 0..self.plan.shards.len() {
            let Some((size, head)) = self.checker.newest_committed(shard) else { continue };
            let disks = disks_of(&self.nodes, shard, &self.plan.ever(shard));
            if !disks.iter().any(|disk| disk.synced() >= size && disk.head(size) == Some(head)) {
                let detail = format!("shard {shard}: nobody has {size} committed entries");
                return Err(Violation { invariant: "invariant_honest_copy_is_kept", detail });
            }
        }
        Ok(())
    }
}
