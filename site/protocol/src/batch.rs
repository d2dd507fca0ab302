//! Many encoded entries in one buffer: one allocation a batch instead of one an entry.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use tradewind_ledger::Digest;

use crate::wire::octets;

/// Most bytes of room that is made for entries to come.
const ROOM_MAX: usize = 1 << 20;

/// Detached values by their SHA-256.
pub type Values = Vec<(Digest, Vec<u8>)>;

/// Encoded entries, one after the other.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct EntryBatch {
    ends: Vec<usize>,
    #[serde(with = "octets")]
    bytes: Vec<u8>,
}

/// A batch as it arrives.
#[derive(Deserialize)]
struct Unchecked {
    ends: Vec<usize>,
    #[serde(with = "octets")]
    bytes: Vec<u8>,
}

impl TryFrom<Unchecked> for EntryBatch {
    type Error = &'static str;

    fn try_from(Unchecked { ends, bytes }: Unchecked) -> Result<Self, Self::Error> {
        if ends.is_sorted() && ends.last().copied().unwrap_or(0) == bytes.len() {
            Ok(Self { ends, bytes })
        } else {
            Err("the ends of entries must ascend to the end of the bytes")
        }
    }
}

impl EntryBatch {
    /// Appends one entry.
    pub fn push(&mut self, entry: &[u8]) {
        self.bytes.extend_from_slice(entry);
        self.ends.push(self.bytes.len());
    }

    /// Takes all entries out, and makes room for as many more: batches under load are much alike.
    pub(crate) fn take(&mut self) -> Self {
        let (ends, bytes) = (self.ends.len(), self.bytes.len().min(ROOM_MAX));
        let empty = Self { ends: Vec::with_capacity(ends), bytes: Vec::with_capacity(bytes) };
        core::mem::replace(self, empty)
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all entries.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The entries in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.ends.len()).map(|i| {
            let start = if i == 0 { 0 } else { self.ends[i - 1] };
            &self.bytes[start..self.ends[i]]
        })
    }
}

impl<E: AsRef<[u8]>> FromIterator<E> for EntryBatch {
    fn from_iter<I: IntoIterator<Item = E>>(entries: I) -> Self {
        let mut batch = Self::default();
        for entry in entries {
            batch.push(entry.as_ref());
        }
        batch
    }
}
