//! The layout of a segment's file: header page, records, file names (`docs/formats/segment-file.md`).
//!
//! Pure: parses and formats bytes, and reads no file. A file starts with a header page of
//! [`PAGE`] bytes; the records of consecutive versions follow without a gap. While a segment is open
//! its header carries two [`Watermark`] slots, and zeroes (preallocated space) may follow its last
//! record; a sealed file has neither, so that it has the same bytes on every replica.
//!
//! Nothing read here is evidence: the header is a hint and the checksums find torn and misdirected
//! writes. What an entry says is proved by the tree's hashes alone.

mod crc32c;
mod name;

pub use crc32c::crc32c_append;
pub use name::{SegmentName, SegmentNameError};

use crate::entry::MAX_ENTRY;
use crate::ids::{Digest, Lineage, Version};
use crate::segment::{MAX_SEGMENT_BYTES, MAX_SEGMENT_ENTRIES};

/// Bytes of the header page, and the offset of the first record.
pub const PAGE: usize = 4_096;
/// Bytes before each entry: its length and its checksum.
pub const RECORD_HEADER: usize = 8;
/// Bytes of a segment's file at most: of the longest segment that a reader accepts, and its SEAL.
pub const MAX_FILE_BYTES: u32 = PAGE as u32
    + MAX_SEGMENT_BYTES as u32
    + MAX_ENTRY as u32
    + MAX_SEGMENT_ENTRIES * RECORD_HEADER as u32;
/// First bytes of each segment file.
pub const MAGIC: [u8; 8] = *b"TWSEGMNT";
/// The version of the layout that this code reads and writes.
pub const FORMAT: u32 = 1;

const HEADER_LEN: usize = 60;
const SLOT_LEN: usize = 32;
/// The two slots lie in different disk sectors, so that one torn write cannot hit both.
const SLOT_OFFSETS: [usize; 2] = [512, 1_024];

/// Continues a CRC-32C over more bytes; [`crc32c_append`] or a faster equal.
pub type Checksum = fn(u32, &[u8]) -> u32;

/// What the header page says for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Version of the first record.
    pub first: Version,
    /// The ledger that the segment belongs to.
    pub lineage: Lineage,
}

/// How far an open file was known to be on disk: bytes below may be damaged, but not torn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// Counts the marks written to this file; the larger of two is the later.
    pub sequence: u64,
    /// Length of the durable part of the file in bytes; a record ends there.
    pub bytes: u64,
    /// Version of the next record after it.
    pub next: Version,
}

/// What a header page says about the state of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Both slots are blank: every record is complete and durable, and the last one is a SEAL.
    Sealed,
    /// Entries are still being appended.
    Open {
        /// The later of the valid marks.
        watermark: Watermark,
        /// One of the slots is damaged, as by a write of it that was interrupted.
        torn_slot: bool,
    },
    /// Neither slot is valid, and they are not both blank. If the last record is a SEAL, the file's sealing was
    /// interrupted while it blanked them; otherwise the file is damaged.
    Torn,
}

/// Why a header page is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The file ends within the page.
    #[error("the file has {0} bytes, but its header takes {PAGE}")]
    Short(usize),
    /// Another kind of file.
    #[error("the first 8 bytes are {0:02x?} instead of `TWSEGMNT`")]
    Magic([u8; 8]),
    /// Written by a newer release, or damaged.
    #[error("format version {0} is not supported; this program reads version {FORMAT}")]
    Format(u32),
    /// The header's own checksum does not hold.
    #[error("the header's checksum is {found:#010x} instead of {computed:#010x}")]
    Checksum {
        /// The checksum in the file.
        found: u32,
        /// The checksum of the bytes in the file.
        computed: u32,
    },
    /// A byte that has to be zero is not.
    #[error("byte {offset} of the header page is {found:#04x} instead of zero")]
    NotZero {
        /// Offset of the byte.
        offset: usize,
        /// What is there.
        found: u8,
    },
    /// Neither slot is valid, and they are not both blank.
    #[error("neither watermark slot is valid")]
    Slots,
}

impl HeaderError {
    /// Offset in the file of what was found wrong.
    #[must_use]
    pub fn offset(&self) -> usize {
        match self {
            Self::Short(_) | Self::Magic(_) => 0,
            Self::Format(_) => 8,
            Self::Checksum { .. } => HEADER_LEN - 4,
            Self::NotZero { offset, .. } => *offset,
            Self::Slots => SLOT_OFFSETS[0],
        }
    }
}

impl Header {
    /// The header page of a sealed file: no watermarks.
    #[must_use]
    pub fn page(&self) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        page[..HEADER_LEN].copy_from_slice(&self.encode());
        page
    }

    fn encode(&self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        header[12..16].copy_from_slice(&(PAGE as u32).to_le_bytes());
        header[16..24].copy_from_slice(&self.first.0.to_le_bytes());
        header[24..56].copy_from_slice(&self.lineage.0.0);
        let crc = crc32c_append(0, &header[..56]);
        header[56..].copy_from_slice(&crc.to_le_bytes());
        header
    }

    /// Reads a file's header page strictly: every byte without a meaning must be zero.
    ///
    /// # Errors
    /// Says what was found and where; nothing is known of the file then.
    pub fn parse(bytes: &[u8]) -> Result<(Self, State), HeaderError> {
        let page = bytes.first_chunk::<PAGE>().ok_or(HeaderError::Short(bytes.len()))?;
        let magic = array(&page[..8]);
        if magic != MAGIC {
            return Err(HeaderError::Magic(magic));
        }
        let format = u32::from_le_bytes(array(&page[8..12]));
        if format != FORMAT {
            return Err(HeaderError::Format(format));
        }
        let header = Self {
            first: Version(u64::from_le_bytes(array(&page[16..24]))),
            lineage: Lineage(Digest(array(&page[24..56]))),
        };
        let found = u32::from_le_bytes(array(&page[56..HEADER_LEN]));
        let computed = crc32c_append(0, &page[..56]);
        if found != computed || page[..HEADER_LEN] != header.encode() {
            return Err(HeaderError::Checksum { found, computed });
        }
        let [a, b] = SLOT_OFFSETS;
        for gap in [HEADER_LEN..a, a + SLOT_LEN..b, b + SLOT_LEN..PAGE] {
            let start = gap.start;
            if let Some(at) = page[gap].iter().position(|byte| *byte != 0) {
                let offset = start + at;
                return Err(HeaderError::NotZero { offset, found: page[offset] });
            }
        }
        Ok((header, header.state(page)))
    }

    fn state(&self, page: &[u8; PAGE]) -> State {
        let slots = SLOT_OFFSETS.map(|offset| &page[offset..offset + SLOT_LEN]);
        let blank = slots.map(|slot| slot.iter().all(|byte| *byte == 0));
        let marks = slots.map(|slot| self.parse_slot(slot));
        let latest = marks.into_iter().flatten().max_by_key(|mark| mark.sequence);
        let torn_slot = (0..2).any(|slot| marks[slot].is_none() && !blank[slot]);
        match latest {
            Some(watermark) => State::Open { watermark, torn_slot },
            None if torn_slot => State::Torn,
            None => State::Sealed,
        }
    }

    fn parse_slot(&self, slot: &[u8]) -> Option<Watermark> {
        let number = |at: usize| u64::from_le_bytes(array(&slot[at..at + 8]));
        let mark = Watermark { sequence: number(0), bytes: number(8), next: Version(number(16)) };
        (slot == mark.slot(self).1.as_slice()).then_some(mark)
    }
}

impl Watermark {
    /// The mark of a file that has no record yet.
    #[must_use]
    pub fn initial(first: Version) -> Self {
        Self { sequence: 1, bytes: PAGE as u64, next: first }
    }

    /// Offset in the file and the bytes of this mark's slot; marks alternate between two slots.
    /// The checksum covers the header too, so that no other file's slot is taken for this one's.
    #[must_use]
    pub fn slot(&self, header: &Header) -> (usize, [u8; SLOT_LEN]) {
        let mut slot = [0; SLOT_LEN];
        slot[..8].copy_from_slice(&self.sequence.to_le_bytes());
        slot[8..16].copy_from_slice(&self.bytes.to_le_bytes());
        slot[16..24].copy_from_slice(&self.next.0.to_le_bytes());
        let crc = crc32c_append(crc32c_append(0, &header.encode()), &slot[..28]);
        slot[28..].copy_from_slice(&crc.to_le_bytes());
        (SLOT_OFFSETS[usize::from(self.sequence.is_multiple_of(2))], slot)
    }
}

/// Frames entries as records, and finds them again. One per ledger.
#[derive(Clone, Copy, Debug)]
pub struct Framing {
    seed: u32,
    checksum: Checksum,
}

/// What is at the place of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// The entry; the next record starts [`RECORD_HEADER`] and its length further.
    Entry(&'a [u8]),
    /// Nothing: the bytes end here, or a zero length says that this space is unused.
    End,
}

/// Why the bytes at the place of a record are not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end within the record; more of them may complete it.
    #[error("the bytes end within the record: it takes {needed}, and {available} are there")]
    Incomplete {
        /// Bytes of the whole record, as far as they are known.
        needed: usize,
        /// Bytes given.
        available: usize,
    },
    /// No entry is so long.
    #[error("the record's length is {0}; at most {MAX_ENTRY} is allowed")]
    Length(u32),
    /// Torn, damaged, or written for another place.
    #[error("the record's checksum is {found:#010x} instead of {computed:#010x}")]
    Checksum {
        /// The checksum in the file.
        found: u32,
        /// The checksum that this entry has at this version of this ledger.
        computed: u32,
    },
}

impl Framing {
    /// The framing of the ledger with this lineage.
    #[must_use]
    pub fn new(lineage: Lineage, checksum: Checksum) -> Self {
        Self { seed: checksum(0, &lineage.0.0), checksum }
    }

    /// The bytes that go before `entry` at `version`. The checksum is bound to ledger and position,
    /// so that a record written to or read from a wrong place is found.
    ///
    /// # Panics
    /// If the entry is empty or longer than 65,535 bytes.
    #[must_use]
    pub fn record_header(&self, version: Version, entry: &[u8]) -> [u8; RECORD_HEADER] {
        assert!((1..=MAX_ENTRY).contains(&entry.len()), "an entry has 1 to {MAX_ENTRY} bytes");
        let len = entry.len() as u32;
        let mut header = [0; RECORD_HEADER];
        header[..4].copy_from_slice(&len.to_le_bytes());
        header[4..].copy_from_slice(&self.crc(version, len, entry).to_le_bytes());
        header
    }

    /// Reads the record of `version`, which starts with the first of `bytes`.
    ///
    /// # Errors
    /// If there is neither a whole record nor unused space.
    pub fn parse<'a>(&self, version: Version, bytes: &'a [u8]) -> Result<Record<'a>, RecordError> {
        let available = bytes.len();
        if available == 0 {
            return Ok(Record::End);
        }
        let Some((header, rest)) = bytes.split_first_chunk::<RECORD_HEADER>() else {
            return Err(RecordError::Incomplete { needed: RECORD_HEADER, available });
        };
        let len = u32::from_le_bytes(array(&header[..4]));
        let found = u32::from_le_bytes(array(&header[4..]));
        if len == 0 && found == 0 {
            return Ok(Record::End);
        }
        if !(1..=MAX_ENTRY as u32).contains(&len) {
            return Err(RecordError::Length(len));
        }
        let needed = RECORD_HEADER + len as usize;
        let Some(entry) = rest.get(..len as usize) else {
            return Err(RecordError::Incomplete { needed, available });
        };
        let computed = self.crc(version, len, entry);
        if found != computed {
            return Err(RecordError::Checksum { found, computed });
        }
        Ok(Record::Entry(entry))
    }

    fn crc(&self, version: Version, len: u32, entry: &[u8]) -> u32 {
        let mut place = [0; 12];
        place[..8].copy_from_slice(&version.0.to_le_bytes());
        place[8..].copy_from_slice(&len.to_le_bytes());
        (self.checksum)((self.checksum)(self.seed, &place), entry)
    }
}

/// `bytes` as an array; callers slice exactly `N` bytes.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    *bytes.first_chunk().expect("sliced to this length")
}

#[cfg(test)]
mod tests;
