//! Appending: entries are buffered, and made durable together by one sync (group commit).

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use tradewind_ledger::entry::{Body, Entry, MAX_ENTRY};
use tradewind_ledger::ids::{Digest, Lineage, Version};
use tradewind_ledger::segment_file::{Framing, Header, MAX_FILE_BYTES, PAGE, RECORD_HEADER};
use tradewind_ledger::tree::leaf_hash;

use crate::error::{FileError, WriteError};
use crate::layout::Lock;
use crate::ops::Ops;
use crate::segment::{OpenSegment, terminal};
use crate::shared::{Indexed, Shared};
use crate::staged::Stager;
use crate::values;

/// The byte that says what an entry is follows the format byte (`docs/formats/entry.md`).
const KIND_AT: usize = 1;
const KIND_SEAL: u8 = 4;
/// Capacity that a buffer keeps for the next batch.
const BUFFER_KEPT: usize = 4 << 20;

/// Appends to a ledger. One owner: the log thread.
pub struct LedgerWriter {
    shared: Arc<Shared>,
    ops: Ops,
    preallocate: u64,
    /// The ledger's identity: known from its first entry on, or expected before.
    lineage: Option<Lineage>,
    /// Where the next entry goes, counting what is buffered.
    tail: Tail,
    pending: VecDeque<Run>,
    /// A buffer to use again.
    spare: Run,
    stage: Stage,
    unsynced_dirs: BTreeSet<PathBuf>,
    failed: Option<Arc<FileError>>,
    _lock: Arc<Lock>,
}

/// The end of the ledger, with what is buffered.
#[derive(Clone, Copy)]
pub(crate) struct Tail {
    pub(crate) size: Version,
    /// First version of the segment that the next entry belongs to, and the bytes of its file.
    pub(crate) segment: Version,
    pub(crate) file_bytes: u64,
}

/// Records of one segment that are not durable yet.
#[derive(Default)]
struct Run {
    records: Vec<u8>,
    entry_lens: Vec<u32>,
    leaves: Vec<Digest>,
    /// The last one is a SEAL.
    sealed: bool,
}

/// What happens to the last file.
pub(crate) enum Stage {
    /// There is none: the next entry starts a segment.
    None,
    Open(OpenSegment),
    /// Its SEAL is durable, but it does not have its final form and name yet.
    Sealing(OpenSegment),
}

impl Tail {
    /// The end of a ledger of `size` entries that ends with a SEAL, or is empty.
    pub(crate) fn at_start(size: Version) -> Self {
        Self { size, segment: size, file_bytes: PAGE as u64 }
    }
}

impl LedgerWriter {
    pub(crate) fn new(
        shared: Arc<Shared>,
        ops: Ops,
        preallocate: u64,
        lineage: Option<Lineage>,
        (tail, stage): (Tail, Stage),
        lock: Arc<Lock>,
    ) -> Self {
        Self {
            shared,
            ops,
            preallocate,
            lineage,
            tail,
            pending: VecDeque::new(),
            spare: Run::default(),
            stage,
            unsynced_dirs: BTreeSet::new(),
            failed: None,
            _lock: lock,
        }
    }

    /// How many entries the ledger has, with those that are not durable yet.
    #[must_use]
    pub fn size(&self) -> Version {
        self.tail.size
    }

    /// How many entries survive a loss of power.
    #[must_use]
    pub fn durable_size(&self) -> Version {
        self.shared.durable()
    }

    /// Buffers entries; they become durable with the next [`LedgerWriter::sync`]. The caller has
    /// checked them (`Replay`): here only what the files need is looked at. Returns the new size.
    ///
    /// # Errors
    /// If one cannot be stored; none is taken then.
    pub fn append<E: AsRef<[u8]>>(&mut self, entries: &[E]) -> Result<Version, WriteError> {
        let leaves: Vec<_> = entries.iter().map(|entry| leaf_hash(entry.as_ref())).collect();
        self.append_hashed(entries, &leaves)
    }

    /// As [`LedgerWriter::append`], when the caller has the entries' leaf hashes already.
    ///
    /// # Errors
    /// As [`LedgerWriter::append`].
    ///
    /// # Panics
    /// Unless there is one leaf hash an entry.
    pub fn append_hashed<E: AsRef<[u8]>>(
        &mut self,
        entries: &[E],
        leaves: &[Digest],
    ) -> Result<Version, WriteError> {
        assert_eq!(entries.len(), leaves.len(), "one leaf hash an entry");
        self.check_alive()?;
        let mut tail = self.tail;
        for entry in entries {
            tail = self.after(tail, entry.as_ref())?;
        }
        if self.tail.size == Version::ZERO && !entries.is_empty() {
            self.begin(entries[0].as_ref())?;
        }
        if let Some(framing) = self.shared.framing.get() {
            for (entry, leaf) in entries.iter().zip(leaves) {
                let run = match self.pending.back_mut() {
                    Some(run) if !run.sealed => run,
                    _ => {
                        self.pending.push_back(std::mem::take(&mut self.spare));
                        self.pending.back_mut().expect("just pushed")
                    }
                };
                run.push(framing, self.tail.size, entry.as_ref(), *leaf);
                self.tail.size = self.tail.size.next();
            }
        }
        self.tail = tail;
        Ok(tail.size)
    }

    /// The end of the ledger after `entry`, if it may be stored at `tail`.
    fn after(&self, tail: Tail, entry: &[u8]) -> Result<Tail, WriteError> {
        let version = tail.size;
        let decode =
            || Entry::decode(entry).map_err(|source| WriteError::NotAnEntry { version, source });
        if !(1..=MAX_ENTRY).contains(&entry.len()) {
            decode()?;
        }
        let size = version.next();
        let file_bytes = tail.file_bytes + (RECORD_HEADER + entry.len()) as u64;
        if file_bytes > u64::from(MAX_FILE_BYTES) {
            return Err(WriteError::SegmentTooLong { version, max: MAX_FILE_BYTES });
        }
        if !is_seal(entry) {
            return Ok(Tail { size, file_bytes, ..tail });
        }
        match decode()?.body {
            Body::Seal(seal) if seal.first != tail.segment => {
                Err(WriteError::SealRange { version, found: seal.first, expected: tail.segment })
            }
            _ => Ok(Tail::at_start(size)),
        }
    }

    /// Takes the ledger's identity from its first entry.
    fn begin(&mut self, genesis: &[u8]) -> Result<(), WriteError> {
        let found = Lineage(leaf_hash(genesis));
        let expected = *self.lineage.get_or_insert(found);
        if found != expected {
            return Err(WriteError::WrongLedger { found, expected });
        }
        self.shared.begin(found);
        Ok(())
    }

    /// Stores a detached value, whose SHA-256 must be `digest`. It is durable before the entries that are
    /// appended after it. Storing it again does nothing.
    ///
    /// # Errors
    /// As [`LedgerWriter::sync`]; and if the value is longer than any may be.
    pub fn store_value(&mut self, digest: &Digest, value: &[u8]) -> Result<(), WriteError> {
        self.check_alive()?;
        self.shared.storing(digest);
        let stored = values::store(&self.ops, &self.shared.layout, digest, value);
        let dirs = self.watch(stored)?;
        self.unsynced_dirs.extend(dirs);
        Ok(())
    }

    /// What writes values beside this ledger, before it is known whether an entry will name them.
    #[must_use]
    pub fn stager(&self) -> Stager {
        Stager { ops: self.ops.clone(), layout: self.shared.layout.clone() }
    }

    /// As [`LedgerWriter::store_value`], of a value that was staged under `number` and finished with this digest: it only
    /// gets its name.
    ///
    /// # Errors
    /// As [`LedgerWriter::sync`].
    pub fn adopt_value(&mut self, digest: &Digest, number: u64) -> Result<(), WriteError> {
        self.check_alive()?;
        self.shared.storing(digest);
        let adopted = values::adopt(&self.ops, &self.shared.layout, digest, number);
        let dirs = self.watch(adopted)?;
        self.unsynced_dirs.extend(dirs);
        Ok(())
    }

    /// Makes all buffered entries durable and returns the durable size. Files are rolled here: a
    /// segment whose SEAL is durable gets its final form and name, and the next file is made.
    ///
    /// # Errors
    /// [`WriteError::NoSpace`] can be retried: nothing is lost, and the entries stay buffered. After
    /// [`WriteError::Failed`] every call fails alike. [`LedgerWriter::durable_size`] is right after both.
    pub fn sync(&mut self) -> Result<Version, WriteError> {
        self.check_alive()?;
        let written = self.write_pending();
        self.watch(written)?;
        Ok(self.durable_size())
    }

    fn write_pending(&mut self) -> Result<(), WriteError> {
        while let Some(dir) = self.unsynced_dirs.first() {
            terminal(self.ops.sync_dir(dir), "sync the directory", dir)?;
            self.unsynced_dirs.pop_first();
        }
        loop {
            self.finish_sealing()?;
            if self.pending.is_empty() {
                return Ok(());
            }
            let mut open = self.open_segment()?;
            let run = &self.pending[0];
            let next = self.durable_size().plus(run.entry_lens.len() as u64);
            let appended = open.append(&self.ops, &run.records, next);
            // Durable is what the mark says, whether or not writing the mark itself failed.
            let durable = open.mark.next == next;
            let sealed = run.sealed;
            if durable {
                let run = self.pending.pop_front().expect("not empty");
                self.shared.appended(&run.entry_lens, &run.leaves);
                self.recycle(run);
            }
            self.stage = match sealed && durable {
                true => Stage::Sealing(open),
                false => Stage::Open(open),
            };
            appended?;
        }
    }

    /// The file for the next entries, made if there is none.
    fn open_segment(&mut self) -> Result<OpenSegment, WriteError> {
        match std::mem::replace(&mut self.stage, Stage::None) {
            Stage::Open(open) => Ok(open),
            Stage::Sealing(_) => unreachable!("sealing was finished before"),
            Stage::None => {
                let first = self.durable_size();
                let lineage = self.lineage.expect("an entry was appended");
                let header = Header { first, lineage };
                let open =
                    OpenSegment::create(&self.ops, &self.shared.layout, header, self.preallocate)?;
                let file = Arc::clone(&open.file);
                self.shared.opened(Indexed::new(first, file, open.path.clone()));
                Ok(open)
            }
        }
    }

    fn finish_sealing(&mut self) -> Result<(), WriteError> {
        if let Stage::Sealing(open) = &self.stage {
            let path = open.seal(&self.ops, &self.shared.layout)?;
            self.shared.sealed(path);
            self.stage = Stage::None;
        }
        Ok(())
    }

    fn recycle(&mut self, mut run: Run) {
        run.records.clear();
        run.records.shrink_to(BUFFER_KEPT);
        run.entry_lens.clear();
        run.leaves.clear();
        run.sealed = false;
        self.spare = run;
    }

    fn check_alive(&self) -> Result<(), WriteError> {
        self.failed.clone().map_or(Ok(()), |error| Err(WriteError::Failed(error)))
    }

    /// Remembers a failure after which nothing may be written any more.
    fn watch<T>(&mut self, result: Result<T, WriteError>) -> Result<T, WriteError> {
        if let Err(WriteError::Failed(error)) = &result {
            self.failed = Some(Arc::clone(error));
        }
        result
    }
}

impl Drop for LedgerWriter {
    fn drop(&mut self) {
        if let (Stage::Open(open), None) = (&mut self.stage, &self.failed)
            && let Err(error) = open.catch_up_mark(&self.ops)
        {
            tracing::warn!(%error, "the last watermark was not written: the next start has a little more to sync again");
        }
    }
}

impl Run {
    fn push(&mut self, framing: &Framing, version: Version, entry: &[u8], leaf: Digest) {
        self.records.extend_from_slice(&framing.record_header(version, entry));
        self.records.extend_from_slice(entry);
        self.entry_lens.push(entry.len() as u32);
        self.leaves.push(leaf);
        self.sealed = is_seal(entry);
    }
}

/// Whether the entry is of the kind SEAL.
pub(crate) fn is_seal(entry: &[u8]) -> bool {
    entry.get(KIND_AT) == Some(&KIND_SEAL)
}
