//! When a run is over, and what is checked then.

use tradewind_site_protocol::{ShardIndex, State};

use super::check::{Check, Checker};
use super::world::{Submitted, World, members_disks};

impl World<'_> {
    pub(super) fn is_at_rest(&self) -> bool {
        let clients_done = self.clients.iter().all(|c| c.done == self.plan.requests_per_client);
        clients_done
            && self.unanswered().is_none()
            && (0..self.plan.shards.len()).all(|shard| self.shard_is_at_rest(shard))
    }

    pub(super) fn shard_is_at_rest(&self, shard: usize) -> bool {
        let mut statuses = self.plan.members(shard).iter().map(|member| {
            let core = self.nodes[member.index()].core.as_ref()?;
            let status = core.replica_status(ShardIndex(shard as u16))?;
            let rests = core.state() == State::Active
                && status.committed == status.delivered
                && status.checkpoint == status.delivered
                && status.durable == status.delivered
                && status.pending == 0;
            rests.then_some((core.view(), status.delivered))
        });
        let first = statuses.next().flatten();
        first.is_some() && statuses.all(|status| status == first)
    }

    pub(super) fn unrest(&self) -> String {
        let mut text = String::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(core) = &node.core else { continue };
            text += &format!("n{index} {:?} view {}", core.state(), core.view());
            for shard in node.disks.keys() {
                let status = core.replica_status(ShardIndex(*shard as u16));
                text += &format!("; shard {shard}: {status:?}");
            }
            text.push('\n');
        }
        text.extend(self.unanswered());
        let done: Vec<_> = self.clients.iter().map(|client| client.done).collect();
        format!("{text}clients did {done:?} of {}", self.plan.requests_per_client)
    }

    /// What a node accepted it answers, unless it crashed.
    pub(super) fn unanswered(&self) -> Option<String> {
        let kept = |submitted: &&Submitted| {
            let node = &self.nodes[submitted.node.index()];
            node.core.is_some() && node.incarnation == submitted.incarnation
        };
        let Submitted { request, node, .. } = self.tickets.values().find(kept)?;
        Some(format!("{node} accepted {request} and never answered"))
    }

    pub(super) fn check_end(&mut self) -> Check {
        for shard in 0..self.plan.shards.len() {
            let disks = members_disks(self.plan, &self.nodes, shard);
            self.checker.invariant_segments_identical(shard, &disks)?;
        }
        let crashes: Vec<u64> = self.nodes.iter().map(|node| node.crashes).collect();
        self.checker.invariant_acknowledged_is_present(&crashes)?;
        self.checker.invariant_each_request_once()?;
        self.checker.invariant_signed_is_present()?;
        for (shard, history) in self.histories.iter().enumerate() {
            self.coverage.linear_calls += history.calls() as u64;
            Checker::invariant_linearizable(shard, history)?;
        }
        Ok(())
    }
}
