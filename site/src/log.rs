//! The log thread: one write and one `fdatasync` a ledger for all entries that are waiting. What peers that are behind
//! ask for is read elsewhere (`lending`): group commit does not wait for it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tradewind_ledger::{Digest, Manifest, SnapshotRecord, Version};
use tradewind_ledger_disk::{LedgerWriter, WriteError};
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

/// One shard's ledger: its index and writer.
pub(crate) type Ledger = (ShardIndex, LedgerWriter);

impl Log {
    /// Starts the thread over the ledgers of this node's shards.
    pub(crate) fn start(
        ledgers: Vec<Ledger>,
        intakes: Intakes,
        inbox: Arc<Inbox>,
    ) -> std::io::Result<Self> {
        let (jobs, receiver) = channel();
        let worker = Worker { ledgers, intakes, inbox };
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
                job @ (Job::Take { .. }
                | Job::KeepPart { .. }
                | Job::KeepValue { .. }
                | Job::Plant { .. }) => {
                    self.take(job)?;
                }
            }
        }
        for (at, _) in touched.into_iter().enumerate().filter(|(_, touched)| *touched) {
            let (shard, writer) = &mut self.ledgers[at];
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

    fn place(&self, shard: ShardIndex) -> usize {
        self.ledgers
            .iter()
            .position(|(index, _)| *index == shard)
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
