//! Publishing checkpoints with their tiles, as `docs/formats/data-directory.md` has it ("Public face").

use std::fs::File;
use std::sync::Arc;

use tradewind_ledger::ids::Version;
use tradewind_ledger::note::{Checkpoint, SignedNote};
use tradewind_ledger::segment_file::SegmentName;
use tradewind_ledger::tile::{
    HASH_BYTES, MAX_TILE_LEVEL, TILE_HEIGHT, TILE_WIDTH, TileId, TileKind,
};
use tradewind_ledger::tree::root_at;

use crate::error::{Context, FileError, OpenError, PublishError, ReadError};
use crate::layout::{Lock, TEMPORARY};
use crate::open::Face;
use crate::ops::Ops;
use crate::shared::Shared;
use crate::tiles;

/// Keeps a ledger's public face: `checkpoint` and `tile/`; and removes old entries ([`Publisher::prune`]). One owner, off
/// the hot path: a publication costs work for each new entry and two syncs of the file system.
pub struct Publisher {
    pub(crate) shared: Arc<Shared>,
    pub(crate) ops: Ops,
    /// Size of the checkpoint in place, and of the one that it replaced.
    published: Version,
    before: Version,
    /// Segments before the first entry that is kept, whose pruning was interrupted.
    pub(crate) leftover: Vec<SegmentName>,
    _lock: Arc<Lock>,
}

impl Publisher {
    pub(crate) fn new(shared: Arc<Shared>, ops: Ops, published: Version, lock: Arc<Lock>) -> Self {
        let (before, leftover) = (published, Vec::new());
        Self { shared, ops, published, before, leftover, _lock: lock }
    }

    /// Writes what is lost of the tiles below the published checkpoint, and removes what is none of
    /// them; only from the base on where the ledger was opened from one. How many were written.
    pub(crate) fn repair(
        &mut self,
        (tiles, bundles): (Vec<(TileId, Vec<u8>)>, Vec<TileId>),
        base: Option<Version>,
    ) -> Result<u64, OpenError> {
        let layout = &self.shared.layout;
        let mut needed: Vec<_> = self.partials(self.published).collect();
        if self.published < self.shared.first() {
            // The next opening begins with these.
            let hashes = |tile: &TileId| tile.kind != TileKind::Entries;
            needed.extend(tiles::partials(self.shared.first()).filter(hashes));
        }
        match base {
            None => tiles::clean(&self.ops, layout, &needed)?,
            Some(base) => {
                let range = (base, self.shared.durable());
                tiles::clean_edge(&self.ops, layout, range, &needed)?;
            }
        }
        if self.is_packed() {
            tiles::cut_packed(&self.ops, layout, self.hashed())?;
        }
        let mut written = (tiles.len() + bundles.len()) as u64;
        for (tile, bytes) in &tiles {
            tiles::write(&self.ops, layout, tile, bytes)?;
        }
        for tile in &bundles {
            tiles::write(&self.ops, layout, tile, &self.bundle(tile)?)?;
        }
        for tile in needed {
            let bytes = self.bytes(&tile)?;
            if !tiles::is_written(layout, &tile, &bytes)? {
                tiles::write(&self.ops, layout, &tile, &bytes)?;
                written += 1;
            }
        }
        if written > 0 {
            self.sync_all()?;
        }
        Ok(written)
    }

    /// Size of the published checkpoint; 0 if there is none.
    #[must_use]
    pub fn published(&self) -> Version {
        self.published
    }

    /// Puts a checkpoint in place of the one published before, after all tiles that it needs. The
    /// caller has verified its signatures; that it speaks of this ledger's entries is verified here.
    /// One of the published size replaces it (it may have more signatures).
    ///
    /// # Errors
    /// The published checkpoint stands then, and so do its tiles.
    pub fn publish(&mut self, note: &SignedNote) -> Result<(), PublishError> {
        let checkpoint = note.checkpoint()?;
        self.check(&checkpoint)?;
        let size = checkpoint.size;
        match self.shared.layout.face {
            Face::Static => self.write_tiles(size)?,
            Face::Packed => self.append_hashes(size)?,
        }

        let layout = &self.shared.layout;
        let mut temporary = layout.checkpoint.clone().into_os_string();
        temporary.push(TEMPORARY);
        let temporary = std::path::Path::new(&temporary);
        let file = self.ops.create(temporary).context("create", temporary)?;
        let text = note.to_string();
        self.ops.write_at(&file, temporary, text.as_bytes(), 0).context("write", temporary)?;
        match layout.face {
            Face::Static => self.sync_all()?,
            Face::Packed => self.ops.sync_file(&file, temporary).context("sync", temporary)?,
        }
        self.ops.rename(temporary, &layout.checkpoint).context("rename", &layout.checkpoint)?;
        self.ops.sync_dir(&layout.dir).context("sync the directory", &layout.dir)?;
        self.settle(size)?;
        Ok(())
    }

    /// Writes the files that a checkpoint of this size needs; they are not synced.
    fn write_tiles(&self, size: Version) -> Result<(), PublishError> {
        // A file that the published checkpoint needs is never replaced: a crash could lose its bytes.
        let full = self.shared.tree().unwritten(size);
        let needed: Vec<_> = self.partials(self.published).collect();
        let partial = self.partials(size).filter(|tile| !needed.contains(tile));
        for tile in full.into_iter().chain(self.new_bundles(size)).chain(partial) {
            tiles::write(&self.ops, &self.shared.layout, &tile, &self.bytes(&tile)?)?;
        }
        Ok(())
    }

    /// Appends the hashes that a checkpoint of this size has beyond those on disk to their levels' files, durably. A level
    /// with none has none above it either.
    fn append_hashes(&self, size: Version) -> Result<(), PublishError> {
        let layout = &self.shared.layout;
        let mut made = false;
        for level in 0..=MAX_TILE_LEVEL {
            let nodes = |size: Version| size.0 >> (TILE_HEIGHT * level);
            let (from, to) = (nodes(self.hashed()), nodes(size));
            if from >= to {
                break;
            }
            let hashes = self.shared.tree().packed(level, from, to);
            let path = tiles::packed_file(layout, level);
            let (file, new) = self.ops.open(&path).context("open", &path)?;
            let offset = from * HASH_BYTES as u64;
            self.ops.write_at(&file, &path, &hashes, offset).context("write", &path)?;
            self.ops.sync_data(&file, &path).context("sync", &path)?;
            made |= new;
        }
        if made {
            let tiles = &layout.tiles;
            self.ops.sync_dir(tiles).context("sync the directory", tiles)?;
        }
        Ok(())
    }

    /// The size of the ledger whose hashes are all on disk: that of the checkpoint, or of the base that it began with.
    fn hashed(&self) -> Version {
        self.published.max(self.shared.first())
    }

    fn is_packed(&self) -> bool {
        self.shared.layout.face == Face::Packed
    }

    fn check(&self, checkpoint: &Checkpoint) -> Result<(), PublishError> {
        let (size, published) = (checkpoint.size, self.published);
        let durable = self.shared.durable();
        if size < published {
            return Err(PublishError::Older { size, published });
        }
        if size > durable {
            return Err(PublishError::NotDurable { size, durable });
        }
        let tree = self.shared.tree();
        let computed = root_at(&*tree, size).map_err(|error| missing(&self.shared, &error))?;
        if computed != checkpoint.root {
            let signed = checkpoint.root;
            return Err(PublishError::RootMismatch { size, signed, computed });
        }
        Ok(())
    }

    /// The full bundles at `size` that were not full at the published size.
    fn new_bundles(&self, size: Version) -> impl Iterator<Item = TileId> + use<> {
        let width = u64::from(TILE_WIDTH);
        // One with pruned entries in it cannot be made.
        let kept = self.shared.first().0.div_ceil(width);
        let full = kept.max(self.published.0 / width)..size.0 / width;
        full.map(|index| TileId { kind: TileKind::Entries, index, width: TILE_WIDTH })
    }

    /// The partial tiles that are files at this size.
    fn partials(&self, size: Version) -> impl Iterator<Item = TileId> + use<> {
        let (bundles, first) = (!self.is_packed(), self.shared.first());
        let made = move |tile: &TileId| bundles && tile.first() >= first.0;
        tiles::partials(size).filter(move |tile| tile.kind != TileKind::Entries || made(tile))
    }

    /// What the tile's file holds.
    fn bytes(&self, tile: &TileId) -> Result<Vec<u8>, ReadError> {
        match tile.kind {
            TileKind::Entries => self.bundle(tile),
            TileKind::Hashes { .. } => {
                let bytes = self.shared.tree().tile(tile);
                Ok(bytes.ok_or_else(|| missing(&self.shared, tile))?)
            }
        }
    }

    fn bundle(&self, tile: &TileId) -> Result<Vec<u8>, ReadError> {
        let mut bundle = Vec::new();
        let mut buffer = Vec::new();
        let mut next = Version(tile.first());
        let end = next.plus(tile.width.into());
        while next < end {
            next = self.shared.read(next, end, usize::MAX, &mut buffer, |entry| {
                let len = u16::try_from(entry.len()).expect("no entry is longer");
                bundle.extend_from_slice(&len.to_be_bytes());
                bundle.extend_from_slice(entry);
            })?;
        }
        Ok(bundle)
    }

    fn sync_all(&self) -> Result<(), FileError> {
        let dir = &self.shared.layout.dir;
        let handle = File::open(dir).context("open", dir)?;
        self.ops.sync_all(&handle).context("sync the file system of", dir)
    }

    /// The checkpoint is in place: tiles on disk need not be kept in memory, nor old partial ones on
    /// disk. Those of the checkpoint before stay, for a reader who is still at it.
    fn settle(&mut self, size: Version) -> Result<(), ReadError> {
        let mut tree = self.shared.tree();
        // The last of a level first: with it go all before it, in one move.
        tree.unwritten(size).iter().rev().for_each(|tile| tree.written(tile));
        drop(tree);
        let (old, before) = (self.before, self.published);
        self.published = size;
        if size > before {
            self.before = before;
        }
        if size > before && !self.is_packed() {
            let needed: Vec<_> = self.partials(size).chain(self.partials(before)).collect();
            let keep = |tile: &TileId| needed.contains(tile);
            tiles::remove_partials(&self.ops, &self.shared.layout, old, keep)?;
        }
        Ok(())
    }
}

/// A node of the tree could not be had: its tile's file is gone or damaged, as was logged.
fn missing(shared: &Shared, what: &dyn std::fmt::Display) -> FileError {
    let source = std::io::Error::other(format!("{what} is not there; reopening makes it again"));
    FileError { action: "read the tiles", path: shared.layout.tiles.clone(), source }
}
