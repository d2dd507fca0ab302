//! The publisher thread: brings tiles and `checkpoint` files up to the newest signed checkpoints.
//!
//! Off the way of the data, and at its own pace: under load a checkpoint comes every few
//! milliseconds, while files that third parties read need not be renewed as often.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tradewind_ledger::{Base, Digest, LedgerId, SignedNote};
use tradewind_ledger_disk::Publisher;

use crate::failing::Failing;

/// Least time between two rounds.
const PACE: Duration = Duration::from_millis(250);

/// Takes checkpoints for the publisher thread.
#[derive(Clone, Debug)]
pub(crate) struct Publications(Sender<Work>);

/// What the thread is given.
#[derive(Debug)]
enum Work {
    /// A newer signed checkpoint.
    Note(LedgerId, SignedNote),
    /// Everything before the base is to go, but for these values.
    Prune(LedgerId, Box<Base>, HashSet<Digest>),
}

impl Publications {
    /// All entries of this checkpoint are durable.
    pub(crate) fn push(&self, ledger: LedgerId, note: SignedNote) {
        // The thread ends after all senders.
        _ = self.0.send(Work::Note(ledger, note));
    }

    /// What a pool does not keep is to go.
    pub(crate) fn prune(&self, ledger: LedgerId, base: Base, live: HashSet<Digest>) {
        _ = self.0.send(Work::Prune(ledger, Box::new(base), live));
    }
}

/// The publisher thread; it ends when all [`Publications`] are gone.
#[derive(Debug)]
pub(crate) struct PublisherThread(Option<JoinHandle<()>>);

impl PublisherThread {
    pub(crate) fn start(
        publishers: BTreeMap<LedgerId, Publisher>,
        failing: Failing,
    ) -> io::Result<(Self, Publications)> {
        let (sender, notes) = channel();
        let thread = thread::Builder::new().name("publisher".into()).spawn(move || {
            let _watch = failing.watch("publisher");
            run(publishers, &notes);
        })?;
        Ok((Self(Some(thread)), Publications(sender)))
    }

    /// Waits for the last publication.
    pub(crate) fn join(&mut self) {
        if let Some(thread) = self.0.take()
            && thread.join().is_err()
        {
            tracing::error!("the publisher thread panicked");
        }
    }
}

fn run(mut publishers: BTreeMap<LedgerId, Publisher>, notes: &Receiver<Work>) {
    let mut newest: BTreeMap<LedgerId, SignedNote> = BTreeMap::new();
    let mut not_before = Instant::now();
    loop {
        let received = if newest.is_empty() {
            notes.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            notes.recv_timeout(not_before.saturating_duration_since(Instant::now()))
        };
        let is_end = match received {
            Ok(Work::Note(ledger, note)) => {
                newest.insert(ledger, note);
                continue;
            }
            Ok(Work::Prune(ledger, base, live)) => {
                let publisher = publishers.get_mut(&ledger).expect("only own ledgers are pruned");
                match publisher.prune(&base, |digest| live.contains(digest)) {
                    Ok(pruned) => tracing::info!(%ledger, before = %base.size(), ?pruned, "pruned"),
                    // It is decided anew with the next snapshot.
                    Err(error) => tracing::warn!(%ledger, %error, "nothing is pruned"),
                }
                continue;
            }
            Err(end) => end == RecvTimeoutError::Disconnected,
        };
        for (ledger, note) in std::mem::take(&mut newest) {
            let publisher = publishers.get_mut(&ledger).expect("only own ledgers are published");
            if let Err(error) = publisher.publish(&note) {
                tracing::error!(%ledger, %error, "the checkpoint is not published");
            }
        }
        if is_end {
            return;
        }
        not_before = Instant::now() + PACE;
    }
}
