//! The bytes of a link: `docs/formats/fabric-tcp.md`. Pure; whatever comes in gives a value or an error.

use crate::fabric::{MESSAGE_BYTES_MAX, NodeId, ROW_BYTES_MAX, ranges::RangeSet};

/// The version that both ends' hello must carry.
pub(super) const VERSION: u16 = 1;

/// Length of the header that begins each frame.
pub(super) const HEADER_BYTES: usize = 16;

/// First two bytes of each frame.
const MAGIC: [u8; 2] = *b"TF";

/// No hello and no farewell is longer.
const WORDS_BYTES_MAX: usize = 1_024;

/// Length of what begins each range of a batch: offset and length.
const RANGE_BYTES: usize = 8;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Who the sender is; the first frame in each direction.
    Hello = 1,
    /// The sender has made its regions for the view in the header.
    Prepared = 2,
    /// Ranges of the sender's row, to land all at once, in the view in the header.
    Batch = 3,
    /// A message of the control lane.
    Message = 4,
    /// A sign of life.
    KeepAlive = 5,
    /// Why the sender closes the link, in words; the last frame.
    Farewell = 6,
    /// What a provider that is built upon this one has to say, in order with messages.
    Beneath = 7,
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// Bytes that follow the header.
    pub(super) length: usize,
    /// The view of a batch or of `Prepared`; 0 in all others.
    pub(super) view: u64,
}

/// Why bytes are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    #[error("the bytes received are no frame (they begin with {0:02x?})")]
    Magic([u8; 2]),
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    #[error("a {kind:?} frame of {found} bytes: at most {max} are allowed")]
    Length { kind: Kind, found: usize, max: usize },
    #[error("a malformed {0:?} frame")]
    Malformed(Kind),
    #[error("a range at {offset} of {length} bytes in a row of {row} bytes")]
    Range { offset: usize, length: usize, row: usize },
    #[error(
        "a hello of version {0} of the fabric's protocol, this node speaks {VERSION}: upgrade the older one"
    )]
    Version(u16),
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER_BYTES] {
        let length = u32::try_from(self.length).expect("frames are far below 4 GiB");
        let mut bytes = [0; HEADER_BYTES];
        bytes[..2].copy_from_slice(&MAGIC);
        bytes[2] = self.kind as u8;
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes[8..].copy_from_slice(&self.view.to_le_bytes());
        bytes
    }

    /// Decodes a header and checks the length that it announces.
    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, WireError> {
        if bytes[..2] != MAGIC {
            return Err(WireError::Magic([bytes[0], bytes[1]]));
        }
        let (kind, max) = match bytes[2] {
            1 => (Kind::Hello, WORDS_BYTES_MAX),
            2 => (Kind::Prepared, 0),
            3 => (Kind::Batch, batch_bytes_max(ROW_BYTES_MAX)),
            4 => (Kind::Message, MESSAGE_BYTES_MAX),
            5 => (Kind::KeepAlive, 0),
            6 => (Kind::Farewell, WORDS_BYTES_MAX),
            7 => (Kind::Beneath, WORDS_BYTES_MAX),
            other => return Err(WireError::Kind(other)),
        };
        let found = u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes")) as usize;
        if found > max {
            return Err(WireError::Length { kind, found, max });
        }
        let view = u64::from_le_bytes(bytes[8..].try_into().expect("eight bytes"));
        let has_view = matches!(kind, Kind::Batch | Kind::Prepared);
        if bytes[3] != 0 || (view != 0 && !has_view) {
            return Err(WireError::Malformed(kind));
        }
        Ok(Self { kind, length: found, view })
    }
}

/// The longest batch of a row: each range but the first stands for a gap of at least a word before
/// it, and what begins a range is as long as a word.
pub(super) fn batch_bytes_max(row_len: usize) -> usize {
    row_len + RANGE_BYTES
}

/// Appends a frame of these ranges of `row`.
pub(super) fn encode_batch(view: u64, ranges: &RangeSet, row: &[u8], out: &mut Vec<u8>) {
    let length = ranges.bytes() + ranges.iter().len() * RANGE_BYTES;
    out.reserve(HEADER_BYTES + length);
    out.extend_from_slice(&Header { kind: Kind::Batch, length, view }.encode());
    encode_ranges(ranges, row, out);
}

/// Appends the body of a batch: for each range where it is, its length, and its content.
pub(super) fn encode_ranges(ranges: &RangeSet, row: &[u8], out: &mut Vec<u8>) {
    for range in ranges.iter() {
        for number in [range.start, range.len()] {
            let number = u32::try_from(number).expect("rows are far below 4 GiB");
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&row[range.clone()]);
    }
}

/// Writes a batch into the copy of its sender's row: all of it, or nothing if any of it is wrong.
pub(super) fn land_batch(mut batch: &[u8], row: &mut [u8]) -> Result<(), WireError> {
    let mut check = batch;
    while !check.is_empty() {
        check = next_range(check, row.len())?.2;
    }
    while let Ok((offset, bytes, rest)) = next_range(batch, row.len()) {
        row[offset..offset + bytes.len()].copy_from_slice(bytes);
        batch = rest;
    }
    Ok(())
}

/// The first range of a batch (where, what) and the rest of the batch.
fn next_range(batch: &[u8], row: usize) -> Result<(usize, &[u8], &[u8]), WireError> {
    let (head, rest) =
        batch.split_at_checked(RANGE_BYTES).ok_or(WireError::Malformed(Kind::Batch))?;
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes")) as usize;
    let (offset, length) = (number(&head[..4]), number(&head[4..]));
    let whole_words = offset.is_multiple_of(8) && length.is_multiple_of(8) && length > 0;
    if !whole_words || offset.checked_add(length).is_none_or(|end| end > row) {
        return Err(WireError::Range { offset, length, row });
    }
    let (bytes, rest) = rest.split_at_checked(length).ok_or(WireError::Malformed(Kind::Batch))?;
    Ok((offset, bytes, rest))
}

/// Who speaks, to whom, and in which deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) incarnation: u64,
    /// Digest of what the nodes of a site must agree on.
    pub(super) digest: [u8; 32],
    pub(super) deployment: String,
    pub(super) site: String,
    /// The sender's name.
    pub(super) name: String,
}

impl Hello {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        for number in [VERSION, self.from.0, self.to.0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        out.extend_from_slice(&self.digest);
        for text in [&self.deployment, &self.site, &self.name] {
            out.push(u8::try_from(text.len()).expect("names are at most 63 bytes long"));
            out.extend_from_slice(text.as_bytes());
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut rest = bytes;
        let version = u16::from_le_bytes(take(&mut rest)?);
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        let hello = Self {
            from: NodeId(u16::from_le_bytes(take(&mut rest)?)),
            to: NodeId(u16::from_le_bytes(take(&mut rest)?)),
            incarnation: u64::from_le_bytes(take(&mut rest)?),
            digest: take(&mut rest)?,
            deployment: take_text(&mut rest)?,
            site: take_text(&mut rest)?,
            name: take_text(&mut rest)?,
        };
        if rest.is_empty() { Ok(hello) } else { Err(WireError::Malformed(Kind::Hello)) }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], WireError> {
    let (head, tail) = rest.split_first_chunk().ok_or(WireError::Malformed(Kind::Hello))?;
    *rest = tail;
    Ok(*head)
}

/// A text with a length byte before it; only what names are made of is let through to logs.
fn take_text(rest: &mut &[u8]) -> Result<String, WireError> {
    let malformed = WireError::Malformed(Kind::Hello);
    let [length] = take(rest)?;
    let (head, tail) = rest.split_at_checked(usize::from(length)).ok_or(malformed.clone())?;
    *rest = tail;
    let text = std::str::from_utf8(head).map_err(|_| malformed.clone())?;
    if text.chars().any(char::is_control) { Err(malformed) } else { Ok(text.to_owned()) }
}

/// The words of a farewell, fit for a log whatever the bytes are.
pub(super) fn farewell_words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).take(500).collect()
}

/// The words of a farewell, cut to what a frame takes.
pub(super) fn farewell(reason: &str) -> &[u8] {
    &reason.as_bytes()[..reason.floor_char_boundary(WORDS_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello() -> Hello {
        Hello {
            from: NodeId(2),
            to: NodeId(0),
            incarnation: 7,
            digest: [9; 32],
            deployment: "atlas".into(),
            site: "ams".into(),
            name: "a3".into(),
        }
    }

    #[test]
    fn golden_bytes_of_version_1() {
        let mut ranges = RangeSet::default();
        ranges.insert(&(8..16));
        let mut frame = Vec::new();
        encode_batch(5, &ranges, &[0xab; 24], &mut frame);
        let mut expected = b"TF\x03\0\x10\0\0\0\x05\0\0\0\0\0\0\0\x08\0\0\0\x08\0\0\0".to_vec();
        expected.extend([0xab; 8]);
        assert_eq!(frame, expected);

        let mut expected = b"\x01\0\x02\0\0\0\x07\0\0\0\0\0\0\0".to_vec();
        expected.extend([9; 32]);
        expected.extend(b"\x05atlas\x03ams\x02a3");
        assert_eq!(hello().encode(), expected);
    }

    #[test]
    fn a_hello_is_decoded_strictly() {
        let bytes = hello().encode();
        assert_eq!(Hello::decode(&bytes), Ok(hello()));
        for length in 0..bytes.len() {
            assert!(Hello::decode(&bytes[..length]).is_err(), "cut to {length} bytes");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(Hello::decode(&longer), Err(WireError::Malformed(Kind::Hello)));
        let mut newer = bytes;
        newer[0] = 2;
        assert_eq!(Hello::decode(&newer), Err(WireError::Version(2)));
    }

    #[test]
    fn a_batch_lands_wholly_or_not_at_all() {
        let mut ranges = RangeSet::default();
        ranges.insert(&(0..8));
        ranges.insert(&(16..32));
        let mut frame = Vec::new();
        encode_batch(1, &ranges, &[7; 32], &mut frame);
        let batch = &frame[HEADER_BYTES..];

        let mut row = [0; 24];
        let refused = land_batch(batch, &mut row);
        assert_eq!(refused, Err(WireError::Range { offset: 16, length: 16, row: 24 }));
        assert_eq!(row, [0; 24], "the first range would have fitted");

        let mut row = [0; 32];
        land_batch(batch, &mut row).unwrap();
        assert_eq!((row[7], row[8], row[16], row[31]), (7, 0, 7, 7));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            _ = Hello::decode(&bytes);
            _ = land_batch(&bytes, &mut [0; 64]);
            if let Some(header) = bytes.first_chunk()
                && let Ok(decoded) = Header::decode(header)
            {
                prop_assert_eq!(&decoded.encode(), header, "one encoding for each header");
            }
            prop_assert!(!farewell_words(&bytes).contains('\n'));
        }
    }
}
