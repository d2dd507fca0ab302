//! A simulated disk with one ledger on it: what is synced survives a crash, what is only written may or may not.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use tradewind_ledger::tree::{CompactRange, MemoryTree, leaf_hash};
use tradewind_ledger::{Digest, Version};
use tradewind_site_protocol::{EntryBatch, Values};

use super::rng::Rng;

/// A ledger on disk.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    entries: Vec<Vec<u8>>,
    /// By size, from 1: a hash of the entries so far.
    heads: Vec<u64>,
    /// By size, from 1: the root over the entries so far; and the tree over all of them.
    roots: Vec<Digest>,
    tree: CompactRange,
    values: BTreeMap<Digest, Vec<u8>>,
    synced: usize,
    /// Entries before this one were pruned: they are here for comparing only.
    first: usize,
    /// The size that the running fsync will have made durable.
    syncing: Option<usize>,
}

impl Disk {
    /// Takes entries; returns whether an fsync must be started.
    pub(crate) fn append(&mut self, first: Version, entries: &EntryBatch, values: Values) {
        assert_eq!(first.0, self.entries.len() as u64, "the log is given entries without a gap");
        for entry in entries.iter() {
            let mut hasher = DefaultHasher::new();
            (self.heads.last(), entry).hash(&mut hasher);
            self.heads.push(hasher.finish());
            self.tree.push(leaf_hash(entry));
            self.roots.push(self.tree.root());
            self.entries.push(entry.to_vec());
        }
        self.values.extend(values);
    }

    /// Starts an fsync of all that is written, unless one runs or nothing is to be done.
    pub(crate) fn start_sync(&mut self) -> bool {
        let start = self.syncing.is_none() && self.synced < self.entries.len();
        if start {
            self.syncing = Some(self.entries.len());
        }
        start
    }

    /// The fsync is done.
    pub(crate) fn finish_sync(&mut self) -> Version {
        self.synced = self.syncing.take().expect("an fsync runs");
        self.synced()
    }

    /// Entries that survive any crash.
    pub(crate) fn synced(&self) -> Version {
        Version(self.synced as u64)
    }

    /// Power is lost: of what was not synced, any prefix may have reached the disk.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        let kept = rng.range(self.synced as u64..self.entries.len() as u64 + 1) as usize;
        self.truncate(kept);
        self.syncing = None;
    }

    /// Cuts the ledger to its first entries.
    pub(crate) fn cut(&mut self, to: Version) {
        assert!(self.syncing.is_none(), "all is synced before it is cut");
        self.truncate(to.0 as usize);
    }

    fn truncate(&mut self, kept: usize) {
        self.entries.truncate(kept);
        self.heads.truncate(kept);
        if kept < self.roots.len() {
            self.roots.truncate(kept);
            self.tree = tree_of(&self.entries);
        }
        self.synced = kept;
    }

    /// Names the first `size` entries: no others have this number.
    pub(crate) fn head(&self, size: Version) -> Option<u64> {
        match size.0.checked_sub(1) {
            None => Some(0),
            Some(last) => self.heads.get(last as usize).copied(),
        }
    }

    /// Whether the first `size` entries are these, and survive any crash.
    pub(crate) fn keeps(&self, size: Version, head: u64) -> bool {
        self.synced() >= size && self.head(size) == Some(head)
    }

    /// The first entry that can be read.
    pub(crate) fn first(&self) -> Version {
        Version(self.first as u64)
    }

    /// Everything before this entry is not to be had any more.
    pub(crate) fn prune(&mut self, first: Version) {
        self.first = self.first.max(first.0 as usize);
    }

    /// The first entries, with the values that they name: what a snapshot of them stands for.
    pub(crate) fn beginning(&self, size: Version) -> (Vec<Vec<u8>>, BTreeMap<Digest, Vec<u8>>) {
        (self.entries[..size.0 as usize].to_vec(), self.values.clone())
    }

    /// Begins anew with a snapshot of these entries, all pruned.
    pub(crate) fn plant(&mut self, (entries, values): (Vec<Vec<u8>>, BTreeMap<Digest, Vec<u8>>)) {
        assert!(self.syncing.is_none(), "all is synced before it is replaced");
        let kept = std::mem::take(&mut self.values);
        *self = Self { values, ..Self::default() };
        self.values.extend(kept);
        self.append(Version::ZERO, &entries.iter().map(Vec::as_slice).collect(), Vec::new());
        (self.synced, self.first) = (self.entries.len(), self.entries.len());
    }

    pub(crate) fn has_value(&self, digest: &Digest) -> bool {
        self.values.contains_key(digest)
    }

    pub(crate) fn add_value(&mut self, digest: Digest, value: Vec<u8>) {
        self.values.insert(digest, value);
    }

    /// The tree over the first entries.
    pub(crate) fn memory_tree(&self, size: Version) -> MemoryTree {
        self.entries[..size.0 as usize].iter().map(|entry| leaf_hash(entry)).collect()
    }

    /// Bytes of entries and values.
    pub(crate) fn bytes(&self) -> u64 {
        let all = self.entries.iter().chain(self.values.values());
        all.map(|bytes| bytes.len() as u64).sum()
    }

    pub(crate) fn entries(&self) -> &[Vec<u8>] {
        &self.entries
    }

    /// Synced entries from `first`, at least one, up to `end` and about `max_bytes`.
    pub(crate) fn read(&self, first: Version, end: Version, max_bytes: usize) -> EntryBatch {
        assert!(first < end && end <= self.synced(), "only durable entries are read");
        assert!(first >= self.first(), "what was pruned is gone");
        let mut batch = EntryBatch::default();
        for entry in &self.entries[first.0 as usize..end.0 as usize] {
            if !batch.is_empty() && batch.bytes() + entry.len() > max_bytes {
                break;
            }
            batch.push(entry);
        }
        batch
    }

    pub(crate) fn value(&self, digest: &Digest) -> &[u8] {
        self.values.get(digest).expect("the value of a durable entry is on disk")
    }

    /// The root over the first `size` entries.
    pub(crate) fn root(&self, size: Version) -> Digest {
        match size.0.checked_sub(1) {
            None => root_of(&[]),
            Some(last) => self.roots[last as usize],
        }
    }
}

/// The root over entries.
pub(crate) fn root_of(entries: &[Vec<u8>]) -> Digest {
    tree_of(entries).root()
}

fn tree_of(entries: &[Vec<u8>]) -> CompactRange {
    let mut tree = CompactRange::new();
    entries.iter().for_each(|entry| tree.push(leaf_hash(entry)));
    tree
}
