//! Pruning: removing the oldest segments, as a ledger's retention has it. Hashes stay, so that whatever is kept can still be
//! proven, to the same roots.
//!
//! The order of changes makes a crash at any point harmless: first the base is durable, which says what is kept; from then
//! on what lies before it is not there, whether its files are or not. Values go before the segments that name them, so that
//! whoever finds such a segment later knows which values may be left.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use thiserror::Error;
use tradewind_ledger::base::Base;
use tradewind_ledger::entry::{Entry, Value};
use tradewind_ledger::ids::{Digest, Lineage, Version};
use tradewind_ledger::segment_file::{Framing, SegmentName};
use tradewind_ledger::tile::{TILE_WIDTH, TileId, TileKind};
use tradewind_ledger::tree::root_at;

use crate::error::{Context, Damage, FileError, Found, ReadError};
use crate::layout::{Layout, TEMPORARY};
use crate::ops::Ops;
use crate::publisher::Publisher;
use crate::scan::{Scan, Step};

/// Bytes of entries that are looked at at once.
const CHUNK_BYTES: usize = 4 << 20;
const WIDTH: u64 = TILE_WIDTH as u64;

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruning {
    /// Segment files.
    pub segments: u64,
    /// Detached values.
    pub values: u64,
    /// Entry bundles.
    pub bundles: u64,
}

/// Why entries were not removed. Those before [`LedgerReader::first`](crate::LedgerReader::first) are not there any more in
/// any case; calling again goes on with their files.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PruneError {
    /// The base is of another ledger, or of another history of this one.
    #[error("the base at {size} is of the ledger with lineage {lineage}, or of other entries")]
    Foreign {
        /// The base's size.
        size: Version,
        /// The base's lineage.
        lineage: Lineage,
    },
    /// No sealed segment ends there.
    #[error("no sealed segment ends before entry {size}")]
    WithinSegment {
        /// The base's size.
        size: Version,
    },
    /// What was published is to stay provable: everything up to its last full tile may go, no more.
    #[error(
        "entries from {limit} on are in the last tile of the published checkpoint; {size} is beyond"
    )]
    TooNew {
        /// The base's size.
        size: Version,
        /// The largest size that may be pruned now.
        limit: Version,
    },
    /// A segment cannot be read, so it is not known which values go with it.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The system refused. Retryable.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Publisher {
    /// Removes all entries before `base`: their segments, their bundles, and the detached values that only they refer to,
    /// unless `is_live` says that a value is still needed for the state at or after the base. Finishes first what an
    /// interrupted call left. Reads every segment that it removes, and those that stay if values are to go.
    ///
    /// # Errors
    /// See [`PruneError`].
    pub fn prune(
        &mut self,
        base: &Base,
        is_live: impl Fn(&Digest) -> bool,
    ) -> Result<Pruning, PruneError> {
        let from = self.shared.first();
        let mut names = std::mem::take(&mut self.leftover);
        if base.size() > from {
            if let Err(error) = self.begin(base) {
                self.leftover = names;
                return Err(error);
            }
            names.extend(self.shared.prune(base.size()));
        }
        let removed = self.remove(&names, &is_live);
        if removed.is_err() {
            self.leftover = names;
        }
        removed
    }

    /// Makes it durable that everything before the base is to go.
    fn begin(&self, base: &Base) -> Result<(), PruneError> {
        let (shared, size, lineage) = (&self.shared, base.size(), base.lineage());
        let limit = Version(self.published().0 / WIDTH * WIDTH);
        if size > limit {
            return Err(PruneError::TooNew { size, limit });
        }
        let same = root_at(&*shared.tree(), size) == Ok(base.root());
        if !same || shared.lineage() != Some(lineage) {
            return Err(PruneError::Foreign { size, lineage });
        }
        if !shared.segments().iter().any(|segment| segment.last.next() == size) {
            return Err(PruneError::WithinSegment { size });
        }
        Ok(write_base(&self.ops, &shared.layout, base)?)
    }

    fn remove(
        &self,
        names: &[SegmentName],
        is_live: &impl Fn(&Digest) -> bool,
    ) -> Result<Pruning, PruneError> {
        let layout = &self.shared.layout;
        let mut pruning = Pruning::default();
        let Some(framing) = self.shared.framing.get() else { return Ok(pruning) };
        let mut values = BTreeSet::new();
        for name in names {
            collect(layout, *name, framing, &mut values)?;
        }
        values.retain(|digest| !is_live(digest));
        self.retain_unnamed(&mut values)?;
        let mut dirs = BTreeSet::new();
        for digest in &values {
            if self.shared.drop_value(&self.ops, digest)? {
                pruning.values += 1;
                dirs.extend(layout.value(digest).parent().map(Path::to_owned));
            }
        }
        for dir in &dirs {
            self.ops.sync_dir(dir).context("sync the directory", dir)?;
        }
        let mut segments = names.to_vec();
        segments.sort_unstable();
        for name in segments {
            let gone = remove_file(&self.ops, &layout.segment(name))?;
            pruning.segments += u64::from(gone);
        }
        pruning.bundles = self.remove_bundles()?;
        self.ops.sync_dir(&layout.segments).context("sync the directory", &layout.segments)?;
        Ok(pruning)
    }

    /// Takes out the values that an entry which stays refers to.
    fn retain_unnamed(&self, values: &mut BTreeSet<Digest>) -> Result<(), ReadError> {
        let mut next = self.shared.first();
        let mut buffer = Vec::new();
        while !values.is_empty() && next < self.shared.durable() {
            let end = self.shared.durable();
            next = self.shared.read(next, end, CHUNK_BYTES, &mut buffer, |entry| {
                named(entry, |digest| _ = values.remove(digest));
            })?;
        }
        Ok(())
    }

    /// Removes the bundles that hold nothing which is kept: oldest first, so that what a crash leaves has no gap.
    fn remove_bundles(&self) -> Result<u64, FileError> {
        let layout = &self.shared.layout;
        let path = |index| {
            let bundle = TileId { kind: TileKind::Entries, index, width: TILE_WIDTH };
            layout.dir.join(bundle.to_string())
        };
        let end = self.shared.first().0 / WIDTH;
        let there = (0..end).rev().take_while(|index| path(*index).exists()).count() as u64;
        for path in (end - there..end).map(path) {
            remove_file(&self.ops, &path)?;
            // The directories go with the last file in them.
            let above = path.ancestors().skip(1).take_while(|dir| *dir != layout.tiles);
            let _ = above.map(fs::remove_dir).take_while(Result::is_ok).count();
        }
        Ok(there)
    }
}

/// Puts the base into place, durably.
pub(crate) fn write_base(ops: &Ops, layout: &Layout, base: &Base) -> Result<(), FileError> {
    let path = &layout.base;
    let temporary = layout.dir.join(format!("base{TEMPORARY}"));
    let file = ops.create(&temporary).context("create", &temporary)?;
    ops.write_at(&file, &temporary, &base.encode(), 0).context("write", &temporary)?;
    ops.sync_file(&file, &temporary).context("sync", &temporary)?;
    ops.rename(&temporary, path).context("rename", path)?;
    ops.sync_dir(&layout.dir).context("sync the directory", &layout.dir)
}

/// Removes a file; whether it was there.
pub(crate) fn remove_file(ops: &Ops, path: &Path) -> Result<bool, FileError> {
    match ops.remove(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        result => result.map(|()| true).context("remove", path),
    }
}

/// The values that the entries of a whole segment refer to. One that is gone has none left.
fn collect(
    layout: &Layout,
    name: SegmentName,
    framing: &Framing,
    values: &mut BTreeSet<Digest>,
) -> Result<(), ReadError> {
    let path = layout.segment(name);
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        result => result.context("open", &path)?,
    };
    let (mut scan, ..) = Scan::open(&file, &path, name.first)?;
    loop {
        let (offset, version) = scan.place();
        match scan.step(framing)? {
            Step::Entry(entry) => named(entry, |digest| _ = values.insert(*digest)),
            Step::End => return Ok(()),
            Step::Bad(source) => {
                let found = Found::Record { version, source };
                return Err(Damage { file: path, offset, found }.into());
            }
        }
    }
}

/// Calls `each` with the values that an entry refers to.
fn named(entry: &[u8], mut each: impl FnMut(&Digest)) {
    // What is not an entry refers to nothing: its record was whole, so somebody else's check will find it.
    let Ok(entry) = Entry::decode(entry) else { return };
    for update in entry.updates() {
        if let Some(Value::Detached { digest, .. }) = &update.value {
            each(digest);
        }
    }
}
