//! The text of a checkpoint (c2sp.org/tlog-checkpoint): origin, size, root; no extension lines.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use crate::ids::{Digest, Version};
use crate::text;

/// "This ledger has `size` entries and this root."
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Checkpoint {
    /// Which ledger: `{deployment}/{site}/{pool}/{shard}`.
    pub origin: String,
    /// Its entries.
    pub size: Version,
    /// The root over them.
    pub root: Digest,
}

/// Why a text is not a checkpoint of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The last line does not end, or there are too few lines.
    #[error("a checkpoint has three lines (origin, size, root), each ended by a newline")]
    Lines,
    /// Empty origin.
    #[error("line 1 of the checkpoint (the origin) is empty")]
    Origin,
    /// Not a decimal.
    #[error("line 2 of the checkpoint is not a size: a decimal without leading zeroes is")]
    Size,
    /// Not a hash.
    #[error("line 3 of the checkpoint is not a root: 32 bytes in base64 are")]
    Root,
    /// Something after the root.
    #[error("the checkpoint has extension lines; a ledger's checkpoint has none")]
    Extension,
}

impl fmt::Display for Checkpoint {
    /// The text that is signed, with its final newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, text::to_base64(&self.root.0))
    }
}

impl FromStr for Checkpoint {
    type Err = CheckpointError;

    fn from_str(note: &str) -> Result<Self, CheckpointError> {
        let mut lines = note.strip_suffix('\n').ok_or(CheckpointError::Lines)?.split('\n');
        let mut line = || lines.next().ok_or(CheckpointError::Lines);
        let (origin, size, root) = (line()?, line()?, line()?);
        if origin.is_empty() {
            return Err(CheckpointError::Origin);
        }
        let size = text::decimal(size).ok_or(CheckpointError::Size)?;
        let root = text::digest_from_base64(root).ok_or(CheckpointError::Root)?;
        match lines.next() {
            None => Ok(Self { origin: origin.to_owned(), size: Version(size), root }),
            Some(_) => Err(CheckpointError::Extension),
        }
    }
}
