//! Tiles as a directory has them: each a file of its own, or hash tiles packed in one file a level, as a node keeps them.

use tradewind_ledger::Version;
use tradewind_ledger::tile::{
    HASH_BYTES, MAX_BUNDLE_BYTES, TILE_WIDTH, TileId, TileKind, packed_level,
};

use crate::report::{Place, Problems};
use crate::source::{Source, SourceError};

/// A tile's bytes, and where they lie.
pub(crate) struct Found {
    pub(crate) bytes: Vec<u8>,
    /// The file, and where in it the tile begins.
    file: String,
    offset: u64,
}

impl Found {
    /// The place of byte `at` of the tile.
    pub(crate) fn at(&self, at: u64) -> Place {
        Place::file(self.file.clone()).at(self.offset + at)
    }

    /// The file as a whole, or the tile's beginning where it is a part of one.
    pub(crate) fn place(&self) -> Place {
        let place = Place::file(self.file.clone());
        if self.offset > 0 { place.at(self.offset) } else { place }
    }
}

/// Reads a tile or bundle; `None` if it is not there.
pub(crate) fn read(source: &dyn Source, id: &TileId) -> Result<Option<Found>, SourceError> {
    let file = id.to_string();
    if let Some(bytes) = source.read(&file, MAX_BUNDLE_BYTES as u64)? {
        return Ok(Some(Found { bytes, file, offset: 0 }));
    }
    let Some((file, offset)) = id.packed() else { return Ok(None) };
    let bytes = source.read_part(&file, offset, usize::from(id.width) * HASH_BYTES)?;
    Ok(bytes.map(|bytes| Found { bytes, file, offset }))
}

/// The tiles that are packed in the file of this path; `None` if it is none of packed tiles.
pub(crate) fn tiles_in(
    source: &dyn Source,
    path: &str,
    problems: &mut Problems,
) -> Option<impl Iterator<Item = TileId> + use<>> {
    let level = packed_level(path)?;
    let len = source.length(path).unwrap_or_else(|error| {
        problems.unread(&error);
        None
    });
    let len = len.unwrap_or(0);
    let (nodes, rest) = (len / HASH_BYTES as u64, len % HASH_BYTES as u64);
    if rest > 0 {
        let message = format!("{rest} bytes after the last hash");
        problems.fault(Place::file(path).at(len - rest), message);
    }
    let kind = TileKind::Hashes { level };
    let width = u64::from(TILE_WIDTH);
    let tile = move |index| {
        let first = Version(index * width);
        TileId { kind, index, width: (nodes - first.0).min(width) as u16 }
    };
    Some((0..nodes.div_ceil(width)).map(tile))
}
