//! Bulk streams: a frame that announces, then raw bytes to the end of the stream.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use tradewind_ledger::entry::MAX_VALUE;
use tradewind_ledger::ids::{Digest, LedgerId, Version};

use super::frame;
use super::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, Header, WireError};
use crate::claim::Claim;

const BATCH: u8 = 33;
const VALUE: u8 = 34;

/// Announces a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchHeader {
    /// Which ledger.
    pub ledger: LedgerId,
    /// Version of the first entry.
    pub first: Version,
    /// Entries in it.
    pub count: u32,
    /// Bytes that follow: each entry after its length as a big-endian u16, as in an entry bundle
    /// of C2SP tlog-tiles.
    pub bytes: u32,
    /// Why its end is to be believed.
    pub claim: Claim,
}

/// Announces the body of a detached value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueHeader {
    /// Whose.
    pub ledger: LedgerId,
    /// SHA-256 of the value.
    pub digest: Digest,
    /// Bytes that follow.
    pub bytes: u64,
}

/// What a bulk stream brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BulkHeader {
    /// Entries.
    Batch(BatchHeader),
    /// A detached value.
    Value(ValueHeader),
}

/// Entries with the reason to believe them: the unit of the live tail and of catching up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// What was announced.
    pub header: BatchHeader,
    /// The entries, each after its length.
    pub body: Vec<u8>,
}

/// The body of a detached value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// What was announced.
    pub header: ValueHeader,
    /// The value.
    pub body: Vec<u8>,
}

/// A whole bulk stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bulk {
    /// Entries.
    Batch(Batch),
    /// A detached value.
    Value(Value),
}

impl BulkHeader {
    /// The frame that the stream begins with.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Batch(header) => frame::encode(BATCH, header),
            Self::Value(header) => frame::encode(VALUE, header),
        }
    }

    /// Reads the payload of the frame that the stream begins with.
    ///
    /// # Errors
    /// On a damaged frame, and on a body that would be beyond its limit.
    pub fn decode(frame: &Header, payload: &[u8]) -> Result<Self, WireError> {
        let limit = |what, found: u64, max: u64| {
            if found > max { Err(WireError::Length { what, found, max }) } else { Ok(()) }
        };
        match frame.kind {
            BATCH => {
                let header: BatchHeader = frame.payload(payload)?;
                limit("batch", header.bytes.into(), BATCH_BYTES_MAX.into())?;
                limit("batch", header.count.into(), BATCH_ENTRIES_MAX.into())?;
                Ok(Self::Batch(header))
            }
            VALUE => {
                let header: ValueHeader = frame.payload(payload)?;
                limit("value", header.bytes, MAX_VALUE)?;
                Ok(Self::Value(header))
            }
            found => Err(WireError::Kind { found }),
        }
    }

    /// Bytes that follow the frame.
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        match self {
            Self::Batch(header) => header.bytes.into(),
            Self::Value(header) => header.bytes,
        }
    }

    /// Joins the announcement with what followed.
    ///
    /// # Errors
    /// If more or less followed than was announced.
    pub fn with_body(self, body: Vec<u8>) -> Result<Bulk, WireError> {
        if body.len() as u64 != self.body_bytes() {
            return Err(WireError::Size { found: body.len() as u64, expected: self.body_bytes() });
        }
        Ok(match self {
            Self::Batch(header) => Bulk::Batch(Batch { header, body }),
            Self::Value(header) => Bulk::Value(Value { header, body }),
        })
    }
}

impl Batch {
    /// Packs entries; `claim` must hold for the version after the last one.
    ///
    /// # Panics
    /// If an entry or the whole is beyond its limit: the caller takes them from a ledger.
    #[must_use]
    pub fn pack(ledger: LedgerId, first: Version, entries: &[Vec<u8>], claim: Claim) -> Self {
        let mut body = Vec::with_capacity(entries.iter().map(|entry| entry.len() + 2).sum());
        for entry in entries {
            let length = u16::try_from(entry.len()).expect("an entry fits 16 bits");
            body.extend_from_slice(&length.to_be_bytes());
            body.extend_from_slice(entry);
        }
        let count = u32::try_from(entries.len()).expect("a batch is limited");
        let bytes = u32::try_from(body.len()).expect("a batch is limited");
        assert!(count <= BATCH_ENTRIES_MAX && bytes <= BATCH_BYTES_MAX, "batch beyond the limit");
        Self { header: BatchHeader { ledger, first, count, bytes, claim }, body }
    }

    /// The version after the last announced entry; saturates on a lie.
    #[must_use]
    pub fn end(&self) -> Version {
        Version(self.header.first.0.saturating_add(self.header.count.into()))
    }

    /// The entries as far as they are whole: a torn end gives fewer than were announced.
    pub fn entries(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.body[..];
        core::iter::from_fn(move || {
            let (length, tail) = rest.split_first_chunk::<2>()?;
            let (entry, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            rest = tail;
            Some(entry)
        })
    }

    /// Bytes that the entries take up in the body, if they are whole.
    pub(crate) fn is_whole(&self) -> bool {
        let (count, bytes) = self
            .entries()
            .fold((0_u64, 0), |(count, bytes), entry| (count + 1, bytes + 2 + entry.len()));
        count == u64::from(self.header.count) && bytes == self.body.len()
    }
}
