//! Giving the parts of a snapshot to another replica: its chunks as they lie in the file, with what shows what they are.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use tradewind_ledger::base::Base;
use tradewind_ledger::{Digest, Version};

use crate::file::{self, FileFault};
use crate::folder::Folder;

/// A snapshot's file, open to be given away. It stays readable when it is removed meanwhile.
#[derive(Debug)]
pub struct Lent {
    file: File,
    base: Base,
    chunks: Vec<Place>,
}

/// Where a chunk lies in the file, with its lengths in front; and what it is.
#[derive(Debug)]
struct Place {
    offset: u64,
    len: usize,
    leaf: Digest,
}

impl Lent {
    /// Opens the snapshot of `size` entries of the ledger in `dir`, and reads it once. `None` if there is none.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn open(dir: &Path, size: Version) -> Result<Option<Self>, FileFault> {
        let path = Folder::of(dir).file(size);
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut reader = Counting { inner: BufReader::with_capacity(1 << 20, &file), at: 0 };
        let base = file::base(&mut reader)?;
        let mut chunks = Vec::new();
        loop {
            let offset = reader.at;
            let Some(chunk) = file::chunk(&mut reader)? else { break };
            chunks.push(Place { offset, len: 8 + chunk.size(), leaf: chunk.leaf() });
        }
        Ok(Some(Self { file, base, chunks }))
    }

    /// The ledger where the state is of.
    #[must_use]
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// The leaf of each chunk, as it was when the file was opened.
    #[must_use]
    pub fn leaves(&self) -> Vec<Digest> {
        self.chunks.iter().map(|place| place.leaf).collect()
    }

    /// How long a chunk is as it travels, and what of it follows from `offset` on, up to so many bytes; `None` if there is no
    /// such chunk.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn piece(
        &self,
        index: u32,
        offset: u64,
        max_bytes: usize,
    ) -> io::Result<Option<(u64, Vec<u8>)>> {
        let Some(place) = self.chunks.get(index as usize) else { return Ok(None) };
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(place.len);
        let mut bytes = vec![0; (place.len - from).min(max_bytes)];
        self.file.read_exact_at(&mut bytes, place.offset + from as u64)?;
        Ok(Some((place.len as u64, bytes)))
    }
}

/// Knows how far it has read.
struct Counting<R> {
    inner: R,
    at: u64,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.at += read as u64;
        Ok(read)
    }
}
