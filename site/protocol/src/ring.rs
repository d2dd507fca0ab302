//! Messages of any size in a byte ring: for each (shard, own row) one for messages, and one for blocks of bodies.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | begin word of this message, or the word that says "go on at the beginning of the ring" |
//! | 8 | 4 | payload length |
//! | 12 | 4 | flags |
//! | 16 | 8 | round |
//! | 24 | 8 | stamp ([`Hlc`]) |
//! | 32 | length | payload, then zero to seven bytes up to a multiple of eight |
//! | | 8 | end word of this message |
//!
//! Integers are little-endian (rows are memory, not a format that is hashed or kept). A record never
//! crosses the end of the ring: what is left there is skipped. The sender re-uses room when every
//! member's `received` counter says that the message was copied out: its credits.
//!
//! Begin and end word depend on view, sender and number of the message, so a record shows by itself
//! whether it has landed as a whole: a reader may see a newer `sent` before the record that it counts
//! (a fabric sends what a range holds *when it is sent*), and then looks again later.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use tradewind_ledger::{Hlc, ViewId};

use crate::ids::NodeId;
use crate::memory::Memory;

/// Bytes before the payload.
const HEADER: usize = 32;
/// Bytes of begin and end word.
const WORD: usize = 8;

/// The words that only this message of this sender in this view has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words {
    seed: u64,
}

impl Words {
    /// For the ring of one sender in one view.
    pub(crate) fn new(view: ViewId, sender: NodeId) -> Self {
        Self { seed: mix(view.0 ^ (u64::from(sender.0) << 48)) }
    }

    /// For its bulk ring.
    pub(crate) fn bulk(view: ViewId, sender: NodeId) -> Self {
        Self { seed: mix(!Self::new(view, sender).seed) }
    }

    fn word(self, message: u64, kind: u64) -> u64 {
        // Never zero: that is what fresh memory holds.
        mix(self.seed ^ message.wrapping_mul(4).wrapping_add(kind)) | 1
    }

    fn begin(self, message: u64) -> u64 {
        self.word(message, 0)
    }

    fn end(self, message: u64) -> u64 {
        self.word(message, 1)
    }

    fn skip(self, message: u64) -> u64 {
        self.word(message, 2)
    }
}

/// The finaliser of SplitMix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Bits of a message's flags.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Flags(pub(crate) u32);

impl Flags {
    /// The payload is a piece of one command, not a batch of whole ones.
    pub(crate) const FRAGMENT: Flags = Flags(1);
    /// The first piece: begins with the head of the command.
    pub(crate) const FIRST: Flags = Flags(2);
    /// The last piece.
    pub(crate) const LAST: Flags = Flags(4);
    /// Rank 0: seal after this message if the segment has entries.
    pub(crate) const SEAL: Flags = Flags(8);
    /// Rank 0: seal after this message in any case.
    pub(crate) const BEAT: Flags = Flags(16);
    /// Rank 0: the size after this message is to be signed.
    pub(crate) const MARK: Flags = Flags(32);
    /// Rank 0: the payload is the record of a snapshot that a majority made; the ledger is to hold it.
    pub(crate) const SNAPSHOT: Flags = Flags(64);
    const ALL: u32 = 127;

    pub(crate) fn has(self, flag: Flags) -> bool {
        self.0 & flag.0 != 0
    }

    pub(crate) fn with(self, flag: Flags) -> Flags {
        Flags(self.0 | flag.0)
    }
}

/// What stands before a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) flags: Flags,
    pub(crate) round: u64,
    pub(crate) stamp: Hlc,
}

fn record_len(payload: usize) -> usize {
    HEADER + payload.next_multiple_of(8) + WORD
}

/// The sender's side of its own ring.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    words: Words,
    capacity: usize,
    /// Bytes ever used, skipped ones included.
    head: u64,
    /// Where the records end that are not yet copied out everywhere.
    ends: VecDeque<u64>,
    /// Bytes ever freed.
    tail: u64,
    /// Messages ever freed.
    freed: u64,
}

/// Where a record goes.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Offset in the ring of a skip word to write.
    skip: Option<usize>,
    /// Offset in the ring of the record.
    at: usize,
}

impl Place {
    /// Whether the ring goes on at its beginning.
    pub(crate) fn wraps(&self) -> bool {
        self.skip.is_some()
    }
}

impl Writer {
    pub(crate) fn new(words: Words, capacity: usize) -> Self {
        Self { words, capacity, head: 0, ends: VecDeque::new(), tail: 0, freed: 0 }
    }

    /// Frees the records of all messages below `received`, a count of messages.
    pub(crate) fn release(&mut self, received: u64) {
        while self.freed < received {
            let Some(end) = self.ends.pop_front() else { return };
            self.tail = end;
            self.freed += 1;
        }
    }

    /// Messages ever written.
    pub(crate) fn written(&self) -> u64 {
        self.freed + self.ends.len() as u64
    }

    /// Finds room for a payload; `None` until credits come.
    pub(crate) fn place(&self, payload: usize) -> Option<Place> {
        let len = record_len(payload);
        let at = (self.head % self.capacity as u64) as usize;
        let left = self.capacity - at;
        let skip = (left < len).then_some(at);
        let needed = len + if skip.is_some() { left } else { 0 };
        let used = (self.head - self.tail) as usize;
        let at = if skip.is_some() { 0 } else { at };
        (used + needed <= self.capacity).then_some(Place { skip, at })
    }

    /// Writes a record into the own row and publishes it; `base` is the ring's offset in the row, the
    /// payload comes in `parts`.
    pub(crate) fn write<M: Memory>(
        &mut self,
        memory: &mut M,
        (base, peers): (usize, &[NodeId]),
        place: &Place,
        header: Header,
        parts: &[&[u8]],
    ) {
        let message = self.written();
        if let Some(at) = place.skip {
            memory.store(base + at, &self.words.skip(message).to_le_bytes());
            memory.publish(base + at..base + at + WORD, peers);
            self.head = self.head.next_multiple_of(self.capacity as u64);
        }
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let mut head = [0; HEADER];
        head[..8].copy_from_slice(&self.words.begin(message).to_le_bytes());
        head[8..12].copy_from_slice(&(len as u32).to_le_bytes());
        head[12..16].copy_from_slice(&header.flags.0.to_le_bytes());
        head[16..24].copy_from_slice(&header.round.to_le_bytes());
        head[24..].copy_from_slice(&header.stamp.0.to_le_bytes());
        let start = base + place.at;
        memory.store(start, &head);
        let mut at = start + HEADER;
        for part in parts {
            memory.store(at, part);
            at += part.len();
        }
        let end = start + record_len(len);
        memory.store(end - WORD, &self.words.end(message).to_le_bytes());
        memory.publish(start..end, peers);
        self.head += record_len(len) as u64;
        self.ends.push_back(self.head);
    }
}

/// A message that has landed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Landed {
    pub(crate) header: Header,
    /// Offset of its payload in the row.
    pub(crate) at: usize,
    /// Bytes of it.
    pub(crate) len: usize,
}

/// A receiver's side of a peer's ring.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    words: Words,
    capacity: usize,
    /// Offset in the ring of the next record.
    at: usize,
    /// Number of the next message.
    message: u64,
}

impl Reader {
    pub(crate) fn new(words: Words, capacity: usize) -> Self {
        Self { words, capacity, at: 0, message: 0 }
    }

    /// Copies out the next message if it has landed; `longest` bounds its payload.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub(crate) fn read<M: Memory>(
        &mut self,
        memory: &M,
        peer: NodeId,
        base: usize,
        longest: usize,
    ) -> Result<Option<(Header, Vec<u8>)>, &'static str> {
        let Some(Landed { header, at, len }) = self.next(memory, peer, base, longest)? else {
            return Ok(None);
        };
        let mut payload = vec![0; len];
        memory.copy(peer, at, &mut payload);
        Ok(Some((header, payload)))
    }

    /// Goes on behind the next message if it has landed, and tells where its payload is: to be copied before others
    /// are told that it was.
    ///
    /// # Errors
    /// In words what no correct peer writes.
    pub(crate) fn next<M: Memory>(
        &mut self,
        memory: &M,
        peer: NodeId,
        base: usize,
        longest: usize,
    ) -> Result<Option<Landed>, &'static str> {
        let load = |at: usize| memory.load(peer, base + at);
        if load(self.at) == self.words.skip(self.message) {
            self.at = 0;
        }
        if self.capacity - self.at < HEADER || load(self.at) != self.words.begin(self.message) {
            return Ok(None);
        }
        let word = load(self.at + 8);
        let (len, flags) = ((word & u64::from(u32::MAX)) as usize, Flags((word >> 32) as u32));
        if len > longest || record_len(len) > self.capacity - self.at {
            return Err("a record longer than allowed");
        }
        let next = self.at + record_len(len);
        if load(next - WORD) != self.words.end(self.message) {
            return Ok(None);
        }
        if flags.0 & !Flags::ALL != 0 {
            return Err("a record with unknown flags");
        }
        let (round, stamp) = (load(self.at + 16), Hlc(load(self.at + 24)));
        let at = base + self.at + HEADER;
        self.at = next % self.capacity;
        self.message += 1;
        Ok(Some(Landed { header: Header { flags, round, stamp }, at, len }))
    }
}

#[cfg(test)]
mod tests {
    use core::ops::Range;

    use proptest::prelude::*;

    use super::*;

    /// One row, visible at once.
    struct Row(Vec<u8>);

    impl Memory for Row {
        fn store(&mut self, offset: usize, bytes: &[u8]) {
            self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        fn publish(&mut self, _: Range<usize>, _: &[NodeId]) {}
        fn load(&self, _: NodeId, offset: usize) -> u64 {
            u64::from_le_bytes(self.0[offset..offset + 8].try_into().unwrap())
        }
        fn copy(&self, _: NodeId, offset: usize, out: &mut [u8]) {
            out.copy_from_slice(&self.0[offset..offset + out.len()]);
        }
    }

    fn words() -> Words {
        Words::new(ViewId(3), NodeId(0))
    }

    fn header(round: u64) -> Header {
        Header { flags: Flags::MARK, round, stamp: Hlc(7) }
    }

    proptest! {
        /// Whatever the sizes and however late the credits: messages come out as they went in.
        #[test]
        fn messages_survive_wrapping(
            sizes in proptest::collection::vec((0usize..120, any::<bool>()), 1..200),
        ) {
            const RING: usize = 512;
            let (mut writer, mut reader) = (Writer::new(words(), RING), Reader::new(words(), RING));
            let mut row = Row(vec![0xFF; 64 + RING]);
            let mut waiting = VecDeque::new();
            let mut received = 0;
            for (round, (size, drain)) in sizes.into_iter().enumerate() {
                let payload: Vec<u8> = (0..size).map(|i| (i * 7 + round) as u8).collect();
                while writer.place(size).is_none() || (drain && !waiting.is_empty()) {
                    let read = reader.read(&row, NodeId(0), 64, 128).unwrap();
                    prop_assert!(read.is_some() && read == waiting.pop_front());
                    received += 1;
                    writer.release(received);
                }
                let place = writer.place(size).unwrap();
                writer.write(&mut row, (64, &[]), &place, header(round as u64), &[&payload]);
                waiting.push_back((header(round as u64), payload));
            }
        }

        /// Any bytes in a peer's ring, behind a valid begin word, give a message, nothing or an error.
        #[test]
        fn rubbish_is_not_a_message(mut bytes in proptest::collection::vec(any::<u8>(), 512)) {
            bytes[..8].copy_from_slice(&words().begin(0).to_le_bytes());
            let mut reader = Reader::new(words(), 512);
            prop_assert!(!matches!(reader.read(&Row(bytes), NodeId(0), 0, 128), Ok(Some(_))));
        }
    }

    #[test]
    fn a_record_that_landed_in_part_is_not_read() {
        let (mut writer, mut reader) = (Writer::new(words(), 512), Reader::new(words(), 512));
        let mut row = Row(vec![0; 512]);
        let place = writer.place(100).unwrap();
        writer.write(&mut row, (0, &[]), &place, header(0), &[&[9; 60], &[9; 40]]);
        let whole = row.0.clone();
        for landed in 0..record_len(100) / 8 {
            row.0[landed * 8..].fill(0);
            assert_eq!(reader.read(&row, NodeId(0), 0, 128), Ok(None));
            row.0.copy_from_slice(&whole);
        }
        assert_eq!(reader.read(&row, NodeId(0), 0, 128), Ok(Some((header(0), vec![9; 100]))));
    }
}
