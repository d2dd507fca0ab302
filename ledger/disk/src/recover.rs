//! The pass over all entries when a ledger is opened: tells what a crash left from damage.
//!
//! It reads only. What has to be repaired is collected: [`Tail`]s of files that are not sealed, and
//! tiles that do not have the bytes that follow from the entries.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tradewind_ledger::base::Base;
use tradewind_ledger::entry::Entry;
use tradewind_ledger::ids::{Lineage, Version};
use tradewind_ledger::note::Checkpoint;
use tradewind_ledger::replay::{Replay, ReplayError};
use tradewind_ledger::segment_file::{Framing, Header, SegmentName, State, Watermark};
use tradewind_ledger::tile::{TILE_WIDTH, TileId, TileKind};
use tradewind_ledger::tree::leaf_hash;

use crate::error::{BaseFault, Context, Damage, FileError, Found, OpenError};
use crate::layout::Layout;
use crate::open::{Face, Options, VisitError};
use crate::scan::{Scan, Step};
use crate::shared::{Indexed, SealedSegment};
use crate::start::{Begin, refused};
use crate::tail::Tail;
use crate::tiles;
use crate::tree::TileTree;
use crate::writer::is_seal;

/// The pass over all entries.
pub(crate) struct Recovering<'a, V> {
    layout: &'a Layout,
    options: &'a Options,
    checkpoint: Option<&'a Checkpoint>,
    visit: V,
    /// Entries before it are there, but are neither replayed nor shown.
    base: Option<Arc<Base>>,
    /// The entry that the next file starts with.
    next: Version,
    /// Lineage in the first file's header, and the framing that follows from it.
    framing: Option<(Lineage, Framing)>,
    /// Bytes of the entries since the last full bundle, bundled; unknown for the bundle that the replay begins in.
    bundle_bytes: Option<u64>,
    replayed: Replayed,
}

/// What the pass found.
pub(crate) struct Replayed {
    pub(crate) replay: Replay,
    pub(crate) tree: TileTree,
    pub(crate) sealed: Vec<SealedSegment>,
    /// Files that are not sealed, in order; all but the last end with a SEAL.
    pub(crate) tails: Vec<Tail>,
    /// Full hash tiles below the checkpoint that have to be written, with their bytes.
    pub(crate) lost_tiles: Vec<(TileId, Vec<u8>)>,
    /// Full bundles below the checkpoint that have to be written.
    pub(crate) lost_bundles: Vec<TileId>,
}

/// Where an entry's record is, for errors.
#[derive(Clone, Copy)]
struct Place<'a> {
    path: &'a Path,
    offset: u64,
    version: Version,
}

impl Place<'_> {
    fn damage(&self, found: Found) -> OpenError {
        Damage { file: self.path.to_owned(), offset: self.offset, found }.into()
    }
}

impl<'a, V: FnMut(Version, Entry) -> Result<(), VisitError>> Recovering<'a, V> {
    pub(crate) fn new(
        layout: &'a Layout,
        options: &'a Options,
        checkpoint: Option<&'a Checkpoint>,
        begin: &Begin,
        visit: V,
    ) -> Result<Self, OpenError> {
        let base = begin.base.clone();
        let tree = begin.tree(layout, checkpoint)?;
        let framed = |base: &Arc<Base>| {
            (base.lineage(), Framing::new(base.lineage(), crc32c::crc32c_append))
        };
        let framing = base.as_ref().map(framed);
        let whole_bundles = tree.size().0.is_multiple_of(TILE_WIDTH.into());
        let bundle_bytes = whole_bundles.then_some(0);
        let replayed = Replayed {
            replay: base.as_deref().map_or_else(Replay::new, Replay::from_base),
            tree,
            sealed: Vec::new(),
            tails: Vec::new(),
            lost_tiles: Vec::new(),
            lost_bundles: Vec::new(),
        };
        let next = begin.first();
        Ok(Self { layout, options, checkpoint, visit, base, next, framing, bundle_bytes, replayed })
    }

    /// Reads the next file.
    pub(crate) fn segment(&mut self, name: SegmentName, is_last: bool) -> Result<(), OpenError> {
        let path = self.layout.segment(name);
        let expected = self.next;
        if name.first != expected {
            return Err(OpenError::Gap { file: path, expected, found: name.first });
        }
        if let (Some(base), Some(last)) = (self.base.clone(), name.last)
            && name.first < base.size()
        {
            return self.skip(&base, SealedSegment { first: name.first, last }, path);
        }
        let mut options = File::options();
        let opened = options.read(true).write(name.last.is_none()).open(&path);
        let file = Arc::new(opened.context("open", &path)?);
        let (mut scan, header, state) = Scan::open(&file, &path, name.first)?;
        let framing = self.framing_of(&header, &path)?;
        if let Some(last) = name.last {
            let place = Place { path: &path, offset: 512, version: name.first };
            if state != State::Sealed {
                return Err(place.damage(Found::Watermarks));
            }
            self.sealed(&mut scan, &framing, last)?;
            self.next = last.next();
            self.replayed.sealed.push(SealedSegment { first: name.first, last });
            return Ok(());
        }
        let mark = match state {
            State::Open { watermark, .. } => Some(watermark),
            State::Sealed | State::Torn => None,
        };
        let mut index = Indexed::new(name.first, Arc::clone(&file), path.clone());
        let ends_with_seal = self.unsealed(&mut scan, &framing, mark, &mut index)?;
        let (end, version) = scan.place();
        self.next = version;
        let place = Place { path: &path, offset: end, version };
        let used = scan.used_until()?;
        if ends_with_seal && used > end {
            return Err(place.damage(Found::Trailing));
        }
        if !ends_with_seal && !is_last {
            return Err(place.damage(Found::Missing { version }));
        }
        self.replayed.tails.push(Tail { header, mark, index, ends_with_seal, end, used });
        Ok(())
    }

    /// Takes a sealed file before the base by its name. The newest of them must be of this ledger: the others are
    /// checked when they are read.
    fn skip(
        &mut self,
        base: &Base,
        segment: SealedSegment,
        file: PathBuf,
    ) -> Result<(), OpenError> {
        if segment.last >= base.size() {
            return Err(refused(self.layout, base, BaseFault::WithinSegment { file }));
        }
        self.next = segment.last.next();
        self.replayed.sealed.push(segment);
        if self.next == base.size() {
            let opened = File::open(&file).context("open", &file)?;
            let (_, header, _) = Scan::open(&opened, &file, segment.first)?;
            self.framing_of(&header, &file)?;
        }
        Ok(())
    }

    /// The framing of this ledger, if the file's header is of this ledger.
    fn framing_of(&mut self, header: &Header, path: &Path) -> Result<Framing, OpenError> {
        let found = header.lineage;
        match self.framing {
            Some((lineage, framing)) if lineage == found => Ok(framing),
            Some((expected, _)) => {
                let place = Place { path, offset: 24, version: header.first };
                Err(place.damage(Found::Lineage { found, expected }))
            }
            None => {
                if let Some(expected) = self.options.expected_lineage.filter(|it| *it != found) {
                    let dir = self.layout.dir.clone();
                    return Err(OpenError::WrongLedger { dir, found, expected });
                }
                let framing = Framing::new(found, crc32c::crc32c_append);
                self.framing = Some((found, framing));
                Ok(framing)
            }
        }
    }

    /// All records up to the SEAL `last` must be there, and nothing else.
    fn sealed(
        &mut self,
        scan: &mut Scan<'_>,
        framing: &Framing,
        last: Version,
    ) -> Result<(), OpenError> {
        loop {
            let (offset, version) = scan.place();
            let place = Place { path: scan.path(), offset, version };
            if version > last {
                let whole = offset == scan.len();
                return if whole { Ok(()) } else { Err(place.damage(Found::Trailing)) };
            }
            let wanted = version == last;
            match scan.step(framing)? {
                Step::Entry(entry) if is_seal(entry) == wanted => self.accept(entry, place)?,
                Step::Entry(_) => return Err(place.damage(Found::Seal { version, wanted })),
                Step::End => return Err(place.damage(Found::Missing { version })),
                Step::Bad(source) => return Err(place.damage(Found::Record { version, source })),
            }
        }
    }

    /// Takes the records of a file that is not sealed, up to a SEAL or to where none can be read: that
    /// is the end of the log if it lies at or beyond the mark. Whether it ends with a SEAL.
    fn unsealed(
        &mut self,
        scan: &mut Scan<'_>,
        framing: &Framing,
        mark: Option<Watermark>,
        index: &mut Indexed,
    ) -> Result<bool, OpenError> {
        if let Some(mark) = mark.filter(|mark| mark.bytes > scan.len()) {
            let place = Place { path: scan.path(), offset: scan.len(), version: mark.next };
            return Err(place.damage(Found::Shortened { synced: mark.bytes }));
        }
        let mut sealed = false;
        loop {
            let (offset, version) = scan.place();
            let place = Place { path: scan.path(), offset, version };
            let beyond = mark.is_some_and(|mark| offset >= mark.bytes);
            if let Some(Watermark { next, .. }) = mark
                && beyond != (version >= next)
            {
                return Err(place.damage(Found::Watermark { next }));
            }
            if sealed {
                return Ok(true);
            }
            match scan.step(framing)? {
                Step::Entry(entry) => {
                    self.accept(entry, place)?;
                    index.push(entry.len());
                    sealed = is_seal(entry);
                }
                Step::End | Step::Bad(_) if beyond => return Ok(false),
                Step::End => return Err(place.damage(Found::Missing { version })),
                Step::Bad(source) => return Err(place.damage(Found::Record { version, source })),
            }
        }
    }

    /// Takes up the next entry.
    fn accept(&mut self, bytes: &[u8], place: Place<'_>) -> Result<(), OpenError> {
        let version = place.version;
        if let Some(base) = self.base.as_deref().filter(|base| version < base.size()) {
            // In a file whose sealing was interrupted.
            if version.next() == base.size() && leaf_hash(bytes) != base.last_leaf() {
                let fault = BaseFault::Seal { file: place.path.to_owned() };
                return Err(refused(self.layout, base, fault));
            }
            return Ok(());
        }
        let Replayed { replay, tree, .. } = &mut self.replayed;
        let wrong = |kind| ReplayError { version, kind };
        let entry =
            Entry::decode(bytes).map_err(|error| place.damage(wrong(error.into()).into()))?;
        let leaf = replay.observe(bytes, &entry).map_err(|error| place.damage(error.into()))?;
        if let (Version::ZERO, Some((found, _))) = (version, self.framing)
            && found != Lineage(leaf)
        {
            let place = Place { offset: 24, ..place };
            return Err(place.damage(Found::Lineage { found, expected: Lineage(leaf) }));
        }
        tree.push(leaf);
        self.bundle_bytes = self.bundle_bytes.map(|sum| sum + 2 + bytes.len() as u64);
        self.check_published()?;
        (self.visit)(version, entry).map_err(|source| OpenError::Refused { version, source })
    }

    /// Compares what was published of the ledger with the entries so far.
    fn check_published(&mut self) -> Result<(), OpenError> {
        let Some(checkpoint) = self.checkpoint else { return Ok(()) };
        let replay = &self.replayed.replay;
        let size = replay.size();
        if size == checkpoint.size && replay.root() != checkpoint.root {
            return Err(OpenError::ForkedCheckpoint {
                file: self.layout.checkpoint.clone(),
                size,
                published: checkpoint.root,
                computed: replay.root(),
            });
        }
        if size <= checkpoint.size && size.0.is_multiple_of(TILE_WIDTH.into()) {
            self.check_full_tiles(size)?;
        }
        Ok(())
    }

    /// Checks the full tiles that end at `size`.
    fn check_full_tiles(&mut self, size: Version) -> Result<(), FileError> {
        let Replayed { tree, lost_tiles, lost_bundles, .. } = &mut self.replayed;
        for tile in tree.unwritten(size) {
            let bytes = tree.tile(&tile).expect("not written, so in memory");
            if !tiles::is_written(self.layout, &tile, &bytes)? {
                lost_tiles.push((tile, bytes));
            }
            tree.written(&tile);
        }
        let index = size.0 / u64::from(TILE_WIDTH) - 1;
        let bundle = TileId { kind: TileKind::Entries, index, width: TILE_WIDTH };
        let path = self.layout.dir.join(bundle.to_string());
        if let Some(len) = self.bundle_bytes.filter(|_| self.layout.face == Face::Static)
            && !tiles::has_length(&path, len).context("read the length", &path)?
        {
            lost_bundles.push(bundle);
        }
        self.bundle_bytes = Some(0);
        Ok(())
    }

    /// Ends the pass: everything that was published must have been there.
    pub(crate) fn finish(self) -> Result<Replayed, OpenError> {
        // A base that is beyond what is there is not beyond the checkpoint, or nothing was to be there before it.
        let present = self.next;
        match self.checkpoint {
            Some(Checkpoint { size, .. }) if *size > present => Err(OpenError::BehindCheckpoint {
                file: self.layout.checkpoint.clone(),
                published: *size,
                present,
            }),
            _ => Ok(self.replayed),
        }
    }
}
