//! Nodes that are added and removed while the site runs: each change is a topology file that comes to one node after the
//! other, which is restarted with it. Changes may overtake each other, and be under way when something goes wrong.

use tradewind_site_protocol::NodeId;

use super::plan::MS;
use super::world::{Event, World};

impl World<'_> {
    /// Somebody begins to give the nodes a file that ends with this roster. Who was removed does not get it.
    pub(super) fn change(&mut self, roster: usize) {
        self.tell(|| format!("a topology file with roster {roster} is given to the nodes"));
        self.coverage.changes += 1;
        for node in (0..self.nodes.len() as u16).map(NodeId) {
            if self.plan.is_seated(node, roster) {
                let at = self.now + self.rng.range(MS..400 * MS);
                self.at(at, Event::File(node, roster));
            }
        }
    }

    pub(super) fn give_file(&mut self, node: NodeId, roster: usize) {
        let state = &mut self.nodes[node.index()];
        if state.file >= Some(roster) {
            return;
        }
        // Who has none yet was not there before.
        let is_new = state.file.replace(roster).is_none();
        match is_new {
            true => self.at(self.now, Event::Restart(node)),
            false => self.crash(node),
        }
    }

    /// In the end all have the last file.
    pub(super) fn complete_changes(&mut self) {
        let last = self.plan.last_roster();
        for node in (0..self.nodes.len() as u16).map(NodeId) {
            if self.plan.is_seated(node, last) {
                self.give_file(node, last);
            }
        }
    }

    /// A node was told that it was removed, and ends.
    pub(super) fn dismiss(&mut self, node: NodeId) {
        self.crash(node);
        self.coverage.dismissed += 1;
        self.nodes[node.index()].dismissed = true;
        self.tell(|| format!("{node} was removed"));
    }

    /// Nodes are linked only if each has heard of the other.
    pub(super) fn know_each_other(&self, a: NodeId, b: NodeId) -> bool {
        let knows = |node: NodeId, other: NodeId| {
            let file = self.nodes[node.index()].file;
            file.is_some_and(|file| (0..=file).any(|roster| self.plan.is_seated(other, roster)))
        };
        knows(a, b) && knows(b, a)
    }
}
