//! The only door through which entries come in.

use alloc::vec::Vec;

use tradewind_ledger::entry::{Body, Entry, Genesis, Member, Value};
use tradewind_ledger::ids::{Digest, Hlc, LedgerId, Lineage, Version};
use tradewind_ledger::note::{Policy, VerifierKeyError};
use tradewind_ledger::replay::{Replay, ReplayError};

use crate::claim::{Claim, ClaimError, Head};
use crate::wire::Batch;

/// A batch that may be made durable and then be shown.
#[derive(Debug)]
pub struct Admitted {
    /// Which ledger.
    pub ledger: LedgerId,
    /// Version of the first entry.
    pub first: Version,
    /// The entries, decoded.
    pub entries: Vec<Entry>,
    /// The entries as they are hashed, each after its length as a big-endian u16.
    pub batch: Batch,
    /// The ledger's state after them.
    pub replay: Replay,
    /// The head that the ledger has once they are durable.
    pub head: Head,
    /// Detached values that they commit to: SHA-256 and length of each.
    pub detached: Vec<(Digest, u64)>,
}

/// Why a batch is refused. The ledger's state is what it was before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is another ledger's.
    #[error("a batch of ledger {found}, not of {expected}")]
    Ledger {
        /// What the batch says.
        found: LedgerId,
        /// What was asked for.
        expected: LedgerId,
    },
    /// It does not continue where the ledger ends: replayed, or something is missing before it.
    #[error("the batch begins at version {found}, the ledger continues at {expected}")]
    Position {
        /// Its first version.
        found: Version,
        /// The ledger's size.
        expected: Version,
    },
    /// The body is not the announced number of whole entries.
    #[error("the batch's body is not {count} whole entries in {bytes} bytes")]
    Body {
        /// Entries announced.
        count: u32,
        /// Bytes announced.
        bytes: u32,
    },
    /// The site's keys are no keys.
    #[error("the ledger's members have unusable keys: {0}")]
    Members(#[from] VerifierKeyError),
    /// An entry breaks a rule of the ledger.
    #[error("an entry breaks the ledger's rules: {0}")]
    Replay(#[from] ReplayError),
    /// The ledger begins with another genesis than the topology says.
    #[error("a ledger of lineage {found}, the topology's nodes and names give {expected}")]
    Lineage {
        /// The first entry's leaf hash.
        found: Lineage,
        /// The expected one.
        expected: Lineage,
    },
    /// The entries are not what the site signed.
    #[error("the batch's end at version {end} is not proven: {source}")]
    Claim {
        /// The version after the last entry.
        end: Version,
        /// Why.
        source: ClaimError,
    },
}

/// Decides whether `batch` continues the ledger at `replay`, which begins with `genesis`.
///
/// The entries must follow exactly at the ledger's size and keep all rules of a ledger; the root over
/// them must be the signed one, or proven to be its prefix; the checkpoint must be signed by a
/// majority of the members that the ledger had *before* the batch, and of those it has after it.
/// Nothing that is passed in is changed; a caller that gets `Ok` goes on from [`Admitted::replay`].
///
/// # Errors
/// See [`Refusal`].
pub fn admit(replay: &Replay, genesis: &Genesis, batch: Batch) -> Result<Admitted, Refusal> {
    let header = &batch.header;
    if header.ledger != genesis.ledger {
        let expected = genesis.ledger.clone();
        return Err(Refusal::Ledger { found: header.ledger.clone(), expected });
    }
    if header.first != replay.size() {
        return Err(Refusal::Position { found: header.first, expected: replay.size() });
    }
    if header.count == 0 || header.bytes as usize != batch.body.len() || !batch.is_whole() {
        return Err(Refusal::Body { count: header.count, bytes: header.bytes });
    }
    let end = batch.end();
    let unproven = |source| Refusal::Claim { end, source };
    // Signatures first: whoever cannot show one costs no hashing.
    let policy = policy(replay, genesis)?;
    let signed = header.claim.signed(&policy).map_err(unproven)?;
    let (next, entries) = replayed(replay, genesis, &batch)?;
    header.claim.leads(end, next.root(), &signed).map_err(unproven)?;
    if next.members() != policy.members() {
        let origin = genesis.origin();
        let later = Policy::majority(&origin, next.members().to_vec())?;
        header.claim.signed(&later).map_err(unproven)?;
    }
    let Claim { note, links } = &header.claim;
    let hlc = entries.last().map_or(Hlc(0), |entry| entry.hlc);
    let (note, links) = (note.as_str().into(), links.as_slice().into());
    let head = Head { size: end, root: next.root(), hlc, note, links };
    let detached = detached(&entries);
    let (ledger, first) = (header.ledger.clone(), header.first);
    Ok(Admitted { ledger, first, entries, batch, replay: next, head, detached })
}

/// Whose signatures count for a ledger in this state.
pub(crate) fn policy(replay: &Replay, genesis: &Genesis) -> Result<Policy, VerifierKeyError> {
    let members: &[Member] =
        if replay.size() == Version::ZERO { &genesis.members } else { replay.members() };
    Policy::majority(&genesis.origin(), members.to_vec())
}

fn replayed(
    replay: &Replay,
    genesis: &Genesis,
    batch: &Batch,
) -> Result<(Replay, Vec<Entry>), Refusal> {
    let mut next = replay.clone();
    let mut entries = Vec::with_capacity(batch.header.count as usize);
    for bytes in batch.entries() {
        let entry = next.push(bytes)?;
        if let Body::Genesis(found) = &entry.body
            && found != genesis
        {
            let lineage = |genesis: &Genesis| genesis.lineage().unwrap_or(Lineage(Digest::ZERO));
            return Err(Refusal::Lineage { found: lineage(found), expected: lineage(genesis) });
        }
        entries.push(entry);
    }
    Ok((next, entries))
}

fn detached(entries: &[Entry]) -> Vec<(Digest, u64)> {
    let updates = entries.iter().flat_map(Entry::updates);
    updates
        .filter_map(|update| match update.value {
            Some(Value::Detached { len, digest }) => Some((digest, len)),
            _ => None,
        })
        .collect()
}
