//! Start, stop, status.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;
use quinn::{Endpoint, VarInt};
use tokio::{runtime::Handle, sync::watch};
use tradewind_ledger::{Base, Genesis, LedgerId};
use tradewind_ledger_disk::{DataError, Owner, claim};
use tradewind_store::snapshot::Pin;
use tradewind_topology::Topology;
use tradewind_transport::{
    Directory, DirectoryError, Identity,
    quic::{self, QuicError, Tuning},
    tls::{Credentials, CredentialsError, Protocol},
};
use tradewind_wan::protocol::{FollowStatus, LedgerConfig, Timing};
use tradewind_wan::{
    FollowConfig, Following, MirrorStatus, Mirrors, Route, RouteError, ServeConfig, Server, Source,
    follow, routes, serve, timing_of,
};

use crate::{
    evidence::EvidenceFolder,
    failing::{Ended, Failing},
    log::{Log, Owned},
    open::{ReplicaError, open_replica},
    publish::PublisherThread,
    replica::Replica,
    sink::{MirrorSink, Paths},
    snapshots::{self, Snapshots},
};

/// What a mirror is to be.
#[derive(Debug)]
pub struct Config {
    /// The deployment.
    pub topology: Arc<Topology>,
    /// The mirror's key; its name is the mirror's name in the topology.
    pub identity: Identity,
    /// Its data directory.
    pub data: PathBuf,
    /// The deadlines; `None` for those that follow from the topology.
    pub timing: Option<Timing>,
}

/// Why a mirror does not start. Nothing was changed but, perhaps, the count of starts.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The topology has no such mirror.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// Two peers share a key.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The key is not the one the topology names.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The data directory is not this mirror's.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A ledger cannot be opened.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The port is taken.
    #[error(transparent)]
    Quic(#[from] QuicError),
    /// No thread can be started.
    #[error("no thread can be started: {0}")]
    Thread(#[from] io::Error),
}

/// A mirror at work. It ends when this is dropped, better by [`Mirror::stop`].
pub struct Mirror {
    pub(crate) name: String,
    pub(crate) topology: Arc<Topology>,
    pub(crate) incarnation: u64,
    pub(crate) replicas: Arc<BTreeMap<LedgerId, Arc<Replica>>>,
    pub(crate) mirrors: Mirrors,
    failure: watch::Receiver<Option<Ended>>,
    path: watch::Receiver<Option<Vec<String>>>,
    routes: Vec<(Vec<String>, watch::Receiver<FollowStatus>)>,
    pub(crate) more_status: OnceLock<MoreStatus>,
    work: Mutex<Option<Work>>,
}

/// Members of an object to be added to a mirror's status.
pub type MoreStatus = Box<dyn Fn() -> serde_json::Value + Send + Sync>;

/// What runs; ended in this order.
struct Work {
    server: Server,
    followings: Vec<Following>,
    log: Log,
    publisher: PublisherThread,
    endpoint: Endpoint,
}

impl Work {
    fn end(mut self) {
        drop(self.server);
        drop(self.followings);
        self.log.stop();
        self.publisher.join();
        self.endpoint.close(VarInt::from_u32(0), b"the mirror stops");
    }
}

/// How a mirror is fed with the ledgers of one route.
#[derive(Clone, Debug)]
pub struct RouteStatus {
    /// Names of the processes that it may be fed from, most preferred first.
    pub candidates: Vec<String>,
    /// How it stands.
    pub status: FollowStatus,
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mirror({} of {})", self.name, self.topology.name)
    }
}

impl Mirror {
    /// Opens the mirror's ledgers, follows its parents and feeds its children, within the current
    /// tokio runtime (which must outlive it).
    ///
    /// # Errors
    /// See [`StartError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn start(config: Config) -> Result<Arc<Self>, StartError> {
        let Config { topology, identity, data, timing } = config;
        let routes = routes(&topology, identity.name())?;
        let directory = Arc::new(Directory::from_topology(&topology)?);
        let credentials = Credentials::new(&identity, directory)?;
        let opening = Opening {
            timing: timing.unwrap_or_else(|| timing_of(&topology)),
            name: identity.name().to_owned(),
            key: identity.public_key().to_string(),
            topology,
            credentials,
            data,
        };
        // Opening reads every entry that there is.
        let opened = tokio::task::spawn_blocking(move || opening.open(routes));
        let (opening, opened) = opened.await.map_err(io::Error::other)??;
        opening.run(opened)
    }

    /// Ends everything in order: no more entries, then what is queued becomes durable and published,
    /// then the port is given back. Doing it again does nothing.
    pub async fn stop(&self) {
        let Some(work) = self.work.lock().take() else { return };
        let endpoint = work.endpoint.clone();
        // Threads are waited for.
        if tokio::task::spawn_blocking(|| work.end()).await.is_err() {
            tracing::error!("the mirror did not stop in order");
        }
        endpoint.wait_idle().await;
    }

    /// The name in the topology.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How often this data directory was started.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Why the mirror can do its work no more, or is to begin anew, once that is so: it should end, and be started anew, in
    /// the first case when the cause is gone.
    #[must_use]
    pub fn failure(&self) -> watch::Receiver<Option<Ended>> {
        self.failure.clone()
    }

    /// Names from this mirror to the sites; `None` while it is cut off.
    #[must_use]
    pub fn path(&self) -> watch::Receiver<Option<Vec<String>>> {
        self.path.clone()
    }

    /// How it is fed.
    #[must_use]
    pub fn routes(&self) -> Vec<RouteStatus> {
        let status = |(candidates, status): &(Vec<String>, watch::Receiver<FollowStatus>)| {
            RouteStatus { candidates: candidates.clone(), status: status.borrow().clone() }
        };
        self.routes.iter().map(status).collect()
    }

    /// Adds to the status what the mirror does not know itself; the first call counts.
    pub fn add_status(&self, more: MoreStatus) {
        let _ = self.more_status.set(more);
    }

    /// The mirrors below this one, with their lags.
    #[must_use]
    pub fn mirrors(&self) -> Vec<MirrorStatus> {
        self.mirrors.status()
    }

    /// The ledgers as children get them.
    #[must_use]
    pub fn sources(&self) -> Vec<Source> {
        self.replicas.values().map(Replica::source).collect()
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        if let Some(work) = self.work.get_mut().take() {
            work.end();
        }
    }
}

/// A mirror that is being started.
struct Opening {
    topology: Arc<Topology>,
    credentials: Credentials,
    name: String,
    key: String,
    data: PathBuf,
    timing: Timing,
}

/// What was found on disk.
struct Opened {
    incarnation: u64,
    replicas: BTreeMap<LedgerId, Arc<Replica>>,
    owned: BTreeMap<LedgerId, Owned>,
    publishers: BTreeMap<LedgerId, tradewind_ledger_disk::Publisher>,
    routes: Vec<(Route, Vec<LedgerConfig>)>,
    /// The snapshots that are to be made first.
    due: Vec<(LedgerId, Pin, Arc<Base>)>,
}

impl Opening {
    fn open(self, routes: Vec<Route>) -> Result<(Self, Opened), StartError> {
        let owner = Owner {
            deployment: self.topology.name.to_string(),
            role: "mirror",
            name: self.name.clone(),
            key: self.key.clone(),
        };
        let incarnation = claim(&self.data, &owner)?;
        let mut opened = Opened {
            incarnation,
            replicas: BTreeMap::new(),
            owned: BTreeMap::new(),
            publishers: BTreeMap::new(),
            routes: Vec::new(),
            due: Vec::new(),
        };
        for mut route in routes {
            let ledgers = std::mem::take(&mut route.ledgers);
            let configs = ledgers.into_iter().map(|genesis| self.open_ledger(genesis, &mut opened));
            let configs = configs.collect::<Result<_, _>>()?;
            opened.routes.push((route, configs));
        }
        Ok((self, opened))
    }

    fn open_ledger(
        &self,
        genesis: Genesis,
        opened: &mut Opened,
    ) -> Result<LedgerConfig, ReplicaError> {
        let id = genesis.ledger.clone();
        let policy = snapshots::policy(&self.topology, &self.name, id.pool());
        let found = open_replica(&self.data, genesis, policy, &EvidenceFolder::of(&self.data))?;
        let owned = Owned { replica: Arc::clone(&found.replica), writer: found.writer };
        opened.due.extend(found.due.map(|(pin, base)| (id.clone(), pin, base)));
        opened.replicas.insert(id.clone(), found.replica);
        opened.owned.insert(id.clone(), owned);
        opened.publishers.insert(id, found.publisher);
        Ok(found.config)
    }

    fn run(self, opened: Opened) -> Result<Arc<Mirror>, StartError> {
        let own = self.topology.mirror(&self.name).expect("its routes were found");
        let tuning =
            Tuning { link: own.link, idle_timeout: self.timing.stall, ..Tuning::default() };
        let endpoint = quic::server(own.ports.wan(), &self.credentials, Protocol::Wan, &tuning)?;
        let (failing, failure) = Failing::new();
        let (publisher, publications) = PublisherThread::start(opened.publishers, failing.clone())?;
        let snapshots = Snapshots::start(&opened.replicas, &publications)?;
        for (ledger, pin, base) in opened.due {
            snapshots.push(&ledger, pin, base);
        }
        let log = Log::start(opened.owned, publications, snapshots, failing.clone())?;
        let replicas = Arc::new(opened.replicas);
        let sources: Vec<Source> = replicas.values().map(Replica::source).collect();
        let mirrors = Mirrors::new(sources.clone());
        let paths = Arc::new(Paths::new(&self.name, opened.routes.len()));
        let mut followings = Vec::new();
        let mut statuses = Vec::new();
        for (index, (route, ledgers)) in opened.routes.into_iter().enumerate() {
            let sink = MirrorSink {
                replicas: Arc::clone(&replicas),
                orders: log.orders(),
                evidence: EvidenceFolder::of(&self.data),
                paths: Arc::clone(&paths),
                failing: failing.clone(),
                topology: Arc::clone(&self.topology),
                data: self.data.clone(),
                runtime: Handle::current(),
                route: index,
                ledgers: ledgers.iter().map(|ledger| ledger.genesis.ledger.clone()).collect(),
            };
            let names = route.candidates.iter().map(|candidate| candidate.name.clone()).collect();
            let config = FollowConfig {
                deployment: self.topology.name.to_string(),
                candidates: route.candidates,
                ledgers,
                credentials: self.credentials.clone(),
                endpoint: endpoint.clone(),
                tuning: tuning.clone(),
                timing: self.timing,
                mirrors: mirrors.clone(),
            };
            let following = follow(config, Arc::new(sink));
            statuses.push((names, following.status()));
            followings.push(following);
        }
        let server = ServeConfig {
            topology: Arc::clone(&self.topology),
            credentials: self.credentials,
            sources,
            path: paths.subscribe(),
            mirrors: mirrors.clone(),
            timing: self.timing,
        };
        let server = serve(endpoint.clone(), server);
        Ok(Arc::new(Mirror {
            name: self.name,
            topology: self.topology,
            incarnation: opened.incarnation,
            replicas,
            mirrors,
            failure,
            path: paths.subscribe(),
            routes: statuses,
            more_status: OnceLock::new(),
            work: Mutex::new(Some(Work { server, followings, log, publisher, endpoint })),
        }))
    }
}
