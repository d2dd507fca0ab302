//! Memory that processes share: made by its owner, sealed, handed over, mapped read-only by others.
//!
//! The file behind it has no name (`memfd_create`), so nothing is left when its last user dies. Its
//! length is sealed, so that no peer can cut it and kill a reader by SIGBUS; and once the owner has
//! mapped it, a seal keeps everybody else from mapping it for writing.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    slice,
};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create,
};

use super::{
    atomic::{AtomicU64, Ordering},
    ring,
};

/// "tradewnd" and the version of the layout, as the first word.
const MAGIC: u64 = u64::from_le_bytes(*b"tradewd\x01");

/// Whose memory it is; a reader refuses any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Title {
    pub(super) owner: u16,
    pub(super) incarnation: u64,
    pub(super) view: u64,
    pub(super) row_len: u64,
}

impl Title {
    fn words(self) -> [u64; 5] {
        [MAGIC, u64::from(self.owner), self.incarnation, self.view, self.row_len]
    }
}

/// Words that other processes see.
#[derive(Debug)]
pub(super) struct Mapping {
    map: MmapRaw,
    /// The file, to be handed over; a reader does not keep it.
    file: Option<OwnedFd>,
}

/// Why memory that was handed over is not mapped.
#[derive(Debug, thiserror::Error)]
pub(super) enum MappingError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it could be cut while it is read")]
    NotSealed,
    #[error("it has {found} bytes, expected {expected}")]
    Length { found: u64, expected: u64 },
    #[error("it is of another owner, incarnation, view or row")]
    Title,
}

/// Bytes of the memory of an owner of rows of `row_len` bytes.
///
/// The ring holds more than a row: what the core lets wait for a slow reader is less than the row's
/// rings of data, beside it there are the heads of records and counters.
fn length(row_len: u64) -> u64 {
    let ring = (row_len + row_len / 4 + (256 << 10)).next_multiple_of(4_096);
    ring + 8 * ring::RING as u64
}

impl Mapping {
    /// Makes zeroed memory under a title.
    pub(super) fn create(title: Title) -> io::Result<Self> {
        let file = memfd_create("tradewind-row", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, length(title.row_len))?;
        let map = MmapOptions::new().map_raw(file.as_raw_fd())?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        fcntl_add_seals(&file, seals)?;
        let mapping = Self { map, file: Some(file) };
        for (word, content) in mapping.words().iter().zip(title.words()) {
            word.store(content, Ordering::Relaxed);
        }
        Ok(mapping)
    }

    /// Maps what a peer has handed over, if it is what it should be.
    pub(super) fn open(file: impl AsFd, title: Title) -> Result<Self, MappingError> {
        let file = file.as_fd();
        let seals = fcntl_get_seals(file).map_err(io::Error::from)?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(MappingError::NotSealed);
        }
        let expected = length(title.row_len);
        let found = u64::try_from(fstat(file).map_err(io::Error::from)?.st_size).unwrap_or(0);
        if found != expected {
            return Err(MappingError::Length { found, expected });
        }
        let map = MmapOptions::new().map_raw_read_only(file.as_raw_fd())?;
        let mapping = Self { map, file: None };
        let words = mapping.words().iter();
        if !words.zip(title.words()).all(|(word, content)| word.load(Ordering::Relaxed) == content)
        {
            return Err(MappingError::Title);
        }
        Ok(mapping)
    }

    /// The file, of an owner.
    pub(super) fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    /// The memory. Of a peer's, words are loaded with `Relaxed` only, and never stored.
    #[expect(
        unsafe_code,
        reason = "memory that the kernel shares between processes has no owner in Rust"
    )]
    pub(super) fn words(&self) -> &[AtomicU64] {
        let words = self.map.len() / size_of::<AtomicU64>();
        let start = self.map.as_mut_ptr().cast::<AtomicU64>();
        // SAFETY: `start` is the begin of a mapping of `words` whole words, aligned to a page, that
        // lives as long as `self.map`, to which the slice's lifetime is bound. Its file cannot be cut
        // (sealed, checked before mapping), so each word stays readable. Every access to it in this
        // process goes through these atomics (no reference to plain memory of it is ever made), so
        // stores by other processes are no data races. A peer's memory is mapped read-only: it is
        // only loaded from, relaxed, which atomics allow for words of this size on read-only memory.
        unsafe { slice::from_raw_parts(start, words) }
    }
}
