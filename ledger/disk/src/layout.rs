//! Where a ledger's files lie (`docs/formats/data-directory.md`), and the lock on its directory.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use tradewind_ledger::ids::Digest;
use tradewind_ledger::segment_file::SegmentName;

use crate::error::{Context, FileError, OpenError};
use crate::open::Face;
use crate::ops::Ops;

/// Ending of files whose writing did not finish.
pub(crate) const TEMPORARY: &str = ".tmp";

/// Under this name a tile or value is made again while the ledger is in use: another one than those who write them then have.
pub(crate) const MENDED: &str = "mended.tmp";

/// The paths of one ledger.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) dir: PathBuf,
    pub(crate) segments: PathBuf,
    pub(crate) values: PathBuf,
    pub(crate) checkpoint: PathBuf,
    /// What pruning left of the entries before the first that is kept.
    pub(crate) base: PathBuf,
    pub(crate) tiles: PathBuf,
    pub(crate) face: Face,
}

impl Layout {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            segments: dir.join("segments"),
            values: dir.join("values"),
            checkpoint: dir.join("checkpoint"),
            base: dir.join("base"),
            tiles: dir.join("tile"),
            face: Face::Static,
        }
    }

    pub(crate) fn segment(&self, name: SegmentName) -> PathBuf {
        self.segments.join(name.to_string())
    }

    pub(crate) fn value(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.values.join(&name[..2]).join(name)
    }

    /// Makes the directories that are missing, durably.
    pub(crate) fn create(&self, ops: &Ops) -> Result<(), FileError> {
        let mut made = false;
        for dir in [&self.dir, &self.segments, &self.values, &self.tiles] {
            made |= ops.make_dir(dir).context("make the directory", dir)?;
        }
        if made {
            let above = self.dir.ancestors().filter(|dir| dir.is_dir()).take(3);
            for dir in above {
                ops.sync_dir(dir).context("sync the directory", dir)?;
            }
        }
        Ok(())
    }
}

/// Keeps other processes from opening the same ledger while it lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    pub(crate) fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join("LOCK");
        let opened =
            File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = opened.context("open the lock", &path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut process = String::new();
                // Whose lock it is helps the operator, but is not needed.
                let _ = (&mut file).take(20).read_to_string(&mut process);
                let process = process.trim().parse().ok();
                return Err(OpenError::Locked { dir: dir.to_owned(), process });
            }
            Err(TryLockError::Error(source)) => {
                return Err(FileError { action: "lock", path, source }.into());
            }
        }
        let note = |mut file: &File| {
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())
        };
        // On a full disk the ledger can still be opened for reading.
        if let Err(error) = note(&file) {
            tracing::debug!(%error, path = %path.display(), "the lock does not name its process");
        }
        Ok(Self { _file: file })
    }
}
