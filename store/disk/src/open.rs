//! Opens a ledger and its store from the newest snapshot.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tradewind_ledger::{Base, Body, Entry, Manifest, Replay, SnapshotRecord, Version};
use tradewind_ledger_disk::{LedgerReader, OpenError, Opened, Options, Start};
use tradewind_store::snapshot::Pin;
use tradewind_store::{SnapshotRule, Store};

use crate::{file, folder::Folder};

/// Bytes of entries that are read at once.
const CHUNK_BYTES: usize = 4 << 20;

/// A ledger and its store, ready to go on.
pub struct Begun {
    /// The ledger.
    pub opened: Opened,
    /// Its store.
    pub store: Store,
    /// How that went.
    pub started: Started,
    /// The newest snapshot that was due among the entries that were replayed: it is not there, and is to be made now.
    pub due: Option<(Pin, Arc<Base>)>,
}

/// How a start went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Started {
    /// The snapshot it began at; none if at the first entry.
    pub snapshot: Option<SnapshotRecord>,
    /// Entries that were replayed after that.
    pub replayed: u64,
}

impl Started {
    /// The size of the snapshot it began at; zero if at the first entry.
    #[must_use]
    pub fn size(&self) -> Version {
        self.snapshot.map_or(Version::ZERO, |record| record.size)
    }
}

/// Opens the ledger in `dir` and rebuilds its store: from the newest snapshot that is whole and lies below the published
/// checkpoint, and the entries after it. A snapshot that is damaged, or does not belong to the ledger, is said in the log,
/// and the one before it is taken; at last all entries are replayed, if they are there. By `rule` it is known at which of
/// them a snapshot was due, so that the next one is due where it is at all replicas.
///
/// # Errors
/// As [`tradewind_ledger_disk::open`].
pub fn open(dir: &Path, options: &Options, rule: &SnapshotRule) -> Result<Begun, OpenError> {
    let folder = Folder::of(dir);
    let snapshots = folder.snapshots().unwrap_or_else(|error| {
        tracing::error!(dir = %dir.display(), %error, "snapshots cannot be listed");
        Vec::new()
    });
    for at in snapshots {
        let path = folder.file(at);
        match file::read(&path, at) {
            Err(error) => {
                tracing::error!(file = %path.display(), %error, "a damaged snapshot is not used; remove it");
            }
            Ok((base, store, record)) => {
                let options = Options { start: Start::Base(Arc::new(base)), ..options.clone() };
                match replay(dir, &options, rule, store, Some(record)) {
                    Err(error @ OpenError::Base { .. }) => {
                        tracing::warn!(file = %path.display(), %error, "a snapshot is not used");
                    }
                    opened => return opened,
                }
            }
        }
    }
    replay(dir, options, rule, Store::new(), None)
}

/// What the snapshot of `size` entries in `dir` was taken by; `None` if it was made here.
///
/// # Errors
/// If the system refuses, or it is damaged.
pub fn manifest(dir: &Path, size: Version) -> io::Result<Option<Manifest>> {
    Folder::of(dir).manifest(size)
}

/// The newest snapshot that is in `dir` and that the ledger was noted to hold, with its entry's version; as the entry itself
/// says, which one that was taken brings with it. One whose entry cannot be read is said in the log, and is none: it cannot
/// be given away.
///
/// # Errors
/// If the system refuses.
pub fn agreed(dir: &Path, reader: &LedgerReader) -> io::Result<Option<(Version, SnapshotRecord)>> {
    let Some((size, at)) = Folder::of(dir).agreed()? else { return Ok(None) };
    let entry = match manifest(dir, size) {
        Ok(Some(manifest)) => Ok(manifest.entry),
        Ok(None) => reader.entry(at).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(error),
        Err(error) => return Err(error),
    };
    let entry = entry.and_then(|entry| Entry::decode(&entry).map_err(io::Error::other));
    match entry.map(|entry| entry.body) {
        Ok(Body::Snapshot(record)) if record.size == size => Ok(Some((at, record))),
        Ok(_) => Ok(None),
        Err(error) => {
            tracing::error!(dir = %dir.display(), %size, %at, %error, "a snapshot that the ledger holds cannot be given away");
            Ok(None)
        }
    }
}

fn replay(
    dir: &Path,
    options: &Options,
    rule: &SnapshotRule,
    mut store: Store,
    snapshot: Option<SnapshotRecord>,
) -> Result<Begun, OpenError> {
    let (mut replayed, mut due) = (0, None);
    let opened = tradewind_ledger_disk::open(dir, options, |version, entry| {
        replayed += 1;
        store.apply(version, &entry)?;
        if let Body::Seal(_) = entry.body {
            due = store.pin_if_due(rule).or(due.take());
        }
        Ok(())
    })?;
    let due = due.and_then(|pin| {
        let base = base_at(&opened.reader, &options.start, pin.at());
        base.inspect_err(|error| tracing::error!(%error, "a snapshot that is due is not made"))
            .ok()
            .map(|base| (pin, base))
    });
    Ok(Begun { opened, store, started: Started { snapshot, replayed }, due })
}

/// The base at the end of a segment, which a replay comes to from the start on.
fn base_at(reader: &LedgerReader, start: &Start, at: Version) -> io::Result<Arc<Base>> {
    let mut replay = match start {
        Start::Base(base) => Replay::from_base(base),
        Start::Genesis | Start::Kept => Replay::new(),
    };
    let mut pushed = Ok(());
    while replay.size() < at && pushed.is_ok() {
        let from = replay.size();
        let show = |_, bytes: &[u8]| {
            if pushed.is_ok() {
                pushed = replay.push(bytes).map(drop);
            }
        };
        reader.for_each(from, at, CHUNK_BYTES, show).map_err(io::Error::other)?;
    }
    pushed.map_err(io::Error::other)?;
    let base = replay.base().filter(|base| base.size() == at);
    base.cloned().ok_or_else(|| io::Error::other("no segment ends there"))
}
