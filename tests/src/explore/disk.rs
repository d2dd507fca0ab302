//! What a node has on its disk, and what is on its way there.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use tradewind_ledger::tree::{CompactRange, leaf_hash};
use tradewind_ledger::{Digest, Replay, Version};
use tradewind_site_protocol::{EntryBatch, Promise, Recollection, RecoveredShard};
use tradewind_store::Store;

/// A node's disk.
#[derive(Clone, Default, Debug)]
pub(super) struct Disk {
    entries: Vec<Rc<[u8]>>,
    /// By entry: a hash of the ledger up to it.
    heads: Vec<u64>,
    /// So many entries are synced.
    synced: usize,
    pub(super) promise: Promise,
    /// A promise that is being written.
    pub(super) promising: Option<Promise>,
    pub(super) remembered: Vec<Recollection>,
    /// Starts of the process.
    pub(super) starts: u64,
}

impl Disk {
    pub(super) fn size(&self) -> Version {
        Version(self.entries.len() as u64)
    }

    pub(super) fn synced(&self) -> Version {
        Version(self.synced as u64)
    }

    /// Whether anything is written and not synced.
    pub(super) fn is_behind(&self) -> bool {
        self.synced < self.entries.len()
    }

    /// What the first `size` entries are; zero if there are fewer.
    pub(super) fn head(&self, size: Version) -> u64 {
        let last = (size.0 as usize).checked_sub(1);
        last.and_then(|last| self.heads.get(last)).copied().unwrap_or_default()
    }

    /// Whether it would have these entries after a crash.
    pub(super) fn keeps(&self, size: Version, head: u64) -> bool {
        size <= self.synced() && self.head(size) == head
    }

    pub(super) fn append(&mut self, entries: &EntryBatch) {
        for entry in entries.iter() {
            let mut hasher = DefaultHasher::new();
            (self.heads.last(), entry).hash(&mut hasher);
            self.heads.push(hasher.finish().max(1));
            self.entries.push(entry.into());
        }
    }

    /// All that was written is synced.
    pub(super) fn sync(&mut self) -> Version {
        self.synced = self.entries.len();
        self.synced()
    }

    pub(super) fn cut(&mut self, to: Version) {
        self.entries.truncate(to.0 as usize);
        self.heads.truncate(to.0 as usize);
        self.synced = self.synced.min(self.entries.len());
    }

    /// Power is lost: what was being written is there, or it is not.
    pub(super) fn crash(&mut self, kept: bool) {
        let promising = self.promising.take();
        if kept {
            self.promise = promising.unwrap_or_else(|| self.promise.clone());
            self.sync();
        } else {
            self.cut(self.synced());
        }
    }

    /// Entries `first..end`, and the root over all before.
    pub(super) fn read(&self, first: Version, end: Version) -> (Digest, EntryBatch) {
        let entries = self.entries[first.0 as usize..end.0 as usize].iter();
        (self.root(first), entries.map(|entry| entry.to_vec()).collect::<Vec<_>>().iter().collect())
    }

    pub(super) fn root(&self, size: Version) -> Digest {
        let mut tree = CompactRange::new();
        self.entries[..size.0 as usize].iter().for_each(|entry| tree.push(leaf_hash(entry)));
        tree.root()
    }

    /// What a start finds.
    pub(super) fn recover(&self) -> RecoveredShard<Store> {
        let (mut replay, mut store) = (Replay::new(), Store::new());
        for bytes in &self.entries {
            let version = replay.size();
            let entry = replay.push(bytes).expect("a core wrote it");
            store.apply(version, &entry).expect("a core wrote it");
        }
        RecoveredShard { replay, store }
    }

    /// Hashes what tells this disk from others.
    pub(super) fn print(&self, hasher: &mut impl Hasher) {
        (self.entries.len(), self.heads.last(), self.synced, self.starts).hash(hasher);
        let written = (&self.promise, &self.promising, &self.remembered);
        format!("{written:?}").hash(hasher);
    }
}
