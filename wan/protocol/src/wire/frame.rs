//! The frame that every message and every bulk stream begins with.

use alloc::vec::Vec;

use serde::{Serialize, de::DeserializeOwned};

/// The first four bytes of every frame.
const MAGIC: [u8; 4] = *b"TWwn";

/// Version of the protocol, in every frame. Peers of different versions refuse each other.
pub const PROTOCOL_VERSION: u8 = 1;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 16;

/// Payload bytes of a frame at most.
pub const CONTROL_BYTES_MAX: u32 = 1 << 20;

/// Why bytes are no frame or no message of this protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Does not begin with the magic bytes.
    #[error("not a frame of the mirroring protocol: it begins with {found:02x?}")]
    Magic {
        /// What was there.
        found: [u8; 4],
    },
    /// Another version of the protocol.
    #[error(
        "protocol version {found}, this process speaks {PROTOCOL_VERSION}: upgrade the older one"
    )]
    Version {
        /// What was there.
        found: u8,
    },
    /// Reserved bytes that are not zero.
    #[error("reserved bytes of the frame are not zero")]
    Reserved,
    /// A kind that is unknown or that has no place here.
    #[error("frame kind {found} has no place here")]
    Kind {
        /// What was there.
        found: u8,
    },
    /// A length beyond the limit.
    #[error("{what} of {found} bytes or items, {max} are allowed")]
    Length {
        /// Of what.
        what: &'static str,
        /// What was announced.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// The checksum does not match.
    #[error("checksum of the frame is {found:08x}, its bytes give {expected:08x}")]
    Checksum {
        /// As written in the frame.
        found: u32,
        /// As computed.
        expected: u32,
    },
    /// The payload is no message of this kind.
    #[error("payload is not canonical for frame kind {kind}")]
    Payload {
        /// The frame's kind.
        kind: u8,
    },
    /// Bytes after the end, or missing before it.
    #[error("{found} bytes where {expected} were announced")]
    Size {
        /// What is there.
        found: u64,
        /// What was announced.
        expected: u64,
    },
}

/// A frame's header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the payload is.
    pub kind: u8,
    /// Bytes of the payload.
    pub length: u32,
    crc: u32,
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// On wrong magic, another version, reserved bytes, or a payload beyond [`CONTROL_BYTES_MAX`].
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, WireError> {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let found = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if found != MAGIC {
            return Err(WireError::Magic { found });
        }
        if bytes[4] != PROTOCOL_VERSION {
            return Err(WireError::Version { found: bytes[4] });
        }
        if bytes[6..8] != [0, 0] {
            return Err(WireError::Reserved);
        }
        let length = word(8);
        if length > CONTROL_BYTES_MAX {
            let (found, max) = (length.into(), CONTROL_BYTES_MAX.into());
            return Err(WireError::Length { what: "frame", found, max });
        }
        Ok(Self { kind: bytes[5], length, crc: word(12) })
    }

    /// Checks the payload against the header's length and checksum.
    ///
    /// # Errors
    /// If one of them does not match.
    pub fn check(&self, payload: &[u8]) -> Result<(), WireError> {
        if payload.len() as u64 != u64::from(self.length) {
            let (found, expected) = (payload.len() as u64, self.length.into());
            return Err(WireError::Size { found, expected });
        }
        let expected = checksum(self.kind, self.length, payload);
        if expected != self.crc {
            return Err(WireError::Checksum { found: self.crc, expected });
        }
        Ok(())
    }

    /// Decodes the payload, which must be one value, as this code writes it, and nothing after it.
    pub(super) fn payload<T>(&self, bytes: &[u8]) -> Result<T, WireError>
    where
        T: Serialize + DeserializeOwned,
    {
        self.check(bytes)?;
        let bad = WireError::Payload { kind: self.kind };
        let Ok((value, [])) = postcard::take_from_bytes::<T>(bytes) else { return Err(bad) };
        // Postcard reads numbers that are longer than need be.
        match postcard::to_allocvec(&value) {
            Ok(canonical) if canonical == bytes => Ok(value),
            _ => Err(bad),
        }
    }
}

/// A whole frame.
///
/// # Panics
/// If the payload is beyond the limit, which its builder keeps.
pub(super) fn encode<T: Serialize>(kind: u8, value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.resize(HEADER_BYTES, 0);
    finish(kind, postcard::to_extend(value, out).expect("own messages can be encoded"))
}

/// A whole frame around any payload.
#[cfg(test)]
pub(super) fn encode_raw(kind: u8, payload: &[u8]) -> Vec<u8> {
    finish(kind, [&[0; HEADER_BYTES], payload].concat())
}

/// Fills in the header.
fn finish(kind: u8, mut out: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(out.len() - HEADER_BYTES).expect("own messages are short");
    assert!(length <= CONTROL_BYTES_MAX, "own message of {length} bytes is too long");
    let crc = checksum(kind, length, &out[HEADER_BYTES..]);
    out[..4].copy_from_slice(&MAGIC);
    out[4] = PROTOCOL_VERSION;
    out[5] = kind;
    out[8..12].copy_from_slice(&length.to_le_bytes());
    out[12..16].copy_from_slice(&crc.to_le_bytes());
    out
}

/// CRC-32C over version, kind, length and payload.
fn checksum(kind: u8, length: u32, payload: &[u8]) -> u32 {
    let head = [PROTOCOL_VERSION, kind];
    let bytes = head
        .iter()
        .chain(&length.to_le_bytes())
        .chain(payload)
        .copied()
        .fold(u32::MAX, |crc, byte| TABLE[((crc ^ u32::from(byte)) & 0xff) as usize] ^ (crc >> 8));
    !bytes
}

/// Castagnoli's polynomial, reflected.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { 0x82f6_3b78 ^ (crc >> 1) } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc_32c() {
        let crc = b"123456789".iter().fold(u32::MAX, |crc: u32, byte| {
            TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8)
        });
        assert_eq!(!crc, 0xe306_9283);
    }

    #[test]
    fn each_flipped_bit_of_a_frame_is_refused() {
        let frame = encode(7, &(1_u64, "payload"));
        let read = |bytes: &[u8]| -> Result<(u64, alloc::string::String), WireError> {
            let header = Header::decode(bytes[..HEADER_BYTES].try_into().unwrap())?;
            header.payload(&bytes[HEADER_BYTES..])
        };
        assert_eq!(read(&frame).unwrap().0, 1);
        for bit in 0..frame.len() * 8 {
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn numbers_longer_than_need_be_are_refused() {
        for (payload, is_good) in [(&[0x05][..], true), (&[0x85, 0x00], false)] {
            let frame = encode_raw(7, payload);
            let header = Header::decode(frame[..HEADER_BYTES].try_into().unwrap()).unwrap();
            let read = header.payload::<u64>(&frame[HEADER_BYTES..]);
            assert_eq!(read.is_ok(), is_good, "{payload:?}");
        }
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let frame = encode(7, &(1_u8, 2_u8));
        let header = Header::decode(frame[..HEADER_BYTES].try_into().unwrap()).unwrap();
        assert_eq!(
            header.payload::<u8>(&frame[HEADER_BYTES..]),
            Err(WireError::Payload { kind: 7 })
        );
    }
}
