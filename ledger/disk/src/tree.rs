//! The hash tree over a ledger's entries: what is not in tile files is in memory.
//!
//! Only the nodes that hash tiles consist of are kept (tree levels 0, 8, 16, ...), and of these only
//! the ones beyond the full tiles that are known to be on disk.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use tradewind_ledger::ids::{Digest, Version};
use tradewind_ledger::tile::{
    self, HASH_TILE_BYTES, MAX_TILE_LEVEL, TILE_HEIGHT, TILE_WIDTH, TileId, TileKind, TileReader,
};
use tradewind_ledger::tree::{CompactRange, HashSource};

const WIDTH: u64 = TILE_WIDTH as u64;

/// A growing tree. `P` is the ledger's directory, which its tiles' paths are relative to.
pub(crate) struct TileTree {
    dir: PathBuf,
    range: CompactRange,
    levels: [Level; MAX_TILE_LEVEL as usize + 1],
}

/// The nodes of one tile level: those before `kept_from` are in full tiles on disk.
#[derive(Default)]
struct Level {
    kept_from: u64,
    nodes: Vec<Digest>,
}

impl TileTree {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), range: CompactRange::new(), levels: Default::default() }
    }

    pub(crate) fn size(&self) -> Version {
        self.range.size()
    }

    /// Takes up the next entry's leaf hash.
    pub(crate) fn push(&mut self, leaf: Digest) {
        let levels = &mut self.levels;
        self.range.push_with(leaf, |level, _, hash| {
            if level % TILE_HEIGHT == 0 {
                levels[usize::from(level / TILE_HEIGHT)].nodes.push(hash);
            }
        });
    }

    /// The full hash tiles that a checkpoint of `size` entries needs and that are still in memory.
    pub(crate) fn unwritten(&self, size: Version) -> Vec<TileId> {
        let mut tiles = Vec::new();
        for (level, kept) in (0..).zip(&self.levels) {
            let nodes = size.0 >> (TILE_HEIGHT * level);
            let full = kept.kept_from / WIDTH..nodes / WIDTH;
            let kind = TileKind::Hashes { level };
            tiles.extend(full.map(|index| TileId { kind, index, width: TILE_WIDTH }));
        }
        tiles
    }

    /// The bytes of a hash tile within the tree.
    pub(crate) fn tile(&self, tile: &TileId) -> Option<Vec<u8>> {
        Some(tile::encode_hashes(&self.hashes(tile)?))
    }

    /// This full hash tile is on disk, and those before it of the same level.
    pub(crate) fn written(&mut self, tile: &TileId) {
        let TileKind::Hashes { level } = tile.kind else { return };
        let level = &mut self.levels[usize::from(level)];
        let upto = tile.first() + WIDTH;
        if upto > level.kept_from {
            level.nodes.drain(..(upto - level.kept_from) as usize);
            level.kept_from = upto;
        }
    }

    fn hashes(&self, tile: &TileId) -> Option<Vec<Digest>> {
        let TileKind::Hashes { level } = tile.kind else { return None };
        let kept = &self.levels[usize::from(level)];
        if let Some(from) = tile.first().checked_sub(kept.kept_from) {
            let from = usize::try_from(from).ok()?;
            return Some(kept.nodes.get(from..from + usize::from(tile.width))?.to_vec());
        }
        let path = self.dir.join(tile.full().to_string());
        let bytes = File::open(&path).and_then(|file| {
            let mut bytes = Vec::with_capacity(HASH_TILE_BYTES);
            file.take(HASH_TILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        match bytes.map(|bytes| tile::decode_hashes(&bytes, TILE_WIDTH)) {
            Ok(Ok(mut hashes)) => {
                hashes.truncate(tile.width.into());
                Some(hashes)
            }
            Ok(Err(error)) => {
                tracing::error!(%error, path = %path.display(), "a tile is damaged");
                None
            }
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "a tile cannot be read");
                None
            }
        }
    }
}

impl HashSource for TileTree {
    fn node(&self, level: u8, index: u64) -> Option<Digest> {
        TileReader::new(self.size(), |tile| self.hashes(tile)).node(level, index)
    }
}
