//! What a shell sees of the core in single situations. Faults in all combinations are the simulator's.

mod bulk;
mod forming;
mod harness;
mod reads;
mod rosters;
mod snapshots;
mod taking;

use harness::{Group, Node, SHARD, config, empty, recovered};
use tradewind_ledger::{Digest, Version};
use tradewind_site_protocol::{
    ConfigError, Fatal, Incarnation, Limits, NodeConfig, NodeId, PeerFault, Refusal, Refused,
    ShardIndex, State,
};
use tradewind_store::{CommandError, Refusal as StoreRefusal, Reply};

#[test]
fn a_put_is_answered_after_a_majority_of_disks() {
    let mut group = Group::fresh();
    for node in 1..3 {
        group.nodes[node].syncs = false;
    }
    group.submit(0, 1, 100).unwrap();
    group.settle();
    assert!(group.nodes[0].answers.is_empty(), "one disk of three is no majority");
    let size = Version(group.nodes[1].ledgers[0].len() as u64);
    let now = group.now();
    group.nodes[1].core.handle_durable(now, SHARD, size);
    group.settle();
    assert!(
        matches!(group.nodes[0].answers[..], [ref a] if matches!(a.reply, Reply::Written { .. }))
    );
}

#[test]
fn a_majority_goes_on_and_a_minority_accepts_nothing_and_names_the_missing() {
    let mut group = Group::fresh();
    group.cut(0, 2);
    group.cut(1, 2);
    group.settle();
    assert_eq!(group.nodes[0].core.status().members, [NodeId(0), NodeId(1)]);
    group.submit(0, 1, 10).unwrap();
    group.settle();
    assert_eq!(group.nodes[0].answers.len(), 1, "two disks of three are a majority");
    let State::Minority { missing, .. } = group.nodes[2].core.state() else {
        panic!("node 2 is {:?}", group.nodes[2].core.state());
    };
    assert_eq!(missing, [NodeId(0), NodeId(1)]);
    let Err(Refused::Unavailable { waiting_for }) = group.submit(2, 2, 10) else {
        panic!("accepted by a minority");
    };
    assert_eq!(waiting_for, ["a1", "a2"]);
    group.cut(0, 1);
    group.settle();
    assert!(matches!(group.submit(0, 3, 10), Err(Refused::Unavailable { .. })));
    group.link_all();
    group.settle();
    group.pass(3_100_000);
    assert!(group.nodes.iter().all(|node| node.core.state() == State::Active));
    group.submit(1, 4, 10).unwrap();
    group.settle();
    assert_eq!(group.nodes[1].answers.len(), 1);
    assert_eq!(group.nodes[2].ledgers[0], group.nodes[0].ledgers[0]);
}

/// The second shard lies on the nodes 0 and 1: one of them is no majority of it.
#[test]
fn a_shard_without_a_majority_of_its_members_waits_while_others_go_on() {
    let mut group = Group::fresh();
    group.cut(0, 1);
    group.cut(0, 2);
    group.settle();
    assert_eq!(group.nodes[1].core.status().members, [NodeId(1), NodeId(2)]);
    let small = group.nodes[1].ledgers[1].clone();
    assert_eq!(group.nodes[1].core.status().shards[1].waiting_for, [NodeId(0)]);
    let Err(Refused::Unavailable { waiting_for }) = group.submit_to(1, 1, 1, 10) else {
        panic!("a shard of two took a write with one");
    };
    assert_eq!(waiting_for, ["a1"]);
    group.submit(1, 2, 10).unwrap();
    group.settle();
    assert_eq!(group.nodes[1].answers.len(), 1);
    assert_eq!(group.nodes[1].ledgers[1], small, "its ledger is untouched");
    group.link(0, 1);
    group.link(0, 2);
    group.pass(1_000_000);
    group.submit_to(1, 1, 3, 10).unwrap();
    group.settle();
    assert_eq!(group.nodes[1].answers.len(), 2);
}

#[test]
fn what_was_accepted_before_a_view_stopped_is_answered_in_the_next() {
    let mut group = Group::fresh();
    group.submit(0, 1, 10).unwrap();
    group.cut(0, 1);
    group.cut(0, 2);
    group.settle();
    assert!(group.nodes[0].answers.is_empty());
    group.link(0, 1);
    group.link(0, 2);
    group.pass(1_000_000);
    assert_eq!(group.nodes[0].answers.len(), 1);
    assert_eq!(group.nodes[0].ledgers[0], group.nodes[2].ledgers[0]);
}

#[test]
fn limits_are_told_with_their_figures() {
    let mut group = Group::fresh();
    let unknown = ShardIndex(9);
    let submission = |len: usize| vec![0; len];
    let allowed = config(0).limits.command_bytes;
    assert_eq!(
        group.submit_bytes(0, 1, submission(allowed + 1)),
        Err(Refused::TooLarge { len: allowed + 1, allowed })
    );
    assert!(group.nodes[0].core.replica_status(unknown).is_none());
    assert!(group.nodes[2].core.replica_status(ShardIndex(1)).is_none(), "no member");
    for number in 0.. {
        match group.submit(0, number, 0) {
            Ok(()) => {}
            Err(Refused::Busy { submissions, .. }) => {
                assert_eq!(submissions, config(0).limits.pending_submissions);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_command_that_cannot_be_decoded_is_answered_and_writes_nothing() {
    let mut group = Group::fresh();
    let before = group.nodes[0].ledgers[0].len();
    group.submit_bytes(1, 1, vec![0xFF; 20]).unwrap();
    group.settle();
    let answer = &group.nodes[1].answers[0];
    let refusal = StoreRefusal::Command(CommandError::Malformed(20));
    assert_eq!(answer.reply, Reply::Refused(refusal));
    assert_eq!(group.nodes[0].ledgers[0].len(), before);
}

#[test]
fn a_command_larger_than_a_message_goes_in_pieces() {
    let mut group = Group::fresh();
    group.submit(2, 1, 30_000).unwrap();
    group.submit(2, 2, 10).unwrap();
    group.settle();
    assert_eq!(group.nodes[2].answers.len(), 2);
    assert!(group.nodes[2].core.status().counters.fragments >= 4);
}

#[test]
fn seals_and_checkpoints_come_by_themselves() {
    let mut group = Group::fresh();
    group.submit(0, 1, 10).unwrap();
    group.settle();
    group.pass(3_000_000);
    for node in &group.nodes {
        let status = node.core.replica_status(SHARD).unwrap();
        assert_eq!(status.checkpoint, status.delivered, "the last mark is signed by a majority");
        assert!(node.core.status().counters.seals > 0);
    }
    let sizes: Vec<_> = group.nodes.iter().map(|node| node.ledgers[0].len()).collect();
    group.pass(10_000_000);
    let later: Vec<_> = group.nodes.iter().map(|node| node.ledgers[0].len()).collect();
    assert_eq!(sizes, later, "an idle group writes nothing for a minute");
    group.pass(60_000_000);
    assert!(group.nodes[0].ledgers[0].len() > sizes[0], "then it shows a sign of life");
}

#[test]
fn a_majority_of_signatures_is_enough() {
    let mut group = Group::fresh();
    group.nodes[1].signs = false;
    let before = group.nodes[0].checkpoints.len();
    group.submit(0, 1, 10).unwrap();
    group.pass(3_000_000);
    assert!(group.nodes[0].checkpoints.len() > before);
}

/// Each time it goes it waits twice as long, so that it stops the others at a bounded rate.
#[test]
fn a_node_that_comes_and_goes_is_made_to_wait() {
    let mut group = Group::fresh();
    let begun = group.nodes[0].core.view().0;
    for _ in 0..200 {
        group.cut(0, 2);
        group.cut(1, 2);
        group.pass(50_000);
        group.link(0, 2);
        group.link(1, 2);
        group.pass(50_000);
    }
    let views = group.nodes[0].core.view().0 - begun;
    // Two each time: without it, and with it again.
    assert!(views <= 20, "{views} views in 20 s");
    assert!(group.nodes[0].core.status().counters.backoffs > 0);
    group.pass(10_000_000);
    assert_eq!(group.nodes[0].core.status().members.len(), 3, "in the end it is let in");
}

#[test]
fn a_silent_peer_is_disconnected() {
    let mut group = Group::fresh();
    // Node 2 is stopped: the others go on with their timers.
    for _ in 0..50 {
        group.now_us += 100_000;
        let stopped = group.nodes.pop().unwrap();
        group.settle();
        group.nodes.push(stopped);
    }
    let fault = group.nodes[0].disconnected.first();
    assert!(matches!(fault, Some(PeerFault::Silent(us)) if *us > 3_000_000), "{fault:?}");
    assert_eq!(group.nodes[0].core.status().members, [NodeId(0), NodeId(1)]);
}

/// Node 2 lives, but its disk takes nothing more: what the others write waits for it.
fn held_up_by_its_disk() -> Group {
    let mut group = Group::with_limits(&Limits { backlog_bytes: 1_000, ..config(0).limits });
    group.nodes[2].syncs = false;
    for number in 1..=200 {
        group.submit(0, number, 1_000).unwrap();
    }
    group.settle();
    assert!(group.nodes[0].answers.len() < 200, "node 2 does not hold the others up");
    group
}

#[test]
fn a_member_that_holds_the_others_up_is_left_out_and_let_in_again_when_it_has_learned() {
    let mut group = held_up_by_its_disk();
    group.pass(4_500_000);
    assert_eq!(group.nodes[0].core.status().members.len(), 3, "before the deadline");
    group.pass(1_000_000);
    for node in [0, 1] {
        assert_eq!(group.nodes[node].core.status().members, [NodeId(0), NodeId(1)]);
        assert!(group.nodes[node].disconnected.is_empty());
    }
    assert_eq!(group.nodes[0].answers.len(), 200, "nothing waits for it any more");
    // Its disk is well again.
    group.nodes[2].syncs = true;
    let (now, size) = (group.now(), Version(group.nodes[2].ledgers[0].len() as u64));
    group.nodes[2].core.handle_durable(now, SHARD, size);
    group.pass(3_000_000);
    assert_eq!(group.nodes[0].core.status().members.len(), 2, "it is made to wait");
    group.pass(6_000_000);
    assert_eq!(group.nodes[0].core.status().members.len(), 3, "then it is let in");
    assert_eq!(group.nodes[2].ledgers[0], group.nodes[0].ledgers[0]);
}

#[test]
fn what_a_node_saw_before_it_stood_still_is_not_held_against_a_slow_member() {
    let mut group = held_up_by_its_disk();
    group.pass(4_000_000);
    // All stood still.
    group.now_us += 30_000_000;
    group.settle();
    group.pass(4_000_000);
    assert_eq!(group.nodes[0].core.status().members.len(), 3);
    group.pass(1_500_000);
    assert_eq!(group.nodes[0].core.status().members.len(), 2);
}

/// Without node 1 nothing goes on but at the pace of node 2.
#[test]
fn a_member_that_is_needed_may_be_as_slow_as_it_is() {
    let mut group = held_up_by_its_disk();
    group.cut(0, 1);
    group.cut(1, 2);
    group.settle();
    let size = Version(group.nodes[2].ledgers[0].len() as u64);
    let now = group.now();
    group.nodes[2].core.handle_durable(now, SHARD, size);
    group.settle();
    for number in 201..=400 {
        group.submit(0, number, 1_000).unwrap();
    }
    group.pass(60_000_000);
    assert!(group.nodes[0].core.replica_status(SHARD).unwrap().pending > 0, "it holds nobody up");
    assert_eq!(group.nodes[0].core.status().members, [NodeId(0), NodeId(2)]);
    for node in [0, 2] {
        assert_eq!(group.nodes[node].core.status().counters.slow, 0);
    }
}

#[test]
fn another_topology_is_refused_in_words() {
    let none = || vec![Vec::new(); 2];
    let mut other = config(2);
    other.rosters[0].digest = Digest([2; 32]);
    let parts = vec![
        (config(0), empty(2), none()),
        (config(1), empty(2), none()),
        (other, empty(1), none()),
    ];
    let mut group = Group::new(parts).unwrap();
    group.link_all();
    group.settle();
    assert!(group.nodes.iter().all(|node| node.core.state() != State::Active));
    let refusal = group.nodes[0].core.status().peers[1].refusal.clone();
    assert!(matches!(refusal, Some(Refusal::Topology { .. })), "{refusal:?}");
    let text = refusal.unwrap().to_string();
    assert!(text.contains("same topology file"), "{text}");
}

#[test]
fn data_of_another_deployment_is_refused_at_the_start() {
    let donor = Group::fresh();
    let ledger = donor.nodes[0].ledgers[0].clone();
    let mut other = config(0);
    other.shards[0].genesis.deployment = "another".into();
    let parts = vec![(other, vec![recovered(&ledger), recovered(&[])], vec![ledger, Vec::new()])];
    assert!(matches!(Group::new(parts).err(), Some(ConfigError::Lineage { .. })));
}

/// Ledgers of the same size and other content, and of another length and other content, stop the group with both
/// roots; nobody overwrites anything.
#[test]
fn diverged_ledgers_are_never_merged() {
    for behind in [0, 1] {
        let (mut one, mut two) = (Group::fresh(), Group::fresh());
        one.submit(0, 1, 10).unwrap();
        two.submit(0, 1, 11).unwrap();
        one.settle();
        two.settle();
        let mut ledgers: Vec<_> = one.nodes.iter().map(|node| node.ledgers.clone()).collect();
        ledgers[1] = two.nodes[1].ledgers.clone();
        if behind == 1 {
            two.submit(0, 2, 1).unwrap();
            two.settle();
            ledgers[1] = two.nodes[1].ledgers.clone();
        }
        let before = ledgers.clone();
        let parts = (0..3_u16).map(|node| {
            let ledgers = ledgers[usize::from(node)].clone();
            let shards = if node == 2 { 1 } else { 2 };
            let mut config = config(node);
            config.incarnation = tradewind_site_protocol::Incarnation(2);
            (config, ledgers[..shards].iter().map(|ledger| recovered(ledger)).collect(), ledgers)
        });
        let mut group = Group::new(parts.collect()).unwrap();
        group.link_all();
        group.settle();
        let failed = group.nodes.iter().find_map(|node| node.failed.clone());
        let Some(Fatal::Divergence(divergence)) = failed else { panic!("{failed:?}") };
        assert_ne!(divergence.root, divergence.other_root);
        assert!(divergence.to_string().contains("flights.0"), "{divergence}");
        let after: Vec<_> = group.nodes.iter().map(|node| node.ledgers.clone()).collect();
        assert_eq!(before, after, "nothing was written");
    }
}

/// The group's nodes started once more, not linked, each with so many entries of its first ledger at most, and without what
/// it remembers of the others.
fn stopped(group: &Group, kept: [usize; 3]) -> Group {
    let start = |(node, old): (u16, &Node)| {
        let mut ledgers = old.ledgers.clone();
        let shards = if node == 2 { 1 } else { 2 };
        ledgers[0].truncate(kept[usize::from(node)]);
        let config = NodeConfig { incarnation: Incarnation(2), ..config(node) };
        (config, ledgers[..shards].iter().map(|ledger| recovered(ledger)).collect(), ledgers)
    };
    Group::new((0..).zip(&group.nodes).map(start).collect()).unwrap()
}

/// The group's nodes started once more and linked, each with what is on its disk and what it remembers of the others; node 2
/// with only the first `kept` entries of its ledger.
fn started_again(group: &Group, kept: usize) -> Group {
    let mut again = stopped(group, [usize::MAX, usize::MAX, kept]);
    for (node, old) in again.nodes.iter_mut().zip(&group.nodes) {
        node.core.recall(old.remembered.clone());
    }
    again.link_all();
    again.settle();
    again
}

#[test]
fn a_node_that_comes_with_less_than_it_had_is_refused_and_ends() {
    let mut group = Group::fresh();
    group.submit(0, 1, 10).unwrap();
    group.settle();
    group.pass(1_500_000);
    let size = group.nodes[2].ledgers[0].len();
    let whole = started_again(&group, size);
    assert!(whole.nodes.iter().all(|node| node.core.state() == State::Active));
    for kept in [0, 1, size - 1] {
        let again = started_again(&group, kept);
        let Some(Fatal::LostData { lost, .. }) = &again.nodes[2].failed else {
            panic!("{kept} of {size}: {:?}", again.nodes[2].failed)
        };
        let text = lost.to_string();
        assert!(text.contains("a3 has") && text.contains("node replace a3"), "{text}");
        let members = again.nodes[0].core.status().members;
        assert!(!members.contains(&NodeId(2)), "{kept} of {size}: in a view of {members:?}");
    }
}

/// Two of three disks lost acknowledged entries that they said to have synced, and their nodes went on, for nobody who knew
/// was there. Who knows does not follow them.
#[test]
fn what_was_committed_before_a_start_is_not_cut_off_after_it() {
    let mut group = Group::fresh();
    group.submit(0, 1, 10).unwrap();
    group.settle();
    group.pass(1_500_000);
    let whole = group.nodes[0].ledgers[0].clone();
    let mut again = stopped(&group, [usize::MAX, 2, 2]);
    again.nodes[0].core.recall(group.nodes[0].remembered.clone());
    again.link(1, 2);
    again.pass(3_100_000);
    for number in 2.. {
        again.submit(1, number, 10).unwrap();
        again.settle();
        if again.nodes[1].ledgers[0].len() > whole.len() {
            break;
        }
    }
    again.link(0, 1);
    again.link(0, 2);
    again.settle();
    let Some(Fatal::Rewind { common, committed, .. }) = &again.nodes[0].failed else {
        panic!("{:?}", again.nodes[0].failed);
    };
    assert_eq!((common.0, committed.0), (2, whole.len() as u64));
    assert_eq!(again.nodes[0].ledgers[0], whole, "nothing was cut off");
    assert_eq!(again.nodes[1].core.state(), State::Active);
}
