//! A store against a naive model, and execution against application of the entries it made.

use proptest::{collection::vec, option, prelude::*, sample::select};
use std::collections::{BTreeMap, BTreeSet};
use tradewind_ledger::{
    Entry, Hlc, KeyVersion, RequestId, RequestNumber, SessionId, Value, Version, ViewId,
    entry::{MAX_ENTRY, MAX_INLINE_VALUE},
};
use tradewind_store::{
    BrokenChain, Command, Compare, Condition, Context, Current, Item, ItemValue, Outcome, Refusal,
    Reply, Stamp, Store, Test, TimeSearch, TxnOp, TxnResult, value_in,
};

type Bytes = Vec<u8>;

/// All changes of all keys: what a store is, written down without any thought of speed.
#[derive(Default)]
struct Model {
    changes: BTreeMap<Bytes, Vec<(Version, Option<Bytes>)>>,
}

impl Model {
    fn at(&self, key: &[u8], at: Version) -> Option<(Version, KeyVersion, &Bytes)> {
        let mut changes = self.changes.get(key)?.iter().filter(|(version, _)| *version < at);
        let count = changes.clone().count() as u64;
        let (version, value) = changes.next_back()?;
        Some((*version, KeyVersion(count), value.as_ref()?))
    }

    fn write(&mut self, key: &[u8], version: Version, value: Option<Bytes>) -> KeyVersion {
        let changes = self.changes.entry(key.to_vec()).or_default();
        changes.push((version, value));
        KeyVersion(changes.len() as u64)
    }

    fn current(&self, key: &[u8]) -> Option<Current> {
        let (version, key_version, _) = self.at(key, Version(u64::MAX))?;
        Some(Current { version, key_version })
    }

    /// The reply due to a command, with values of reads as they were.
    fn execute(&mut self, version: Version, hlc: Hlc, command: &Command) -> Reply {
        let written = |key_version| Reply::Written { version, key_version, hlc };
        let holds = |current: Option<Current>, condition| match condition {
            Condition::Always => true,
            Condition::Absent => current.is_none(),
            Condition::Version(version) => current.is_some_and(|c| c.version == version),
        };
        match command {
            Command::Put { key, value, condition } => match self.current(key) {
                current if holds(current, *condition) => {
                    written(self.write(key, version, Some(value.clone())))
                }
                current => Reply::Conflict { current },
            },
            Command::Delete { key, condition } => match self.current(key) {
                current if !holds(current, *condition) => Reply::Conflict { current },
                None => Reply::Absent,
                Some(_) => written(self.write(key, version, None)),
            },
            Command::Txn { compare, then, otherwise } => {
                let test = |Compare { key, test }: &Compare| match (test, self.current(key)) {
                    (Test::Exists(wanted), current) => *wanted == current.is_some(),
                    (_, None) => false,
                    (Test::Version(version), Some(current)) => current.version == *version,
                    (Test::KeyVersion(version), Some(current)) => current.key_version == *version,
                    // Entries here are less than a microsecond apart.
                    (Test::OlderThan(micros), Some(_)) => *micros == 0,
                    (Test::YoungerThan(micros), Some(_)) => *micros > 0,
                    (Test::Value(value), Some(_)) => {
                        self.at(key, Version(u64::MAX)).is_some_and(|(_, _, v)| v == value)
                    }
                };
                let succeeded = compare.iter().all(test);
                let branch = if succeeded { then } else { otherwise };
                let mut wrote = None;
                let results = branch.iter().map(|operation| match operation {
                    TxnOp::Get { key } => {
                        TxnResult::Read(self.at(key, version).map(|found| Item {
                            version: found.0,
                            key_version: found.1,
                            hlc: Hlc(found.0.0 + 1),
                            value: ItemValue::Inline(found.2.as_slice().into()),
                        }))
                    }
                    TxnOp::Put { key, value } => {
                        wrote = Some(Stamp { version, hlc });
                        TxnResult::Written {
                            key_version: self.write(key, version, Some(value.clone())),
                        }
                    }
                    TxnOp::Delete { key } => {
                        wrote = Some(Stamp { version, hlc });
                        TxnResult::Written { key_version: self.write(key, version, None) }
                    }
                });
                let results = results.collect();
                Reply::Txn { succeeded, written: wrote, results }
            }
            Command::Settle { command } => {
                let command = Command::decode(command).expect("a command");
                self.execute(version, hlc, &command)
            }
        }
    }
}

/// The whole of a shard: its state, its ledger, its values beside the ledger.
#[derive(Clone, Default)]
struct Shard {
    store: Store,
    entries: Vec<Vec<u8>>,
    detached: BTreeMap<[u8; 32], Bytes>,
}

impl Shard {
    fn execute(&mut self, request: RequestId, command: Command) -> Reply {
        let version = self.store.next();
        let hlc = Hlc(version.0 + 1);
        let context = Context { version, hlc, view: ViewId(1), request };
        let sent = command.clone();
        let Outcome { entry, detached, reply } = self.store.execute(context, command);
        self.detached.extend(detached.into_iter().map(|(digest, value)| (digest.0, value)));
        if let Some(entry) = entry {
            let mut bytes = Vec::new();
            entry.encode(&mut bytes).expect("an entry that fits");
            assert!(bytes.len() <= MAX_ENTRY);
            self.entries.push(bytes);
        }
        assert_eq!(self.store.next(), Version(self.entries.len() as u64));
        self.inlined(reply, &sent)
    }

    /// The bytes behind a value that is told by its place.
    fn bytes(&self, key: &[u8], item: &Item) -> Bytes {
        match &item.value {
            ItemValue::Inline(bytes) => bytes.to_vec(),
            ItemValue::Detached { length, digest } => {
                let value = self.detached[&digest.0].clone();
                assert_eq!(value.len() as u64, *length);
                value
            }
            ItemValue::Logged => {
                let entry =
                    Entry::decode(&self.entries[item.version.0 as usize]).expect("an entry");
                match value_in(&entry, key).expect("the entry wrote the key") {
                    Value::Inline(bytes) => bytes.clone(),
                    Value::Detached { digest, .. } => self.detached[&digest.0].clone(),
                }
            }
        }
    }

    /// An entry out of the ledger, for what the store does not have in memory.
    fn read(&self, version: Version) -> Result<Entry, BrokenChain> {
        Ok(Entry::decode(&self.entries[version.0 as usize]).expect("an entry"))
    }

    fn get(&self, key: &[u8], at: Version) -> Option<(Version, KeyVersion, Hlc, Bytes)> {
        let found = self.store.get(key, at);
        let item = found.or_else(|walk| walk.item(at, |entry| self.read(entry)));
        let item = item.expect("the chain is whole")?;
        Some((item.version, item.key_version, item.hlc, self.bytes(key, &item)))
    }

    /// Whether every read has the same answer as that of another.
    fn answers_as(&self, other: &Self) -> Result<(), TestCaseError> {
        let end = other.store.next().0;
        let keys: BTreeSet<Bytes> = other
            .store
            .list(b"", None, 100, Version(end))
            .items
            .into_iter()
            .map(|(k, _)| k)
            .collect();
        for at in (0..=end).map(Version) {
            for key in &keys {
                prop_assert_eq!(self.get(key, at), other.get(key, at));
                for limit in [1, 3, 100] {
                    let (due, _) = other.store.history(key, at, limit);
                    let (known, walk) = self.store.history(key, at, limit);
                    let found = match walk {
                        None => known,
                        Some(walk) => {
                            let read = |entry| self.read(entry);
                            walk.history(known, at, limit, read).expect("whole").0
                        }
                    };
                    prop_assert_eq!(found, due);
                }
            }
            let listed = |shard: &Self| -> Vec<(Bytes, Version)> {
                let page = shard.store.list(b"", None, 100, at);
                let found = page.items.into_iter().filter_map(|(key, item)| {
                    let item = item.map(Some);
                    let item = item.or_else(|walk| walk.item(at, |entry| shard.read(entry)));
                    Some((key, item.expect("whole")?.version))
                });
                found.collect()
            };
            prop_assert_eq!(listed(self), listed(other));
            for hlc in [Hlc(at.0), Hlc(at.0 + 1)] {
                let search =
                    |search: TimeSearch| search.find(Version::ZERO, |entry| self.read(entry));
                let found = self.store.version_at(hlc).or_else(search).expect("whole");
                prop_assert_eq!(Ok(found), other.store.version_at(hlc));
            }
        }
        Ok(())
    }

    /// A reply with the bytes of all values that `command` read.
    fn inlined(&self, reply: Reply, command: &Command) -> Reply {
        let Reply::Txn { succeeded, written, results } = reply else { return reply };
        let Ok((Command::Txn { then, otherwise, .. }, _)) = command.clone().unwrap_settle() else {
            panic!("{command:?} is no transaction")
        };
        let branch = if succeeded { then } else { otherwise };
        let inline = |(operation, result): (&TxnOp, _)| match result {
            TxnResult::Read(Some(item)) => {
                let value = ItemValue::Inline(self.bytes(operation.key(), &item).into());
                TxnResult::Read(Some(Item { value, ..item }))
            }
            other => other,
        };
        let results = branch.iter().zip(results).map(inline).collect();
        Reply::Txn { succeeded, written, results }
    }
}

fn key() -> impl Strategy<Value = Bytes> {
    select(vec![
        b"a".to_vec(),
        b"ab".to_vec(),
        b"b".to_vec(),
        vec![0],
        vec![255, 255],
        b"c".to_vec(),
    ])
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..20),
        1 => any::<u8>().prop_map(|byte| vec![byte; MAX_INLINE_VALUE]),
        1 => any::<u8>().prop_map(|byte| vec![byte; MAX_INLINE_VALUE + 1]),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        3 => Just(Condition::Always),
        1 => Just(Condition::Absent),
        1 => (0..40_u64).prop_map(|v| Condition::Version(Version(v))),
    ]
}

fn branch() -> impl Strategy<Value = Vec<TxnOp>> {
    let gets = vec(key().prop_map(|key| TxnOp::Get { key }), 0..2);
    let writes = proptest::collection::btree_map(key(), option::of(value()), 0..4);
    (gets, writes).prop_map(|(gets, writes)| {
        let write = |(key, value)| match value {
            Some(value) => TxnOp::Put { key, value },
            None => TxnOp::Delete { key },
        };
        gets.into_iter().chain(writes.into_iter().map(write)).collect()
    })
}

fn command() -> impl Strategy<Value = Command> {
    let test = prop_oneof![
        any::<bool>().prop_map(Test::Exists),
        (0_u64..2).prop_map(Test::OlderThan),
        (0_u64..2).prop_map(Test::YoungerThan),
        (0..40_u64).prop_map(|v| Test::Version(Version(v))),
        (1..5_u64).prop_map(|v| Test::KeyVersion(KeyVersion(v))),
        value().prop_map(Test::Value),
    ];
    let compare = vec((key(), test).prop_map(|(key, test)| Compare { key, test }), 0..3);
    prop_oneof![
        4 => (key(), value(), condition())
            .prop_map(|(key, value, condition)| Command::Put { key, value, condition }),
        2 => (key(), condition()).prop_map(|(key, condition)| Command::Delete { key, condition }),
        2 => (compare, branch(), branch())
            .prop_map(|(compare, then, otherwise)| Command::Txn { compare, then, otherwise }),
    ]
}

/// Commands, some of them sent as if for the second time.
fn sent() -> impl Strategy<Value = Command> {
    (command(), any::<bool>()).prop_map(|(command, again)| match again {
        true => Command::Settle { command: command.encode() },
        false => command,
    })
}

fn request(number: usize) -> RequestId {
    RequestId { session: SessionId((1 << 64) + 5), number: RequestNumber(number as u64) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_store_answers_as_the_model_does_at_every_version(
        commands in vec(sent(), 1..40), repeat in any::<prop::sample::Index>(),
    ) {
        let mut shard = Shard::default();
        let mut model = Model::default();
        let mut replies = Vec::new();
        for (number, command) in commands.iter().enumerate() {
            if command.check().is_err() {
                let reply = shard.execute(request(number), command.clone());
                prop_assert!(matches!(reply, Reply::Refused(_)));
                replies.push((shard.store.next(), reply));
                continue;
            }
            let version = shard.store.next();
            let due = model.execute(version, Hlc(version.0 + 1), command);
            let reply = shard.execute(request(number), command.clone());
            prop_assert_eq!(&reply, &due);
            replies.push((version, reply));
        }
        // A repeated request that made an entry gets its first reply and has no effect, however old it is, and whether
        // or not it says that it is sent once more.
        let number = repeat.index(commands.len());
        let (version, first) = &replies[number];
        let (plain, settled) = match &commands[number] {
            Command::Settle { command } => (Command::decode(command), true),
            plain => (Ok(plain.clone()), false),
        };
        let wrote = matches!(first, Reply::Written { .. } | Reply::Txn { written: Some(_), .. });
        let refused = matches!(first, Reply::Refused(_));
        if let Ok(plain) = plain && (wrote || settled) && !refused {
            let before = shard.store.clone();
            for again in [plain.clone(), Command::Settle { command: plain.encode() }] {
                let reply = shard.execute(request(number), again);
                let lost = Reply::Refused(Refusal::AnswerLost {
                    number: RequestNumber(number as u64), version: *version,
                });
                prop_assert!(reply == *first || (!wrote && reply == lost), "{:?}", reply);
                let compares_values = matches!(&plain, Command::Txn { compare, .. }
                    if compare.iter().any(|compare| matches!(compare.test, Test::Value(_))));
                prop_assert!(reply == *first || compares_values);
            }
            prop_assert!(shard.store == before);
            let other = Command::Put { key: b"z".to_vec(), value: vec![], condition: Condition::Always };
            let refused = shard.execute(request(number), other);
            prop_assert!(matches!(refused, Reply::Refused(_)), "{:?}", refused);
        }
        for at in 0..=shard.store.next().0 {
            let at = Version(at);
            for key in model.changes.keys() {
                let item = shard.store.get(key, at).expect("nothing was compacted");
                let found = item.as_ref().map(|item| (item.version, item.key_version, shard.bytes(key, item)));
                prop_assert_eq!(found, model.at(key, at).map(|(v, k, b)| (v, k, b.clone())));
            }
            for prefix in [&b""[..], b"a", b"\xff"] {
                let page = shard.store.list(prefix, None, 100, at);
                let due: Vec<_> = model.changes.keys().filter(|key| key.starts_with(prefix))
                    .filter(|key| model.at(key, at).is_some()).cloned().collect();
                prop_assert!(page.items.iter().all(|(_, item)| item.is_ok()));
                prop_assert_eq!(page.items.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), due);
                prop_assert_eq!(page.next, None);
            }
        }
        for (key, changes) in &model.changes {
            let (history, earlier) = shard.store.history(key, shard.store.next(), 100);
            prop_assert_eq!(earlier, None);
            let due: Vec<_> = changes.iter().rev().map(|(v, value)| (*v, value.is_none())).collect();
            prop_assert_eq!(history.iter().map(|r| (r.version, r.deleted)).collect::<Vec<_>>(), due);
        }
    }

    #[test]
    fn applying_the_entries_gives_the_same_state(commands in vec(sent(), 1..40)) {
        let mut shard = Shard::default();
        for (number, command) in commands.into_iter().enumerate() {
            shard.execute(request(number), command);
        }
        let mut mirror = Store::new();
        for (version, bytes) in shard.entries.iter().enumerate() {
            let entry = Entry::decode(bytes).expect("what was encoded");
            let before = mirror.clone();
            let wrong = Version(version as u64 + 1);
            prop_assert!(mirror.apply(wrong, &entry).is_err());
            prop_assert!(mirror == before);
            mirror.apply(Version(version as u64), &entry).expect("follows");
            prop_assert!(mirror.apply(wrong, &entry).is_err(), "the same entry does not follow itself");
        }
        prop_assert!(mirror == shard.store);
    }

    #[test]
    fn a_compacted_store_answers_as_the_whole_one_does(
        commands in vec(sent(), 1..60),
        bases in vec(any::<prop::sample::Index>(), 1..4),
        more in vec(sent(), 0..20),
        slice in 1_usize..4,
    ) {
        let mut whole = Shard::default();
        for (number, command) in commands.iter().enumerate() {
            whole.execute(request(number), command.clone());
        }
        let mut compacted = whole.clone();
        let mut bases: Vec<_> = bases.iter().map(|base| Version(base.index(whole.entries.len() + 1) as u64)).collect();
        bases.sort();
        for base in &bases {
            let mut after = None;
            loop {
                after = compacted.store.compact(*base, after.as_deref(), slice);
                compacted.answers_as(&whole)?;
                if after.is_none() { break; }
            }
            prop_assert_eq!(compacted.store.base(), *base);
        }
        // Repeated requests have no effect; an answer is the same or said to be forgotten.
        for (number, command) in commands.iter().enumerate() {
            let (mut one, mut other) = (compacted.clone(), whole.clone());
            let due = other.execute(request(number), command.clone());
            let found = one.execute(request(number), command.clone());
            let gone = matches!(
                found, Reply::Refused(Refusal::AnswerForgotten { .. } | Refusal::AnswerLost { .. })
            );
            prop_assert!(found == due || gone, "{:?} for {:?}", found, due);
            let is_put = matches!(due, Reply::Written { .. });
            prop_assert!(found == due || !is_put, "{:?} for {:?}", found, due);
            prop_assert_eq!(one.entries, other.entries);
        }
        // What comes later comes to the same.
        for (number, command) in (commands.len()..).zip(&more) {
            let due = whole.execute(request(number), command.clone());
            prop_assert_eq!(compacted.execute(request(number), command.clone()), due);
        }
        prop_assert_eq!(&compacted.entries, &whole.entries);
        compacted.answers_as(&whole)?;
        let base = *bases.last().expect("there is one");
        while whole.store.compact(base, None, usize::MAX).is_some() {}
        prop_assert!(compacted.store == whole.store);
    }

    #[test]
    fn a_listing_continues_where_it_ended(keys in proptest::collection::btree_set(vec(0..4_u8, 1..5), 0..60), limit in 1..7_usize) {
        let mut shard = Shard::default();
        for (number, key) in keys.iter().enumerate() {
            let command = Command::Put { key: key.clone(), value: vec![], condition: Condition::Always };
            shard.execute(request(number), command);
        }
        let mut found = Vec::new();
        let mut after: Option<Bytes> = None;
        loop {
            let page = shard.store.list(&[1], after.as_deref(), limit, shard.store.next());
            prop_assert!(page.items.len() <= limit);
            found.extend(page.items.into_iter().map(|(key, _)| key));
            after = page.next;
            if after.is_none() { break; }
        }
        let due: Vec<_> = keys.into_iter().filter(|key| key.starts_with(&[1])).collect();
        prop_assert_eq!(found, due);
    }

    #[test]
    fn any_bytes_are_a_command_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(command) = Command::decode(&bytes) {
            prop_assert_eq!(Command::decode(&command.encode()), Ok(command));
        }
    }

    #[test]
    fn a_command_survives_its_encoding_and_nothing_may_follow(command in sent()) {
        let mut bytes = command.encode();
        if command.check().is_ok() {
            prop_assert_eq!(Command::decode(&bytes), Ok(command));
        }
        bytes.push(0);
        prop_assert!(Command::decode(&bytes).is_err());
        bytes.truncate(bytes.len() - 2);
        prop_assert!(Command::decode(&bytes).is_err());
    }
}
