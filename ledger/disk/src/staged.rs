//! Values that are written beside the ledger before it is known whether an entry will name them.
//!
//! They have names of their own until [`LedgerWriter::adopt_value`](crate::LedgerWriter::adopt_value) gives them that of
//! their digest, and are removed when the ledger is opened: what no entry named is of no use to the next process.

use std::fs::File;
use std::path::PathBuf;

use tradewind_ledger::entry::MAX_VALUE;
use tradewind_ledger::ids::Digest;
use tradewind_ledger::tree::ValueHasher;

use crate::error::WriteError;
use crate::layout::{Layout, TEMPORARY};
use crate::ops::Ops;
use crate::segment::{retryable, terminal};

/// After so many bytes what was written is synced: a long value must not make others' syncs wait for all of it.
const SYNC_BYTES: u64 = 4 << 20;

/// Writes values beside a ledger: on any thread, while the ledger is in use.
#[derive(Clone)]
pub struct Stager {
    pub(crate) ops: Ops,
    pub(crate) layout: Layout,
}

/// A value that is being written.
pub struct StagedValue {
    ops: Ops,
    file: File,
    path: PathBuf,
    len: u64,
    synced: u64,
    hasher: Option<ValueHasher>,
}

impl Stager {
    /// Begins a value under a number that no other value beside this ledger has.
    ///
    /// # Errors
    /// [`WriteError::NoSpace`], which can be retried, or [`WriteError::Failed`].
    pub fn begin(&self, number: u64) -> Result<StagedValue, WriteError> {
        self.create(number, Some(ValueHasher::default()))
    }

    /// The same, of a value whose digest the caller has computed from what it is about to give: it is not computed again.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub fn begin_known(&self, number: u64) -> Result<StagedValue, WriteError> {
        self.create(number, None)
    }

    fn create(&self, number: u64, hasher: Option<ValueHasher>) -> Result<StagedValue, WriteError> {
        let path = path(&self.layout, number);
        let file = retryable(self.ops.create(&path), "create", &path)?;
        let ops = self.ops.clone();
        Ok(StagedValue { ops, file, path, len: 0, synced: 0, hasher })
    }

    /// Removes a value that is of no use any more, whether it was finished or not.
    ///
    /// # Errors
    /// [`WriteError::Failed`] if it cannot be removed.
    pub fn remove(&self, number: u64) -> Result<(), WriteError> {
        let path = path(&self.layout, number);
        retryable(self.ops.remove(&path), "remove", &path)
    }
}

impl StagedValue {
    /// Appends to the value.
    ///
    /// # Errors
    /// [`WriteError::NoSpace`]: nothing was taken, and the same call can be made again. [`WriteError::Failed`].
    /// [`WriteError::ValueTooLong`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let len = self.len + bytes.len() as u64;
        if len > MAX_VALUE {
            return Err(WriteError::ValueTooLong(len));
        }
        let written = self.ops.write_at(&self.file, &self.path, bytes, self.len);
        retryable(written, "write", &self.path)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.len = len;
        if self.len - self.synced >= SYNC_BYTES {
            terminal(self.ops.sync_data(&self.file, &self.path), "sync", &self.path)?;
            self.synced = self.len;
        }
        Ok(())
    }

    /// Makes it durable, its name not yet; and gives its SHA-256, unless that is [known](Stager::begin_known).
    ///
    /// # Errors
    /// [`WriteError::Failed`].
    pub fn finish(self) -> Result<Option<Digest>, WriteError> {
        terminal(self.ops.sync_file(&self.file, &self.path), "sync", &self.path)?;
        Ok(self.hasher.map(ValueHasher::finish))
    }
}

/// Where a staged value is; opening the ledger removes what has this ending.
pub(crate) fn path(layout: &Layout, number: u64) -> PathBuf {
    layout.values.join(format!("staged-{number}{TEMPORARY}"))
}
