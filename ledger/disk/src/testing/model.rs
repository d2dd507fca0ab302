//! A model of a disk that loses power: what was synced is there, and any part of the rest.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tradewind_ledger::ids::Version;

use crate::ops::{Op, Ops};

/// What happened, in order. Paths are relative to the recorded directory.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Create(PathBuf),
    Write(PathBuf, u64, Vec<u8>),
    SetLen(PathBuf, u64),
    Allocate(PathBuf, u64),
    SyncFile(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    MakeDir(PathBuf),
    SyncDir(PathBuf),
    SyncAll,
    /// The caller was told that so many entries are durable, or published.
    Durable(Version),
    Published(Version),
}

/// Records the changes made through its [`Ops`].
#[derive(Clone, Default)]
pub(crate) struct Recorder {
    events: Arc<Mutex<Vec<Event>>>,
}

impl Recorder {
    pub(crate) fn ops(&self, root: &Path) -> Ops {
        let (recorder, root) = (self.clone(), root.to_owned());
        let tap = move |op: Op<'_>| {
            recorder.note(Event::new(op, &root));
            Ok(())
        };
        Ops { tap: Some(Arc::new(tap)) }
    }

    pub(crate) fn note(&self, event: Event) {
        self.events.lock().expect("no test panicked here").push(event);
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().expect("no test panicked here").clone()
    }
}

impl Event {
    fn new(op: Op<'_>, root: &Path) -> Self {
        // Directories above the recorded one are there before and after.
        let path = |path: &Path| path.strip_prefix(root).unwrap_or(Path::new("")).to_owned();
        match op {
            Op::Create(file) => Self::Create(path(file)),
            Op::Write(file, offset, bytes) => Self::Write(path(file), offset, bytes.to_vec()),
            Op::SetLen(file, len) => Self::SetLen(path(file), len),
            Op::Allocate(file, len) => Self::Allocate(path(file), len),
            Op::SyncFile(file) => Self::SyncFile(path(file)),
            Op::Rename(from, to) => Self::Rename(path(from), path(to)),
            Op::Remove(file) => Self::Remove(path(file)),
            Op::MakeDir(dir) => Self::MakeDir(path(dir)),
            Op::SyncDir(dir) => Self::SyncDir(path(dir)),
            Op::SyncAll => Self::SyncAll,
        }
    }
}

/// Bytes of a file: those on disk, and the changes that may or may not be.
#[derive(Clone, Debug, Default)]
struct Inode {
    bytes: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Allocate(u64),
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(PathBuf, usize),
    Rename(PathBuf, PathBuf, usize),
    Unlink(PathBuf),
}

/// The state of a disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    inodes: Vec<Inode>,
    /// Names as a running program sees them, as they are on disk, and the changes in between.
    live: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    pending: Vec<NameChange>,
    dirs: Vec<PathBuf>,
}

impl Image {
    /// The image of a directory all of whose contents are on disk.
    pub(crate) fn of(root: &Path) -> Self {
        let mut image = Self::default();
        let mut dirs = vec![root.to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir).expect("a directory") {
                let path = entry.expect("an entry").path();
                let name = path.strip_prefix(root).expect("below the root").to_owned();
                if path.is_dir() {
                    image.dirs.push(name);
                    dirs.push(path);
                } else if !name.ends_with("LOCK") {
                    let bytes = fs::read(&path).expect("a file");
                    image.durable.insert(name, image.inodes.len());
                    image.inodes.push(Inode { bytes, pending: Vec::new() });
                }
            }
        }
        image.live = image.durable.clone();
        image
    }

    /// Goes on by one event.
    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::Create(path) => {
                let inode = self.inodes.len();
                self.inodes.push(Inode::default());
                self.live.insert(path.clone(), inode);
                self.pending.push(NameChange::Link(path.clone(), inode));
            }
            Event::Write(path, offset, bytes) => {
                self.inode(path).pending.push(Change::Write(*offset, bytes.clone()));
            }
            Event::SetLen(path, len) => self.inode(path).pending.push(Change::SetLen(*len)),
            Event::Allocate(path, len) => self.inode(path).pending.push(Change::Allocate(*len)),
            Event::SyncFile(path) => self.inode(path).sync(),
            Event::Rename(from, to) => {
                let inode = self.live.remove(from).expect("a file that is there");
                self.live.insert(to.clone(), inode);
                self.pending.push(NameChange::Rename(from.clone(), to.clone(), inode));
            }
            Event::Remove(path) => {
                if self.live.remove(path).is_some() {
                    self.pending.push(NameChange::Unlink(path.clone()));
                }
            }
            Event::MakeDir(path) => {
                let above = path.ancestors().filter(|dir| *dir != Path::new(""));
                self.dirs.extend(above.map(Path::to_owned));
            }
            Event::SyncDir(dir) => self.sync_names(|change| change.is_in(dir)),
            Event::SyncAll => {
                self.sync_names(|_| true);
                self.inodes.iter_mut().for_each(Inode::sync);
            }
            Event::Durable(_) | Event::Published(_) => {}
        }
    }

    fn inode(&mut self, path: &Path) -> &mut Inode {
        let inode = self.live.get(path).unwrap_or_else(|| panic!("{} is there", path.display()));
        &mut self.inodes[*inode]
    }

    fn sync_names(&mut self, wanted: impl Fn(&NameChange) -> bool) {
        let pending = std::mem::take(&mut self.pending);
        for change in pending {
            if wanted(&change) {
                change.apply(&mut self.durable);
            } else {
                self.pending.push(change);
            }
        }
    }

    /// What is on disk after a loss of power now, in one of the possible ways.
    pub(crate) fn lose_power(&self, random: &mut Random) -> Self {
        let mut image = self.clone();
        // A journal keeps names in order, so a prefix of their changes survives.
        let kept = random.below(image.pending.len() + 1);
        for change in image.pending.drain(..).take(kept) {
            change.apply(&mut image.durable);
        }
        for inode in &mut image.inodes {
            for change in std::mem::take(&mut inode.pending) {
                match (random.below(4), change) {
                    (0, _) => {}
                    (1, Change::Write(offset, bytes)) => inode.write_some(offset, &bytes, random),
                    (_, change) => inode.apply(&change),
                }
            }
        }
        image.live = image.durable.clone();
        image
    }

    /// Makes the directory that a program finds after the loss of power.
    pub(crate) fn restore(&self, root: &Path) {
        for dir in &self.dirs {
            fs::create_dir_all(root.join(dir)).expect("a directory");
        }
        for (name, inode) in &self.durable {
            let path = root.join(name);
            fs::create_dir_all(path.parent().expect("below the root")).expect("a directory");
            fs::write(path, &self.inodes[*inode].bytes).expect("a file");
        }
    }
}

impl Inode {
    fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            self.apply(&change);
        }
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write(offset, bytes) => {
                let start = *offset as usize;
                let end = start + bytes.len();
                self.bytes.resize(self.bytes.len().max(end), 0);
                self.bytes[start..end].copy_from_slice(bytes);
            }
            Change::SetLen(len) => self.bytes.resize(*len as usize, 0),
            Change::Allocate(len) => self.bytes.resize(self.bytes.len().max(*len as usize), 0),
        }
    }

    /// Some sectors of a write reach the disk, and of a sector perhaps only its beginning.
    fn write_some(&mut self, offset: u64, bytes: &[u8], random: &mut Random) {
        const SECTOR: usize = 512;
        for (index, sector) in bytes.chunks(SECTOR).enumerate() {
            let kept = match random.below(3) {
                0 => 0,
                1 => random.below(sector.len()),
                _ => sector.len(),
            };
            if kept > 0 {
                let at = offset + (index * SECTOR) as u64;
                self.apply(&Change::Write(at, sector[..kept].to_vec()));
            }
        }
    }
}

impl NameChange {
    fn is_in(&self, dir: &Path) -> bool {
        let within = |path: &PathBuf| path.parent() == Some(dir);
        match self {
            Self::Link(path, _) | Self::Unlink(path) => within(path),
            Self::Rename(from, to, _) => within(from) || within(to),
        }
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Link(path, inode) => _ = names.insert(path, inode),
            Self::Unlink(path) => _ = names.remove(&path),
            Self::Rename(from, to, inode) => {
                names.remove(&from);
                names.insert(to, inode);
            }
        }
    }
}

/// Random choices from a seed (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % bound as u64) as usize
    }
}
