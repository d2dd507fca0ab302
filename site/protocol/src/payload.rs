//! What a message carries: a batch of commands, or a piece of one.
//!
//! A batch is a run of items: session (16 bytes), number (8), length of the command (4), command. A command
//! that does not fit a message is cut: the first piece begins with the same head, `FIRST` and `LAST` flag the
//! ends. Integers are little-endian. A message is checked when it is taken out of the ring, before it is
//! acknowledged, so what is delivered anywhere can be read everywhere.

use alloc::vec::Vec;

use tradewind_ledger::{RequestId, RequestNumber, SessionId};

use crate::ring::Flags;

/// Bytes before a command.
pub(crate) const HEAD: usize = 28;

/// The head of an item.
pub(crate) fn head(request: RequestId, len: usize) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..16].copy_from_slice(&request.session.0.to_le_bytes());
    head[16..24].copy_from_slice(&request.number.0.to_le_bytes());
    head[24..].copy_from_slice(&(len as u32).to_le_bytes());
    head
}

fn read_head(bytes: &[u8]) -> Option<(RequestId, usize, &[u8])> {
    let (session, rest) = bytes.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    let (len, rest) = rest.split_first_chunk()?;
    let session = SessionId(u128::from_le_bytes(*session));
    let number = RequestNumber(u64::from_le_bytes(*number));
    Some((RequestId { session, number }, u32::from_le_bytes(*len) as usize, rest))
}

/// Takes one item off the front of a batch; `None` at its end, or if it is no batch.
pub(crate) fn next_item<'a>(batch: &mut &'a [u8]) -> Option<(RequestId, &'a [u8])> {
    let (request, len, rest) = read_head(batch)?;
    let (command, rest) = rest.split_at_checked(len)?;
    *batch = rest;
    Some((request, command))
}

/// Checks the payloads of one sender, in order.
#[derive(Default, Debug)]
pub(crate) struct Checker {
    /// Bytes that a cut command still lacks.
    missing: Option<usize>,
}

impl Checker {
    /// Whether a payload can follow; `longest` bounds a command.
    pub(crate) fn check(
        &mut self,
        flags: Flags,
        payload: &[u8],
        longest: usize,
    ) -> Result<(), &'static str> {
        if flags.has(Flags::SNAPSHOT) {
            let alone = !flags.has(Flags::FRAGMENT) && self.missing.is_none();
            return if alone { Ok(()) } else { Err("a snapshot inside a cut command") };
        }
        if !flags.has(Flags::FRAGMENT) {
            return if self.missing.is_some() {
                Err("a batch inside a cut command")
            } else {
                check_batch(payload, longest)
            };
        }
        let (missing, piece) = match (flags.has(Flags::FIRST), self.missing) {
            (true, None) => {
                let (_, len, piece) = read_head(payload).ok_or("a cut command without its head")?;
                (len, piece)
            }
            (false, Some(missing)) => (missing, payload),
            _ => return Err("the pieces of a command do not follow each other"),
        };
        if missing > longest {
            return Err("a command longer than allowed");
        }
        let left = missing.checked_sub(piece.len()).ok_or("a piece beyond its command")?;
        if flags.has(Flags::LAST) != (left == 0) {
            return Err("a cut command of the wrong length");
        }
        self.missing = (left > 0).then_some(left);
        Ok(())
    }
}

fn check_batch(mut batch: &[u8], longest: usize) -> Result<(), &'static str> {
    while let Some((_, command)) = next_item(&mut batch) {
        if command.len() > longest {
            return Err("a command longer than allowed");
        }
    }
    if batch.is_empty() { Ok(()) } else { Err("not a batch of commands") }
}

/// Puts the pieces of a sender's cut command together, in the order of delivery.
#[derive(Default, Debug)]
pub(crate) struct Assembly {
    command: Option<(RequestId, Vec<u8>)>,
}

impl Assembly {
    /// Takes the next, checked piece; gives the command with its last one.
    pub(crate) fn push(&mut self, flags: Flags, payload: &[u8]) -> Option<(RequestId, Vec<u8>)> {
        if flags.has(Flags::FIRST) {
            let (request, len, piece) = read_head(payload)?;
            let mut command = Vec::with_capacity(len);
            command.extend_from_slice(piece);
            self.command = Some((request, command));
        } else if let Some((_, command)) = &mut self.command {
            command.extend_from_slice(payload);
        }
        if flags.has(Flags::LAST) { self.command.take() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CUT: Flags = Flags::FRAGMENT;

    fn request() -> RequestId {
        RequestId { session: SessionId(9), number: RequestNumber(4) }
    }

    #[test]
    fn pieces_make_the_command_again() {
        let (mut checker, mut assembly) = (Checker::default(), Assembly::default());
        let first = [&head(request(), 5)[..], b"ab"].concat();
        let pieces =
            [(CUT.with(Flags::FIRST), &first[..]), (CUT, b"cd"), (CUT.with(Flags::LAST), b"e")];
        let mut whole = None;
        for (flags, piece) in pieces {
            assert_eq!(checker.check(flags, piece, 5), Ok(()));
            whole = assembly.push(flags, piece);
        }
        assert_eq!(whole, Some((request(), b"abcde".to_vec())));
    }

    #[test]
    fn pieces_out_of_place_are_refused() {
        let first = [&head(request(), 5)[..], b"ab"].concat();
        let check = |missing, flags, piece: &[u8]| Checker { missing }.check(flags, piece, 5);
        assert!(check(None, CUT, b"cd").is_err());
        assert!(check(Some(3), CUT.with(Flags::FIRST), &first).is_err());
        assert!(check(Some(3), CUT.with(Flags::LAST), b"cd").is_err());
        assert!(check(Some(3), CUT, b"cde").is_err());
        assert!(check(Some(3), CUT, b"cdef").is_err());
        assert!(check(Some(3), Flags::default(), b"").is_err());
        let long = head(request(), 6);
        assert!(check(None, CUT.with(Flags::FIRST), &long).is_err());
    }

    proptest! {
        #[test]
        fn any_payload_is_checked_without_panic(
            bits in prop_oneof![0u32..8, 64u32..72],
            payload in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let _ = Checker::default().check(Flags(bits), &payload, 50);
        }
    }
}
