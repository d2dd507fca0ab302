//! Exact limits of commands, and entries that do not follow.

use tradewind_ledger::{
    Body, Entry, Hlc, KeyVersion, RequestId, RequestNumber, SessionId, Update, Value, Version,
    ViewId, Write,
    entry::{MAX_ENTRY, MAX_INLINE_VALUE, MAX_KEY, MAX_VALUE},
};
use tradewind_store::{
    ApplyFault, Command, CommandError, Compare, Condition, Context, MAX_TXN_OPS, Refusal, Reply,
    Store, Test, TxnOp, WINDOW, session_id,
};

fn put(key: &[u8], value: &[u8]) -> Command {
    Command::Put { key: key.to_vec(), value: value.to_vec(), condition: Condition::Always }
}

fn txn(then: Vec<TxnOp>) -> Command {
    Command::Txn { compare: vec![], then, otherwise: vec![] }
}

fn txn_put(key: &[u8], value: Vec<u8>) -> TxnOp {
    TxnOp::Put { key: key.to_vec(), value }
}

fn context(store: &Store, number: u64) -> Context {
    let request = RequestId { session: session_id(Hlc(1), 1), number: RequestNumber(number) };
    Context { version: store.next(), hlc: Hlc(store.next().0 + 1), view: ViewId(1), request }
}

#[test]
fn keys_have_1_to_4096_bytes_of_any_kind() {
    assert_eq!(put(b"", b"").check(), Err(CommandError::KeyLength(0)));
    assert_eq!(put(&[0], b"").check(), Ok(()));
    assert_eq!(put(&[0xff; MAX_KEY], b"").check(), Ok(()));
    assert_eq!(put(&[0xff; MAX_KEY + 1], b"").check(), Err(CommandError::KeyLength(4097)));
}

#[test]
fn values_have_0_bytes_to_128_mib() {
    let max = usize::try_from(MAX_VALUE).expect("64-bit");
    let largest = put(b"k", &vec![0; max]);
    assert_eq!(Command::decode(&largest.encode()), Ok(largest));
    assert_eq!(put(b"k", &vec![0; max + 1]).check(), Err(CommandError::ValueLength(MAX_VALUE + 1)));
}

#[test]
fn a_refused_command_changes_nothing_and_makes_no_entry() {
    let mut store = Store::new();
    let outcome = store.execute(context(&store, 1), put(b"", b""));
    assert_eq!(outcome.reply, Reply::Refused(Refusal::Command(CommandError::KeyLength(0))));
    assert_eq!(outcome.entry, None);
    assert!(store == Store::new());
}

#[test]
fn a_transaction_is_bounded_and_its_entry_always_fits() {
    let many = |count| (0..count).map(|n: usize| txn_put(&n.to_be_bytes(), vec![])).collect();
    assert_eq!(txn(many(MAX_TXN_OPS)).check(), Ok(()));
    assert_eq!(txn(many(MAX_TXN_OPS + 1)).check(), Err(CommandError::TxnLength(129)));
    let long_keys = (0..16).map(|n| txn_put(&[n; MAX_KEY], vec![])).collect();
    assert!(matches!(txn(long_keys).check(), Err(CommandError::TxnTooLarge(_))));

    // Each value would be inline alone; together they outgrow an entry and are detached.
    let mut store = Store::new();
    let large = (0..100).map(|n| txn_put(&[n], vec![n; MAX_INLINE_VALUE])).collect();
    let outcome = store.execute(context(&store, 1), txn(large));
    let mut bytes = Vec::new();
    outcome.entry.expect("an entry").encode(&mut bytes).expect("it fits");
    assert!(bytes.len() <= MAX_ENTRY);
    assert_eq!(outcome.detached.len(), 100);
}

#[test]
fn a_branch_writes_a_key_once_and_branches_differ() {
    let twice = txn(vec![txn_put(b"k", vec![1]), TxnOp::Delete { key: b"k".to_vec() }]);
    let error = twice.check().expect_err("twice");
    assert_eq!(
        error.to_string(),
        "a transaction's branch writes the key \"k\" twice; write it once"
    );
    let same = Command::Txn {
        compare: vec![],
        then: vec![txn_put(b"a", vec![1]), txn_put(b"b", vec![2])],
        otherwise: vec![txn_put(b"b", vec![2]), txn_put(b"a", vec![1])],
    };
    assert_eq!(same.check(), Err(CommandError::SameBranches));
}

#[test]
fn a_transaction_over_shards_is_refused_and_told_how_to_co_locate() {
    let compare = vec![Compare { key: b"a".to_vec(), test: Test::Exists(false) }];
    let command = |key: &[u8]| Command::Txn {
        compare: compare.clone(),
        then: vec![txn_put(key, vec![])],
        otherwise: vec![],
    };
    let error = command(b"ams").shard(1000).expect_err("different shards");
    assert_eq!(
        error.to_string(),
        "a transaction's keys lie in different shards: \"a\" in 510, \"ams\" in 231; keys with the same part in braces, \
         as in order/{alice}/1 and cart/{alice}, share a shard"
    );
    assert_eq!(command(b"{a}/ams").shard(1000), Ok(510));
    assert_eq!(command(b"ams").shard(1), Ok(0));
}

#[test]
fn a_request_is_answered_once_and_refused_beyond_the_window() {
    let mut store = Store::new();
    let first = store.execute(context(&store, 1), put(b"k", b"1")).reply;
    assert_eq!(store.execute(context(&store, 1), put(b"k", b"1")).reply, first);
    let other = store.execute(context(&store, 1), put(b"k", b"2")).reply;
    let (number, version) = (RequestNumber(1), Version(0));
    assert_eq!(other, Reply::Refused(Refusal::OtherBody { number, version }));
    let highest = RequestNumber(WINDOW + 1);
    store.execute(context(&store, highest.0), put(b"k", b"3"));
    let late = store.execute(context(&store, 1), put(b"k", b"1")).reply;
    assert_eq!(late, Reply::Refused(Refusal::Expired { number, highest }));
}

#[test]
fn a_late_copy_of_a_request_that_was_settled_has_no_effect() {
    let mut store = Store::new();
    let condition = Condition::Absent;
    let first = Command::Put { key: b"k".to_vec(), value: b"late".to_vec(), condition };
    store.execute(context(&store, 1), put(b"k", b"1"));
    // The client does not know what became of it, and sends it again: the key exists, so nothing is written.
    let again = Command::Settle { command: first.encode() };
    let outcome = store.execute(context(&store, 2), again.clone());
    assert!(
        matches!(outcome.reply, Reply::Conflict { current: Some(current) } if current.version == Version(0))
    );
    assert!(outcome.entry.is_some(), "that it was executed is written down");
    // Now the condition comes true, and then the first copy arrives.
    let delete = Command::Delete { key: b"k".to_vec(), condition: Condition::Always };
    store.execute(context(&store, 3), delete);
    let late = store.execute(context(&store, 2), first).reply;
    assert_eq!(late, outcome.reply);
    assert_eq!(store.execute(context(&store, 2), again).reply, outcome.reply);
    assert_eq!(store.next(), Version(3));
}

#[test]
fn only_one_plain_command_can_be_settled() {
    let inner = put(b"k", b"v").encode();
    let twice = Command::settle(&Command::settle(&inner));
    assert!(matches!(Command::decode(&twice), Err(CommandError::Malformed(_))));
    let long = Command::settle(&[&inner[..], &[0]].concat());
    assert!(matches!(Command::decode(&long), Err(CommandError::Malformed(_))));
    let deep = (0..10_000).fold(inner, |inner, _| Command::settle(&inner));
    assert!(matches!(Command::decode(&deep), Err(CommandError::Malformed(_))));
}

#[test]
fn an_entry_that_skips_repeats_or_invents_a_change_does_not_follow() {
    let mut store = Store::new();
    for (number, value) in [(1, b"1"), (2, b"2")] {
        store.execute(context(&store, number), put(b"k", value));
    }
    let before = store.clone();
    let entry = |key: &[u8], key_version, prev_version, value| {
        let request = RequestId { session: SessionId(1), number: RequestNumber(1) };
        let key_version = KeyVersion(key_version);
        let update = Update { key: key.to_vec(), key_version, prev_version, value };
        let write = Write { request, update };
        let body =
            if write.update.value.is_some() { Body::Put(write) } else { Body::Delete(write) };
        Entry { hlc: Hlc(9), view: ViewId(1), body }
    };
    let value = || Some(Value::Inline(vec![]));
    let chain_faults = [
        entry(b"k", 2, Some(Version(0)), value()),
        entry(b"k", 3, Some(Version(0)), value()),
        entry(b"k", 4, Some(Version(1)), value()),
        entry(b"k", 1, None, value()),
        entry(b"new", 2, Some(Version(1)), value()),
    ];
    for entry in chain_faults {
        let error = store.apply(Version(2), &entry).expect_err("does not follow");
        assert!(matches!(error.fault, ApplyFault::Chain { .. }), "{error}");
    }
    let nothing =
        store.apply(Version(2), &entry(b"new", 1, None, None)).expect_err("deletes nothing");
    assert!(matches!(nothing.fault, ApplyFault::DeletesNothing { .. }));
    let mut early = entry(b"k", 3, Some(Version(1)), value());
    early.hlc = Hlc(2);
    let early = store.apply(Version(2), &early).expect_err("not later");
    assert_eq!(early.fault, ApplyFault::Time { found: Hlc(2), last: Hlc(2) });
    assert!(store == before);
    store.apply(Version(2), &entry(b"k", 3, Some(Version(1)), value())).expect("follows");
}

#[test]
fn the_key_of_a_put_is_what_decoding_gives() {
    let put = |key: &[u8], value: &[u8], condition| {
        Command::Put { key: key.to_vec(), value: value.to_vec(), condition }.encode()
    };
    let delete = Command::Delete { key: b"k".to_vec(), condition: Condition::Always }.encode();
    let good = put(b"key", &[7; 300], Condition::Version(Version(9)));
    let cut = good[..good.len() - 1].to_vec();
    let longer = [&good[..], b"!"].concat();
    let keyless = put(b"", b"v", Condition::Always);
    let settled = Command::settle(&good);
    for bytes in [good, delete, cut, longer, keyless, settled, Vec::new()] {
        let is_put = |command: &Command| matches!(command, Command::Put { .. });
        match (Command::decode(&bytes), Command::key_of_put(&bytes)) {
            (Ok(Command::Put { key, .. }), Some(Ok(found))) => assert_eq!(key, found),
            (Ok(other), None) => assert!(!is_put(&other)),
            (Err(error), Some(Err(found))) => assert_eq!(error, found),
            (Err(CommandError::Malformed(_)), None) => {}
            (decoded, found) => panic!("{decoded:?} but {found:?} of {bytes:?}"),
        }
    }
}
