//! Leaving out who holds the others up (docs/protocol.md, section 7, "Slow members").

use alloc::vec::Vec;

use crate::access::StoreAccess;
use crate::action::{Action, Stop};
use crate::error::PeerFault;
use crate::ids::{NodeId, Now};
use crate::memory::Memory;
use crate::node::NodeCore;

impl<S: StoreAccess> NodeCore<S> {
    /// Once a heartbeat: stops the view if one of its members has held a shard up for too long and can be spared.
    pub(crate) fn watch_pace<M: Memory>(&mut self, now: Now, memory: &M, slept: bool) {
        let slow_us = self.config.limits.slow_us;
        for replica in self.replicas.iter_mut().flatten() {
            replica.watch_pace(now.instant, slow_us / 8, slept, memory);
        }
        if let Some((node, _)) = self.slow_members(now, slow_us).first() {
            self.stop(now, Stop::Slow(*node));
        }
    }

    /// The members that have held a shard up for longer than this and can all be spared: the others that are here are a
    /// majority, and no shard that runs would wait. Those who were waited for longest come first.
    fn slow_members(&self, now: Now, longer_us: u64) -> Vec<(NodeId, u64)> {
        let waited = |node: NodeId| {
            let replicas = self.replicas.iter().flatten();
            let waited = replicas.map(|replica| replica.waited_for(node, now.instant)).max();
            (node, waited.unwrap_or(0))
        };
        let mut slow: Vec<_> = self.other_members().into_iter().map(waited).collect();
        slow.retain(|(_, waited)| *waited > longer_us);
        slow.sort_by_key(|(node, waited)| (core::cmp::Reverse(*waited), *node));
        let here = |node: &NodeId| *node == self.config.own || self.peers[node.index()].connected;
        let mut left: Vec<NodeId> = self.members.iter().copied().filter(here).collect();
        slow.retain(|(node, _)| {
            let rest: Vec<NodeId> = left.iter().copied().filter(|other| other != node).collect();
            let mut shards = self.config.shards.iter();
            let waits = shards
                .any(|shard| self.has_majority(shard, &left) && !self.has_majority(shard, &rest));
            let spared = self.is_majority(rest.len()) && !waits;
            if spared {
                left = rest;
            }
            spared
        });
        slow
    }

    /// At the end of a view: whoever held it up is disconnected, and waits before it is let in again. What another
    /// member may have found first counts at half the time: all come to the same.
    pub(super) fn leave_slow_out(&mut self, now: Now) {
        let slow_us = self.config.limits.slow_us;
        for (node, waited) in self.slow_members(now, slow_us / 2) {
            self.out.counters.slow += 1;
            let peer = &mut self.peers[node.index()];
            peer.connected = false;
            peer.admit_at = now.instant.plus(slow_us);
            let reason = PeerFault::Slow(waited);
            self.out.actions.push_back(Action::Disconnect { peer: node, reason });
        }
    }
}
