//! Topology files that end with different rosters. What happens while nodes come and go the simulator shows.

use tradewind_ledger::{Digest, Signer as _, ViewId};
use tradewind_site_protocol::{
    ConfigError, NodeConfig, NodeCore, NodeId, NodeInfo, Promise, Refusal, Roster, RosterId, Seat,
    State,
};

use crate::harness::{Group, SHARD, config, empty, signer};

/// The same site by a file that ends with one more roster, of the same nodes and perhaps one more.
fn newer(own: u16, added: Option<u16>) -> NodeConfig {
    let mut config = config(own);
    let mut roster = Roster { digest: Digest([2; 32]), ..config.rosters[0].clone() };
    if let Some(node) = added {
        let public_key = signer(usize::from(node)).public_key();
        config.nodes.push(NodeInfo { name: format!("a{}", node + 1), public_key });
        roster.seats.push(Seat { node: NodeId(node), public_key });
        roster.shards[SHARD.index()].push(NodeId(node));
    }
    config.rosters.push(roster);
    config
}

fn group(configs: [NodeConfig; 3]) -> Group {
    let shards = [2, 2, 1].into_iter();
    let parts = configs.into_iter().zip(shards);
    let parts = parts.map(|(config, shards)| (config, empty(shards), vec![Vec::new(); 2]));
    Group::new(parts.collect()).expect("valid")
}

#[test]
fn nodes_whose_files_end_with_other_rosters_run_the_one_that_all_know() {
    // Node 3 is not there yet, and node 0 has not even heard of it.
    let mut group = group([config(0), newer(1, Some(3)), newer(2, Some(3))]);
    group.link_all();
    group.settle();
    for (node, number) in (0..3).zip(1..) {
        let status = group.nodes[node].core.status();
        assert_eq!((status.state, status.roster), (State::Active, RosterId(0)));
        assert_eq!(status.members, [0, 1, 2].map(NodeId));
        group.submit(node, number, 100).expect("it runs");
        let barrier = group.nodes[node].core.handle_read(SHARD).expect("it runs");
        group.settle();
        assert_eq!(group.nodes[node].answers.len(), 1);
        assert_eq!(group.nodes[node].passed, [(SHARD, barrier)]);
    }
}

#[test]
fn a_node_with_a_file_that_ends_too_early_is_refused_in_words() {
    let mut group = group([newer(0, None), newer(1, None), config(2)]);
    group.link(0, 1);
    group.pass(5_000_000);
    let status = group.nodes[0].core.status();
    assert_eq!((status.state, status.roster), (State::Active, RosterId(1)));
    group.link(0, 2);
    group.settle();
    let refusal = group.nodes[2].core.status().peers[0].refusal.clone();
    let Some(Refusal::OldRoster { ours: RosterId(1), theirs: RosterId(0) }) = refusal else {
        panic!("{refusal:?}");
    };
    let text = refusal.expect("looked at just now").to_string();
    assert!(text.contains("give it the newer file and restart it"), "{text}");
    assert!(group.nodes[2].failed.is_none(), "it may wait for the file");
}

#[test]
fn a_node_does_not_start_with_a_file_that_does_not_tell_what_it_promised() {
    let promise = |digest| Promise {
        view: ViewId(3),
        members: vec![NodeId(0), NodeId(1)],
        roster: RosterId(1),
        digest: Digest([digest; 32]),
        established: RosterId(0),
    };
    let now = Group::new(Vec::new()).expect("nobody").now();
    let start = |config, digest| NodeCore::new(config, empty(2), promise(digest), now);
    let refused = |config, digest| match start(config, digest).err() {
        Some(ConfigError::PromisedRoster { roster: RosterId(1), is_known }) => is_known,
        other => panic!("{other:?}"),
    };
    assert!(!refused(config(0), 2), "an older file");
    assert!(refused(newer(0, None), 9), "another change");
    assert!(start(newer(0, None), 2).is_ok());
}
