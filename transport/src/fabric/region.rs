//! The regions of one view: the own row, and the copies of the other members' rows.

use std::ops::Range;

use super::{FabricError, NodeId, ROW_BYTES_MAX, ranges::WORD};

/// Rows of one view. Dropped as a whole when the next view is prepared.
pub(crate) struct Region {
    pub(crate) view: u64,
    pub(crate) row_len: usize,
    rows: Vec<Option<Box<[u8]>>>,
}

impl Region {
    /// Zeroed rows for `members` out of `nodes` nodes.
    pub(crate) fn new(view: u64, members: &[NodeId], row_len: usize, nodes: usize) -> Self {
        let mut rows: Vec<Option<Box<[u8]>>> = (0..nodes).map(|_| None).collect();
        for member in members {
            rows[member.index()] = Some(vec![0; row_len].into_boxed_slice());
        }
        Self { view, row_len, rows }
    }

    /// Whether a view can follow `current` at the node `own` of so many; see [`Fabric::prepare`](super::Fabric::prepare).
    pub(crate) fn check_view(
        view: u64,
        current: u64,
        members: &[NodeId],
        row_len: usize,
        (own, nodes): (NodeId, usize),
    ) -> Result<(), FabricError> {
        if view <= current {
            return Err(FabricError::OldView { view, current });
        }
        if row_len == 0 || !row_len.is_multiple_of(WORD) || row_len > ROW_BYTES_MAX {
            return Err(FabricError::RowLength { found: row_len });
        }
        if let Some(&unknown) = members.iter().find(|member| member.index() >= nodes) {
            return Err(FabricError::UnknownMember(unknown));
        }
        if !members.contains(&own) {
            return Err(FabricError::NotMember(own));
        }
        Ok(())
    }

    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        self.rows.get(node.index()).is_some_and(Option::is_some)
    }

    /// Whether a range that is to be published is one of the row.
    ///
    /// # Panics
    /// If it is not.
    pub(crate) fn check(&self, range: &Range<usize>) {
        let row_len = self.row_len;
        assert!(
            range.start <= range.end && range.end <= row_len,
            "{range:?} in a row of {row_len}"
        );
    }

    /// # Panics
    /// If `node` is no member of the view.
    pub(crate) fn row(&self, node: NodeId) -> &[u8] {
        match self.rows.get(node.index()) {
            Some(Some(row)) => row,
            _ => panic!("{node} is no member of view {}", self.view),
        }
    }

    /// # Panics
    /// If `node` is no member of the view.
    pub(crate) fn row_mut(&mut self, node: NodeId) -> &mut [u8] {
        match self.rows.get_mut(node.index()) {
            Some(Some(row)) => row,
            _ => panic!("{node} is no member of view {}", self.view),
        }
    }
}
