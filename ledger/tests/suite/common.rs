//! What several tests share: strategies that draw entries, and a small ledger with all kinds in it.

use proptest::prelude::*;
use tradewind_ledger::note::Ed25519Signer;
use tradewind_ledger::*;

/// Any entry that has an encoding.
pub(crate) fn entry() -> impl Strategy<Value = Entry> {
    let stamp = (any::<u64>().prop_map(Hlc), any::<u64>().prop_map(ViewId));
    let stamped = (stamp, body()).prop_map(|((hlc, view), body)| match body {
        Body::Genesis(genesis) => genesis.into_entry(),
        Body::View(record) => Entry { hlc, view, body: Body::View(ViewRecord { view, ..record }) },
        body => Entry { hlc, view, body },
    });
    stamped.prop_filter("an entry that fits", |entry| entry.to_bytes().is_ok())
}

fn body() -> impl Strategy<Value = Body> {
    let put = (request(), update(value().prop_map(Some).boxed()))
        .prop_map(|(request, update)| Body::Put(Write { request, update }));
    let delete = (request(), update(Just(None).boxed()))
        .prop_map(|(request, update)| Body::Delete(Write { request, update }));
    let updates = prop::collection::vec(update(prop::option::of(value()).boxed()), 0..5);
    let txn = (request(), updates).prop_map(|(request, mut updates)| {
        updates.sort_by(|a, b| a.key.cmp(&b.key));
        updates.dedup_by(|a, b| a.key == b.key);
        Body::Txn(Txn { request, updates })
    });
    let view = members().prop_map(|members| Body::View(ViewRecord { view: ViewId(0), members }));
    prop_oneof![
        put,
        delete,
        txn,
        seal().prop_map(Body::Seal),
        view,
        snapshot().prop_map(Body::Snapshot),
        genesis().prop_map(Body::Genesis)
    ]
}

fn snapshot() -> impl Strategy<Value = SnapshotRecord> {
    (1..=u64::MAX, digest(), 1..=u32::MAX, any::<u32>()).prop_map(|(size, root, chunks, more)| {
        let bytes = u64::from(chunks) + u64::from(more);
        SnapshotRecord { size: Version(size), root, chunks, bytes }
    })
}

fn request() -> impl Strategy<Value = RequestId> {
    (any::<u128>(), any::<u64>()).prop_map(|(session, number)| RequestId {
        session: SessionId(session),
        number: RequestNumber(number),
    })
}

fn value() -> impl Strategy<Value = Value> {
    let inline = prop::collection::vec(any::<u8>(), 0..80).prop_map(Value::Inline);
    let detached = (0..=entry::MAX_VALUE, digest());
    prop_oneof![inline, detached.prop_map(|(len, digest)| Value::Detached { len, digest })]
}

fn update(value: BoxedStrategy<Option<Value>>) -> impl Strategy<Value = Update> {
    let history = prop_oneof![
        Just((1, None)),
        (2..=u64::MAX, 0..u64::MAX).prop_map(|(version, prev)| (version, Some(prev)))
    ];
    (prop::collection::vec(any::<u8>(), 1..40), history, value).prop_map(
        |(key, (key_version, prev), value)| Update {
            key,
            key_version: KeyVersion(key_version),
            prev_version: prev.map(Version),
            value,
        },
    )
}

pub(crate) fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn seal() -> impl Strategy<Value = Seal> {
    let numbers = (any::<u64>(), any::<u64>(), 1..=u32::MAX, any::<[u64; 3]>());
    (numbers, digest(), digest(), digest()).prop_map(
        |((segment, first, count, [a, b, c]), prev_seal, root_before, keys_root)| Seal {
            segment,
            first: Version(first),
            count,
            prev_seal,
            root_before,
            keys_root,
            hlc_first: Hlc(a),
            hlc_last: Hlc(b),
            policy_epoch: c,
        },
    )
}

fn members() -> impl Strategy<Value = Vec<Member>> {
    (1_usize..6, any::<[u8; 31]>()).prop_map(|(count, tail)| {
        let member = |rank| {
            let mut public_key = [rank as u8; 32];
            public_key[1..].copy_from_slice(&tail);
            Member { name: format!("a{rank}"), public_key }
        };
        (0..count).map(member).collect()
    })
}

fn genesis() -> impl Strategy<Value = Genesis> {
    ("[a-z0-9-]{1,63}", "[a-z0-9-]{1,63}", "[a-z0-9-]{1,63}", any::<u32>(), members()).prop_map(
        |(deployment, site, pool, shard, members)| Genesis {
            deployment,
            site,
            ledger: LedgerId::new(&pool, shard).unwrap(),
            members,
        },
    )
}

/// The secret keys of a site with three nodes; fixed, for tests only.
pub(crate) fn signers() -> [Ed25519Signer; 3] {
    [1, 2, 3].map(|rank| Ed25519Signer::from_seed(&[rank; 32]))
}

/// A fixed genesis with the keys of [`signers`].
pub(crate) fn golden_genesis() -> Genesis {
    let member = |(rank, signer): (usize, Ed25519Signer)| Member {
        name: format!("a{}", rank + 1),
        public_key: signer.public_key(),
    };
    Genesis {
        deployment: "atlas".into(),
        site: "ams".into(),
        ledger: "flights.0".parse().unwrap(),
        members: signers().into_iter().enumerate().map(member).collect(),
    }
}

/// The entries of a small ledger with every kind in it and two segments.
pub(crate) fn golden_entries() -> Vec<Vec<u8>> {
    let genesis = golden_genesis();
    let members = genesis.members.clone();
    let mut replay = Replay::new();
    let mut entries = Vec::new();
    let mut add = |replay: &mut Replay, view: u64, body: Option<Body>| {
        let hlc = Hlc::from_micros(1_700_000_000_000_000 + entries.len() as u64 * 250);
        let entry = match body {
            Some(Body::Genesis(genesis)) => genesis.into_entry(),
            Some(body) => Entry { hlc, view: ViewId(view), body },
            None => replay.segment().make_seal(hlc, ViewId(view)),
        };
        let bytes = entry.to_bytes().unwrap();
        replay.push(&bytes).unwrap();
        entries.push(bytes);
    };
    let request = |number| RequestId {
        session: SessionId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        number: RequestNumber(number),
    };
    let update = |key: &str, key_version, prev: Option<u64>, value| Update {
        key: key.into(),
        key_version: KeyVersion(key_version),
        prev_version: prev.map(Version),
        value,
    };
    let inline = |text: &str| Some(Value::Inline(text.into()));
    let detached =
        Some(Value::Detached { len: 100_000, digest: tree::value_digest(&[b'x'; 100_000]) });
    let put = |number, update| Body::Put(Write { request: request(number), update });
    add(&mut replay, 0, Some(Body::Genesis(genesis)));
    add(&mut replay, 1, Some(Body::View(ViewRecord { view: ViewId(1), members })));
    add(&mut replay, 1, Some(put(1, update("AMS", 1, None, inline("Schiphol")))));
    add(&mut replay, 1, Some(put(2, update("LHR", 1, None, detached.clone()))));
    add(&mut replay, 1, None);
    let gone = Write { request: request(3), update: update("LHR", 2, Some(3), None) };
    add(&mut replay, 1, Some(Body::Delete(gone)));
    let updates = vec![
        update("AMS", 2, Some(2), None),
        update("FRA", 1, None, inline("")),
        update("LHR", 3, Some(5), detached),
    ];
    add(&mut replay, 1, Some(Body::Txn(Txn { request: request(4), updates })));
    add(&mut replay, 1, None);
    entries
}
