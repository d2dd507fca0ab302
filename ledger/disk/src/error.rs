//! What can go wrong with a ledger's files. Every error names the file.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use tradewind_ledger::base::BaseError;
use tradewind_ledger::entry::{EntryError, MAX_VALUE};
use tradewind_ledger::ids::{Digest, Lineage, Version};
use tradewind_ledger::note::{CheckpointError, NoteError};
use tradewind_ledger::replay::ReplayError;
use tradewind_ledger::segment_file::{HeaderError, RecordError};
use tradewind_ledger::tile::TileId;
use tradewind_ledger::tree::ProofError;

/// The operating system refused an operation on a file or directory.
#[derive(Debug, Error)]
#[error("{}: cannot {action}: {source}", path.display())]
pub struct FileError {
    /// What was attempted.
    pub action: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// The system's reason.
    pub source: io::Error,
}

/// Something in a ledger's file is not what this program writes.
#[derive(Debug, Error)]
#[error("{}: damaged at offset {offset}: {found}", file.display())]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What was found there.
    pub found: Found,
}

/// What was found in a damaged file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Found {
    /// A bad header page.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A bad record.
    #[error("{source} (entry {version})")]
    Record {
        /// The entry whose place it is.
        version: Version,
        /// What is wrong with it.
        source: RecordError,
    },
    /// The header does not have the file name's first version.
    #[error("the header says that the segment starts at {0}, the file's name says otherwise")]
    First(Version),
    /// The file belongs to another ledger.
    #[error("the file is of the ledger with lineage {found}, this one has {expected}")]
    Lineage {
        /// The lineage in the file's header.
        found: Lineage,
        /// The lineage of the ledger.
        expected: Lineage,
    },
    /// A file that is sealed has a header as if it were open.
    #[error("a sealed segment's header has watermarks")]
    Watermarks,
    /// The records end too early.
    #[error("the records end before entry {version}, but the file must hold it")]
    Missing {
        /// The first entry that is not there.
        version: Version,
    },
    /// The file is shorter than it was at the last sync.
    #[error("the file ends here, but {synced} bytes of it were on disk")]
    Shortened {
        /// Bytes that the watermark says were on disk.
        synced: u64,
    },
    /// There is something behind the last record.
    #[error("something follows the segment's last record")]
    Trailing,
    /// A SEAL is missing at the end of a sealed file, or stands elsewhere.
    #[error("entry {version} must {}be a SEAL", if *wanted { "" } else { "not " })]
    Seal {
        /// The entry.
        version: Version,
        /// Whether it ought to be one.
        wanted: bool,
    },
    /// The watermark does not lie between two records.
    #[error("the watermark says that entry {next} starts here, but it does not")]
    Watermark {
        /// The entry that the watermark names.
        next: Version,
    },
    /// An entry that cannot stand there. Its record is whole: this is tampering or a program error.
    #[error(transparent)]
    Entry(#[from] ReplayError),
    /// An entry other than the one that was appended there. Its record is whole.
    #[error("entry {version} does not have the hash that the tree has of it")]
    Leaf {
        /// The entry.
        version: Version,
    },
    /// A detached value with other bytes than its name says.
    #[error("the value has the digest {0}, the file's name says otherwise")]
    Value(Digest),
    /// A file longer than it can be.
    #[error("the file has {len} bytes; at most {max} are possible")]
    Length {
        /// Its length.
        len: u64,
        /// What is allowed.
        max: u64,
    },
    /// The published checkpoint cannot be read.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The published note is not a checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The base that pruning left cannot be read.
    #[error(transparent)]
    Base(#[from] BaseError),
}

/// Why a ledger cannot be opened from a base.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BaseFault {
    /// It is of another ledger.
    #[error("it is of the ledger with lineage {found}, not {expected}")]
    Lineage {
        /// The base's lineage.
        found: Lineage,
        /// The ledger's.
        expected: Lineage,
    },
    /// Entries after it are gone.
    #[error("entries before {first} were pruned")]
    Pruned {
        /// The first entry that is kept.
        first: Version,
    },
    /// What was published does not reach it, so neither do the tiles.
    #[error("the checkpoint covers only {published} entries")]
    Unpublished {
        /// The checkpoint's size.
        published: Version,
    },
    /// The checkpoint of its size has another root.
    #[error("the checkpoint of that size has another root")]
    Root,
    /// A tile at the right edge is missing, or has other hashes.
    #[error("{tile} is missing, or does not have the base's hashes")]
    Tile {
        /// The tile.
        tile: TileId,
    },
    /// One of its entries is not shown to be in the tree.
    #[error("its entry {version} is not shown by the tiles: {error}")]
    Entry {
        /// The entry.
        version: Version,
        /// Why.
        error: ProofError,
    },
    /// No segment ends there.
    #[error("{}: no segment ends there", file.display())]
    WithinSegment {
        /// The file across it.
        file: PathBuf,
    },
    /// The entry before it is not its SEAL.
    #[error("{}: the entry before it is another one", file.display())]
    Seal {
        /// The file with that entry.
        file: PathBuf,
    },
}

/// Why a ledger's directory was not opened. Nothing was changed unless said otherwise.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process has it open.
    #[error(
        "{}: another process{} has this ledger open; stop it first",
        dir.display(), process.map(|id| format!(" ({id})")).unwrap_or_default()
    )]
    Locked {
        /// The ledger's directory.
        dir: PathBuf,
        /// The other process' id, if it left one.
        process: Option<u32>,
    },
    /// A file that no ledger has.
    #[error("{}: not a file of a ledger; move it away if it does not belong here", file.display())]
    Foreign {
        /// The file.
        file: PathBuf,
    },
    /// Entries are missing between two files, or are in both.
    #[error(
        "{}: the segment starts at entry {found}, but entry {expected} is the next one; make the \
         segments in between again: `tradewind repair DATA-DIRECTORY --from URL-OR-DIRECTORY-OF-ANOTHER-REPLICA`",
        file.display()
    )]
    Gap {
        /// The file after the gap.
        file: PathBuf,
        /// The entry that the files before it end at.
        expected: Version,
        /// The entry that it starts with.
        found: Version,
    },
    /// A file is damaged.
    #[error(
        "{0}. Nothing was truncated: these bytes were on disk before; stop the process and make the file again: \
         `tradewind repair DATA-DIRECTORY --from URL-OR-DIRECTORY-OF-ANOTHER-REPLICA`"
    )]
    Damaged(#[from] Damage),
    /// The directory holds another ledger than the caller expects.
    #[error(
        "{}: holds the ledger with lineage {found}, not {expected}: it was founded with other members or names; give \
         the topology those that it had then, and point to the right data directory", dir.display()
    )]
    WrongLedger {
        /// The ledger's directory.
        dir: PathBuf,
        /// The lineage found.
        found: Lineage,
        /// The lineage asked for.
        expected: Lineage,
    },
    /// The checkpoint covers entries that are not there.
    #[error(
        "{}: covers {published} entries, but the segments hold {present}: durable entries were \
         lost, and it is not known which were acknowledged; replace the replica",
        file.display()
    )]
    BehindCheckpoint {
        /// The checkpoint's file.
        file: PathBuf,
        /// The checkpoint's size.
        published: Version,
        /// Entries in the segments.
        present: Version,
    },
    /// The checkpoint covers other entries.
    #[error(
        "{}: its root at {size} is {published}, but the segments have {computed}: entries were \
         replaced",
        file.display()
    )]
    ForkedCheckpoint {
        /// The checkpoint's file.
        file: PathBuf,
        /// The checkpoint's size.
        size: Version,
        /// The checkpoint's root.
        published: Digest,
        /// The root of the entries in the segments.
        computed: Digest,
    },
    /// The first entries were pruned, and the caller wants all.
    #[error(
        "{}: entries before {first} were pruned; open it from a base, such as a snapshot's", dir.display()
    )]
    Pruned {
        /// The ledger's directory.
        dir: PathBuf,
        /// The first entry that is kept.
        first: Version,
    },
    /// The replay cannot begin at this base. Another one, or none, may do.
    #[error("{}: cannot begin at entry {size}: {fault}; open it from another base, or without one", dir.display())]
    Base {
        /// The ledger's directory.
        dir: PathBuf,
        /// The base's size.
        size: Version,
        /// Why.
        fault: Box<BaseFault>,
    },
    /// The caller refused an entry that it was shown.
    #[error("entry {version} was refused: {source}")]
    Refused {
        /// The entry.
        version: Version,
        /// The caller's reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The ledger's files could not be repaired.
    #[error(transparent)]
    Repair(#[from] WriteError),
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::File(error) => error.into(),
            ReadError::Damaged(damage) => damage.into(),
            ReadError::Beyond { .. } | ReadError::Pruned { .. } | ReadError::Quarantined { .. } => {
                unreachable!("recovery reads only what it has found")
            }
        }
    }
}

/// Why entries or values were not made durable.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// No space, over quota, or read-only. Retryable: nothing is lost, and `sync` goes on where it
    /// was. What was durable stays so.
    #[error("{0}; retry when there is space")]
    NoSpace(FileError),
    /// A write or sync failed. Terminal: what the disk holds beyond the durable size is unknown, and
    /// syncing again would not tell. Stop, and open the ledger again.
    #[error("{0}; the ledger takes no more entries until it is opened again")]
    Failed(Arc<FileError>),
    /// Not an entry. Terminal for these entries; none of them was taken.
    #[error("entry {version} is not one: {source}")]
    NotAnEntry {
        /// The version it would have got.
        version: Version,
        /// What is wrong with it.
        source: EntryError,
    },
    /// The first entry of the ledger is not that of the expected one.
    #[error("this would begin the ledger with lineage {found}, not {expected}")]
    WrongLedger {
        /// The lineage of the entry.
        found: Lineage,
        /// The lineage that the ledger was opened for.
        expected: Lineage,
    },
    /// A SEAL that does not describe the segment it ends. None of the entries was taken.
    #[error("the SEAL at {version} says its segment starts at {found}; it starts at {expected}")]
    SealRange {
        /// The SEAL.
        version: Version,
        /// The first version it states.
        found: Version,
        /// The first version of the open segment.
        expected: Version,
    },
    /// The segment would not fit a file. None of the entries was taken.
    #[error(
        "the open segment would exceed {max} bytes: it has to be sealed before entry {version}"
    )]
    SegmentTooLong {
        /// The entry that does not fit.
        version: Version,
        /// Bytes of a segment file at most.
        max: u32,
    },
    /// A detached value that no entry can refer to.
    #[error("the value has {0} bytes; at most {MAX_VALUE} are allowed")]
    ValueTooLong(u64),
}

impl WriteError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NoSpace(_))
    }
}

/// Why entries or values were not read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is damaged.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The entry's file was found damaged, and is to be made again from another replica. Retryable.
    #[error("{}: found damaged; it is being made again from another replica", file.display())]
    Quarantined {
        /// The file.
        file: PathBuf,
    },
    /// The entry was removed, as the ledger's retention has it. Terminal.
    #[error("entry {version} was pruned: this replica keeps the entries from {first} on")]
    Pruned {
        /// The entry asked for.
        version: Version,
        /// The first entry that is kept.
        first: Version,
    },
    /// The entry is not there, or not yet durable.
    #[error("entry {version} is not there: the ledger has {durable} durable entries")]
    Beyond {
        /// The entry asked for.
        version: Version,
        /// The durable size.
        durable: Version,
    },
}

impl From<ReadError> for io::Error {
    /// What was pruned is [`io::ErrorKind::NotFound`], damage is [`io::ErrorKind::InvalidData`].
    fn from(error: ReadError) -> Self {
        let kind = match &error {
            ReadError::Pruned { .. } => io::ErrorKind::NotFound,
            ReadError::Damaged(_) | ReadError::Quarantined { .. } => io::ErrorKind::InvalidData,
            ReadError::File(_) | ReadError::Beyond { .. } => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// Why a checkpoint was not published. The one published before stands.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The note is not a checkpoint.
    #[error(transparent)]
    Note(#[from] CheckpointError),
    /// It covers entries that are not durable here. Retryable.
    #[error("the checkpoint covers {size} entries, but {durable} are durable here")]
    NotDurable {
        /// The checkpoint's size.
        size: Version,
        /// The durable size.
        durable: Version,
    },
    /// It covers fewer entries than the published one.
    #[error("the checkpoint covers {size} entries; one of {published} is already published")]
    Older {
        /// The checkpoint's size.
        size: Version,
        /// The published size.
        published: Version,
    },
    /// It was signed over other entries: a fork. Terminal.
    #[error("the checkpoint's root at {size} is {signed}, but this ledger's is {computed}")]
    RootMismatch {
        /// The checkpoint's size.
        size: Version,
        /// The root in the note.
        signed: Digest,
        /// The root of the entries here.
        computed: Digest,
    },
    /// Entries or hashes could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Files could not be written. Retryable.
    #[error(transparent)]
    Write(#[from] FileError),
}

/// Turns the system's errors into ones that name the file and what was attempted.
pub(crate) trait Context<T> {
    fn context(self, action: &'static str, path: &std::path::Path) -> Result<T, FileError>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, action: &'static str, path: &std::path::Path) -> Result<T, FileError> {
        self.map_err(|source| FileError { action, path: path.to_owned(), source })
    }
}
