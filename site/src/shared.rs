//! What the group thread shares with those who read: stores, watermarks, checkpoints, status.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::watch;
use tradewind_gateway::Horizon;
use tradewind_ledger::{LedgerId, Lineage, SignedNote, Version};
use tradewind_ledger_disk::LedgerReader;
use tradewind_site_protocol::{ShardIndex, State, Status, StoreAccess};
use tradewind_store::Store;
use tradewind_store_disk::{Retain, Started};

use crate::changes::Changes;
use crate::views::Views;

/// A store that the core writes and readers read.
#[derive(Clone, Default)]
pub(crate) struct SharedStore(pub(crate) Arc<RwLock<Store>>);

impl StoreAccess for SharedStore {
    fn with_mut<R>(&mut self, change: impl FnOnce(&mut Store) -> R) -> R {
        change(&mut self.0.write())
    }
}

/// How many entries of a ledger are on the own disk, as the group thread knows it.
#[derive(Default)]
pub(crate) struct OwnDisk {
    size: Mutex<Version>,
    grown: Condvar,
}

impl OwnDisk {
    pub(crate) fn grow(&self, size: Version) {
        *self.size.lock() = size;
        self.grown.notify_all();
    }

    /// Waits until there are `size` entries, no longer than `limit`; gives how many there are.
    pub(crate) fn wait_for(&self, size: Version, limit: Duration) -> Version {
        let mut have = self.size.lock();
        self.grown.wait_while_for(&mut have, |have| *have < size, limit);
        *have
    }
}

/// A shard that this node is a member of.
pub(crate) struct Replica {
    pub(crate) index: ShardIndex,
    pub(crate) ledger: LedgerId,
    pub(crate) lineage: Lineage,
    pub(crate) directory: PathBuf,
    pub(crate) store: SharedStore,
    pub(crate) reader: LedgerReader,
    pub(crate) own_disk: OwnDisk,
    /// How much history is kept.
    pub(crate) retain: Retain,
    /// Where this start began, and what it replayed.
    pub(crate) started: Started,
    /// What readers may see.
    pub(crate) horizon: watch::Sender<Horizon>,
    /// The newest checkpoint that a majority has signed.
    pub(crate) head: watch::Sender<Option<Arc<SignedNote>>>,
}

/// Shared by the threads of a node.
pub(crate) struct Shared {
    /// By shard of the site; `None` where this node is no member.
    pub(crate) replicas: Vec<Option<Arc<Replica>>>,
    /// What the node takes part in.
    pub(crate) views: Arc<Views>,
    /// How long it took to come from one to the next.
    pub(crate) changes: Changes,
    status: Mutex<Snapshot>,
}

/// The status as the group thread last left it.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) status: Status,
    /// Since when the view does not run; `None` while it does.
    pub(crate) inactive_since: Option<Instant>,
}

impl Shared {
    pub(crate) fn new(
        replicas: Vec<Option<Arc<Replica>>>,
        names: Vec<String>,
        status: Status,
    ) -> Self {
        Self {
            replicas,
            views: Arc::new(Views::new(names)),
            changes: Changes::default(),
            status: Mutex::new(Snapshot { status, inactive_since: Some(Instant::now()) }),
        }
    }

    /// The replica of a shard that the core replicates here.
    pub(crate) fn replica(&self, shard: ShardIndex) -> &Replica {
        self.replicas[shard.index()]
            .as_ref()
            .expect("the core only speaks of the shards it replicates")
    }

    /// The place of a shard among those that are replicated here.
    pub(crate) fn place(&self, shard: ShardIndex) -> usize {
        self.replicas[..shard.index()].iter().flatten().count()
    }

    /// Leaves the status for those who ask.
    pub(crate) fn set_status(&self, status: Status) {
        self.views.tell(&status);
        let mut snapshot = self.status.lock();
        snapshot.inactive_since = match status.state {
            State::Active => None,
            _ => snapshot.inactive_since.or_else(|| Some(Instant::now())),
        };
        snapshot.status = status;
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.status.lock().clone()
    }

    /// How long this node may have missed what the others did.
    pub(crate) fn age(&self) -> Duration {
        self.status.lock().inactive_since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}
