//! The invariants, each a function with a sentence, checked at every step or at the end of a run.

use std::collections::BTreeMap;
use std::fmt;

use tradewind_ledger::{
    Body, Checkpoint, Digest, Entry, Policy, Replay, RequestId, SignedNote, Version,
};
use tradewind_site_protocol::{Durability, EntryBatch, ReplicaStatus};
use tradewind_store::Store;

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

fn broken<T>(invariant: &'static str, detail: String) -> Result<T, Violation> {
    Err(Violation { invariant, detail })
}

/// What a client was told.
#[derive(Clone, Debug)]
struct Told {
    shard: usize,
    version: Version,
    durability: Durability,
    /// By node: how often it had crashed by then; `None` if it was down or is no member.
    crashes: Vec<Option<u64>>,
}

/// What is known of a run beyond what any node knows.
#[derive(Debug)]
pub(crate) struct Checker {
    /// By shard: the entries that some node holds, in the order of the ledger.
    order: Vec<Vec<Vec<u8>>>,
    told: BTreeMap<RequestId, Told>,
    /// By shard and size: the root that was signed.
    signed: Vec<BTreeMap<Version, Digest>>,
    policies: Vec<Policy>,
}

impl Checker {
    pub(crate) fn new(plan: &Plan) -> Self {
        let policy = |shard: &tradewind_site_protocol::ShardConfig| {
            Policy::of_genesis(&shard.genesis).expect("keys are keys")
        };
        Self {
            order: vec![Vec::new(); plan.shards.len()],
            told: BTreeMap::new(),
            signed: vec![BTreeMap::new(); plan.shards.len()],
            policies: plan.shards.iter().map(policy).collect(),
        }
    }

    /// One order: what any node delivers at a place of the ledger is what every other delivers there, byte for byte.
    /// No gap: it goes on where that node's ledger ends.
    pub(crate) fn invariant_one_order(
        &mut self,
        shard: usize,
        held: usize,
        first: Version,
        entries: &EntryBatch,
    ) -> Check {
        if first.0 != held as u64 {
            let detail = format!("shard {shard}: entries from {first} after a ledger of {held}");
            return broken("invariant_one_order", detail);
        }
        let order = &mut self.order[shard];
        for (at, entry) in (held..).zip(entries.iter()) {
            match order.get(at) {
                Some(known) if known == entry => {}
                Some(known) => {
                    let (known, entry) = (Entry::decode(known), Entry::decode(entry));
                    let detail = format!("shard {shard}, entry {at}: {known:?} and {entry:?}");
                    return broken("invariant_one_order", detail);
                }
                None => order.push(entry.to_vec()),
            }
        }
        Ok(())
    }

    /// After a crash, places that nobody holds any more are free again.
    pub(crate) fn forget_lost(&mut self, shard: usize, longest: usize) {
        self.order[shard].truncate(longest);
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

    /// Committed means durable at a majority: of the disks themselves, not of what is told about them.
    pub(crate) fn invariant_committed_is_durable(
        shard: usize,
        size: Version,
        disks: &[&Disk],
    ) -> Check {
        let holding = disks.iter().filter(|disk| disk.synced() >= size).count();
        if holding > disks.len() / 2 {
            return Ok(());
        }
        let detail = format!("shard {shard}: size {size} is on {holding} of {} disks", disks.len());
        broken("invariant_committed_is_durable", detail)
    }

    /// Acknowledged at level disk means durable at a majority, at the moment of the answer. A repeated answer names
    /// the same entry as the first.
    pub(crate) fn invariant_acknowledged_is_durable(
        &mut self,
        (shard, request): (usize, RequestId),
        version: Version,
        durability: Durability,
        disks: &[&Disk],
        crashes: Vec<Option<u64>>,
    ) -> Check {
        if durability == Durability::Disk {
            Self::invariant_committed_is_durable(shard, version.next(), disks).map_err(
                |violation| {
                    let detail = format!("{request}: {}", violation.detail);
                    Violation { invariant: "invariant_acknowledged_is_durable", detail }
                },
            )?;
        }
        let told = Told { shard, version, durability, crashes };
        match self.told.get(&request) {
            Some(first) if first.version != version => {
                let detail = format!("{request}: first told {}, then {version}", first.version);
                broken("invariant_each_request_once", detail)
            }
            Some(first) if first.durability == Durability::Disk => Ok(()),
            _ => {
                self.told.insert(request, told);
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
        Self::invariant_committed_is_durable(shard, size, disks)
            .map_err(|violation| Violation { invariant, ..violation })?;
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

    /// A checkpoint that a node hands out verifies under the policy of the ledger's genesis.
    pub(crate) fn invariant_checkpoint_has_majority(
        &self,
        shard: usize,
        size: Version,
        note: &SignedNote,
    ) -> Check {
        let text = note.to_string();
        let parsed = SignedNote::parse(text.as_bytes()).map_err(|error| error.to_string());
        let verified = parsed
            .and_then(|note| self.policies[shard].verify(&note).map_err(|error| error.to_string()));
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

    /// At the end: the replicas hold the same ledger, which replays from its genesis, cut into the same segments.
    pub(crate) fn invariant_segments_identical(&self, shard: usize, disks: &[&Disk]) -> Check {
        let invariant = "invariant_segments_identical";
        for disk in disks {
            let same = disk.entries() == self.order[shard].as_slice();
            if !same || disk.synced().0 != self.order[shard].len() as u64 {
                let sizes: Vec<_> = disks.iter().map(|disk| disk.entries().len()).collect();
                return broken(invariant, format!("shard {shard}: sizes {sizes:?}"));
            }
        }
        let (mut replay, mut store) = (Replay::new(), Store::new());
        for bytes in &self.order[shard] {
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

    /// At the end: what was acknowledged is there. At level disk always; at level memory unless every member that
    /// was up at the answer crashed since.
    pub(crate) fn invariant_acknowledged_is_present(&self, crashes: &[u64]) -> Check {
        for (request, told) in &self.told {
            let survivor = |(then, now): (&Option<u64>, &u64)| *then == Some(*now);
            let kept = told.durability == Durability::Disk
                || told.crashes.iter().zip(crashes).any(survivor);
            let entry = self.order[told.shard].get(told.version.0 as usize);
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
    pub(crate) fn invariant_each_request_once(&self) -> Check {
        for (shard, order) in self.order.iter().enumerate() {
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
    pub(crate) fn invariant_signed_is_present(&self) -> Check {
        for (shard, signed) in self.signed.iter().enumerate() {
            // Only the newest: it covers all before.
            let Some((size, root)) = signed.last_key_value() else { continue };
            let there = self.order[shard].get(..size.0 as usize).map(root_of);
            if there != Some(*root) {
                return broken(
                    "invariant_signed_is_present",
                    format!("shard {shard}: size {size} is gone"),
                );
            }
        }
        Ok(())
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
        Body::Seal(_) | Body::View(_) | Body::Genesis(_) => None,
    }
}
