//! RDMA: the conformance suite, on the device that is at the address in `TRADEWIND_RDMA_ADDRESS`
//! (tests/rdma/run boots a machine with one).

use std::{net::IpAddr, time::Duration};

use tradewind_transport::fabric::{
    Fabric, FabricEvent, NodeId,
    verbs::{VerbsFabric, device_for, usable_on},
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

/// tests/rdma/faults puts something in the way, and tells in `TRADEWIND_RDMA_FAULT` which words are expected.
#[test]
fn what_stands_in_the_way_is_said_with_the_remedy() {
    let usable = usable_on(address()).map_err(|why| why.to_string());
    match std::env::var("TRADEWIND_RDMA_FAULT") {
        Err(_) => usable.expect("nothing stands in the way"),
        Ok(expected) => {
            let words = usable.expect_err("something stands in the way");
            println!("{words}");
            assert!(words.contains(&expected), "{words}");
        }
    }
}

/// A batch that is longer than the ring needs the writer again and again; a message over TCP does not.
#[test]
fn a_message_waits_for_a_batch_that_has_not_come_wholly() {
    const ROW: usize = 4 << 20;
    let mut nodes = Nodes::start(&mut OneDevice::new(2, Duration::from_secs(30)), 2);
    nodes.prepare(1, ROW);
    nodes.until("A writes by RDMA", |all| {
        all.put(A, 0, 1, &[B]);
        all.at(A).counters().writes_posted > 0 && all.at(B).load(A, 0) == 1
    });
    nodes.at(A).store(0, &[7; ROW]);
    nodes.at(A).publish(0..ROW, &[B]);
    assert!(nodes.at(A).send(B, b"after it"));
    nodes.at(A).flush();
    // A stands still now.
    nodes.until_of(&[B], "the message is there, and a ring full of the batch", |all| {
        let counters = all.at(B).counters();
        counters.messages_received == 1 && counters.bytes_received >= 1 << 20
    });
    let message = |event: &FabricEvent| matches!(event, FabricEvent::Message { .. });
    assert!(!nodes.told(B, message), "a message came before what was published before it");
    assert_eq!(nodes.at(B).load(A, ROW - 8), 0, "the batch is still under way");
    nodes.until("the message comes", |all| all.told(B, message));
    assert_eq!(nodes.at(B).load(A, ROW - 8), 0x0707_0707_0707_0707, "with what it comes after");
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
