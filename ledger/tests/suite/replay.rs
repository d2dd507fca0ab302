//! What a replay and a policy refuse.

use crate::common;
use proptest::prelude::*;
use tradewind_ledger::entry::EntryError;
use tradewind_ledger::note::{Policy, PolicyError};
use tradewind_ledger::*;

fn kind(before: &[Vec<u8>], entry: &Entry) -> ReplayErrorKind {
    let mut replay = Replay::new();
    before.iter().for_each(|bytes| drop(replay.push(bytes).unwrap()));
    let error = replay.push(&entry.to_bytes().unwrap()).unwrap_err();
    assert_eq!(error.version, Version(before.len() as u64));
    error.kind
}

fn decoded(bytes: &[u8]) -> Entry {
    Entry::decode(bytes).unwrap()
}

#[test]
fn a_ledger_begins_with_its_genesis_and_has_no_second_one() {
    let entries = common::golden_entries();
    assert_eq!(kind(&[], &decoded(&entries[1])), ReplayErrorKind::NotGenesis);
    assert_eq!(kind(&entries[..3], &decoded(&entries[0])), ReplayErrorKind::SecondGenesis);
}

#[test]
fn time_must_advance() {
    let entries = common::golden_entries();
    let mut entry = decoded(&entries[3]);
    entry.hlc = decoded(&entries[2]).hlc;
    assert!(matches!(kind(&entries[..3], &entry), ReplayErrorKind::Time { .. }));
}

#[test]
fn only_a_view_entry_begins_a_view() {
    let entries = common::golden_entries();
    let mut entry = decoded(&entries[3]);
    entry.view = ViewId(2);
    assert!(matches!(kind(&entries[..3], &entry), ReplayErrorKind::View { .. }));
    let mut again = decoded(&entries[1]);
    again.hlc = entry.hlc;
    assert!(matches!(kind(&entries[..3], &again), ReplayErrorKind::View { .. }));
}

#[test]
fn every_field_of_a_seal_is_checked() {
    let entries = common::golden_entries();
    let spoil: [fn(&mut Seal); 9] = [
        |seal| seal.segment += 1,
        |seal| seal.first.0 += 1,
        |seal| seal.count += 1,
        |seal| seal.prev_seal.0[0] ^= 1,
        |seal| seal.root_before.0[0] ^= 1,
        |seal| seal.keys_root.0[0] ^= 1,
        |seal| seal.hlc_first.0 += 1,
        |seal| seal.hlc_last.0 += 1,
        |seal| seal.policy_epoch += 1,
    ];
    for spoil in spoil {
        let mut entry = decoded(&entries[7]);
        let Body::Seal(seal) = &mut entry.body else { unreachable!("entry 7 is a SEAL") };
        spoil(seal);
        assert!(matches!(kind(&entries[..7], &entry), ReplayErrorKind::Seal { .. }));
    }
}

#[test]
fn of_a_made_seal_only_itself_passes_unchecked() {
    let entries = common::golden_entries();
    let mut replay = Replay::new();
    entries[..7].iter().for_each(|bytes| drop(replay.push(bytes).unwrap()));
    let made = replay.make_seal(decoded(&entries[7]).hlc);
    assert_eq!(made.to_bytes().unwrap(), entries[7]);
    let mut other = made.clone();
    let Body::Seal(seal) = &mut other.body else { unreachable!("a SEAL") };
    seal.keys_root.0[0] ^= 1;
    let error = replay.observe(&other.to_bytes().unwrap(), &other).unwrap_err();
    assert!(matches!(error.kind, ReplayErrorKind::Seal { field: "root of the keys", .. }));
    replay.observe(&entries[7], &made).unwrap();
    let again = replay.observe(&entries[7], &made).unwrap_err();
    assert!(matches!(again.kind, ReplayErrorKind::Time { .. }));
    let later = tradewind_ledger::Entry { hlc: Hlc(made.hlc.0 + 1), ..made };
    let error = replay.observe(&later.to_bytes().unwrap(), &later).unwrap_err();
    assert!(matches!(error.kind, ReplayErrorKind::Seal { .. }), "that of the segment before");
}

#[test]
fn a_segment_is_due_by_bytes_entries_age_or_heartbeat() {
    let entries = common::golden_entries();
    let mut replay = Replay::new();
    entries[..4].iter().for_each(|bytes| drop(replay.push(bytes).unwrap()));
    let limits = SealLimits::default();
    let now = replay.last_hlc();
    // The genesis has time 0, so the first segment is always old enough.
    assert!(replay.segment().due(&limits, now));
    replay.push(&entries[4]).unwrap();
    let later = |micros| Hlc::from_micros(replay.last_hlc().micros() + micros);
    assert!(!replay.segment().due(&limits, later(59_999_999)));
    assert!(replay.segment().due(&limits, later(60_000_000)));
    let mut next = replay.clone();
    next.push(&entries[5]).unwrap();
    let first = next.last_hlc();
    let after = |micros| Hlc::from_micros(first.micros() + micros);
    assert!(!next.segment().due(&limits, after(999_999)));
    assert!(next.segment().due(&limits, after(1_000_000)));
    assert!(next.segment().due(&SealLimits { entries: 2, ..limits }, first));
    assert!(next.segment().due(&SealLimits { bytes: 60, ..limits }, first));
    assert!(!next.segment().due(&SealLimits { bytes: 1_000, ..limits }, first));
}

proptest! {
    #[test]
    fn a_flipped_bit_in_any_entry_changes_the_root_or_is_refused(
        which in 0_usize..8, at in any::<prop::sample::Index>(), bit in 0_u8..8,
    ) {
        let mut entries = common::golden_entries();
        let replayed = |entries: &[Vec<u8>]| {
            let mut replay = Replay::new();
            entries.iter().try_for_each(|bytes| replay.push(bytes).map(drop)).map(|()| replay.root())
        };
        let root = replayed(&entries).unwrap();
        let at = at.index(entries[which].len());
        entries[which][at] ^= 1 << bit;
        // Before a SEAL the SEAL itself tells; the last SEAL has none after it, but all of it is checked
        // except its own time and view.
        prop_assert!(replayed(&entries).is_err() || which == 7 && replayed(&entries) != Ok(root));
    }
}

#[test]
fn encoding_refuses_what_decoding_would() {
    let entries = common::golden_entries();
    let spoiled = |which: usize, spoil: &dyn Fn(&mut Update)| {
        let mut entry = decoded(&entries[which]);
        let Body::Put(write) = &mut entry.body else { unreachable!("a PUT") };
        spoil(&mut write.update);
        entry.to_bytes().unwrap_err()
    };
    assert!(matches!(spoiled(2, &|update| update.key.clear()), EntryError::Key { len: 0 }));
    assert!(matches!(spoiled(2, &|update| update.key = vec![0; 4_097]), EntryError::Key { .. }));
    assert_eq!(spoiled(2, &|update| update.value = None), EntryError::ValuePresence);
    assert!(matches!(
        spoiled(2, &|update| update.value = Some(Value::Inline(vec![0; 32_769]))),
        EntryError::InlineValue { len: 32_769 }
    ));
    assert!(matches!(
        spoiled(2, &|update| {
            let len = entry::MAX_VALUE + 1;
            update.value = Some(Value::Detached { len, digest: Digest::ZERO });
        }),
        EntryError::DetachedValue { .. }
    ));
    let history = |version, prev| {
        spoiled(2, &move |update| {
            update.key_version = KeyVersion(version);
            update.prev_version = prev;
        })
    };
    assert!(matches!(history(0, None), EntryError::KeyHistory { .. }));
    assert!(matches!(history(1, Some(Version(1))), EntryError::KeyHistory { .. }));
    assert!(matches!(history(2, None), EntryError::KeyHistory { .. }));
    assert!(matches!(history(2, Some(Version(u64::MAX))), EntryError::KeyHistory { .. }));

    let mut txn = decoded(&entries[6]);
    let Body::Txn(body) = &mut txn.body else { unreachable!("a TXN") };
    let mut large = body.updates[0].clone();
    body.updates.swap(0, 1);
    assert_eq!(txn.to_bytes(), Err(EntryError::KeyOrder { index: 1 }));
    large.value = Some(Value::Inline(vec![0; 32_768]));
    let Body::Txn(body) = &mut txn.body else { unreachable!("a TXN") };
    body.updates = ["a", "b"].map(|key| Update { key: key.into(), ..large.clone() }).into();
    assert!(matches!(txn.to_bytes(), Err(EntryError::TooLong { .. })));
}

#[test]
fn a_snapshot_is_of_entries_before_it_and_of_something() {
    let record = |size| SnapshotRecord {
        size: Version(size),
        root: Digest([7; 32]),
        chunks: 3,
        bytes: 2_100_000,
    };
    let mut replay = Replay::new();
    common::golden_entries().iter().for_each(|bytes| drop(replay.push(bytes).unwrap()));
    let entry = |record| Entry {
        hlc: replay.last_hlc().after(replay.last_hlc()),
        view: replay.view(),
        body: Body::Snapshot(record),
    };
    let size = replay.size().0;
    let early = replay.clone().push(&entry(record(size + 1)).to_bytes().unwrap()).unwrap_err();
    assert_eq!(early.kind, ReplayErrorKind::Snapshot { size: Version(size + 1) });
    for none in [
        record(0),
        SnapshotRecord { chunks: 0, ..record(size) },
        SnapshotRecord { bytes: 2, ..record(size) },
    ] {
        assert!(matches!(entry(none).to_bytes(), Err(EntryError::Snapshot { .. })));
    }
    let bytes = entry(record(size)).to_bytes().unwrap();
    assert_eq!(replay.push(&bytes).unwrap().updates(), &[]);
    assert_eq!(replay.snapshot(), Some(&(Version(size), record(size))));
}

#[test]
fn reserved_kinds_and_other_formats_are_named() {
    let mut bytes = common::golden_entries()[2].clone();
    for (kind, name) in [(6, "KEY"), (7, "POLICY"), (8, "ERASE")] {
        bytes[1] = kind;
        assert_eq!(Entry::decode(&bytes), Err(EntryError::Unsupported { kind, name }));
    }
    bytes[1] = 11;
    assert_eq!(Entry::decode(&bytes), Err(EntryError::Kind { kind: 11 }));
    bytes[0] = 2;
    assert_eq!(Entry::decode(&bytes), Err(EntryError::Format { found: 2 }));
    assert_eq!(Entry::decode(&[0; 65_536]), Err(EntryError::TooLong { len: 65_536 }));
}

#[test]
fn a_policy_counts_each_member_once_and_refuses_a_wrong_signature() {
    let genesis = common::golden_genesis();
    let [a, b, _] = common::signers();
    let stranger = Ed25519Signer::from_seed(&[9; 32]);
    let policy = Policy::of_genesis(&genesis).unwrap();
    let checkpoint =
        Checkpoint { origin: genesis.origin(), size: Version(3), root: tree::empty_root() };
    let other = Checkpoint { size: Version(4), ..checkpoint.clone() };
    let verify = |lines| policy.verify(&checkpoint.with_signatures(lines).unwrap());

    let verified = verify(vec![checkpoint.sign(&b), checkpoint.sign(&a)]).unwrap();
    assert_eq!((verified.signers, verified.checkpoint), (vec![0, 1], checkpoint.clone()));
    let with_stranger = verify(vec![checkpoint.sign(&a), other.sign(&stranger)]);
    let twice = verify(vec![checkpoint.sign(&a), checkpoint.sign(&a)]);
    for too_few in [with_stranger, twice] {
        let Err(PolicyError::TooFew { verified, threshold: 2 }) = too_few else {
            panic!("one member is not a majority of three")
        };
        assert_eq!(verified.signers, [0]);
    }
    let wrong = verify(vec![checkpoint.sign(&a), checkpoint.sign(&b), other.sign(&a)]);
    assert_eq!(wrong, Err(PolicyError::BadSignature { member: "a1".into() }));
    let elsewhere = Checkpoint { origin: "atlas/ams/flights/1".into(), ..checkpoint.clone() };
    let note = elsewhere.with_signatures(vec![elsewhere.sign(&a)]).unwrap();
    assert!(matches!(policy.verify(&note), Err(PolicyError::Origin { .. })));
}

#[test]
fn a_cosignature_binds_its_time() {
    let [a, ..] = common::signers();
    let checkpoint = Checkpoint {
        origin: "atlas/ams/flights/0".into(),
        size: Version(0),
        root: tree::empty_root(),
    };
    let mut line = checkpoint.cosign("witness.example/w", 1_700_000_000, &a);
    let kind = note::KeyKind::CosignatureV1;
    let key = VerifierKey::new("witness.example/w", kind, a.public_key()).unwrap();
    assert_eq!(line.cosigned_at(), Some(1_700_000_000));
    assert!(key.verify(&checkpoint.to_string(), &line));
    assert_eq!(key.to_string().parse::<VerifierKey>().unwrap(), key);
    line.bytes[7] ^= 1;
    assert!(!key.verify(&checkpoint.to_string(), &line));
}
