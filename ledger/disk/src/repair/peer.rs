//! Other replicas, as a repair sees them.

use std::fs;
use std::path::{Path, PathBuf};

use tradewind_ledger::ids::{Digest, Version};
use tradewind_ledger::note::SignedNote;
use tradewind_ledger::segment_file::{Framing, SegmentName};

use super::PeerError;
use crate::error::Context;
use crate::layout::Layout;
use crate::open::read_checkpoint;
use crate::scan::{Scan, Step};
use crate::values;

/// Bytes of entries that one answer has, about.
const ANSWER_BYTES: usize = 4 << 20;

/// Another replica of a ledger. What it says is checked, not believed.
pub trait Peer {
    /// What to call it in errors.
    fn name(&self) -> String;

    /// Its newest checkpoint, if it has one.
    ///
    /// # Errors
    /// If it cannot be read.
    fn checkpoint(&self) -> Result<Option<SignedNote>, PeerError>;

    /// Some of its entries from `first` on; none if it has none of them.
    ///
    /// # Errors
    /// If they cannot be read.
    fn entries(&self, first: Version) -> Result<Vec<Vec<u8>>, PeerError>;

    /// The detached value with this digest, if it has it.
    ///
    /// # Errors
    /// If it cannot be read.
    fn value(&self, digest: &Digest) -> Result<Option<Vec<u8>>, PeerError>;
}

/// The directory of another replica of the ledger. It is only read, and its process may be running.
#[derive(Clone, Debug)]
pub struct DirPeer {
    layout: Layout,
}

impl DirPeer {
    /// The replica in the ledger's directory `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { layout: Layout::new(dir) }
    }

    /// The file that has the entry `version`, if any has.
    fn file_of(&self, version: Version) -> Result<Option<(SegmentName, PathBuf)>, PeerError> {
        let dir = &self.layout.segments;
        let mut best: Option<SegmentName> = None;
        for entry in fs::read_dir(dir).context("list", dir)? {
            let name = entry.context("list", dir)?.file_name();
            let Some(Ok(name)) = name.to_str().map(str::parse::<SegmentName>) else { continue };
            let has = name.first <= version && name.last.is_none_or(|last| version <= last);
            if has && best.is_none_or(|best| best.first < name.first) {
                best = Some(name);
            }
        }
        Ok(best.map(|name| (name, self.layout.segment(name))))
    }
}

impl Peer for DirPeer {
    fn name(&self) -> String {
        self.layout.dir.display().to_string()
    }

    fn checkpoint(&self) -> Result<Option<SignedNote>, PeerError> {
        let read = read_checkpoint(&self.layout)?;
        Ok(read.map(|(note, _)| note))
    }

    fn entries(&self, first: Version) -> Result<Vec<Vec<u8>>, PeerError> {
        let Some((name, path)) = self.file_of(first)? else { return Ok(Vec::new()) };
        let file = fs::File::open(&path).context("open", &path)?;
        let (mut scan, header, _) = Scan::open(&file, &path, name.first)?;
        let framing = Framing::new(header.lineage, crc32c::crc32c_append);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while bytes < ANSWER_BYTES && name.last.is_none_or(|last| scan.place().1 <= last) {
            let version = scan.place().1;
            let Step::Entry(entry) = scan.step(&framing)? else { break };
            if version >= first {
                bytes += entry.len();
                entries.push(entry.to_vec());
            }
        }
        Ok(entries)
    }

    fn value(&self, digest: &Digest) -> Result<Option<Vec<u8>>, PeerError> {
        Ok(values::load(&self.layout, digest)?)
    }
}
