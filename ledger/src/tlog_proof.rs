//! Proofs to carry away (c2sp.org/tlog-proof, files named `.tlog-proof`): a checkpoint, the index of an
//! entry, and its inclusion proof, to be checked offline by whoever trusts the ledger's keys.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use crate::ids::{Digest, Version};
use crate::note::{MAX_NOTE, NoteError, SignedNote};
use crate::text;

const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// Bytes of extra data at most: an entry fits.
pub const MAX_EXTRA: usize = 1 << 17;
/// Hashes of an inclusion proof at most.
const MAX_HASHES: usize = 64;
/// Bytes of a proof at most.
pub const MAX_PROOF: usize = MAX_NOTE + 2 * MAX_EXTRA + MAX_HASHES * 45 + 100;

/// That an entry is in the ledger of a checkpoint. Nothing in it is verified by parsing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    /// Free bytes that nothing authenticates; ours hold the entry itself.
    pub extra: Option<Vec<u8>>,
    /// Which entry.
    pub index: Version,
    /// From the leaf's sibling up to the root's child.
    pub hashes: Vec<Digest>,
    /// The checkpoint as it was published.
    pub checkpoint: SignedNote,
}

/// Why a text is not a proof.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlogProofError {
    /// Too long.
    #[error("a proof of {len} bytes; at most {MAX_PROOF} are allowed")]
    TooLong {
        /// Bytes found.
        len: usize,
    },
    /// Another format.
    #[error("line 1 is not `{HEADER}`")]
    Header,
    /// Bad extra data.
    #[error("the `extra` line is not base64 of at most {MAX_EXTRA} bytes")]
    Extra,
    /// No index.
    #[error("the `index` line is missing or not `index <decimal>`")]
    Index,
    /// A bad hash.
    #[error("line {line} is not a hash: 32 bytes in base64, at most {MAX_HASHES} of them, are")]
    Hash {
        /// Which line of the file, from 1.
        line: usize,
    },
    /// There is no checkpoint.
    #[error("the proof has no empty line followed by a checkpoint")]
    NoCheckpoint,
    /// The checkpoint is not a note.
    #[error("the checkpoint: {0}")]
    Note(#[from] NoteError),
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", text::to_base64(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{}", text::to_base64(&hash.0)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

impl FromStr for TlogProof {
    type Err = TlogProofError;

    fn from_str(proof: &str) -> Result<Self, TlogProofError> {
        if proof.len() > MAX_PROOF {
            return Err(TlogProofError::TooLong { len: proof.len() });
        }
        let (head, checkpoint) = proof.split_once("\n\n").ok_or(TlogProofError::NoCheckpoint)?;
        let mut lines = head.split('\n').enumerate().peekable();
        if lines.next().is_none_or(|(_, line)| line != HEADER) {
            return Err(TlogProofError::Header);
        }
        let extra = lines.next_if(|(_, line)| line.starts_with("extra "));
        let extra = extra.map(|(_, line)| parse_extra(&line["extra ".len()..])).transpose()?;
        let index = lines.next().and_then(|(_, line)| line.strip_prefix("index "));
        let index = index.and_then(text::decimal).ok_or(TlogProofError::Index)?;
        let mut hashes = Vec::new();
        for (number, line) in lines {
            let hash = text::digest_from_base64(line).filter(|_| hashes.len() < MAX_HASHES);
            hashes.push(hash.ok_or(TlogProofError::Hash { line: number + 1 })?);
        }
        let checkpoint = SignedNote::parse(checkpoint.as_bytes())?;
        Ok(Self { extra, index: Version(index), hashes, checkpoint })
    }
}

fn parse_extra(base64: &str) -> Result<Vec<u8>, TlogProofError> {
    let extra = text::from_base64(base64).filter(|extra| extra.len() <= MAX_EXTRA);
    extra.ok_or(TlogProofError::Extra)
}

impl TlogProof {
    /// The file's text.
    #[must_use]
    pub fn to_text(&self) -> String {
        alloc::format!("{self}")
    }
}
