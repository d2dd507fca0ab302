//! The memory of one node, and pictures of rows that are on their way to others.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::rc::Rc;

use tradewind_ledger::ViewId;
use tradewind_site_protocol::{Memory, NodeId};

/// A node's row as it was published, at some moment.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) view: ViewId,
    /// Grows with each publish: a picture is newer than another one of its view by this.
    pub(super) publishes: u64,
    bytes: Vec<u8>,
    /// A hash of the bytes.
    pub(super) print: u64,
}

impl Row {
    fn new(view: ViewId, len: usize) -> Self {
        Self { view, publishes: 0, bytes: vec![0; len], print: 0 }
    }
}

/// The own row, and what was seen of the others'.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    own: Vec<u8>,
    /// What of it the others may see.
    pub(super) shown: Rc<Row>,
    /// By node; `None` for who is no member, and for the own one.
    pub(super) copies: Vec<Option<Rc<Row>>>,
}

impl Rows {
    /// Rows of zeroes for a view.
    pub(super) fn new(own: NodeId, nodes: usize, of: (ViewId, &[NodeId]), len: usize) -> Self {
        let (view, members) = of;
        let shown = Rc::new(Row::new(view, len));
        let copy = |node: u16| {
            let node = NodeId(node);
            (node != own && members.contains(&node)).then(|| shown.clone())
        };
        Self { own: vec![0; len], copies: (0..nodes as u16).map(copy).collect(), shown }
    }

    /// Whether this picture of a peer's row shows more than what was seen of it.
    pub(super) fn is_news(&self, from: NodeId, row: &Row) -> bool {
        let seen = self.copies[from.index()].as_ref();
        seen.is_some_and(|seen| seen.view == row.view && seen.publishes < row.publishes)
    }

    /// A picture of a peer's row lands, if it shows more.
    pub(super) fn land(&mut self, from: NodeId, row: &Rc<Row>) {
        if self.is_news(from, row) {
            self.copies[from.index()] = Some(row.clone());
        }
    }

    /// After a turn: the picture that goes to others has its hash.
    pub(super) fn seal(&mut self) {
        if self.shown.print == 0 {
            let mut hasher = DefaultHasher::new();
            self.shown.bytes.hash(&mut hasher);
            Rc::make_mut(&mut self.shown).print = hasher.finish().max(1);
        }
    }

    /// Hashes what tells these rows from others.
    pub(super) fn print(&self, hasher: &mut impl Hasher) {
        // The own row differs from what is shown only within a turn.
        let rows = self.copies.iter().flatten().chain([&self.shown]);
        rows.for_each(|row| (row.view.0, row.publishes, row.print).hash(hasher));
    }
}

impl Memory for Rows {
    fn store(&mut self, offset: usize, bytes: &[u8]) {
        self.own[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn publish(&mut self, range: Range<usize>, _: &[NodeId]) {
        let shown = Rc::make_mut(&mut self.shown);
        shown.bytes[range.clone()].copy_from_slice(&self.own[range]);
        (shown.publishes, shown.print) = (shown.publishes + 1, 0);
    }

    fn load(&self, peer: NodeId, offset: usize) -> u64 {
        let row = self.copies[peer.index()].as_ref().expect("members are looked at only");
        u64::from_le_bytes(row.bytes[offset..offset + 8].try_into().expect("eight bytes"))
    }

    fn copy(&self, peer: NodeId, offset: usize, out: &mut [u8]) {
        let row = self.copies[peer.index()].as_ref().expect("members are looked at only");
        out.copy_from_slice(&row.bytes[offset..offset + out.len()]);
    }
}
