//! Chunks into a store, strictly: whatever is taken up would be encoded as the same bytes.

use super::{
    CHUNK_BYTES, Chunk, DELETED, DETACHED, HEAD, INLINE, KEYS, MAX_CHUNK, SESSIONS, Since,
};
use crate::{
    MAX_SESSIONS, Stats, Store, WINDOW,
    fingerprint::Fingerprint,
    record::{Latest, Record},
    session::{self, Session, Sessions},
    store::Key,
    timeline::Timeline,
};
use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    vec::Vec,
};
use tradewind_ledger::tree::value_digest;
use tradewind_ledger::{
    Digest, Hlc, KeyVersion, RequestNumber, SessionId, Version,
    entry::{MAX_INLINE_VALUE, MAX_KEY, MAX_VALUE},
};

/// Why chunks are not those of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("chunk {chunk} of the snapshot, byte {at}: {fault}")]
pub struct SnapshotError {
    /// Which chunk, from 0.
    pub chunk: u64,
    /// Where in what it commits to.
    pub at: usize,
    /// What is wrong.
    pub fault: &'static str,
}

/// Takes the chunks of a snapshot in order. That they are under the root is the caller's to check.
#[derive(Debug)]
pub struct Decoder {
    chunks: u64,
    head: Option<Head>,
    keys: BTreeMap<Key, Record>,
    sessions: BTreeMap<SessionId, Arc<Session>>,
    found: Stats,
    /// Kind of the last chunk, and whether it was closed because it was full.
    last: (u8, bool),
}

#[derive(Debug)]
struct Head {
    at: Version,
    hlc: Hlc,
    stats: Stats,
    sessions: u64,
    forgotten_through: Option<Hlc>,
}

impl Decoder {
    /// Expects the first chunk.
    #[expect(clippy::new_without_default, reason = "nothing by default")]
    pub fn new() -> Self {
        Self {
            chunks: 0,
            head: None,
            keys: BTreeMap::new(),
            sessions: BTreeMap::new(),
            found: Stats::default(),
            last: (HEAD, true),
        }
    }

    /// Takes the next chunk.
    ///
    /// # Errors
    /// [`SnapshotError`]; the decoder must not be used any more.
    pub fn push(&mut self, committed: &[u8], values: &[u8]) -> Result<(), SnapshotError> {
        let mut input = Input { bytes: committed, at: 0 };
        let taken = self.chunk(&mut input, values, committed.len() + values.len());
        taken.map_err(|fault| SnapshotError { chunk: self.chunks, at: input.at, fault })?;
        self.chunks += 1;
        Ok(())
    }

    /// The store, when all chunks were taken.
    ///
    /// # Errors
    /// [`SnapshotError`] if the first chunk says something else of the whole than the others.
    pub fn finish(self) -> Result<Store, SnapshotError> {
        let error = |fault| SnapshotError { chunk: self.chunks, at: 0, fault };
        let head = self.head.ok_or_else(|| error("there is none"))?;
        if head.stats != self.found {
            return Err(error("keys, changes or bytes are not as many as the first chunk says"));
        }
        if head.sessions != self.sessions.len() as u64 {
            return Err(error("sessions are not as many as the first chunk says"));
        }
        let Head { at, hlc, stats, forgotten_through, .. } = head;
        Ok(Store {
            keys: self.keys,
            timeline: Timeline::starting_at(at, Some(hlc)),
            sessions: Sessions { sessions: self.sessions, forgotten_through },
            stats,
            since: Since { version: at, bytes: 0 },
        })
    }

    fn chunk(
        &mut self,
        input: &mut Input<'_>,
        values: &[u8],
        size: usize,
    ) -> Result<(), &'static str> {
        if size > MAX_CHUNK {
            return Err("it is longer than a chunk may be");
        }
        let kind = input.u8()?;
        let (last, was_full) = self.last;
        let Some(head) = &self.head else {
            self.head = Some(read_head(kind, input)?);
            return match input.rest().is_empty() && values.is_empty() {
                true => Ok(()),
                false => Err("bytes after the first chunk's end"),
            };
        };
        if !matches!(kind, KEYS | SESSIONS) || kind < last {
            return Err("its kind is unknown or out of order");
        }
        if kind == last && !was_full {
            return Err("the chunk before it is not full");
        }
        let mut values = Input { bytes: values, at: 0 };
        loop {
            if input.rest().is_empty() {
                return Err("a chunk without a record");
            }
            match kind {
                KEYS => key(head, &mut self.keys, &mut self.found, input, &mut values)?,
                _ => session(head, &mut self.sessions, input)?,
            }
            if input.at + values.at >= CHUNK_BYTES || input.rest().is_empty() {
                break;
            }
        }
        if !input.rest().is_empty() || !values.rest().is_empty() {
            return Err("bytes after the end of a full chunk, or of its values");
        }
        self.last = (kind, input.at + values.at >= CHUNK_BYTES);
        Ok(())
    }
}

/// See [`Chunk::detached`]: reads the chunk as if any other could be before it.
pub(super) fn detached(chunk: &Chunk, is_first: bool) -> Result<Vec<(u64, Digest)>, SnapshotError> {
    let mut decoder = Decoder::new();
    if !is_first {
        let (at, hlc) = (Version(u64::MAX), Hlc(u64::MAX));
        let (stats, sessions, forgotten_through) = (Stats::default(), 0, None);
        decoder.head = Some(Head { at, hlc, stats, sessions, forgotten_through });
    }
    decoder.push(&chunk.committed, &chunk.values)?;
    let named = |record: &Record| match record.latest() {
        Latest::Detached(detached) => Some(**detached),
        Latest::Inline(_) | Latest::Deleted => None,
    };
    Ok(decoder.keys.values().filter_map(named).collect())
}

fn read_head(kind: u8, input: &mut Input<'_>) -> Result<Head, &'static str> {
    if kind != HEAD {
        return Err("the first chunk is of another kind");
    }
    let (at, hlc) = (Version(input.u64()?), Hlc(input.u64()?));
    let (keys, deleted_keys) = (input.u64()?, input.u64()?);
    let stats = Stats { keys, deleted_keys, changes: input.u64()?, bytes: input.u64()? };
    let sessions = input.u64()?;
    let forgotten_through = match input.u8()? {
        0 => None,
        1 => Some(Hlc(input.u64()?)),
        _ => return Err("an unknown tag"),
    };
    if at == Version::ZERO || at.0 > u64::MAX >> 1 {
        return Err("no version that a snapshot can have");
    }
    if forgotten_through.is_some_and(|through| through > hlc) {
        return Err("a time after the last entry's");
    }
    Ok(Head { at, hlc, stats, sessions, forgotten_through })
}

/// A version and its time, as far as the head can tell.
fn stamp(head: &Head, input: &mut Input<'_>) -> Result<(Version, Hlc), &'static str> {
    let (version, hlc) = (Version(input.u64()?), Hlc(input.u64()?));
    match version < head.at && hlc <= head.hlc {
        true => Ok((version, hlc)),
        false => Err("a version or a time after the last entry's"),
    }
}

fn key(
    head: &Head,
    keys: &mut BTreeMap<Key, Record>,
    found: &mut Stats,
    input: &mut Input<'_>,
    values: &mut Input<'_>,
) -> Result<(), &'static str> {
    let len = usize::from(u16::from_be_bytes(input.array()?));
    if len == 0 || len > MAX_KEY {
        return Err("no length of a key");
    }
    let key = input.take(len)?;
    if keys.last_key_value().is_some_and(|(last, _)| &last[..] >= key) {
        return Err("keys are not in ascending order");
    }
    let key_version = KeyVersion(input.u64()?);
    if key_version == KeyVersion(0) {
        return Err("a key version of zero");
    }
    let (version, hlc) = stamp(head, input)?;
    let latest = match input.u8()? {
        DELETED => Latest::Deleted,
        INLINE => {
            let len = u32::from_be_bytes(input.array()?) as usize;
            let digest = Digest(input.array()?);
            if len > MAX_INLINE_VALUE {
                return Err("no length of an inline value");
            }
            let value = values.take(len).map_err(|_| "its values end early")?;
            if value_digest(value) != digest {
                return Err("a value does not have its digest");
            }
            Latest::Inline(Arc::from(value))
        }
        DETACHED => {
            let len = input.u64()?;
            if len > MAX_VALUE {
                return Err("no length of a detached value");
            }
            Latest::Detached(Box::new((len, Digest(input.array()?))))
        }
        _ => return Err("an unknown tag"),
    };
    let too_many = "more than can be counted";
    found.changes = found.changes.checked_add(key_version.0).ok_or(too_many)?;
    match latest {
        Latest::Deleted => found.deleted_keys += 1,
        _ => {
            found.keys += 1;
            let bytes = latest.len() + key.len() as u64;
            found.bytes = found.bytes.checked_add(bytes).ok_or(too_many)?;
        }
    }
    keys.insert(Key::from_slice(key), Record::new(version, key_version, hlc, latest));
    Ok(())
}

fn session(
    head: &Head,
    sessions: &mut BTreeMap<SessionId, Arc<Session>>,
    input: &mut Input<'_>,
) -> Result<(), &'static str> {
    let id = SessionId(u128::from_be_bytes(input.array()?));
    if sessions.last_key_value().is_some_and(|(last, _)| *last >= id) {
        return Err("sessions are not in ascending order");
    }
    if sessions.len() >= MAX_SESSIONS {
        return Err("more sessions than a shard remembers");
    }
    let (last_used, last_used_at) = stamp(head, input)?;
    let highest = RequestNumber(input.u64()?);
    let count = u16::from_be_bytes(input.array()?);
    if u64::from(count) > WINDOW || count == 0 {
        return Err("no number of requests that a session can have");
    }
    // No room is made for the count: the records must first prove to be there.
    let mut records: VecDeque<session::Record> = VecDeque::new();
    for _ in 0..count {
        let number = RequestNumber(input.u64()?);
        let in_window = number <= highest && highest.0 - number.0 < WINDOW;
        if !in_window || records.back().is_some_and(|last| last.number >= number) {
            return Err("requests are not in ascending order, or too far behind the highest");
        }
        let (version, hlc) = stamp(head, input)?;
        let key_version = KeyVersion(input.u64()?);
        let fingerprint = Fingerprint::from_bits(input.u64()?);
        records.push_back(session::Record { number, version, hlc, key_version, fingerprint });
    }
    if records.back().is_some_and(|last| last.number != highest) {
        return Err("a session's highest request is not there");
    }
    sessions.insert(id, Arc::new(Session { last_used, last_used_at, highest, records }));
    Ok(())
}

/// Reads fields one after the other; never past the end.
struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], &'static str> {
        let taken = self.rest().get(..len).ok_or("it ends early")?;
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        Ok(self.take(N)?.try_into().expect("take returns the length asked for"))
    }

    fn u8(&mut self) -> Result<u8, &'static str> {
        self.array().map(|[byte]| byte)
    }

    fn u64(&mut self) -> Result<u64, &'static str> {
        self.array().map(u64::from_be_bytes)
    }
}
