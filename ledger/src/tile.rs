//! Tiles: the ledger's public face (c2sp.org/tlog-tiles).
//!
//! A hash tile of level `L` and index `N` holds up to 256 nodes of tree level `8 * L`, an entry bundle
//! up to 256 entries. Only the rightmost one of a level may be partial; its path then says how many it
//! holds.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use crate::entry::MAX_ENTRY;
use crate::ids::{Digest, Version};
use crate::text;
use crate::tree::{HashSource, node_hash};

/// Hashes or entries of a full tile.
pub const TILE_WIDTH: u16 = 256;
/// Tree levels that one tile level spans.
pub const TILE_HEIGHT: u8 = 8;
/// Tile levels of a tree with up to 2^64 leaves.
pub const MAX_TILE_LEVEL: u8 = 7;
/// Bytes of a hash.
pub const HASH_BYTES: usize = 32;
/// Bytes of a full hash tile.
pub const HASH_TILE_BYTES: usize = TILE_WIDTH as usize * HASH_BYTES;
/// Bytes of an entry bundle at most.
pub const MAX_BUNDLE_BYTES: usize = TILE_WIDTH as usize * (2 + MAX_ENTRY);

/// What stands before and behind the level in the path of packed tiles.
const PACKED_ABOVE: &str = "tile/";
const PACKED_ENDING: &str = ".hashes";

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileKind {
    /// Nodes of tree level `8 * level`.
    Hashes {
        /// The tile level, up to [`MAX_TILE_LEVEL`].
        level: u8,
    },
    /// Entries.
    Entries,
}

/// Names a tile; as text its path below the ledger: `tile/0/x001/x234/067.p/12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    /// What it holds.
    pub kind: TileKind,
    /// Which one of its level.
    pub index: u64,
    /// How many it holds: 1 to 256; below 256 it is partial.
    pub width: u16,
}

/// Why a text is not a tile's path, or bytes are not a tile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TileError {
    /// Not a path.
    #[error("not a tile's path: `tile/<level 0 to 7, or entries>/<index>[.p/<width>]` is allowed")]
    Path,
    /// The bytes are not as many as the width says.
    #[error("a hash tile of {found} bytes where {expected} are needed")]
    Length {
        /// Bytes found.
        found: usize,
        /// Bytes needed.
        expected: usize,
    },
    /// The bundle ends in the middle of an entry.
    #[error("the entry bundle ends in the middle of entry {entry} (byte {at})")]
    Truncated {
        /// Which entry of the bundle, from 0.
        entry: u16,
        /// Where it begins.
        at: usize,
    },
    /// Bytes after the last entry.
    #[error("{count} bytes after the last entry of the bundle")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// An entry that does not fit its length field.
    #[error("an entry of {len} bytes; at most {MAX_ENTRY} fit a bundle")]
    TooLong {
        /// Bytes of the entry.
        len: usize,
    },
}

impl TileId {
    /// The tile that holds leaf or entry `version`, in a ledger of `size` entries, which must be
    /// more than `version`.
    ///
    /// # Panics
    /// If it is not.
    #[must_use]
    pub fn of_entry(kind: TileKind, version: Version, size: Version) -> Self {
        assert!(version < size, "entry {version} is not in a ledger of {size}");
        let level = match kind {
            TileKind::Hashes { level } => level,
            TileKind::Entries => 0,
        };
        let index = version.0 >> (TILE_HEIGHT * level) >> TILE_HEIGHT;
        let nodes = size.0 >> (TILE_HEIGHT * level);
        let width = (nodes - (index << TILE_HEIGHT)).min(u64::from(TILE_WIDTH)) as u16;
        Self { kind, index, width }
    }

    /// Whether it is partial.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.width < TILE_WIDTH
    }

    /// The full tile of the same level and index.
    #[must_use]
    pub fn full(self) -> Self {
        Self { width: TILE_WIDTH, ..self }
    }

    /// Where a hash tile lies in a directory that keeps the hashes of a level one after the other in one file
    /// (`docs/formats/data-directory.md`, "Packed tiles"): the file's path below the ledger, and the offset in it. `None` for
    /// an entry bundle, and beyond what a file can hold.
    #[must_use]
    pub fn packed(&self) -> Option<(String, u64)> {
        let TileKind::Hashes { level } = self.kind else { return None };
        let offset = self.first().checked_mul(HASH_BYTES as u64)?;
        Some((format!("{PACKED_ABOVE}{level}{PACKED_ENDING}"), offset))
    }

    /// The first node or entry that it holds.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.index << TILE_HEIGHT
    }
}

impl fmt::Display for TileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes { level } => write!(f, "tile/{level}/")?,
            TileKind::Entries => f.write_str("tile/entries/")?,
        }
        let groups = self.index.checked_ilog(1000).unwrap_or(0);
        for group in (1..=groups).rev() {
            write!(f, "x{:03}/", self.index / 1000_u64.pow(group) % 1000)?;
        }
        write!(f, "{:03}", self.index % 1000)?;
        if self.is_partial() { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

impl FromStr for TileId {
    type Err = TileError;

    /// Strict: exactly what [`fmt::Display`] writes.
    fn from_str(path: &str) -> Result<Self, TileError> {
        parse_path(path).ok_or(TileError::Path)
    }
}

fn parse_path(path: &str) -> Option<TileId> {
    let (level, rest) = path.strip_prefix("tile/")?.split_once('/')?;
    let kind = match level {
        "entries" => TileKind::Entries,
        _ => {
            let level = u8::try_from(text::decimal(level)?).ok()?;
            TileKind::Hashes { level: Some(level).filter(|level| *level <= MAX_TILE_LEVEL)? }
        }
    };
    let (number, width) = match rest.split_once(".p/") {
        None => (rest, TILE_WIDTH),
        Some((number, width)) => {
            let width = text::decimal(width)?;
            (number, u16::try_from(width).ok().filter(|width| (1..256).contains(width))?)
        }
    };
    let mut index = 0_u64;
    let mut groups = number.split('/').enumerate().peekable();
    while let Some((position, group)) = groups.next() {
        let digits = match groups.peek() {
            Some(_) => group.strip_prefix('x')?,
            None => group,
        };
        let three = digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let value = if three { digits.parse::<u64>().ok()? } else { return None };
        // A leading group of zeroes would be a second path of the same tile.
        if position == 0 && value == 0 && groups.peek().is_some() {
            return None;
        }
        index = index.checked_mul(1000)?.checked_add(value)?;
    }
    // Beyond this a tile would begin past the 2^64th node.
    (index <= u64::MAX >> TILE_HEIGHT).then_some(TileId { kind, index, width })
}

/// The tile level whose hashes the file of this path packs ([`TileId::packed`]); `None` if it is no such file.
#[must_use]
pub fn packed_level(path: &str) -> Option<u8> {
    let level = path.strip_prefix(PACKED_ABOVE)?.strip_suffix(PACKED_ENDING)?;
    let level = u8::try_from(text::decimal(level)?).ok()?;
    (level <= MAX_TILE_LEVEL).then_some(level)
}

/// The tiles of one level that a ledger needs at size `new` and not already at size `old`.
fn level_tiles(kind: TileKind, old: u64, new: u64) -> impl Iterator<Item = TileId> {
    let width = u64::from(TILE_WIDTH);
    let full =
        (old / width..new / width).map(move |index| TileId { kind, index, width: TILE_WIDTH });
    let partial = partial(kind, new).filter(|_| new > old);
    full.chain(partial)
}

/// All tiles and bundles that a checkpoint of `size` entries needs.
pub fn tiles(size: Version) -> impl Iterator<Item = TileId> {
    tiles_between(Version::ZERO, size)
}

/// The partial ones among [`tiles`]: at most one bundle and one tile a level.
pub fn partial_tiles(size: Version) -> impl Iterator<Item = TileId> {
    let hashes = (0..=MAX_TILE_LEVEL).filter_map(move |level| {
        partial(TileKind::Hashes { level }, size.0 >> (TILE_HEIGHT * level))
    });
    partial(TileKind::Entries, size.0).into_iter().chain(hashes)
}

/// The partial tile of a level with this many nodes.
fn partial(kind: TileKind, nodes: u64) -> Option<TileId> {
    let width = (nodes % u64::from(TILE_WIDTH)) as u16;
    (width > 0).then_some(TileId { kind, index: nodes / u64::from(TILE_WIDTH), width })
}

/// The tiles and bundles that a checkpoint of size `new` needs beyond those of a checkpoint of size
/// `old`: entries first, then hashes from the leaves up.
pub fn tiles_between(old: Version, new: Version) -> impl Iterator<Item = TileId> {
    let hashes = (0..=MAX_TILE_LEVEL).flat_map(move |level| {
        let shift = TILE_HEIGHT * level;
        level_tiles(TileKind::Hashes { level }, old.0 >> shift, new.0 >> shift)
    });
    level_tiles(TileKind::Entries, old.0, new.0).chain(hashes)
}

/// The bytes of a hash tile.
#[must_use]
pub fn encode_hashes(hashes: &[Digest]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// The hashes of a tile of this width.
///
/// # Errors
/// If the bytes are not exactly as many.
pub fn decode_hashes(bytes: &[u8], width: u16) -> Result<Vec<Digest>, TileError> {
    let expected = usize::from(width) * 32;
    if bytes.len() != expected {
        return Err(TileError::Length { found: bytes.len(), expected });
    }
    Ok(bytes.as_chunks::<32>().0.iter().copied().map(Digest).collect())
}

/// Computes a tile's hashes from the nodes of a tree; `None` if the source lacks one.
pub fn hashes_of(tile: &TileId, source: &impl HashSource) -> Option<Vec<Digest>> {
    let TileKind::Hashes { level } = tile.kind else { return None };
    let node = |offset| source.node(level * TILE_HEIGHT, tile.first() + u64::from(offset));
    (0..tile.width).map(node).collect()
}

/// The bytes of an entry bundle. Fails on an entry too long for its length field.
pub fn encode_bundle<'a>(
    entries: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<u8>, TileError> {
    let mut bytes = Vec::new();
    for entry in entries {
        let len =
            u16::try_from(entry.len()).map_err(|_| TileError::TooLong { len: entry.len() })?;
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(entry);
    }
    Ok(bytes)
}

/// The entries of a bundle of this width.
///
/// # Errors
/// If the bytes end too early or too late.
pub fn decode_bundle(bytes: &[u8], width: u16) -> Result<Vec<&[u8]>, TileError> {
    let mut rest = bytes;
    let mut entries = Vec::new();
    for entry in 0..width {
        let truncated = TileError::Truncated { entry, at: bytes.len() - rest.len() };
        let (len, after) = rest.split_first_chunk::<2>().ok_or(truncated.clone())?;
        let len = usize::from(u16::from_be_bytes(*len));
        let (bytes, after) = after.split_at_checked(len).ok_or(truncated)?;
        entries.push(bytes);
        rest = after;
    }
    match rest.len() {
        0 => Ok(entries),
        count => Err(TileError::Trailing { count }),
    }
}

/// Reads tiles by name and gives a tree's nodes from them: what a client of the public face does.
pub struct TileReader<F> {
    size: Version,
    read: F,
}

impl<F: Fn(&TileId) -> Option<Vec<Digest>>> TileReader<F> {
    /// A reader of the tree with `size` entries; `read` gives the hashes of a tile that this size
    /// needs, and should remember them.
    pub fn new(size: Version, read: F) -> Self {
        Self { size, read }
    }
}

impl<F: Fn(&TileId) -> Option<Vec<Digest>>> HashSource for TileReader<F> {
    fn node(&self, level: u8, index: u64) -> Option<Digest> {
        let within = level % TILE_HEIGHT;
        let tile_level = level / TILE_HEIGHT;
        let last = index.checked_add(1)?.checked_shl(u32::from(level))?;
        if last > self.size.0 || last >> level != index + 1 {
            return None;
        }
        let kind = TileKind::Hashes { level: tile_level };
        let first_leaf = index << level;
        let tile = TileId::of_entry(kind, Version(first_leaf), self.size);
        let hashes = (self.read)(&tile)?;
        let first = usize::try_from((index << within) - tile.first()).ok()?;
        let mut nodes = hashes.get(first..first + (1 << within))?.to_vec();
        while nodes.len() > 1 {
            nodes = nodes.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
        }
        nodes.first().copied()
    }
}
