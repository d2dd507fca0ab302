//! What a moment is made of: nodes, what is between them, what never changes, and who looks.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use tradewind_ledger::ViewId;
use tradewind_site_protocol::{Counters, Instant, NodeCore, NodeId, Now};
use tradewind_store::Store;

use super::disk::Disk;
use super::rows::{Row, Rows};
use super::site::Site;
use crate::sim::Planted;

/// Wall clocks at the beginning, microseconds since 1970.
const EPOCH_US: u64 = 1_700_000_000_000_000;

/// A node, up or down.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) core: Option<NodeCore<Store>>,
    pub(super) disk: Disk,
    pub(super) rows: Rows,
    /// The view that it runs.
    pub(super) runs: Option<(ViewId, Vec<NodeId>)>,
    /// By peer: whether it was told that the link is up, and not since that it is down.
    pub(super) linked: Vec<bool>,
    /// The last roster that its topology file tells of.
    pub(super) file: usize,
    pub(super) clock: u64,
    pub(super) print: u64,
}

impl Node {
    pub(super) fn now(&self) -> Now {
        Now { instant: Instant(self.clock), wall_us: EPOCH_US + self.clock }
    }

    /// Hashes all that tells this node from others.
    pub(super) fn seal(&mut self) {
        self.rows.seal();
        let (mut text, mut hasher) = (String::with_capacity(16 << 10), DefaultHasher::new());
        if let Some(core) = &self.core {
            core.describe(&mut text).expect("a string takes everything");
        }
        text.hash(&mut hasher);
        (self.core.is_some(), &self.linked, self.file, self.clock).hash(&mut hasher);
        self.disk.print(&mut hasher);
        self.rows.print(&mut hasher);
        self.print = hasher.finish();
    }
}

/// What is on its way to a node.
#[derive(Clone, Debug)]
pub(super) enum Frame {
    /// The link is up.
    Up,
    /// It is down.
    Down,
    /// A message, and the sender's row as it was published before: that is seen first.
    Message(Rc<[u8]>, Rc<Row>),
}

/// Between two nodes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Link {
    Up,
    /// It comes up by itself.
    Down,
    /// It was cut.
    Cut,
}

/// Commands of the opening.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command {
    /// Who is asked.
    pub(super) node: NodeId,
    /// In this view or a later one.
    pub(super) view: ViewId,
    /// So many at once: they travel in one message.
    pub(super) puts: u64,
}

/// What never changes on a path.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) site: Site,
    pub(super) commands: Vec<Command>,
    pub(super) planted: Option<Planted>,
}

/// What is told of steps to whoever looks.
#[derive(Default, Debug)]
pub(super) struct Watch {
    pub(super) counters: Counters,
    /// Sizes of the views that were installed.
    pub(super) views: BTreeSet<usize>,
    /// Line by line, if anybody reads it.
    pub(super) lines: Option<Vec<String>>,
}

impl Watch {
    pub(super) fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(line());
        }
    }
}
