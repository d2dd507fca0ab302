//! The views that a node takes part in, for an application in the same process.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::watch;
use tradewind_ledger::ViewId;
use tradewind_site_protocol::{NodeId, State, Status};

/// How many of the latest views are remembered.
const REMEMBERED: usize = 64;

/// Whether a node takes part in what its site does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The view runs here: commands are taken.
    Active,
    /// A majority is there and agrees on the next view.
    Forming,
    /// No majority can be reached.
    Minority {
        /// The nodes it waits for, by name.
        missing: Vec<String>,
    },
    /// A view runs without this node, which catches up.
    LeftOut {
        /// The view that runs.
        by: ViewId,
    },
    /// The node cannot go on.
    Failed,
}

/// A node's part in its site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The last view that it installed; zero before the first.
    pub view: ViewId,
    /// The members of that view, by name: a majority of the site's nodes.
    pub members: Vec<String>,
    /// Whether that view runs here.
    pub standing: Standing,
}

/// The views that a node took part in since its start.
#[derive(Debug)]
pub struct Views {
    names: Vec<String>,
    now: watch::Sender<Membership>,
    /// Ascending by number.
    installed: Mutex<VecDeque<(ViewId, Vec<String>)>>,
}

impl Views {
    /// For a site of nodes with these names.
    pub(crate) fn new(names: Vec<String>) -> Self {
        let (view, members, standing) = (ViewId(0), Vec::new(), Standing::Forming);
        let now = watch::Sender::new(Membership { view, members, standing });
        Self { names, now, installed: Mutex::default() }
    }

    /// The node's part now, and how it changes. What changes twice before one looks is seen once.
    #[must_use]
    pub fn membership(&self) -> watch::Receiver<Membership> {
        self.now.subscribe()
    }

    /// The members of a view, if it is one of the latest that this node took part in. It is known before any entry of
    /// the view is committed here.
    #[must_use]
    pub fn members_of(&self, view: ViewId) -> Option<Vec<String>> {
        let installed = self.installed.lock();
        let at = installed.binary_search_by_key(&view, |(view, _)| *view).ok()?;
        Some(installed[at].1.clone())
    }

    pub(crate) fn install(&self, view: ViewId, members: &[NodeId]) {
        let members = self.name(members);
        let mut installed = self.installed.lock();
        if installed.len() == REMEMBERED {
            installed.pop_front();
        }
        installed.push_back((view, members.clone()));
        drop(installed);
        self.now.send_replace(Membership { view, members, standing: Standing::Active });
    }

    pub(crate) fn tell(&self, status: &Status) {
        let standing = match &status.state {
            State::Active => Standing::Active,
            State::Forming { .. } => Standing::Forming,
            State::Minority { missing, .. } => Standing::Minority { missing: self.name(missing) },
            State::Learning { view, .. } => Standing::LeftOut { by: *view },
            State::Failed(_) => Standing::Failed,
        };
        self.now.send_if_modified(|now| {
            let changed = now.standing != standing;
            now.standing = standing;
            changed
        });
    }

    fn name(&self, nodes: &[NodeId]) -> Vec<String> {
        nodes.iter().map(|node| self.names[node.index()].clone()).collect()
    }
}
