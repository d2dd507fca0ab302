//! Ids, positions and times of the core group. Everything that is also written into a ledger lives
//! in [`tradewind_ledger::ids`].

use core::fmt;

use serde::{Deserialize, Serialize};

/// A node of the site: its index in the topology's list of nodes (the same at every node).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct NodeId(pub u16);

impl NodeId {
    /// The index as `usize`.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

/// A shard of the site: its index in [`crate::NodeConfig::shards`] (the same at every node).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ShardIndex(pub u16);

impl ShardIndex {
    /// The index as `usize`.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for ShardIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}", self.0)
    }
}

/// The shell's name for one submission; handed back in its [`crate::Answer`]. Unique at a node among
/// the submissions that are not yet answered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// A body of the bulk lane at one node: unique at a node within a shard, from the start of the process on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct BodyId(pub u64);

impl BodyId {
    /// This one; the next call gives the next.
    pub(crate) fn take(&mut self) -> Self {
        let next = *self;
        self.0 += 1;
        next
    }
}

/// A barrier for reads, by its number: strictly larger at every barrier that a start of a node asks for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Barrier(pub u64);

impl Barrier {
    /// The one after it.
    #[must_use]
    pub fn next(self) -> Barrier {
        Barrier(self.0 + 1)
    }
}

/// Which start of the process this is: strictly larger at every start of the same node (the shell
/// keeps the counter on disk and syncs it before it uses it).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct Incarnation(pub u64);

/// Microseconds of a monotonic clock; only differences mean anything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Instant(pub u64);

impl Instant {
    /// Microseconds from `earlier` to `self`; zero when `earlier` is not earlier.
    #[must_use]
    pub fn since(self, earlier: Instant) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This instant plus `us` microseconds.
    #[must_use]
    pub fn plus(self, us: u64) -> Instant {
        Instant(self.0.saturating_add(us))
    }
}

/// The two clocks of the shell, read once a turn and passed to every input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// For timers. Never goes back.
    pub instant: Instant,
    /// Wall clock, microseconds since 1970: only for the stamps of messages. It may jump; safety does
    /// not depend on it.
    pub wall_us: u64,
}
