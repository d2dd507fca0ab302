//! The invariants, each a function with a sentence, checked at every step or at the end of a run.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use tradewind_ledger::{
    Body, Checkpoint, Digest, Entry, Member, Policy, Replay, RequestId, SignedNote, Version, ViewId,
};
use tradewind_site_protocol::{
    Durability, EntryBatch, NodeId, ReplicaStatus, Roster, Seat, ShardConfig, ShardStep, Step,
};
use tradewind_store::Store;

use super::coverage::SHARD_STEPS;
use super::disk::{Disk, root_of};
use super::plan::Plan;
use crate::linear::History;

/// A broken invariant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The function that found it.
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.detail)
    }
}

pub(crate) type Check = Result<(), Violation>;

pub(crate) fn broken<T>(invariant: &'static str, detail: String) -> Result<T, Violation> {
    Err(Violation { invariant, detail })
}

/// What a client was told.
#[derive(Clone, Debug)]
struct Told {
    shard: usize,
    version: Version,
    durability: Durability,
    /// By node: how often it had crashed when it last certainly had the entry in memory; `None`: it never had.
    held_by: Vec<Option<u64>>,
}

/// An answer as the world sees it.
pub(crate) struct Acknowledged<'a> {
    pub(crate) shard: usize,
    pub(crate) request: RequestId,
    pub(crate) version: Version,
    pub(crate) durability: Durability,
    /// The view of the node that answers.
    pub(crate) view: ViewId,
    /// The disk of the node that answers, and those of all members.
    pub(crate) own: &'a Disk,
    pub(crate) disks: &'a [&'a Disk],
}

/// What is known of a run beyond what any node knows.
#[derive(Debug)]
pub(crate) struct Checker {
    /// By shard, view of the entry and place: the ledger up to there, as some node had it.
    placed: Vec<BTreeMap<(ViewId, u64), u64>>,
    /// By shard and size: the ledger up to there, once it was committed.
    committed: Vec<BTreeMap<Version, u64>>,
    /// Members of each view that was installed.
    views: BTreeMap<ViewId, Vec<NodeId>>,
    /// By view and node: how often that had crashed when it promised.
    promised: BTreeMap<(ViewId, NodeId), u64>,
    told: BTreeMap<RequestId, Told>,
    /// By shard and size: the root that was signed.
    signed: Vec<BTreeMap<Version, Digest>>,
    /// By roster and shard: whose signatures count; and who the members are.
    policies: Vec<Vec<Policy>>,
    rosters: Vec<Roster>,
    /// The roster of each view that was installed.
    roster_of: BTreeMap<ViewId, usize>,
    nodes: usize,
}

impl Checker {
    pub(crate) fn new(plan: &Plan) -> Self {
        let policy = |roster: &Roster, members: &[NodeId], shard: &ShardConfig| {
            let seats = roster.seats.iter().filter(|seat| members.contains(&seat.node));
            let member = |seat: &Seat| Member {
                name: plan.nodes[seat.node.index()].name.clone(),
                public_key: seat.public_key,
            };
            let members = seats.map(member).collect();
            Policy::majority(&shard.genesis.origin(), members).expect("keys are keys")
        };
        let policies = |roster: &Roster| {
            let shards = roster.shards.iter().zip(&plan.shards);
            shards.map(|(members, shard)| policy(roster, members, shard)).collect()
        };
        let shards = plan.shards.len();
        Self {
            placed: vec![BTreeMap::new(); shards],
            committed: vec![BTreeMap::new(); shards],
            views: BTreeMap::new(),
            promised: BTreeMap::new(),
            told: BTreeMap::new(),
            signed: vec![BTreeMap::new(); shards],
            policies: plan.rosters.iter().map(policies).collect(),
            rosters: plan.rosters.clone(),
            roster_of: BTreeMap::new(),
            nodes: plan.nodes.len(),
        }
    }

    /// One order: an entry of a view stands at the same place of the ledger wherever it stands, and all before it is
    /// the same, byte for byte. No gap: entries go on where that node's ledger ends.
    pub(crate) fn invariant_one_order(
        &mut self,
        shard: usize,
        disk: &Disk,
        first: Version,
        entries: &EntryBatch,
    ) -> Check {
        let invariant = "invariant_one_order";
        let held = disk.entries().len() - entries.len();
        if first.0 != held as u64 {
            let detail = format!("shard {shard}: entries from {first} after a ledger of {held}");
            return broken(invariant, detail);
        }
        for (at, entry) in (first.0..).zip(entries.iter()) {
            let entry = Entry::decode(entry).expect("a core makes entries");
            let head = disk.head(Version(at + 1)).expect("just appended");
            let known = *self.placed[shard].entry((entry.view, at)).or_insert(head);
            if known != head {
                let detail =
                    format!("shard {shard}, entry {at}: {entry:?} is not what others have");
                return broken(invariant, detail);
            }
        }
        Ok(())
    }

    /// How many entries of a shard are committed, as far as anybody said.
    pub(crate) fn committed(&self, shard: usize) -> Version {
        self.newest_committed(shard).map_or(Version::ZERO, |(size, _)| size)
    }

    /// That, and what these entries are.
    pub(crate) fn newest_committed(&self, shard: usize) -> Option<(Version, u64)> {
        self.committed[shard].last_key_value().map(|(size, head)| (*size, *head))
    }

    /// A view is installed only after it was accepted, and accepted only after it was promised (the leader's own acceptance
    /// may be seen together with what follows); who failed is never anything else.
    pub(crate) fn invariant_no_step_is_skipped(node: NodeId, from: Step, to: Step) -> Check {
        let skipped = match to {
            Step::Active => !matches!(from, Step::Accepted | Step::Promising),
            Step::Accepted => from != Step::Promising,
            _ => from == Step::Failed,
        };
        match skipped {
            true => broken(
                "invariant_no_step_is_skipped",
                format!("{node} goes from {from:?} to {to:?}"),
            ),
            false => Ok(()),
        }
    }

    /// Neither does a shard.
    pub(crate) fn invariant_no_shard_step_is_skipped(
        node: NodeId,
        from: ShardStep,
        to: ShardStep,
    ) -> Check {
        if SHARD_STEPS.contains(&(from, to)) {
            return Ok(());
        }
        let detail = format!("a shard of {node} goes from {from:?} to {to:?}");
        broken("invariant_no_step_is_skipped", detail)
    }

    /// Corruption is never served: what is read for a peer is what was written there.
    pub(crate) fn invariant_corruption_is_never_served(
        node: NodeId,
        disk: &Disk,
        first: Version,
        entries: &EntryBatch,
    ) -> Check {
        if disk.wrote(first, entries) {
            return Ok(());
        }
        let detail = format!("{node} gives damaged entries from {first} on to a peer");
        broken("invariant_corruption_is_never_served", detail)
    }

    /// One successor: all that install a view agree on its members, which are a majority of the nodes: of its roster, and
    /// if it is the first of this one, of each since the last that there was a view of.
    pub(crate) fn invariant_one_successor_view(
        &mut self,
        view: ViewId,
        roster: usize,
        members: &[NodeId],
    ) -> Check {
        let invariant = "invariant_one_successor_view";
        if let Some(known) = self.views.get(&view) {
            if known != members || self.roster_of[&view] != roster {
                let detail = format!("view {view} is of {known:?}, and of {members:?}");
                return broken(invariant, detail);
            }
            return Ok(());
        }
        let had = self.roster_of.values().copied().filter(|had| *had <= roster).max();
        for needed in had.unwrap_or(0)..=roster {
            if let Some(what) = self.lacks_majority(members, needed, had.unwrap_or(0)..=roster) {
                let detail = format!(
                    "view {view} of {members:?}, of roster {roster}, is no majority of {what} on roster {needed}"
                );
                return broken(invariant, detail);
            }
        }
        let newer = |(known, of): (&ViewId, &usize)| *known < view && *of > roster;
        if self.roster_of.iter().any(newer) {
            let detail = format!("view {view} is of roster {roster}, an earlier one of a later");
            return broken(invariant, detail);
        }
        self.roster_of.insert(view, roster);
        self.views.insert(view, members.to_vec());
        self.keep_in_mind(view);
        Ok(())
    }

    /// Of what these nodes should be a majority on a roster and are not, as those that they are on the last of some rosters:
    /// of the site, or of a shard whose members are not the same on all of these.
    fn lacks_majority(
        &self,
        nodes: &[NodeId],
        roster: usize,
        of: RangeInclusive<usize>,
    ) -> Option<String> {
        let seats = |roster: usize| self.rosters[roster].seats.iter();
        let shard = |shard: usize, roster: usize| -> Vec<&Seat> {
            let members = &self.rosters[roster].shards[shard];
            seats(roster).filter(|seat| members.contains(&seat.node)).collect()
        };
        let voices = seats(*of.end()).filter(|seat| nodes.contains(&seat.node));
        let voices: Vec<&Seat> = voices.collect();
        let has = |members: &[&Seat]| {
            members.iter().filter(|seat| voices.contains(seat)).count() > members.len() / 2
        };
        if !has(&seats(roster).collect::<Vec<_>>()) {
            return Some("the site".into());
        }
        let mut shards = 0..self.rosters[roster].shards.len();
        let lacks = |index: &usize| {
            let members = shard(*index, roster);
            of.clone().any(|other| shard(*index, other) != members) && !has(&members)
        };
        shards.find(lacks).map(|shard| format!("shard {shard}"))
    }

    /// A node promises a view: what it has in memory then, the view begins with.
    pub(crate) fn promised(&mut self, view: ViewId, node: NodeId, crashes: u64) {
        self.promised.insert((view, node), crashes);
    }

    /// Who has in memory what was acknowledged at level memory, now that this view begins.
    fn keep_in_mind(&mut self, view: ViewId) {
        for told in self.told.values_mut() {
            let inside = |node: &&NodeId| self.views[&view].contains(node);
            let members = &self.rosters[self.roster_of[&view]].shards[told.shard];
            let here: Vec<NodeId> = members.iter().filter(inside).copied().collect();
            if here.len() <= members.len() / 2 {
                continue;
            }
            let then = |node: &NodeId| self.promised.get(&(view, *node)).copied();
            let kept = here.iter().any(|n| then(n).is_some() && told.held_by[n.index()] == then(n));
            told.held_by.fill(None);
            for node in here.iter().filter(|_| kept) {
                told.held_by[node.index()] = then(node);
            }
        }
    }

    /// Nothing committed is cut off.
    pub(crate) fn invariant_rewind_keeps_committed(
        &self,
        shard: usize,
        disk: &Disk,
        to: Version,
    ) -> Check {
        let kept = self.committed[shard].iter().rev();
        let lost = kept
            .take_while(|(size, _)| **size > to)
            .find(|(size, head)| disk.head(**size) == Some(**head));
        match lost {
            None => Ok(()),
            Some((size, _)) => {
                let detail = format!("shard {shard}: cut to {to}, {size} entries are committed");
                broken("invariant_rewind_keeps_committed", detail)
            }
        }
    }

    /// What is kept of a snapshot is what the ledger commits to.
    pub(crate) fn invariant_corruption_is_not_kept(
        committed: bool,
        detail: impl FnOnce() -> String,
    ) -> Check {
        match committed {
            true => Ok(()),
            false => broken("invariant_corruption_is_not_kept", detail()),
        }
    }

    /// Stable before delivered: what a node delivered of a sender, every member of the same view has received.
    pub(crate) fn invariant_stable_before_delivered(
        shard: usize,
        statuses: &[(u64, ReplicaStatus)],
    ) -> Check {
        for (view, one) in statuses {
            for (_, other) in statuses.iter().filter(|(v, _)| v == view) {
                let pairs = one.delivered_messages.iter().zip(&other.received);
                if let Some((delivered, received)) = pairs.into_iter().find(|(d, r)| d > r) {
                    let detail = format!(
                        "shard {shard}: {delivered} messages delivered, a member received {received}"
                    );
                    return broken("invariant_stable_before_delivered", detail);
                }
            }
        }
        Ok(())
    }

    /// Held before ordered: the bodies that a node may name in its messages, every member of the same view holds.
    pub(crate) fn invariant_held_before_ordered(
        shard: usize,
        statuses: &[(u64, ReplicaStatus)],
    ) -> Check {
        for (view, one) in statuses {
            for (_, other) in statuses.iter().filter(|(v, _)| v == view) {
                let pairs = one.bodies_named.iter().zip(&other.bodies_held);
                if let Some((named, held)) = pairs.into_iter().find(|(named, held)| named > held) {
                    let detail =
                        format!("shard {shard}: {named} bodies are ordered, a member holds {held}");
                    return broken("invariant_held_before_ordered", detail);
                }
            }
        }
        Ok(())
    }

    /// Committed means durable at a majority: of the disks themselves, not of what is told about them. And it is for
    /// ever: nobody commits anything else.
    pub(crate) fn invariant_committed_is_durable(
        &mut self,
        shard: usize,
        size: Version,
        own: &Disk,
        disks: &[&Disk],
    ) -> Check {
        let Some(head) = own.head(size) else {
            let detail = format!("shard {shard}: size {size} is committed by who does not have it");
            return broken("invariant_committed_is_durable", detail);
        };
        if *self.committed[shard].entry(size).or_insert(head) != head {
            let detail = format!("shard {shard}: size {size} is committed with two contents");
            return broken("invariant_committed_is_durable", detail);
        }
        Self::is_durable("invariant_committed_is_durable", (shard, size), head, disks)
    }

    fn is_durable(
        invariant: &'static str,
        (shard, size): (usize, Version),
        head: u64,
        disks: &[&Disk],
    ) -> Check {
        let holding = disks.iter().filter(|disk| disk.keeps(size, head)).count();
        if holding > disks.len() / 2 {
            return Ok(());
        }
        let detail = format!("shard {shard}: size {size} is on {holding} of {} disks", disks.len());
        broken(invariant, detail)
    }

    /// Acknowledged at level disk means durable at a majority, at the moment of the answer. A repeated answer names
    /// the same entry as the first.
    pub(crate) fn invariant_acknowledged_is_durable(&mut self, told: &Acknowledged<'_>) -> Check {
        let Acknowledged { shard, request, version, durability, view, own, disks } = *told;
        if durability == Durability::Disk {
            let head = own.head(version.next()).unwrap_or(0);
            let of = (shard, version.next());
            Self::is_durable("invariant_acknowledged_is_durable", of, head, disks)?;
        }
        // A view that began since may have begun without it: what a stopped view still answers is not watched.
        let newest = self.views.keys().next_back() == Some(&view);
        let then = |node: u16| self.promised.get(&(view, NodeId(node))).copied().filter(|_| newest);
        let held_by = (0..self.nodes as u16).map(then).collect();
        match self.told.get(&request) {
            Some(first) if first.version != version && first.durability == Durability::Disk => {
                let detail = format!("{request}: first told {}, then {version}", first.version);
                broken("invariant_each_request_once", detail)
            }
            Some(first) if first.durability == Durability::Disk => Ok(()),
            _ => {
                self.told.insert(request, Told { shard, version, durability, held_by });
                Ok(())
            }
        }
    }

    /// A checkpoint is signed only for a prefix that is durable here and at a majority, with the root of that
    /// prefix, and no size is ever signed with two roots.
    pub(crate) fn invariant_signed_is_durable(
        &mut self,
        shard: usize,
        checkpoint: &Checkpoint,
        own: &Disk,
        disks: &[&Disk],
    ) -> Check {
        let size = checkpoint.size;
        let invariant = "invariant_signed_is_durable";
        if own.synced() < size {
            let detail = format!("shard {shard}: size {size} is signed, {} synced", own.synced());
            return broken(invariant, detail);
        }
        Self::is_durable(invariant, (shard, size), own.head(size).unwrap_or(0), disks)?;
        if own.root(size) != checkpoint.root {
            return broken(invariant, format!("shard {shard}: the root of size {size} is another"));
        }
        match self.signed[shard].insert(size, checkpoint.root) {
            Some(other) if other != checkpoint.root => {
                broken(invariant, format!("shard {shard}: size {size} is signed with two roots"))
            }
            _ => Ok(()),
        }
    }

    /// A checkpoint that a node hands out is signed by a majority of the shard's members on the roster of its view.
    pub(crate) fn invariant_checkpoint_has_majority(
        &self,
        (shard, roster): (usize, usize),
        size: Version,
        note: &SignedNote,
    ) -> Check {
        let text = note.to_string();
        let parsed = SignedNote::parse(text.as_bytes()).map_err(|error| error.to_string());
        let verified = parsed.and_then(|note| {
            self.policies[roster][shard].verify(&note).map_err(|error| error.to_string())
        });
        match verified {
            Ok(verified)
                if verified.checkpoint.size == size
                    && self.signed[shard].get(&size) == Some(&verified.checkpoint.root) =>
            {
                Ok(())
            }
            other => {
                broken("invariant_checkpoint_has_majority", format!("shard {shard}: {other:?}"))
            }
        }
    }

    /// At the end: the replicas hold the same ledger, which replays from its genesis, cut into the same segments; all that
    /// was ever committed is in it.
    pub(crate) fn invariant_segments_identical(&self, shard: usize, disks: &[&Disk]) -> Check {
        let invariant = "invariant_segments_identical";
        let order = disks[0].entries();
        for disk in disks {
            let same = disk.entries() == order;
            if !same || disk.synced().0 != order.len() as u64 {
                let sizes: Vec<_> = disks.iter().map(|disk| disk.entries().len()).collect();
                return broken(invariant, format!("shard {shard}: sizes {sizes:?}"));
            }
        }
        let (mut replay, mut store) = (Replay::new(), Store::new());
        for (size, head) in &self.committed[shard] {
            if disks[0].head(*size) != Some(*head) {
                let detail = format!("shard {shard}: {size} entries were committed and are gone");
                return broken(invariant, detail);
            }
        }
        for bytes in order {
            let version = replay.size();
            let entry = match replay.push(bytes) {
                Ok(entry) => entry,
                Err(error) => return broken(invariant, format!("shard {shard}: {error}")),
            };
            if let Err(error) = store.apply(version, &entry) {
                return broken(invariant, format!("shard {shard}: {error}"));
            }
        }
        Ok(())
    }

    /// At the end: what was acknowledged is there. At level disk always; at level memory unless a view began without
    /// any of those that had it and did not crash since.
    pub(crate) fn invariant_acknowledged_is_present(
        &self,
        crashes: &[u64],
        ledgers: &[&[Vec<u8>]],
    ) -> Check {
        for (request, told) in &self.told {
            let survivor = |(then, now): (&Option<u64>, &u64)| *then == Some(*now);
            let kept = told.durability == Durability::Disk
                || told.held_by.iter().zip(crashes).any(survivor);
            let entry = ledgers[told.shard].get(told.version.0 as usize);
            let found =
                entry.and_then(|bytes| Entry::decode(bytes).ok()).and_then(|e| request_of(&e));
            if kept && found != Some(*request) {
                let detail = format!(
                    "{request} was acknowledged as entry {} of shard {}, where {found:?} stands",
                    told.version, told.shard
                );
                return broken("invariant_acknowledged_is_present", detail);
            }
        }
        Ok(())
    }

    /// At the end: each request made at most one entry.
    pub(crate) fn invariant_each_request_once(ledgers: &[&[Vec<u8>]]) -> Check {
        for (shard, order) in ledgers.iter().enumerate() {
            let mut seen = BTreeMap::new();
            for (at, bytes) in order.iter().enumerate() {
                let entry = Entry::decode(bytes).expect("it replays");
                let Some(request) = request_of(&entry) else { continue };
                // The planted bug changes the session's low bits; a client's number is its own.
                let key = (request.session.0 >> 32, request.number);
                if let Some(first) = seen.insert(key, at) {
                    let detail = format!("shard {shard}: {request} made entries {first} and {at}");
                    return broken("invariant_each_request_once", detail);
                }
            }
        }
        Ok(())
    }

    /// At the end: what clients were told of a key could have been told by a single copy of it, each call at one moment
    /// between its first submission and its answer.
    pub(crate) fn invariant_linearizable(shard: usize, history: &History) -> Check {
        let found = history.check().map_err(|violation| format!("shard {shard}: {violation}"));
        found.or_else(|detail| broken("invariant_linearizable", detail))
    }

    /// At the end: signed sizes are prefixes of the ledger that there is.
    pub(crate) fn invariant_signed_is_present(&self, ledgers: &[&[Vec<u8>]]) -> Check {
        for (shard, signed) in self.signed.iter().enumerate() {
            // Only the newest: it covers all before.
            let Some((size, root)) = signed.last_key_value() else { continue };
            let there = ledgers[shard].get(..size.0 as usize).map(root_of);
            if there != Some(*root) {
                return broken(
                    "invariant_signed_is_present",
                    format!("shard {shard}: size {size} is gone"),
                );
            }
        }
        Ok(())
    }

    /// While nothing goes wrong, letting a node in takes no longer than what may be under way needs, whatever the size of
    /// the state: it learned that before.
    pub(crate) fn invariant_join_pause_is_bounded(pause_us: u64, bound_us: u64) -> Check {
        if pause_us <= bound_us {
            return Ok(());
        }
        let detail = format!("a node was let in within {pause_us} us, {bound_us} are allowed");
        broken("invariant_join_pause_is_bounded", detail)
    }

    /// After the faults heal, everybody is in one view, every request is answered, everything is on every disk, and
    /// the newest mark has its checkpoint.
    pub(crate) fn invariant_progress_resumes(detail: Option<String>) -> Check {
        detail.map_or(Ok(()), |detail| broken("invariant_progress_resumes", detail))
    }
}

fn request_of(entry: &Entry) -> Option<RequestId> {
    match &entry.body {
        Body::Put(write) | Body::Delete(write) => Some(write.request),
        Body::Txn(txn) => Some(txn.request),
        Body::Seal(_) | Body::View(_) | Body::Snapshot(_) | Body::Genesis(_) => None,
    }
}
