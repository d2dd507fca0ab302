//! When a run is over, and what is checked then.

use tradewind_ledger::{Version, ViewId};
use tradewind_site_protocol::{NodeId, ShardIndex, State};

use super::check::{Check, Checker};
use super::coverage::Seen;
use super::disk::Disk;
use super::world::{Node, REST_WITHIN, Submitted, World, members_disks};

impl World<'_> {
    pub(super) fn is_at_rest(&self) -> bool {
        let last = self.plan.last_roster();
        if !self.on_last_roster().iter().all(|node| self.roster(*node) == last) {
            return false;
        }
        let clients_done = self.clients.iter().all(|c| c.done == self.plan.requests_per_client);
        let readers_done = self.readers.iter().all(|r| r.begun == self.plan.reads_per_reader);
        (clients_done && readers_done)
            && !self.nodes.iter().any(|node| node.disks.values().any(Disk::is_rotten))
            && self.unanswered().is_none()
            && self.unanswered_read().is_none()
            && (0..self.plan.shards.len()).all(|shard| self.shard_is_at_rest(shard))
    }

    /// Whether the nodes that are up make one view, and all shards that have a majority in it are at rest.
    pub(super) fn majority_is_at_rest(&self) -> bool {
        let mut up = self.on_last_roster();
        up.retain(|node| !self.nodes[node.index()].held);
        let mut views = up.iter().map(|node| {
            let status = self.nodes[node.index()].core.as_ref()?.status();
            (status.state == State::Active && status.members == up).then_some(status.view)
        });
        let first = views.next().flatten();
        first.is_some()
            && views.all(|view| view == first)
            && (0..self.plan.shards.len()).all(|shard| {
                let members = self.plan.members(shard, self.plan.last_roster());
                let here: Vec<_> = members.iter().filter(|node| up.contains(node)).collect();
                here.len() <= members.len() / 2
                    || here.iter().all(|node| self.rests(**node, shard).is_some())
            })
    }

    /// When all must be at rest: that depends on how much there is to catch up with.
    pub(super) fn rest_until(&self) -> u64 {
        let disks = self.nodes.iter().flat_map(|node| node.disks.values());
        let (entries, bytes) = disks.fold((0, 0), |(entries, bytes), disk| {
            (entries + disk.entries().len() as u64, bytes + disk.bytes())
        });
        // Who was slow again and again has to wait.
        let wait = 16 * self.plan.limits.slow_us;
        self.rest_since + REST_WITHIN + wait + self.plan.transfer_us(entries, bytes)
    }

    /// A node installs a view; perhaps it stopped the last one to let somebody in.
    pub(super) fn admitted(&mut self, node: NodeId) -> Check {
        let Some(stopped) = self.admitting[node.index()].take() else { return Ok(()) };
        let slow = |node: &Node| node.slow_until.max(node.full_until) >= stopped;
        let slow = self.nodes.iter().any(slow);
        if slow || self.troubled_at >= stopped || self.plan.veiled {
            return Ok(());
        }
        let pause = self.now - stopped;
        self.see(Seen::Join);
        self.coverage.join_pause_max = self.coverage.join_pause_max.max(pause);
        Checker::invariant_join_pause_is_bounded(pause, self.plan.join_pause_us())
    }

    /// The view and size of a replica in which everything is done.
    fn rests(&self, node: NodeId, shard: usize) -> Option<(ViewId, Version)> {
        let core = self.nodes[node.index()].core.as_ref()?;
        let status = core.replica_status(ShardIndex(shard as u16))?;
        let rests = core.state() == State::Active
            && status.committed == status.delivered
            && status.checkpoint == status.delivered
            && status.durable == status.delivered
            && status.pending == 0;
        rests.then_some((core.view(), status.delivered))
    }

    pub(super) fn shard_is_at_rest(&self, shard: usize) -> bool {
        let members = self.plan.members(shard, self.plan.last_roster()).iter();
        let mut statuses = members.map(|member| self.rests(*member, shard));
        let first = statuses.next().flatten();
        first.is_some() && statuses.all(|status| status == first)
    }

    pub(super) fn unrest(&self) -> String {
        let mut text = String::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(core) = &node.core else { continue };
            let members = core.status().members;
            text += &format!("n{index} {:?} view {} of {members:?}", core.state(), core.view());
            for shard in node.disks.keys() {
                let status = core.replica_status(ShardIndex(*shard as u16));
                text += &format!("; shard {shard}: {status:?}");
            }
            text.push('\n');
        }
        text.extend(self.unanswered().into_iter().chain(self.unanswered_read()));
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
            let disks = members_disks(self.plan, &self.nodes, shard, self.plan.last_roster());
            self.checker.invariant_segments_identical(shard, &disks)?;
        }
        let crashes: Vec<u64> = self.nodes.iter().map(|node| node.crashes).collect();
        let last = self.plan.last_roster();
        let ledger = |shard| members_disks(self.plan, &self.nodes, shard, last)[0].entries();
        let ledgers: Vec<&[Vec<u8>]> = (0..self.plan.shards.len()).map(ledger).collect();
        self.checker.invariant_acknowledged_is_present(&crashes, &ledgers)?;
        Checker::invariant_each_request_once(&ledgers)?;
        self.checker.invariant_signed_is_present(&ledgers)?;
        for (shard, history) in self.histories.iter().enumerate() {
            self.coverage.seen.add(Seen::LinearCall, history.calls() as u64);
            Checker::invariant_linearizable(shard, history)?;
        }
        Ok(())
    }
}
