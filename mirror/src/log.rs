//! The log thread: group commit for all ledgers of a mirror.
//!
//! What the follower has verified is appended, synced once a round for each ledger, applied to the
//! store, and only then shown: to readers, to children, to the publisher, and to the follower, which
//! credits its parent. The queue is bounded by the window of bytes that parents are granted.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tradewind_gateway::Horizon;
use tradewind_ledger::{Body, Digest, Hlc, LedgerId, SignedNote};
use tradewind_ledger_disk::{LedgerWriter, WriteError};
use tradewind_wan::protocol::{Admitted, Head};

use crate::{failing::Failing, publish::Publications, replica::Replica, snapshots::Snapshots};

/// Bytes that are synced together at most.
const ROUND_BYTES: usize = 16 << 20;
/// Entries that are applied while readers wait.
const APPLY_ENTRIES: usize = 256;
/// Pause before a full disk is tried again.
const NO_SPACE_PAUSE: Duration = Duration::from_secs(1);

/// What the log thread is told.
#[derive(Debug)]
pub(crate) enum Order {
    Value(LedgerId, Digest, Vec<u8>),
    Commit(Box<Admitted>),
    Confirm(LedgerId, Head),
}

/// The other threads' end of the log thread.
#[derive(Debug)]
pub(crate) struct Log {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
    is_stopping: Arc<AtomicBool>,
}

/// A ledger as the log thread has it.
pub(crate) struct Owned {
    pub(crate) replica: Arc<Replica>,
    pub(crate) writer: LedgerWriter,
}

struct Run {
    ledgers: BTreeMap<LedgerId, Owned>,
    publications: Publications,
    snapshots: Snapshots,
    is_stopping: Arc<AtomicBool>,
}

/// Why the log thread ends early.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{ledger}: {source}")]
    Write { ledger: LedgerId, source: WriteError },
    #[error("{ledger}: what the site signed cannot be applied: {source}")]
    Apply { ledger: LedgerId, source: tradewind_store::ApplyError },
    #[error("stopped while the disk was full")]
    Stopped,
}

impl Log {
    /// Starts the thread. If it fails, `failing` says why, and nothing is shown any more.
    pub(crate) fn start(
        ledgers: BTreeMap<LedgerId, Owned>,
        publications: Publications,
        snapshots: Snapshots,
        failing: Failing,
    ) -> io::Result<Self> {
        let (orders, receiver) = channel();
        let is_stopping = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&is_stopping);
        let mut run = Run { ledgers, publications, snapshots, is_stopping: stopping };
        let thread = thread::Builder::new().name("log".into()).spawn(move || {
            let _watch = failing.watch("log");
            if let Err(error) = run.run(&receiver) {
                tracing::error!(%error, "the log thread ends");
                failing.fail(&error.to_string());
            }
            run.snapshots.stop();
        })?;
        Ok(Self { orders: Some(orders), thread: Some(thread), is_stopping })
    }

    /// For a follower.
    pub(crate) fn orders(&self) -> Sender<Order> {
        self.orders.clone().expect("it is taken only when the thread ends")
    }

    /// Commits what is queued and ends the thread, once all followers are gone.
    pub(crate) fn stop(&mut self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the log thread panicked");
            }
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Run {
    fn run(&mut self, orders: &Receiver<Order>) -> Result<(), Failure> {
        while let Ok(first) = orders.recv() {
            let mut round = Vec::new();
            let mut bytes = 0;
            let more = std::iter::from_fn(|| orders.try_recv().ok());
            for order in std::iter::once(first).chain(more) {
                bytes += match &order {
                    Order::Value(_, _, bytes) => bytes.len(),
                    Order::Commit(admitted) => admitted.batch.body.len(),
                    Order::Confirm(..) => 0,
                };
                round.push(order);
                if bytes >= ROUND_BYTES {
                    break;
                }
            }
            self.round(round)?;
        }
        Ok(())
    }

    /// Writes, syncs, shows.
    fn round(&mut self, orders: Vec<Order>) -> Result<(), Failure> {
        let mut dirty: BTreeMap<LedgerId, Vec<Admitted>> = BTreeMap::new();
        let mut confirmed = Vec::new();
        for order in orders {
            match order {
                Order::Value(ledger, digest, bytes) => {
                    self.write(&ledger, |writer| writer.store_value(&digest, &bytes))?;
                    if let Some(notice) = self.ledgers[&ledger].replica.notice.get() {
                        notice.stored(&ledger, digest);
                    }
                }
                Order::Commit(admitted) => {
                    let ledger = admitted.ledger.clone();
                    let entries: Vec<&[u8]> = admitted.batch.entries().collect();
                    self.write(&ledger, |writer| {
                        assert_eq!(writer.size(), admitted.first, "batches follow each other");
                        writer.append(&entries)
                    })?;
                    dirty.entry(ledger).or_default().push(*admitted);
                }
                Order::Confirm(ledger, head) => confirmed.push((ledger, head)),
            }
        }
        for ledger in dirty.keys() {
            self.write(ledger, LedgerWriter::sync)?;
        }
        for (ledger, batches) in dirty {
            self.show(&ledger, batches)?;
        }
        for (ledger, head) in confirmed {
            let owned = &self.ledgers[&ledger];
            // Batches may have come after it was said.
            if head.size == owned.writer.durable_size() {
                self.head(&ledger, head);
            }
        }
        Ok(())
    }

    /// Writes; while the disk is full it waits and tries again.
    fn write<T>(
        &mut self,
        ledger: &LedgerId,
        mut write: impl FnMut(&mut LedgerWriter) -> Result<T, WriteError>,
    ) -> Result<T, Failure> {
        let owned = self.ledgers.get_mut(ledger).expect("only own ledgers are followed");
        loop {
            match write(&mut owned.writer) {
                Ok(done) => return Ok(done),
                Err(WriteError::NoSpace(error)) => {
                    tracing::error!(%ledger, %error, "the disk is full; trying again");
                    if self.is_stopping.load(Ordering::Relaxed) {
                        return Err(Failure::Stopped);
                    }
                    thread::park_timeout(NO_SPACE_PAUSE);
                }
                Err(source) => return Err(Failure::Write { ledger: ledger.clone(), source }),
            }
        }
    }

    /// Applies durable entries, and shows them.
    fn show(&mut self, ledger: &LedgerId, batches: Vec<Admitted>) -> Result<(), Failure> {
        let replica = &self.ledgers[ledger].replica;
        let failed = |source| Failure::Apply { ledger: ledger.clone(), source };
        let mut newest = None;
        for admitted in batches {
            let mut version = admitted.first;
            let base = admitted.replay.base();
            let mut pinned = None;
            for entries in admitted.entries.chunks(APPLY_ENTRIES) {
                let mut store = replica.store.write();
                for entry in entries {
                    store.apply(version, entry).map_err(failed)?;
                    if let Body::Snapshot(record) = &entry.body {
                        self.snapshots.agreed(ledger, record.size, version);
                    }
                    version = version.next();
                    if base.is_some_and(|base| base.size() == version) {
                        pinned = store.pin_if_due(&replica.policy.rule);
                    }
                }
            }
            if let Some((pin, base)) = pinned.zip(base) {
                self.snapshots.push(ledger, pin, Arc::clone(base));
            }
            newest = Some(admitted.head);
        }
        if let Some(head) = newest {
            self.head(ledger, head);
        }
        Ok(())
    }

    fn head(&mut self, ledger: &LedgerId, head: Head) {
        let replica = &self.ledgers[ledger].replica;
        let (size, hlc) = (head.size, head.hlc);
        if head.is_signed() {
            let note = SignedNote::parse(head.note.as_bytes()).expect("it was verified");
            self.publications.push(ledger.clone(), note);
        }
        replica.horizon.send_replace(Horizon { readable: size, covered: Hlc(0) });
        replica.heads.send_replace(Some(Arc::new(head)));
        if let Some(notice) = replica.notice.get() {
            notice.durable(ledger, size, hlc);
        }
    }
}
