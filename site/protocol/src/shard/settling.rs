//! What becomes of entries once they are on disks: the commit watermark, answers, signatures and checkpoints
//! (docs/protocol.md, sections 5 and 6).

use tradewind_ledger::{Version, quorum};

use super::{Replica, Turn};
use crate::access::StoreAccess;
use crate::action::Action;
use crate::config::Mutation;
use crate::ids::NodeId;
use crate::memory::Memory;

impl<S: StoreAccess> Replica<S> {
    /// Finds what is delivered everywhere and what is on disk at a majority, and answers what waited for it.
    pub(super) fn settle<M: Memory>(&mut self, turn: &mut Turn<'_, M>) {
        let delivered = |node: &NodeId| turn.memory.load(*node, self.layout.delivered());
        let everywhere = self.peers.iter().map(delivered).map(Version).min();
        let everywhere = everywhere.map_or(self.machine.size(), |v| v.min(self.machine.size()));
        let flow = self.flow.as_ref().expect("a view was installed");
        self.durable_at[self.own] = self.durable;
        for (rank, node) in &flow.others {
            let heard = Version(turn.memory.load(*node, self.layout.durable()));
            self.durable_at[*rank] = self.durable_at[*rank].max(heard);
        }
        let begun = flow.begun;
        let mut sizes = self.durable_at.clone();
        sizes.sort_unstable();
        // The majority-th largest: (n / 2 + 1) members have at least this.
        let mut majority = sizes[(sizes.len() - 1) / 2];
        if turn.planted(Mutation::OwnDiskCommits) {
            majority = self.durable;
        }
        if turn.planted(Mutation::CommitOfFounders) {
            let founders = turn.config.shards[self.shard.index()].members.len();
            majority = sizes[sizes.len().saturating_sub(quorum(founders))];
        }
        let mut committed = majority.min(self.machine.size());
        // What earlier views left is settled only with the VIEW entry: a log without it could yet lose to another.
        if committed < begun && !turn.planted(Mutation::CommitBeforeView) {
            committed = Version::ZERO;
        }
        if committed > self.committed {
            self.committed = committed;
            turn.out.actions.push_back(Action::Committed { shard: self.shard, version: committed });
        }
        let answered = match turn.planted(Mutation::AnswerBeforeSync) {
            true => self.machine.size(),
            false => self.committed,
        };
        self.outbox.take_answers(everywhere, answered, &mut turn.out.answers);
    }

    /// What the other members in the view certainly have on their disks, for ever: of what is committed nothing is cut off.
    pub(crate) fn kept_by_others(&self) -> impl Iterator<Item = (NodeId, Version)> {
        let others = self.flow.iter().flat_map(|flow| &flow.others);
        others.map(|(rank, node)| (*node, self.durable_at[*rank].min(self.committed)))
    }

    pub(super) fn sign_and_collect<M: Memory>(&mut self, turn: &mut Turn<'_, M>) {
        let delivered = self.machine.size();
        let mut signable = self.committed.min(self.durable);
        if turn.planted(Mutation::SignBeforeSync) {
            signable = delivered;
        }
        if let Some(checkpoint) = self.marks.next_to_sign(signable) {
            turn.out.actions.push_back(Action::Sign { shard: self.shard, checkpoint });
        }
        for (rank, node) in &self.flow.as_ref().expect("a view runs").others {
            if self.marks.collect(turn.memory, &self.layout, (*rank, *node), delivered) {
                turn.out.counters.bad_signatures += 1;
            }
        }
        if let Some((size, note)) = self.marks.next_checkpoint(signable) {
            turn.out.counters.checkpoints += 1;
            turn.out.actions.push_back(Action::Checkpoint { shard: self.shard, size, note });
        }
    }
}
