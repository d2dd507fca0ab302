//! Cutting a suffix off a ledger that no majority kept: what stays is written anew beside it, then the directories change
//! places. The old one is kept aside: nothing is lost, and what was cut off can be looked at.
//!
//! A crash at any point leaves the old directory, or the new one, or both with the new one complete; calling again
//! finishes.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tradewind_ledger::ids::Version;
use tradewind_ledger::tree::HashSource as _;

use crate::error::{OpenError, ReadError, WriteError};
use crate::layout::Layout;
use crate::open::{Options, open};
use crate::owner::replace;
use crate::plant::{PlantError, plant};
use crate::start::{self, Start};

/// Bytes of entries that are copied at once.
const CHUNK_BYTES: usize = 4 << 20;

/// Why a ledger was not cut; it is as it was.
#[derive(Debug, Error)]
pub enum RewindError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] Box<OpenError>),
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What stays cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The file system refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The hashes before the first entry that is kept cannot be copied.
    #[error(transparent)]
    Plant(#[from] PlantError),
    /// What should go was signed by a majority.
    #[error(
        "entries from {to} on are to be cut off, but a majority has signed for {signed} entries: some node lost or changed \
         data; find it with `audit verify`, and restore it from a peer"
    )]
    Signed {
        /// What should stay.
        to: Version,
        /// Size of the checkpoint.
        signed: Version,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> RewindError + '_ {
    move |source| RewindError::Io { path: path.into(), source }
}

/// Keeps the first `to` entries of the ledger in `directory`. The whole old directory stays below `aside` (a directory of
/// the same file system, outside of the ledgers). Returns how many entries were cut off; zero if it was done before.
///
/// # Errors
/// [`RewindError`].
pub fn rewind(
    directory: &Path,
    aside: &Path,
    options: &Options,
    to: Version,
) -> Result<u64, RewindError> {
    let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let kept = aside.join(format!("{name}.kept"));
    fs::create_dir_all(aside).map_err(at(aside))?;
    if !directory.exists() && kept.exists() {
        change_places(&kept, directory)?;
        return Ok(0);
    }
    if kept.exists() {
        fs::remove_dir_all(&kept).map_err(at(&kept))?;
    }
    let Some(size) = copy(directory, &kept, options, to)? else { return Ok(0) };
    change_places(directory, &aside.join(format!("{name}-{to}-{size}")))?;
    change_places(&kept, directory)?;
    Ok(size.since(to))
}

/// Writes what stays to `kept`. The size of the whole; `None` if nothing is to go.
fn copy(
    directory: &Path,
    kept: &Path,
    options: &Options,
    to: Version,
) -> Result<Option<Version>, RewindError> {
    let options = &Options { start: Start::Kept, ..options.clone() };
    let old = open(directory, options, |_, _| Ok(())).map_err(Box::new)?;
    let size = old.reader.durable_size();
    if size <= to {
        return Ok(None);
    }
    let signed = old.checkpoint.as_ref().and_then(|note| note.checkpoint().ok());
    if let Some(signed) = signed.map(|checkpoint| checkpoint.size).filter(|signed| *signed > to) {
        return Err(RewindError::Signed { to, signed });
    }
    if let Some(base) = start::read(&Layout::new(directory)).map_err(Box::new)? {
        let leaf = |at| old.reader.node(0, at).ok_or_else(|| format!("no leaf {at}").into());
        plant(kept, options.face, &base, |tile| {
            (tile.first()..).take(tile.width.into()).map(leaf).collect()
        })?;
    }
    let mut new = open(kept, options, |_, _| Ok(())).map_err(Box::new)?;
    // Values before the entries that name them.
    let (from, values) = (directory.join("values"), kept.join("values"));
    link_all(&from, &values).map_err(at(&values))?;
    while new.writer.size() < to {
        let entries = old.reader.entries(new.writer.size(), to, CHUNK_BYTES)?;
        new.writer.append(&entries)?;
        new.writer.sync()?;
    }
    drop(new);
    if let Some(note) = old.checkpoint {
        let path = kept.join("checkpoint");
        replace(&path, note.to_string().as_bytes()).map_err(at(&path))?;
    }
    Ok(Some(size))
}

/// Links all files below `from` to the same places below `to`.
fn link_all(from: &Path, to: &Path) -> io::Result<()> {
    if !from.exists() {
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            link_all(&entry.path(), &place)?;
        } else {
            fs::hard_link(entry.path(), &place)?;
        }
    }
    File::open(to)?.sync_all()
}

/// Renames, and syncs both parents.
fn change_places(from: &Path, to: &Path) -> Result<(), RewindError> {
    fs::rename(from, to).map_err(at(from))?;
    for path in [from, to] {
        let parent = path.parent().unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(at(parent))?;
    }
    Ok(())
}
