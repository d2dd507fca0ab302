//! A command without its large values has the same effect as the whole one.

use bytes::Bytes;
use proptest::prelude::*;
use tradewind_ledger::{Hlc, RequestId, RequestNumber, SessionId, ViewId, entry::MAX_INLINE_VALUE};
use tradewind_store::{
    Command, Compare, Condition, Context, Lean, Outcome, Store, Test, TxnOp, session_id,
};

/// Values on both sides of what an entry holds, few enough to be compared with success now and then.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let len =
        prop_oneof![Just(3), Just(MAX_INLINE_VALUE), Just(MAX_INLINE_VALUE + 1), Just(50_000)];
    (len, 0u8..3).prop_map(|(len, fill)| vec![fill; len])
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    (0u8..3).prop_map(|key| vec![b'k', key])
}

fn compare() -> impl Strategy<Value = Compare> {
    let test = prop_oneof![any::<bool>().prop_map(Test::Exists), value().prop_map(Test::Value)];
    (key(), test).prop_map(|(key, test)| Compare { key, test })
}

fn branch() -> impl Strategy<Value = Vec<TxnOp>> {
    let op = prop_oneof![
        3 => (key(), value()).prop_map(|(key, value)| TxnOp::Put { key, value }),
        1 => key().prop_map(|key| TxnOp::Delete { key }),
        1 => key().prop_map(|key| TxnOp::Get { key }),
    ];
    proptest::collection::vec(op, 0..3)
}

fn command() -> impl Strategy<Value = Command> {
    let condition = prop_oneof![Just(Condition::Always), Just(Condition::Absent)];
    let plain = prop_oneof![
        (key(), value(), condition).prop_map(|(key, value, condition)| Command::Put {
            key,
            value,
            condition
        }),
        (proptest::collection::vec(compare(), 0..2), branch(), branch())
            .prop_map(|(compare, then, otherwise)| Command::Txn { compare, then, otherwise }),
        key().prop_map(|key| Command::Delete { key, condition: Condition::Always }),
    ];
    (plain, any::<bool>()).prop_map(|(plain, settle)| match settle {
        true => Command::Settle { command: plain.encode() },
        false => plain,
    })
}

fn context(store: &Store, number: u64) -> Context {
    let version = store.next();
    let session = SessionId(session_id(Hlc(1), 7).0);
    let request = RequestId { session, number: RequestNumber(number) };
    Context { version, hlc: Hlc(version.0 + 2), view: ViewId(1), request }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Entries, answers and states are the same; the bodies are what the entry mentions, and others that it does not.
    #[test]
    fn a_lean_command_does_what_the_whole_one_does(
        commands in proptest::collection::vec((command(), 1u64..12), 1..24),
    ) {
        let (mut whole, mut lean) = (Store::new(), Store::new());
        for (command, number) in commands {
            let encoded = Bytes::from(command.encode());
            let Some((small, bodies)) = Lean::split(&encoded) else {
                let [first, second] = [&mut whole, &mut lean]
                    .map(|store| store.execute(context(store, number), command.clone()));
                prop_assert_eq!(first, second);
                continue;
            };
            let small = Lean::decode(&small.encode()).expect("just encoded");
            let named: Vec<_> = small.apart().map(|apart| (apart.len, apart.digest)).collect();
            let held: Vec<_> =
                bodies.iter().map(|body| (body.bytes.len() as u64, body.digest)).collect();
            prop_assert_eq!(named, held);
            prop_assert!(small.encode().len() < 2 * MAX_INLINE_VALUE * 6);
            let Outcome { entry, detached, reply } =
                whole.execute(context(&whole, number), command);
            let found = lean.execute_lean(context(&lean, number), small);
            prop_assert_eq!((entry, reply), (found.entry, found.reply));
            for (digest, value) in detached {
                let carried = bodies.iter().any(|body| body.digest == digest && body.bytes == value);
                let inside = found.detached.iter().any(|held| *held == (digest, value.clone()));
                prop_assert!(carried || inside);
            }
        }
        prop_assert_eq!(whole, lean);
    }

    #[test]
    fn rubbish_is_no_lean_command(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Lean::decode(&bytes);
        let _ = Lean::split(&Bytes::from(bytes));
    }
}

#[test]
fn a_put_is_split_without_a_copy() {
    let value = vec![7; MAX_INLINE_VALUE + 1];
    let put = Command::Put { key: b"k".to_vec(), value, condition: Condition::Always };
    for command in [put.clone(), Command::Settle { command: put.encode() }] {
        let encoded = Bytes::from(command.encode());
        let (_, bodies) = Lean::split(&encoded).expect("a large value");
        let within = encoded.as_ptr_range();
        assert!(bodies.iter().all(|body| within.contains(&body.bytes.as_ptr())));
    }
    let small =
        Command::Put { key: b"k".to_vec(), value: vec![7; 9], condition: Condition::Always };
    assert!(Lean::split(&Bytes::from(small.encode())).is_none());
}
