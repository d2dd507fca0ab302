//! Large values, beside the order.

use tradewind_ledger::Version;
use tradewind_site_protocol::{Counters, NodeId, PeerFault, Schedule};

use crate::harness::{Group, config, empty};

/// Far more than goes in one call of [`Group::settle`], which makes fifty turns.
const LARGE: usize = 20 << 20;

/// Three nodes in a view whose blocks go this way.
fn group(schedule: Schedule) -> Group {
    let part = |own: u16, shards| {
        let mut config = config(own);
        config.limits.bulk.schedule = schedule;
        (config, empty(shards), vec![Vec::new(); 2])
    };
    let mut group = Group::new(vec![part(0, 2), part(1, 2), part(2, 1)]).expect("valid");
    group.link_all();
    group.settle();
    group
}

fn counters(group: &Group, node: usize) -> Counters {
    group.nodes[node].core.status().counters
}

#[test]
fn a_small_command_does_not_wait_for_a_large_one_before_it() {
    for (schedule, passed) in [(Schedule::Direct, false), (Schedule::Chain, true)] {
        let mut group = group(schedule);
        group.submit(0, 1, LARGE).unwrap();
        group.submit(0, 2, 10).unwrap();
        group.settle();
        let answered: Vec<_> =
            group.nodes[0].answers.iter().map(|answer| answer.ticket.0).collect();
        assert_eq!(answered, [2]);
        (0..10).for_each(|_| group.settle());
        assert_eq!(group.nodes[0].answers.len(), 2);
        for node in 0..3 {
            assert_eq!((group.nodes[node].adopted, group.nodes[node].staged.len()), (1, 0));
            assert_eq!(group.nodes[node].ledgers[0], group.nodes[0].ledgers[0]);
            assert_eq!(counters(&group, node).fragments, 0);
        }
        assert_eq!(counters(&group, 1).blocks_passed > 0, passed);
        assert_eq!(counters(&group, 2).blocks_passed, 0, "its sender has it");
        let one = counters(&group, 2).blocks_taken;
        assert_eq!(counters(&group, 0).blocks, one, "each block is published once by its sender");
    }
}

#[test]
fn who_does_not_come_to_hold_a_body_is_left_out() {
    for schedule in [Schedule::Direct, Schedule::Chain] {
        let mut group = group(schedule);
        group.nodes[2].syncs = false;
        group.submit(0, 1, LARGE).unwrap();
        (0..12).for_each(|_| group.settle());
        assert!(group.nodes[0].answers.is_empty(), "it does not hold the others up");
        group.pass(4_900_000);
        assert_eq!(group.nodes[0].core.status().members.len(), 3, "before the deadline");
        for _ in 0..5 {
            if group.nodes[0].core.status().members.len() == 3 {
                group.pass(100_000);
            }
        }
        assert_eq!(group.nodes[0].core.status().members, [NodeId(0), NodeId(1)]);
    }
}

#[test]
fn all_members_send_large_values_at_once() {
    for schedule in [Schedule::Direct, Schedule::Chain] {
        let mut group = group(schedule);
        for node in 0..3 {
            group.submit(node, 1 + node as u64, LARGE / 4).unwrap();
            group.submit(node, 4 + node as u64, LARGE / 8).unwrap();
        }
        (0..12).for_each(|_| group.settle());
        for node in 0..3 {
            assert_eq!((group.nodes[node].answers.len(), group.nodes[node].adopted), (2, 6));
            assert_eq!(group.nodes[node].ledgers[0], group.nodes[0].ledgers[0]);
        }
    }
}

#[test]
fn a_view_that_stops_gives_bodies_up_and_they_go_again_in_the_next() {
    let mut group = group(Schedule::Chain);
    group.submit(0, 1, LARGE).unwrap();
    group.settle();
    assert!(group.nodes.iter().all(|node| node.staged.len() == 1), "it is on its way");
    group.cut(0, 2);
    group.cut(1, 2);
    (0..12).for_each(|_| group.settle());
    assert_eq!(group.nodes[0].core.status().members, [NodeId(0), NodeId(1)]);
    assert_eq!(group.nodes[0].answers.len(), 1);
    for node in 0..2 {
        assert_eq!((group.nodes[node].adopted, group.nodes[node].staged.len()), (1, 0));
        assert!(counters(&group, node).bodies_dropped > 0);
    }
}

#[test]
fn a_value_that_no_entry_names_is_removed() {
    let mut group = group(Schedule::Direct);
    let put = |value| tradewind_store::Command::Put {
        key: b"k".to_vec(),
        value,
        condition: tradewind_store::Condition::Version(Version(1)),
    };
    group.submit_bytes(0, 1, put(vec![3; 50_000]).encode()).unwrap();
    group.settle();
    assert_eq!(group.nodes[0].answers.len(), 1);
    assert!(group.nodes.iter().all(|node| node.staged.is_empty() && node.adopted == 0));
}

#[test]
fn a_body_with_another_digest_ends_the_link_to_its_sender() {
    let mut group = group(Schedule::Direct);
    group.nodes[1].corrupts = true;
    group.submit(0, 1, 50_000).unwrap();
    group.settle();
    let faults = &group.nodes[1].disconnected;
    assert!(matches!(faults[..], [PeerFault::Row { problem, .. }] if problem.contains("digest")));
    assert!(group.nodes[0].answers.is_empty(), "it was not ordered");
    assert!(!group.nodes[1].core.status().members.contains(&NodeId(0)), "it goes on without");
}
