//! Keys and sessions into chunks.

use super::{CHUNK_BYTES, Chunk, DELETED, DETACHED, HEAD, INLINE, KEYS, KeyState, Pin, SESSIONS};
use crate::{ItemValue, session::Session};
use alloc::{collections::VecDeque, vec::Vec};
use tradewind_ledger::SessionId;
use tradewind_ledger::tree::value_digest;

/// Makes the chunks of a snapshot: give it every key in ascending order, take the chunks that are complete.
#[derive(Debug)]
pub struct Encoder {
    pin: Pin,
    open: Chunk,
    done: VecDeque<Chunk>,
}

impl Encoder {
    /// Begins the snapshot of what was pinned.
    pub fn new(pin: Pin) -> Self {
        let mut head = Vec::new();
        head.push(HEAD);
        let stats = pin.stats;
        let counts = [stats.keys, stats.deleted_keys, stats.changes, stats.bytes];
        let numbers = [pin.at.0, pin.hlc.0].into_iter().chain(counts);
        numbers.for_each(|number| put_u64(&mut head, number));
        put_u64(&mut head, pin.sessions.sessions.len() as u64);
        match pin.sessions.forgotten_through {
            None => head.push(0),
            Some(hlc) => {
                head.push(1);
                put_u64(&mut head, hlc.0);
            }
        }
        let done = VecDeque::from([Chunk { committed: head, values: Vec::new() }]);
        Self { pin, open: Chunk::default(), done }
    }

    /// Takes the next key.
    ///
    /// # Panics
    /// If its value is still to be looked up in the ledger.
    pub fn push(&mut self, state: &KeyState) {
        let committed = self.begin(KEYS);
        let len = u16::try_from(state.key.len()).expect("a key has at most 4096 bytes");
        committed.extend_from_slice(&len.to_be_bytes());
        committed.extend_from_slice(&state.key);
        put_u64(committed, state.key_version.0);
        put_u64(committed, state.version.0);
        put_u64(committed, state.hlc.0);
        match state.item.as_ref().map(|item| &item.value) {
            None => committed.push(DELETED),
            Some(ItemValue::Inline(bytes)) => {
                committed.push(INLINE);
                let len = u32::try_from(bytes.len()).expect("an inline value is short");
                committed.extend_from_slice(&len.to_be_bytes());
                committed.extend_from_slice(&value_digest(bytes).0);
                self.open.values.extend_from_slice(bytes);
            }
            Some(ItemValue::Detached { length, digest }) => {
                committed.push(DETACHED);
                put_u64(committed, *length);
                committed.extend_from_slice(&digest.0);
            }
            Some(ItemValue::Logged) => panic!("the value was to be looked up in the ledger"),
        }
        self.end();
    }

    /// A complete chunk.
    pub fn poll_chunk(&mut self) -> Option<Chunk> {
        self.done.pop_front()
    }

    /// All keys were taken: the chunks that are left.
    pub fn finish(mut self) -> impl Iterator<Item = Chunk> {
        self.close();
        let sessions = core::mem::take(&mut self.pin.sessions.sessions);
        for (id, session) in &sessions {
            self.session(*id, session);
        }
        self.close();
        self.done.into_iter()
    }

    fn session(&mut self, id: SessionId, session: &Session) {
        let committed = self.begin(SESSIONS);
        committed.extend_from_slice(&id.0.to_be_bytes());
        put_u64(committed, session.last_used.0);
        put_u64(committed, session.last_used_at.0);
        put_u64(committed, session.highest.0);
        let count = u16::try_from(session.records.len()).expect("no more than the window");
        committed.extend_from_slice(&count.to_be_bytes());
        for record in &session.records {
            put_u64(committed, record.number.0);
            put_u64(committed, record.version.0);
            put_u64(committed, record.hlc.0);
            put_u64(committed, record.key_version.0);
            put_u64(committed, record.fingerprint.to_bits());
        }
        self.end();
    }

    fn begin(&mut self, kind: u8) -> &mut Vec<u8> {
        if self.open.committed.is_empty() {
            self.open.committed.push(kind);
        }
        &mut self.open.committed
    }

    fn end(&mut self) {
        if self.open.size() >= CHUNK_BYTES {
            self.close();
        }
    }

    fn close(&mut self) {
        if !self.open.committed.is_empty() {
            self.done.push_back(core::mem::take(&mut self.open));
        }
    }
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}
