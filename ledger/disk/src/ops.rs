//! The changes that this crate makes to the file system, each by one function.
//!
//! Production code goes straight to the operating system. Tests see each change before it is made,
//! to replay every prefix of them as a crash would leave it, or to make one fail.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
#[cfg(test)]
use std::sync::Arc;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// A change that is about to be made.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op<'a> {
    Create(&'a Path),
    Write(&'a Path, u64, &'a [u8]),
    SetLen(&'a Path, u64),
    Allocate(&'a Path, u64),
    SyncFile(&'a Path),
    Rename(&'a Path, &'a Path),
    Remove(&'a Path),
    MakeDir(&'a Path),
    SyncDir(&'a Path),
    SyncAll,
}

/// Sees each change before it is made; an error is returned instead of making it.
#[cfg(test)]
pub(crate) type Tap = Arc<dyn Fn(Op<'_>) -> io::Result<()> + Send + Sync>;

/// Tells the tap of a change, in tests.
macro_rules! tell {
    ($ops:expr, $op:expr) => {{
        #[cfg(test)]
        if let Some(tap) = &$ops.tap {
            use Op::*;
            tap($op)?;
        }
    }};
}

/// Makes changes to files and directories.
#[derive(Clone, Default)]
pub(crate) struct Ops {
    #[cfg(test)]
    pub(crate) tap: Option<Tap>,
}

impl Ops {
    /// Opens a new, empty file for reading and writing, in place of one that may be there.
    pub(crate) fn create(&self, path: &Path) -> io::Result<File> {
        tell!(self, Create(path));
        File::options().read(true).write(true).create(true).truncate(true).open(path)
    }

    /// Opens a file for reading and writing, a new one if there is none; whether it is new.
    pub(crate) fn open(&self, path: &Path) -> io::Result<(File, bool)> {
        match File::options().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((self.create(path)?, true)),
            opened => Ok((opened?, false)),
        }
    }

    pub(crate) fn write_at(
        &self,
        file: &File,
        path: &Path,
        bytes: &[u8],
        offset: u64,
    ) -> io::Result<()> {
        tell!(self, Write(path, offset, bytes));
        let _ = path;
        file.write_all_at(bytes, offset)
    }

    pub(crate) fn set_len(&self, file: &File, path: &Path, len: u64) -> io::Result<()> {
        tell!(self, SetLen(path, len));
        let _ = path;
        file.set_len(len)
    }

    /// Reserves space up to `len`, so that writes below cannot run out of it and change no metadata
    /// but block states. Where a file system cannot, the file grows with each write instead.
    pub(crate) fn allocate(&self, file: &File, path: &Path, len: u64) -> io::Result<()> {
        tell!(self, Allocate(path, len));
        let _ = path;
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Makes a file's bytes durable, and of its metadata what it takes to read them (fdatasync).
    pub(crate) fn sync_data(&self, file: &File, path: &Path) -> io::Result<()> {
        tell!(self, SyncFile(path));
        let _ = path;
        file.sync_data()
    }

    /// Makes a file's bytes and metadata durable (fsync).
    pub(crate) fn sync_file(&self, file: &File, path: &Path) -> io::Result<()> {
        tell!(self, SyncFile(path));
        let _ = path;
        file.sync_all()
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        tell!(self, Rename(from, to));
        fs::rename(from, to)
    }

    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        tell!(self, Remove(path));
        fs::remove_file(path)
    }

    /// Makes a directory unless it is there, and those above it; true if it was not there.
    pub(crate) fn make_dir(&self, path: &Path) -> io::Result<bool> {
        if path.is_dir() {
            return Ok(false);
        }
        tell!(self, MakeDir(path));
        fs::create_dir_all(path)?;
        Ok(true)
    }

    /// Makes a directory's names durable.
    pub(crate) fn sync_dir(&self, path: &Path) -> io::Result<()> {
        tell!(self, SyncDir(path));
        File::open(path)?.sync_all()
    }

    /// Makes everything on the file system of `dir` durable, names and bytes: one call for many
    /// files (syncfs).
    pub(crate) fn sync_all(&self, dir: &File) -> io::Result<()> {
        tell!(self, SyncAll);
        Ok(rustix::fs::syncfs(dir)?)
    }
}
