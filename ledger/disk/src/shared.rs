//! What writer, readers and publisher of one ledger share: which entries are durable and where they lie.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use tradewind_ledger::ids::{Digest, Lineage, Version};
use tradewind_ledger::segment_file::{Framing, PAGE, RECORD_HEADER, Record, SegmentName, State};

use crate::error::{Context, Damage, FileError, Found, ReadError};
use crate::layout::Layout;
use crate::ops::Ops;
use crate::prune::remove_file;
use crate::scan::{Scan, Step};
use crate::tree::TileTree;

/// A sealed segment of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedSegment {
    /// Its first entry.
    pub first: Version,
    /// Its last entry, the SEAL.
    pub last: Version,
}

/// A segment's file with the places of its records.
pub(crate) struct Indexed {
    pub(crate) first: Version,
    pub(crate) file: Arc<File>,
    pub(crate) path: PathBuf,
    /// Offset of each record, and the end of the last: one more than there are records.
    pub(crate) starts: Vec<u32>,
}

#[derive(Default)]
pub(crate) struct Files {
    /// The first entry that is kept.
    pub(crate) first: Version,
    pub(crate) sealed: Vec<SealedSegment>,
    pub(crate) open: Option<Indexed>,
    /// Sealed segments that were found damaged, by their first entries: nothing is served from them.
    pub(crate) damaged: BTreeSet<Version>,
}

pub(crate) struct Shared {
    pub(crate) layout: Layout,
    /// Set with the first entry.
    pub(crate) framing: OnceLock<Framing>,
    lineage: OnceLock<Lineage>,
    durable: AtomicU64,
    files: RwLock<Files>,
    /// Sealed segments read lately, the latest last.
    recent: Mutex<VecDeque<Arc<Indexed>>>,
    recent_max: usize,
    tree: Mutex<TileTree>,
    /// Leaf hashes of the durable entries that the tree does not have yet.
    fresh: Mutex<Vec<Digest>>,
    /// The values stored last, the latest last: an entry that is about to be appended may refer to them.
    stored: Mutex<VecDeque<Digest>>,
}

/// How many of the values stored last pruning leaves alone: far more than can wait for their entries.
const STORED_MAX: usize = 16_384;

/// Consecutive records within one file.
struct Span {
    file: Arc<File>,
    path: PathBuf,
    offset: u64,
    len: usize,
    first: Version,
    end: Version,
}

impl Indexed {
    pub(crate) fn new(first: Version, file: Arc<File>, path: PathBuf) -> Self {
        Self { first, file, path, starts: vec![PAGE as u32] }
    }

    /// The version after the last record.
    pub(crate) fn end(&self) -> Version {
        self.first.plus(self.starts.len() as u64 - 1)
    }

    /// Reads a sealed segment's file through, checking every record.
    fn load(layout: &Layout, segment: SealedSegment, framing: &Framing) -> Result<Self, ReadError> {
        let SealedSegment { first, last } = segment;
        let path = layout.segment(SegmentName { first, last: Some(last) });
        let file = Arc::new(File::open(&path).context("open", &path)?);
        let mut index = Self::new(first, Arc::clone(&file), path.clone());
        let (mut scan, _, state) = Scan::open(&file, &path, first)?;
        if state != State::Sealed {
            return Err(Damage { file: path, offset: 512, found: Found::Watermarks }.into());
        }
        while scan.place().1 <= last {
            let (offset, version) = scan.place();
            let found = match scan.step(framing)? {
                Step::Entry(entry) => {
                    index.push(entry.len());
                    continue;
                }
                Step::End => Found::Missing { version },
                Step::Bad(source) => Found::Record { version, source },
            };
            return Err(Damage { file: path, offset, found }.into());
        }
        Ok(index)
    }

    /// Notes a record of an entry with this length. The file is never longer than 4 GiB.
    pub(crate) fn push(&mut self, entry_len: usize) {
        let last = *self.starts.last().expect("never empty");
        self.starts.push(last + (RECORD_HEADER + entry_len) as u32);
    }

    /// As many of the entries `first .. end` as fit `max_bytes`.
    fn span(&self, first: Version, end: Version, max_bytes: usize) -> Span {
        let index = |version: Version| version.since(self.first) as usize;
        let (from, to) = (index(first), index(end.min(self.end())));
        let start = self.starts[from];
        let fits = |next: &u32| (next - start) as usize <= max_bytes;
        let count = self.starts[from + 1..=to].partition_point(fits);
        Span {
            file: Arc::clone(&self.file),
            path: self.path.clone(),
            offset: start.into(),
            len: (self.starts[from + count] - start) as usize,
            first,
            end: first.plus(count as u64),
        }
    }
}

impl Files {
    pub(crate) fn push_sealed(&mut self, index: &Indexed) {
        let last = Version(index.end().0 - 1);
        self.sealed.push(SealedSegment { first: index.first, last });
    }
}

impl Shared {
    pub(crate) fn new(
        layout: Layout,
        identity: Option<(Lineage, Framing)>,
        files: Files,
        tree: TileTree,
        recent_max: usize,
    ) -> Self {
        Self {
            layout,
            framing: identity.map_or_else(OnceLock::new, |(_, framing)| framing.into()),
            lineage: identity.map_or_else(OnceLock::new, |(lineage, _)| lineage.into()),
            durable: AtomicU64::new(tree.size().0),
            files: RwLock::new(files),
            recent: Mutex::default(),
            recent_max: recent_max.max(1),
            tree: Mutex::new(tree),
            fresh: Mutex::default(),
            stored: Mutex::default(),
        }
    }

    /// Entries that survive a loss of power.
    pub(crate) fn durable(&self) -> Version {
        Version(self.durable.load(Ordering::Acquire))
    }

    /// A file for the next entries is there.
    pub(crate) fn opened(&self, index: Indexed) {
        self.files.write().unwrap_or_else(PoisonError::into_inner).open = Some(index);
    }

    /// Entries of these lengths and leaf hashes became durable in the open file.
    pub(crate) fn appended(&self, entry_lens: &[u32], leaves: &[Digest]) {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(leaves);
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        let open = files.open.as_mut().expect("entries are appended to an open file");
        entry_lens.iter().for_each(|len| open.push(*len as usize));
        self.durable.store(open.end().0, Ordering::Release);
    }

    /// The open file is now the sealed one at `path`.
    pub(crate) fn sealed(&self, path: PathBuf) {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        let open = files.open.take().expect("an open file was sealed");
        files.push_sealed(&open);
        drop(files);
        self.remember(Arc::new(Indexed { path, ..open }));
    }

    /// The first entry that is kept.
    pub(crate) fn first(&self) -> Version {
        self.files.read().unwrap_or_else(PoisonError::into_inner).first
    }

    pub(crate) fn segments(&self) -> Vec<SealedSegment> {
        self.files.read().unwrap_or_else(PoisonError::into_inner).sealed.clone()
    }

    /// The ledger's identity; `None` before its first entry.
    pub(crate) fn lineage(&self) -> Option<Lineage> {
        self.lineage.get().copied()
    }

    /// The ledger's first entry says whose it is.
    pub(crate) fn begin(&self, lineage: Lineage) {
        self.lineage.get_or_init(|| lineage);
        self.framing.get_or_init(|| Framing::new(lineage, crc32c::crc32c_append));
    }

    /// From now on `first`, where a segment begins, is the first entry that is there. The segments that were before it.
    pub(crate) fn prune(&self, first: Version) -> Vec<SegmentName> {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        files.first = first;
        let gone = files.sealed.extract_if(.., |segment| segment.last < first);
        let gone = gone.map(|it| SegmentName { first: it.first, last: Some(it.last) }).collect();
        drop(files);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|index| index.first >= first);
        gone
    }

    /// The first sealed segment that begins at `from` or later.
    pub(crate) fn sealed_from(&self, from: Version) -> Option<SealedSegment> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        let at = files.sealed.partition_point(|segment| segment.first < from);
        files.sealed.get(at).copied()
    }

    /// From now on nothing is served from this segment.
    pub(crate) fn quarantine(&self, segment: SealedSegment) {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        files.damaged.insert(segment.first);
        drop(files);
        self.forget(segment.first);
    }

    /// Puts another file in the place of a segment's by `put`, unless it was pruned; it is served again. Whether it did.
    pub(crate) fn replace(
        &self,
        segment: SealedSegment,
        put: impl FnOnce() -> Result<(), FileError>,
    ) -> Result<bool, FileError> {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        if segment.first < files.first {
            return Ok(false);
        }
        put()?;
        files.damaged.remove(&segment.first);
        drop(files);
        self.forget(segment.first);
        Ok(true)
    }

    fn forget(&self, first: Version) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|index| index.first != first);
    }

    /// A value is about to be stored: it is not to be removed for now.
    pub(crate) fn storing(&self, digest: &Digest) {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        stored.push_back(*digest);
        if stored.len() > STORED_MAX {
            stored.pop_front();
        }
    }

    /// Removes a value, unless it was stored again lately; whether it was removed.
    pub(crate) fn drop_value(&self, ops: &Ops, digest: &Digest) -> Result<bool, FileError> {
        // Held while the file goes, so that whoever stores the value afterwards does not find it.
        let stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        if stored.contains(digest) {
            return Ok(false);
        }
        remove_file(ops, &self.layout.value(digest))
    }

    /// Puts another file in the place of a value's, unless that was removed; whether it did.
    pub(crate) fn replace_value(
        &self,
        ops: &Ops,
        temporary: &Path,
        digest: &Digest,
    ) -> Result<bool, FileError> {
        // Under the lock that values are removed under, so that what was pruned does not come back.
        let _stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.layout.value(digest);
        if !path.exists() {
            return Ok(false);
        }
        ops.rename(temporary, &path).context("rename", &path)?;
        Ok(true)
    }

    fn remember(&self, index: Arc<Indexed>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|other| other.first != index.first);
        recent.push_back(index);
        if recent.len() > self.recent_max {
            recent.pop_front();
        }
    }

    fn recent(&self, first: Version) -> Option<Arc<Indexed>> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let at = recent.iter().position(|index| index.first == first)?;
        let index = recent.remove(at)?;
        recent.push_back(Arc::clone(&index));
        Some(index)
    }

    fn locate(&self, first: Version, end: Version, max_bytes: usize) -> Result<Span, ReadError> {
        let durable = self.durable();
        if first >= durable {
            return Err(ReadError::Beyond { version: first, durable });
        }
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        if first < files.first {
            return Err(ReadError::Pruned { version: first, first: files.first });
        }
        if let Some(open) = files.open.as_ref().filter(|open| open.first <= first) {
            return Ok(open.span(first, end, max_bytes));
        }
        let after = files.sealed.partition_point(|segment| segment.first <= first);
        let segment = files.sealed[after - 1];
        if files.damaged.contains(&segment.first) {
            let SealedSegment { first, last } = segment;
            let file = self.layout.segment(SegmentName { first, last: Some(last) });
            return Err(ReadError::Quarantined { file });
        }
        drop(files);
        if let Some(index) = self.recent(segment.first) {
            return Ok(index.span(first, end, max_bytes));
        }
        let framing = self.framing.get().expect("there are entries");
        let index = match Indexed::load(&self.layout, segment, framing) {
            Ok(index) => Arc::new(index),
            // It may have gone just now.
            Err(_) if first < self.first() => {
                return Err(ReadError::Pruned { version: first, first: self.first() });
            }
            Err(error) => return Err(error),
        };
        self.remember(Arc::clone(&index));
        Ok(index.span(first, end, max_bytes))
    }

    /// Shows as many of the entries `first .. end` as are durable, lie in one file and whose records
    /// fit `max_bytes`; the version to go on at. The records' checksums are verified.
    pub(crate) fn read(
        &self,
        first: Version,
        end: Version,
        max_bytes: usize,
        buffer: &mut Vec<u8>,
        mut show: impl FnMut(&[u8]),
    ) -> Result<Version, ReadError> {
        let span = self.locate(first, end, max_bytes)?;
        buffer.resize(span.len, 0);
        span.file.read_exact_at(buffer, span.offset).context("read", &span.path)?;
        let framing = self.framing.get().expect("there are entries");
        let mut offset = 0;
        let mut version = span.first;
        while version < span.end {
            let found = match framing.parse(version, &buffer[offset..]) {
                Ok(Record::Entry(entry)) => {
                    show(entry);
                    offset += RECORD_HEADER + entry.len();
                    version = version.next();
                    continue;
                }
                Ok(Record::End) => Found::Missing { version },
                Err(source) => Found::Record { version, source },
            };
            let offset = span.offset + offset as u64;
            // The file may have been made again since it was opened.
            self.recent.lock().unwrap_or_else(PoisonError::into_inner).clear();
            return Err(Damage { file: span.path, offset, found }.into());
        }
        Ok(span.end)
    }

    /// The tree, grown to what is durable.
    pub(crate) fn tree(&self) -> MutexGuard<'_, TileTree> {
        let mut tree = self.tree.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = std::mem::take(&mut *self.fresh.lock().unwrap_or_else(PoisonError::into_inner));
        fresh.into_iter().for_each(|leaf| tree.push(leaf));
        tree
    }
}
