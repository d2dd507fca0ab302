//! Opens a ledger and its store from the newest snapshot.

use std::path::Path;
use std::sync::Arc;

use tradewind_ledger::Version;
use tradewind_ledger_disk::{OpenError, Opened, Options, Start};
use tradewind_store::Store;

use crate::{file, folder::Folder};

/// How a start went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Started {
    /// The snapshot it began at; zero if at the first entry.
    pub snapshot: Version,
    /// Entries that were replayed after that.
    pub replayed: u64,
}

/// Opens the ledger in `dir` and rebuilds its store: from the newest snapshot that is whole and lies below the published
/// checkpoint, and the entries after it. A snapshot that is damaged, or does not belong to the ledger, is said in the log,
/// and the one before it is taken; at last all entries are replayed, if they are there.
///
/// # Errors
/// As [`tradewind_ledger_disk::open`].
pub fn open(dir: &Path, options: &Options) -> Result<(Opened, Store, Started), OpenError> {
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
            Ok((base, store)) => {
                let options = Options { start: Start::Base(Arc::new(base)), ..options.clone() };
                match replay(dir, &options, store, at) {
                    Err(error @ OpenError::Base { .. }) => {
                        tracing::warn!(file = %path.display(), %error, "a snapshot is not used");
                    }
                    opened => return opened,
                }
            }
        }
    }
    replay(dir, options, Store::new(), Version::ZERO)
}

fn replay(
    dir: &Path,
    options: &Options,
    mut store: Store,
    snapshot: Version,
) -> Result<(Opened, Store, Started), OpenError> {
    let mut replayed = 0;
    let opened = tradewind_ledger_disk::open(dir, options, |version, entry| {
        replayed += 1;
        store.apply(version, &entry).map_err(Into::into)
    })?;
    Ok((opened, store, Started { snapshot, replayed }))
}
