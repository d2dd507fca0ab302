//! The hash tree over a ledger's entries: what is not in tile files is in memory.
//!
//! Only the nodes that hash tiles consist of are kept (tree levels 0, 8, 16, ...), and of these only
//! the ones beyond the full tiles that are known to be on disk.

use std::io;
use std::path::{Path, PathBuf};

use tradewind_ledger::ids::{Digest, Version};
use tradewind_ledger::tile::{
    self, MAX_TILE_LEVEL, TILE_HEIGHT, TILE_WIDTH, TileId, TileKind, TileReader,
};
use tradewind_ledger::tree::{CompactRange, HashSource};

use crate::tiles;

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

    /// The tree that has come to `range`, with the nodes of its right edge from tiles of a checkpoint of `published`
    /// entries or from those of its own size; otherwise the tile that lacks. All that is read is proven by `range`.
    pub(crate) fn at(dir: &Path, range: &CompactRange, published: Version) -> Result<Self, TileId> {
        let mut tree = Self { dir: dir.to_owned(), range: range.clone(), ..Self::new(dir) };
        let mut parts = range.parts();
        for (level, kept) in (0..).zip(&mut tree.levels) {
            let edge = |size: Version| {
                let nodes = size.0 >> (TILE_HEIGHT * level);
                let kind = TileKind::Hashes { level };
                TileId { kind, index: nodes / WIDTH, width: (nodes % WIDTH) as u16 }
            };
            let tile = edge(range.size());
            kept.kept_from = tile.first();
            let (wider, own) = parts.split_at(parts.len() - tile.width.count_ones() as usize);
            parts = wider;
            if tile.width == 0 {
                continue;
            }
            let files = [tile.full(), edge(published), tile];
            let files = files.into_iter().filter(|file| {
                (file.index, file.width > 0) == (tile.index, true) && file.width >= tile.width
            });
            let mut found =
                files.filter_map(|file| read_tile(dir, &file).ok()).map(|mut hashes| {
                    hashes.truncate(tile.width.into());
                    hashes
                });
            kept.nodes = found.find(|hashes| edge_of(hashes) == own).ok_or(tile)?;
        }
        Ok(tree)
    }

    pub(crate) fn size(&self) -> Version {
        self.range.size()
    }

    /// Its right edge.
    pub(crate) fn range(&self) -> &CompactRange {
        &self.range
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

    /// The hashes `from` to `to` of a tile level, one after the other; `from` is not before those in memory.
    pub(crate) fn packed(&self, level: u8, from: u64, to: u64) -> Vec<u8> {
        let kept = &self.levels[usize::from(level)];
        let place = |node: u64| (node - kept.kept_from) as usize;
        tile::encode_hashes(&kept.nodes[place(from)..place(to)])
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

    /// The hashes of a tile within the tree.
    pub(crate) fn leaves(&self, tile: &TileId) -> Option<Vec<Digest>> {
        self.hashes(tile)
    }

    fn hashes(&self, tile: &TileId) -> Option<Vec<Digest>> {
        let TileKind::Hashes { level } = tile.kind else { return None };
        let kept = &self.levels[usize::from(level)];
        if let Some(from) = tile.first().checked_sub(kept.kept_from) {
            let from = usize::try_from(from).ok()?;
            return Some(kept.nodes.get(from..from + usize::from(tile.width))?.to_vec());
        }
        match read_tile(&self.dir, &tile.full()) {
            Ok(mut hashes) => {
                hashes.truncate(tile.width.into());
                Some(hashes)
            }
            Err(error) => {
                tracing::error!(%error, dir = %self.dir.display(), %tile, "a tile cannot be read");
                None
            }
        }
    }
}

/// The hashes of this tile, as they are on disk.
pub(crate) fn read_tile(dir: &Path, tile: &TileId) -> io::Result<Vec<Digest>> {
    tile::decode_hashes(&tiles::read(dir, tile)?, tile.width).map_err(io::Error::other)
}

/// The roots of the maximal full subtrees over these nodes.
fn edge_of(nodes: &[Digest]) -> Vec<Digest> {
    let mut range = CompactRange::new();
    nodes.iter().for_each(|node| range.push(*node));
    range.parts().to_vec()
}

impl HashSource for TileTree {
    fn node(&self, level: u8, index: u64) -> Option<Digest> {
        TileReader::new(self.size(), |tile| self.hashes(tile)).node(level, index)
    }
}
