//! Asking for the parts of a snapshot: the child opens a bidirectional stream for each, sends one frame and ends its half; the
//! parent answers with one frame and, if it has the part, its raw bytes to the end of the stream.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use tradewind_ledger::entry::MAX_VALUE;
use tradewind_ledger::ids::{Digest, LedgerId, Version};

use super::{Header, WireError, frame};

const ASK: u8 = 49;
const LENT: u8 = 50;
/// Bytes of a manifest or chunk at most.
const PART_MAX: u64 = 64 << 20;

/// A part of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// What the other parts have to be; of the newest snapshot that can be given.
    Manifest,
    /// Leaf hashes of a run of entries before it.
    Block(u32),
    /// Keys and values.
    Chunk(u32),
    /// The body of a detached value.
    Value(Digest),
}

impl Part {
    /// Bytes of it at most.
    #[must_use]
    pub fn max_bytes(self) -> u64 {
        match self {
            Self::Value(_) => MAX_VALUE,
            _ => PART_MAX,
        }
    }
}

/// A child asks for a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Of which ledger's snapshot.
    pub ledger: LedgerId,
    /// Entries that the snapshot is of; does not matter for the manifest.
    pub size: Version,
    /// Which part.
    pub part: Part,
}

impl Ask {
    /// The whole frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        frame::encode(ASK, self)
    }

    /// Reads the payload of a frame.
    ///
    /// # Errors
    /// On a damaged frame, and one of another kind.
    pub fn decode(header: &Header, payload: &[u8]) -> Result<Self, WireError> {
        match header.kind {
            ASK => header.payload(payload),
            found => Err(WireError::Kind { found }),
        }
    }
}

/// The parent's answer: how many bytes follow; `None` if the part is not there, or not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lent(pub Option<u64>);

impl Lent {
    /// The whole frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        frame::encode(LENT, self)
    }

    /// Reads the payload of a frame that answers `asked`.
    ///
    /// # Errors
    /// On a damaged frame, one of another kind, and a part that would be beyond its limit.
    pub fn decode(header: &Header, payload: &[u8], asked: Part) -> Result<Self, WireError> {
        if header.kind != LENT {
            return Err(WireError::Kind { found: header.kind });
        }
        let lent: Self = header.payload(payload)?;
        let max = asked.max_bytes();
        match lent.0 {
            Some(found) if found > max => {
                Err(WireError::Length { what: "part of a snapshot", found, max })
            }
            _ => Ok(lent),
        }
    }
}
