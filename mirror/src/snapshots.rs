//! What the thread for snapshots sees of a ledger, and when a snapshot is due.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::Arc,
};

use tradewind_ledger::{Base, Digest, LedgerId, Version};
use tradewind_ledger_disk::LedgerReader;
use tradewind_store::{SnapshotRule, Store, snapshot::Pin};
use tradewind_store_disk::{Due, Retain, Snapshotter, Source};
use tradewind_topology::{self as topology, Parent, Topology};

use crate::{publish::Publications, replica::Replica};

/// What a mirror does about snapshots of a ledger.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policies {
    /// How much history is kept.
    pub(crate) retain: Retain,
    /// When a snapshot is due: where it is at the nodes.
    pub(crate) rule: SnapshotRule,
    /// Whether others may need it, so that nothing is pruned that is not in one that the ledger holds.
    pub(crate) lends: bool,
}

/// Those of a pool's ledgers at this mirror.
pub(crate) fn policy(topology: &Topology, mirror: &str, pool: &str) -> Policies {
    let pool = topology.pools.iter().find(|other| other.name.as_str() == pool);
    let kept = pool.map_or(topology::Retain::All, |pool| pool.retain);
    let retain = match kept {
        topology::Retain::All => Retain::All,
        topology::Retain::Age(age) => Retain::Age(age),
        topology::Retain::Bytes(bytes) => Retain::Bytes(bytes),
    };
    let bytes = pool.map_or(kept.snapshot_bytes(), |pool| topology.snapshot_bytes(&pool.home));
    let is_parent =
        |parent: &Parent| matches!(parent, Parent::Mirror(name) if name.as_str() == mirror);
    let lends = topology.mirrors.iter().any(|other| other.parents.iter().any(is_parent));
    Policies { retain, rule: SnapshotRule::every(bytes), lends }
}

/// A ledger of this mirror.
struct LedgerSource {
    replica: Arc<Replica>,
    publications: Publications,
}

impl Source for LedgerSource {
    fn ledger(&self) -> &LedgerId {
        self.replica.id()
    }

    fn directory(&self) -> &Path {
        &self.replica.directory
    }

    fn reader(&self) -> &LedgerReader {
        &self.replica.reader.0
    }

    fn read(&self, look: &mut dyn FnMut(&Store)) {
        look(&self.replica.store.read());
    }

    fn change(&self, change: &mut dyn FnMut(&mut Store)) {
        change(&mut self.replica.store.write());
    }

    fn agrees(&self) -> bool {
        self.replica.policy.lends
    }

    fn signed(&self) -> Version {
        self.replica.heads.borrow().as_ref().map_or(Version::ZERO, |head| head.size)
    }

    fn retain(&self) -> Retain {
        self.replica.policy.retain
    }

    fn prune(&self, base: Base, live: HashSet<Digest>) {
        self.publications.prune(self.replica.id().clone(), base, live);
    }
}

/// The log thread's end of the thread for snapshots.
pub(crate) struct Snapshots {
    thread: Snapshotter,
    places: BTreeMap<LedgerId, usize>,
}

impl Snapshots {
    pub(crate) fn start(
        replicas: &BTreeMap<LedgerId, Arc<Replica>>,
        publications: &Publications,
    ) -> std::io::Result<Self> {
        let source = |replica: &Arc<Replica>| {
            let (replica, publications) = (Arc::clone(replica), publications.clone());
            Box::new(LedgerSource { replica, publications }) as Box<dyn Source>
        };
        let thread = Snapshotter::start(replicas.values().map(source).collect())?;
        Ok(Self { thread, places: replicas.keys().cloned().zip(0..).collect() })
    }

    pub(crate) fn push(&self, ledger: &LedgerId, pin: Pin, base: Arc<Base>) {
        self.thread.push(Due { source: self.places[ledger], pin, base });
    }

    /// The ledger holds the snapshot of `size` entries, in the entry `at`.
    pub(crate) fn agreed(&self, ledger: &LedgerId, size: Version, at: Version) {
        self.thread.agreed(self.places[ledger], size, at);
    }

    pub(crate) fn stop(self) {
        self.thread.stop();
    }
}
