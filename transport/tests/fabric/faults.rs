//! The part of the conformance suite in which peers die, are slow, or write too late; as the rest of it, for any provider.
//!
//! A fabric that is dropped looks to its peers like a process that was killed: the kernel closes what it had. What is
//! left half done in shared memory by a process that really is killed is in `shm.rs`.

use std::thread;

use tradewind_transport::fabric::{FabricEvent, NodeId};

use crate::conformance::{A, B, C, LONG, Nodes, Site};

const ROW: usize = 1 << 20;
const LAST: usize = ROW - 8;

fn is_lost(nodes: &Nodes, at: NodeId) -> bool {
    nodes.told(at, |event| matches!(event, FabricEvent::Lost { peer, .. } if *peer == C))
}

/// How far C gets.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    BeforePrepare,
    Prepare,
    Store,
    Publish,
    Flush,
    Bulk,
    Message,
}

/// C fills its row with `round` and counts it in the first word, up to a step of this.
fn write(nodes: &mut Nodes, step: Step, round: u64) {
    let c = nodes.at(C);
    c.store(8, &round.to_le_bytes().repeat(ROW / 8 - 1));
    if step == Step::Store {
        return;
    }
    c.publish(8..ROW, &[A, B]);
    c.store(0, &round.to_le_bytes());
    c.publish(0..8, &[A, B]);
    if step == Step::Publish {
        return;
    }
    if step == Step::Message {
        assert!(c.send(A, b"last words"));
    }
    c.flush();
    if step == Step::Bulk {
        // A part of it is on its way.
        nodes.poll(C);
        nodes.poll(A);
    }
}

/// Dies before it prepares a view, after that, after a store, between publish and flush, after a flush, amid a row of
/// 1 MiB, after a message. The others are told; what they see of it keeps its order; they go on without it in a view of
/// their own; it comes back as another incarnation, in a third view.
pub(crate) fn a_peer_that_dies_at_any_step_is_lost_and_the_others_go_on_without_it<S: Site>() {
    use Step::{BeforePrepare, Bulk, Flush, Message, Prepare, Publish, Store};
    for step in [BeforePrepare, Prepare, Store, Publish, Flush, Bulk, Message] {
        let mut site = S::new(3, LONG);
        let mut nodes = Nodes::start(&mut site, 3);
        for node in [A, B, C] {
            if node != C || step != BeforePrepare {
                nodes.at(node).prepare(1, &[A, B, C], ROW).unwrap();
            }
        }
        if !matches!(step, BeforePrepare | Prepare) {
            write(&mut nodes, Flush, 1);
            nodes.until("both see the first round", |all| {
                [A, B].iter().all(|node| all.at(*node).load(C, 0) == 1)
            });
            write(&mut nodes, step, 2);
        }
        nodes.put(A, 0, 7, &[B, C]);
        nodes.fabrics[C.index()] = None;
        nodes.until("both are told", |all| is_lost(all, A) && is_lost(all, B));
        for node in [A, B] {
            let (count, mut row) = (nodes.at(node).load(C, 0), vec![0; ROW - 8]);
            nodes.at(node).copy(C, 8, &mut row);
            let torn =
                row.chunks(8).find(|word| u64::from_le_bytes((*word).try_into().unwrap()) < count);
            assert!(torn.is_none(), "{step:?}: {count} is counted before it is there");
            let most = match step {
                BeforePrepare | Prepare => 0,
                Store | Publish => 1,
                _ => 2,
            };
            assert!(count <= most, "{step:?}: {count} was never flushed");
        }
        nodes.until("B has what A wrote meanwhile", |all| all.at(B).load(A, 0) == 7);
        goes_on_without_it(&mut site, &mut nodes, step);
    }
}

/// The next view without C, and the one after that with it.
fn goes_on_without_it<S: Site>(site: &mut S, nodes: &mut Nodes, step: Step) {
    for node in [A, B] {
        nodes.at(node).prepare(2, &[A, B], ROW).unwrap();
    }
    nodes.put(A, LAST, 21, &[B]);
    nodes.put(B, LAST, 22, &[A]);
    nodes.until("the view without it works", |all| {
        all.at(B).load(A, LAST) == 21 && all.at(A).load(B, LAST) == 22
    });
    nodes.forget();
    nodes.fabrics[C.index()] = Some(site.start(C, 2));
    nodes.until("it is back", |all| {
        let back = FabricEvent::Connected { peer: C, incarnation: 2 };
        [A, B].iter().all(|node| all.told(*node, |event| *event == back))
    });
    nodes.prepare(3, ROW);
    for (node, others) in [(A, [B, C]), (B, [A, C]), (C, [A, B])] {
        nodes.put(node, LAST, 30, &others);
    }
    nodes.until("the view with it works", |all| {
        let pairs = [(A, B), (A, C), (B, A), (B, C), (C, A), (C, B)];
        pairs.iter().all(|(node, peer)| all.at(*node).load(*peer, LAST) == 30)
    });
    for node in [A, B] {
        assert_eq!(nodes.at(node).load(C, 0), 0, "{step:?}: something of its first life");
    }
}

/// It starts, and dies after so many turns, the link half made.
pub(crate) fn a_peer_that_dies_while_it_connects_is_missed_by_nobody<S: Site>() {
    let mut site = S::new(3, LONG);
    let mut nodes = Nodes::start(&mut site, 3);
    nodes.fabrics[C.index()] = None;
    nodes.until("both are told", |all| is_lost(all, A) && is_lost(all, B));
    for view in 1..=12 {
        nodes.fabrics[C.index()] = Some(site.start(C, view + 1));
        for _ in 0..view / 2 {
            [C, A, B].into_iter().for_each(|node| nodes.poll(node));
        }
        nodes.fabrics[C.index()] = None;
        for node in [A, B] {
            nodes.at(node).prepare(view, &[A, B], 64).unwrap();
        }
        nodes.put(A, 0, view, &[B]);
        nodes.until("A and B go on", |all| all.at(B).load(A, 0) == view);
        nodes.forget();
    }
    nodes.fabrics[C.index()] = Some(site.start(C, 100));
    let back = FabricEvent::Connected { peer: C, incarnation: 100 };
    nodes.until("it is back", |all| {
        [A, B].iter().all(|node| all.told(*node, |event| *event == back))
    });
}

/// A and B are asleep in the kernel, without a limit, when C dies.
pub(crate) fn those_who_are_parked_are_told_of_a_death<S: Site>() {
    let mut nodes = Nodes::start(&mut S::new(3, LONG), 3);
    nodes.prepare(1, 64);
    nodes.put(C, 0, 1, &[A, B]);
    nodes.until("both see C", |all| [A, B].iter().all(|node| all.at(*node).load(C, 0) == 1));
    let parked = [A, B].map(|node| {
        let mut fabric = nodes.fabrics[node.index()].take().expect("it runs");
        thread::spawn(move || {
            let mut events = Vec::new();
            let lost =
                |event: &FabricEvent| matches!(event, FabricEvent::Lost { peer, .. } if *peer == C);
            while !events.iter().any(lost) {
                fabric.poll(None, &mut events);
            }
        })
    });
    nodes.fabrics[C.index()] = None;
    parked.into_iter().for_each(|thread| thread.join().unwrap());
}

/// C looks once in a while only; what it sees then is in order, and in the end it has all.
pub(crate) fn a_slow_peer_sees_all_in_order_at_last<S: Site>() {
    let mut nodes = Nodes::start(&mut S::new(3, LONG), 3);
    nodes.prepare(1, ROW);
    let half = ROW / 2;
    for round in 1..=400_u64 {
        let a = nodes.at(A);
        a.store(half, &round.to_le_bytes().repeat(4_096));
        a.publish(half..half + 32_768, &[B, C]);
        nodes.put(A, 0, round, &[B, C]);
        nodes.until_of(&[A, B], "B is not held up", |all| all.at(B).load(A, 0) == round);
        if round % 50 == 0 {
            nodes.poll(C);
            let c = nodes.at(C);
            let (count, first, last) = (c.load(A, 0), c.load(A, half), c.load(A, half + 32_760));
            assert!(first >= count && last >= count, "{count} counted, {first} and {last} there");
        }
    }
    nodes.until("C has the last", |all| all.at(C).load(A, 0) == 400);
    assert_eq!(nodes.at(C).load(A, half + 32_760), 400);
}

/// C is left out of the next view, does not know, and goes on writing in the old one.
pub(crate) fn a_member_that_was_left_out_writes_late_and_nothing_of_it_lands<S: Site>() {
    let mut nodes = Nodes::start(&mut S::new(3, LONG), 3);
    nodes.prepare(1, 64);
    for round in 1..=20 {
        nodes.put(C, 0, round, &[A, B]);
        nodes.until("both see C", |all| [A, B].iter().all(|n| all.at(*n).load(C, 0) == round));
    }
    for node in [A, B] {
        nodes.at(node).prepare(2, &[A, B], 64).unwrap();
    }
    nodes.put(A, 8, 5, &[B]);
    for round in 21..=40 {
        nodes.put(C, 0, round, &[A, B]);
        nodes.put(C, 8, round, &[A, B]);
        [C, A, B].into_iter().for_each(|node| nodes.poll(node));
    }
    // A message comes after all that was published before it: whatever could land had landed by now.
    for node in [A, B] {
        assert!(nodes.at(C).send(node, b"after it"));
    }
    nodes.until("both hear of it", |all| {
        let message = |event: &FabricEvent| matches!(event, FabricEvent::Message { .. });
        all.told(A, message) && all.told(B, message)
    });
    nodes.until("the new view works", |all| all.at(B).load(A, 8) == 5);
    // C hears of the change, and is let in again: its row begins empty everywhere.
    nodes.prepare(3, 64);
    nodes.put(C, 16, 1, &[A, B]);
    nodes.until("both see C again", |all| [A, B].iter().all(|n| all.at(*n).load(C, 16) == 1));
    for node in [A, B] {
        let mut row = [0; 64];
        nodes.at(node).copy(C, 0, &mut row);
        assert_eq!((&row[..16], &row[24..]), (&[0; 16][..], &[0; 40][..]), "a late write landed");
    }
}
