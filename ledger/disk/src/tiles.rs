//! Files of tiles and bundles, and which of the partial ones a size needs.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tradewind_ledger::ids::Version;
use tradewind_ledger::tile::{MAX_TILE_LEVEL, TILE_HEIGHT, TILE_WIDTH, TileId, TileKind};

use crate::error::{Context, FileError};
use crate::layout::{Layout, TEMPORARY};
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

/// Puts a tile's file into place, whole. It is durable only after the next [`Ops::sync_all`].
pub(crate) fn write(
    ops: &Ops,
    layout: &Layout,
    tile: &TileId,
    bytes: &[u8],
) -> Result<(), FileError> {
    let path = layout.dir.join(tile.to_string());
    let parent = path.parent().expect("below the ledger's directory");
    ops.make_dir(parent).context("make the directory", parent)?;
    replace(ops, &layout.tiles.join(TEMPORARY), &path, bytes)
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

/// Whether the tile's file has these bytes.
pub(crate) fn is_written(layout: &Layout, tile: &TileId, bytes: &[u8]) -> Result<bool, FileError> {
    let path = layout.dir.join(tile.to_string());
    let same_length = has_length(&path, bytes.len() as u64).context("read the length", &path)?;
    Ok(same_length && fs::read(&path).context("read", &path)? == bytes)
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

/// Removes what interrupted publications left: temporary files, and partial tiles that are not `needed`; and bundles
/// where they are not to be files.
pub(crate) fn clean(
    ops: &Ops,
    layout: &Layout,
    needed: &[TileId],
    bundles: bool,
) -> Result<(), FileError> {
    clean_below(ops, layout, vec![layout.tiles.clone()], needed, bundles)
}

/// As [`clean`], but of partial tiles only those that a checkpoint of `from` to `upto` entries may have had.
pub(crate) fn clean_edge(
    ops: &Ops,
    layout: &Layout,
    (from, upto): (Version, Version),
    needed: &[TileId],
    bundles: bool,
) -> Result<(), FileError> {
    match ops.remove(&layout.tiles.join(TEMPORARY)) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        result => result.context("remove", &layout.tiles)?,
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
    if !bundles && entries.is_dir() {
        dirs.push(entries);
    }
    clean_below(ops, layout, dirs, needed, bundles)
}

fn clean_below(
    ops: &Ops,
    layout: &Layout,
    mut dirs: Vec<PathBuf>,
    needed: &[TileId],
    bundles: bool,
) -> Result<(), FileError> {
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
                Some(TileId { kind: TileKind::Entries, .. }) if !bundles => true,
                Some(tile) => tile.is_partial() && !needed.contains(&tile),
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
