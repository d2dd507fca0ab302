//! A ledger's newest snapshot, for whoever lacks what was pruned.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tradewind_ledger::tree::root_of;
use tradewind_ledger::{Body, Entry, Manifest, SignedNote, Version};
use tradewind_ledger_disk::LedgerReader;

use crate::lend::Lent;
use crate::open::{agreed, manifest};

/// The snapshots of one ledger, as a running process gives them away part by part. One file is open at a time.
#[derive(Debug)]
pub struct Shelf {
    ledger: PathBuf,
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    size: Version,
    lent: Lent,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Shelf {
    /// Those of the ledger in this directory.
    #[must_use]
    pub fn of(ledger: PathBuf) -> Self {
        Self { ledger, open: Mutex::default() }
    }

    /// The manifest of the newest snapshot that the ledger was noted to hold, as it travels; `None` if there is none, or `note`
    /// does not cover it yet.
    ///
    /// # Errors
    /// In words, if it is damaged.
    pub fn manifest(
        &self,
        reader: &LedgerReader,
        note: Option<SignedNote>,
    ) -> Result<Option<Vec<u8>>, String> {
        let Some((at, record)) = agreed(&self.ledger, reader).map_err(text)? else {
            return Ok(None);
        };
        let mut open = self.open(record.size)?;
        let Some(Open { lent, .. }) = &mut *open else { return Ok(None) };
        let damaged = "its file is not what the ledger commits to; remove it";
        let leaves = lent.leaves();
        if root_of(leaves.iter().copied()) != record.root {
            return Err(damaged.into());
        }
        if let Some(taken) = manifest(&self.ledger, record.size).map_err(text)? {
            return Ok(Some(taken.encode()));
        }
        let Some(note) = note else { return Ok(None) };
        let signed = note.checkpoint().map_err(text)?.size;
        if signed <= at || reader.durable_size() < signed {
            return Ok(None);
        }
        let entry = reader.entry(at).map_err(text)?;
        match Entry::decode(&entry).map(|entry| entry.body) {
            Ok(Body::Snapshot(found)) if found == record => {}
            _ => return Err(damaged.into()),
        }
        let made = Manifest::make(reader, note, (at, entry), lent.base().clone(), leaves);
        Ok(Some(made.map_err(text)?.encode()))
    }

    /// The leaf hashes of a block of the ledger's first `size` entries.
    ///
    /// # Errors
    /// If the tree lacks one of them.
    pub fn block(
        &self,
        reader: &LedgerReader,
        size: Version,
        index: u32,
    ) -> Result<Option<Vec<u8>>, String> {
        let leaves = Manifest::block_of(reader, size, index.into()).map_err(text)?;
        Ok(Some(leaves.iter().flat_map(|leaf| leaf.0).collect()))
    }

    /// A chunk of the snapshot of `size` entries.
    ///
    /// # Errors
    /// In words, if it cannot be read.
    pub fn chunk(&self, size: Version, index: u32) -> Result<Option<Vec<u8>>, String> {
        match &*self.open(size)? {
            Some(open) => open.lent.chunk(index).map_err(text),
            None => Ok(None),
        }
    }

    fn open(&self, size: Version) -> Result<MutexGuard<'_, Option<Open>>, String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_none_or(|open| open.size != size) {
            *open = None;
            *open = Lent::open(&self.ledger, size).map_err(text)?.map(|lent| Open { size, lent });
        }
        Ok(open)
    }
}
