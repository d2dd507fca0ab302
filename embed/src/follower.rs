//! The thread that applies what the ledger says: one a replica.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tradewind_gateway::Shard;
use tradewind_ledger::tree::root_at;
use tradewind_ledger::{Body, Entry, Lineage, RequestId, Value, Version, Write};
use tradewind_ledger_disk::LedgerReader;
use tradewind_site::{Standing, Views};

use crate::command;
use crate::error::Stopped;
use crate::machine::{At, StateMachine};
use crate::snapshot::{self, Keeper, Snapshot};
use crate::views::{Teller, ViewEvent};

/// Bytes of entries read at a time.
const BATCH_BYTES: usize = 1 << 20;

/// Called with each view event, between the commands before it and those after it.
pub type ViewUpcall = Box<dyn FnMut(&ViewEvent) + Send>;

/// A command's reply, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied<R> {
    /// Its place in the order.
    pub at: At,
    /// What the state machine of this member answered.
    pub reply: R,
}

/// How far a replica is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Entries applied.
    pub(crate) applied: Version,
    pub(crate) stopped: Option<Stopped>,
}

/// Those who wait for the reply of a command, by its request.
pub(crate) type Waiting<R> = HashMap<RequestId, oneshot::Sender<Applied<R>>>;

/// What the thread and those who call share.
pub(crate) struct Replica<S: StateMachine> {
    pub(crate) machine: RwLock<S>,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) waiting: Mutex<Waiting<S::Reply>>,
    pub(crate) teller: Teller,
}

/// Where a replica takes its commands from.
pub(crate) struct Source {
    pub(crate) shard: Arc<dyn Shard>,
    pub(crate) reader: LedgerReader,
    pub(crate) lineage: Lineage,
    pub(crate) views: Arc<Views>,
    /// The key whose values are the commands.
    pub(crate) key: Vec<u8>,
    /// Where its snapshots lie.
    pub(crate) snapshots: PathBuf,
    /// After how many entries there is another one.
    pub(crate) snapshot_every: u64,
}

pub(crate) struct Follower<S: StateMachine> {
    replica: Arc<Replica<S>>,
    source: Source,
    keeper: Keeper,
    upcall: Option<ViewUpcall>,
    stop: CancellationToken,
    /// Entries applied, and those that the last snapshot covers.
    next: Version,
    kept: Version,
}

impl<S: StateMachine> Follower<S> {
    /// A replica that begins with the newest snapshot, or else with `initial`.
    ///
    /// # Errors
    /// If there is no thread for its snapshots.
    pub(crate) fn new(
        initial: S,
        source: Source,
        upcall: Option<ViewUpcall>,
        stop: CancellationToken,
    ) -> std::io::Result<(Self, Arc<Replica<S>>)> {
        let keeper = Keeper::start(source.snapshots.clone())?;
        let (machine, next) = restore(&source).unwrap_or((initial, Version::ZERO));
        let replica = Arc::new(Replica {
            machine: RwLock::new(machine),
            progress: watch::Sender::new(Progress { applied: next, stopped: None }),
            waiting: Mutex::default(),
            teller: Teller::new(),
        });
        let follower =
            Self { replica: Arc::clone(&replica), source, keeper, upcall, stop, next, kept: next };
        Ok((follower, replica))
    }

    /// Applies until it is told to stop or cannot go on.
    pub(crate) fn run(mut self) {
        let mut end = End { replica: Arc::clone(&self.replica), why: Stopped::Panicked };
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime =
            runtime.expect("a runtime without I/O and timers needs nothing of the system");
        match runtime.block_on(self.follow()) {
            Ok(()) => end.why = Stopped::Closed,
            Err(stopped) => {
                tracing::error!(ledger = %self.source.shard.id(), %stopped, "a replica stopped");
                end.why = stopped;
            }
        }
        drop(end);
        let last = (self.next > self.kept).then(|| self.snapshot()).flatten();
        self.keeper.finish(last);
    }

    async fn follow(&mut self) -> Result<(), Stopped> {
        let stop = self.stop.clone();
        let mut horizon = self.source.shard.horizon();
        let mut membership = self.source.views.membership();
        loop {
            let readable = horizon.borrow_and_update().readable;
            while self.next < readable && !stop.is_cancelled() {
                self.apply_batch(readable)?;
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = horizon.changed() => if changed.is_err() { return Ok(()) },
                changed = membership.changed() => {
                    let standing = membership.borrow_and_update().standing.clone();
                    if changed.is_ok() && standing != Standing::Active {
                        let event = self.replica.teller.suspended(standing);
                        self.tell(&event);
                    }
                }
            }
        }
    }

    /// Applies some entries below `readable`, as soon as they are on the own disk.
    fn apply_batch(&mut self, readable: Version) -> Result<(), Stopped> {
        let last = Version(readable.0 - 1);
        if let Err(error) = self.source.shard.await_own_disk(last) {
            // It is behind, not broken: a broken one ends the node.
            tracing::warn!(%error, "commands wait for the own disk");
            return Ok(());
        }
        let first = self.next;
        let entries = self.source.reader.entries(first, readable, BATCH_BYTES);
        let entries = entries.map_err(|error| self.unreadable(error.to_string()))?;
        for bytes in entries {
            self.apply(&bytes)?;
        }
        self.replica.progress.send_modify(|progress| progress.applied = self.next);
        if self.next.since(self.kept) >= self.source.snapshot_every
            && let Some(snapshot) = self.snapshot()
            && self.keeper.offer(snapshot)
        {
            self.kept = self.next;
        }
        Ok(())
    }

    fn apply(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        let entry = Entry::decode(bytes).map_err(|error| self.unreadable(error.to_string()))?;
        let at = At { version: self.next, hlc: entry.hlc, view: entry.view };
        match entry.body {
            Body::View(record) => {
                // Views that were installed before this start, or without this node, are known by number only.
                if let Some(members) = self.source.views.members_of(record.view) {
                    let event = self.replica.teller.installed(record.view, at.version, members);
                    self.tell(&event);
                }
            }
            Body::Put(write) if write.update.key == self.source.key => self.command(at, write)?,
            _ => {}
        }
        self.next = self.next.next();
        Ok(())
    }

    fn command(&mut self, at: At, Write { request, update }: Write) -> Result<(), Stopped> {
        let value = match update.value {
            Some(Value::Inline(bytes)) => bytes,
            Some(Value::Detached { digest, .. }) => {
                let value = self.source.shard.value(&digest);
                value.map_err(|error| self.unreadable(error.to_string()))?
            }
            None => return Ok(()),
        };
        let decoded = command::decode_command(&value);
        let decoded = decoded.map_err(|reason| Stopped::Command { version: at.version, reason })?;
        let Some(command) = decoded else {
            tracing::warn!(version = %at.version, "a value that is no command is passed over, by every member");
            return Ok(());
        };
        let reply = self.replica.machine.write().apply(at, command);
        if let Some(waiting) = self.replica.waiting.lock().remove(&request) {
            // The caller may have given up.
            let _ = waiting.send(Applied { at, reply });
        }
        Ok(())
    }

    fn tell(&mut self, event: &ViewEvent) {
        // Whoever hears of a view finds in the state what came before it.
        self.replica.progress.send_modify(|progress| progress.applied = self.next);
        if let Some(upcall) = &mut self.upcall {
            upcall(event);
        }
    }

    /// The state now; `None` if the ledger's root cannot be told, which is no harm.
    fn snapshot(&self) -> Option<Snapshot> {
        let root = root_at(&self.source.reader, self.next)
            .inspect_err(
                |error| tracing::warn!(%error, "no snapshot: the ledger's root is not known"),
            )
            .ok()?;
        let state = self.replica.machine.read().snapshot();
        Some(Snapshot { lineage: self.source.lineage, applied: self.next, root, state })
    }

    fn unreadable(&self, reason: String) -> Stopped {
        Stopped::Ledger { version: self.next, reason }
    }
}

/// The state of the newest snapshot that is of this ledger.
fn restore<S: StateMachine>(source: &Source) -> Option<(S, Version)> {
    snapshot::stored(&source.snapshots).find_map(|stored| {
        let Snapshot { lineage, applied, root, state } = stored;
        let own = applied <= source.reader.durable_size()
            && lineage == source.lineage
            && root_at(&source.reader, applied).is_ok_and(|own| own == root);
        if !own {
            tracing::warn!(%applied, "a snapshot is not of this ledger, or of more of it than there is; it is passed over");
            return None;
        }
        let restored = S::restore(&state);
        let restored = restored.inspect_err(|error| {
            tracing::warn!(%applied, %error, "the state machine does not take a snapshot; an earlier one or the ledger is taken");
        });
        tracing::info!(ledger = %source.shard.id(), %applied, "a state machine begins with a snapshot");
        Some((restored.ok()?, applied))
    })
}

/// However the thread ends, a panic included: those who wait learn it.
struct End<S: StateMachine> {
    replica: Arc<Replica<S>>,
    why: Stopped,
}

impl<S: StateMachine> Drop for End<S> {
    fn drop(&mut self) {
        let why = self.why.clone();
        self.replica.progress.send_modify(|progress| progress.stopped = Some(why));
        self.replica.waiting.lock().clear();
        self.replica.teller.close();
    }
}
