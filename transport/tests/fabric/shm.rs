//! Shared memory: the conformance suite, then what only it has.

use std::{
    env,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tradewind_transport::fabric::{Fabric, FabricEvent, NodeId, PathKind, Paths, shm::ShmFabric};

use crate::{
    conformance::{A, B, C, Dice, Nodes, Site, conformance},
    tcp::Loopback,
};

const MINUTE: Duration = Duration::from_secs(60);

/// Nodes that share memory, their links on loopback with TLS.
struct OneHost(Loopback<true>);

impl OneHost {
    fn start_shm(&mut self, node: NodeId, incarnation: u64, required: bool) -> ShmFabric {
        let options = self.0.options(node, incarnation);
        ShmFabric::new(self.0.start_with(options), required).unwrap()
    }
}

impl Site for OneHost {
    fn new(nodes: u16, silence: Duration) -> Self {
        Self(Loopback::new(nodes, silence))
    }

    fn start(&mut self, node: NodeId, incarnation: u64) -> Box<dyn Fabric> {
        Box::new(self.start_shm(node, incarnation, true))
    }
}

conformance!(one_host, OneHost);

/// Nodes of one host, connected, in view 1, and the paths on which rows leave the first.
fn in_view(nodes: u16, row_len: usize) -> (Nodes, Arc<Paths>) {
    let mut site = OneHost::new(nodes, MINUTE);
    let first = site.start_shm(A, 1, true);
    let paths = first.paths();
    let mut fabrics: Vec<Option<Box<dyn Fabric>>> = vec![Some(Box::new(first))];
    fabrics.extend((1..nodes).map(|node| Some(site.start(NodeId(node), 1))));
    let mut all = Nodes::of(fabrics);
    all.prepare(1, row_len);
    attached(&mut all, &paths);
    (all, paths)
}

/// Waits until rows go from the first node to all others through shared memory.
fn attached(nodes: &mut Nodes, paths: &Paths) {
    let others = 1..nodes.fabrics.len() as u16;
    let over_shm = |node| paths.to(NodeId(node)).unwrap().kind == PathKind::Shm;
    nodes.until("rows go through shared memory", |_| others.clone().all(over_shm));
}

#[test]
fn rows_leave_once_and_not_over_the_network() {
    const ROW: usize = 1 << 20;
    let (mut nodes, _) = in_view(3, ROW);
    let before = nodes.at(A).counters();
    for round in 1..=20_u64 {
        nodes.at(A).store(0, &round.to_le_bytes().repeat(ROW / 8));
        nodes.at(A).publish(0..ROW, &[A, B, C]);
        nodes.at(A).flush();
        nodes.until("both have it", |all| {
            [B, C].iter().all(|node| all.at(*node).load(A, ROW - 8) == round)
        });
    }
    let after = nodes.at(A).counters();
    assert_eq!(after.publishes - before.publishes, 20);
    assert_eq!(after.batches_sent - before.batches_sent, 20, "one for both");
    let sent = after.bytes_sent - before.bytes_sent;
    assert!(sent < 1 << 20, "{sent} bytes over TCP: signs of life and less");
}

#[test]
fn a_late_write_of_a_revoked_member_stays_where_nobody_looks() {
    let (mut nodes, _) = in_view(2, 64);
    nodes.put(A, 0, 1, &[B]);
    nodes.until("B sees it", |all| all.at(B).load(A, 0) == 1);
    nodes.at(B).prepare(2, &[A, B], 64).unwrap();
    nodes.put(A, 0, 2, &[B]);
    assert!(nodes.at(A).send(B, b"after it"));
    nodes.until("B is told that it was written", |all| {
        all.told(B, |event| matches!(event, FabricEvent::Message { .. }))
    });
    assert_eq!(nodes.at(B).load(A, 0), 0);
    nodes.at(A).prepare(2, &[A, B], 64).unwrap();
    nodes.put(A, 8, 3, &[B]);
    nodes.until("B sees the new view", |all| all.at(B).load(A, 8) == 3);
    assert_eq!(nodes.at(B).load(A, 0), 0);
}

#[test]
fn one_who_is_overtaken_catches_up_over_tcp_and_comes_back() {
    const ROW: usize = 256 << 10;
    let (mut nodes, paths) = in_view(3, ROW);
    let mut dice = Dice(3);
    let mut next = 1;
    nodes.forget();
    // C looks rarely: rings and rings go by. Each message says what was published before it.
    let told = |all: &Nodes| {
        all.told(C, |e| matches!(e, FabricEvent::Message { bytes, .. } if bytes[..] == 600_u64.to_le_bytes()))
    };
    while !told(&nodes) {
        if next <= 600_u64 {
            let writer = nodes.at(A);
            writer.store(8, &next.to_le_bytes().repeat(ROW / 8 - 1));
            writer.publish(8..ROW, &[B, C]);
            writer.store(0, &next.to_le_bytes());
            writer.publish(0..8, &[B, C]);
            if writer.send(C, &next.to_le_bytes()) {
                next += 1;
            }
        }
        nodes.poll(A);
        nodes.poll(B);
        if dice.below(30) == 0 || next > 600 {
            nodes.events[C.index()].clear();
            nodes.poll(C);
            let count = nodes.at(C).load(A, 0);
            let mut row = vec![0; ROW - 8];
            nodes.at(C).copy(A, 8, &mut row);
            let oldest = row.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).min();
            assert!(oldest.unwrap() >= count, "{count} counted, and there is {oldest:?}");
            for event in &nodes.events[C.index()] {
                if let FabricEvent::Message { bytes, .. } = event {
                    let number = u64::from_le_bytes(bytes[..].try_into().unwrap());
                    assert!(number <= count, "message {number} before publish {number}: {count}");
                }
            }
        }
    }
    let laps = nodes.at(A).counters().laps;
    assert!(laps > 1, "C was overtaken {laps} times");
    assert!(paths.to(B).unwrap().kind == PathKind::Shm, "B has not noticed");
    attached(&mut nodes, &paths);
}

#[test]
fn a_peer_without_shared_memory_is_reached_over_tcp_beside_one_that_has_it() {
    let mut site = OneHost::new(3, MINUTE);
    let (a, b) = (site.start_shm(A, 1, false), site.start_shm(B, 1, false));
    let paths = a.paths();
    let c: Box<dyn Fabric> = site.0.start(C, 1);
    let fabrics: Vec<Option<Box<dyn Fabric>>> = vec![Some(Box::new(a)), Some(Box::new(b)), Some(c)];
    let mut nodes = Nodes::of(fabrics);
    nodes.prepare(1, 64);
    nodes.until("A and B share memory", |_| paths.to(B).unwrap().kind == PathKind::Shm);
    for round in 1..=50 {
        nodes.put(A, 0, round, &[A, B, C]);
        nodes.put(C, 0, round, &[A, B]);
        nodes.until("all see it", |all| {
            [B, C].iter().all(|node| all.at(*node).load(A, 0) == round)
                && [A, B].iter().all(|node| all.at(*node).load(C, 0) == round)
        });
    }
    assert_eq!(paths.to(C).unwrap().kind, PathKind::Tcp);
    assert!(!paths.to(C).unwrap().why.is_empty());
}

const PUBLISHER: &str = "TRADEWIND_TEST_PUBLISHER";
const SLOTS: u64 = 16;
const SLOT: usize = 8 << 10;
const RING: usize = 64;
const ROW: usize = RING + SLOTS as usize * SLOT;

/// The process that is killed: fills slots and counts them, as fast as it can, until its end.
#[test]
fn helper_publisher() {
    let Ok(what) = env::var(PUBLISHER) else { return };
    let (address, view) = what.split_once(' ').expect("an address and a view");
    let (address, view): (SocketAddr, u64) = (address.parse().unwrap(), view.parse().unwrap());
    let mut site = OneHost::new(2, MINUTE);
    let mut options = site.0.options(B, view);
    options.nodes[0].address = address;
    let mut fabric = ShmFabric::new(site.0.start_with(options), true).unwrap();
    fabric.prepare(view, &[A, B], ROW).unwrap();
    let mut events = Vec::new();
    for number in 1_u64.. {
        let slot = RING + (number % SLOTS) as usize * SLOT;
        fabric.store(slot, &number.to_le_bytes().repeat(SLOT / 8));
        fabric.publish(slot..slot + SLOT, &[A]);
        fabric.store(0, &number.to_le_bytes());
        fabric.publish(0..8, &[A]);
        fabric.poll(Some(Duration::ZERO), &mut events);
        events.clear();
    }
}

/// A publishing process, killed with SIGKILL when dropped, at the latest.
struct Publisher(Child);

impl Publisher {
    fn spawn(address: SocketAddr, view: u64) -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "shm::helper_publisher"])
            .env(PUBLISHER, format!("{address} {view}"))
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_process_killed_while_it_publishes_leaves_whole_rows_and_nobody_hanging() {
    let mut site = OneHost::new(2, MINUTE);
    let address = site.0.options(A, 1).nodes[0].address;
    let mut dice = Dice(11);
    let mut nodes = Nodes::of(vec![Some(site.start(A, 1))]);
    for view in 1..=12 {
        nodes.forget();
        nodes.at(A).prepare(view, &[A, B], ROW).unwrap();
        let mut child = Some(Publisher::spawn(address, view));
        // Before anything, in the first moments, or in full flow.
        let enough = dice.below(3) * dice.below(2_000);
        let mut seen = 0;
        nodes.until("it is lost", |all| {
            let count = all.at(A).load(B, 0);
            assert!(count >= seen, "view {view}: from {seen} back to {count}");
            seen = count;
            for number in count.saturating_sub(SLOTS - 1).max(1)..=count {
                let mut slot = vec![0; SLOT];
                all.at(A).copy(B, RING + (number % SLOTS) as usize * SLOT, &mut slot);
                for word in slot.as_chunks::<8>().0 {
                    let found = u64::from_le_bytes(*word);
                    assert!(
                        found >= number && found % SLOTS == number % SLOTS,
                        "{number}: {found}"
                    );
                }
            }
            let connected = |e: &FabricEvent| matches!(e, FabricEvent::Connected { .. });
            if all.told(A, connected) && count >= enough {
                child = None;
            }
            all.told(A, |event| matches!(event, FabricEvent::Lost { .. }))
        });
        assert!(child.is_none(), "view {view}: it ended by itself");
    }
}
