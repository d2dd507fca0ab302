//! The start of a replica that has taken a snapshot: a ledger of which only the hashes are there.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tradewind_ledger::base::Base;
use tradewind_ledger::ids::{Digest, Version};
use tradewind_ledger::tile::{TileId, TileKind};
use tradewind_ledger::tree::leaf_hash;

use crate::error::{Context, FileError, OpenError};
use crate::layout::{Layout, Lock};
use crate::open::{Face, list};
use crate::ops::Ops;
use crate::prune::write_base;
use crate::repair::PeerError;
use crate::tiles;
use crate::tree::TileTree;

/// Why a directory was not made for a ledger that begins at a base.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PlantError {
    /// There is a ledger.
    #[error("{}: holds a ledger already", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// It is in use.
    #[error(transparent)]
    Open(#[from] Box<OpenError>),
    /// A tile of leaf hashes was not given.
    #[error("{tile}: {source}")]
    Tile {
        /// The tile.
        tile: TileId,
        /// Why.
        source: PeerError,
    },
    /// The leaf hashes are not those under the base.
    #[error("the leaf hashes have the root {found}, the base says {expected}")]
    Root {
        /// Their root.
        found: Digest,
        /// The base's.
        expected: Digest,
    },
    /// The base says something else of an entry than the leaf hashes.
    #[error("entry {version} of the base is not what the leaf hashes say")]
    Entry {
        /// Which.
        version: Version,
    },
    /// The system refused. Retryable.
    #[error(transparent)]
    File(#[from] FileError),
    /// The system refused whoever prepares the directory. Retryable.
    #[error("{}: {source}", dir.display())]
    System {
        /// Where.
        dir: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Of the kind that the system gave, so that who waits for room on a disk knows.
impl From<PlantError> for io::Error {
    fn from(error: PlantError) -> Self {
        let kind = match &error {
            PlantError::File(FileError { source, .. }) | PlantError::System { source, .. } => {
                source.kind()
            }
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// Makes in `dir`, where no ledger is, one whose entries before `base` are pruned: the start of a replica that has taken a
/// snapshot. `leaves` gives the hashes of a tile of level 0, as another replica's public face has it; all of them together
/// must have the base's root. They lie as `face` says, with which the ledger is to be opened then. Then the ledger can be opened from the base. After an error or a crash, call it again.
///
/// # Errors
/// See [`PlantError`]: the directory holds no ledger then.
pub fn plant(
    dir: &Path,
    face: Face,
    base: &Base,
    mut leaves: impl FnMut(&TileId) -> Result<Vec<Digest>, PeerError>,
) -> Result<(), PlantError> {
    let (ops, layout) = (Ops::default(), Layout { face, ..Layout::new(dir) });
    layout.create(&ops)?;
    let _lock = Lock::take(dir).map_err(Box::new)?;
    let (segments, _) = list(&layout).map_err(Box::new)?;
    if !segments.is_empty() || layout.base.exists() || layout.checkpoint.exists() {
        return Err(PlantError::NotEmpty { dir: dir.to_owned() });
    }
    let size = base.size();
    let mut tree = TileTree::new(dir);
    let kind = TileKind::Hashes { level: 0 };
    let entries = base.entries();
    while tree.size() < size {
        let tile = TileId::of_entry(kind, tree.size(), size);
        let hashes = leaves(&tile).and_then(|hashes| match hashes.len() {
            found if found == usize::from(tile.width) => Ok(hashes),
            found => Err(format!("{found} hashes instead of {}", tile.width).into()),
        });
        let hashes = hashes.map_err(|source| PlantError::Tile { tile, source })?;
        for (version, entry) in &entries {
            let place =
                version.0.checked_sub(tree.size().0).and_then(|at| usize::try_from(at).ok());
            let leaf = place.and_then(|at| hashes.get(at));
            if leaf.is_some_and(|leaf| *leaf != leaf_hash(entry)) {
                return Err(PlantError::Entry { version: *version });
            }
        }
        hashes.into_iter().for_each(|leaf| tree.push(leaf));
        for tile in tree.unwritten(tree.size()) {
            let bytes = tree.tile(&tile).expect("not written, so in memory");
            tiles::write(&ops, &layout, &tile, &bytes)?;
            tree.written(&tile);
        }
    }
    if tree.range() != base.compact_range() {
        return Err(PlantError::Root { found: tree.range().root(), expected: base.root() });
    }
    for tile in tiles::partials(size).filter(|tile| tile.kind != TileKind::Entries) {
        let bytes = tree.tile(&tile).expect("at the edge, so in memory");
        tiles::write(&ops, &layout, &tile, &bytes)?;
    }
    let handle = File::open(dir).context("open", dir)?;
    ops.sync_all(&handle).context("sync the file system of", dir)?;
    Ok(write_base(&ops, &layout, base)?)
}
