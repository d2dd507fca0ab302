//! Scrubbing: reading what lies still, while the ledger is in use, so that bit rot is found before somebody needs the entry;
//! and making a damaged file again from another replica, by hash.
//!
//! A sealed segment is right if every record is whole and every entry has the leaf hash that the tree has. A tile is right
//! if it folds to the node above it. Whatever a peer gives has to have this replica's own hashes, so it need not be
//! trusted, and no signature is needed.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tradewind_ledger::entry::MAX_VALUE;
use tradewind_ledger::ids::{Digest, Version};
use tradewind_ledger::segment_file::{Header, PAGE, SegmentName, State};
use tradewind_ledger::tile::{TILE_HEIGHT, TILE_WIDTH, TileId, TileKind};
use tradewind_ledger::tree::{HashSource as _, leaf_hash, root_of, value_digest};

use crate::error::{Context, Damage, FileError, Found, ReadError, WriteError};
use crate::layout::{MENDED, TEMPORARY};
use crate::ops::Ops;
use crate::repair::{Peer, PeerError};
use crate::scan::{Scan, Step};
use crate::shared::{SealedSegment, Shared};
use crate::writer::is_seal;
use crate::{tiles, values};

const WIDTH: u64 = TILE_WIDTH as u64;

/// Goes through a ledger's files, one after the other, again and again. Made by
/// [`LedgerReader::scrubber`](crate::LedgerReader::scrubber).
pub struct Scrubber {
    shared: Arc<Shared>,
    pub(crate) ops: Ops,
    /// The next segment is the first that begins here or later; then come the values.
    next: Version,
    values: Option<VecDeque<Digest>>,
}

/// A file that was read.
#[derive(Debug)]
pub struct Checked {
    /// How many bytes were read, to go at a given pace.
    pub bytes: u64,
    /// What is wrong with it.
    pub fault: Option<Fault>,
}

/// A damaged file, for [`Scrubber::mend`].
#[derive(Debug, Error)]
#[error("{error}")]
pub struct Fault {
    what: What,
    /// What was found.
    #[source]
    error: ReadError,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Segment(SealedSegment),
    Tile(u64),
    Value(Digest),
}

/// Why a file was not made again. It stays as it is, and what is damaged in it is not served.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MendError {
    /// The peer did not answer. Another one may do.
    #[error("{peer}: {source}")]
    Peer {
        /// The peer.
        peer: String,
        /// What it said.
        source: PeerError,
    },
    /// The peer does not have it. Another one may, or this one later.
    #[error("{peer}: does not have {what}")]
    Short {
        /// The peer.
        peer: String,
        /// What was asked for.
        what: String,
    },
    /// The peer has something else.
    #[error("{peer}: its entry {version} has another hash than this ledger's")]
    Differs {
        /// The peer.
        peer: String,
        /// The entry.
        version: Version,
    },
    /// The entries of a tile were pruned, so it cannot be made of them.
    #[error(
        "{tile}: its entries were pruned; replace the replica, or copy the tile from another one"
    )]
    Pruned {
        /// The tile.
        tile: TileId,
    },
    /// A hash that decides is not there.
    #[error("the hash of entry {version} cannot be read")]
    NoHash {
        /// The entry.
        version: Version,
    },
    /// What is needed here is damaged too.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The system refused. Retryable.
    #[error(transparent)]
    File(#[from] FileError),
    /// A value could not be written. Retryable.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Scrubber {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, ops: Ops::default(), next: Version::ZERO, values: None }
    }

    /// Reads the next sealed segment with its tiles, or detached value, from the disk; `None` at the end of a pass. Of a
    /// segment found damaged no entry is served until it is mended.
    pub fn step(&mut self) -> Option<Checked> {
        if let Some(segment) = self.shared.sealed_from(self.next) {
            self.next = segment.last.next();
            let what = |damaged: &ReadError| self.suspect(segment, damaged);
            let checked = checked(self.segment(segment), what);
            if let Some(Fault { what: What::Segment(segment), .. }) = &checked.fault {
                self.shared.quarantine(*segment);
            }
            return Some(checked);
        }
        let values = match &mut self.values {
            Some(values) => values,
            None => self.values.insert(list_values(&self.shared.layout.values)),
        };
        let Some(digest) = values.pop_front() else {
            (self.next, self.values) = (Version::ZERO, None);
            return None;
        };
        Some(checked(self.value(&digest), |_| What::Value(digest)))
    }

    /// Makes a damaged file again, from what `peer` has of it; the damaged one is kept in `damaged/` of the ledger's
    /// directory. A tile is made from this replica's own entries.
    ///
    /// # Errors
    /// See [`MendError`]; nothing was changed then.
    pub fn mend(&self, fault: &Fault, peer: &dyn Peer) -> Result<(), MendError> {
        match fault.what {
            What::Segment(segment) => self.mend_segment(segment, peer),
            What::Tile(index) => self.mend_tile(index),
            What::Value(digest) => self.mend_value(&digest, peer),
        }
    }

    /// Reads a segment through; the bytes of its file.
    fn segment(&self, segment: SealedSegment) -> Result<u64, ReadError> {
        let SealedSegment { first, last } = segment;
        let path = self.shared.layout.segment(SegmentName { first, last: Some(last) });
        let Some(file) = self.open(&path, first)? else { return Ok(0) };
        let (mut scan, header, state) = Scan::open(&file, &path, first)?;
        let damage =
            |offset, found| ReadError::Damaged(Damage { file: path.clone(), offset, found });
        let framing = self.shared.framing.get().expect("there are entries");
        if let Some(expected) = self.shared.lineage().filter(|it| *it != header.lineage) {
            return Err(damage(24, Found::Lineage { found: header.lineage, expected }));
        }
        if state != State::Sealed {
            return Err(damage(512, Found::Watermarks));
        }
        let mut tile = Leaves::default();
        loop {
            let (offset, version) = scan.place();
            if version > last {
                let whole = offset == scan.len();
                return if whole { Ok(offset) } else { Err(damage(offset, Found::Trailing)) };
            }
            let wanted = version == last;
            let found = match scan.step(framing)? {
                Step::Entry(entry) if is_seal(entry) != wanted => Found::Seal { version, wanted },
                Step::Entry(entry) => match tile.leaf(&self.shared, version) {
                    Some(leaf) if leaf == leaf_hash(entry) => continue,
                    _ => Found::Leaf { version },
                },
                Step::End => Found::Missing { version },
                Step::Bad(source) => Found::Record { version, source },
            };
            return Err(damage(offset, found));
        }
    }

    /// The file, to be read from the disk and not from memory; `None` if it was pruned just now.
    fn open(&self, path: &Path, first: Version) -> Result<Option<File>, ReadError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound && first < self.shared.first() => {
                return Ok(None);
            }
            result => result.context("open", path)?,
        };
        // Where the system does not do it, the next reader of the disk does.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        Ok(Some(file))
    }

    /// Whether the segment is damaged, or the tile that says so.
    fn suspect(&self, segment: SealedSegment, error: &ReadError) -> What {
        match error {
            ReadError::Damaged(Damage { found: Found::Leaf { version }, .. })
                if !self.tile_is_whole(version.0 / WIDTH) =>
            {
                What::Tile(version.0 / WIDTH)
            }
            _ => What::Segment(segment),
        }
    }

    /// Whether a tile of level 0 folds to the node above it. The last one has none: it is in memory.
    fn tile_is_whole(&self, index: u64) -> bool {
        let tree = self.shared.tree();
        let above = tree.node(TILE_HEIGHT, index);
        above.is_none_or(|above| {
            let tile = hash_tile(index);
            tree.leaves(&tile).is_some_and(|leaves| root_of(leaves) == above)
        })
    }

    fn value(&self, digest: &Digest) -> Result<u64, ReadError> {
        let path = self.shared.layout.value(digest);
        let Some(mut file) = File::open(&path).ok() else { return Ok(0) };
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        let mut value = Vec::new();
        file.by_ref().take(MAX_VALUE + 1).read_to_end(&mut value).context("read", &path)?;
        match value_digest(&value) {
            found if found == *digest => Ok(value.len() as u64),
            found => Err(Damage { file: path, offset: 0, found: Found::Value(found) }.into()),
        }
    }

    fn mend_segment(&self, segment: SealedSegment, peer: &dyn Peer) -> Result<(), MendError> {
        let SealedSegment { first, last } = segment;
        let name = SegmentName { first, last: Some(last) };
        let path = self.shared.layout.segment(name);
        let lineage = self.shared.lineage().expect("there are entries");
        let framing = self.shared.framing.get().expect("there are entries");
        let mut bytes = Header { first, lineage }.page().to_vec();
        debug_assert_eq!(bytes.len(), PAGE);
        let mut tile = Leaves::default();
        let mut version = first;
        while version <= last {
            let entries = ask(peer, |peer| peer.entries(version))?;
            if entries.is_empty() {
                return Err(short(peer, format!("entry {version}")));
            }
            for entry in entries.iter().take(last.next().since(version) as usize) {
                let leaf = tile.leaf(&self.shared, version).ok_or(MendError::NoHash { version })?;
                if entry.is_empty() || leaf_hash(entry) != leaf {
                    return Err(MendError::Differs { peer: peer.name(), version });
                }
                bytes.extend_from_slice(&framing.record_header(version, entry));
                bytes.extend_from_slice(entry);
                version = version.next();
            }
        }
        self.put_aside(&path)?;
        let mut temporary = path.clone().into_os_string();
        temporary.push(TEMPORARY);
        let temporary = PathBuf::from(temporary);
        let file = self.ops.create(&temporary).context("create", &temporary)?;
        self.ops.write_at(&file, &temporary, &bytes, 0).context("write", &temporary)?;
        self.ops.sync_file(&file, &temporary).context("sync", &temporary)?;
        // Under the lock of the files, so that what is being pruned does not come back.
        let replaced = self.shared.replace(segment, || {
            self.ops.rename(&temporary, &path).context("rename", &path)?;
            let segments = &self.shared.layout.segments;
            self.ops.sync_dir(segments).context("sync the directory", segments)
        })?;
        if !replaced {
            self.ops.remove(&temporary).context("remove", &temporary)?;
        }
        Ok(())
    }

    fn mend_tile(&self, index: u64) -> Result<(), MendError> {
        let tile = hash_tile(index);
        if tile.first() < self.shared.first().0 {
            return Err(MendError::Pruned { tile });
        }
        let mut leaves = Vec::new();
        let mut buffer = Vec::new();
        let mut next = Version(tile.first());
        let end = next.plus(WIDTH);
        while next < end {
            next = self.shared.read(next, end, usize::MAX, &mut buffer, |entry| {
                leaves.push(leaf_hash(entry));
            })?;
        }
        let above = self.shared.tree().node(TILE_HEIGHT, index);
        if above != Some(root_of(leaves.iter().copied())) {
            return Err(MendError::NoHash { version: Version(tile.first()) });
        }
        let layout = &self.shared.layout;
        self.put_tile_aside(&tile)?;
        tiles::mend(&self.ops, layout, &tile, &tradewind_ledger::tile::encode_hashes(&leaves))?;
        let dir = File::open(&layout.dir).context("open", &layout.dir)?;
        Ok(self.ops.sync_all(&dir).context("sync the file system of", &layout.dir)?)
    }

    fn mend_value(&self, digest: &Digest, peer: &dyn Peer) -> Result<(), MendError> {
        let value = ask(peer, |peer| peer.value(digest))?;
        let value = value.filter(|value| value_digest(value) == *digest);
        let value = value.ok_or_else(|| short(peer, format!("value {digest}")))?;
        let (path, values) = (self.shared.layout.value(digest), &self.shared.layout.values);
        self.put_aside(&path)?;
        let temporary = values.join(MENDED);
        values::prepare(&self.ops, &temporary, &value)?;
        if !self.shared.replace_value(&self.ops, &temporary, digest)? {
            self.ops.remove(&temporary).context("remove", &temporary)?;
            return Ok(());
        }
        let dir = path.parent().expect("in the values' directory");
        Ok(self.ops.sync_dir(dir).context("sync the directory", dir)?)
    }

    /// As [`Self::put_aside`], of a tile that may be a part of a file.
    fn put_tile_aside(&self, tile: &TileId) -> Result<(), FileError> {
        let dir = &self.shared.layout.dir;
        let path = dir.join(tile.to_string());
        if path.exists() {
            return self.put_aside(&path);
        }
        let kept = self.place_aside(&path)?;
        // Without a copy the tile is still better whole.
        let _ = tiles::read(dir, tile).and_then(|bytes| fs::write(kept, bytes));
        Ok(())
    }

    /// Keeps the damaged file for somebody to look at; what was kept of it before goes.
    fn put_aside(&self, path: &Path) -> Result<(), FileError> {
        let kept = self.place_aside(path)?;
        // Without a copy the file is still better whole.
        let _ = fs::remove_file(&kept);
        let _ = fs::hard_link(path, &kept);
        Ok(())
    }

    fn place_aside(&self, path: &Path) -> Result<PathBuf, FileError> {
        let aside = self.shared.layout.dir.join("damaged");
        self.ops.make_dir(&aside).context("make the directory", &aside)?;
        let name = path.strip_prefix(&self.shared.layout.dir).unwrap_or(path);
        Ok(aside.join(name.to_string_lossy().replace('/', "-")))
    }
}

/// Leaf hashes, a tile at a time.
#[derive(Default)]
struct Leaves {
    index: Option<u64>,
    leaves: Vec<Digest>,
}

impl Leaves {
    fn leaf(&mut self, shared: &Shared, version: Version) -> Option<Digest> {
        let index = version.0 / WIDTH;
        if self.index != Some(index) {
            let tree = shared.tree();
            let kind = TileKind::Hashes { level: 0 };
            self.leaves = tree.leaves(&TileId::of_entry(kind, version, tree.size()))?;
            self.index = Some(index);
        }
        self.leaves.get((version.0 % WIDTH) as usize).copied()
    }
}

fn hash_tile(index: u64) -> TileId {
    TileId { kind: TileKind::Hashes { level: 0 }, index, width: TILE_WIDTH }
}

fn checked(read: Result<u64, ReadError>, what: impl FnOnce(&ReadError) -> What) -> Checked {
    match read {
        Ok(bytes) => Checked { bytes, fault: None },
        Err(error) => Checked { bytes: 0, fault: Some(Fault { what: what(&error), error }) },
    }
}

fn ask<T>(
    peer: &dyn Peer,
    question: impl FnOnce(&dyn Peer) -> Result<T, PeerError>,
) -> Result<T, MendError> {
    question(peer).map_err(|source| MendError::Peer { peer: peer.name(), source })
}

fn short(peer: &dyn Peer, what: String) -> MendError {
    MendError::Short { peer: peer.name(), what }
}

/// The values that are there, by their names.
fn list_values(dir: &Path) -> VecDeque<Digest> {
    let names = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    let files = names(dir).flat_map(|dir| names(&dir.path()));
    files.filter_map(|file| file.file_name().to_str()?.parse().ok()).collect()
}
