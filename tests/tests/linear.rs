//! The checker of linearizability: histories made by hand, small ones against brute force, larger ones of a register
//! with planted bugs.

use proptest::prelude::*;
use tradewind_ledger::{KeyVersion, Version};
use tradewind_store::{Condition, Current};
use tradewind_tests::linear::{Call, History, Op, Outcome, Seen, Violation};

fn put(value: &str, condition: Condition) -> Op {
    Op::Put { value: value.into(), condition }
}

fn written(version: u64, change: u64) -> Outcome {
    Outcome::Written { version: Version(version), key_version: KeyVersion(change) }
}

fn saw(version: u64, change: u64, value: &str) -> Outcome {
    let (version, key_version) = (Version(version), KeyVersion(change));
    Outcome::Value(Some(Seen { version, key_version, value: Some(value.into()) }))
}

fn conflict(version: u64, change: u64) -> Outcome {
    Outcome::Conflict(Some(Current { version: Version(version), key_version: KeyVersion(change) }))
}

fn at(version: u64) -> Condition {
    Condition::Version(Version(version))
}

fn check(calls: &[Call]) -> Result<(), Violation> {
    let mut history = History::default();
    calls.iter().for_each(|call| history.push(b"k", call.clone()));
    history.check()
}

/// When it began, when it ended, what was asked, what was told.
type Told = (u64, u64, Op, Outcome);

fn calls(of: &[Told]) -> Vec<Call> {
    let call = |(client, (began, ended, op, outcome)): (usize, &Told)| {
        let ended = Some((*ended, outcome.clone()));
        Call { client, op: op.clone(), began: *began, ended }
    };
    of.iter().enumerate().map(call).collect()
}

/// A call of unknown outcome.
fn lost(began: u64, op: Op) -> Call {
    Call { client: 9, op, began, ended: None }
}

const ALWAYS: Condition = Condition::Always;

#[test]
fn concurrent_calls_may_take_effect_in_any_order() {
    // The write that began last has the lower version: it was first.
    let history = calls(&[
        (0, 10, put("a", ALWAYS), written(5, 2)),
        (2, 9, put("b", ALWAYS), written(4, 1)),
        (3, 8, Op::Get, saw(4, 1, "b")),
        (11, 12, Op::Get, saw(5, 2, "a")),
        (13, 14, Op::Delete { condition: at(5) }, written(9, 3)),
        (15, 16, Op::Delete { condition: ALWAYS }, Outcome::Absent),
        (17, 18, put("c", at(5)), Outcome::Conflict(None)),
        (19, 20, put("c", Condition::Absent), written(11, 4)),
        (21, 22, put("d", Condition::Absent), conflict(11, 4)),
    ]);
    check(&history).unwrap();
}

#[test]
fn a_stale_read_is_found_and_told_by_the_calls_that_show_it() {
    let history = calls(&[
        (0, 1, put("a", ALWAYS), written(4, 1)),
        (2, 3, Op::Get, saw(4, 1, "a")),
        (4, 5, put("b", ALWAYS), written(5, 2)),
        (6, 7, Op::Get, saw(4, 1, "a")),
        (8, 9, put("c", ALWAYS), written(7, 3)),
    ]);
    let violation = check(&history).unwrap_err();
    let Violation::NotLinearizable { calls, .. } = &violation else { panic!("{violation}") };
    assert_eq!(calls.len(), 3, "two writes and the read: {violation}");
    assert_eq!(
        violation.to_string(),
        "key k is not linearizable:\n  \
           call  client      began      ended  what\n    \
           #0       0          0          1  put \"a\": written as version 4, change 1\n    \
           #1       2          4          5  put \"b\": written as version 5, change 2\n    \
           #2       3          6          7  get: version 4, change 1, \"a\"\n\
         the longest order that its replies allow: #0, #1; it leaves no place for #2"
    );
}

#[test]
fn what_is_not_linearizable_is_found() {
    let a = || (0, 1, put("a", ALWAYS), written(4, 1));
    let broken: [(&str, Vec<Told>); 8] = [
        ("lost write", vec![a(), (2, 3, Op::Get, Outcome::Value(None))]),
        ("applied twice", vec![a(), (2, 3, Op::Get, saw(5, 2, "a"))]),
        (
            "two winners",
            vec![
                (0, 9, put("a", Condition::Absent), written(4, 1)),
                (0, 9, put("b", Condition::Absent), written(5, 2)),
            ],
        ),
        ("condition ignored", vec![a(), (2, 3, put("b", at(3)), written(5, 2))]),
        ("conflict that was none", vec![a(), (2, 3, put("b", at(4)), conflict(4, 1))]),
        ("read from nowhere", vec![a(), (2, 3, Op::Get, saw(4, 1, "z"))]),
        ("version goes back", vec![a(), (2, 3, put("b", ALWAYS), written(3, 2))]),
        (
            "deleted and there",
            vec![
                a(),
                (2, 3, Op::Delete { condition: ALWAYS }, written(5, 2)),
                (4, 5, Op::Get, saw(4, 1, "a")),
            ],
        ),
    ];
    for (what, of) in broken {
        assert!(matches!(check(&calls(&of)), Err(Violation::NotLinearizable { .. })), "{what}");
    }
}

#[test]
fn a_call_of_unknown_outcome_takes_effect_later_or_never_but_once() {
    let b = lost(2, put("b", ALWAYS));
    let a = (0, 1, put("a", ALWAYS), written(4, 1));
    let old = (3, 4, Op::Get, saw(4, 1, "a"));
    let new = (5, 6, Op::Get, saw(6, 2, "b"));
    let with_b = |of: &[Told]| {
        let mut history = calls(of);
        history.push(b.clone());
        check(&history)
    };
    with_b(&[a.clone(), old.clone()]).expect("never");
    with_b(&[a.clone(), old.clone(), new.clone()]).expect("later");
    let again = (7, 8, put("c", ALWAYS), written(8, 3));
    let undone = (9, 10, Op::Get, saw(6, 2, "b"));
    with_b(&[a.clone(), new.clone(), again.clone(), undone]).expect_err("twice");
    let back = (7, 8, Op::Get, saw(4, 1, "a"));
    with_b(&[a.clone(), new, back]).expect_err("taken back");
    // Between the versions 4 and 5 there is no room for it.
    let tight = (7, 8, put("c", ALWAYS), written(5, 3));
    with_b(&[a, tight]).expect_err("no version for it");
}

// Brute force, by another model than the checker's: the whole list of changes.

type Changes = Vec<(u64, Option<Vec<u8>>)>;

/// Whether `outcome` is what a call is told after `changes`; makes the change, as `version`.
fn step(changes: &mut Changes, op: &Op, version: u64) -> Outcome {
    let count = changes.len() as u64;
    let current = changes.last().and_then(|(version, value)| Some((*version, value.clone()?)));
    let is = current
        .as_ref()
        .map(|(v, _)| Current { version: Version(*v), key_version: KeyVersion(count) });
    let (value, condition) = match op {
        Op::Get => {
            return Outcome::Value(current.map(|(v, value)| Seen {
                version: Version(v),
                key_version: KeyVersion(count),
                value: Some(value),
            }));
        }
        Op::Put { value, condition } => (Some(value.clone()), *condition),
        Op::Delete { condition } => (None, *condition),
        Op::Erase => (None, ALWAYS),
    };
    let holds = match condition {
        Condition::Always => true,
        Condition::Absent => is.is_none(),
        Condition::Version(version) => is.is_some_and(|is| is.version == version),
    };
    if !holds {
        return Outcome::Conflict(is);
    }
    if matches!(op, Op::Delete { .. }) && is.is_none() {
        return Outcome::Absent;
    }
    changes.push((version, value));
    written(version, count + 1)
}

fn brute_force(calls: &[Call], left: &mut Vec<usize>, changes: &Changes) -> bool {
    if left.iter().all(|&index| calls[index].ended.is_none()) {
        return true;
    }
    for place in 0..left.len() {
        let index = left.remove(place);
        let call = &calls[index];
        let too_late = left.iter().any(|&other| {
            calls[other].ended.as_ref().is_some_and(|(ended, _)| *ended < call.began)
        });
        let least = changes.last().map_or(0, |(version, _)| version + 1);
        let fits = !too_late
            && match &call.ended {
                Some((_, outcome)) => {
                    let version = match outcome {
                        Outcome::Written { version, .. } => version.0,
                        _ => least,
                    };
                    let mut after = changes.clone();
                    step(&mut after, &call.op, version) == *outcome
                        && (after.len() == changes.len() || version >= least)
                        && brute_force(calls, left, &after)
                }
                None => (least..12).any(|version| {
                    let mut after = changes.clone();
                    step(&mut after, &call.op, version);
                    brute_force(calls, left, &after)
                }),
            };
        left.insert(place, index);
        if fits {
            return true;
        }
    }
    false
}

fn any_op() -> impl Strategy<Value = Op> {
    let condition = prop_oneof![
        3 => Just(ALWAYS),
        1 => Just(Condition::Absent),
        2 => (0_u64..6).prop_map(at),
    ];
    let value = prop_oneof![Just("a"), Just("b")];
    prop_oneof![
        3 => Just(Op::Get),
        3 => (value, condition.clone()).prop_map(|(value, condition)| put(value, condition)),
        1 => condition.prop_map(|condition| Op::Delete { condition }),
        1 => Just(Op::Erase),
    ]
}

/// What a good register answers to calls, each with (before, after) around its moment, some answers lost; then,
/// perhaps, one answer exchanged.
fn any_history() -> impl Strategy<Value = Vec<Call>> {
    let call = (any_op(), 0_u64..6, 0_u64..6, 0_u64..2, 0_u8..8);
    let wrong = proptest::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>()));
    (proptest::collection::vec(call, 1..7), wrong).prop_map(|(of, wrong)| {
        let (mut changes, mut next) = (Changes::new(), 0);
        let mut history = Vec::new();
        for (place, (op, before, after, gap, fate)) in of.into_iter().enumerate() {
            let moment = place as u64 * 4 + 10;
            let version = next + gap;
            let had = changes.len();
            let outcome = step(&mut changes, &op, version);
            if fate == 0 {
                // Lost on the way: never took effect.
                changes.truncate(had);
            }
            if changes.len() > had {
                next = version + 1;
            }
            let ended = (fate > 1).then_some((moment + after, outcome));
            history.push(Call { client: place, op, began: moment - before, ended });
        }
        if let Some((to, from)) = wrong {
            let (to, from) = (to.index(history.len()), from.index(history.len()));
            let other = history[from].ended.as_ref().map(|(_, outcome)| outcome.clone());
            if let (Some((_, told)), Some(other)) = (&mut history[to].ended, other) {
                *told = other;
            }
        }
        history
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn brute_force_agrees(history in any_history()) {
        let known = brute_force(&history, &mut (0..history.len()).collect(), &Changes::new());
        prop_assert_eq!(check(&history).is_ok(), known);
    }
}

// Larger histories of a register that may have a bug.

#[derive(Clone, Copy, PartialEq, Debug)]
enum Bug {
    None,
    StaleRead,
    LostWrite,
    AppliedTwice,
    ConditionIgnored,
    ConflictWrites,
    ReadsTheFuture,
}

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        ((z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 16) % bound
    }
}

/// `count` calls of several clients at once on one register, in which the bug comes up now and then; some calls are
/// never answered.
fn run(seed: u64, bug: Bug, count: u64) -> Vec<Call> {
    let (mut rng, mut changes, mut next) = (Rng(seed), Changes::new(), 0);
    let mut history = Vec::new();
    for place in 0..count {
        let last = changes.last().map_or(0, |(version, _)| *version);
        let value = format!("value {place}");
        let mut op = match rng.below(10) {
            0..4 => Op::Get,
            4..6 => put(&value, ALWAYS),
            6 => put(&value, at(last)),
            7 => put(&value, at(last.saturating_sub(rng.below(3)))),
            8 => put(&value, Condition::Absent),
            _ => Op::Delete { condition: ALWAYS },
        };
        next += 1 + rng.below(3);
        let moment = (place + 1) * 100;
        let now = bug != Bug::None && rng.below(20) == 0;
        let before = changes.clone();
        let asked = op.clone();
        if now
            && bug == Bug::ConditionIgnored
            && let Op::Put { condition, .. } = &mut op
        {
            *condition = ALWAYS;
        }
        let mut outcome = step(&mut changes, &op, next);
        let wrote = changes.len() > before.len();
        match (now, bug) {
            (true, Bug::StaleRead) if op == Op::Get && changes.len() > 3 => {
                let old = changes.len() - 3;
                outcome = step(&mut changes[..old].to_vec(), &op, 0);
            }
            (true, Bug::LostWrite) if wrote => changes = before,
            (true, Bug::AppliedTwice) if wrote => {
                let (_, value) = changes.last().cloned().expect("it wrote");
                next += 1;
                changes.push((next, value));
            }
            (true, Bug::ConflictWrites) if matches!(outcome, Outcome::Conflict(_)) => {
                changes.push((next, Some(value.into_bytes())));
            }
            (true, Bug::ReadsTheFuture) if op == Op::Get => {
                outcome = saw(next + 1, changes.len() as u64 + 1, &format!("value {}", place + 9));
            }
            _ => {}
        }
        let ended = moment + rng.below(500);
        let ended = (rng.below(30) != 0).then_some((ended, outcome));
        let began = moment - rng.below(100.min(moment)) - rng.below(300.min(moment - 99));
        history.push(Call { client: (place % 5) as usize, op: asked, began, ended });
    }
    history
}

#[test]
fn a_register_without_a_bug_is_linearizable() {
    for seed in 0..100 {
        if let Err(violation) = check(&run(seed, Bug::None, 400)) {
            panic!("seed {seed}: {violation}");
        }
    }
}

#[test]
fn planted_bugs_are_found() {
    use Bug::*;
    for bug in
        [StaleRead, LostWrite, AppliedTwice, ConditionIgnored, ConflictWrites, ReadsTheFuture]
    {
        for seed in 0..10 {
            let found = check(&run(seed, bug, 400));
            assert!(
                matches!(found, Err(Violation::NotLinearizable { .. })),
                "{bug:?}, seed {seed}: {found:?}"
            );
        }
    }
}
