//! Opening a ledger's directory: lock, recovery, and the replay of every entry in one pass.
//!
//! Nothing is changed before all files were read and found good; then what a crash left is repaired.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tradewind_ledger::entry::Entry;
use tradewind_ledger::ids::{Lineage, Version};
use tradewind_ledger::note::{Checkpoint, MAX_NOTE, SignedNote};
use tradewind_ledger::replay::Replay;
use tradewind_ledger::segment_file::{Framing, SegmentName};

use crate::error::{Context, Damage, Found, OpenError};
use crate::layout::{Layout, Lock, TEMPORARY};
use crate::ops::Ops;
use crate::publisher::Publisher;
use crate::reader::LedgerReader;
use crate::recover::Recovering;
use crate::shared::{Files, Shared};
use crate::start::{Begin, Start};
use crate::tail::Repaired;
use crate::values;
use crate::writer::{LedgerWriter, Stage, Tail};

/// How a ledger's public face lies on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Face {
    /// Each tile and entry bundle is a file of its own, so that the directory can be served as static files.
    #[default]
    Static,
    /// The hashes of a level lie one after the other in one file, and there are no bundles: a publication costs a few writes
    /// and no new file, and the directory is half as large. Who serves the face cuts tiles out, and makes bundles from
    /// the segments.
    Packed,
}

/// How to open a ledger.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes reserved for the file of a new segment. More than a segment has, so that appends seldom
    /// change the file's metadata; what is left over is given back when the segment is sealed.
    pub preallocate: u64,
    /// How many sealed segments are kept open for reading, with the places of their records.
    pub cached_segments: usize,
    /// How the public face lies on the disk.
    pub face: Face,
    /// Refuse the directory if it holds another ledger.
    pub expected_lineage: Option<Lineage>,
    /// Where the replay begins. Opening costs as much as there is after that, whatever is before.
    pub start: Start,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            preallocate: (4 << 20) + (256 << 10),
            cached_segments: 32,
            face: Face::Static,
            expected_lineage: None,
            start: Start::Genesis,
        }
    }
}

/// An open ledger. The directory stays locked until writer and publisher are dropped.
pub struct Opened {
    /// Appends.
    pub writer: LedgerWriter,
    /// Reads; clone it for every reader.
    pub reader: LedgerReader,
    /// Keeps `checkpoint` and `tile/`.
    pub publisher: Publisher,
    /// The state after all entries that are there; all of them are durable.
    pub replay: Replay,
    /// The checkpoint that was published last. Its root is that of the entries, its signatures were
    /// not verified.
    pub checkpoint: Option<SignedNote>,
    /// What had to be repaired.
    pub recovery: Recovery,
}

/// What was repaired when a ledger was opened. All zero after a clean stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Bytes cut off the end of the log: writes that never finished, so nobody was told that they had.
    pub truncated_bytes: u64,
    /// Whole entries beyond the last known sync, which were kept and synced again.
    pub resynced_entries: u64,
    /// Segments whose sealing was finished.
    pub sealed_segments: u64,
    /// Hash tiles and bundles below the published size that were made again.
    pub repaired_tiles: u64,
}

/// The error of a caller that is shown entries.
pub type VisitError = Box<dyn std::error::Error + Send + Sync>;

/// Opens the ledger in `dir`, making the directory if it is missing, and shows `visit` every entry
/// from [`Options::start`] on. All of them were replayed and are durable when this returns.
///
/// # Errors
/// If another process has the ledger open; if anything is damaged, missing or foreign (then nothing
/// was changed, and the error says where); if `visit` refuses an entry; if the system fails.
pub fn open(
    dir: &Path,
    options: &Options,
    visit: impl FnMut(Version, Entry) -> Result<(), VisitError>,
) -> Result<Opened, OpenError> {
    open_with(Ops::default(), dir, options, visit)
}

pub(crate) fn open_with(
    ops: Ops,
    dir: &Path,
    options: &Options,
    visit: impl FnMut(Version, Entry) -> Result<(), VisitError>,
) -> Result<Opened, OpenError> {
    let layout = Layout { face: options.face, ..Layout::new(dir) };
    layout.create(&ops)?;
    let lock = Arc::new(Lock::take(dir)?);
    let (mut segments, temporary) = list(&layout)?;
    let note = read_checkpoint(&layout)?;
    let checkpoint = note.as_ref().map(|(_, checkpoint)| checkpoint);
    let begin = Begin::find(&layout, options, checkpoint)?;
    let first = begin.first();
    // What an interrupted pruning left is not there any more.
    let leftover = segments.extract_if(.., |name| name.first < first).collect();

    let mut recovering = Recovering::new(&layout, options, checkpoint, &begin, visit)?;
    for (position, name) in segments.iter().enumerate() {
        recovering.segment(*name, position + 1 == segments.len())?;
    }
    let replayed = recovering.finish()?;

    for path in temporary {
        ops.remove(&path).context("remove", &path)?;
    }
    values::clean(&ops, &layout)?;
    let mut recovery = Recovery::default();
    let mut files = Files { first, sealed: replayed.sealed, ..Files::default() };
    let size = replayed.replay.size();
    let (mut end, mut stage) = (Tail::at_start(size), Stage::None);
    for tail in replayed.tails {
        match tail.repair(&ops, &layout, options.preallocate, &mut recovery)? {
            Repaired::Removed => {}
            Repaired::Sealed(index) => files.push_sealed(&index),
            Repaired::Open(open, index) => {
                end = Tail { size, segment: index.first, file_bytes: open.mark.bytes };
                stage = Stage::Open(open);
                files.open = Some(index);
            }
        }
    }

    let lineage = replayed.replay.lineage();
    let framing = lineage.map(|lineage| (lineage, Framing::new(lineage, crc32c::crc32c_append)));
    let shared =
        Arc::new(Shared::new(layout, framing, files, replayed.tree, options.cached_segments));
    let published = checkpoint.map_or(Version::ZERO, |checkpoint| checkpoint.size);
    let mut publisher =
        Publisher::new(Arc::clone(&shared), ops.clone(), published, Arc::clone(&lock));
    let lost = (replayed.lost_tiles, replayed.lost_bundles);
    publisher.leftover = leftover;
    recovery.repaired_tiles = publisher.repair(lost, begin.base.map(|base| base.size()))?;
    let reader = LedgerReader::new(Arc::clone(&shared));
    let lineage = lineage.or(options.expected_lineage);
    let writer = LedgerWriter::new(shared, ops, options.preallocate, lineage, (end, stage), lock);
    if recovery != Recovery::default() {
        tracing::warn!(dir = %dir.display(), ?recovery, "the ledger was repaired");
    }
    let checkpoint = note.map(|(note, _)| note);
    Ok(Opened { writer, reader, publisher, replay: replayed.replay, checkpoint, recovery })
}

/// The segments' names in ascending order, and the paths of temporary files beside them.
pub(crate) fn list(layout: &Layout) -> Result<(Vec<SegmentName>, Vec<PathBuf>), OpenError> {
    let dir = &layout.segments;
    let mut segments = Vec::new();
    let mut temporary = Vec::new();
    for entry in fs::read_dir(dir).context("list", dir)? {
        let file = entry.context("list", dir)?.path();
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match name.parse() {
            Ok(name) => segments.push(name),
            Err(_) if name.ends_with(TEMPORARY) => temporary.push(file),
            Err(_) => return Err(OpenError::Foreign { file }),
        }
    }
    segments.sort_unstable();
    Ok((segments, temporary))
}

pub(crate) fn read_checkpoint(
    layout: &Layout,
) -> Result<Option<(SignedNote, Checkpoint)>, OpenError> {
    let path = &layout.checkpoint;
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        result => result.context("open", path)?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_NOTE as u64 + 1).read_to_end(&mut bytes).context("read", path)?;
    let damage = |found: Found| Damage { file: path.clone(), offset: 0, found };
    let note = SignedNote::parse(&bytes).map_err(|error| damage(error.into()))?;
    let checkpoint = note.checkpoint().map_err(|error| damage(error.into()))?;
    Ok(Some((note, checkpoint)))
}
