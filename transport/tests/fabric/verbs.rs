//! RDMA: the conformance suite, on the device that is at the address in `TRADEWIND_RDMA_ADDRESS`
//! (tests/rdma/run boots a machine with one).

use std::{net::IpAddr, time::Duration};

use tradewind_transport::fabric::{
    Fabric, NodeId,
    verbs::{VerbsFabric, device_for},
};

use crate::{
    conformance::{A, B, C, Nodes, Site, conformance},
    tcp::Loopback,
};

/// Nodes on one RDMA device, their links with TLS.
struct OneDevice(Loopback<true>);

fn address() -> IpAddr {
    let address = std::env::var("TRADEWIND_RDMA_ADDRESS");
    let address = address.expect("TRADEWIND_RDMA_ADDRESS is the address of an RDMA device");
    address.parse().expect("an address")
}

impl OneDevice {
    fn start_verbs(&mut self, node: NodeId, incarnation: u64) -> VerbsFabric {
        let options = self.0.options(node, incarnation);
        VerbsFabric::new(self.0.start_with(options), true).unwrap()
    }
}

impl Site for OneDevice {
    fn new(nodes: u16, silence: Duration) -> Self {
        Self(Loopback::at(address(), nodes, silence))
    }

    fn start(&mut self, node: NodeId, incarnation: u64) -> Box<dyn Fabric> {
        Box::new(self.start_verbs(node, incarnation))
    }
}

conformance!(one_device, OneDevice);

#[test]
fn an_address_without_a_device_is_refused_in_words() {
    let why = device_for("127.0.0.1".parse().unwrap()).unwrap_err().to_string();
    assert!(why.contains("no RDMA device has 127.0.0.1 as a RoCE v2 address"), "{why}");
}

#[test]
fn rows_go_by_rdma_once_all_are_connected() {
    let mut nodes = Nodes::start(&mut OneDevice::new(3, Duration::from_secs(30)), 3);
    nodes.prepare(1, 1 << 20);
    let mut round = 0;
    nodes.until("A writes by RDMA", |all| {
        round += 1;
        all.put(A, 0, round, &[B, C]);
        all.at(A).counters().writes_posted > 0
    });
    nodes.until("both see the last", |all| {
        all.at(B).load(A, 0) == round && all.at(C).load(A, 0) == round
    });
    // Longer than a piece, and all rings together: many turns around the ring.
    let before = nodes.at(A).counters();
    for round in 1..=8_u8 {
        nodes.at(A).store(8, &vec![round; (1 << 20) - 8]);
        nodes.at(A).publish(8..1 << 20, &[B, C]);
        let word = u64::from_le_bytes([round; 8]);
        nodes.until("both see all of it", |all| {
            [B, C].iter().all(|peer| all.at(*peer).load(A, (1 << 20) - 8) == word)
        });
        let mut row = vec![0; (1 << 20) - 8];
        nodes.at(C).copy(A, 8, &mut row);
        assert!(row.iter().all(|byte| *byte == round), "whole and untorn");
    }
    let after = nodes.at(A).counters();
    assert!(after.writes_posted >= before.writes_posted + 2 * 8 * 16, "{after:?}");
}

#[test]
fn a_link_that_breaks_loses_nothing_that_was_to_go_by_rdma() {
    let mut nodes = Nodes::start(&mut OneDevice::new(2, Duration::from_secs(30)), 2);
    nodes.prepare(1, 1 << 16);
    for round in 1..=5_u64 {
        let posted = nodes.at(A).counters().writes_posted;
        nodes.until("A writes by RDMA", |all| {
            all.put(A, 0, round, &[B]);
            all.at(A).counters().writes_posted > posted
        });
        // B's queue pair has ended, and A does not know yet: what it writes is refused by the device.
        nodes.at(B).disconnect(A, "a test of nerves");
        nodes.poll(B);
        let offset = 8 * round as usize;
        nodes.put(A, offset, round, &[B]);
        nodes.until("B sees it over the next link", |all| all.at(B).load(A, offset) == round);
        assert_eq!(nodes.at(B).counters().stale_dropped, 0);
    }
}
