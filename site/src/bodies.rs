//! The bodies thread: writes large values beside their ledgers while they arrive by the bulk lane, so that neither the group
//! thread nor the log's group commit has to wait for them. A second one syncs those that are whole, so that the next is
//! written meanwhile.

use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use tradewind_ledger::Digest;
use tradewind_ledger_disk::{StagedValue, Stager, WriteError};
use tradewind_site_protocol::{BodyId, ShardIndex, Staged};

use crate::inbox::{Inbox, PanicWatch};
use crate::log::{Done, when_space};

/// A long piece is written in parts of this size.
const WRITE_BYTES: usize = 1 << 20;

/// Whole bodies that wait for their sync at most: each holds an open file, and what it wrote is the kernel's to keep.
const UNSYNCED_MAX: usize = 16;

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
    threads: [JoinHandle<()>; 2],
}

impl Bodies {
    /// Starts the threads over the ledgers of this node's shards.
    pub(crate) fn start(
        stagers: HashMap<ShardIndex, Stager>,
        inbox: Arc<Inbox>,
    ) -> std::io::Result<Self> {
        let (jobs, receiver) = channel();
        let (whole, unsynced) = sync_channel(UNSYNCED_MAX);
        let syncing = Syncing { inbox: Arc::clone(&inbox) };
        let worker = Worker { stagers, inbox, open: HashMap::new(), whole };
        let watch = PanicWatch::new("bodies", &worker.inbox);
        let writes = thread::Builder::new().name("bodies".into()).spawn(move || {
            let _watch = watch;
            worker.run(&receiver);
        })?;
        let watch = PanicWatch::new("bodies-sync", &syncing.inbox);
        let syncs = thread::Builder::new().name("bodies-sync".into()).spawn(move || {
            let _watch = watch;
            syncing.run(&unsynced);
        })?;
        Ok(Self { jobs, threads: [writes, syncs] })
    }

    /// Queues a job. The queue is bounded by the core, which takes no more blocks while much is unwritten
    /// ([`BulkLimits::unstaged_bytes`](tradewind_site_protocol::BulkLimits)).
    pub(crate) fn push(&self, job: Job) {
        // The thread is gone only after it reported a failure, which ends the process.
        let _ = self.jobs.send(job);
    }

    /// Ends the threads; what is queued is of no use to anybody.
    pub(crate) fn stop(self) {
        drop(self.jobs);
        for thread in self.threads {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                tracing::error!("the {name} thread panicked");
            }
        }
    }
}

/// A body that is written and not synced, and the digest that its sender announced, if it came from another one.
struct Whole {
    shard: ShardIndex,
    body: BodyId,
    value: StagedValue,
    check: Option<Digest>,
}

struct Worker {
    stagers: HashMap<ShardIndex, Stager>,
    inbox: Arc<Inbox>,
    open: HashMap<(ShardIndex, BodyId), StagedValue>,
    whole: SyncSender<Whole>,
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
                // An own one comes whole, and its digest was computed from these bytes.
                let known = last && check.is_none();
                self.write((shard, body), &bytes, known)?;
                let part = parts.entry((shard, body)).or_default();
                *part += bytes.len();
                if *part >= WRITE_BYTES || last {
                    self.tell_parts(parts);
                }
                if last {
                    let value = self.open.remove(&(shard, body)).expect("written to just now");
                    // That thread is gone only after it reported a failure, which ends the process, or with the node.
                    let _ = self.whole.send(Whole { shard, body, value, check });
                }
                Ok(())
            }
            Job::Unstage { shard, body } => {
                self.open.remove(&(shard, body));
                self.stagers[&shard].remove(body.0).map_err(|error| error.to_string())
            }
        }
    }

    fn write(&mut self, of: (ShardIndex, BodyId), bytes: &[u8], known: bool) -> Result<(), String> {
        let (shard, body) = of;
        let Self { stagers, inbox, open, .. } = self;
        let stager = &stagers[&shard];
        let value = match open.entry(of) {
            Entry::Occupied(begun) => begun.into_mut(),
            Entry::Vacant(place) => place.insert(when_space(inbox, || match known {
                true => stager.begin_known(body.0),
                false => stager.begin(body.0),
            })?),
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

/// Makes whole bodies durable, one after the other.
struct Syncing {
    inbox: Arc<Inbox>,
}

impl Syncing {
    fn run(self, unsynced: &Receiver<Whole>) {
        while let Ok(Whole { shard, body, value, check }) = unsynced.recv() {
            if self.inbox.is_stopping() {
                return;
            }
            let found = match value.finish() {
                Ok(found) => found,
                Err(error) => return self.inbox.done(Done::Failed(format!("the disk: {error}"))),
            };
            let staged = match (check, found) {
                (Some(check), Some(found)) if check != found => Staged::Wrong(found),
                _ => Staged::Whole,
            };
            self.inbox.done(Done::Staged { shard, body, staged });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tradewind_ledger::tree::value_digest;
    use tradewind_ledger_disk::Options;
    use tradewind_transport::fabric::Wake;

    use super::*;

    const SHARD: ShardIndex = ShardIndex(0);

    #[derive(Debug)]
    struct Told(Sender<()>);

    impl Wake for Told {
        fn wake(&self) {
            // Nobody may wait any more.
            let _ = self.0.send(());
        }
    }

    #[test]
    fn bodies_are_told_to_be_whole_once_they_are_on_disk_or_wrong() {
        let dir = tempfile::tempdir().expect("a directory");
        let opened = tradewind_ledger_disk::open(dir.path(), &Options::default(), |_, _| Ok(()));
        let stager = opened.expect("an empty ledger").writer.stager();
        let (sender, woken) = channel();
        let inbox = Arc::new(Inbox::new(Arc::new(Told(sender))));
        let bodies = Bodies::start(HashMap::from([(SHARD, stager)]), Arc::clone(&inbox));
        let bodies = bodies.expect("threads");
        let stage = |body: u64, bytes: &'static [u8], last: bool, check: Option<Digest>| {
            let (shard, body, bytes) = (SHARD, BodyId(body), Bytes::from_static(bytes));
            bodies.push(Job::Stage { shard, body, bytes, last, check });
        };
        // An own one, one that comes in blocks, and one that is not what its sender announced.
        stage(0, b"an own body", true, None);
        stage(1, b"a body ", false, None);
        stage(2, b"anything", true, Some(value_digest(b"something")));
        stage(1, b"in two blocks", true, Some(value_digest(b"a body in two blocks")));
        let mut told = BTreeMap::new();
        while told.len() < 3 {
            woken.recv_timeout(Duration::from_secs(30)).expect("told of each");
            for done in inbox.take().done {
                match done {
                    Done::Staged { staged: Staged::Part(_), .. } => {}
                    Done::Staged { body, staged, .. } => drop(told.insert(body.0, staged)),
                    _ => panic!("something else was done"),
                }
            }
        }
        assert!(matches!(told[&0], Staged::Whole) && matches!(told[&1], Staged::Whole));
        let found = value_digest(b"anything");
        assert!(matches!(&told[&2], Staged::Wrong(wrong) if *wrong == found));
        let staged =
            |body: u64| std::fs::read(dir.path().join(format!("values/staged-{body}.tmp")));
        assert_eq!(staged(0).expect("on disk"), b"an own body");
        assert_eq!(staged(1).expect("on disk"), b"a body in two blocks");
        bodies.push(Job::Unstage { shard: SHARD, body: BodyId(1) });
        bodies.stop();
        assert!(staged(1).is_err(), "removed");
    }
}
