//! How rows reach each peer at the moment, and why so.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use super::NodeId;

/// What carries rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathKind {
    /// Memory that processes of one host share.
    Shm,
    /// A TCP connection.
    Tcp,
    /// RDMA writes of a network card.
    Verbs,
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shm => "shm",
            Self::Tcp => "tcp",
            Self::Verbs => "verbs",
        })
    }
}

/// How rows reach one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// What carries them.
    pub kind: PathKind,
    /// Why, for people.
    pub why: String,
}

/// The paths to all nodes of a site: written by the fabric, read by whoever shows them.
#[derive(Debug)]
pub struct Paths(Mutex<Vec<Path>>);

impl Paths {
    /// The same path to each of `nodes` nodes.
    #[must_use]
    pub fn new(nodes: usize, kind: PathKind, why: &str) -> Self {
        Self(Mutex::new(vec![Path { kind, why: why.to_owned() }; nodes]))
    }

    /// The path to `node`, unless there is no such node.
    #[must_use]
    pub fn to(&self, node: NodeId) -> Option<Path> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(node.index()).cloned()
    }

    pub(super) fn set(&self, node: NodeId, kind: PathKind, why: &str) {
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        paths[node.index()] = Path { kind, why: why.to_owned() };
    }
}
