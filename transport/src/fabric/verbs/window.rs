//! The two ends of a ring in the reader's memory: how much of it is in use, and what an immediate says.
//!
//! A batch is written in **pieces** of whole words, none of which wraps. Each piece is one RDMA WRITE
//! with an immediate that tells its length; both ends therefore know where the next one lies.

use std::collections::VecDeque;

use crate::fabric::ranges::WORD;

/// Bytes of the ring that a reader has for each of its peers, and of the copy that the peer sends from.
pub(super) const RING_BYTES: usize = 1 << 20;

/// The longest piece.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// Pieces that may be unread: fewer than the receives that are posted, so that none is missing.
const PIECES_MAX: usize = 128;

/// After so much was taken the writer is told.
const TELL_BYTES: usize = RING_BYTES / 4;
const TELL_PIECES: u32 = 32;

const LAST: u32 = 1 << 31;
const TAKEN: u32 = 1 << 30;

/// What an immediate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Immediate {
    /// A piece of so many bytes; whether it ends its batch.
    Piece { bytes: usize, last: bool },
    /// The reader has taken so many more pieces.
    Taken { pieces: u32 },
}

impl Immediate {
    pub(super) fn encode(self) -> u32 {
        match self {
            Self::Piece { bytes, last } => (bytes / WORD) as u32 | if last { LAST } else { 0 },
            Self::Taken { pieces } => TAKEN | pieces,
        }
    }

    /// `None` for what no writer says.
    pub(super) fn decode(number: u32) -> Option<Self> {
        let amount = number & !(LAST | TAKEN);
        if number & TAKEN != 0 {
            let allowed = number & LAST == 0 && (1..=PIECES_MAX as u32).contains(&amount);
            return allowed.then_some(Self::Taken { pieces: amount });
        }
        let bytes = amount as usize * WORD;
        let allowed = (1..=PIECE_BYTES_MAX).contains(&bytes);
        allowed.then_some(Self::Piece { bytes, last: number & LAST != 0 })
    }
}

/// The writer's end.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    at: usize,
    used: usize,
    unread: VecDeque<(usize, bool)>,
}

impl Outgoing {
    /// Takes room for the next piece of a batch of which `left` bytes are left: where it lies, how
    /// long it is.
    pub(super) fn take_room(&mut self, left: usize) -> Option<(usize, usize)> {
        let free = RING_BYTES - self.used;
        let bytes = left.min(PIECE_BYTES_MAX).min(RING_BYTES - self.at);
        if bytes == 0 || bytes > free || self.unread.len() == PIECES_MAX {
            return None;
        }
        let at = self.at;
        self.at = (at + bytes) % RING_BYTES;
        self.used += bytes;
        self.unread.push_back((bytes, bytes == left));
        Some((at, bytes))
    }

    /// The reader has taken `pieces`: how many batches ended with them. `None` if there were not so
    /// many pieces.
    pub(super) fn give_back(&mut self, pieces: u32) -> Option<usize> {
        let mut batches = 0;
        for _ in 0..pieces {
            let (bytes, last) = self.unread.pop_front()?;
            self.used -= bytes;
            batches += usize::from(last);
        }
        Some(batches)
    }
}

/// The reader's end.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    at: usize,
    taken_bytes: usize,
    taken_pieces: u32,
}

impl Incoming {
    /// Where the next piece, of `bytes`, lies; `None` if no writer would put it there.
    pub(super) fn take(&mut self, bytes: usize) -> Option<usize> {
        let at = self.at;
        if at + bytes > RING_BYTES {
            return None;
        }
        self.at = (at + bytes) % RING_BYTES;
        self.taken_bytes += bytes;
        self.taken_pieces += 1;
        Some(at)
    }

    /// Whether the writer is to be told now, and of how many pieces.
    pub(super) fn to_tell(&self) -> Option<u32> {
        let due = self.taken_bytes >= TELL_BYTES || self.taken_pieces >= TELL_PIECES;
        due.then_some(self.taken_pieces.min(PIECES_MAX as u32))
    }

    /// The writer was told.
    pub(super) fn told(&mut self, pieces: u32) {
        self.taken_pieces -= pieces;
        self.taken_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_immediate_has_one_meaning(number in any::<u32>()) {
            if let Some(decoded) = Immediate::decode(number) {
                prop_assert_eq!(decoded.encode(), number);
            }
        }

        /// Batches of any sizes pass, never over unread bytes, and both ends agree on each place.
        #[test]
        fn batches_of_any_size_pass_the_ring(
            batches in prop::collection::vec(1_usize..400_000, 1..30),
        ) {
            let (mut writer, mut reader) = (Outgoing::default(), Incoming::default());
            let mut unread: VecDeque<(usize, usize)> = VecDeque::new();
            for words in batches {
                let mut left = words * WORD;
                while left > 0 {
                    if let Some((at, bytes)) = writer.take_room(left) {
                        let free = unread.iter().all(|(start, length)| {
                            at + bytes <= *start || start + length <= at
                        });
                        prop_assert!(free, "a piece over an unread one");
                        unread.push_back((at, bytes));
                        left -= bytes;
                        continue;
                    }
                    // Full: the reader takes all there is, and must have something to tell then.
                    while let Some((at, bytes)) = unread.pop_front() {
                        prop_assert_eq!(reader.take(bytes), Some(at));
                    }
                    let pieces = reader.to_tell();
                    prop_assert!(pieces.is_some(), "both would wait for ever");
                    reader.told(pieces.unwrap());
                    prop_assert!(writer.give_back(pieces.unwrap()).is_some());
                }
            }
        }
    }
}
