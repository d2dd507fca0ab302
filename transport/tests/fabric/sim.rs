//! Nodes in memory: the conformance suite, then what a test may do to them.

use std::{sync::Arc, time::Duration};

use tradewind_transport::fabric::{
    Fabric, FabricEvent, NodeId,
    sim::{SimNetwork, SimOptions},
};

use crate::conformance::{A, B, C, Clock, Nodes, Site, conformance};

/// Nodes of one simulated network.
struct InMemory(SimNetwork);

impl InMemory {
    fn of(nodes: u16, silence: Duration, seed: u64) -> Self {
        Self(SimNetwork::new(nodes, SimOptions { silence, ..SimOptions::default() }, seed))
    }
}

impl Clock for SimNetwork {
    fn now(&self) -> Duration {
        Self::now(self)
    }

    fn pass(&self, by: Duration) {
        self.advance(by);
    }
}

impl Site for InMemory {
    fn new(nodes: u16, silence: Duration) -> Self {
        Self::of(nodes, silence, 1)
    }

    fn start(&mut self, node: NodeId, incarnation: u64) -> Box<dyn Fabric> {
        Box::new(self.0.start(node, incarnation))
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.0.clone())
    }
}

conformance!(in_memory, InMemory);

const SILENCE: Duration = Duration::from_millis(300);

fn is_lost(event: &FabricEvent) -> bool {
    matches!(event, FabricEvent::Lost { .. })
}

/// All that three nodes see of each other while links break at random.
fn story(seed: u64) -> (Vec<Vec<FabricEvent>>, Vec<u64>, Duration) {
    let mut site = InMemory::of(3, SILENCE, seed);
    let network = site.0.clone();
    let mut nodes = Nodes::start(&mut site, 3);
    nodes.prepare(1, 1 << 12);
    let mut seen = Vec::new();
    for round in 1..=200_u64 {
        nodes.put(A, round as usize % 512 * 8, round, &[B, C]);
        if round % 17 == 0 {
            network.break_link(A, B, "a test of nerves");
        }
        for node in [A, B, C] {
            nodes.poll(node);
        }
        seen.push(nodes.at(B).load(A, round as usize % 512 * 8));
    }
    (nodes.events, seen, network.now())
}

#[test]
fn a_seed_tells_the_same_story_each_time_and_another_one_another() {
    let first = story(1);
    assert_eq!(first, story(1));
    assert_ne!(first, story(2));
}

#[test]
fn what_is_cut_one_way_waits_and_comes_when_it_is_mended_in_time() {
    let mut site = InMemory::of(2, SILENCE, 3);
    let network = site.0.clone();
    let mut nodes = Nodes::start(&mut site, 2);
    nodes.prepare(1, 64);
    nodes.until("B has prepared the view", |all| {
        all.put(A, 8, 1, &[B]);
        all.at(B).load(A, 8) == 1
    });
    network.cut(A, B);
    nodes.put(A, 0, 2, &[B]);
    nodes.put(B, 0, 3, &[A]);
    let end = network.now() + SILENCE / 2;
    nodes.until("half of the deadline has passed", |_| network.now() > end);
    assert_eq!((nodes.at(B).load(A, 0), nodes.at(A).load(B, 0)), (0, 3), "one way only");
    network.mend(A, B);
    nodes.until("it comes", |all| all.at(B).load(A, 0) == 2);
    assert!(!nodes.events.iter().flatten().any(is_lost), "{:?}", nodes.events);
}

#[test]
fn a_cut_that_lasts_is_silence_and_the_next_link_shows_all_again() {
    let mut site = InMemory::of(2, SILENCE, 4);
    let network = site.0.clone();
    let mut nodes = Nodes::start(&mut site, 2);
    nodes.prepare(1, 64);
    network.cut(A, B);
    nodes.put(A, 0, 2, &[B]);
    nodes.until("both have lost the link", |all| all.told(A, is_lost) && all.told(B, is_lost));
    nodes.forget();
    let end = network.now() + 2 * SILENCE;
    nodes.until("no link is made while it is cut", |_| network.now() > end);
    let unreachable = |event: &FabricEvent| matches!(event, FabricEvent::Unreachable { .. });
    assert!(nodes.events.iter().flatten().all(unreachable), "{:?}", nodes.events);
    network.mend(A, B);
    nodes.until("it comes over the next link", |all| all.at(B).load(A, 0) == 2);
}
