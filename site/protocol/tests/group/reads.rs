//! Linearizable reads by barriers.

use tradewind_ledger::Version;
use tradewind_site_protocol::{Barrier, NodeId, Refused, ShardIndex, State};

use crate::harness::{Group, SHARD};

/// The shard of nodes 0 and 1.
const SMALL: ShardIndex = ShardIndex(1);

#[test]
fn all_reads_of_a_turn_share_one_barrier_that_costs_no_message_and_no_sync() {
    let mut group = Group::fresh();
    let counters = |group: &Group| -> Vec<_> {
        group.nodes.iter().map(|node| node.core.status().counters).collect()
    };
    let (before, ledgers) = (counters(&group), group.nodes[1].ledgers.clone());
    assert!(before.iter().all(|of| of.barriers + of.echoes == 0), "nobody reads");
    for _ in 0..1_000 {
        assert_eq!(group.nodes[1].core.handle_read(SHARD), Ok(Barrier(1)));
        assert_eq!(group.nodes[1].core.handle_read(SMALL), Ok(Barrier(1)));
    }
    group.settle();
    assert_eq!(group.nodes[1].passed, [(SHARD, Barrier(1)), (SMALL, Barrier(1))]);
    let after = counters(&group);
    assert_eq!((after[1].reads, after[1].barriers), (2_000, 1));
    assert_eq!(after.iter().map(|of| of.echoes).collect::<Vec<_>>(), [1, 0, 1]);
    assert_eq!(group.nodes[1].ledgers, ledgers);
    assert!(before.iter().zip(&after).all(|(before, after)| before.messages == after.messages));
    assert_eq!(group.nodes[1].core.handle_read(SHARD), Ok(Barrier(2)));
}

#[test]
fn a_read_waits_until_what_was_received_is_committed() {
    let mut group = Group::fresh();
    for node in 1..3 {
        group.nodes[node].syncs = false;
    }
    group.submit(0, 1, 100).unwrap();
    group.settle();
    let barrier = group.nodes[2].core.handle_read(SHARD).unwrap();
    group.settle();
    assert!(group.nodes[2].passed.is_empty(), "it is on one disk of three");
    let size = Version(group.nodes[1].ledgers[0].len() as u64);
    let now = group.now();
    group.nodes[1].core.handle_durable(now, SHARD, size);
    group.settle();
    assert_eq!(group.nodes[2].passed, [(SHARD, barrier)]);
    assert_eq!(group.nodes[2].core.replica_status(SHARD).unwrap().committed, size);
}

#[test]
fn reads_are_refused_without_a_view_and_where_the_shard_is_not() {
    let mut group = Group::fresh();
    let Err(Refused::NotMember { members, .. }) = group.nodes[2].core.handle_read(SMALL) else {
        panic!("node 2 has nothing of it");
    };
    assert_eq!(members, ["a1", "a2"]);
    group.nodes[2].core.handle_read(SHARD).unwrap();
    group.cut(0, 2);
    group.cut(1, 2);
    group.settle();
    assert!(group.nodes[2].passed.is_empty(), "its view stopped");
    assert!(matches!(group.nodes[2].core.state(), State::Minority { .. }));
    let Err(Refused::Unavailable { waiting_for }) = group.nodes[2].core.handle_read(SHARD) else {
        panic!("read in a minority");
    };
    assert_eq!(waiting_for, ["a1", "a2"]);
    // The others go on; numbers grow beyond views.
    let barrier = group.nodes[0].core.handle_read(SHARD).unwrap();
    group.settle();
    assert_eq!(group.nodes[0].passed, [(SHARD, barrier)]);
    group.link_all();
    group.settle();
    group.pass(3_100_000);
    assert_eq!(group.nodes[0].core.status().members, [NodeId(0), NodeId(1), NodeId(2)]);
    assert!(group.nodes[0].core.handle_read(SHARD).unwrap() > barrier);
    group.settle();
    assert_eq!(group.nodes[0].passed.len(), 2);
}
