//! What the thread for snapshots sees of a shard.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use tradewind_ledger::{Base, Digest, LedgerId, SnapshotRecord, Version};
use tradewind_ledger_disk::LedgerReader;
use tradewind_store::Store;
use tradewind_store_disk::{Retain, Source};

use crate::inbox::Inbox;
use crate::log::Done;
use crate::publish::Pruner;
use crate::shared::Replica;

/// A shard of this node.
pub(crate) struct ShardSource {
    pub(crate) replica: Arc<Replica>,
    pub(crate) pruner: Pruner,
    pub(crate) inbox: Arc<Inbox>,
}

impl Source for ShardSource {
    fn ledger(&self) -> &LedgerId {
        &self.replica.ledger
    }

    fn directory(&self) -> &Path {
        &self.replica.directory
    }

    fn reader(&self) -> &LedgerReader {
        &self.replica.reader
    }

    fn read(&self, look: &mut dyn FnMut(&Store)) {
        look(&self.replica.store.0.read());
    }

    fn change(&self, change: &mut dyn FnMut(&mut Store)) {
        change(&mut self.replica.store.0.write());
    }

    fn agrees(&self) -> bool {
        true
    }

    fn made(&self, record: SnapshotRecord) {
        self.inbox.done(Done::SnapshotMade { shard: self.replica.index, record });
    }

    fn signed(&self) -> Version {
        let head = self.replica.head.borrow();
        let signed = head.as_ref().and_then(|note| note.checkpoint().ok());
        signed.map_or(Version::ZERO, |signed| signed.size)
    }

    fn retain(&self) -> Retain {
        self.replica.retain
    }

    fn prune(&self, base: Base, live: HashSet<Digest>) {
        self.pruner.prune(self.replica.index, base, live);
    }
}
