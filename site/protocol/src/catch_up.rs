//! What a node that is behind does to get the rest of a ledger: one chunk at a time, one value at a time
//! (docs/protocol.md, section 7). Bounded: no more than a chunk and the values of one entry are held.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use tradewind_ledger::tree::value_digest;
use tradewind_ledger::{Digest, Entry, Update, Value, Version};

use crate::batch::{EntryBatch, Values};
use crate::ids::{NodeId, ShardIndex};

/// The ledger that is being completed.
#[derive(Clone, Debug)]
pub(crate) struct CatchUp {
    pub(crate) shard: ShardIndex,
    pub(crate) source: NodeId,
    pub(crate) target: Version,
    /// Whether a chunk was asked for and did not arrive.
    pub(crate) asked: bool,
    /// Entries that arrived and were not taken up.
    entries: VecDeque<Vec<u8>>,
}

/// Detached values of a shard's entry that is next: those that are there, and the one that is coming. They outlive the
/// attempt that fetched them, and lessons of other shards, so that a large value arrives even if no single attempt lasts
/// long enough for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pieces {
    values: Values,
    coming: Option<Coming>,
}

#[derive(Clone, Debug)]
struct Coming {
    digest: Digest,
    len: usize,
    bytes: Vec<u8>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Take up this entry with these values.
    Take(Vec<u8>, Values),
    /// Ask for a value from this offset.
    Value(Digest, u64),
    /// Nothing is left: hand what was taken up to the log, and ask for more if the target is not reached.
    Done,
}

impl CatchUp {
    /// Begins; the caller asks for the first chunk.
    pub(crate) fn new(shard: ShardIndex, source: NodeId, target: Version) -> Self {
        Self { shard, source, target, asked: true, entries: VecDeque::new() }
    }

    /// A chunk arrived.
    pub(crate) fn add(&mut self, entries: &EntryBatch) {
        self.asked = false;
        self.entries.extend(entries.iter().map(<[u8]>::to_vec));
    }

    /// Whether nothing is on its way and nothing that arrived is left.
    pub(crate) fn is_idle(&self) -> bool {
        !self.asked && self.entries.is_empty()
    }

    /// What to do with the front entry.
    ///
    /// # Errors
    /// In words why it is no entry.
    pub(crate) fn next(&mut self, pieces: &mut Pieces) -> Result<Step, &'static str> {
        let Some(front) = self.entries.front() else { return Ok(Step::Done) };
        let entry = Entry::decode(front).map_err(|_| "not an entry")?;
        let named = |update: &Update| match update.value {
            Some(Value::Detached { len, digest }) => Some((len as usize, digest)),
            _ => None,
        };
        let named: Vec<_> = entry.updates().iter().filter_map(named).collect();
        pieces.keep_only(&named);
        if let Some((len, digest)) = named.into_iter().find(|(_, digest)| !pieces.has(digest)) {
            // The decoder bounds the length; room is made only for what arrives.
            let begin = || Coming { digest, len, bytes: Vec::new() };
            let coming = pieces.coming.get_or_insert_with(begin);
            return Ok(Step::Value(coming.digest, coming.bytes.len() as u64));
        }
        let entry = self.entries.pop_front().unwrap_or_default();
        Ok(Step::Take(entry, core::mem::take(&mut pieces.values)))
    }
}

impl Pieces {
    /// Forgets what is of another entry.
    fn keep_only(&mut self, named: &[(usize, Digest)]) {
        let is_named = |digest: &Digest| named.iter().any(|(_, name)| name == digest);
        self.values.retain(|(digest, _)| is_named(digest));
        if let Some(coming) = &self.coming
            && (!named.contains(&(coming.len, coming.digest)) || self.has(&coming.digest))
        {
            self.coming = None;
        }
    }

    fn has(&self, digest: &Digest) -> bool {
        self.values.iter().any(|(held, _)| held == digest)
    }

    /// A piece of a value arrived. Returns whether it was asked for.
    ///
    /// # Errors
    /// In words why it is not the value that the entry names.
    pub(crate) fn add(
        &mut self,
        digest: Digest,
        offset: u64,
        bytes: &[u8],
    ) -> Result<bool, &'static str> {
        let Some(coming) = &mut self.coming else { return Ok(false) };
        if coming.digest != digest || coming.bytes.len() as u64 != offset {
            return Ok(false);
        }
        if bytes.is_empty() && coming.len > 0 || coming.bytes.len() + bytes.len() > coming.len {
            return Err("a piece of a value has the wrong length");
        }
        coming.bytes.extend_from_slice(bytes);
        if coming.bytes.len() == coming.len {
            let Coming { digest, bytes, .. } = self.coming.take().expect("looked at above");
            if value_digest(&bytes) != digest {
                return Err("a value does not have the digest that the entry names");
            }
            self.values.push((digest, bytes));
        }
        Ok(true)
    }
}
