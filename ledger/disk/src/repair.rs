//! Repair of a ledger's files from another replica, by hash.
//!
//! The files are read as they are when the ledger is opened. Where one is damaged or missing, the same entries are taken
//! from a [`Peer`], who is not trusted: a replacement must fit between the entries around it, and all entries together
//! must have the root of a checkpoint that a majority of the ledger's members signed. Only then are files replaced, each
//! as a whole. Tiles need no peer: opening the ledger makes them again.

mod chain;
mod error;
mod peer;
mod segments;

pub use error::{PeerError, RepairError};
pub use peer::{DirPeer, Peer};

use std::path::{Path, PathBuf};

use tradewind_ledger::ids::{Digest, Version};
use tradewind_ledger::note::SignedNote;
use tradewind_ledger::segment_file::{Framing, SegmentName};
use tradewind_ledger::tree::value_digest;

use self::chain::{Chain, Values};
use crate::error::{Context, FileError, OpenError, ReadError};
use crate::layout::{Layout, Lock, TEMPORARY};
use crate::open::{list, read_checkpoint};
use crate::ops::Ops;
use crate::{owner, start, values};

/// What a repair found and did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Repair {
    /// Entries that are here now, all of them checked.
    pub size: Version,
    /// The largest size that a majority signed and whose root the entries have; zero if there is none.
    pub proven: Version,
    /// Segment files that were replaced or made, with the reason.
    pub segments: Vec<(PathBuf, String)>,
    /// The published checkpoint was damaged; it was replaced, or removed so that the process publishes its next one.
    pub checkpoint: bool,
    /// Detached values that were replaced or made.
    pub values: Vec<Digest>,
    /// Detached values that are damaged or missing here, and that the peer does not have either.
    pub lost_values: Vec<Digest>,
}

/// Repairs the ledger in `dir`, which no process may have open, from `peer`. Without damage nothing is changed.
///
/// # Errors
/// See [`RepairError`]. No segment was changed then, unless the system failed while files were replaced: each is
/// whole in any case, and the repair may be started again.
pub fn repair(dir: &Path, peer: &dyn Peer) -> Result<Repair, RepairError> {
    let layout = Layout::new(dir);
    if !layout.segments.is_dir() {
        return Err(RepairError::NoLedger { dir: dir.to_owned() });
    }
    let ops = Ops::default();
    let _lock = Lock::take(dir)?;
    let (mut segments, _) = list(&layout)?;
    let base = start::read(&layout)?;
    let first = base.as_ref().map_or(Version::ZERO, |base| base.size());
    // What an interrupted pruning left is not there any more.
    segments.retain(|name| name.first >= first);
    let lineage = match &base {
        Some(base) => base.lineage(),
        None => segments::lineage(&layout, &segments)?,
    };
    let framing = Framing::new(lineage, crc32c::crc32c_append);
    let chain = Chain::new(lineage, framing, base.as_deref());
    let repairing = Repairing {
        ops: &ops,
        layout: &layout,
        peer,
        framing,
        chain,
        replaced: Vec::new(),
        needed: Version::ZERO,
        report: Repair::default(),
    };
    repairing.run(&segments)
}

/// A repair under way.
struct Repairing<'a> {
    ops: &'a Ops,
    layout: &'a Layout,
    peer: &'a dyn Peer,
    framing: Framing,
    /// The entries so far, replacements included.
    chain: Chain,
    /// Files that are to take others' places.
    replaced: Vec<(PathBuf, PathBuf)>,
    /// The size that has to be proven: the end of the last replacement.
    needed: Version,
    report: Repair,
}

impl Repairing<'_> {
    fn run(mut self, segments: &[SegmentName]) -> Result<Repair, RepairError> {
        let own = self.own_checkpoint()?;
        let theirs = self.ask(|peer| peer.checkpoint())?;
        let published = own.map(|note| self.chain.expect("this replica", note)).transpose()?;
        let name = self.peer.name();
        let theirs = theirs.map(|note| self.chain.expect(&name, note)).transpose()?;
        for name in segments {
            self.fill(name.first)?;
            self.segment(*name)?;
        }
        self.report.size = self.chain.size();
        if let Some(published) = published.filter(|published| *published > self.report.size) {
            let dir = self.layout.dir.clone();
            return Err(RepairError::Short { dir, size: self.report.size, published });
        }
        let mut proven = self.chain.proven()?;
        let note = proven.as_ref().map(|proof| proof.note.clone());
        let size =
            |proven: &Option<chain::Proven>| proven.as_ref().map_or(Version::ZERO, |it| it.size);
        let unproven = size(&proven) < self.needed || (self.report.checkpoint && note.is_none());
        if let Some(theirs) = theirs.filter(|_| unproven) {
            self.follow(theirs)?;
            proven = self.chain.proven()?;
        }
        self.report.proven = size(&proven);
        if self.report.proven < self.needed || (self.report.checkpoint && proven.is_none()) {
            let (needed, proven) = (self.needed.max(Version(1)), self.report.proven);
            return Err(RepairError::NotProven { peer: self.peer.name(), needed, proven });
        }
        self.commit(note)?;
        Ok(self.report)
    }

    /// The published checkpoint, if it is there and can be read.
    fn own_checkpoint(&mut self) -> Result<Option<SignedNote>, RepairError> {
        match read_checkpoint(self.layout) {
            Ok(own) => Ok(own.map(|(note, _)| note)),
            Err(OpenError::Damaged(_)) => {
                self.report.checkpoint = true;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the segments that are missing before `first`.
    fn fill(&mut self, first: Version) -> Result<(), RepairError> {
        while self.chain.size() < first {
            let from = self.chain.size();
            let (next, bytes) = self.fetch_segment(from)?;
            let name = SegmentName { first: from, last: Some(Version(next.0 - 1)) };
            self.replace(name, &bytes, "it was missing".into())?;
        }
        if self.chain.size() > first {
            let (dir, expected) = (self.layout.dir.clone(), self.chain.size());
            return Err(RepairError::Overlap { dir, found: first, expected });
        }
        Ok(())
    }

    /// Reads a file, or makes another in its place.
    fn segment(&mut self, name: SegmentName) -> Result<(), RepairError> {
        let path = self.layout.segment(name);
        let before = self.chain.replay.clone();
        match self.chain.walk(&path, name) {
            Ok(values) => self.check_values(&values),
            Err(ReadError::Damaged(damage)) => {
                self.chain.replay = before;
                let bytes = match name.last {
                    Some(_) => self.fetch_segment(name.first)?.1,
                    None => self.open_file(&path, name.first)?,
                };
                self.replace(name, &bytes, damage.to_string())
            }
            Err(error) => Err(OpenError::from(error).into()),
        }
    }

    /// Writes what is to become the file of `name` beside it, and reads it as any file is read.
    fn replace(&mut self, name: SegmentName, bytes: &[u8], why: String) -> Result<(), RepairError> {
        let path = self.layout.segment(name);
        let mut temporary = path.clone().into_os_string();
        temporary.push(TEMPORARY);
        let temporary = PathBuf::from(temporary);
        write(self.ops, &temporary, bytes)?;
        let unfit =
            |source| RepairError::Unfit { peer: self.peer.name(), source: Box::new(source) };
        let values = self.chain.walk(&temporary, name).map_err(unfit)?;
        self.needed = self.chain.size();
        self.replaced.push((temporary, path.clone()));
        self.report.segments.push((path, why));
        self.check_values(&values)
    }

    /// Sees to it that these values are there with the bytes that their names stand for.
    fn check_values(&mut self, digests: &Values) -> Result<(), RepairError> {
        for digest in digests {
            match values::load(self.layout, digest) {
                Ok(Some(_)) => continue,
                Ok(None) | Err(ReadError::Damaged(_)) => {}
                Err(error) => return Err(OpenError::from(error).into()),
            }
            let value = self.ask(|peer| peer.value(digest))?;
            match value.filter(|value| value_digest(value) == *digest) {
                Some(value) => {
                    for dir in values::write(self.ops, self.layout, digest, &value)? {
                        self.ops.sync_dir(&dir).context("sync the directory", &dir)?;
                    }
                    self.report.values.push(*digest);
                }
                None => self.report.lost_values.push(*digest),
            }
        }
        Ok(())
    }

    /// Goes on with the peer's entries up to `size`, where there is something to compare with.
    fn follow(&mut self, size: Version) -> Result<(), RepairError> {
        while self.chain.size() < size {
            let first = self.chain.size();
            let entries = self.entries(first)?;
            for entry in entries.iter().take(size.since(first) as usize) {
                let accepted = self.chain.accept(entry, &mut Values::new());
                accepted.map_err(|source| RepairError::Differs {
                    peer: self.peer.name(),
                    source: Box::new(source),
                })?;
            }
        }
        Ok(())
    }

    /// Everything is proven: the files take their places, oldest first.
    fn commit(&self, note: Option<SignedNote>) -> Result<(), RepairError> {
        for (temporary, path) in &self.replaced {
            self.ops.rename(temporary, path).context("rename", path)?;
        }
        let segments = &self.layout.segments;
        self.ops.sync_dir(segments).context("sync the directory", segments)?;
        let path = &self.layout.checkpoint;
        match note {
            _ if !self.report.checkpoint => Ok(()),
            Some(note) => owner::replace(path, note.to_string().as_bytes()),
            None => self.ops.remove(path).and_then(|()| self.ops.sync_dir(&self.layout.dir)),
        }
        .context("replace", path)?;
        Ok(())
    }

    /// At least one of the peer's entries from `first` on.
    fn entries(&self, first: Version) -> Result<Vec<Vec<u8>>, RepairError> {
        let entries = self.ask(|peer| peer.entries(first))?;
        match entries.is_empty() {
            true => Err(RepairError::PeerShort { peer: self.peer.name(), version: first }),
            false => Ok(entries),
        }
    }

    fn ask<T>(
        &self,
        question: impl FnOnce(&dyn Peer) -> Result<T, PeerError>,
    ) -> Result<T, RepairError> {
        question(self.peer).map_err(|source| RepairError::Peer { peer: self.peer.name(), source })
    }
}

/// Writes a file as a whole, its bytes durably.
fn write(ops: &Ops, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let file = ops.create(path).context("create", path)?;
    ops.write_at(&file, path, bytes, 0).context("write", path)?;
    ops.sync_file(&file, path).context("sync", path)
}
