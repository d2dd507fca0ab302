//! Snapshots in the simulator: made when a majority has signed, history pruned behind them, and taken by nodes that lack
//! what is gone; with parts that are damaged on the way and takings that are interrupted.

use std::collections::BTreeMap;
use std::sync::Arc;

use tradewind_ledger::tree::root_of;
use tradewind_ledger::{
    Base, Body, Digest, Entry, Manifest, Replay, SignedNote, SnapshotRecord, Version,
};
use tradewind_site_protocol::{
    Action, Held, NodeId, Now, Part, ReadFor, RecoveredShard, ShardIndex,
};
use tradewind_store::snapshot::{Chunk, Decoder, Encoder, Pin};
use tradewind_store::{SnapshotRule, Store};

use super::check::{Check, Checker};
use super::coverage::{Fault, Seen};
use super::disk::Disk;
use super::world::{Event, Input, Node, World};

/// A snapshot on a disk.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    base: Arc<Base>,
    record: SnapshotRecord,
    chunks: Vec<Chunk>,
    /// What it was taken by, if others gave it.
    manifest: Option<Box<Manifest>>,
}

/// A node's snapshots of its shards.
#[derive(Default)]
pub(super) struct Snapshots {
    /// By shard: pinned, and not signed for.
    due: BTreeMap<usize, Vec<(Pin, Arc<Base>)>>,
    /// By shard: the newest checkpoint.
    notes: BTreeMap<usize, SignedNote>,
    /// By shard: on disk, the newest last.
    made: BTreeMap<usize, Vec<Snapshot>>,
    /// By shard: the newest that the ledger holds, and where.
    agreed: BTreeMap<usize, (Version, SnapshotRecord)>,
    /// By shard: the one that is being taken, as far as it is on disk.
    taking: BTreeMap<usize, Taking>,
}

/// A snapshot on its way in.
#[derive(Clone)]
struct Taking {
    manifest: Box<Manifest>,
    blocks: u32,
    chunks: Vec<Chunk>,
}

impl Taking {
    /// Whether these bytes are what the manifest says of a part.
    fn commits_to(&self, part: Part, bytes: &[u8]) -> bool {
        match part {
            Part::Manifest => false,
            Part::Block(index) => {
                let leaves = bytes.as_chunks::<32>().0.iter().copied().map(Digest);
                self.manifest.blocks[index as usize] == root_of(leaves)
            }
            Part::Chunk(index) => {
                let chunk = Chunk::from_bytes(bytes);
                let fits = chunk.filter(|chunk| chunk.detached(index == 0).is_ok());
                fits.is_some_and(|chunk| chunk.leaf() == self.manifest.chunks[index as usize])
            }
        }
    }

    fn held(&self, disk: &Disk) -> Held {
        let named = (0..).zip(&self.chunks).flat_map(|(index, chunk): (usize, _)| {
            chunk.detached(index == 0).expect("checked when it came")
        });
        let missing = named.filter(|(_, digest)| !disk.has_value(digest)).collect();
        Held { blocks: self.blocks, chunks: self.chunks.len() as u32, missing }
    }
}

/// Something that a disk has done.
#[derive(Debug)]
pub(super) enum Done {
    Made(usize, Snapshot),
    Pruned(ReadFor),
    Read(ReadFor, Version, Part, (u64, u64, Vec<u8>)),
    Begun(usize, Box<Manifest>),
    Part(usize, Version, Part, Vec<u8>),
    Value(usize, Version, (u64, Digest), Vec<u8>),
    Planted(usize, Version),
}

impl Snapshots {
    /// Power is lost: what was only in memory is gone. Returns how many takings that interrupts.
    pub(super) fn crash(&mut self) -> u64 {
        self.due.clear();
        self.taking.len() as u64
    }

    /// A disk lost what it said to have: of its snapshots, those of more entries than are left are gone with these.
    pub(super) fn lose(&mut self, shard: usize, left: Version) {
        let made = self.made.entry(shard).or_default();
        made.retain(|made| made.record.size <= left);
        let taken = |size| made.iter().any(|it| it.record.size == size && it.manifest.is_some());
        let lost = |(at, record): &(Version, SnapshotRecord)| *at >= left && !taken(record.size);
        if self.agreed.get(&shard).is_some_and(lost) {
            self.agreed.remove(&shard);
        }
    }

    /// Where a start of a shard begins: the newest snapshot that its disk has all entries after.
    fn newest(&self, shard: usize) -> Option<&Snapshot> {
        self.made.get(&shard)?.last()
    }

    /// Reads a shard back as a shell does at its start.
    pub(super) fn recover(
        &mut self,
        shard: usize,
        disk: &Disk,
        rule: &SnapshotRule,
    ) -> RecoveredShard<Store> {
        let newest =
            self.newest(shard).filter(|it| it.record.size.0 <= disk.entries().len() as u64);
        let mut pin = None;
        let (mut replay, mut store) = match newest {
            None => (Replay::new(), Store::new()),
            Some(Snapshot { base, chunks, .. }) => {
                let mut decoder = Decoder::new();
                for chunk in chunks {
                    decoder.push(&chunk.committed, &chunk.values).expect("a chunk on disk");
                }
                (Replay::from_base(base), decoder.finish().expect("a snapshot on disk"))
            }
        };
        for bytes in &disk.entries()[replay.size().0 as usize..] {
            let version = replay.size();
            let entry = replay.push(bytes).expect("a ledger on disk replays");
            store.apply(version, &entry).expect("and applies");
            if let Body::Seal(_) = entry.body {
                let due = store.pin_if_due(rule);
                let base = replay.base().expect("a SEAL");
                pin = due.map(|pin| (pin, Arc::clone(base))).or(pin);
            }
        }
        self.due.insert(shard, pin.into_iter().collect());
        RecoveredShard { replay, store }
    }
}

/// Makes the snapshot that was pinned, of the entries on a disk; `None` if one is damaged.
fn snapshot(disk: &Disk, pin: Pin, base: Arc<Base>) -> Option<Snapshot> {
    disk.damage().ok()?;
    let at = pin.at();
    let mut store = Store::new();
    for (version, bytes) in (0..).zip(&disk.entries()[..at.0 as usize]) {
        let entry = Entry::decode(bytes).expect("an entry on disk");
        store.apply(Version(version), &entry).expect("it applies");
    }
    let mut encoder = Encoder::new(pin);
    store.slice(at, None, usize::MAX).0.iter().for_each(|state| encoder.push(state));
    let chunks: Vec<Chunk> = encoder.finish().collect();
    let record = SnapshotRecord {
        size: at,
        root: root_of(chunks.iter().map(Chunk::leaf)),
        chunks: chunks.len() as u32,
        bytes: chunks.iter().map(|chunk| chunk.size() as u64).sum(),
    };
    Some(Snapshot { base, record, chunks, manifest: None })
}

impl World<'_> {
    /// What the core asks for that has to do with snapshots.
    pub(super) fn act_on_snapshots(&mut self, node: NodeId, action: Action) -> Check {
        let state = &mut self.nodes[node.index()];
        match action {
            Action::Snapshot { shard, pin, base } => {
                state.snapshots.due.entry(shard.index()).or_default().push((*pin, base));
            }
            Action::ReadPart { reader, size, entry, part, offset, max_bytes } => {
                let bytes = self.part(node, reader.shard.index(), size, entry, part);
                let bytes = bytes.unwrap_or_default();
                let total = bytes.len() as u64;
                let rest = bytes.get(offset as usize..).unwrap_or_default();
                let mut piece = rest[..rest.len().min(max_bytes)].to_vec();
                let calm = self.healed || self.liar.is_some() || piece.is_empty();
                if !calm && self.rng.percent(self.plan.damage_percent) {
                    let at = self.rng.index(piece.len());
                    piece[at] ^= 1 << self.rng.range(0..8);
                    self.hit(Fault::DamagedPart);
                    self.troubled_at = self.now;
                }
                self.later(
                    node,
                    (20, 2_000),
                    Done::Read(reader, size, part, (offset, total, piece)),
                );
            }
            Action::Agreed { shard, size, at } => {
                let shard = shard.index();
                let made = state.snapshots.made.get(&shard).into_iter().flatten();
                let found = made.map(|made| made.record).find(|record| record.size == size);
                state.snapshots.agreed.insert(shard, (at, found.expect("it is kept")));
                self.prune(node, shard);
            }
            Action::Take { shard, manifest } => {
                self.tell(|| {
                    format!("{node} begins to take a snapshot of {}", manifest.base.size())
                });
                self.later(node, self.plan.fsync, Done::Begun(shard.index(), manifest));
            }
            Action::KeepPart { shard, size, part, bytes } => {
                let taking = state.snapshots.taking.get(&shard.index());
                Checker::invariant_corruption_is_not_kept(
                    taking.is_none_or(|taking| taking.commits_to(part, &bytes)),
                    || format!("{node} keeps another {part:?} than the ledger commits to"),
                )?;
                self.later(node, self.plan.fsync, Done::Part(shard.index(), size, part, bytes));
            }
            Action::KeepValue { shard, size, len, digest, bytes } => {
                let done = Done::Value(shard.index(), size, (len, digest), bytes);
                self.later(node, self.plan.fsync, done);
            }
            Action::Plant { shard, size } => {
                self.tell(|| format!("{node} begins shard {} anew at {size}", shard.index()));
                self.nodes[node.index()].planting = Some((shard.index(), size));
                self.later(node, (20, 5_000), Done::Planted(shard.index(), size));
            }
            other => unreachable!("nothing of snapshots: {other:?}"),
        }
        Ok(())
    }

    fn later(&mut self, node: NodeId, (usual, longest): (u64, u64), done: Done) {
        let incarnation = self.nodes[node.index()].incarnation;
        // A disk does one thing after the other.
        let at = self.now + self.rng.delay(usual, longest);
        let at = at.max(self.nodes[node.index()].snapshots_at + 1);
        self.nodes[node.index()].snapshots_at = at;
        self.at(at, Event::Input(node, incarnation, Input::Snapshots(done)));
    }

    /// Entries that a peer asks for were pruned.
    pub(super) fn read_pruned(&mut self, node: NodeId, reader: ReadFor) {
        self.later(node, (20, 2_000), Done::Pruned(reader));
    }

    fn part(
        &self,
        node: NodeId,
        shard: usize,
        size: Version,
        entry: Option<Version>,
        part: Part,
    ) -> Option<Vec<u8>> {
        let Node { snapshots, disks, .. } = &self.nodes[node.index()];
        let disk = &disks[&shard];
        let snapshot = snapshots.made.get(&shard)?.iter().find(|it| it.record.size == size)?;
        match part {
            Part::Chunk(index) => snapshot.chunks.get(index as usize).map(Chunk::to_bytes),
            Part::Block(index) => {
                let leaves = Manifest::block_of(&disk.memory_tree(size), size, index.into());
                Some(leaves.ok()?.iter().flat_map(|leaf| leaf.0).collect())
            }
            Part::Manifest => {
                if let Some(manifest) = &snapshot.manifest {
                    return Some(manifest.encode());
                }
                let (note, at) = (snapshots.notes.get(&shard)?.clone(), entry?);
                let signed = note.checkpoint().expect("a checkpoint").size;
                if signed <= at || disk.synced() < signed {
                    return None;
                }
                let entry = (at, disk.entry(at)?.to_vec());
                let leaves = snapshot.chunks.iter().map(Chunk::leaf).collect();
                let (tree, base) = (disk.memory_tree(signed), Base::clone(&snapshot.base));
                let made = Manifest::make(&tree, note, entry, base, leaves);
                Some(made.expect("the tree is whole").encode())
            }
        }
    }

    /// A majority signed: snapshots of that or less are made now.
    pub(super) fn signed(&mut self, node: NodeId, shard: usize, size: Version, note: SignedNote) {
        let Node { snapshots, disks, .. } = &mut self.nodes[node.index()];
        snapshots.notes.insert(shard, note);
        let due = snapshots.due.entry(shard).or_default();
        let ready: Vec<_> = due.extract_if(.., |(pin, _)| pin.at() <= size).collect();
        let disk = &disks[&shard];
        let made = ready.into_iter().filter_map(|(pin, base)| snapshot(disk, pin, base));
        let made: Vec<_> = made.collect();
        for snapshot in made {
            self.later(node, (200, 50_000), Done::Made(shard, snapshot));
        }
    }

    /// What lies before the older of the two newest snapshots goes, if the ledger holds one that stands for it.
    fn prune(&mut self, node: NodeId, shard: usize) {
        let Node { snapshots, disks, lie, .. } = &mut self.nodes[node.index()];
        let made = snapshots.made.get(&shard).map_or(&[][..], Vec::as_slice);
        let (Some(safe), Some((_, agreed))) =
            (made.iter().rev().nth(1), snapshots.agreed.get(&shard))
        else {
            return;
        };
        // What a disk that lies may lose is not all that is left of the past.
        if self.plan.prunes && lie.is_none() && safe.record.size <= agreed.size {
            disks.get_mut(&shard).expect("an own shard").prune(safe.record.size);
            self.see(Seen::Pruning);
        }
    }

    /// A start: tells the core what is there of snapshots.
    pub(super) fn recall_snapshots(&mut self, node: NodeId, now: Now) {
        let Node { snapshots, disks, core, .. } = &mut self.nodes[node.index()];
        let core = core.as_mut().expect("it starts");
        for (shard, disk) in disks {
            let index = ShardIndex(*shard as u16);
            if let Some(newest) = snapshots.newest(*shard) {
                core.handle_snapshot_made(now, index, newest.record);
            }
            if let Some((at, record)) = snapshots.agreed.get(shard) {
                core.recall_offer(index, *at, *record);
            }
            if let Some(taking) = snapshots.taking.get(shard) {
                let begun = taking.blocks > 0 || !taking.chunks.is_empty();
                self.coverage.seen.add(Seen::TakingResumed, u64::from(begun));
                core.recall_taking(index, taking.manifest.clone(), taking.held(disk));
            }
        }
    }

    pub(super) fn take_snapshots(&mut self, node: NodeId, now: Now, done: Done) {
        let Node { snapshots, disks, core, .. } = &mut self.nodes[node.index()];
        let Some(core) = core else { return };
        match done {
            Done::Made(shard, snapshot) => {
                let record = snapshot.record;
                let made = snapshots.made.entry(shard).or_default();
                if made.last().is_some_and(|newest| newest.record.size >= record.size) {
                    return;
                }
                made.push(snapshot);
                let newest = made.len().saturating_sub(2);
                let agreed = snapshots.agreed.get(&shard).map(|(_, record)| *record);
                let kept = made.split_off(newest);
                made.retain(|old| Some(old.record) == agreed);
                made.extend(kept);
                core.handle_snapshot_made(now, ShardIndex(shard as u16), record);
            }
            Done::Pruned(reader) => core.handle_log_pruned(reader),
            Done::Read(reader, size, part, piece) => {
                core.handle_part_read(reader, size, part, piece);
            }
            Done::Begun(shard, manifest) => {
                let kept = snapshots.taking.remove(&shard).filter(|taking| {
                    (&taking.manifest.base, &taking.manifest.chunks)
                        == (&manifest.base, &manifest.chunks)
                });
                let begun = || Taking { manifest, blocks: 0, chunks: Vec::new() };
                let taking = kept.unwrap_or_else(begun);
                let held = taking.held(&disks[&shard]);
                let manifest = taking.manifest.clone();
                snapshots.taking.insert(shard, taking);
                core.handle_taken(now, ShardIndex(shard as u16), manifest, held);
            }
            Done::Part(shard, size, part, bytes) => {
                let mut missing = Vec::new();
                let taking = snapshots.taking.get_mut(&shard);
                if let Some(taking) = taking.filter(|it| it.manifest.base.size() == size) {
                    match part {
                        Part::Block(index) if index == taking.blocks => taking.blocks += 1,
                        Part::Chunk(index) if index as usize == taking.chunks.len() => {
                            taking.chunks.push(Chunk::from_bytes(&bytes).expect("checked"));
                            missing = taking.held(&disks[&shard]).missing;
                        }
                        _ => {}
                    }
                }
                core.handle_part_kept(now, ShardIndex(shard as u16), (size, part), missing);
            }
            Done::Value(shard, size, value, bytes) => {
                disks.get_mut(&shard).expect("an own shard").add_value(value.1, bytes);
                core.handle_value_kept(now, ShardIndex(shard as u16), size, value);
            }
            Done::Planted(shard, size) => self.planted(node, now, shard, size),
        }
    }

    /// The ledger of a shard is replaced by one that begins with the snapshot that was taken.
    pub(super) fn replace_ledger(&mut self, node: NodeId, shard: usize) {
        let taking = self.nodes[node.index()].snapshots.taking.remove(&shard);
        let Some(Taking { manifest, chunks, .. }) = taking else { return };
        let base = Arc::new(manifest.base.clone());
        // The simulator keeps what nobody can read any more, to compare it at the end: it is the same everywhere.
        let disks = self.nodes.iter().flat_map(|node| {
            let lost = node.lost.as_ref().and_then(|lost| lost.disks.get(&shard));
            node.disks.get(&shard).into_iter().chain(lost)
        });
        let mut same = disks.filter(|disk| {
            disk.entries().len() as u64 >= base.size().0 && disk.root(base.size()) == base.root()
        });
        let history = same.next().expect("a majority has what it signed").beginning(base.size());
        let state = &mut self.nodes[node.index()];
        state.disks.get_mut(&shard).expect("an own shard").plant(history);
        let Ok(Entry { body: Body::Snapshot(record), .. }) = Entry::decode(&manifest.entry) else {
            unreachable!("the core verified the manifest");
        };
        state.snapshots.due.remove(&shard);
        state.snapshots.agreed.insert(shard, (manifest.version, record));
        let taken = Snapshot { base, record, chunks, manifest: Some(manifest) };
        state.snapshots.made.insert(shard, vec![taken]);
        self.see(Seen::LedgerReplaced);
    }

    fn planted(&mut self, node: NodeId, now: Now, shard: usize, size: Version) {
        self.nodes[node.index()].planting = None;
        self.replace_ledger(node, shard);
        let Node { snapshots, disks, core, .. } = &mut self.nodes[node.index()];
        let core = core.as_mut().expect("it runs");
        let recovered = snapshots.recover(shard, &disks[&shard], &self.plan.limits.snapshots);
        assert_eq!(recovered.replay.size(), size, "it begins with the snapshot");
        let (index, record) =
            (ShardIndex(shard as u16), snapshots.newest(shard).expect("it").record);
        core.handle_planted(now, index, recovered);
        core.handle_snapshot_made(now, index, record);
    }
}
