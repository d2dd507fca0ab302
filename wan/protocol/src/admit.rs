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

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;
    use crate::fixture::History;
    use crate::wire::{Bulk, BulkHeader, HEADER_BYTES, Header};

    const LEDGER: &str = "flights.0";

    fn version(at: usize) -> Version {
        Version(at as u64)
    }

    /// A batch out of a history of `count` puts: from `first` to `end` under the head of all.
    fn cut(count: usize, first: prop::sample::Index, end: prop::sample::Index) -> (History, Batch) {
        let history = History::grown(LEDGER, count);
        let size = history.entries.len();
        let first = first.index(size);
        let end = first + 1 + end.index(size - first);
        let head = history.head(history.size());
        let batch = history.batch(version(first), version(end), &head);
        (history, batch)
    }

    /// What travels, as one run of bytes.
    fn wire(batch: &Batch) -> Vec<u8> {
        let mut bytes = BulkHeader::Batch(batch.header.clone()).encode();
        bytes.extend_from_slice(&batch.body);
        bytes
    }

    fn from_wire(bytes: &[u8]) -> Option<Batch> {
        let header = Header::decode(bytes.first_chunk::<HEADER_BYTES>()?).ok()?;
        let body_at = HEADER_BYTES + header.length as usize;
        let (payload, body) = bytes[HEADER_BYTES..].split_at_checked(header.length as usize)?;
        debug_assert_eq!(body_at + body.len(), bytes.len());
        match BulkHeader::decode(&header, payload).ok()?.with_body(body.to_vec()).ok()? {
            Bulk::Batch(batch) => Some(batch),
            Bulk::Value(_) => None,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn an_honest_batch_is_admitted_wherever_it_is_cut(
            count in 1_usize..60, first: prop::sample::Index, end: prop::sample::Index,
        ) {
            let (history, batch) = cut(count, first, end);
            let before = history.replay_at(batch.header.first);
            let end = batch.end();
            let admitted = admit(&before, &history.genesis, batch).unwrap();
            prop_assert_eq!(admitted.replay.size(), end);
            prop_assert_eq!(admitted.replay.root(), history.root_at(end));
            prop_assert_eq!(admitted.head.size, end);
            prop_assert_eq!(admitted.head.is_signed(), end == history.size());
        }

        #[test]
        fn a_batch_with_any_bit_flipped_is_refused(
            count in 1_usize..40, first: prop::sample::Index, end: prop::sample::Index,
            bit: prop::sample::Index,
        ) {
            let (history, batch) = cut(count, first, end);
            let before = history.replay_at(batch.header.first);
            let mut bytes = wire(&batch);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Some(bad) = from_wire(&bytes) {
                prop_assert!(admit(&before, &history.genesis, bad).is_err());
            }
            prop_assert_eq!(before.size(), batch.header.first);
            prop_assert_eq!(before.root(), history.root_at(batch.header.first));
        }

        #[test]
        fn a_truncated_batch_is_refused(
            count in 1_usize..40, first: prop::sample::Index, end: prop::sample::Index,
            cut_at: prop::sample::Index,
        ) {
            let (_, batch) = cut(count, first, end);
            let bytes = wire(&batch);
            let shorter = &bytes[..cut_at.index(bytes.len())];
            prop_assert!(from_wire(shorter).is_none());
        }

        #[test]
        fn entries_dropped_doubled_or_swapped_are_refused(
            count in 3_usize..40, at: prop::sample::Index, kind in 0..3,
        ) {
            let history = History::grown(LEDGER, count);
            let head = history.head(history.size());
            let mut entries = history.entries[2..].to_vec();
            let at = at.index(entries.len() - 1);
            match kind {
                0 => _ = entries.remove(at),
                1 => entries.insert(at, entries[at].clone()),
                _ => entries.swap(at, at + 1),
            }
            // The claim is that of the true end: all that a forger without keys can show.
            let claim = history.claim(history.size(), &head);
            let batch = Batch::pack(history.genesis.ledger.clone(), version(2), &entries, claim);
            let before = history.replay_at(version(2));
            prop_assert!(admit(&before, &history.genesis, batch).is_err());
        }
    }

    #[test]
    fn a_batch_that_does_not_begin_at_the_ledgers_end_is_refused() {
        let history = History::grown(LEDGER, 30);
        let head = history.head(history.size());
        for (held, first) in [(10, 9), (10, 11), (20, 10), (0, 1)] {
            let batch = history.batch(version(first), version(25), &head);
            let before = history.replay_at(version(held));
            let refusal = admit(&before, &history.genesis, batch).unwrap_err();
            let (found, expected) = (version(first), version(held));
            assert_eq!(refusal, Refusal::Position { found, expected });
        }
    }

    #[test]
    fn another_ledgers_batch_is_refused_under_either_name() {
        let (own, other) = (History::grown(LEDGER, 30), History::grown("flights.1", 30));
        let head = other.head(other.size());
        let before = own.replay_at(version(10));
        let mut batch = other.batch(version(10), version(20), &head);
        let refusal = admit(&before, &own.genesis, batch.clone()).unwrap_err();
        assert!(matches!(refusal, Refusal::Ledger { .. }), "{refusal}");
        batch.header.ledger = own.genesis.ledger.clone();
        let refusal = admit(&before, &own.genesis, batch).unwrap_err();
        assert!(matches!(refusal, Refusal::Claim { .. }), "{refusal}");
    }

    #[test]
    fn another_ledgers_genesis_is_refused() {
        let history = History::grown(LEDGER, 5);
        let mut expected = history.genesis.clone();
        expected.members.swap(0, 1);
        let head = history.head(history.size());
        let batch = history.batch(version(0), version(3), &head);
        let refusal = admit(&Replay::new(), &expected, batch).unwrap_err();
        assert!(matches!(refusal, Refusal::Lineage { .. }), "{refusal}");
    }

    #[test]
    fn a_checkpoint_of_too_few_or_of_strangers_or_an_older_one_is_refused() {
        let history = History::grown(LEDGER, 30);
        let (first, end) = (version(10), version(20));
        let before = history.replay_at(first);
        let honest = history.batch(first, end, &history.head(end));
        let refused = |note| {
            let mut batch = honest.clone();
            batch.header.claim = Claim { note, links: vec![] };
            admit(&before, &history.genesis, batch).unwrap_err()
        };
        for signers in [&[1][..], &[1, 1], &[7, 8, 9]] {
            let refusal = refused(history.note(end, signers));
            assert!(matches!(refusal, Refusal::Claim { .. }), "{signers:?}: {refusal}");
        }
        // Signed by all, but over less than the entries that it is shown with.
        for size in [1, 9, 10, 19] {
            let refusal = refused(history.note(version(size), &[0, 1, 2]));
            assert!(matches!(refusal, Refusal::Claim { .. }), "{size}: {refusal}");
        }
        // Over more, without the proof.
        let refusal = refused(history.note(version(25), &[0, 1, 2]));
        assert!(matches!(refusal, Refusal::Claim { .. }), "{refusal}");
        assert!(admit(&before, &history.genesis, honest.clone()).is_ok());
    }

    #[test]
    fn a_relay_in_the_middle_of_catching_up_hands_on_its_parents_proof() {
        let history = History::grown(LEDGER, 60);
        let top = history.head(history.size());
        let (middle, end) = (version(40), version(25));
        // The relay has 40 entries and the proof from there to the signed size.
        let claim = history.claim(middle, &top);
        let hlc = Hlc(1);
        let relay = Head {
            size: middle,
            root: history.root_at(middle),
            hlc,
            note: claim.note.as_str().into(),
            links: claim.links.as_slice().into(),
        };
        let batch = history.batch(version(10), end, &relay);
        assert_eq!(batch.header.claim.links.len(), 2);
        let before = history.replay_at(version(10));
        let admitted = admit(&before, &history.genesis, batch.clone()).unwrap();
        assert!(!admitted.head.is_signed());
        for broken in 0..2 {
            let mut bad = batch.clone();
            bad.header.claim.links.remove(broken);
            assert!(admit(&before, &history.genesis, bad).is_err());
        }
    }
}
