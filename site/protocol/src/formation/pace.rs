//! Leaving out who holds the others up (docs/protocol.md, section 7, "Slow members").

use alloc::vec::Vec;
use core::cmp::Reverse;

use super::Forming;
use crate::access::StoreAccess;
use crate::action::Stop;
use crate::config::Mutation;
use crate::ids::{NodeId, Now};
use crate::memory::Memory;
use crate::node::NodeCore;
use crate::roster::Span;

impl<S: StoreAccess> NodeCore<S> {
    /// Once a heartbeat: stops the view if one of its members has held a shard up for too long and can be spared. `slept`:
    /// what was seen before says nothing.
    pub(crate) fn watch_pace<M: Memory>(&mut self, now: Now, memory: &M, slept: bool) {
        let slow_us = self.config.limits.slow_us;
        for replica in self.replicas.iter_mut().flatten() {
            replica.watch_pace(now.instant, slow_us / 8, slept, memory);
        }
        if let Some(node) = self.slow_members(now, slow_us).first() {
            self.stop(now, Stop::Slow(*node));
        }
    }

    /// At the end of a view, whatever ends it: who held it up. What is about to show counts at half the time.
    pub(super) fn held_up_by(&self, now: Now) -> Vec<NodeId> {
        match self.slept(now) {
            true => Vec::new(),
            false => self.slow_members(now, self.config.limits.slow_us / 2),
        }
    }

    /// The members that have held a shard up for longer than this and can all be spared: the others that are here are
    /// enough, and no shard that runs would wait. Those who were waited for longest come first.
    fn slow_members(&self, now: Now, longer_us: u64) -> Vec<NodeId> {
        let waited = |node: NodeId| {
            let replicas = self.replicas.iter().flatten();
            replicas.map(|replica| replica.waited_for(node, now.instant)).max().unwrap_or(0)
        };
        let others = self.other_members().into_iter();
        let mut slow: Vec<_> = others.map(|node| (waited(node), node)).collect();
        slow.retain(|(waited, _)| *waited > longer_us);
        slow.sort_by_key(|(waited, node)| (Reverse(*waited), *node));
        let here = |node: &NodeId| *node == self.config.own || self.peers[node.index()].connected;
        let mut left: Vec<NodeId> = self.members.iter().copied().filter(here).collect();
        let mut spared = Vec::new();
        for (_, node) in slow {
            let rest: Vec<NodeId> = left.iter().copied().filter(|other| *other != node).collect();
            if self.go_on_without(&left, &rest) {
                spared.push(node);
                left = rest;
            }
        }
        spared
    }

    /// Whether those that are left can be a view, in which all shards run that run with those who are here.
    fn go_on_without(&self, here: &[NodeId], left: &[NodeId]) -> bool {
        if self.planted == Some(Mutation::NeededLeftOut) {
            return true;
        }
        let span = Span { established: self.promise.established, roster: self.roster };
        let mut shards = self.config.shard_indexes();
        let runs = |shard, members: &[NodeId]| self.config.runs(span, shard, members);
        self.config.carries(span, left)
            && !shards.any(|shard| runs(shard, here) && !runs(shard, left))
    }

    /// Of the nodes of which was told that they held the others up, those without whom a view can be made at once, in which
    /// all shards run that run with them; the highest ones if not all can be spared. All go by what all told.
    pub(super) fn spared(&self, now: Now, forming: &Forming) -> Vec<NodeId> {
        let ready = |node: NodeId| {
            forming.is_settled(node)
                && self.is_in_time(now, forming, node)
                && !self.is_laggard(forming, node)
        };
        let mut spared = Vec::new();
        for node in forming.slow_ones().into_iter().rev() {
            spared.push(node);
            let rest = |node: NodeId| ready(node) && !spared.contains(&node);
            let is_enough = |one: NodeId| {
                let chosen = self.choice_with(one, forming, rest);
                let reachable = self.choice_with(one, forming, |_| true);
                chosen.zip(reachable).is_some_and(|(chosen, reachable)| {
                    chosen.span.roster >= reachable.span.roster
                        && !self.suspends(&chosen, &reachable)
                })
            };
            if !self.all_nodes().into_iter().any(|one| rest(one) && is_enough(one)) {
                spared.pop();
            }
        }
        spared
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use tradewind_ledger::{Digest, ViewId};

    use super::*;
    use crate::ids::{Incarnation, Instant};
    use crate::roster::RosterId;
    use crate::wire::{Hello, Stand};

    /// Whom nodes tell to be slow of which these are told.
    fn slow_ones(told: &[&[u16]]) -> Vec<u16> {
        let hello = |slow: &&[u16]| Hello {
            stand: Stand { incarnation: Incarnation(1), attempt: 1 },
            rosters: vec![Digest::ZERO],
            begun: RosterId(0),
            established: RosterId(0),
            last_view: ViewId(1),
            waiting_for: Vec::new(),
            settled: true,
            unfinished: false,
            late: Vec::new(),
            slow: slow.iter().copied().map(NodeId).collect(),
            ledgers: Vec::new(),
        };
        let mut forming = Forming::new(Instant(0), told.len());
        forming.hellos = told.iter().map(hello).map(Some).collect();
        forming.slow_ones().into_iter().map(|node| node.0).collect()
    }

    #[test]
    fn what_a_slow_one_tells_counts_only_if_nobody_else_tells_anything() {
        assert_eq!(slow_ones(&[&[], &[], &[]]), [0; 0]);
        assert_eq!(slow_ones(&[&[2], &[], &[1]]), [2], "it saw old rows of the one between");
        assert_eq!(slow_ones(&[&[2], &[], &[0]]), [0, 2], "what is between them is slow");
    }
}
