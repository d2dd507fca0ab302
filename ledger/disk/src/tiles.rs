//! Files of tiles and bundles, and which of the partial ones a size needs. Where hash tiles are packed, the file of a level
//! holds them all; those that are files of their own are read nevertheless.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tradewind_ledger::ids::Version;
use tradewind_ledger::tile::{
    HASH_BYTES, MAX_BUNDLE_BYTES, MAX_TILE_LEVEL, TILE_HEIGHT, TILE_WIDTH, TileId, TileKind,
};

use crate::error::{Context, FileError};
use crate::layout::{Layout, MENDED, TEMPORARY};
use crate::open::Face;
use crate::ops::Ops;

/// The partial tiles and bundle that a checkpoint of `size` entries needs.
pub(crate) fn partials(size: Version) -> impl Iterator<Item = TileId> {
    let hashes = (0..=MAX_TILE_LEVEL).map(|level| TileKind::Hashes { level });
    hashes.chain([TileKind::Entries]).filter_map(move |kind| {
        let level = match kind {
            TileKind::Hashes { level } => level,
            TileKind::Entries => 0,
        };
        let nodes = size.0 >> (TILE_HEIGHT * level);
        let width = (nodes % u64::from(TILE_WIDTH)) as u16;
        (width > 0).then_some(TileId { kind, index: nodes / u64::from(TILE_WIDTH), width })
    })
}

/// The file in which the hashes of a level are packed.
pub(crate) fn packed_file(layout: &Layout, level: u8) -> PathBuf {
    let tile = TileId { kind: TileKind::Hashes { level }, index: 0, width: TILE_WIDTH };
    let (name, _) = tile.packed().expect("the first tile of a level lies within a file");
    layout.dir.join(name)
}

/// Puts a tile into place, whole. It is durable only after the next [`Ops::sync_all`]. One thread at a time; beside it,
/// [`mend`] may.
pub(crate) fn write(
    ops: &Ops,
    layout: &Layout,
    tile: &TileId,
    bytes: &[u8],
) -> Result<(), FileError> {
    write_by(ops, layout, TEMPORARY, (tile, bytes))
}

/// As [`write`], while another thread writes other tiles.
pub(crate) fn mend(
    ops: &Ops,
    layout: &Layout,
    tile: &TileId,
    bytes: &[u8],
) -> Result<(), FileError> {
    write_by(ops, layout, MENDED, (tile, bytes))
}

fn write_by(
    ops: &Ops,
    layout: &Layout,
    temporary: &str,
    (tile, bytes): (&TileId, &[u8]),
) -> Result<(), FileError> {
    let path = layout.dir.join(tile.to_string());
    if let Some((packed, offset)) = tile.packed().filter(|_| layout.face == Face::Packed) {
        // One that is a file of its own would be read instead.
        match ops.remove(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::NotADirectory => {}
            result => result.context("remove", &path)?,
        }
        let path = layout.dir.join(packed);
        let (file, _) = ops.open(&path).context("open", &path)?;
        return ops.write_at(&file, &path, bytes, offset).context("write", &path);
    }
    let parent = path.parent().expect("below the ledger's directory");
    ops.make_dir(parent).context("make the directory", parent)?;
    replace(ops, &layout.tiles.join(temporary), &path, bytes)
}

/// Writes a file under a temporary name and renames it; nothing is synced.
pub(crate) fn replace(
    ops: &Ops,
    temporary: &Path,
    path: &Path,
    bytes: &[u8],
) -> Result<(), FileError> {
    let file = ops.create(temporary).context("create", temporary)?;
    ops.write_at(&file, temporary, bytes, 0).context("write", temporary)?;
    ops.rename(temporary, path).context("rename", path)
}

/// Shortens packed files to the hashes that a ledger of `size` entries has: what lies behind was not published.
pub(crate) fn cut_packed(ops: &Ops, layout: &Layout, size: Version) -> Result<(), FileError> {
    for level in 0..=MAX_TILE_LEVEL {
        let path = packed_file(layout, level);
        let len = (size.0 >> (TILE_HEIGHT * level)) * HASH_BYTES as u64;
        let file = match File::options().write(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            file => file.context("open", &path)?,
        };
        if file.metadata().context("read the length of", &path)?.len() > len {
            ops.set_len(&file, &path, len).context("shorten", &path)?;
        }
    }
    Ok(())
}

/// The bytes of a tile or bundle, from its own file or from that in which it is packed.
pub(crate) fn read(dir: &Path, tile: &TileId) -> io::Result<Vec<u8>> {
    let missing = match File::open(dir.join(tile.to_string())) {
        Ok(file) => {
            let mut bytes = Vec::new();
            file.take(MAX_BUNDLE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
            return Ok(bytes);
        }
        Err(error) => error,
    };
    let packed = tile.packed().filter(|_| missing.kind() == ErrorKind::NotFound);
    let Some((name, offset)) = packed else { return Err(missing) };
    let file = File::open(dir.join(name))?;
    let mut bytes = vec![0; usize::from(tile.width) * HASH_BYTES];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(missing),
        Err(error) => Err(error),
    }
}

/// Whether the tile's file has these bytes.
pub(crate) fn is_written(layout: &Layout, tile: &TileId, bytes: &[u8]) -> Result<bool, FileError> {
    match read(&layout.dir, tile) {
        Ok(found) => Ok(found == bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).context("read", &layout.dir.join(tile.to_string())),
    }
}

/// Whether the file is there with this length.
pub(crate) fn has_length(path: &Path, len: u64) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_file() && metadata.len() == len),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the files of the partial tiles that `size` had and `keep` says are not needed.
pub(crate) fn remove_partials(
    ops: &Ops,
    layout: &Layout,
    size: Version,
    keep: impl Fn(&TileId) -> bool,
) -> Result<(), FileError> {
    for tile in partials(size).filter(|tile| !keep(tile)) {
        let path = layout.dir.join(tile.to_string());
        match ops.remove(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            result => result.context("remove", &path)?,
        }
        // The directory `<N>.p` goes with the last partial tile in it.
        let _ = fs::remove_dir(path.parent().expect("below the ledger's directory"));
    }
    Ok(())
}

/// Removes what interrupted publications left: temporary files, and partial tiles that are not `needed`; and where
/// tiles are packed, bundles and all partial tiles that are files.
pub(crate) fn clean(ops: &Ops, layout: &Layout, needed: &[TileId]) -> Result<(), FileError> {
    clean_below(ops, layout, vec![layout.tiles.clone()], needed)
}

/// As [`clean`], but of partial tiles only those that a checkpoint of `from` to `upto` entries may have had.
pub(crate) fn clean_edge(
    ops: &Ops,
    layout: &Layout,
    (from, upto): (Version, Version),
    needed: &[TileId],
) -> Result<(), FileError> {
    for temporary in [TEMPORARY, MENDED] {
        match ops.remove(&layout.tiles.join(temporary)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            result => result.context("remove", &layout.tiles)?,
        }
    }
    let hashes = (0..=MAX_TILE_LEVEL).map(|level| (TileKind::Hashes { level }, level));
    let mut dirs = Vec::new();
    for (kind, level) in hashes.chain([(TileKind::Entries, 0)]) {
        let tile = |size: Version| size.0 >> (TILE_HEIGHT * level) >> TILE_HEIGHT;
        for index in tile(from)..=tile(upto) {
            let partial = layout.dir.join(TileId { kind, index, width: 1 }.to_string());
            dirs.extend(partial.parent().filter(|dir| dir.is_dir()).map(Path::to_owned));
        }
    }
    let entries = layout.tiles.join("entries");
    if layout.face == Face::Packed && entries.is_dir() {
        dirs.push(entries);
    }
    clean_below(ops, layout, dirs, needed)
}

fn clean_below(
    ops: &Ops,
    layout: &Layout,
    mut dirs: Vec<PathBuf>,
    needed: &[TileId],
) -> Result<(), FileError> {
    let is_packed = layout.face == Face::Packed;
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).context("list", &dir)? {
            let entry = entry.context("list", &dir)?;
            let path = entry.path();
            if entry.file_type().context("read the type", &path)?.is_dir() {
                dirs.push(path);
                continue;
            }
            let relative = path.strip_prefix(&layout.dir).ok().and_then(Path::to_str);
            let tile = relative.and_then(|path| path.parse::<TileId>().ok());
            let stale = match tile {
                Some(TileId { kind: TileKind::Entries, .. }) if is_packed => true,
                Some(tile) => tile.is_partial() && (is_packed || !needed.contains(&tile)),
                None => path.to_string_lossy().ends_with(TEMPORARY),
            };
            if stale {
                ops.remove(&path).context("remove", &path)?;
                let _ = fs::remove_dir(&dir);
            }
        }
    }
    Ok(())
}
