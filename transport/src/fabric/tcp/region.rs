//! The regions of one view: the own row, and the copies of the other members' rows.

use std::ops::Range;

use crate::fabric::NodeId;

/// Rows of one view. Dropped as a whole when the next view is prepared.
pub(in crate::fabric) struct Region {
    pub(in crate::fabric) view: u64,
    pub(in crate::fabric) row_len: usize,
    rows: Vec<Option<Box<[u8]>>>,
}

impl Region {
    /// Zeroed rows for `members` out of `nodes` nodes.
    pub(in crate::fabric) fn new(
        view: u64,
        members: &[NodeId],
        row_len: usize,
        nodes: usize,
    ) -> Self {
        let mut rows: Vec<Option<Box<[u8]>>> = (0..nodes).map(|_| None).collect();
        for member in members {
            rows[member.index()] = Some(vec![0; row_len].into_boxed_slice());
        }
        Self { view, row_len, rows }
    }

    pub(in crate::fabric) fn is_member(&self, node: NodeId) -> bool {
        self.rows.get(node.index()).is_some_and(Option::is_some)
    }

    /// Whether a range that is to be published is one of the row.
    ///
    /// # Panics
    /// If it is not.
    pub(in crate::fabric) fn check(&self, range: &Range<usize>) {
        let row_len = self.row_len;
        assert!(
            range.start <= range.end && range.end <= row_len,
            "{range:?} in a row of {row_len}"
        );
    }

    /// # Panics
    /// If `node` is no member of the view.
    pub(in crate::fabric) fn row(&self, node: NodeId) -> &[u8] {
        match self.rows.get(node.index()) {
            Some(Some(row)) => row,
            _ => panic!("{node} is no member of view {}", self.view),
        }
    }

    /// # Panics
    /// If `node` is no member of the view.
    pub(in crate::fabric) fn row_mut(&mut self, node: NodeId) -> &mut [u8] {
        match self.rows.get_mut(node.index()) {
            Some(Some(row)) => row,
            _ => panic!("{node} is no member of view {}", self.view),
        }
    }
}
