//! Reads the records of a segment's file one after another, in bounded memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tradewind_ledger::entry::MAX_ENTRY;
use tradewind_ledger::ids::Version;
use tradewind_ledger::segment_file::{
    Framing, Header, MAX_FILE_BYTES, PAGE, RECORD_HEADER, Record, RecordError, State,
};

use crate::error::{Context, Damage, FileError, Found, ReadError};

/// Bytes read at a time; more than any record has.
const CHUNK: usize = 1 << 20;

/// A segment's file, opened for reading, with its header read.
pub(crate) struct Scan<'a> {
    file: &'a File,
    path: &'a Path,
    len: u64,
    buffer: Vec<u8>,
    /// Offset in the file of the first byte of `buffer`, and of the next record.
    buffer_start: u64,
    offset: u64,
    version: Version,
}

/// What the scan came to.
pub(crate) enum Step<'a> {
    /// The next entry.
    Entry(&'a [u8]),
    /// The file's end, or unused space.
    End,
    /// No record can be read here.
    Bad(RecordError),
}

impl<'a> Scan<'a> {
    /// Reads and checks the header of the file at `path`, whose name says that it starts at `first`.
    pub(crate) fn open(
        file: &'a File,
        path: &'a Path,
        first: Version,
    ) -> Result<(Self, Header, State), ReadError> {
        let len = file.metadata().context("read the length", path)?.len();
        let damage = |offset, found| Damage { file: path.to_owned(), offset, found };
        if len > u64::from(MAX_FILE_BYTES) {
            let found = Found::Length { len, max: MAX_FILE_BYTES.into() };
            return Err(damage(MAX_FILE_BYTES.into(), found).into());
        }
        let mut scan = Self {
            file,
            path,
            len,
            buffer: Vec::new(),
            buffer_start: 0,
            offset: PAGE as u64,
            version: first,
        };
        scan.fill(0, CHUNK)?;
        let (header, state) = Header::parse(&scan.buffer)
            .map_err(|error| damage(error.offset() as u64, error.into()))?;
        if header.first != first {
            return Err(damage(16, Found::First(header.first)).into());
        }
        Ok((scan, header, state))
    }

    /// Where the next record starts, and which it is.
    pub(crate) fn place(&self) -> (u64, Version) {
        (self.offset, self.version)
    }

    pub(crate) fn path(&self) -> &'a Path {
        self.path
    }

    /// Length of the file.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Goes on by one record.
    pub(crate) fn step(&mut self, framing: &Framing) -> Result<Step<'_>, FileError> {
        let start = self.buffered_record()?;
        match framing.parse(self.version, &self.buffer[start..]) {
            Ok(Record::Entry(entry)) => {
                self.offset += (RECORD_HEADER + entry.len()) as u64;
                self.version = self.version.next();
                Ok(Step::Entry(entry))
            }
            Ok(Record::End) => Ok(Step::End),
            Err(error) => Ok(Step::Bad(error)),
        }
    }

    /// Sees to it that the next record is in the buffer as far as it is in the file; where it starts.
    fn buffered_record(&mut self) -> Result<usize, FileError> {
        let start = (self.offset - self.buffer_start) as usize;
        let rest = &self.buffer[start..];
        let needed = match rest.first_chunk::<4>() {
            Some(len) => RECORD_HEADER + (u32::from_le_bytes(*len) as usize).min(MAX_ENTRY),
            None => RECORD_HEADER,
        };
        if rest.len() >= needed || self.buffer_start + self.buffer.len() as u64 == self.len {
            return Ok(start);
        }
        self.fill(self.offset, CHUNK)?;
        Ok(0)
    }

    /// The end of what is not zero at or after the place of the next record; that place if all is.
    pub(crate) fn used_until(&mut self) -> Result<u64, FileError> {
        let mut used = self.offset;
        let mut at = self.offset;
        while at < self.len {
            self.fill(at, CHUNK)?;
            if let Some(last) = self.buffer.iter().rposition(|byte| *byte != 0) {
                used = at + last as u64 + 1;
            }
            at += self.buffer.len() as u64;
        }
        Ok(used)
    }

    fn fill(&mut self, start: u64, len: usize) -> Result<(), FileError> {
        let len = self.len.saturating_sub(start).min(len as u64) as usize;
        self.buffer.resize(len, 0);
        self.buffer_start = start;
        self.file.read_exact_at(&mut self.buffer, start).context("read", self.path)
    }
}
