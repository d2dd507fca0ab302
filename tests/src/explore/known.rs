//! What is known of a path beyond what any node knows, and what must hold on it.

use std::collections::{BTreeMap, BTreeSet};

use tradewind_ledger::{Entry, Version, ViewId};
use tradewind_site_protocol::{EntryBatch, NodeId, ReplicaStatus};

use super::disk::Disk;
use super::site::Site;
use crate::sim::{Check, broken};

/// What happened, as far as invariants speak of it.
#[derive(Clone, Default, Hash, Debug)]
pub(super) struct Known {
    /// By view of the entry and place: the ledger up to there, as some node had it.
    placed: BTreeMap<(u64, u64), u64>,
    /// By size: the ledger up to there, once it was committed.
    committed: BTreeMap<u64, u64>,
    /// Roster and members of each view that was installed.
    pub(super) views: BTreeMap<u64, (usize, Vec<NodeId>)>,
    /// Promises that a node knew to be on its disk.
    promised: BTreeSet<(u64, NodeId)>,
    /// By size: the ledger up to an entry that a client was told of.
    answered: BTreeMap<u64, u64>,
    /// Commands that were accepted and not answered, by the node that has them.
    pub(super) open: BTreeSet<(NodeId, u64)>,
}

impl Known {
    pub(super) fn promised(&mut self, view: ViewId, node: NodeId) {
        self.promised.insert((view.0, node));
    }

    /// One order: an entry of a view stands at one place, after the same entries, wherever it stands.
    pub(super) fn invariant_one_order(&mut self, disk: &Disk, entries: &EntryBatch) -> Check {
        let first = disk.size().0 - entries.len() as u64;
        for (at, entry) in (first..).zip(entries.iter()) {
            let entry = Entry::decode(entry).expect("a core makes entries");
            let head = disk.head(Version(at + 1));
            if *self.placed.entry((entry.view.0, at)).or_insert(head) != head {
                let detail = format!("entry {at}: {entry:?} is not what others have");
                return broken("invariant_one_order", detail);
            }
        }
        Ok(())
    }

    /// One successor: a view number stands for one membership, a majority of its roster and of each since the last one that
    /// there was a view of; and all members have promised it, on their disks.
    pub(super) fn invariant_one_successor_view(
        &mut self,
        site: &Site,
        view: ViewId,
        roster: usize,
        members: &[NodeId],
    ) -> Check {
        let invariant = "invariant_one_successor_view";
        let (views, promised) = (&self.views, &self.promised);
        if let Some(other) =
            views.get(&view.0).filter(|known| known.1 != members || known.0 != roster)
        {
            return broken(invariant, format!("view {view} is of {other:?}, and of {members:?}"));
        }
        let begun = views.range(..view.0).map(|(_, (roster, _))| *roster).max().unwrap_or(0);
        let lacking = (begun.min(roster)..=roster).find(|roster| {
            let all = site.members(*roster);
            members.iter().filter(|node| all.contains(node)).count() <= all.len() / 2
        });
        if let Some(lacking) = lacking.filter(|_| !views.contains_key(&view.0)) {
            let detail = format!("view {view} of {members:?} is no majority of roster {lacking}");
            return broken(invariant, detail);
        }
        if begun > roster {
            let detail = format!("view {view} is of roster {roster}, an earlier one of {begun}");
            return broken(invariant, detail);
        }
        if let Some(node) = members.iter().find(|node| !promised.contains(&(view.0, **node))) {
            return broken(invariant, format!("{node} has not promised view {view}"));
        }
        self.views.insert(view.0, (roster, members.to_vec()));
        Ok(())
    }

    /// What was acknowledged, or committed, is in every later view.
    pub(super) fn invariant_acknowledged_is_present(&self, view: ViewId, disk: &Disk) -> Check {
        let mut kept = self.answered.iter().chain(&self.committed);
        if let Some((size, _)) = kept.find(|(size, head)| disk.head(Version(**size)) != **head) {
            let detail = format!("view {view} begins without the first {size} entries");
            return broken("invariant_acknowledged_is_present", detail);
        }
        Ok(())
    }

    /// Committed means on disk at a majority of its roster, and nobody ever commits anything else.
    pub(super) fn invariant_committed_is_durable(
        &mut self,
        size: Version,
        head: u64,
        disks: &[&Disk],
    ) -> Check {
        let invariant = "invariant_committed_is_durable";
        if *self.committed.entry(size.0).or_insert(head) != head || head == 0 {
            return broken(invariant, format!("{size} entries are committed with two contents"));
        }
        on_a_majority(invariant, size, head, disks)
    }

    /// Acknowledged means on disk at a majority, at the moment of the answer.
    pub(super) fn invariant_acknowledged_is_durable(
        &mut self,
        version: Version,
        head: u64,
        disks: &[&Disk],
    ) -> Check {
        let size = version.next();
        self.answered.insert(size.0, head);
        on_a_majority("invariant_acknowledged_is_durable", size, head, disks)
    }

    /// Stable before delivered: what a node delivered of a sender, every member of the same view has received.
    pub(super) fn invariant_stable_before_delivered(running: &[(u64, ReplicaStatus)]) -> Check {
        let pairs = running.iter().flat_map(|one| running.iter().map(move |other| (one, other)));
        for ((_, one), (_, other)) in pairs.filter(|((view, _), (other, _))| view == other) {
            let mut counts = one.delivered_messages.iter().zip(&other.received);
            if let Some((delivered, received)) = counts.find(|(d, r)| d > r) {
                let detail = format!("{delivered} are delivered, a member received {received}");
                return broken("invariant_stable_before_delivered", detail);
            }
        }
        Ok(())
    }

    /// Nothing committed is cut off.
    pub(super) fn invariant_rewind_keeps_committed(&self, disk: &Disk, to: Version) -> Check {
        let gone = self.committed.range(to.0 + 1..);
        match gone.into_iter().find(|(size, head)| disk.head(Version(**size)) == **head) {
            None => Ok(()),
            Some((size, _)) => {
                let detail = format!("cut to {to}, {size} entries are committed");
                broken("invariant_rewind_keeps_committed", detail)
            }
        }
    }
}

fn on_a_majority(invariant: &'static str, size: Version, head: u64, disks: &[&Disk]) -> Check {
    let holding = disks.iter().filter(|disk| disk.keeps(size, head)).count();
    if holding > disks.len() / 2 {
        return Ok(());
    }
    broken(invariant, format!("size {size} is on {holding} of {} disks", disks.len()))
}
