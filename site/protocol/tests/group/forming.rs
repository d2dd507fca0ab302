//! Who makes a view with whom, where some are late.

use tradewind_site_protocol::{NodeConfig, NodeId, State};

use crate::harness::{self, Group, empty, recovered};

/// One shard; whoever lacks more than two entries lacks much.
fn config(own: u16) -> NodeConfig {
    let mut config = harness::of_one_shard(own);
    (config.limits.lag_entries, config.limits.formation_us) = (2, 100_000);
    config
}

#[test]
fn all_leave_out_who_was_late_for_one_of_them() {
    let parts = (0..3).map(|own| (config(own), empty(1), vec![Vec::new()])).collect();
    let mut group = Group::new(parts).unwrap();
    group.link_all();
    group.settle();
    (1..9).for_each(|number| group.submit(0, number, 9_000).unwrap());
    group.settle();
    let ledger = group.nodes[0].ledgers[0].clone();
    assert!(ledger.len() > 5, "several messages");

    // Node 0 lacks much, so the others go on without it; but the disk of one of them stands still.
    let sizes = [2, ledger.len(), ledger.len()];
    let parts = sizes.into_iter().zip(0..).map(|(size, own)| {
        (config(own), vec![recovered(&ledger[..size])], vec![ledger[..size].to_vec()])
    });
    let mut group = Group::new(parts.collect()).unwrap();
    group.nodes[2].promises = false;
    group.link_all();
    group.pass(1_000_000);
    assert!(group.nodes.iter().all(|node| node.core.state() != State::Active));
    // Its proposal is prolonged for a while, for it is needed.
    group.pass(4_000_000);
    for node in 0..2 {
        assert_eq!(group.nodes[node].core.state(), State::Active);
        assert_eq!(group.nodes[node].core.status().members, [NodeId(0), NodeId(1)]);
        assert_eq!(group.nodes[node].ledgers[0][..ledger.len()], ledger);
    }
}
