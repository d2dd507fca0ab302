//! Compares the public face with what the entries give: every bundle and hash tile, partial ones too.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use tradewind_ledger::tile::{
    HASH_BYTES, TILE_HEIGHT, TILE_WIDTH, TileId, TileKind, decode_bundle, decode_hashes,
};
use tradewind_ledger::tree::{leaf_hash, root_of};
use tradewind_ledger::{Base, Digest, Version};

use crate::packed::{self, Found};
use crate::pruned::Pruned;
use crate::report::{Place, Problems};
use crate::source::Source;

/// The tiles of a ledger, checked from left to right while its entries are read.
pub(crate) struct Tiles<'a> {
    source: &'a dyn Source,
    /// Widths there are of each tile; `None` if the source cannot list. A tile is taken out once checked.
    listed: Option<BTreeMap<(TileKind, u64), Vec<u16>>>,
    /// Partial tiles that were read together with the checkpoint.
    partial: HashMap<TileId, Found>,
    /// The published size: says which tiles must be there.
    size: u64,
    /// The source lists no bundle at all.
    pub(crate) without_bundles: bool,
    levels: Vec<Level>,
    /// Entries before it were pruned: only hashes are left of them.
    first: Version,
    pruned: Option<Pruned>,
    pub(crate) bytes: u64,
}

/// The rightmost tile of a level so far. A node is unknown if an entry below it is.
#[derive(Default)]
struct Level {
    index: u64,
    nodes: Vec<Option<Digest>>,
}

/// The bundle of up to 256 entries as it should be.
#[derive(Default)]
pub(crate) struct Chunk {
    pub(crate) index: u64,
    /// Each entry after its length in two bytes.
    pub(crate) bytes: Vec<u8>,
    /// Where in `bytes` each entry lies, without its length; `None` if it is unknown.
    pub(crate) entries: Vec<Option<Range<usize>>>,
    /// Where each entry was found: index into `files`, and offset.
    pub(crate) places: Vec<Option<(usize, u64)>>,
    /// The files it came from.
    pub(crate) files: Vec<String>,
}

impl Chunk {
    /// The chunk `index`, of about `bytes` bytes.
    pub(crate) fn new(index: u64, bytes: usize) -> Self {
        Self { index, bytes: Vec::with_capacity(bytes), ..Self::default() }
    }

    pub(crate) fn first(&self) -> u64 {
        self.index * u64::from(TILE_WIDTH)
    }

    pub(crate) fn entry(&self, at: usize) -> Option<&[u8]> {
        self.entries.get(at)?.clone().map(|range| &self.bytes[range])
    }

    /// Puts an entry at its place, which lies behind all others.
    pub(crate) fn append(&mut self, found: Option<(&[u8], &str, u64)>) {
        let at = self.entries.len();
        self.entries.push(None);
        self.places.push(None);
        if let Some((entry, file, offset)) = found {
            self.set(at, entry, file, offset);
        }
    }

    fn set(&mut self, at: usize, entry: &[u8], file: &str, offset: u64) {
        if self.files.last().is_none_or(|last| last != file) {
            self.files.push(file.to_owned());
        }
        self.entries[at] = Some(self.store(entry));
        self.places[at] = Some((self.files.len() - 1, offset));
    }

    /// Where entry `at` of the chunk was found.
    pub(crate) fn place(&self, at: usize) -> Place {
        let place = Place::version(Version(self.first() + at as u64));
        match self.places.get(at).copied().flatten() {
            Some((file, offset)) => {
                Place { file: Some(self.files[file].clone()), ..place }.at(offset)
            }
            None => place,
        }
    }

    /// Adds `entry` to the bytes, at the end.
    fn store(&mut self, entry: &[u8]) -> Range<usize> {
        let len = u16::try_from(entry.len()).expect("records and bundles hold shorter entries");
        self.bytes.extend_from_slice(&len.to_be_bytes());
        let start = self.bytes.len();
        self.bytes.extend_from_slice(entry);
        start..self.bytes.len()
    }

    /// The bundle of the first `width` entries, if all of them are known and lie in order.
    fn prefix(&self, width: usize) -> Option<&[u8]> {
        let mut end = 0;
        for entry in self.entries.get(..width)? {
            let range = entry.as_ref()?;
            if range.start != end + 2 {
                return None;
            }
            end = range.end;
        }
        Some(&self.bytes[..end])
    }
}

impl<'a> Tiles<'a> {
    /// Lists the tiles, if the source can.
    pub(crate) fn open(
        source: &'a dyn Source,
        partial: HashMap<TileId, Found>,
        size: Version,
        base: Option<&Base>,
        problems: &mut Problems,
    ) -> Self {
        let first = base.map_or(Version::ZERO, Base::size);
        let files = source.list("tile").unwrap_or_else(|error| {
            problems.unread(&error);
            None
        });
        // An interrupted pruning may have left some of these.
        let gone = |id: &TileId| id.kind == TileKind::Entries && id.first() + 256 <= first.0;
        let listed = files.map(|files| {
            let mut listed: BTreeMap<_, Vec<u16>> = BTreeMap::new();
            for file in files.into_iter().filter(|file| !file.ends_with(".tmp")) {
                let mut list =
                    |id: TileId| listed.entry((id.kind, id.index)).or_default().push(id.width);
                if let Some(tiles) = packed::tiles_in(source, &file, problems) {
                    tiles.for_each(list);
                    continue;
                }
                match file.parse::<TileId>() {
                    Ok(id) if gone(&id) => {}
                    Ok(id) => list(id),
                    Err(error) => problems.fault(Place::file(file), error.to_string()),
                }
            }
            listed
        });
        let is_bundle = |(kind, _): &(TileKind, u64)| *kind == TileKind::Entries;
        let without_bundles = listed.as_ref().is_some_and(|listed| !listed.keys().any(is_bundle));
        let (size, levels) = (size.0, Vec::new());
        let pruned = base.cloned().map(Pruned::new);
        Self { source, listed, partial, size, without_bundles, levels, first, pruned, bytes: 0 }
    }

    /// The width that the tile must have for the published size; `None` if it need not be there.
    fn required(&self, kind: TileKind, index: u64) -> Option<u16> {
        let level = match kind {
            TileKind::Hashes { level } => level,
            TileKind::Entries => 0,
        };
        if kind == TileKind::Entries && index * u64::from(TILE_WIDTH) < self.first.0 {
            return None;
        }
        let nodes = self.size >> (TILE_HEIGHT * level);
        let rest = nodes.saturating_sub(index * u64::from(TILE_WIDTH));
        (rest > 0).then(|| rest.min(u64::from(TILE_WIDTH)) as u16)
    }

    /// Whether these tiles are bundles of a directory that has none: a node keeps its entries in segments only,
    /// and makes bundles of them for those who ask.
    fn bundles_are_made(&self, kind: TileKind) -> bool {
        kind == TileKind::Entries && self.without_bundles
    }

    /// All that there is of a tile, with its bytes, widest first; what must be there and is not is listed.
    fn load(
        &mut self,
        kind: TileKind,
        index: u64,
        problems: &mut Problems,
    ) -> Vec<(TileId, Found)> {
        let required = self.required(kind, index).filter(|_| !self.bundles_are_made(kind));
        let listed = self.listed.as_mut().and_then(|listed| listed.remove(&(kind, index)));
        let mut widths = listed.unwrap_or_default();
        widths.extend(required);
        widths.sort_unstable();
        widths.dedup();
        let mut found = Vec::new();
        for width in widths.into_iter().rev() {
            let id = TileId { kind, index, width };
            let tile = match self.partial.remove(&id) {
                Some(tile) => Ok(Some(tile)),
                None => packed::read(self.source, &id),
            };
            match tile {
                Ok(Some(tile)) => {
                    self.bytes += tile.bytes.len() as u64;
                    found.push((id, tile));
                }
                // A partial tile may go once there is a wider one.
                Ok(None) if Some(width) == required && found.is_empty() => {
                    self.missing(id, &mut found, problems);
                }
                Ok(None) => {}
                Err(error) => problems.unread(&error),
            }
        }
        found
    }

    /// A tile that the published size needs is not there: the full one will do.
    fn missing(&mut self, id: TileId, found: &mut Vec<(TileId, Found)>, problems: &mut Problems) {
        let full = id.full();
        match packed::read(self.source, &full) {
            Ok(Some(tile)) if id.is_partial() => {
                self.bytes += tile.bytes.len() as u64;
                found.push((full, tile));
            }
            Err(error) => problems.unread(&error),
            Ok(_) => {
                let message =
                    format!("missing, though the checkpoint's size {} needs it", self.size);
                problems.missing(Place::file(id.to_string()), message);
            }
        }
    }

    /// Compares the entry bundles with `chunk`, and fills in from them the entries that it lacks. Where
    /// they differ, the published leaf hash decides which one is right.
    pub(crate) fn check_bundle(&mut self, chunk: &mut Chunk, problems: &mut Problems) {
        for (id, found) in self.load(TileKind::Entries, chunk.index, problems) {
            if chunk.prefix(usize::from(id.width)) != Some(&found.bytes) {
                let stated = self.stated_leaves(chunk.index);
                compare_bundle(&id, &found.bytes, chunk, &stated, problems);
            }
        }
    }

    /// The leaf hashes that the published tile states for a chunk; none if it is not there.
    fn stated_leaves(&self, index: u64) -> Vec<Digest> {
        let kind = TileKind::Hashes { level: 0 };
        let listed = self.listed.as_ref().and_then(|listed| listed.get(&(kind, index)));
        let widths = listed.into_iter().flatten().copied().chain(self.required(kind, index));
        let Some(width) = widths.max() else { return Vec::new() };
        let id = TileId { kind, index, width };
        let bytes = match self.partial.get(&id) {
            Some(found) => Some(found.bytes.clone()),
            None => packed::read(self.source, &id).ok().flatten().map(|found| found.bytes),
        };
        bytes.and_then(|bytes| decode_hashes(&bytes, width).ok()).unwrap_or_default()
    }

    /// Takes up the leaf hashes of the next entries, at most 256; completes and checks hash tiles.
    pub(crate) fn push(&mut self, leaves: Vec<Option<Digest>>, problems: &mut Problems) {
        let mut carry = leaves;
        for level in 0.. {
            if carry.is_empty() {
                return;
            }
            if self.levels.len() == usize::from(level) {
                self.levels.push(Level::default());
            }
            let tile = &mut self.levels[usize::from(level)];
            tile.nodes.append(&mut carry);
            if tile.nodes.len() < usize::from(TILE_WIDTH) {
                return;
            }
            let parent = self.close(level, problems);
            carry = vec![parent];
        }
    }

    /// Checks the rightmost tile of a level and begins the next; returns the root over a full one.
    fn close(&mut self, level: u8, problems: &mut Problems) -> Option<Digest> {
        let tile = &mut self.levels[usize::from(level)];
        let (index, mut nodes) = (tile.index, std::mem::take(&mut tile.nodes));
        tile.index += 1;
        let kind = TileKind::Hashes { level };
        for (id, found) in self.load(kind, index, problems) {
            check_hashes(&id, &found, &mut nodes, problems);
        }
        if let Some(pruned) = self.pruned.as_mut().filter(|_| level == 0) {
            pruned.take(index * u64::from(TILE_WIDTH), &nodes, problems);
        }
        let known: Option<Vec<Digest>> = nodes.into_iter().collect();
        known.map(root_of)
    }

    /// Checks the partial tiles at the right edge, and that there are no others beyond.
    pub(crate) fn finish(&mut self, problems: &mut Problems) {
        for level in 0..self.levels.len() {
            if !self.levels[level].nodes.is_empty() {
                self.close(level as u8, problems);
            }
        }
        if let Some(pruned) = &self.pruned {
            pruned.finish(problems);
        }
        for ((kind, index), widths) in std::mem::take(&mut self.listed).unwrap_or_default() {
            for width in widths {
                let id = TileId { kind, index, width };
                let message = "it lies beyond the entries that could be read";
                problems.fault(Place::file(id.to_string()), message);
            }
        }
    }
}

/// Lists how a bundle differs from the entries in the segment files.
fn compare_bundle(
    id: &TileId,
    bytes: &[u8],
    chunk: &mut Chunk,
    stated: &[Digest],
    problems: &mut Problems,
) {
    let file = id.to_string();
    let entries = match decode_bundle(bytes, id.width) {
        Ok(entries) => entries,
        Err(error) => return problems.fault(Place::file(file), error.to_string()),
    };
    let mut offset = 2;
    for (at, entry) in entries.into_iter().enumerate() {
        if at == chunk.entries.len() {
            chunk.append(Some((entry, &file, offset)));
        }
        match chunk.entry(at) {
            None => chunk.set(at, entry, &file, offset),
            Some(known) if known != entry => {
                let differs = known.iter().zip(entry).take_while(|(a, b)| a == b).count() as u64;
                let is_stated = |entry| stated.get(at) == Some(&leaf_hash(entry));
                if is_stated(entry) && !is_stated(known) {
                    let message = "the entry differs from the published one";
                    problems.fault(chunk.place(at), message);
                    chunk.set(at, entry, &file, offset);
                } else {
                    let version = Version(chunk.first() + at as u64);
                    let place = Place::file(file.clone()).at(offset + differs).of(version);
                    problems.fault(place, "the entry differs from the one in the segment file");
                }
            }
            Some(_) => {}
        }
        offset += entry.len() as u64 + 2;
    }
}

/// Compares a hash tile with the nodes, and fills in from it those that are unknown.
fn check_hashes(id: &TileId, found: &Found, nodes: &mut [Option<Digest>], problems: &mut Problems) {
    let stated = match decode_hashes(&found.bytes, id.width) {
        Ok(stated) => stated,
        Err(error) => return problems.fault(found.place(), error.to_string()),
    };
    if stated.len() > nodes.len() {
        let message = format!("{} hashes, but the entries give {}", stated.len(), nodes.len());
        problems.fault(found.place(), message);
    }
    for (at, (stated, node)) in stated.iter().zip(nodes).enumerate() {
        match node {
            None => *node = Some(*stated),
            Some(node) if node != stated => {
                let within = node.0.iter().zip(&stated.0).take_while(|(a, b)| a == b).count();
                let offset = (at * HASH_BYTES + within) as u64;
                let message = format!("hash {at} is {stated}, the entries give {node}");
                problems.fault(found.at(offset), message);
            }
            Some(_) => {}
        }
    }
}
