//! What can happen next, in words.

use std::fmt;

use tradewind_site_protocol::NodeId;

/// What events come one after the other through, and what can be held up alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Channel {
    /// Messages of the control lane, and news of the link, to the second node from the first.
    Lane(NodeId, NodeId),
    /// The row of the first node, as the second sees it.
    Row(NodeId, NodeId),
    /// What a node's log syncs.
    Log(NodeId),
    /// A node's promise on its way to the disk.
    Promise(NodeId),
    /// A link that is about to come up.
    Link(NodeId, NodeId),
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lane(from, to) => write!(f, "messages from {from} to {to}"),
            Self::Row(from, to) => write!(f, "the row of {from} at {to}"),
            Self::Log(node) => write!(f, "the log of {node}"),
            Self::Promise(node) => write!(f, "the promise of {node}"),
            Self::Link(a, b) => write!(f, "the link between {a} and {b}"),
        }
    }
}

/// One step.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Step {
    /// What is next in a channel: a message is handled, a row seen, a sync ends.
    Next(Channel),
    /// Nothing comes through a channel until there is nothing else to do, or it is released.
    Hold(Channel),
    /// It goes on.
    Release(Channel),
    /// The n-th command of the opening is given to its node.
    Submit(usize),
    /// A link breaks. It stays down until there is nothing else to do, or it is mended.
    Cut(NodeId, NodeId),
    /// It comes back.
    Mend(NodeId, NodeId),
    /// A process is killed, and power lost: what was being written is on the disk, or not.
    Crash(NodeId, bool),
    /// Power is lost at all nodes, with what they were writing.
    Outage,
    /// A node starts again.
    Start(NodeId),
    /// The next timer of one node is due: its clock is ahead of the others' from now on.
    Tick(NodeId),
    /// The next timer of whoever forms a view is due, on the clocks of all.
    Time,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Next(channel) => write!(f, "{channel}"),
            Self::Hold(channel) => write!(f, "HOLD {channel}"),
            Self::Release(channel) => write!(f, "RELEASE {channel}"),
            Self::Submit(command) => write!(f, "command {command} is submitted"),
            Self::Cut(a, b) => write!(f, "CUT the link between {a} and {b}"),
            Self::Mend(a, b) => write!(f, "MEND the link between {a} and {b}"),
            Self::Crash(node, true) => write!(f, "CRASH {node}, what it was writing is kept"),
            Self::Crash(node, false) => write!(f, "CRASH {node}, what it was writing is lost"),
            Self::Outage => write!(f, "CRASH all, what they were writing is lost"),
            Self::Start(node) => write!(f, "START {node}"),
            Self::Tick(node) => write!(f, "TICK of {node}"),
            Self::Time => write!(f, "time passes"),
        }
    }
}
