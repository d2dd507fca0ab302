//! Frames: length, kind, call, body.

use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};
use std::fmt;
use tradewind_store::MAX_COMMAND;

/// Bytes before a frame's body: u32 length of what follows, u8 kind, u64 call, all little-endian.
pub const HEADER: usize = 13;
/// Most bytes of a frame: the largest command, and room for what goes with it.
pub const MAX_FRAME: usize = MAX_COMMAND + (1 << 20);
/// Most bytes of a frame before the connection is established.
pub const MAX_HANDSHAKE: usize = 1 << 20;

/// What a frame holds. Numbers are for ever; unknown ones close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Client to server, first: [`Hello`](super::Hello).
    Hello = 1,
    /// Server to client, first: [`Welcome`](super::Welcome).
    Welcome = 2,
    /// Server to client, instead of a welcome or as the last frame: [`Rejected`](super::Rejected).
    Rejected = 3,
    /// Either way, empty: are you there?
    Ping = 4,
    /// The answer to it, empty.
    Pong = 5,
    /// Client to server: [`Request`](super::Request).
    Request = 16,
    /// Server to client: [`Response`](super::Response).
    Response = 17,
}

impl TryFrom<u8> for Kind {
    type Error = FrameError;

    fn try_from(byte: u8) -> Result<Self, FrameError> {
        [
            Self::Hello,
            Self::Welcome,
            Self::Rejected,
            Self::Ping,
            Self::Pong,
            Self::Request,
            Self::Response,
        ]
        .into_iter()
        .find(|&kind| kind as u8 == byte)
        .ok_or(FrameError::Kind(byte))
    }
}

/// A request's number on its connection, chosen by the client; its response has the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One frame, borrowed from the bytes received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it holds.
    pub kind: Kind,
    /// Which call it belongs to; zero outside of calls.
    pub call: CallId,
    /// The message.
    pub body: &'a [u8],
}

/// Bytes that no correct peer sends. The connection is of no more use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length out of bounds.
    #[error("a frame of {length} bytes; allowed are {min} to {max}", min = HEADER)]
    Length {
        /// The length of the whole frame.
        length: u64,
        /// The longest allowed now.
        max: usize,
    },
    /// A kind this version does not know.
    #[error("a frame of unknown kind {0}; peers of one protocol version know the same kinds")]
    Kind(u8),
    /// A kind that does not belong there.
    #[error("a {0:?} frame where none is allowed")]
    Unexpected(Kind),
    /// A body that is not exactly one message of its kind.
    #[error("a {kind:?} frame whose body of {length} bytes cannot be decoded")]
    Body {
        /// The frame's kind.
        kind: Kind,
        /// The body's length.
        length: usize,
    },
}

/// Takes the first frame off `buffer`: the frame, and how many bytes it took. `None` if it is not complete yet.
///
/// # Errors
/// [`FrameError`] as soon as the header shows that no allowed frame follows.
pub fn split(buffer: &[u8], max: usize) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let Some((header, rest)) = buffer.split_first_chunk::<HEADER>() else { return Ok(None) };
    let [l0, l1, l2, l3, kind, call @ ..] = *header;
    let total = u64::from(u32::from_le_bytes([l0, l1, l2, l3])) + 4;
    if total < HEADER as u64 || total > max as u64 {
        return Err(FrameError::Length { length: total, max });
    }
    let kind = Kind::try_from(kind)?;
    let body = total as usize - HEADER;
    let Some(body) = rest.get(..body) else { return Ok(None) };
    let call = CallId(u64::from_le_bytes(call));
    Ok(Some((Frame { kind, call, body }, total as usize)))
}

/// How long the frame is that `buffer` begins with, bytes, its header included; `None` while the header is not there.
/// To be believed once [`split`] found nothing wrong with it.
#[must_use]
pub fn announced(buffer: &[u8]) -> Option<usize> {
    let header = buffer.first_chunk::<HEADER>()?;
    let [l0, l1, l2, l3, ..] = *header;
    Some(u32::from_le_bytes([l0, l1, l2, l3]) as usize + 4)
}

/// Appends a frame to `out`; if the message is too long for one, gives its length and leaves `out` as it was.
///
/// # Errors
/// [`FrameError::Length`].
pub fn encode(
    out: &mut Vec<u8>,
    kind: Kind,
    call: CallId,
    message: &impl Serialize,
) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.push(kind as u8);
    out.extend_from_slice(&call.0.to_le_bytes());
    postcard::serialize_with_flavor(message, Appended(out)).expect("messages can be written");
    let length = out.len() - start;
    if length > MAX_FRAME {
        out.truncate(start);
        return Err(FrameError::Length { length: length as u64, max: MAX_FRAME });
    }
    let length = u32::try_from(length - 4).expect("bounded above");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// The message in a frame's body, and nothing after it.
///
/// # Errors
/// [`FrameError::Body`].
pub fn decode<'a, T: Deserialize<'a>>(frame: &Frame<'a>) -> Result<T, FrameError> {
    match postcard::take_from_bytes(frame.body) {
        Ok((message, [])) => Ok(message),
        _ => Err(FrameError::Body { kind: frame.kind, length: frame.body.len() }),
    }
}

/// postcard into the end of a buffer that already holds other frames.
struct Appended<'a>(&'a mut Vec<u8>);

impl Flavor for Appended<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}
