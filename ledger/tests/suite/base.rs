//! A replay from a base is the replay of everything, and bytes that are not a base are refused.

use crate::common;
use proptest::prelude::*;
use tradewind_ledger::*;

/// What is appended next in a drawn history.
#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    View,
    Seal,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => any::<u8>().prop_map(Step::Put),
        1 => Just(Step::View),
        2 => Just(Step::Seal),
    ];
    prop::collection::vec(step, 1..120)
}

/// A ledger with these steps after its genesis.
fn history(steps: &[Step]) -> Vec<Vec<u8>> {
    let genesis = common::golden_genesis();
    let mut members = genesis.members.clone();
    let mut replay = Replay::new();
    let mut entries = vec![genesis.into_entry().to_bytes().unwrap()];
    replay.push(&entries[0]).unwrap();
    for step in steps {
        let (hlc, view) = (Hlc(replay.last_hlc().0 + 3), replay.view());
        let entry = match step {
            Step::Seal => replay.segment().make_seal(hlc, view),
            Step::View => {
                members.rotate_left(1);
                let view = ViewId(view.0 + 2);
                let body = Body::View(ViewRecord { view, members: members.clone() });
                Entry { hlc, view, body }
            }
            Step::Put(key) => {
                let update = Update {
                    key: vec![*key],
                    key_version: KeyVersion(1),
                    prev_version: None,
                    value: Some(Value::Inline(vec![*key; 3])),
                };
                Entry {
                    hlc,
                    view,
                    body: Body::Put(Write { request: RequestId::default(), update }),
                }
            }
        };
        entries.push(entry.to_bytes().unwrap());
        replay.push(entries.last().unwrap()).unwrap();
    }
    entries
}

/// All bases of a history, as they lay after each SEAL.
fn bases(entries: &[Vec<u8>]) -> Vec<Base> {
    let mut replay = Replay::new();
    let mut bases = Vec::new();
    for bytes in entries {
        let entry = replay.push(bytes).unwrap();
        if matches!(entry.body, Body::Seal(_)) {
            bases.push(Base::clone(replay.base().unwrap()));
        }
    }
    bases
}

proptest! {
    #[test]
    fn replaying_a_suffix_from_any_base_equals_replaying_everything(steps in steps()) {
        let entries = history(&steps);
        let mut replay = Replay::new();
        let mut from_bases: Vec<Replay> = Vec::new();
        for bytes in &entries {
            let entry = replay.push(bytes).unwrap();
            for other in &mut from_bases {
                prop_assert_eq!(&other.push(bytes).unwrap(), &entry);
            }
            if matches!(entry.body, Body::Seal(_)) {
                let base = replay.base().unwrap();
                prop_assert_eq!((base.size(), base.root()), (replay.size(), replay.root()));
                let read = Base::decode(&base.encode()).unwrap();
                prop_assert_eq!(&read, &**base);
                from_bases.push(Replay::from_base(&read));
            }
            for other in &from_bases {
                // Every field, those that no accessor shows too.
                prop_assert_eq!(format!("{other:?}"), format!("{replay:?}"));
            }
        }
    }

    #[test]
    fn the_entries_of_a_base_are_those_of_the_ledger(steps in steps()) {
        let entries = history(&steps);
        for base in bases(&entries) {
            for (version, bytes) in base.entries() {
                prop_assert_eq!(&bytes, &entries[version.0 as usize]);
            }
        }
    }

    #[test]
    fn decoding_never_panics_and_what_it_accepts_is_canonical(
        steps in steps(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in prop::option::of(any::<prop::sample::Index>()),
        true_digest in any::<bool>(),
    ) {
        let entries = history(&steps);
        for base in bases(&entries).into_iter().take(3) {
            let mut bytes = base.encode();
            bytes.truncate(bytes.len() - 32);
            changes.iter().for_each(|(at, to)| {
                let at = at.index(bytes.len());
                bytes[at] = *to;
            });
            if let Some(cut) = &cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            let digest = tree::value_digest(&bytes);
            bytes.extend(if true_digest { digest.0 } else { [7; 32] });
            match Base::decode(&bytes) {
                Ok(base) => prop_assert_eq!(base.encode(), bytes),
                Err(error) => drop(error.to_string()),
            }
        }
    }
}

#[test]
fn any_flipped_bit_or_missing_byte_of_a_base_is_refused() {
    let entries = common::golden_entries();
    for base in bases(&entries) {
        let bytes = base.encode();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(Base::decode(&flipped).is_err(), "a flip at {at}");
            assert!(Base::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
        assert!(Base::decode(&[&bytes[..], &[0]].concat()).is_err());
    }
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let entries = common::golden_entries();
    let [first, second] = &bases(&entries)[..] else { panic!("two segments") };
    let (first, second) = (first.encode(), second.encode());
    let seal = |bytes: &[u8]| bytes.len() - 32 - entries[4].len();
    // The SEAL of one with the tree of the other.
    let mut mixed = second[..seal(&second)].to_vec();
    mixed.extend_from_slice(&first[seal(&first)..first.len() - 32]);
    let digest = tree::value_digest(&mixed);
    mixed.extend(digest.0);
    assert!(matches!(Base::decode(&mixed), Err(BaseError::Unfit("SEAL's count"))));
}

#[test]
fn a_replay_from_a_base_refuses_what_the_full_one_does() {
    let entries = common::golden_entries();
    let base = &bases(&entries)[0];
    let mut replay = Replay::from_base(base);
    let refused = |replay: &mut Replay, bytes: &[u8]| replay.push(bytes).unwrap_err().kind;
    assert_eq!(refused(&mut replay, &entries[0]), ReplayErrorKind::SecondGenesis);
    assert!(matches!(refused(&mut replay, &entries[3]), ReplayErrorKind::Time { .. }));
    assert!(matches!(refused(&mut replay, &entries[7]), ReplayErrorKind::Seal { .. }));
    entries[5..].iter().for_each(|bytes| drop(replay.push(bytes).unwrap()));
}
