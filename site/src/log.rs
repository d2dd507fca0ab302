//! The log thread: one write and one `fdatasync` a ledger for all entries that are waiting, and reads of the log
//! for peers that are behind.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tradewind_ledger::tree::root_at;
use tradewind_ledger::{Digest, Manifest, SnapshotRecord, Version};
use tradewind_ledger_disk::{LedgerReader, LedgerWriter, ReadError, WriteError};
use tradewind_site_protocol::{
    Adopted, BodyId, EntryBatch, Held, Part, ReadFor, ShardIndex, Staged, Values,
};

use crate::inbox::{Inbox, PanicWatch};
use crate::intake::Intakes;

/// How long to wait before a full disk is tried again.
const FULL_DISK_RETRY: Duration = Duration::from_millis(500);

/// Work for the log thread.
pub(crate) enum Job {
    /// Store the values, then append the entries (with their leaf hashes), then sync.
    Append {
        shard: ShardIndex,
        entries: EntryBatch,
        leaves: Vec<Digest>,
        values: Values,
        bodies: Vec<Adopted>,
    },
    /// Read entries and the root before them.
    ReadLog { reader: ReadFor, first: Version, end: Version, max_bytes: usize },
    /// Compute roots over the first entries.
    ReadRoots { reader: ReadFor, sizes: Vec<Version> },
    /// Read a part of a detached value.
    ReadValue { reader: ReadFor, digest: Digest, offset: u64, max_bytes: usize },
    /// Begin to keep a snapshot.
    Take { shard: ShardIndex, manifest: Box<Manifest> },
    /// Keep a part of it.
    KeepPart { shard: ShardIndex, size: Version, part: Part, bytes: Vec<u8> },
    /// Keep a detached value that it names.
    KeepValue { shard: ShardIndex, size: Version, value: (u64, Digest), bytes: Vec<u8> },
    /// Make a ledger of it.
    Plant { shard: ShardIndex, size: Version },
}

/// A finished job.
pub(crate) enum Done {
    /// Everything below `version` is on disk.
    Durable { shard: ShardIndex, version: Version },
    /// Entries, and the root of the tree before them.
    LogRead { reader: ReadFor, first: Version, root_before: Digest, entries: EntryBatch },
    /// Roots by size.
    Roots { reader: ReadFor, roots: Vec<(Version, Digest)> },
    /// A part of a value.
    ValueRead { reader: ReadFor, digest: Digest, offset: u64, bytes: Vec<u8> },
    /// Entries that a peer asks for were pruned.
    LogPruned { reader: ReadFor },
    /// A piece of a part of a snapshot: its offset, the length of the part, the bytes.
    PartRead { reader: ReadFor, size: Version, part: Part, piece: (u64, u64, Vec<u8>) },
    /// What is there of a snapshot.
    Taken { shard: ShardIndex, manifest: Box<Manifest>, held: Held },
    /// A part of it is on disk, and names these values.
    PartKept { shard: ShardIndex, size: Version, part: Part, missing: Vec<(u64, Digest)> },
    /// A value is on disk.
    ValueKept { shard: ShardIndex, size: Version, value: (u64, Digest) },
    /// A ledger was made of it, which the next start begins with.
    Planted { shard: ShardIndex },
    /// A snapshot is on disk.
    SnapshotMade { shard: ShardIndex, record: SnapshotRecord },
    /// How far a body is written.
    Staged { shard: ShardIndex, body: BodyId, staged: Staged },
    /// The disk can no longer be trusted: the process must end.
    Failed(String),
}

/// The group thread's end of the log thread.
pub(crate) struct Log {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

/// One shard's ledger: its index, writer and reader.
pub(crate) type Ledger = (ShardIndex, LedgerWriter, LedgerReader);

impl Log {
    /// Starts the thread over the ledgers of this node's shards.
    pub(crate) fn start(
        ledgers: Vec<Ledger>,
        intakes: Intakes,
        inbox: Arc<Inbox>,
    ) -> std::io::Result<Self> {
        let (jobs, receiver) = channel();
        let worker = Worker { ledgers, intakes, inbox, loaded: None };
        let watch = PanicWatch::new("log", &worker.inbox);
        let thread = thread::Builder::new().name("log".into()).spawn(move || {
            let _watch = watch;
            worker.run(&receiver);
        })?;
        Ok(Self { jobs, thread })
    }

    /// Queues a job. The queue is bounded by the core, which takes in nothing while the disk is behind
    /// ([`Limits::backlog_bytes`](tradewind_site_protocol::Limits)).
    pub(crate) fn push(&self, job: Job) {
        // The thread is gone only after it reported a failure, which ends the process.
        let _ = self.jobs.send(job);
    }

    /// Ends the thread after what is queued.
    pub(crate) fn stop(self) {
        drop(self.jobs);
        if self.thread.join().is_err() {
            tracing::error!("the log thread panicked");
        }
    }
}

struct Worker {
    ledgers: Vec<Ledger>,
    intakes: Intakes,
    inbox: Arc<Inbox>,
    /// The value that a peer takes piece by piece. Loading it reads and hashes all of it, which is not to be done
    /// again for each piece.
    loaded: Option<(Digest, Vec<u8>)>,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let batch: Vec<Job> = std::iter::once(first).chain(jobs.try_iter()).collect();
            if let Err(reason) = self.work(batch) {
                // A write or sync that failed is never tried again over the same pages.
                self.inbox.done(Done::Failed(format!("the disk: {reason}")));
                return;
            }
        }
    }

    fn work(&mut self, batch: Vec<Job>) -> Result<(), String> {
        let mut touched = vec![false; self.ledgers.len()];
        for job in batch {
            match job {
                Job::Append { shard, entries, leaves, values, bodies } => {
                    let at = self.place(shard);
                    self.adopt(at, &bodies)?;
                    self.append(at, &entries, &leaves, &values)?;
                    touched[at] = true;
                }
                Job::ReadLog { reader, first, end, max_bytes } => {
                    let ledger = &self.ledgers[self.place(reader.shard)].2;
                    let (peer, kept) = (reader.peer, ledger.first());
                    if first < kept {
                        tracing::info!(%peer, shard = %reader.shard, "the peer lacks entries from {first} on, which were \
                            pruned before {kept} here: it can take a snapshot");
                        self.inbox.done(Done::LogPruned { reader });
                        continue;
                    }
                    if let Some(done) = read_log(ledger, reader, first, end, max_bytes)? {
                        self.inbox.done(done);
                    }
                }
                job @ (Job::Take { .. }
                | Job::KeepPart { .. }
                | Job::KeepValue { .. }
                | Job::Plant { .. }) => {
                    self.take(job)?;
                }
                Job::ReadRoots { reader, sizes } => {
                    let ledger = &self.ledgers[self.place(reader.shard)].2;
                    let root = |size| root_at(ledger, size).map(|root| (size, root));
                    let roots = sizes.into_iter().map(root).collect::<Result<_, _>>();
                    let roots = roots.map_err(|error| error.to_string())?;
                    self.inbox.done(Done::Roots { reader, roots });
                }
                Job::ReadValue { reader, digest, offset, max_bytes } => {
                    // A peer may ask for what there is not; it gets no answer, and asks elsewhere.
                    match self.read_value(&reader, digest, offset, max_bytes) {
                        Ok(bytes) => {
                            self.inbox.done(Done::ValueRead { reader, digest, offset, bytes });
                        }
                        Err(error) => tracing::error!(%digest, %error, "no value for a peer"),
                    }
                }
            }
        }
        for (at, _) in touched.into_iter().enumerate().filter(|(_, touched)| *touched) {
            let (shard, writer, _) = &mut self.ledgers[at];
            let version = when_space(&self.inbox, || writer.sync())?;
            self.inbox.done(Done::Durable { shard: *shard, version });
        }
        Ok(())
    }

    fn adopt(&mut self, at: usize, bodies: &[Adopted]) -> Result<(), String> {
        let writer = &mut self.ledgers[at].1;
        for Adopted { body, digest, .. } in bodies {
            when_space(&self.inbox, || writer.adopt_value(digest, body.0))?;
        }
        Ok(())
    }

    /// What is to be done for a snapshot that is being taken.
    fn take(&mut self, job: Job) -> Result<(), String> {
        let Self { intakes, inbox, .. } = self;
        let done = match job {
            Job::Take { shard, manifest } => {
                let held = when_room(inbox, || intakes.begin(shard, &manifest))?;
                Done::Taken { shard, manifest, held }
            }
            Job::KeepPart { shard, size, part, bytes } => {
                let missing = when_room(inbox, || intakes.keep(shard, (size, part), &bytes))?;
                Done::PartKept { shard, size, part, missing }
            }
            Job::KeepValue { shard, size, value, bytes } => {
                when_room(inbox, || intakes.keep_value(shard, &value.1, &bytes))?;
                Done::ValueKept { shard, size, value }
            }
            Job::Plant { shard, size } => {
                if !when_room(inbox, || intakes.finish(shard, size))? {
                    tracing::warn!(%shard, %size, "this snapshot is not being taken any more");
                    return Ok(());
                }
                Done::Planted { shard }
            }
            _ => unreachable!("nothing of a snapshot"),
        };
        inbox.done(done);
        Ok(())
    }

    fn append(
        &mut self,
        at: usize,
        entries: &EntryBatch,
        leaves: &[Digest],
        values: &Values,
    ) -> Result<(), String> {
        let writer = &mut self.ledgers[at].1;
        for (digest, value) in values {
            when_space(&self.inbox, || writer.store_value(digest, value))?;
        }
        let entries: Vec<&[u8]> = entries.iter().collect();
        when_space(&self.inbox, || writer.append_hashed(&entries, leaves))?;
        Ok(())
    }

    fn read_value(
        &mut self,
        reader: &ReadFor,
        digest: Digest,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Vec<u8>, String> {
        let loaded = self.loaded.take().filter(|(loaded, _)| *loaded == digest);
        let value = match loaded {
            Some((_, value)) => value,
            None => {
                let ledger = &self.ledgers[self.place(reader.shard)].2;
                let value = ledger.value(&digest).map_err(|error| error.to_string())?;
                value.ok_or_else(|| format!("the detached value {digest} is missing"))?
            }
        };
        let rest =
            usize::try_from(offset).ok().and_then(|offset| value.get(offset..)).unwrap_or_default();
        let bytes = rest[..rest.len().min(max_bytes)].to_vec();
        if bytes.len() < rest.len() {
            self.loaded = Some((digest, value));
        }
        Ok(bytes)
    }

    fn place(&self, shard: ShardIndex) -> usize {
        self.ledgers
            .iter()
            .position(|(index, _, _)| *index == shard)
            .expect("the core only asks for the shards it replicates")
    }
}

/// Does a write; as long as the disk is full, waits and tries again, unless the node is to stop: nothing is acknowledged
/// meanwhile, reads go on.
pub(crate) fn when_space<T>(
    inbox: &Inbox,
    mut write: impl FnMut() -> Result<T, WriteError>,
) -> Result<T, String> {
    loop {
        match write() {
            Ok(done) => return Ok(done),
            Err(error @ WriteError::NoSpace { .. }) if !inbox.is_stopping() => {
                tracing::error!(%error, "the disk is full: writes wait until there is room");
                thread::sleep(FULL_DISK_RETRY);
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// As [`when_space`], for what can be done again wholly.
pub(crate) fn when_room<T>(
    inbox: &Inbox,
    mut write: impl FnMut() -> std::io::Result<T>,
) -> Result<T, String> {
    loop {
        match write() {
            Ok(done) => return Ok(done),
            Err(error) if tradewind_ledger_disk::is_no_space(&error) && !inbox.is_stopping() => {
                tracing::error!(%error, "the disk is full: the snapshot waits until there is room");
                thread::sleep(FULL_DISK_RETRY);
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Reads entries for a peer. `None` if they are not here to be given, because they were pruned or are damaged: the peer
/// gets no answer, and asks elsewhere.
fn read_log(
    ledger: &LedgerReader,
    reader: ReadFor,
    first: Version,
    end: Version,
    max_bytes: usize,
) -> Result<Option<Done>, String> {
    let root_before = root_at(ledger, first).map_err(|error| error.to_string())?;
    let mut entries = EntryBatch::default();
    match ledger.for_each(first, end, max_bytes, |_, entry| entries.push(entry)) {
        Ok(_) => Ok(Some(Done::LogRead { reader, first, root_before, entries })),
        // Pruned since it was looked.
        Err(ReadError::Pruned { .. }) => Ok(Some(Done::LogPruned { reader })),
        Err(error @ ReadError::Quarantined { .. }) => {
            let (peer, shard) = (reader.peer, reader.shard);
            tracing::error!(%peer, %shard, %error, "no entries for a peer; if no other has them, replace its data by a copy");
            Ok(None)
        }
        Err(error) => Err(error.to_string()),
    }
}
