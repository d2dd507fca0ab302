//! What a message carries: a batch of commands, or a piece of one.
//!
//! A batch is a run of items: session (16 bytes), number (8), length of the command (4), command. The highest bit
//! of the length says that the command is a lean one: it begins with the number of bodies of its sender that must
//! be here for it (8), its own included. A command that does not fit a message is cut: the first piece begins with the same head, `FIRST` and `LAST` flag the
//! ends. Integers are little-endian. A message is checked when it is taken out of the ring, before it is
//! acknowledged, so what is delivered anywhere can be read everywhere.

use alloc::vec::Vec;

use tradewind_ledger::{RequestId, RequestNumber, SessionId};

use crate::ring::Flags;

/// Bytes before a command.
pub(crate) const HEAD: usize = 28;

/// Bytes at the beginning of a lean command.
pub(crate) const NAMED: usize = 8;
/// The bit of the length that says that a command is lean.
const LEAN: u32 = 1 << 31;

/// What stands before a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    pub(crate) request: RequestId,
    /// Bytes of the command.
    pub(crate) len: usize,
    /// Whether values of it are bodies of the bulk lane.
    pub(crate) lean: bool,
}

impl Head {
    pub(crate) fn encode(self) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[..16].copy_from_slice(&self.request.session.0.to_le_bytes());
        head[16..24].copy_from_slice(&self.request.number.0.to_le_bytes());
        let lean = if self.lean { LEAN } else { 0 };
        head[24..].copy_from_slice(&(self.len as u32 | lean).to_le_bytes());
        head
    }

    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (session, rest) = bytes.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let session = SessionId(u128::from_le_bytes(*session));
        let number = RequestNumber(u64::from_le_bytes(*number));
        let len = u32::from_le_bytes(*len);
        let (len, lean) = ((len & !LEAN) as usize, len & LEAN != 0);
        Some((Self { request: RequestId { session, number }, len, lean }, rest))
    }
}

/// Takes one item off the front of a batch; `None` at its end, or if it is no batch.
pub(crate) fn next_item<'a>(batch: &mut &'a [u8]) -> Option<(Head, &'a [u8])> {
    let (head, rest) = Head::read(batch)?;
    let (command, rest) = rest.split_at_checked(head.len)?;
    *batch = rest;
    Some((head, command))
}

/// Of a lean command: how many bodies of its sender must be here, and the rest.
pub(crate) fn split_lean(command: &[u8]) -> Option<(u64, &[u8])> {
    let (named, rest) = command.split_first_chunk::<NAMED>()?;
    Some((u64::from_le_bytes(*named), rest))
}

/// Checks the payloads of one sender, in order.
#[derive(Clone, Default, Debug)]
pub(crate) struct Checker {
    /// Bytes that a cut command still lacks.
    missing: Option<usize>,
    /// Bodies of the sender that its commands so far named.
    named: u64,
}

impl Checker {
    /// Whether a payload can follow; `longest` bounds a command, `held` are the bodies of the sender that are here.
    pub(crate) fn check(
        &mut self,
        flags: Flags,
        payload: &[u8],
        longest: usize,
        held: u64,
    ) -> Result<(), &'static str> {
        if flags.has(Flags::SNAPSHOT) {
            let alone = !flags.has(Flags::FRAGMENT) && self.missing.is_none();
            return if alone { Ok(()) } else { Err("a snapshot inside a cut command") };
        }
        if !flags.has(Flags::FRAGMENT) {
            return if self.missing.is_some() {
                Err("a batch inside a cut command")
            } else {
                self.check_batch(payload, longest, held)
            };
        }
        let (missing, piece) = match (flags.has(Flags::FIRST), self.missing) {
            (true, None) => {
                let (head, piece) = Head::read(payload).ok_or("a cut command without its head")?;
                self.check_named(head, piece, held)?;
                (head.len, piece)
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

    /// Bodies of the sender that its commands so far named.
    pub(crate) fn named(&self) -> u64 {
        self.named
    }

    fn check_batch(
        &mut self,
        mut batch: &[u8],
        longest: usize,
        held: u64,
    ) -> Result<(), &'static str> {
        while let Some((head, command)) = next_item(&mut batch) {
            if command.len() > longest {
                return Err("a command longer than allowed");
            }
            self.check_named(head, command, held)?;
        }
        if batch.is_empty() { Ok(()) } else { Err("not a batch of commands") }
    }

    fn check_named(&mut self, head: Head, begin: &[u8], held: u64) -> Result<(), &'static str> {
        if !head.lean {
            return Ok(());
        }
        let (named, _) = split_lean(begin).ok_or("a lean command without its bodies' number")?;
        if named <= self.named {
            return Err("a lean command that names no body");
        }
        if named > held {
            return Err("a command was ordered before its bodies were here");
        }
        self.named = named;
        Ok(())
    }
}

/// Puts the pieces of a sender's cut command together, in the order of delivery.
#[derive(Clone, Default, Debug)]
pub(crate) struct Assembly {
    command: Option<(Head, Vec<u8>)>,
}

impl Assembly {
    /// Takes the next, checked piece; gives the command with its last one.
    pub(crate) fn push(&mut self, flags: Flags, payload: &[u8]) -> Option<(Head, Vec<u8>)> {
        if flags.has(Flags::FIRST) {
            let (head, piece) = Head::read(payload)?;
            let mut command = Vec::with_capacity(head.len);
            command.extend_from_slice(piece);
            self.command = Some((head, command));
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

    fn head(len: usize, lean: bool) -> Head {
        let request = RequestId { session: SessionId(9), number: RequestNumber(4) };
        Head { request, len, lean }
    }

    #[test]
    fn pieces_make_the_command_again() {
        let (mut checker, mut assembly) = (Checker::default(), Assembly::default());
        let first = [&head(5, false).encode()[..], b"ab"].concat();
        let pieces =
            [(CUT.with(Flags::FIRST), &first[..]), (CUT, b"cd"), (CUT.with(Flags::LAST), b"e")];
        let mut whole = None;
        for (flags, piece) in pieces {
            assert_eq!(checker.check(flags, piece, 5, 0), Ok(()));
            whole = assembly.push(flags, piece);
        }
        assert_eq!(whole, Some((head(5, false), b"abcde".to_vec())));
    }

    #[test]
    fn pieces_out_of_place_are_refused() {
        let first = [&head(5, false).encode()[..], b"ab"].concat();
        let check =
            |missing, flags, piece: &[u8]| Checker { missing, named: 0 }.check(flags, piece, 5, 0);
        assert!(check(None, CUT, b"cd").is_err());
        assert!(check(Some(3), CUT.with(Flags::FIRST), &first).is_err());
        assert!(check(Some(3), CUT.with(Flags::LAST), b"cd").is_err());
        assert!(check(Some(3), CUT, b"cde").is_err());
        assert!(check(Some(3), CUT, b"cdef").is_err());
        assert!(check(Some(3), Flags::default(), b"").is_err());
        let long = head(6, false).encode();
        assert!(check(None, CUT.with(Flags::FIRST), &long).is_err());
    }

    #[test]
    fn a_command_whose_bodies_are_not_here_is_refused() {
        let item =
            |named: u64| [&head(NAMED + 1, true).encode()[..], &named.to_le_bytes(), b"x"].concat();
        let mut checker = Checker::default();
        let batch = [item(2), item(3)].concat();
        assert_eq!(checker.check(Flags::default(), &batch, 50, 3), Ok(()));
        assert_eq!(checker.named(), 3);
        assert!(checker.check(Flags::default(), &item(3), 50, 9).is_err(), "named before");
        assert!(checker.check(Flags::default(), &item(5), 50, 4).is_err(), "not here");
        let piece = &item(5)[..HEAD + NAMED];
        assert!(checker.check(CUT.with(Flags::FIRST), piece, 50, 4).is_err());
        assert!(checker.check(CUT.with(Flags::FIRST), &piece[..HEAD + 7], 50, 9).is_err());
        assert_eq!(checker.check(CUT.with(Flags::FIRST), piece, 50, 5), Ok(()));
    }

    proptest! {
        #[test]
        fn any_payload_is_checked_without_panic(
            bits in prop_oneof![0u32..8, 64u32..72],
            payload in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let _ = Checker::default().check(Flags(bits), &payload, 50, 9);
        }
    }
}
