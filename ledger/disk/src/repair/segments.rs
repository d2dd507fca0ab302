//! Files of segments, made from a peer's entries.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use tradewind_ledger::entry::MAX_ENTRY;
use tradewind_ledger::ids::{Lineage, Version};
use tradewind_ledger::segment_file::{
    Header, HeaderError, MAX_FILE_BYTES, PAGE, SegmentName, State,
};

use super::{RepairError, Repairing};
use crate::error::{Context, FileError};
use crate::layout::Layout;
use crate::writer::is_seal;

/// Whose ledger it is, by the first header that can be read: its checksum holds, and the genesis will be compared.
pub(super) fn lineage(layout: &Layout, segments: &[SegmentName]) -> Result<Lineage, RepairError> {
    for name in segments {
        if let Ok((header, _)) = Header::parse(&head(&layout.segment(*name))?) {
            return Ok(header.lineage);
        }
    }
    Err(RepairError::Unknown { dir: layout.dir.clone() })
}

/// The header page of a file, as far as it is there.
fn head(path: &Path) -> Result<Vec<u8>, FileError> {
    read(path, PAGE as u64)
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let file = File::open(path).context("open", path)?;
    file.take(limit).read_to_end(&mut bytes).context("read", path)?;
    Ok(bytes)
}

impl Repairing<'_> {
    /// The file of the sealed segment that starts at `first`, and the first version after it.
    pub(super) fn fetch_segment(&self, first: Version) -> Result<(Version, Vec<u8>), RepairError> {
        let page = Header { first, lineage: self.chain.lineage() }.page().to_vec();
        self.fetch(first, page, |_, entry| is_seal(entry))
    }

    /// The file of the segment that was growing: the peer's entries as far as this replica knows that they were on
    /// its disk, and what it has beyond, torn or not.
    pub(super) fn open_file(&self, path: &Path, first: Version) -> Result<Vec<u8>, RepairError> {
        let own = read(path, MAX_FILE_BYTES.into())?;
        let mark = match Header::parse(&own) {
            Ok((_, State::Sealed)) => return Ok(self.fetch_segment(first)?.1),
            Ok((_, State::Open { watermark, .. })) => watermark,
            Ok((_, State::Torn)) => {
                let source = HeaderError::Slots;
                return Err(RepairError::OpenHeader { file: path.to_owned(), source });
            }
            Err(source) => return Err(RepairError::OpenHeader { file: path.to_owned(), source }),
        };
        let header = Header { first, lineage: self.chain.lineage() };
        let mut page = header.page().to_vec();
        let (offset, slot) = mark.slot(&header);
        page[offset..offset + slot.len()].copy_from_slice(&slot);
        if mark.next <= first {
            return Err(RepairError::Mark { file: path.to_owned() });
        }
        let (_, mut bytes) = self.fetch(first, page, |version, _| version.next() == mark.next)?;
        if bytes.len() as u64 != mark.bytes {
            return Err(RepairError::Mark { file: path.to_owned() });
        }
        bytes.extend_from_slice(own.get(bytes.len()..).unwrap_or_default());
        Ok(bytes)
    }

    /// Appends the peer's entries from `first` on to `bytes` as records, up to the one that is `last`; the version
    /// after it.
    fn fetch(
        &self,
        first: Version,
        mut bytes: Vec<u8>,
        last: impl Fn(Version, &[u8]) -> bool,
    ) -> Result<(Version, Vec<u8>), RepairError> {
        let mut version = first;
        loop {
            for entry in self.entries(version)? {
                let fits = bytes.len() + entry.len() < MAX_FILE_BYTES as usize;
                if !fits || !(1..=MAX_ENTRY).contains(&entry.len()) {
                    return Err(RepairError::TooLong { peer: self.peer.name(), version });
                }
                bytes.extend_from_slice(&self.framing.record_header(version, &entry));
                bytes.extend_from_slice(&entry);
                let ends = last(version, &entry);
                version = version.next();
                if ends {
                    return Ok((version, bytes));
                }
            }
        }
    }
}
