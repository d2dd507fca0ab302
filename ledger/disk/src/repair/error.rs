//! Why a ledger was not repaired.

use std::path::PathBuf;

use thiserror::Error;
use tradewind_ledger::ids::{Digest, Version};
use tradewind_ledger::note::CheckpointError;
use tradewind_ledger::replay::ReplayError;
use tradewind_ledger::segment_file::HeaderError;

use crate::error::{FileError, OpenError, ReadError, WriteError};

/// Why a peer did not give what it was asked for.
pub type PeerError = Box<dyn std::error::Error + Send + Sync>;

/// Why a ledger was not repaired.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RepairError {
    /// There is nothing to repair.
    #[error("{}: no ledger", dir.display())]
    NoLedger {
        /// The directory.
        dir: PathBuf,
    },
    /// No segment has a header that can be read: which ledger it is cannot be told.
    #[error("{}: no segment says which ledger this is; replace the replica", dir.display())]
    Unknown {
        /// The ledger's directory.
        dir: PathBuf,
    },
    /// A file could not be used at all, or another process has the ledger open.
    #[error(transparent)]
    Open(Box<OpenError>),
    /// The system refused. Retryable.
    #[error(transparent)]
    File(#[from] FileError),
    /// A value could not be written. Retryable.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The published checkpoint's text is none.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The peer did not answer, or is damaged itself. Another one may do.
    #[error("{peer}: {source}")]
    Peer {
        /// The peer.
        peer: String,
        /// What it said.
        source: PeerError,
    },
    /// The peer lacks entries that were here.
    #[error("{peer}: does not have entry {version}; repair from another replica, or later")]
    PeerShort {
        /// The peer.
        peer: String,
        /// The first entry that it lacks.
        version: Version,
    },
    /// The peer gives what is no entry, or a segment without an end.
    #[error("{peer}: entry {version} makes the segment too long, or is no entry")]
    TooLong {
        /// The peer.
        peer: String,
        /// The entry.
        version: Version,
    },
    /// What the peer has does not fit between the entries that are here.
    #[error("{peer}: its entries do not fit: {source}")]
    Unfit {
        /// The peer.
        peer: String,
        /// What does not fit, in the file that was to be put in place.
        source: Box<ReadError>,
    },
    /// The peer's entries do not follow those that are here.
    #[error("{peer}: its entries do not follow: {source}")]
    Differs {
        /// The peer.
        peer: String,
        /// What does not follow.
        source: Box<ReplayError>,
    },
    /// The entries do not have the root that was signed: some were replaced, here or at the peer. Terminal.
    #[error(
        "the checkpoint of {by} says that the root at {size} is {signed}, but the entries give {computed}; \
         run `tradewind audit verify` on both"
    )]
    Root {
        /// Whose checkpoint.
        by: String,
        /// Its size.
        size: Version,
        /// Its root.
        signed: Digest,
        /// The root of the entries.
        computed: Digest,
    },
    /// No checkpoint that a majority signed covers the replacements.
    #[error(
        "entries below {needed} come from {peer}, but signed by a majority are only {proven}; \
         repair again when its checkpoint covers them"
    )]
    NotProven {
        /// The peer.
        peer: String,
        /// The size that has to be covered.
        needed: Version,
        /// What is covered.
        proven: Version,
    },
    /// Two files hold the same entries.
    #[error("{}: a segment starts at {found}, but {expected} is the next entry", dir.display())]
    Overlap {
        /// The ledger's directory.
        dir: PathBuf,
        /// Where the file starts.
        found: Version,
        /// Where it should.
        expected: Version,
    },
    /// The log's end is lost, so it is not known what this replica has acknowledged.
    #[error(
        "{}: holds {size} entries, but its checkpoint covers {published}: the end of the log is lost, and with it \
         what was acknowledged; replace the replica", dir.display()
    )]
    Short {
        /// The ledger's directory.
        dir: PathBuf,
        /// Entries that are there.
        size: Version,
        /// Entries that were published.
        published: Version,
    },
    /// The header of the segment that was growing is damaged: how much of it was on disk is not known.
    #[error(
        "{}: {source}; it cannot be told how far this log went, and with it what was acknowledged; replace the \
         replica", file.display()
    )]
    OpenHeader {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: HeaderError,
    },
    /// The watermark of the segment that was growing does not fit the peer's entries.
    #[error("{}: its watermark does not lie at an entry of the peer's; replace the replica", file.display())]
    Mark {
        /// The file.
        file: PathBuf,
    },
}

impl From<OpenError> for RepairError {
    fn from(error: OpenError) -> Self {
        Self::Open(error.into())
    }
}
