//! Nodes that are added, removed and replaced while the site runs: each change is a topology file that comes to one node after the
//! other, which is restarted with it. Changes may overtake each other, and be under way when something goes wrong.

use std::mem::take;

use tradewind_ledger::{Digest, Signer};
use tradewind_site_protocol::{NodeId, Recollection, Roster, Seat};

use super::coverage::Seen;
use super::disk::Disk;
use super::plan::{MS, Plan, info, signer};
use super::rng::Rng;
use super::snapshots::Snapshots;
use super::world::{Event, World};

impl Plan {
    /// The same, and nodes are added, removed and replaced meanwhile: each time one.
    pub(crate) fn with_changes(mut self, seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x0052_6f73_7465_7273);
        for change in 1..=rng.range(1..4) as u8 {
            let before = self.rosters.last().expect("the founders'");
            let mut roster = Roster { digest: Digest([7 + change; 32]), ..before.clone() };
            let leaves = *rng.pick(&roster.seats);
            let has_first_key = self.nodes[leaves.node.index()].public_key == leaves.public_key;
            if rng.percent(60) && self.may_lose(leaves) {
                if rng.percent(40) && has_first_key {
                    self.signers.push(signer(100 + leaves.node.index()));
                    let place = roster.seats.iter_mut().find(|seat| **seat == leaves);
                    let key = self.signers.last().expect("made above").public_key();
                    place.expect("picked from them").public_key = key;
                } else {
                    remove(&mut roster, leaves.node, &mut rng);
                }
            } else {
                let index = self.nodes.len();
                let signer = signer(index);
                self.nodes.push(info((index, &signer)));
                self.signers.push(signer);
                let (node, public_key) = (NodeId(index as u16), self.nodes[index].public_key);
                roster.seats.push(Seat { node, public_key });
                let joins = roster.shards.iter_mut().filter(|_| rng.percent(75));
                joins.for_each(|shard| shard.push(node));
            }
            self.rosters.push(roster);
            self.changes_at.push(rng.range(20 * MS..self.faults_until));
        }
        self.changes_at.sort_unstable();
        self
    }

    /// All nodes that there ever are.
    fn all(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u16).map(NodeId)
    }

    /// Whether those who stay without this one are majorities of all that there were before, so that each roster can be
    /// begun from any earlier one: a change may come before the last one took place.
    fn may_lose(&self, leaves: Seat) -> bool {
        let last = self.rosters.last().expect("the founders'");
        let stays = |seat: &&Seat| **seat != leaves && last.seats.contains(*seat);
        self.rosters.iter().all(|then| {
            let seats = &then.seats;
            let shards = then.shards.iter().zip(&last.shards).all(|(then, now)| {
                let members = seats.iter().filter(|seat| then.contains(&seat.node));
                let stay = members.filter(|seat| now.contains(&seat.node)).filter(stays);
                stay.count() > then.len() / 2
            });
            shards && seats.iter().filter(stays).count() > seats.len() / 2
        })
    }
}

/// Takes a node off a roster; sometimes another takes its place in a shard.
fn remove(roster: &mut Roster, removed: NodeId, rng: &mut Rng) {
    roster.seats.retain(|seat| seat.node != removed);
    let ids: Vec<NodeId> = roster.seats.iter().map(|seat| seat.node).collect();
    for shard in &mut roster.shards {
        let others: Vec<_> = ids.iter().filter(|node| !shard.contains(node)).collect();
        let other = (!others.is_empty() && rng.percent(50)).then(|| **rng.pick(&others));
        let leaves = shard.contains(&removed);
        shard.retain(|node| *node != removed);
        shard.extend(other.filter(|_| leaves));
        shard.sort_unstable();
    }
}

impl World<'_> {
    /// Somebody begins to give the nodes a file that ends with this roster. Who was removed does not get it.
    pub(super) fn change(&mut self, roster: usize) {
        self.tell(|| format!("a topology file with roster {roster} is given to the nodes"));
        self.see(Seen::Change);
        for node in self.all() {
            if self.plan.is_seated(node, roster) {
                let at = self.now + self.rng.range(MS..400 * MS);
                self.at(at, Event::File(node, roster));
            }
        }
    }

    pub(super) fn give_file(&mut self, node: NodeId, roster: usize) {
        if self.liar.is_some() {
            // Nothing else happens meanwhile.
            return self.at(self.now + 20 * MS, Event::File(node, roster));
        }
        let before = self.nodes[node.index()].file;
        if before >= Some(roster) {
            return;
        }
        // Who has none yet was not there before.
        let Some(before) = before else {
            self.nodes[node.index()].file = Some(roster);
            return self.at(self.now, Event::Restart(node));
        };
        let is_other = |node: &NodeId| self.plan.key(*node, before) != self.plan.key(*node, roster);
        let mut disks = self.nodes.iter().flat_map(|node| node.disks.values());
        if is_other(&node) && disks.any(Disk::is_rotten) {
            // What is damaged elsewhere may be whole here only: that is repaired first.
            return self.at(self.now + 20 * MS, Event::File(node, roster));
        }
        self.crash(node);
        let others: Vec<NodeId> = self.all().filter(is_other).collect();
        let state = &mut self.nodes[node.index()];
        state.file = Some(roster);
        // Of a new key nothing is remembered.
        let lost = state.lost.as_mut().map(|lost| &mut lost.remembered);
        for remembered in [&mut state.remembered].into_iter().chain(lost) {
            for (known, other) in remembered.iter_mut().zip(self.plan.all()) {
                if others.contains(&other) {
                    *known = Recollection::default();
                }
            }
        }
        if others.contains(&node) {
            self.replace(node);
        }
    }

    /// A node lost its disk, and begins anew under the key that its file tells of.
    fn replace(&mut self, node: NodeId) {
        self.see(Seen::Replaced);
        let state = &mut self.nodes[node.index()];
        let disks = state.lost.take().map_or_else(|| take(&mut state.disks), |lost| lost.disks);
        state.disks = disks.keys().map(|shard| (*shard, Disk::default())).collect();
        state.former = disks;
        (state.promise, state.remembered) = Default::default();
        state.snapshots = Snapshots::default();
        self.tell(|| format!("{node} begins anew under another key"));
    }

    /// In the end all have the last file.
    pub(super) fn complete_changes(&mut self) {
        let last = self.plan.last_roster();
        for node in self.on_last_roster() {
            self.give_file(node, last);
        }
    }

    /// Whether all nodes know that the last roster is in force: then a majority of it is enough.
    pub(super) fn changes_are_complete(&self) -> bool {
        let last = self.plan.last_roster();
        let knows = |node: &NodeId| self.nodes[node.index()].promise.established.index() == last;
        last == 0 || self.on_last_roster().iter().all(knows)
    }

    /// A view of this roster is installed.
    pub(super) fn begins(&mut self, roster: usize) {
        if self.newest_roster < roster {
            self.newest_roster = roster;
            self.see(Seen::RosterBegun);
        }
    }

    /// A node was told that it was removed, and ends.
    pub(super) fn dismiss(&mut self, node: NodeId) {
        self.crash(node);
        self.see(Seen::Dismissed);
        self.nodes[node.index()].dismissed = true;
        self.liar.take_if(|liar| *liar == node);
        self.tell(|| format!("{node} was removed"));
    }

    /// The roster of the last view that a node installed.
    pub(super) fn roster(&self, node: NodeId) -> usize {
        let core = self.nodes[node.index()].core.as_ref();
        core.map_or(0, |core| core.roster().index())
    }

    fn all(&self) -> impl Iterator<Item = NodeId> + use<> {
        self.plan.all()
    }

    /// Those that were started by now and not told that they were removed.
    pub(super) fn present(&self) -> Vec<NodeId> {
        let present = |node: &NodeId| {
            let state = &self.nodes[node.index()];
            state.file.is_some() && !state.dismissed
        };
        self.all().filter(present).collect()
    }

    /// Those that are nodes of the site in the end.
    pub(super) fn on_last_roster(&self) -> Vec<NodeId> {
        let last = self.plan.last_roster();
        self.all().filter(|node| self.plan.is_seated(*node, last)).collect()
    }

    /// Nodes are linked only if each has heard of the other, under its key.
    pub(super) fn know_each_other(&self, a: NodeId, b: NodeId) -> bool {
        let [Some(one), Some(other)] = [a, b].map(|node| self.nodes[node.index()].file) else {
            return false;
        };
        let same = |node| {
            let by = self.plan.key(node, one);
            by.is_some() && by == self.plan.key(node, other)
        };
        same(a) && same(b)
    }
}
