//! What the follower hands over.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, atomic::Ordering, mpsc::Sender},
    time::Instant,
};

use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::watch};
use tradewind_ledger::tree::{consistency_proof, root_at};
use tradewind_ledger::{Digest, LedgerId, Version};
use tradewind_topology::Topology;
use tradewind_wan::protocol::{Admitted, Evidence, Head, Local};
use tradewind_wan::{DurableNotice, Lender, Sink};

use crate::{evidence::EvidenceFolder, failing::Failing, log::Order, replica::Replica, taking};

/// Paths to sites, one for each route, and what children are told of them.
#[derive(Debug)]
pub(crate) struct Paths {
    own: String,
    routes: Mutex<Vec<Option<Vec<String>>>>,
    joined: watch::Sender<Option<Vec<String>>>,
}

impl Paths {
    pub(crate) fn new(own: &str, routes: usize) -> Self {
        let routes = Mutex::new(vec![None; routes]);
        Self { own: own.to_owned(), routes, joined: watch::Sender::new(None) }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Vec<String>>> {
        self.joined.subscribe()
    }

    /// All names on the way to any site, each once; `None` if every route is cut off.
    fn set(&self, route: usize, path: Option<Vec<String>>) {
        let mut routes = self.routes.lock();
        routes[route] = path;
        let mut names: Vec<String> = vec![self.own.clone()];
        for name in routes.iter().flatten().flatten() {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        let joined = (names.len() > 1).then_some(names);
        self.joined.send_if_modified(|told| {
            let is_news = *told != joined;
            *told = joined;
            is_news
        });
    }
}

/// The mirror as one follower sees it.
#[derive(Debug)]
pub(crate) struct MirrorSink {
    pub(crate) replicas: Arc<BTreeMap<LedgerId, Arc<Replica>>>,
    pub(crate) orders: Sender<Order>,
    pub(crate) evidence: EvidenceFolder,
    pub(crate) paths: Arc<Paths>,
    pub(crate) route: usize,
    pub(crate) failing: Failing,
    pub(crate) topology: Arc<Topology>,
    pub(crate) data: PathBuf,
    pub(crate) runtime: Handle,
    /// The ledgers of this route.
    pub(crate) ledgers: Vec<LedgerId>,
}

impl MirrorSink {
    fn order(&self, order: Order) {
        // If the log thread has failed, the mirror is about to end.
        _ = self.orders.send(order);
    }
}

impl Local for MirrorSink {
    fn root_at(&self, ledger: &LedgerId, size: Version) -> Option<Digest> {
        root_at(&self.replicas[ledger].reader.0, size).ok()
    }

    fn proof(&self, ledger: &LedgerId, from: Version, to: Version) -> Option<Vec<Digest>> {
        consistency_proof(&self.replicas[ledger].reader.0, from, to).ok()
    }

    fn has_value(&self, ledger: &LedgerId, digest: &Digest) -> bool {
        matches!(self.replicas[ledger].reader.0.value(digest), Ok(Some(_)))
    }
}

impl Sink for MirrorSink {
    fn attach(&self, notice: DurableNotice) {
        for ledger in &self.ledgers {
            let attached = self.replicas[ledger].notice.set(notice.clone());
            assert!(attached.is_ok(), "each ledger has one follower");
        }
    }

    fn store_value(&self, ledger: &LedgerId, digest: Digest, bytes: Vec<u8>) {
        self.order(Order::Value(ledger.clone(), digest, bytes));
    }

    fn commit(&self, admitted: Box<Admitted>) {
        self.order(Order::Commit(admitted));
    }

    fn confirm(&self, ledger: &LedgerId, head: Head) {
        self.order(Order::Confirm(ledger.clone(), head));
    }

    fn take_snapshot(&self, ledger: &LedgerId, parent: Lender) {
        let replica = Arc::clone(&self.replicas[ledger]);
        let folder = taking::folder(&self.data, &ledger.to_string());
        let (topology, failing) = (Arc::clone(&self.topology), self.failing.clone());
        self.runtime.spawn(async move {
            let (ledger, from) = (replica.id(), parent.name());
            match taking::take(&replica, folder, &topology, &parent).await {
                Ok(()) => failing.begin_anew(format!("{ledger} begins with a snapshot of {from}")),
                Err(error) => {
                    tracing::warn!(%ledger, from, %error, "no snapshot was taken");
                    if let Some(notice) = replica.notice.get() {
                        notice.not_taken(ledger);
                    }
                }
            }
        });
    }

    fn fresh(&self, ledger: &LedgerId, as_of: Instant) {
        let mut fresh = self.replicas[ledger].fresh.lock();
        *fresh = (*fresh).max(Some(as_of));
    }

    fn evidence(&self, evidence: &Evidence) {
        self.replicas[&evidence.ledger].is_halted.store(true, Ordering::Relaxed);
        match self.evidence.keep(evidence) {
            Ok(file) => {
                let file = file.display();
                tracing::error!(ledger = %evidence.ledger, %file, "evidence of a fork is kept");
            }
            Err(error) => {
                tracing::error!(%error, %evidence, "evidence of a fork cannot be kept in a file");
            }
        }
    }

    fn path(&self, path: Option<Vec<String>>) {
        self.paths.set(self.route, path);
    }

    fn panicked(&self) {
        self.failing.fail("the follower panicked");
    }
}
