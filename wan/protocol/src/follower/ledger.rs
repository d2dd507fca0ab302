//! What a follower knows of one ledger.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use tradewind_ledger::entry::Genesis;
use tradewind_ledger::ids::{Digest, Hlc, LedgerId, Lineage, Version};
use tradewind_ledger::note::{Policy, SignedNote, VerifierKeyError};
use tradewind_ledger::replay::Replay;

use super::{Local, SessionId};
use crate::admit::{self, Admitted, Refusal, admit};
use crate::claim::{Claim, Head, Link};
use crate::evidence::Evidence;
use crate::time::Instant;
use crate::wire::{Batch, Frontier, Position};

/// A ledger as it was found on disk, or an empty one.
#[derive(Clone, Debug)]
pub struct LedgerConfig {
    /// What the topology says that it begins with; gives its name, lineage and first keys.
    pub genesis: Genesis,
    /// The state after its durable entries.
    pub replay: Replay,
    /// Whether evidence of a fork lies beside it: then it is not followed.
    pub is_halted: bool,
}

/// Verified entries that wait for detached values.
#[derive(Debug)]
struct Pending {
    admitted: Box<Admitted>,
    missing: BTreeMap<Digest, u64>,
}

/// Entries on their way to the disk, and who is to be credited for them.
#[derive(Debug)]
struct Committing {
    end: Version,
    bytes: u64,
    session: SessionId,
}

#[derive(Debug)]
pub(super) struct Ledger {
    genesis: Genesis,
    pub(super) lineage: Lineage,
    replay: Replay,
    /// Leads from the verified size to a signed note; `None` after a start, until a parent confirms.
    claim: Option<Claim>,
    /// Batches that came before their turn, by first version.
    queue: BTreeMap<Version, Batch>,
    pending: VecDeque<Pending>,
    committing: VecDeque<Committing>,
    durable: Version,
    hlc: Hlc,
    /// The parent said that its head of this size was up to date then; it is not durable here yet.
    awaited: Option<(Version, Instant)>,
    pub(super) is_halted: bool,
    /// Whether the shell takes a snapshot of it.
    pub(super) is_taking: bool,
    pub(super) refusals: u64,
}

impl Ledger {
    pub(super) fn new(config: LedgerConfig) -> Self {
        let lineage = config.genesis.lineage().expect("the topology's names and keys are valid");
        Self {
            lineage,
            claim: None,
            queue: BTreeMap::new(),
            pending: VecDeque::new(),
            committing: VecDeque::new(),
            durable: config.replay.size(),
            hlc: config.replay.last_hlc(),
            awaited: None,
            is_halted: config.is_halted,
            is_taking: false,
            refusals: 0,
            genesis: config.genesis,
            replay: config.replay,
        }
    }

    pub(super) fn id(&self) -> &LedgerId {
        &self.genesis.ledger
    }

    pub(super) fn position(&self) -> Position {
        let (ledger, lineage) = (self.id().clone(), self.lineage);
        Position { ledger, lineage, size: self.replay.size(), root: self.replay.root() }
    }

    pub(super) fn frontier(&self) -> Frontier {
        let verified = self.replay.size();
        let received = self.queue.values().next_back().map_or(verified, Batch::end);
        let (ledger, durable, hlc) = (self.id().clone(), self.durable, self.hlc);
        Frontier { ledger, received, verified, durable, hlc }
    }

    pub(super) fn policy(&self) -> Result<Policy, VerifierKeyError> {
        admit::policy(&self.replay, &self.genesis)
    }

    /// Whether batches came that cannot be admitted because one before them is missing.
    pub(super) fn has_gap(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Forgets what an abandoned session left unverified.
    pub(super) fn clear_queue(&mut self) {
        self.awaited = None;
        self.queue.clear();
    }

    /// Takes up a batch: admits it, and those that waited for it, or lets it wait itself. `Ok` is the
    /// number of batches admitted.
    pub(super) fn take(
        &mut self,
        local: &dyn Local,
        session: SessionId,
        batch: Batch,
    ) -> Result<usize, Refusal> {
        let first = batch.header.first;
        let expected = self.replay.size();
        let is_new = first >= expected && !self.queue.contains_key(&first);
        if batch.header.ledger == *self.id() && !is_new {
            return Err(Refusal::Position { found: first, expected });
        }
        self.queue.insert(first, batch);
        let mut count = 0;
        while let Some(batch) = self.queue.remove(&self.replay.size()) {
            self.admit(local, session, batch)?;
            count += 1;
        }
        Ok(count)
    }

    fn admit(
        &mut self,
        local: &dyn Local,
        session: SessionId,
        batch: Batch,
    ) -> Result<(), Refusal> {
        let claim = batch.header.claim.clone();
        let bytes = batch.body.len() as u64;
        let admitted = admit(&self.replay, &self.genesis, batch)?;
        self.replay = admitted.replay.clone();
        self.claim = Some(claim);
        let end = self.replay.size();
        self.committing.push_back(Committing { end, bytes, session });
        let lacks = |(digest, _): &&(Digest, u64)| !local.has_value(self.id(), digest);
        let missing = admitted.detached.iter().filter(lacks).copied().collect();
        self.pending.push_back(Pending { admitted: Box::new(admitted), missing });
        Ok(())
    }

    /// The next batch that can be made durable.
    pub(super) fn ready(&mut self) -> Option<Box<Admitted>> {
        self.pending.pop_front_if(|pending| pending.missing.is_empty()).map(|p| p.admitted)
    }

    /// Detached values that verified entries wait for, first needed first.
    pub(super) fn missing(&self) -> impl Iterator<Item = (&Digest, u64)> {
        self.pending.iter().flat_map(|pending| pending.missing.iter().map(|(d, len)| (d, *len)))
    }

    /// A missing value is there now.
    pub(super) fn found(&mut self, digest: &Digest) {
        for pending in &mut self.pending {
            pending.missing.remove(digest);
        }
    }

    /// Entries became durable; gives what is to be credited to whom.
    pub(super) fn durable(&mut self, size: Version, hlc: Hlc) -> Vec<(SessionId, u64)> {
        assert!(self.durable <= size && size <= self.replay.size(), "only what was committed");
        (self.durable, self.hlc) = (size, hlc);
        let mut credits = Vec::new();
        while let Some(done) = self.committing.pop_front_if(|committing| committing.end <= size) {
            credits.push((done.session, done.bytes));
        }
        credits
    }

    /// A parent's head of this size was all there was at `as_of`. Gives since when that is known of
    /// what is durable here, if that is news.
    pub(super) fn fresh(&mut self, size: Version, as_of: Instant) -> Option<Instant> {
        if self.durable >= size {
            self.awaited = None;
            return Some(as_of);
        }
        // The first one is kept until it is reached, or under load none ever would be.
        self.awaited.get_or_insert((size, as_of));
        None
    }

    /// What [`Ledger::fresh`] could not say yet.
    pub(super) fn awaited(&mut self) -> Option<Instant> {
        self.awaited.take_if(|(size, _)| *size <= self.durable).map(|(_, as_of)| as_of)
    }

    /// A parent proved that what is here is signed for. Gives the head if it is still of that size
    /// and nothing else has confirmed it.
    pub(super) fn confirm(&mut self, size: Version, claim: Claim) -> Option<Head> {
        if self.replay.size() != size || self.durable != size || size == Version::ZERO {
            return None;
        }
        let (note, links) = (claim.note.as_str().into(), claim.links.as_slice().into());
        self.claim = Some(claim);
        Some(Head { size, root: self.replay.root(), hlc: self.hlc, note, links })
    }

    /// Compares a signed note with what is held. `Ok(None)`: they agree, or cannot be compared.
    pub(super) fn compare(
        &self,
        local: &dyn Local,
        note: &str,
    ) -> Result<Option<Evidence>, crate::ClaimError> {
        let parsed = SignedNote::parse(note.as_bytes())?;
        let policy = self.policy().expect("members of a verified ledger have usable keys");
        let signed = policy.verify(&parsed)?.checkpoint;
        let size = signed.size;
        let held_root = if size == self.replay.size() {
            Some(self.replay.root())
        } else {
            local.root_at(self.id(), size)
        };
        let Some(held_root) = held_root.filter(|held| *held != signed.root) else {
            return Ok(None);
        };
        let shown = Claim { note: note.into(), links: Vec::new() };
        Ok(Some(self.evidence(local, size, held_root, signed.root, shown)))
    }

    /// Evidence that what is held differs from `shown` at `size`.
    pub(super) fn evidence(
        &self,
        local: &dyn Local,
        size: Version,
        held_root: Digest,
        shown_root: Digest,
        shown: Claim,
    ) -> Evidence {
        let (end, root) = (self.replay.size(), self.replay.root());
        let held = self.claim.clone().and_then(|mut claim| {
            if size < end {
                let proof = local.proof(self.id(), size, end)?;
                claim.links.insert(0, Link { size: end, root, proof });
            }
            Some(claim)
        });
        let (ledger, lineage) = (self.id().clone(), self.lineage);
        Evidence { ledger, lineage, size, held_root, shown_root, held, shown }
    }

    /// Stops following for good.
    pub(super) fn halt(&mut self) {
        self.is_halted = true;
        self.queue.clear();
    }

    /// Digests of values that are asked for already.
    pub(super) fn missing_count(&self) -> usize {
        self.pending.iter().map(|pending| pending.missing.len()).sum::<usize>()
    }
}

/// Ledgers with their state, by name.
pub(super) type Ledgers = BTreeMap<LedgerId, Ledger>;
