//! The bodies thread: writes large values beside their ledgers while they arrive by the bulk lane, so that neither the group
//! thread nor the log's group commit has to wait for them.

use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use tradewind_ledger::Digest;
use tradewind_ledger_disk::{StagedValue, Stager, WriteError};
use tradewind_site_protocol::{BodyId, ShardIndex, Staged};

use crate::inbox::{Inbox, PanicWatch};
use crate::log::{Done, when_space};

/// A long piece is written in parts of this size.
const WRITE_BYTES: usize = 1 << 20;

/// Work for the thread.
pub(crate) enum Job {
    /// Append to a body; with the last piece sync it and compare its digest.
    Stage { shard: ShardIndex, body: BodyId, bytes: Bytes, last: bool, check: Option<Digest> },
    /// Remove it.
    Unstage { shard: ShardIndex, body: BodyId },
}

/// The group thread's end of the bodies thread.
pub(crate) struct Bodies {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

impl Bodies {
    /// Starts the thread over the ledgers of this node's shards.
    pub(crate) fn start(
        stagers: HashMap<ShardIndex, Stager>,
        inbox: Arc<Inbox>,
    ) -> std::io::Result<Self> {
        let (jobs, receiver) = channel();
        let worker = Worker { stagers, inbox, open: HashMap::new() };
        let watch = PanicWatch::new("bodies", &worker.inbox);
        let thread = thread::Builder::new().name("bodies".into()).spawn(move || {
            let _watch = watch;
            worker.run(&receiver);
        })?;
        Ok(Self { jobs, thread })
    }

    /// Queues a job. The queue is bounded by the core, which takes no more blocks while much is unwritten
    /// ([`BulkLimits::unstaged_bytes`](tradewind_site_protocol::BulkLimits)).
    pub(crate) fn push(&self, job: Job) {
        // The thread is gone only after it reported a failure, which ends the process.
        let _ = self.jobs.send(job);
    }

    /// Ends the thread; what is queued is of no use to anybody.
    pub(crate) fn stop(self) {
        drop(self.jobs);
        if self.thread.join().is_err() {
            tracing::error!("the bodies thread panicked");
        }
    }
}

struct Worker {
    stagers: HashMap<ShardIndex, Stager>,
    inbox: Arc<Inbox>,
    open: HashMap<(ShardIndex, BodyId), StagedValue>,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            // Told once for all that waits: a wake-up a block would be one too many.
            let mut parts = BTreeMap::new();
            for job in std::iter::once(first).chain(jobs.try_iter()) {
                if self.inbox.is_stopping() {
                    return;
                }
                if let Err(error) = self.work(job, &mut parts) {
                    self.inbox.done(Done::Failed(format!("the disk: {error}")));
                    return;
                }
            }
            self.tell_parts(&mut parts);
        }
    }

    fn work(
        &mut self,
        job: Job,
        parts: &mut BTreeMap<(ShardIndex, BodyId), usize>,
    ) -> Result<(), String> {
        match job {
            Job::Stage { shard, body, bytes, last, check } => {
                self.write((shard, body), &bytes)?;
                let part = parts.entry((shard, body)).or_default();
                *part += bytes.len();
                if *part >= WRITE_BYTES || last {
                    self.tell_parts(parts);
                }
                if last {
                    let value = self.open.remove(&(shard, body)).expect("written to just now");
                    let found = value.finish().map_err(|error| error.to_string())?;
                    let staged = match check {
                        Some(check) if check != found => Staged::Wrong(found),
                        _ => Staged::Whole,
                    };
                    self.inbox.done(Done::Staged { shard, body, staged });
                }
                Ok(())
            }
            Job::Unstage { shard, body } => {
                self.open.remove(&(shard, body));
                self.stagers[&shard].remove(body.0).map_err(|error| error.to_string())
            }
        }
    }

    fn write(&mut self, of: (ShardIndex, BodyId), bytes: &[u8]) -> Result<(), String> {
        let (shard, body) = of;
        let Self { stagers, inbox, open } = self;
        let stager = &stagers[&shard];
        let value = match open.entry(of) {
            Entry::Occupied(begun) => begun.into_mut(),
            Entry::Vacant(place) => place.insert(when_space(inbox, || stager.begin(body.0))?),
        };
        let write = |piece: &[u8]| -> Result<(), String> {
            when_space(inbox, || -> Result<(), WriteError> { value.write(piece) })
        };
        bytes.chunks(WRITE_BYTES).try_for_each(write)
    }

    fn tell_parts(&self, parts: &mut BTreeMap<(ShardIndex, BodyId), usize>) {
        while let Some(((shard, body), bytes)) = parts.pop_first() {
            self.inbox.done(Done::Staged { shard, body, staged: Staged::Part(bytes) });
        }
    }
}
