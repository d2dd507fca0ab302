//! Opens a ledger and its store from the newest snapshot.

use std::path::Path;
use std::sync::Arc;

use tradewind_ledger::{Body, SnapshotRecord, Version};
use tradewind_ledger_disk::{OpenError, Opened, Options, Start};
use tradewind_store::{SnapshotRule, Store};

use crate::{file, folder::Folder};

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
pub fn open(
    dir: &Path,
    options: &Options,
    rule: &SnapshotRule,
) -> Result<(Opened, Store, Started), OpenError> {
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

fn replay(
    dir: &Path,
    options: &Options,
    rule: &SnapshotRule,
    mut store: Store,
    snapshot: Option<SnapshotRecord>,
) -> Result<(Opened, Store, Started), OpenError> {
    let mut replayed = 0;
    let opened = tradewind_ledger_disk::open(dir, options, |version, entry| {
        replayed += 1;
        store.apply(version, &entry)?;
        if let Body::Seal(_) = entry.body {
            store.pass_if_due(rule);
        }
        Ok(())
    })?;
    Ok((opened, store, Started { snapshot, replayed }))
}
