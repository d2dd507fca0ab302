//! The memory of one owner, as words that several processes look at: a ring of records with one
//! writer and many readers, and the flag by which a reader says that it sleeps.
//!
//! Each word has one writer: the owner of the memory. A reader tells how far it has come in *its
//! own* memory, so that all others map it read-only. Nothing here waits for anybody, so the death
//! of a process at any instruction leaves no other hanging.
//!
//! | word | what |
//! |---|---|
//! | 0 .. 8 | who wrote this, checked before anything else is read (`mapping`) |
//! | 8 | head: the words of the ring below it are whole records |
//! | 16 | floor: the words of the ring below it may be written over |
//! | 24 | odd while the owner's thread sleeps, or is about to; it only grows |
//! | 32 + 8 n | how far the owner has read the ring of node n |
//! | 1024 .. | the ring: positions only grow, the word of position p is p modulo the capacity |
//!
//! A record is two words of head (offset and length in bytes; a bit for each node it is meant for),
//! then its words. The protocol, and why it is enough:
//!
//! - **Head.** Records are written, then head is stored with release; a reader loads it with acquire
//!   and reads below it only. A writer that dies in between has written nothing.
//! - **Floor.** The writer raises floor, then a release fence, then writes over old words. A reader
//!   copies a record aside, then an acquire fence, then looks at floor: had it read a word of a newer
//!   record, it would see a floor above the record's begin. The writer asks for room against the
//!   readers that it counts as present; one that it no longer counts may still read, and finds out so.
//! - **Sleep.** The sleeper makes its word odd, then a fence, then looks at the heads once more; the
//!   writer stores its head, then a fence, then looks at the word. One of them sees the other.
//!
//! The module knows atomics, and how far words of different writers lie apart, from `super::atomic`
//! only: `tests/shm_loom.rs` compiles this file with the atomics of loom and a small memory.

use std::ops::Range;

use super::atomic::{AtomicU64, LINE, NODES_MAX, Ordering, fence};

const HEAD: usize = 8;
const FLOOR: usize = HEAD + LINE;
const SLEEPS: usize = FLOOR + LINE;
const TAKEN: usize = SLEEPS + LINE;
/// Where the ring begins: on a page.
pub(super) const RING: usize = (TAKEN + LINE * NODES_MAX).next_multiple_of(8 * LINE * LINE);
/// Words before the content of a record.
pub(super) const RECORD_HEAD: usize = 2;
/// The longest content of a record; what is longer is published as several.
pub(super) const RECORD_BYTES_MAX: usize = 32 << 10;
/// Bytes of a word.
const WORD: usize = 8;

/// How far the owner of `memory` has read the ring of `node`.
pub(super) fn taken(memory: &[AtomicU64], node: usize) -> u64 {
    memory[TAKEN + LINE * node].load(Ordering::Relaxed)
}

/// Tells `node` how far its ring was read: what lies below may be written over.
pub(super) fn tell_taken(own: &[AtomicU64], node: usize, position: u64) {
    // Release: what was read below this position was read before.
    own[TAKEN + LINE * node].store(position, Ordering::Release);
}

/// Says that the own thread is about to sleep. The heads must be looked at after it, once more.
pub(super) fn fall_asleep(own: &[AtomicU64]) {
    let word = own[SLEEPS].load(Ordering::Relaxed);
    own[SLEEPS].store(word | 1, Ordering::Relaxed);
    fence(Ordering::SeqCst);
}

/// Takes it back.
pub(super) fn wake_up(own: &[AtomicU64]) {
    let word = own[SLEEPS].load(Ordering::Relaxed);
    own[SLEEPS].store(word + (word & 1), Ordering::Relaxed);
}

/// A number for the sleep of the thread that owns `memory`, if it sleeps. To be asked after
/// [`Writer::commit`], whose fence it needs.
pub(super) fn asleep(memory: &[AtomicU64]) -> Option<u64> {
    let word = memory[SLEEPS].load(Ordering::Relaxed);
    (word % 2 == 1).then_some(word)
}

/// The words of a ring behind what comes before it.
fn slot(memory: &[AtomicU64], position: u64) -> &AtomicU64 {
    let capacity = (memory.len() - RING) as u64;
    &memory[RING + (position % capacity) as usize]
}

/// The slots of `words` words from `position`: two runs, the second empty unless the ring's end is met.
fn slots(memory: &[AtomicU64], position: u64, words: usize) -> (&[AtomicU64], &[AtomicU64]) {
    let ring = &memory[RING..];
    let at = (position % ring.len() as u64) as usize;
    let first = words.min(ring.len() - at);
    (&ring[at..at + first], &ring[..words - first])
}

/// The owner's side of its ring. Positions count words.
#[derive(Debug, Default)]
pub(super) struct Writer {
    at: u64,
    committed: u64,
    floor: u64,
}

impl Writer {
    /// Where the next record begins.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Makes room for a record of `bytes` bytes if no reader that is present, of which `slowest`
    /// has read the least, has still to read what lies there.
    #[must_use]
    pub(super) fn room(&mut self, memory: &[AtomicU64], bytes: usize, slowest: u64) -> bool {
        let needed = self.lowest_after(memory, bytes);
        if needed <= self.floor {
            return true;
        }
        if slowest < needed {
            return false;
        }
        // In strides, so that the word is not written for each record; never beyond what is read
        // by all that are present.
        let stride = (memory.len() - RING) as u64 / 8;
        self.floor = (needed + stride).min(slowest).min(self.at);
        memory[FLOOR].store(self.floor, Ordering::Relaxed);
        // Orders the floor before the words that are written next.
        fence(Ordering::Release);
        true
    }

    /// The lowest position that still holds its word after one more record of `bytes` bytes.
    pub(super) fn lowest_after(&self, memory: &[AtomicU64], bytes: usize) -> u64 {
        let capacity = (memory.len() - RING) as u64;
        let end = self.at + (RECORD_HEAD + bytes / WORD) as u64;
        end.saturating_sub(capacity)
    }

    /// Whether room is there without a look at any reader.
    pub(super) fn has_room(&self, memory: &[AtomicU64], bytes: usize) -> bool {
        self.lowest_after(memory, bytes) <= self.floor
    }

    /// Appends a record that nobody sees before [`Self::commit`]. Room must be there.
    pub(super) fn append(&mut self, memory: &[AtomicU64], nodes: u64, offset: usize, bytes: &[u8]) {
        assert!(bytes.len() <= RECORD_BYTES_MAX && self.has_room(memory, bytes.len()), "no room");
        let (words, rest) = bytes.as_chunks::<WORD>();
        assert!(rest.is_empty() && !words.is_empty(), "records are of whole words");
        let head = offset as u64 | (bytes.len() as u64) << 32;
        slot(memory, self.at).store(head, Ordering::Relaxed);
        slot(memory, self.at + 1).store(nodes, Ordering::Relaxed);
        let (first, second) = slots(memory, self.at + RECORD_HEAD as u64, words.len());
        let (early, late) = words.split_at(first.len());
        for (slots, words) in [(first, early), (second, late)] {
            for (slot, word) in slots.iter().zip(words) {
                slot.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
            }
        }
        self.at += (RECORD_HEAD + words.len()) as u64;
    }

    /// Shows all records appended so far; `false` if there are none that are new.
    pub(super) fn commit(&mut self, memory: &[AtomicU64]) -> bool {
        if self.committed == self.at {
            return false;
        }
        self.committed = self.at;
        memory[HEAD].store(self.at, Ordering::Release);
        // Before the look at who sleeps; see the module.
        fence(Ordering::SeqCst);
        true
    }

    /// The ranges of the records from `position` on that are meant for any of `nodes`, for a reader
    /// that has to be told of them in another way. `position` must not be below the floor.
    pub(super) fn ranges<'a>(
        &self,
        memory: &'a [AtomicU64],
        mut position: u64,
        nodes: u64,
    ) -> impl Iterator<Item = Range<usize>> + use<'a> {
        let end = self.at;
        assert!(position >= self.floor, "what is asked for is gone");
        std::iter::from_fn(move || {
            while position < end {
                let head = slot(memory, position).load(Ordering::Relaxed);
                let to = slot(memory, position + 1).load(Ordering::Relaxed);
                let (offset, bytes) = split(head);
                position += (RECORD_HEAD + bytes / WORD) as u64;
                if to & nodes != 0 {
                    return Some(offset..offset + bytes);
                }
            }
            None
        })
    }
}

/// Offset and length of a record, from its first word.
fn split(head: u64) -> (usize, usize) {
    ((head & u64::from(u32::MAX)) as usize, (head >> 32) as usize)
}

/// A reader's side of a peer's ring.
#[derive(Debug)]
pub(super) struct Reader {
    at: u64,
    node: u64,
    row_len: usize,
}

/// What a reader has found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A record was copied aside: its place in the row.
    Record(Range<usize>),
    /// A record for others.
    ForOthers,
    /// The writer did not wait: what comes next was written over.
    Lapped,
    /// What no correct writer writes.
    Broken,
}

impl Reader {
    /// For the node with bit `node`, from `position` on.
    pub(super) fn new(position: u64, node: u64, row_len: usize) -> Self {
        Self { at: position, node, row_len }
    }

    /// How far it has come.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Up to where there is something to read now.
    pub(super) fn head(memory: &[AtomicU64]) -> u64 {
        let head = memory[HEAD].load(Ordering::Relaxed);
        // A load from memory that is mapped read-only must be relaxed; this makes it an acquire.
        fence(Ordering::Acquire);
        head
    }

    /// Takes the next record below `head`, its bytes into the beginning of `aside`.
    pub(super) fn next(&mut self, memory: &[AtomicU64], head: u64, aside: &mut [u8]) -> Found {
        let (offset, bytes) = split(slot(memory, self.at).load(Ordering::Relaxed));
        let nodes = slot(memory, self.at + 1).load(Ordering::Relaxed);
        let end = self.at.saturating_add((RECORD_HEAD + bytes / WORD) as u64);
        let fits = bytes > 0
            && bytes <= RECORD_BYTES_MAX
            && bytes.is_multiple_of(WORD)
            && offset.is_multiple_of(WORD)
            && offset + bytes <= self.row_len
            && end <= head
            && bytes / WORD <= memory.len() - RING;
        let wanted = fits && nodes & self.node != 0;
        if wanted {
            let (first, second) = slots(memory, self.at + RECORD_HEAD as u64, bytes / WORD);
            let (aside, _) = aside[..bytes].as_chunks_mut::<WORD>();
            let (early, late) = aside.split_at_mut(first.len());
            for (slots, words) in [(first, early), (second, late)] {
                for (slot, word) in slots.iter().zip(words) {
                    *word = slot.load(Ordering::Relaxed).to_ne_bytes();
                }
            }
        }
        // Orders the floor behind the words that were read.
        fence(Ordering::Acquire);
        if memory[FLOOR].load(Ordering::Relaxed) > self.at {
            return Found::Lapped;
        }
        if !fits {
            return Found::Broken;
        }
        self.at = end;
        if wanted { Found::Record(offset..offset + bytes) } else { Found::ForOthers }
    }
}
