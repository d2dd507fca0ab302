//! What a node's shell does for its core, with what must hold then.

use std::rc::Rc;

use tradewind_ledger::{RequestId, RequestNumber, SessionId, Version, ViewId};
use tradewind_site_protocol::{
    Action, Durability, NodeCore, NodeId, ShardIndex, State, Submission, Ticket,
};
use tradewind_store::{Condition, Reply, Store};

use super::disk::Disk;
use super::known::Known;
use super::parts::{Command, Link, Node, Watch};
use super::rows::Rows;
use super::world::World;
use crate::sim::{Check, broken};

impl World {
    pub(super) fn submit(&mut self, command: usize, watch: &mut Watch) -> Check {
        let Command { node, puts, .. } = self.setting.commands[command];
        self.submitted[command] = true;
        for number in (0..puts).map(|put| 10 * command as u64 + put + 1) {
            let submission = put(number);
            let core = core(self.node_mut(node));
            if core.handle_submit(ShardIndex(0), submission).is_ok() {
                self.known_mut().open.insert((node, number));
            }
        }
        self.turn(node, watch)
    }

    fn known_mut(&mut self) -> &mut Known {
        Rc::make_mut(&mut self.known)
    }

    pub(super) fn act(&mut self, node: NodeId, action: Action, watch: &mut Watch) -> Check {
        let count = self.nodes.len();
        match action {
            Action::Prepare { view, members, row_len } => {
                self.node_mut(node).rows = Rows::new(node, count, (view, &members), row_len);
            }
            Action::Send { to, message } => self.send(node, to, message),
            Action::Disconnect { peer, reason } => {
                watch.tell(|| format!("  {node} disconnects {peer}: {reason}"));
                self.break_link(node, peer, Link::Down);
            }
            Action::Append { first, entries, .. } => {
                watch.tell(|| format!("  {node} appends {} at {first}", entries.len()));
                let state = self.node_mut(node);
                assert_eq!(first, state.disk.size(), "no gap");
                state.disk.append(&entries);
                let disk = &self.nodes[node.index()].disk;
                Rc::make_mut(&mut self.known).invariant_one_order(disk, &entries)?;
                self.check_stable()?;
            }
            Action::Promise(promise) => {
                watch.tell(|| format!("  {node} promises view {}", promise.view));
                self.node_mut(node).disk.promising = Some(promise);
            }
            // Nothing waits for it, and without it less is refused: written at once is the hardest case.
            Action::Remember(peers) => self.node_mut(node).disk.remembered = peers,
            Action::ReadLog { reader, first, end, .. } => {
                let state = self.node_mut(node);
                let (root, entries) = state.disk.read(first, end);
                core(state).handle_log_read(reader, first, root, entries);
            }
            Action::ReadRoots { reader, sizes } => {
                let state = self.node_mut(node);
                let roots = sizes.into_iter().map(|size| (size, state.disk.root(size))).collect();
                let now = state.now();
                core(state).handle_roots(now, reader, roots);
            }
            Action::Rewind { shard, to, dropped } => {
                watch.tell(|| format!("  {node} cuts {dropped} entries, to {to}"));
                self.known.invariant_rewind_keeps_committed(&self.node(node).disk, to)?;
                let state = self.node_mut(node);
                state.disk.cut(to);
                let (now, left) = (state.now(), state.disk.recover());
                core(state).handle_rewound(now, shard, left);
            }
            Action::Stopped { view, why } => {
                watch.tell(|| format!("  {node} stops view {view}: {why:?}"));
                self.node_mut(node).runs = None;
            }
            Action::Installed { view, members } => self.installed(node, view, members, watch)?,
            Action::Committed { version, .. } => {
                let (head, disks) = (self.node(node).disk.head(version), self.disks(node));
                let mut known = (*self.known).clone();
                known.invariant_committed_is_durable(version, head, &disks)?;
                self.known = Rc::new(known);
            }
            Action::Answers(answers) => {
                for answer in answers {
                    self.answered(node, answer.ticket, &answer.reply, watch)?;
                }
            }
            Action::Unknown(tickets) => {
                let open = &mut self.known_mut().open;
                tickets.iter().for_each(|ticket| _ = open.remove(&(node, ticket.0)));
            }
            Action::Failed(fatal) => {
                return broken("invariant_no_node_fails", format!("{node}: {fatal}"));
            }
            Action::Sign { .. } | Action::Snapshot { .. } | Action::Checkpoint { .. } => {}
            other => unreachable!("nothing here asks for {other:?}"),
        }
        Ok(())
    }

    fn installed(
        &mut self,
        node: NodeId,
        view: ViewId,
        members: Vec<NodeId>,
        watch: &mut Watch,
    ) -> Check {
        watch.tell(|| format!("  {node} installs view {view} of {members:?}"));
        watch.views.insert(members.len());
        self.waited = 0;
        let roster = core(self.node_mut(node)).roster().index();
        let setting = self.setting.clone();
        let known = self.known_mut();
        known.invariant_one_successor_view(&setting.site, view, roster, &members)?;
        self.known.invariant_acknowledged_is_present(view, &self.node(node).disk)?;
        self.node_mut(node).runs = Some((view, members));
        Ok(())
    }

    fn answered(
        &mut self,
        node: NodeId,
        ticket: Ticket,
        reply: &Reply,
        watch: &mut Watch,
    ) -> Check {
        watch.tell(|| format!("  {node} answers {ticket:?}"));
        if !self.known_mut().open.remove(&(node, ticket.0)) {
            return broken("invariant_answered_once", format!("{node} answers {ticket:?} again"));
        }
        let Reply::Written { version, .. } = reply else {
            return broken("invariant_answered_once", format!("{ticket:?}: {reply:?}"));
        };
        let (head, disks) = (self.node(node).disk.head(version.next()), self.disks(node));
        let mut known = (*self.known).clone();
        known.invariant_acknowledged_is_durable(*version, head, &disks)?;
        self.known = Rc::new(known);
        Ok(())
    }

    /// The disks of the members of the roster that a node goes by.
    fn disks(&self, node: NodeId) -> Vec<&Disk> {
        let roster = self.node(node).core.as_ref().map_or(0, |core| core.roster().index());
        let members = self.setting.site.members(roster).iter();
        members.map(|node| &self.node(*node).disk).collect()
    }

    fn check_stable(&self) -> Check {
        let running = |node: &Rc<Node>| {
            let core = node.core.as_ref().filter(|core| core.state() == State::Active)?;
            Some((core.view().0, core.replica_status(ShardIndex(0))?))
        };
        let statuses: Vec<_> = self.nodes.iter().filter_map(running).collect();
        Known::invariant_stable_before_delivered(&statuses)
    }

    /// How many entries a node knows to be committed.
    pub(super) fn committed(&self, node: NodeId) -> Version {
        let status = self.node(node).core.as_ref().and_then(|c| c.replica_status(ShardIndex(0)));
        status.map_or(Version::ZERO, |status| status.committed)
    }
}

fn core(node: &mut Node) -> &mut NodeCore<Store> {
    node.core.as_mut().expect("it acts")
}

/// A request of its own for each number.
fn put(number: u64) -> Submission {
    let key = format!("key-{number}").into_bytes();
    let put = tradewind_store::Command::Put { key, value: vec![7], condition: Condition::Always };
    Submission {
        ticket: Ticket(number),
        request: RequestId { session: SessionId(number.into()), number: RequestNumber(1) },
        durability: Durability::Disk,
        command: put.encode(),
        bodies: Vec::new(),
    }
}
