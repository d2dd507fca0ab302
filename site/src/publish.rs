//! The publisher thread: brings tiles and the `checkpoint` file of each ledger up to its newest signed checkpoint, and
//! writes down what is remembered of the other nodes.
//!
//! Off the critical path, and at its own pace: under load a checkpoint is signed every few milliseconds, while a file
//! that third parties read need not be renewed as often.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tradewind_ledger::note::SignedNote;
use tradewind_ledger::{Base, Digest};
use tradewind_site_protocol::{Recollection, ShardIndex};

use crate::inbox::{Inbox, PanicWatch};
use crate::peers::PeersFile;

/// Least time between two publications, and the most that a costly one puts off the next.
const PACE: Duration = Duration::from_millis(500);
const PACE_MAX: Duration = Duration::from_secs(2);
/// The part of its time that the thread may publish, as one in so many: each publication syncs the file system, which
/// the log shares.
const SHARE: u32 = 10;

/// What the thread is given.
enum Work {
    /// A newer signed checkpoint of a ledger.
    Note(ShardIndex, SignedNote),
    /// What is known of the other nodes by now.
    Peers(Vec<Recollection>),
    /// Everything before the base is to go, but for these values.
    Prune(ShardIndex, Box<Base>, HashSet<Digest>),
}

/// Asks the publisher thread to prune; as long as there is one, that goes on.
pub(crate) struct Pruner(Sender<Work>);

impl Pruner {
    pub(crate) fn prune(&self, shard: ShardIndex, base: Base, live: HashSet<Digest>) {
        // The thread ends only with the process.
        let _ = self.0.send(Work::Prune(shard, Box::new(base), live));
    }
}

/// The other threads' end of the publisher.
pub(crate) struct Publisher {
    work: Sender<Work>,
    thread: JoinHandle<()>,
}

impl Publisher {
    /// Starts the thread over the publishers of this node's ledgers.
    pub(crate) fn start(
        ledgers: HashMap<ShardIndex, tradewind_ledger_disk::Publisher>,
        peers: PeersFile,
        inbox: &Arc<Inbox>,
    ) -> std::io::Result<Self> {
        let (work, receiver) = channel();
        let watch = PanicWatch::new("publisher", inbox);
        let thread = thread::Builder::new().name("publisher".into()).spawn(move || {
            let _watch = watch;
            run(ledgers, &peers, &receiver);
        })?;
        Ok(Self { work, thread })
    }

    /// A newer signed checkpoint of a ledger. The queue holds at most what is signed within two publications.
    pub(crate) fn push(&self, shard: ShardIndex, note: SignedNote) {
        // The thread ends only with the process.
        let _ = self.work.send(Work::Note(shard, note));
    }

    /// What is to be remembered of the other nodes. Once a second at most, and at the end of a view.
    pub(crate) fn remember(&self, peers: Vec<Recollection>) {
        let _ = self.work.send(Work::Peers(peers));
    }

    /// For the thread that decides what is pruned.
    pub(crate) fn pruner(&self) -> Pruner {
        Pruner(self.work.clone())
    }

    /// Publishes what is queued and ends the thread, once all [`Pruner`]s are gone.
    pub(crate) fn stop(self) {
        drop(self.work);
        if self.thread.join().is_err() {
            tracing::error!("the publisher thread panicked");
        }
    }
}

fn run(
    mut ledgers: HashMap<ShardIndex, tradewind_ledger_disk::Publisher>,
    peers: &PeersFile,
    work: &Receiver<Work>,
) {
    let mut newest = HashMap::new();
    let mut not_before = Instant::now();
    loop {
        let received = if newest.is_empty() {
            work.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            work.recv_timeout(not_before.saturating_duration_since(Instant::now()))
        };
        match received {
            Ok(Work::Note(shard, note)) => {
                newest.insert(shard, note);
            }
            Ok(Work::Peers(known)) => {
                if let Err(error) = peers.write(&known) {
                    // What was written before stands, and is true; the next time there is more.
                    tracing::error!(%error, "writing down what is known of the other nodes failed");
                }
            }
            Ok(Work::Prune(shard, base, live)) => {
                let publisher = ledgers.get_mut(&shard).expect("one for each replicated shard");
                match publisher.prune(&base, |digest| live.contains(digest)) {
                    Ok(pruned) => tracing::info!(%shard, before = %base.size(), ?pruned, "pruned"),
                    // It is decided anew with the next snapshot.
                    Err(error) => tracing::warn!(%shard, %error, "nothing is pruned"),
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                let began = Instant::now();
                publish(&mut ledgers, newest.drain());
                let pause = (began.elapsed() * SHARE).clamp(PACE, PACE_MAX);
                not_before = Instant::now() + pause;
            }
            Err(RecvTimeoutError::Disconnected) => {
                publish(&mut ledgers, newest.drain());
                return;
            }
        }
    }
}

fn publish(
    ledgers: &mut HashMap<ShardIndex, tradewind_ledger_disk::Publisher>,
    newest: impl Iterator<Item = (ShardIndex, SignedNote)>,
) {
    for (shard, note) in newest {
        let publisher = ledgers.get_mut(&shard).expect("a publisher for each replicated shard");
        if let Err(error) = publisher.publish(&note) {
            // The ledger itself is untouched; the next checkpoint tries again.
            tracing::error!(%shard, %error, "publishing a checkpoint failed");
        }
    }
}
