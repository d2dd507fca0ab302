//! Shared memory: the conformance suite, then what only it has.

use std::time::Duration;

use tradewind_transport::fabric::{Fabric, NodeId, shm::ShmFabric};

use crate::{
    conformance::{Site, conformance},
    tcp::Loopback,
};

/// Nodes that share memory, their links on loopback with TLS.
struct OneHost(Loopback<true>);

impl OneHost {
    fn start_shm(&mut self, node: NodeId, incarnation: u64) -> ShmFabric {
        let options = self.0.options(node, incarnation);
        ShmFabric::new(self.0.start_with(options), true).unwrap()
    }
}

impl Site for OneHost {
    fn new(nodes: u16, silence: Duration) -> Self {
        Self(Loopback::new(nodes, silence))
    }

    fn start(&mut self, node: NodeId, incarnation: u64) -> Box<dyn Fabric> {
        Box::new(self.start_shm(node, incarnation))
    }
}

conformance!(one_host, OneHost);
