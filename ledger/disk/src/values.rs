//! Detached values: files named by their SHA-256.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tradewind_ledger::entry::MAX_VALUE;
use tradewind_ledger::ids::Digest;
use tradewind_ledger::tree::{ValueHasher, value_digest};

use crate::error::{Context, Damage, FileError, Found, ReadError, WriteError};
use crate::layout::{Layout, TEMPORARY};
use crate::ops::Ops;
use crate::segment::{retryable, terminal};
use crate::staged;
use crate::tiles::has_length;

/// So many bytes of a value that is only to be checked are in memory.
const CHECKED_BYTES: usize = 1 << 18;

/// Writes a value, its bytes durably, its name not yet: the directories returned have to be synced.
pub(crate) fn store(
    ops: &Ops,
    layout: &Layout,
    digest: &Digest,
    value: &[u8],
) -> Result<Vec<PathBuf>, WriteError> {
    if value.len() as u64 > MAX_VALUE {
        return Err(WriteError::ValueTooLong(value.len() as u64));
    }
    debug_assert_eq!(value_digest(value), *digest, "the caller gives a value's own digest");
    let path = layout.value(digest);
    if retryable(has_length(&path, value.len() as u64), "read the length", &path)? {
        return Ok(vec![path.parent().expect("in the values' directory").to_owned()]);
    }
    write(ops, layout, digest, value)
}

/// Whether a ledger's directory has a detached value of this digest and length. Its bytes are not looked at.
#[must_use]
pub fn has_value(dir: &Path, digest: &Digest, len: u64) -> bool {
    has_length(&Layout::new(dir).value(digest), len).unwrap_or(false)
}

/// Puts a detached value into a directory that is to become a ledger's, durably; one that is there stays.
///
/// # Errors
/// If it is too long, or the system refuses.
pub fn keep_value(dir: &Path, digest: &Digest, value: &[u8]) -> Result<(), WriteError> {
    let (ops, layout) = (Ops::default(), Layout::new(dir));
    retryable(fs::create_dir_all(&layout.values), "make the directory", &layout.values)?;
    for dir in store(&ops, &layout, digest, value)? {
        terminal(ops.sync_dir(&dir), "sync the directory", &dir)?;
    }
    Ok(())
}

/// As [`store`], whatever is there.
pub(crate) fn write(
    ops: &Ops,
    layout: &Layout,
    digest: &Digest,
    value: &[u8],
) -> Result<Vec<PathBuf>, WriteError> {
    let path = layout.value(digest);
    let dir = path.parent().expect("in the values' directory").to_owned();
    let made = retryable(ops.make_dir(&dir), "make the directory", &dir)?;
    let temporary = layout.values.join(format!("{digest}{TEMPORARY}"));
    prepare(ops, &temporary, value)?;
    retryable(ops.rename(&temporary, &path), "rename", &path)?;
    Ok(if made { vec![layout.values.clone(), dir] } else { vec![dir] })
}

/// Writes the bytes of a value durably under a name that it is not to keep.
pub(crate) fn prepare(ops: &Ops, temporary: &Path, value: &[u8]) -> Result<(), WriteError> {
    let file = retryable(ops.create(temporary), "create", temporary)?;
    retryable(ops.write_at(&file, temporary, value, 0), "write", temporary)?;
    terminal(ops.sync_file(&file, temporary), "sync", temporary)
}

/// Gives a staged value its name; as [`store`].
pub(crate) fn adopt(
    ops: &Ops,
    layout: &Layout,
    digest: &Digest,
    number: u64,
) -> Result<Vec<PathBuf>, WriteError> {
    let path = layout.value(digest);
    let dir = path.parent().expect("in the values' directory").to_owned();
    let made = retryable(ops.make_dir(&dir), "make the directory", &dir)?;
    retryable(ops.rename(&staged::path(layout, number), &path), "rename", &path)?;
    Ok(if made { vec![layout.values.clone(), dir] } else { vec![dir] })
}

/// Reads a value and checks it against its digest; `None` if it is not there.
pub(crate) fn load(layout: &Layout, digest: &Digest) -> Result<Option<Vec<u8>>, ReadError> {
    let path = layout.value(digest);
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        result => result.context("open", &path)?,
    };
    let len = file.metadata().context("read the length", &path)?.len();
    if len > MAX_VALUE {
        let found = Found::Length { len, max: MAX_VALUE };
        return Err(Damage { file: path, offset: MAX_VALUE, found }.into());
    }
    let mut value = Vec::with_capacity(len as usize);
    file.take(MAX_VALUE).read_to_end(&mut value).context("read", &path)?;
    match value_digest(&value) {
        found if found == *digest => Ok(Some(value)),
        found => Err(Damage { file: path, offset: 0, found: Found::Value(found) }.into()),
    }
}

/// A detached value's file, open to be given away piece by piece. It stays readable when it is removed meanwhile.
#[derive(Debug)]
pub struct ValueFile {
    file: File,
}

impl ValueFile {
    /// Opens a value and checks it against its digest, once for all pieces; `None` if it is not there.
    pub(crate) fn open(layout: &Layout, digest: &Digest) -> Result<Option<Self>, ReadError> {
        let path = layout.value(digest);
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            result => result.context("open", &path)?,
        };
        let mut hasher = ValueHasher::default();
        let mut bytes = vec![0; CHECKED_BYTES];
        loop {
            match (&file).read(&mut bytes).context("read", &path)? {
                0 => break,
                read => hasher.update(&bytes[..read]),
            }
        }
        match hasher.finish() {
            found if found == *digest => Ok(Some(Self { file })),
            found => Err(Damage { file: path, offset: 0, found: Found::Value(found) }.into()),
        }
    }

    /// What follows from `offset` on, up to so many bytes; nothing at the end and beyond.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn piece(&self, offset: u64, max_bytes: usize) -> io::Result<Vec<u8>> {
        let rest = self.file.metadata()?.len().saturating_sub(offset);
        let len = usize::try_from(rest).unwrap_or(usize::MAX).min(max_bytes);
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

/// Removes what interrupted writes left.
pub(crate) fn clean(ops: &Ops, layout: &Layout) -> Result<(), FileError> {
    for entry in fs::read_dir(&layout.values).context("list", &layout.values)? {
        let path = entry.context("list", &layout.values)?.path();
        if path.to_string_lossy().ends_with(TEMPORARY) {
            ops.remove(&path).context("remove", &path)?;
        }
    }
    Ok(())
}
