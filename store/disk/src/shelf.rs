//! A ledger's newest snapshot, for whoever lacks what was pruned.

use std::path::{Path, PathBuf};
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
        let open = self.open(record.size)?;
        let Some(Open { lent, .. }) = &*open else { return Ok(None) };
        let made = manifest_of(&self.ledger, reader, lent, (at, note))?;
        Ok(made.map(|manifest| manifest.encode()))
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
            Some(open) => {
                let piece = open.lent.piece(index, 0, usize::MAX).map_err(text)?;
                Ok(piece.map(|(_, bytes)| bytes))
            }
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

/// The manifest of a snapshot whose SNAPSHOT entry stands at `at`: the one that it was taken by, or one that is made; `None`
/// while `note`, the newest that is signed, does not cover that.
///
/// # Errors
/// In words, if the snapshot is not what the ledger commits to, or something cannot be read.
pub fn manifest_of(
    ledger: &Path,
    reader: &LedgerReader,
    lent: &Lent,
    (at, note): (Version, Option<SignedNote>),
) -> Result<Option<Manifest>, String> {
    let damaged = "its file is not what the ledger commits to; remove it";
    let leaves = lent.leaves();
    if let Some(taken) = manifest(ledger, lent.base().size()).map_err(text)? {
        return if taken.chunks == leaves { Ok(Some(taken)) } else { Err(damaged.into()) };
    }
    let Some(note) = note else { return Ok(None) };
    let signed = note.checkpoint().map_err(text)?.size;
    if signed <= at || reader.durable_size() < signed {
        return Ok(None);
    }
    let entry = reader.entry(at).map_err(text)?;
    match Entry::decode(&entry).map(|entry| entry.body) {
        Ok(Body::Snapshot(record)) if record.root == root_of(leaves.iter().copied()) => {}
        _ => return Err(damaged.into()),
    }
    let made = Manifest::make(reader, note, (at, entry), lent.base().clone(), leaves);
    made.map(Some).map_err(text)
}
