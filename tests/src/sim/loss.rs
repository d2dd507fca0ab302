//! A node that loses its disk and is started again under its old identity, until somebody finds the disk.

use std::collections::BTreeMap;

use tradewind_ledger::ViewId;
use tradewind_site_protocol::{NodeId, Promise, Recollection};

use super::check::{Check, Violation};
use super::coverage::{Fault, Seen};
use super::disk::Disk;
use super::snapshots::Snapshots;
use super::world::World;

/// A disk that is in nobody's machine for now.
pub(super) struct Lost {
    pub(super) disks: BTreeMap<usize, Disk>,
    promise: Promise,
    pub(super) remembered: Vec<Recollection>,
    snapshots: Snapshots,
}

impl World<'_> {
    /// A node crashes, and comes back with an empty disk. Nothing happens unless all others that may yet be in a view have
    /// written down that they know it: those who do not cannot tell.
    pub(super) fn lose_disk(&mut self, node: NodeId) {
        let known = |other: usize| {
            let of = self.nodes[other].remembered.get(node.index());
            let to_come = self.newest_roster..=self.plan.last_roster();
            other == node.index()
                || of.is_some_and(|known| known.view > ViewId(0))
                || !to_come.into_iter().any(|r| self.plan.is_seated(NodeId(other as u16), r))
        };
        // What is damaged elsewhere may be whole here only.
        let mut disks = self.nodes.iter().flat_map(|node| node.disks.values());
        let rotten = disks.any(Disk::is_rotten);
        let state = &self.nodes[node.index()];
        if state.core.is_none()
            || rotten
            || state.lost.is_some()
            || !(0..self.nodes.len()).all(known)
        {
            return;
        }
        self.crash(node);
        self.hit(Fault::LostDisk);
        self.tell(|| format!("{node} has lost its disk"));
        let state = &mut self.nodes[node.index()];
        let empty = state.disks.keys().map(|shard| (*shard, Disk::default())).collect();
        state.lost = Some(Lost {
            disks: std::mem::replace(&mut state.disks, empty),
            promise: std::mem::take(&mut state.promise),
            remembered: std::mem::take(&mut state.remembered),
            snapshots: std::mem::take(&mut state.snapshots),
        });
    }

    /// The others refused it: it gets its own disk back.
    pub(super) fn find_disk(&mut self, node: NodeId) {
        self.crash(node);
        let state = &mut self.nodes[node.index()];
        if let Some(Lost { disks, promise, remembered, snapshots }) = state.lost.take() {
            (state.disks, state.promise, state.remembered) = (disks, promise, remembered);
            state.snapshots = snapshots;
            self.see(Seen::LostDiskRefused);
            self.tell(|| format!("{node} has its own disk again"));
        }
    }

    /// Who lost its disk takes part in no view: what it promised and acknowledged does not count any more.
    pub(super) fn invariant_lost_disk_has_no_voice(&self, node: NodeId) -> Check {
        match self.nodes[node.index()].lost {
            None => Ok(()),
            Some(_) => Err(Violation {
                invariant: "invariant_lost_disk_has_no_voice",
                detail: format!("{node} installs a view with an empty disk"),
            }),
        }
    }
}
