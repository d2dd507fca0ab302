//! What a core needs of its surroundings besides messages: rows on a fabric, and clocks.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tradewind_site_protocol::{Instant, Memory, NodeId, Now};
use tradewind_transport::fabric::{self, Fabric};

/// The part of the fabric that the core may touch.
pub struct Rows<'a> {
    /// Where the rows are.
    pub fabric: &'a mut dyn Fabric,
    /// Peers in the fabric's own type, kept between calls to spare an allocation a publish.
    pub peers: &'a mut Vec<fabric::NodeId>,
}

impl Memory for Rows<'_> {
    fn store(&mut self, offset: usize, bytes: &[u8]) {
        self.fabric.store(offset, bytes);
    }

    fn publish(&mut self, range: Range<usize>, peers: &[NodeId]) {
        self.peers.clear();
        self.peers.extend(peers.iter().copied().map(on_fabric));
        self.fabric.publish(range, self.peers);
    }

    fn load(&self, peer: NodeId, offset: usize) -> u64 {
        self.fabric.load(on_fabric(peer), offset)
    }

    fn copy(&self, peer: NodeId, offset: usize, out: &mut [u8]) {
        self.fabric.copy(on_fabric(peer), offset, out);
    }
}

/// The node's name in the fabric's own type.
pub(crate) fn on_fabric(node: NodeId) -> fabric::NodeId {
    fabric::NodeId(node.0)
}

/// The clocks, read once a turn. `started` is where the monotonic one begins.
#[must_use]
pub fn now(started: std::time::Instant) -> Now {
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    Now {
        instant: Instant(micros(started.elapsed())),
        // A clock before 1970 only makes stamps small; entry times still grow.
        wall_us: micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
    }
}
