//! How the members commit a ledger to the snapshots that they made.

use tradewind_ledger::{Body, Digest, Entry, SnapshotRecord, Version};
use tradewind_site_protocol::{Fatal, NodeId};

use crate::harness::{Group, SHARD};

fn record(size: u64, root: u8) -> SnapshotRecord {
    SnapshotRecord { size: Version(size), root: Digest([root; 32]), chunks: 2, bytes: 100 }
}

fn made(group: &mut Group, node: usize, record: SnapshotRecord) {
    let now = group.now();
    group.nodes[node].core.handle_snapshot_made(now, SHARD, record);
    group.settle();
}

/// The SNAPSHOT entries of a node's ledger.
fn snapshots(group: &Group, node: usize) -> Vec<SnapshotRecord> {
    let entries = group.nodes[node].ledgers[0].iter();
    let record = |bytes: &Vec<u8>| match Entry::decode(bytes).expect("an entry").body {
        Body::Snapshot(record) => Some(record),
        _ => None,
    };
    entries.filter_map(record).collect()
}

/// What a node's shell was told to be agreed on.
fn agreed(group: &Group, node: usize) -> Vec<u64> {
    group.nodes[node].agreed.iter().map(|size| size.0).collect()
}

#[test]
fn the_ledger_holds_a_snapshot_once_a_majority_made_it() {
    let mut group = Group::fresh();
    made(&mut group, 2, record(2, 1));
    assert_eq!(snapshots(&group, 0), []);
    made(&mut group, 0, record(2, 1));
    made(&mut group, 1, record(2, 1));
    for node in 0..3 {
        assert_eq!(snapshots(&group, node), [record(2, 1)]);
        assert_eq!(group.nodes[node].core.status().counters.snapshots, 1);
        assert_eq!(group.nodes[node].ledgers[0], group.nodes[0].ledgers[0]);
    }
    group.submit(1, 1, 10).unwrap();
    group.settle();
    assert_eq!(group.nodes[1].answers.len(), 1);
    // A later view knows what the ledger holds, and who made what.
    made(&mut group, 1, record(3, 4));
    group.cut(0, 1);
    group.cut(0, 2);
    group.settle();
    made(&mut group, 2, record(3, 4));
    assert_eq!(snapshots(&group, 1), [record(2, 1), record(3, 4)]);
    // Nobody can be given it before a majority signed for its entry.
    assert_eq!((agreed(&group, 0), agreed(&group, 1)), (vec![2], vec![2]));
    group.pass(3_100_000);
    assert_eq!((agreed(&group, 1), agreed(&group, 2)), (vec![2, 3], vec![2, 3]));
    assert_eq!(snapshots(&group, 2), snapshots(&group, 1));
    assert!(group.nodes.iter().all(|node| node.failed.is_none()));
}

#[test]
fn whoever_made_another_snapshot_than_a_majority_ends_be_it_the_lowest() {
    for odd in 0..3 {
        let mut group = Group::fresh();
        for node in 0..3 {
            made(&mut group, node, record(2, u8::from(node == odd)));
        }
        let [one, two] = [(odd + 1) % 3, (odd + 2) % 3];
        let Some(Fatal::State { differ, .. }) = &group.nodes[odd].failed else {
            panic!("node {odd}: {:?}", group.nodes[odd].failed);
        };
        assert_eq!((differ.root, differ.agreed), (Digest([1; 32]), Digest([0; 32])));
        assert!(group.nodes[odd].failed.as_ref().unwrap().to_string().contains("start it again"));
        assert!(group.nodes[one].failed.is_none() && group.nodes[two].failed.is_none());
        assert_eq!(snapshots(&group, one), [record(2, 0)]);
        assert!(group.nodes[one].differ > 0, "it was said");
        // Its process ends, and so do its links.
        group.cut(odd as u16, one as u16);
        group.cut(odd as u16, two as u16);
        group.pass(3_100_000);
        let members: Vec<_> =
            (0..3).filter(|node| *node != odd).map(|n| NodeId(n as u16)).collect();
        assert_eq!(group.nodes[one].core.status().members, members);
    }
}

#[test]
fn without_a_majority_there_is_no_snapshot_and_nobody_ends() {
    let mut group = Group::fresh();
    for node in 0..3 {
        made(&mut group, node, record(2, node as u8));
    }
    assert!((0..3).all(|node| snapshots(&group, node).is_empty()));
    assert!(group.nodes.iter().all(|node| node.failed.is_none() && node.differ > 0));
}
