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
use tradewind_topology::{self as topology, Topology};

use crate::{publish::Publications, replica::Replica};

/// How much history of a pool is kept, and how often its state is worth a snapshot.
pub(crate) fn policy(topology: &Topology, pool: &str) -> (Retain, SnapshotRule) {
    let pool = topology.pools.iter().find(|other| other.name.as_str() == pool);
    let kept = pool.map_or(topology::Retain::All, |pool| pool.retain);
    let retain = match kept {
        topology::Retain::All => Retain::All,
        topology::Retain::Age(age) => Retain::Age(age),
        topology::Retain::Bytes(bytes) => Retain::Bytes(bytes),
    };
    (retain, SnapshotRule::every(kept.snapshot_bytes()))
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

    fn signed(&self) -> Version {
        self.replica.heads.borrow().as_ref().map_or(Version::ZERO, |head| head.size)
    }

    fn retain(&self) -> Retain {
        self.replica.policy.0
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

    pub(crate) fn stop(self) {
        self.thread.stop();
    }
}
