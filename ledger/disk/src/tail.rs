//! Repairs a segment's file that is not sealed, so that the log can go on after its last good record.

use std::os::unix::fs::FileExt;

use tradewind_ledger::ids::Version;
use tradewind_ledger::segment_file::{Header, Watermark};

use crate::error::WriteError;
use crate::layout::Layout;
use crate::open::Recovery;
use crate::ops::Ops;
use crate::segment::{OpenSegment, retryable, terminal};
use crate::shared::Indexed;

/// What is good in the file, and what a crash may have left.
pub(crate) struct Tail {
    pub(crate) header: Header,
    /// The file's latest mark; `None` if its sealing had begun.
    pub(crate) mark: Option<Watermark>,
    pub(crate) index: Indexed,
    pub(crate) ends_with_seal: bool,
    /// End of the records, and of what is not zero.
    pub(crate) end: u64,
    pub(crate) used: u64,
}

/// What became of the file.
pub(crate) enum Repaired {
    /// It holds nothing, and was removed.
    Removed,
    /// It is to be appended to.
    Open(OpenSegment, Indexed),
    /// It ends with a SEAL.
    Sealed(Indexed),
}

impl Tail {
    /// Makes the good records durable, removes what follows them, and finishes a sealing. Doing this
    /// again after a crash in the middle comes to the same.
    pub(crate) fn repair(
        self,
        ops: &Ops,
        layout: &Layout,
        preallocate: u64,
        recovery: &mut Recovery,
    ) -> Result<Repaired, WriteError> {
        let Self { header, mark, mut index, ends_with_seal, end, used } = self;
        let path = index.path.clone();
        let next = index.end();
        if next == Version::ZERO && used == end {
            // An empty ledger is any ledger's: its first entry says whose it is.
            retryable(ops.remove(&path), "remove", &path)?;
            terminal(ops.sync_dir(&layout.segments), "sync the directory", &layout.segments)?;
            return Ok(Repaired::Removed);
        }
        let synced = mark.unwrap_or(Watermark { sequence: 0, bytes: end, next });
        let mut open = OpenSegment::new(index.file.clone(), path, header, synced, preallocate);
        if synced.bytes < end || end < used {
            resync(&open, ops, end, used, preallocate)?;
            open.mark = Watermark { sequence: synced.sequence + 1, bytes: end, next };
            open.write_mark(ops)?;
            recovery.resynced_entries += next.since(synced.next);
            recovery.truncated_bytes += used - end;
        }
        if ends_with_seal {
            index.path = open.seal(ops, layout)?;
            terminal(ops.sync_dir(&layout.segments), "sync the directory", &layout.segments)?;
            recovery.sealed_segments += 1;
            return Ok(Repaired::Sealed(index));
        }
        Ok(Repaired::Open(open, index))
    }
}

/// Cuts off what follows the records, and writes those beyond the mark again: a sync that failed may
/// have left them in memory alone, looking as if they were on disk.
fn resync(
    open: &OpenSegment,
    ops: &Ops,
    end: u64,
    used: u64,
    preallocate: u64,
) -> Result<(), WriteError> {
    let OpenSegment { file, path, mark, .. } = open;
    let mut records = vec![0; (end - mark.bytes) as usize];
    retryable(file.read_exact_at(&mut records, mark.bytes), "read", path)?;
    retryable(ops.write_at(file, path, &records, mark.bytes), "write", path)?;
    if used > end {
        retryable(ops.set_len(file, path, end), "shorten", path)?;
        retryable(ops.allocate(file, path, preallocate.max(end)), "reserve space", path)?;
    }
    terminal(ops.sync_file(file, path), "sync", path)
}
