//! The file of the segment that grows: created, appended to, and sealed in steps, each of which leaves
//! something that recovery understands (`docs/formats/segment-file.md`, "Writing").

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tradewind_ledger::ids::Version;
use tradewind_ledger::segment_file::{Header, PAGE, SegmentName, Watermark};

use crate::error::{Context, FileError, WriteError};
use crate::layout::{Layout, TEMPORARY};
use crate::ops::Ops;

/// How far ahead of the records zeroes are written.
const AHEAD: u64 = 256 << 10;
/// What one write of them takes.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// A mark is written for each sync of fewer bytes than this, ...
const MARK_ALWAYS_BELOW: u64 = 16 << 10;
/// ... and otherwise once so many bytes are beyond the last one: it is a page of its own, and larger syncs come often.
const MARK_LAG_MAX: u64 = 128 << 10;

/// An open segment's file.
pub(crate) struct OpenSegment {
    pub(crate) file: Arc<File>,
    pub(crate) path: PathBuf,
    pub(crate) header: Header,
    /// The mark that describes all that is durable in the file; with the sequence of the one written last.
    pub(crate) mark: Watermark,
    /// The bytes that the mark written last describes.
    marked: u64,
    /// Space is reserved up to here.
    reserved: u64,
    /// Zeroes were written up to here, so that what is written over them changes no metadata.
    zeroed: u64,
}

impl OpenSegment {
    /// A file that is there, with space reserved up to the given length.
    pub(crate) fn new(
        file: Arc<File>,
        path: PathBuf,
        header: Header,
        mark: Watermark,
        reserved: u64,
    ) -> Self {
        Self { file, path, header, mark, marked: mark.bytes, reserved, zeroed: mark.bytes }
    }

    /// Makes the file with its header and space reserved, durably.
    pub(crate) fn create(
        ops: &Ops,
        layout: &Layout,
        header: Header,
        preallocate: u64,
    ) -> Result<Self, WriteError> {
        let path = layout.segment(SegmentName { first: header.first, last: None });
        let mut temporary = path.clone().into_os_string();
        temporary.push(TEMPORARY);
        let temporary = Path::new(&temporary);
        let mark = Watermark::initial(header.first);
        let (offset, slot) = mark.slot(&header);
        let mut page = header.page();
        page[offset..offset + slot.len()].copy_from_slice(&slot);

        let file = retryable(ops.create(temporary), "create", temporary)?;
        retryable(ops.write_at(&file, temporary, &page, 0), "write", temporary)?;
        retryable(ops.allocate(&file, temporary, preallocate), "reserve space", temporary)?;
        terminal(ops.sync_file(&file, temporary), "sync", temporary)?;
        retryable(ops.rename(temporary, &path), "rename", temporary)?;
        terminal(ops.sync_dir(&layout.segments), "sync the directory", &layout.segments)?;
        Ok(Self::new(Arc::new(file), path, header, mark, preallocate))
    }

    /// Appends records up to the version `next` and makes them durable.
    pub(crate) fn append(
        &mut self,
        ops: &Ops,
        records: &[u8],
        next: Version,
    ) -> Result<(), WriteError> {
        let bytes = self.mark.bytes + records.len() as u64;
        let Self { file, path, mark, .. } = self;
        retryable(ops.write_at(file, path, records, mark.bytes), "write", path)?;
        self.zero_ahead(ops, bytes)?;
        let Self { file, path, mark, .. } = self;
        terminal(ops.sync_data(file, path), "sync", path)?;
        let due = bytes - mark.bytes < MARK_ALWAYS_BELOW || bytes - self.marked >= MARK_LAG_MAX;
        let sequence = mark.sequence + u64::from(due);
        self.mark = Watermark { sequence, bytes, next };
        if !due {
            return Ok(());
        }
        self.marked = bytes;
        self.write_mark(ops)
    }

    /// Keeps zeroes ahead of the end of the records: the first write to space that is only reserved makes each sync change
    /// block states as well, one more write to the disk, and work for the file system. So that is done once for many
    /// syncs. They become durable with the next sync.
    fn zero_ahead(&mut self, ops: &Ops, end: u64) -> Result<(), WriteError> {
        if end <= self.zeroed || end >= self.reserved {
            return Ok(());
        }
        let upto = (end + AHEAD).min(self.reserved);
        let mut at = end;
        while at < upto {
            // The first write ends with a page, the others hold whole ones.
            let len = ZEROES.len() as u64 - at % PAGE as u64;
            let len = len.min(upto - at);
            let zeroes = &ZEROES[..len as usize];
            retryable(ops.write_at(&self.file, &self.path, zeroes, at), "write", &self.path)?;
            at += len;
        }
        self.zeroed = upto;
        Ok(())
    }

    /// Writes the mark of all that is durable, if the one written last says less. For a log that ends, or rests.
    pub(crate) fn catch_up_mark(&mut self, ops: &Ops) -> Result<(), WriteError> {
        if self.marked == self.mark.bytes {
            return Ok(());
        }
        self.marked = self.mark.bytes;
        self.mark.sequence += 1;
        self.write_mark(ops)
    }

    /// Writes the mark of what is durable; it becomes durable itself with the next sync.
    pub(crate) fn write_mark(&self, ops: &Ops) -> Result<(), WriteError> {
        let (offset, slot) = self.mark.slot(&self.header);
        match ops.write_at(&self.file, &self.path, &slot, offset as u64) {
            Err(error) if is_no_space(&error) => {
                // The mark before stands, so a torn tail is told from damage less sharply. No more.
                tracing::warn!(%error, path = %self.path.display(), "a watermark was not written");
                Ok(())
            }
            result => terminal(result, "write", &self.path),
        }
    }

    /// Ends the file after its last record, gives it the bytes that every replica's has, and its
    /// final name. All records must be durable. May be repeated after an error.
    pub(crate) fn seal(&self, ops: &Ops, layout: &Layout) -> Result<PathBuf, WriteError> {
        let Self { file, path, header, mark, .. } = self;
        let last = Version(mark.next.0 - 1);
        let sealed = layout.segment(SegmentName { first: header.first, last: Some(last) });
        retryable(ops.write_at(file, path, &header.page(), 0), "write", path)?;
        retryable(ops.set_len(file, path, mark.bytes), "shorten", path)?;
        terminal(ops.sync_file(file, path), "sync", path)?;
        retryable(ops.rename(path, &sealed), "rename", path)?;
        Ok(sealed)
    }
}

/// Whether a change can be made again once there is room on the disk.
#[must_use]
pub fn is_no_space(error: &io::Error) -> bool {
    use ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
}

/// The result of a change that can be made again when there was no space.
pub(crate) fn retryable<T>(
    result: io::Result<T>,
    action: &'static str,
    path: &Path,
) -> Result<T, WriteError> {
    let full = matches!(&result, Err(error) if is_no_space(error));
    result.context(action, path).map_err(|error| match full {
        true => WriteError::NoSpace(error),
        false => failed(error),
    })
}

/// The result of a sync, or of another step after which the file's state is unknown if it fails.
pub(crate) fn terminal(
    result: io::Result<()>,
    action: &'static str,
    path: &Path,
) -> Result<(), WriteError> {
    result.context(action, path).map_err(failed)
}

fn failed(error: FileError) -> WriteError {
    WriteError::Failed(Arc::new(error))
}
