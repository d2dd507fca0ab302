//! A simulated disk with one ledger on it: what is synced survives a crash, what is only written may or may not. A disk may
//! lie (say to have synced what a crash takes), be full, and rot.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use tradewind_ledger::tree::{CompactRange, MemoryTree, leaf_hash, value_digest};
use tradewind_ledger::{Digest, Version};
use tradewind_site_protocol::{Adopted, BodyId, EntryBatch, Values};

use super::rng::Rng;

/// An entry that is not what was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Damaged(pub(crate) Version);

/// A ledger on disk.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    entries: Vec<Vec<u8>>,
    /// By entry: its checksum, as it was written.
    leaves: Vec<Digest>,
    /// By size, from 1: a hash of the entries so far.
    heads: Vec<u64>,
    /// By size, from 1: the root over the entries so far; and the tree over all of them.
    roots: Vec<Digest>,
    tree: CompactRange,
    values: BTreeMap<Digest, Vec<u8>>,
    /// Bodies beside the ledger; gone with the process.
    staged: BTreeMap<BodyId, Vec<u8>>,
    synced: usize,
    /// Entries before this one were pruned: they are here for comparing only.
    first: usize,
    /// The size that the running fsync will have made durable.
    syncing: Option<usize>,
    /// While set, it says to sync and does not: entries that are on it nevertheless.
    lies: Option<usize>,
    /// What it once said to have synced and lost: size, and the number of what was below it.
    lost: BTreeMap<usize, u64>,
    /// While set, it is full: entries that found room.
    room: Option<usize>,
    /// Which entry is damaged, and what it was: for the simulator only, readers go by checksums.
    rotten: Option<(usize, Vec<u8>)>,
}

impl Disk {
    /// Takes entries; returns whether an fsync must be started.
    pub(crate) fn append(&mut self, first: Version, entries: &EntryBatch, values: Values) {
        assert_eq!(first.0, self.entries.len() as u64, "the log is given entries without a gap");
        for entry in entries.iter() {
            let mut hasher = DefaultHasher::new();
            (self.heads.last(), entry).hash(&mut hasher);
            self.heads.push(hasher.finish());
            let leaf = leaf_hash(entry);
            self.tree.push(leaf);
            self.leaves.push(leaf);
            self.roots.push(self.tree.root());
            self.entries.push(entry.to_vec());
        }
        self.values.extend(values);
    }

    /// Writes a piece of a body; with the last one, tells its digest.
    pub(crate) fn stage(&mut self, body: BodyId, bytes: &[u8], last: bool) -> Option<Digest> {
        let staged = self.staged.entry(body).or_default();
        staged.extend_from_slice(bytes);
        last.then(|| value_digest(staged))
    }

    /// Removes a body.
    pub(crate) fn unstage(&mut self, body: BodyId) {
        self.staged.remove(&body).expect("a body that is given up was staged");
    }

    /// Makes staged bodies the ledger's values; before the entries that name them are appended.
    pub(crate) fn adopt(&mut self, bodies: &[Adopted]) {
        for Adopted { body, digest, len } in bodies {
            let value = self.staged.remove(body).expect("a body that an entry names was staged");
            assert_eq!((value.len() as u64, value_digest(&value)), (*len, *digest));
            self.values.insert(*digest, value);
        }
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

    /// Power is lost: of what was not synced, any prefix may have reached the disk; with `least` nothing did. Returns what
    /// happened to it.
    pub(crate) fn crash(&mut self, rng: &mut Rng, least: bool) -> Loss {
        let (safe, written) = (self.lies.unwrap_or(self.synced), self.entries.len());
        let most = self.room.unwrap_or(written).clamp(safe, written);
        let kept = match least {
            true => safe,
            false => rng.range(safe as u64..most as u64 + 1) as usize,
        };
        let lost = kept < self.synced;
        for size in kept + 1..=self.synced {
            self.lost.insert(size, self.heads[size - 1]);
        }
        self.truncate(kept);
        self.staged.clear();
        (self.syncing, self.lies, self.room) = (None, None, None);
        Loss { torn: kept < written && kept > safe, lost }
    }

    /// From now on it says to sync, and does not; or it does again, with all that it was to sync.
    pub(crate) fn lie(&mut self, lies: bool) {
        self.lies = lies.then_some(self.lies.unwrap_or(self.synced));
    }

    /// From now on nothing more fits on it; or something does again.
    pub(crate) fn fill(&mut self, full: bool) {
        self.room = full.then_some(self.entries.len());
    }

    /// A byte of an entry changes.
    pub(crate) fn rot(&mut self, at: usize, rng: &mut Rng) {
        assert!(at >= self.first, "what was pruned is not on it");
        let entry = &mut self.entries[at];
        self.rotten = Some((at, entry.clone()));
        let (byte, bit) = (rng.index(entry.len()), rng.range(0..8));
        entry[byte] ^= 1 << bit;
    }

    pub(crate) fn is_rotten(&self) -> bool {
        self.rotten.is_some()
    }

    /// The first damaged entry.
    pub(crate) fn damage(&self) -> Result<(), Damaged> {
        let entries = self.entries.iter().zip(&self.leaves).enumerate();
        let mut rest = entries.skip(self.first);
        let damaged = rest.find(|(_, (entry, leaf))| leaf_hash(entry) != **leaf);
        damaged.map_or(Ok(()), |(at, _)| Err(Damaged(Version(at as u64))))
    }

    /// Takes an entry from another disk in place of a damaged one, if it is the one that was here; what was pruned there stands
    /// for a mirror. Returns whether it is.
    pub(crate) fn mend(&mut self, at: Version, other: &Disk) -> bool {
        let at = at.0 as usize;
        let fits = |entry: &&Vec<u8>| leaf_hash(entry) == self.leaves[at];
        let Some(entry) = other.entries.get(at).filter(fits) else { return false };
        self.entries[at].clone_from(entry);
        self.rotten = None;
        true
    }

    /// Whether these are the entries that were written here.
    pub(crate) fn wrote(&self, first: Version, entries: &EntryBatch) -> bool {
        let leaves = self.leaves.get(first.0 as usize..).unwrap_or_default();
        entries.len() <= leaves.len()
            && entries.iter().zip(leaves).all(|(entry, leaf)| leaf_hash(entry) == *leaf)
    }

    /// Cuts the ledger to its first entries.
    pub(crate) fn cut(&mut self, to: Version) {
        assert!(self.syncing.is_none(), "all is synced before it is cut");
        self.truncate(to.0 as usize);
    }

    fn truncate(&mut self, kept: usize) {
        self.entries.truncate(kept);
        self.leaves.truncate(kept);
        self.heads.truncate(kept);
        if kept < self.roots.len() {
            self.roots.truncate(kept);
            self.tree = CompactRange::new();
            self.leaves.iter().for_each(|leaf| self.tree.push(*leaf));
        }
        self.synced = kept;
        self.lies = self.lies.map(|safe| safe.min(kept));
        self.rotten.take_if(|(at, _)| *at >= kept);
    }

    /// Names the first `size` entries: no others have this number.
    pub(crate) fn head(&self, size: Version) -> Option<u64> {
        match size.0.checked_sub(1) {
            None => Some(0),
            Some(last) => self.heads.get(last as usize).copied(),
        }
    }

    /// Whether the first `size` entries are these, and survive any crash; or it said so, and lost them.
    pub(crate) fn keeps(&self, size: Version, head: u64) -> bool {
        let lost = self.lost.get(&(size.0 as usize));
        self.synced() >= size && self.head(size) == Some(head) || lost == Some(&head)
    }

    /// The first entry that can be read.
    pub(crate) fn first(&self) -> Version {
        Version(self.first as u64)
    }

    /// Everything before this entry is not to be had any more.
    pub(crate) fn prune(&mut self, first: Version) {
        self.first = self.first.max(first.0 as usize);
        // What is only compared any more is as it was written.
        if let Some((at, entry)) = self.rotten.take_if(|(at, _)| *at < self.first) {
            self.entries[at] = entry;
        }
    }

    /// The first entries, with the values that they name: what a snapshot of them stands for.
    pub(crate) fn beginning(&self, size: Version) -> (Vec<Vec<u8>>, BTreeMap<Digest, Vec<u8>>) {
        let mut entries = self.entries[..size.0 as usize].to_vec();
        if let Some((at, entry)) = &self.rotten
            && let Some(damaged) = entries.get_mut(*at)
        {
            damaged.clone_from(entry);
        }
        (entries, self.values.clone())
    }

    /// Begins anew with a snapshot of these entries, all pruned.
    pub(crate) fn plant(&mut self, (entries, values): (Vec<Vec<u8>>, BTreeMap<Digest, Vec<u8>>)) {
        assert!(self.syncing.is_none(), "all is synced before it is replaced");
        let (kept, lost) = (std::mem::take(&mut self.values), std::mem::take(&mut self.lost));
        *self = Self { values, lost, ..Self::default() };
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
        self.leaves[..size.0 as usize].iter().copied().collect()
    }

    /// Bytes of entries and values.
    pub(crate) fn bytes(&self) -> u64 {
        let all = self.entries.iter().chain(self.values.values());
        all.map(|bytes| bytes.len() as u64).sum()
    }

    pub(crate) fn entries(&self) -> &[Vec<u8>] {
        &self.entries
    }

    /// An entry, unless it is damaged.
    pub(crate) fn entry(&self, at: Version) -> Option<&[u8]> {
        let (entry, leaf) = (&self.entries[at.0 as usize], &self.leaves[at.0 as usize]);
        (leaf_hash(entry) == *leaf).then_some(entry)
    }

    /// Synced entries from `first`, at least one, up to `end` and about `max_bytes`; `checked`: none that is damaged.
    pub(crate) fn read(
        &self,
        (first, end): (Version, Version),
        max_bytes: usize,
        checked: bool,
    ) -> Result<EntryBatch, Damaged> {
        assert!(first < end && end <= self.synced(), "only durable entries are read");
        assert!(first >= self.first(), "what was pruned is gone");
        let mut batch = EntryBatch::default();
        for at in first.0 as usize..end.0 as usize {
            let entry = &self.entries[at];
            if !batch.is_empty() && batch.bytes() + entry.len() > max_bytes {
                break;
            }
            if checked && leaf_hash(entry) != self.leaves[at] {
                return Err(Damaged(Version(at as u64)));
            }
            batch.push(entry);
        }
        Ok(batch)
    }

    /// A detached value; `None` only if no entry names it.
    pub(crate) fn value(&self, digest: &Digest) -> Option<&[u8]> {
        let value = self.values.get(digest).map(Vec::as_slice);
        let names = |entry: &Vec<u8>| entry.windows(digest.0.len()).any(|bytes| bytes == digest.0);
        assert!(
            value.is_some() || !self.entries.iter().any(names),
            "the value of a durable entry is on disk"
        );
        value
    }

    /// The root over the first `size` entries.
    pub(crate) fn root(&self, size: Version) -> Digest {
        match size.0.checked_sub(1) {
            None => root_of(&[]),
            Some(last) => self.roots[last as usize],
        }
    }
}

/// What a crash did to a disk.
pub(crate) struct Loss {
    /// A part of what was being written is there.
    pub(crate) torn: bool,
    /// Something is gone that was said to be synced.
    pub(crate) lost: bool,
}

/// The root over entries.
pub(crate) fn root_of(entries: &[Vec<u8>]) -> Digest {
    let mut tree = CompactRange::new();
    entries.iter().for_each(|entry| tree.push(leaf_hash(entry)));
    tree.root()
}
