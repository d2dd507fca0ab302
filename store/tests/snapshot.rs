//! Snapshots: made beside the deliveries, taken up again, and strict about every byte.

use proptest::{collection::vec, prelude::*};
use tradewind_ledger::tree::CompactRange;
use tradewind_ledger::{
    Entry, Hlc, RequestId, RequestNumber, SessionId, Version, ViewId, entry::MAX_INLINE_VALUE,
};
use tradewind_store::{
    BrokenChain, Command, Condition, Context, Item, ItemValue, Store, TxnOp, Walk,
    snapshot::{CHUNK_BYTES, Chunk, Decoder, Encoder, MAX_CHUNK, Pin, SnapshotRule},
    value_in,
};

const ALWAYS: SnapshotRule = SnapshotRule { bytes: 0, entries: 0 };

#[derive(Clone, Default)]
struct Shard {
    store: Store,
    entries: Vec<Entry>,
}

impl Shard {
    fn execute(&mut self, session: u128, number: u64, command: Command) {
        let version = self.store.next();
        let request = RequestId { session: SessionId(session), number: RequestNumber(number) };
        let context = Context { version, hlc: Hlc(version.0 * 10 + 1), view: ViewId(1), request };
        self.entries.extend(self.store.execute(context, command).entry);
    }

    fn put(&mut self, number: u64, key: &[u8], value: Vec<u8>) {
        let condition = Condition::Always;
        self.execute(1 << 64, number, Command::Put { key: key.to_vec(), value, condition });
    }

    /// The chunks of what was pinned, out of the store as it is by now.
    fn chunks(&self, pin: Pin, slice: usize) -> Vec<Chunk> {
        let at = pin.at();
        let mut encoder = Encoder::new(pin);
        let mut chunks = Vec::new();
        let mut after = None;
        loop {
            let (states, next) = self.store.slice(at, after.as_deref(), slice);
            for mut state in states {
                if let Some(item) = &mut state.item
                    && item.value == ItemValue::Logged
                {
                    let entry = &self.entries[item.version.0 as usize];
                    let value = value_in(entry, &state.key).expect("it wrote the key");
                    item.value = value.into();
                }
                encoder.push(&state);
                chunks.extend(encoder.poll_chunk());
            }
            after = next;
            if after.is_none() {
                chunks.extend(encoder.finish());
                return chunks;
            }
        }
    }
}

fn restore(chunks: &[Chunk]) -> Store {
    let mut decoder = Decoder::new();
    for chunk in chunks {
        decoder.push(&chunk.committed, &chunk.values).expect("what was encoded");
    }
    decoder.finish().expect("what was encoded")
}

fn root(chunks: &[Chunk]) -> String {
    let mut tree = CompactRange::new();
    chunks.iter().for_each(|chunk| tree.push(chunk.leaf()));
    tree.root().to_string()
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec![&b"a"[..], b"ab", b"b", b"\0", b"\xff\xff"]).prop_map(<[u8]>::to_vec)
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![8 => vec(any::<u8>(), 0..20), 1 => Just(vec![7; MAX_INLINE_VALUE + 1])]
}

fn command() -> impl Strategy<Value = Command> {
    let condition = Condition::Always;
    prop_oneof![
        4 => (key(), value()).prop_map(move |(key, value)| Command::Put { key, value, condition }),
        2 => key().prop_map(move |key| Command::Delete { key, condition }),
        1 => (key(), value()).prop_map(|(key, value)| Command::Txn {
            compare: vec![], then: vec![TxnOp::Put { key, value }], otherwise: vec![],
        }),
    ]
}

fn requests() -> impl Strategy<Value = Vec<(u128, Command)>> {
    vec((1_u128..4, command()), 1..40)
}

proptest! {
    #[test]
    fn a_restored_store_is_the_one_that_was_pinned_and_goes_on_like_it(
        before in requests(), after in requests(), slice in 1_usize..4,
    ) {
        let mut shard = Shard::default();
        for (number, (session, command)) in (0..).zip(before.iter().cloned()) {
            shard.execute(session << 64, number, command);
        }
        prop_assume!(!shard.entries.is_empty());
        let pin = shard.store.pin_if_due(&ALWAYS).expect("always due");
        prop_assert_eq!(shard.store.pin_if_due(&ALWAYS), None, "nothing is new");
        let at = pin.at();
        let mut due = shard.clone();
        prop_assert_eq!(due.store.compact(at, None, usize::MAX), None);
        let early = shard.chunks(pin.clone(), 100);
        for (number, (session, command)) in (before.len() as u64..).zip(after.iter().cloned()) {
            shard.execute(session << 64, number, command);
        }
        let chunks = shard.chunks(pin, slice);
        prop_assert!(chunks == early, "what came later makes no difference");
        let mut restored = Shard { store: restore(&chunks), entries: due.entries.clone() };
        prop_assert!(restored.store == due.store);
        prop_assert_eq!(restored.store.base(), at);
        // Repeats find what was executed, then everything goes on alike.
        for (number, (session, command)) in (0..).zip(before.into_iter().chain(after)) {
            for shard in [&mut restored, &mut due] {
                shard.execute(session << 64, number, command.clone());
            }
        }
        prop_assert_eq!(&restored.entries, &due.entries);
        prop_assert!(restored.store == due.store);
    }

    #[test]
    fn damage_is_an_error_or_another_snapshot_and_never_a_panic(
        requests in requests(), chunk in any::<prop::sample::Index>(),
        byte in any::<prop::sample::Index>(), flip in 1_u8.., cut in any::<bool>(),
    ) {
        let mut shard = Shard::default();
        for (number, (session, command)) in (0..).zip(requests) {
            shard.execute(session << 64, number, command);
        }
        prop_assume!(!shard.entries.is_empty());
        let pin = shard.store.pin_if_due(&ALWAYS).expect("always due");
        let chunks = shard.chunks(pin, 100);
        let mut damaged = chunks.clone();
        let chunk = &mut damaged[chunk.index(chunks.len())];
        let at = byte.index(chunk.size());
        let committed = chunk.committed.len();
        match at.checked_sub(committed) {
            None if cut => chunk.committed.truncate(at),
            Some(at) if cut => chunk.values.truncate(at),
            None => chunk.committed[at] ^= flip,
            Some(at) => chunk.values[at] ^= flip,
        }
        let mut decoder = Decoder::new();
        let pushed = damaged.iter().try_for_each(|c| decoder.push(&c.committed, &c.values));
        if let Ok(mut store) = pushed.and_then(|()| decoder.finish()) {
            // Not to be told from a true one without the root; which would be another.
            prop_assert!(at < committed, "values have digests");
            prop_assert_ne!(root(&damaged), root(&chunks));
            let hlc = store.last_hlc().expect("not empty");
            let seal = (store.next(), Hlc(hlc.0.saturating_add(1)));
            prop_assert!(store.hlc_of(Version(seal.0.0 - 1)) == Some(hlc));
            let _ = store.compact(seal.0, None, 1);
        }
    }
}

#[test]
fn chunks_are_cut_at_a_mebibyte_and_each_is_full_but_the_last_of_its_kind() {
    let mut shard = Shard::default();
    for n in 0..200_u64 {
        shard.put(n, format!("key {n:04}").as_bytes(), vec![n as u8; 20_000]);
    }
    let pin = shard.store.pin_if_due(&SnapshotRule::default());
    assert!(pin.is_none(), "4 MB are too few for the default");
    let pin = shard.store.pin_if_due(&SnapshotRule::every(1 << 20)).expect("due");
    let chunks = shard.chunks(pin, 7);
    assert_eq!(chunks.len(), 1 + 4 + 1);
    assert!(chunks.iter().all(|chunk| chunk.size() <= MAX_CHUNK));
    assert!(chunks[1..4].iter().all(|chunk| chunk.size() >= CHUNK_BYTES));
    assert_eq!(restore(&chunks).stats(), shard.store.stats());
    let mut swapped = Decoder::new();
    swapped.push(&chunks[0].committed, &[]).expect("the first");
    swapped.push(&chunks[2].committed, &chunks[2].values).expect("as if nothing were before it");
    assert!(swapped.push(&chunks[1].committed, &chunks[1].values).is_err(), "keys ascend");
    let mut short = Decoder::new();
    for chunk in [&chunks[0], &chunks[1], &chunks[5]] {
        short.push(&chunk.committed, &chunk.values).expect("a chunk of its kind");
    }
    assert!(short.finish().is_err(), "the first chunk says how many keys there are");
}

#[test]
fn a_snapshot_is_due_only_after_as_much_as_the_state_holds() {
    let mut shard = Shard::default();
    for n in 0..100 {
        shard.put(n, &[n as u8], vec![1; 1_000]);
    }
    let rule = SnapshotRule::every(10_000);
    assert!(shard.store.pin_if_due(&rule).is_some());
    for n in 100..160 {
        shard.put(n, &[0], vec![2; 1_000]);
        assert!(shard.store.pin_if_due(&rule).is_none(), "60 kB written, of 100 kB");
    }
    for n in 160..200 {
        shard.put(n, &[0], vec![2; 1_000]);
    }
    assert!(shard.store.pin_if_due(&rule).is_some());
}

/// The bytes in docs/formats/snapshot.md, for ever.
#[test]
fn the_format_is_the_documented_one() {
    let mut shard = Shard::default();
    shard.put(1, b"a", b"one".to_vec());
    shard.put(2, b"b", vec![5; MAX_INLINE_VALUE + 1]);
    shard.put(3, b"a", b"two".to_vec());
    let condition = Condition::Always;
    shard.execute(1 << 64, 4, Command::Delete { key: b"b".to_vec(), condition });
    let pin = shard.store.pin_if_due(&ALWAYS).expect("due");
    let chunks = shard.chunks(pin, 100);
    let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut text = String::new();
    for chunk in &chunks {
        text += &format!("committed {}\nvalues {}\n", line(&chunk.committed), line(&chunk.values));
    }
    text += &format!("root {}\n", root(&chunks));
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/snapshot.txt");
    if std::env::var_os("TRADEWIND_BLESS").is_some() {
        std::fs::write(file, &text).expect("written");
    }
    assert_eq!(text, std::fs::read_to_string(file).expect("the golden file"));
}

#[test]
fn a_walk_tells_a_ledger_that_does_not_fit() {
    let mut shard = Shard::default();
    shard.put(1, b"a", b"one".to_vec());
    shard.put(2, b"a", b"two".to_vec());
    assert_eq!(shard.store.compact(Version(2), None, 1_000), None);
    let walk: Walk = shard.store.get(b"a", Version(1)).expect_err("it was let go");
    let found = walk.clone().item(Version(1), |version| {
        Ok::<_, BrokenChain>(shard.entries[version.0 as usize].clone())
    });
    let value = |item: Item| item.bytes().map(|bytes| bytes.to_vec());
    assert_eq!(found.expect("whole").and_then(value), Some(b"one".to_vec()));
    let other = shard.entries[0].clone();
    assert!(walk.item(Version(1), |_| Ok::<_, BrokenChain>(other.clone())).is_err());
}
