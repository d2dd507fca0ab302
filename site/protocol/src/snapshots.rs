//! Snapshots at a node as a whole: telling the others which were made, and finding out which node computed wrongly
//! (docs/protocol.md, section 6). What a shard makes of that is in `shard::agreeing`.

use tradewind_ledger::{SnapshotRecord, Version};

use crate::access::StoreAccess;
use crate::action::Action;
use crate::error::{Fatal, PeerFault, SnapshotsDiffer};
use crate::ids::{NodeId, Now, ShardIndex};
use crate::node::NodeCore;
use crate::shard::Replica;
use crate::wire::Control;

impl<S: StoreAccess> NodeCore<S> {
    /// The shell made a snapshot as a `Snapshot` action asked for; or, right after the start, it is the newest one on disk.
    pub fn handle_snapshot_made(&mut self, now: Now, shard: ShardIndex, record: SnapshotRecord) {
        let replica = self.replicas[shard.index()].as_mut();
        let replica = replica.expect("the shell works for own shards only");
        for (peer, told) in replica.snapshot_made(record) {
            self.report(shard, peer, (record, told));
        }
        if self.is_active() {
            self.tell_snapshot(shard);
        }
        self.compare_snapshots();
        self.drain_inbox(now);
    }

    /// A view begins: tells its members the newest own snapshots.
    pub(crate) fn tell_snapshots(&mut self) {
        (0..self.replicas.len()).for_each(|index| self.tell_snapshot(ShardIndex(index as u16)));
    }

    fn tell_snapshot(&mut self, shard: ShardIndex) {
        let Some(replica) = &self.replicas[shard.index()] else { return };
        let Some(record) = replica.newest_snapshot() else { return };
        let members = replica.members().to_vec();
        for node in self.other_members().into_iter().filter(|node| members.contains(node)) {
            self.send(node, Control::Snapshot { shard, record });
        }
    }

    /// Another member made a snapshot.
    pub(crate) fn handle_snapshot(
        &mut self,
        now: Now,
        from: NodeId,
        shard: ShardIndex,
        record: SnapshotRecord,
    ) {
        // It may be a member from the next view on, which this node has yet to install.
        let is_known = shard.index() < self.replicas.len()
            && self.config.roster(self.config.last()).shard(shard).contains(&from);
        let replica = self.replicas.get_mut(shard.index()).and_then(Option::as_mut);
        let Some(replica) = replica.filter(|_| is_known) else {
            return self.peer_faulty(
                now,
                from,
                PeerFault::Message("a snapshot of a foreign shard"),
            );
        };
        if let Some(own) = replica.snapshot_told(from, record) {
            self.report(shard, from, (own, record));
        }
    }

    fn report(
        &mut self,
        shard: ShardIndex,
        peer: NodeId,
        (own, told): (SnapshotRecord, SnapshotRecord),
    ) {
        let differ = SnapshotsDiffer { size: own.size, root: own.root, agreed: told.root };
        self.out.counters.snapshots_differ += 1;
        self.out.actions.push_back(Action::SnapshotsDiffer { shard, peer, differ });
    }

    /// The newest snapshot that the ledger held and this node had at an earlier start, with the version of its entry.
    pub fn recall_offer(&mut self, shard: ShardIndex, at: Version, record: SnapshotRecord) {
        if let Some(replica) = &mut self.replicas[shard.index()] {
            replica.recall_offer(at, record);
        }
    }

    /// Tells the shell which of its snapshots the ledger holds by now, and ends if the own state is not what a majority made
    /// of the same entries.
    pub(crate) fn compare_snapshots(&mut self) {
        for (replica, index) in self.replicas.iter_mut().zip(0..) {
            if let Some((at, record)) = replica.as_mut().and_then(Replica::newly_agreed) {
                let (shard, size) = (ShardIndex(index), record.size);
                self.out.actions.push_back(Action::Agreed { shard, size, at });
            }
        }
        let shards = self.replicas.iter().zip(&self.config.shards);
        let found = shards.filter_map(|(replica, shard)| {
            let differ = replica.as_ref()?.snapshots_differ()?;
            Some(Fatal::State { ledger: shard.genesis.ledger.clone(), differ })
        });
        if let Some(fatal) = { found }.next() {
            self.fail(fatal);
        }
    }
}
