//! [`Node`]: one member process of a site.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use thiserror::Error;
use tokio::sync::{oneshot, watch};
use tradewind_gateway::{Backend, Horizon};
use tradewind_ledger::{Base, LedgerId, Lineage, SignedNote};
use tradewind_ledger_disk::{
    DataError, Face, LedgerReader, OpenError, Options, Owner, Publisher, RewindError,
};
use tradewind_site_protocol::{
    ConfigError, Incarnation, NodeConfig, NodeCore, Promise, RecoveredShard, ShardConfig,
};
use tradewind_store::snapshot::Pin;
use tradewind_store_disk::{Begun, Due, Shelf, Snapshotter, Source};
use tradewind_topology::{Process, Site, Topology};
use tradewind_transport::fabric::tcp::TcpOptions;
use tradewind_transport::fabric::{self, Fabric, Paths};
use tradewind_transport::{Directory, DirectoryError, Identity};

use crate::backend::{self, MoreStatus, NodeBackend};
use crate::bodies::Bodies;
use crate::group::{self, Ended, Group, NodeSigner, Parts};
use crate::inbox::Inbox;
use crate::intake::{self, Intakes};
use crate::lending::Lender;
use crate::log::{self, Log};
use crate::peers::PeersFile;
use crate::promise::PromiseFile;
use crate::shared::{OwnDisk, Replica, Shared, SharedStore};
use crate::snapshots::ShardSource;
use crate::views::Views;
use crate::{config, publish};

/// Why a node did not start. Nothing was changed but, perhaps, its incarnation.
#[derive(Debug, Error)]
pub enum StartError {
    /// The topology does not know it, or knows it as something else.
    #[error("{name} is not a node in the topology; its nodes are {}", .nodes.join(", "))]
    NotANode {
        /// The name asked for.
        name: String,
        /// The nodes there are.
        nodes: Vec<String>,
    },
    /// It was one.
    #[error(
        "{name} was removed from site {site}: start it no more; to have it again, add it under another name with `tradewind node add`"
    )]
    Removed {
        /// The name asked for.
        name: String,
        /// Its site.
        site: String,
    },
    /// The data directory.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A ledger.
    #[error("ledger {ledger}: {source}")]
    Ledger {
        /// Which.
        ledger: LedgerId,
        /// What was found.
        source: Box<OpenError>,
    },
    /// A suffix that is in no agreed view cannot be cut off.
    #[error("ledger {ledger}: {source}")]
    Rewind {
        /// Which.
        ledger: LedgerId,
        /// What was found.
        source: Box<RewindError>,
    },
    /// The ledgers do not fit the topology.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Keys that are not one for each name.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The group's network.
    #[error(transparent)]
    Fabric(#[from] fabric::OpenError),
    /// A thread could not be started, or the promise not be read.
    #[error("starting: {0}")]
    Io(#[from] std::io::Error),
}

/// A running node. Dropping it without [`Node::stop`] leaves its threads to the end of the process.
pub struct Node {
    backend: Arc<NodeBackend>,
    thread: thread::JoinHandle<()>,
    ended: Option<oneshot::Receiver<Result<(), Ended>>>,
}

/// One ledger of a node, to be given to mirrors.
#[derive(Clone)]
pub struct Feed {
    /// Which.
    pub ledger: LedgerId,
    /// Its identity.
    pub lineage: Lineage,
    /// Its entries.
    pub reader: LedgerReader,
    /// The newest checkpoint that a majority has signed.
    pub head: watch::Receiver<Option<Arc<SignedNote>>>,
    /// Its snapshots.
    pub shelf: Arc<Shelf>,
}

/// The shards of a node as they come from disk.
#[derive(Default)]
struct Recovered {
    replicas: Vec<Option<Arc<Replica>>>,
    writers: Vec<log::Ledger>,
    publishers: HashMap<tradewind_site_protocol::ShardIndex, Publisher>,
    promise: Promise,
    shards: Vec<RecoveredShard<SharedStore>>,
    /// By own shard: the snapshot that is to be made first.
    due: Vec<Option<(Pin, Arc<Base>)>>,
}

impl Node {
    /// Opens the ledgers below the node's data directory and starts its threads. Returns as soon as the node speaks to
    /// its peers; when it serves is seen in [`Backend::readiness`].
    ///
    /// # Errors
    /// [`StartError`], in words that say what to do.
    pub fn start(topology: Arc<Topology>, identity: Arc<Identity>) -> Result<Self, StartError> {
        let name = identity.name().to_owned();
        let Some(Process::Node { site, index: own }) = topology.process(&name) else {
            let removed = topology.sites.iter().find(|site| {
                site.nodes.iter().enumerate().any(|(i, n)| n.name == name[..] && site.is_removed(i))
            });
            if let Some(site) = removed {
                return Err(StartError::Removed { name, site: site.name.to_string() });
            }
            let nodes = topology.sites.iter().flat_map(Site::present);
            return Err(StartError::NotANode {
                name,
                nodes: nodes.map(|(_, node)| node.name.to_string()).collect(),
            });
        };
        let directory = topology.data.join(&name);
        let owner = Owner {
            deployment: topology.name.to_string(),
            role: "node",
            name,
            key: site.nodes[own].key.to_string(),
        };
        let incarnation = tradewind_ledger_disk::claim(&directory, &owner)?;
        let config = config::node_config(&topology, site, own, Incarnation(incarnation));
        let mut recovered = recover(&topology, &config, &directory.join("ledgers"))?;
        let promises = PromiseFile::new(&directory);
        recovered.promise = promises.read()?;
        let peers = PeersFile::new(&directory, site, &config);
        let (fabric, paths) = fabric(&topology, site, own, &identity, incarnation)?;
        let site =
            topology.sites.iter().position(|other| other.name == site.name).expect("its own site");
        Self::run(
            topology,
            (site, own),
            identity,
            config,
            recovered,
            (fabric, paths, promises, peers),
        )
    }

    fn run(
        topology: Arc<Topology>,
        (site, own): (usize, usize),
        identity: Arc<Identity>,
        config: NodeConfig,
        recovered: Recovered,
        (fabric, paths, promises, peers): (Box<dyn Fabric>, Arc<Paths>, PromiseFile, PeersFile),
    ) -> Result<Self, StartError> {
        let started = Instant::now();
        let first_shard = first_shards(&topology, &config.shards);
        let incarnation = config.incarnation.0;
        let mut core =
            NodeCore::new(config, recovered.shards, recovered.promise, crate::rows::now(started))?;
        let names = topology.sites[site].nodes.iter().map(|node| node.name.to_string()).collect();
        let shared = Arc::new(Shared::new(recovered.replicas, names, core.status()));
        core.recall(peers.read()?);
        for replica in shared.replicas.iter().flatten() {
            if let Some(record) = replica.started.snapshot {
                core.handle_snapshot_made(crate::rows::now(started), replica.index, record);
            }
            let agreed = tradewind_store_disk::agreed(&replica.directory, &replica.reader)?;
            if let Some((at, record)) = agreed {
                core.recall_offer(replica.index, at, record);
            }
            if let Some((manifest, held)) = intake::found(&replica.directory)? {
                core.recall_taking(replica.index, manifest, held);
            }
        }
        let inbox = Arc::new(Inbox::new(fabric.waker()));
        let stager = |(shard, writer): &log::Ledger| (*shard, writer.stager());
        let stagers = recovered.writers.iter().map(stager).collect();
        let bodies = Bodies::start(stagers, Arc::clone(&inbox))?;
        let replicas = shared.replicas.iter().flatten();
        let ledgers = replicas.map(|replica| (replica.index, replica.directory.clone()));
        let intakes = Intakes::new(ledgers.collect());
        let log = Log::start(recovered.writers, intakes, Arc::clone(&inbox))?;
        let lender = Lender::start(shared.replicas.clone(), &inbox)?;
        let publisher = publish::Publisher::start(recovered.publishers, peers, &inbox)?;
        let sources = shared.replicas.iter().flatten().map(|replica| {
            let (replica, inbox) = (Arc::clone(replica), Arc::clone(&inbox));
            let source = ShardSource { replica, pruner: publisher.pruner(), inbox };
            Box::new(source) as Box<dyn Source>
        });
        let snapshots = Snapshotter::start(sources.collect())?;
        for (source, due) in recovered.due.into_iter().enumerate() {
            if let Some((pin, base)) = due {
                snapshots.push(Due { source, pin, base });
            }
        }
        let parts = Parts {
            core,
            fabric,
            inbox: Arc::clone(&inbox),
            log,
            bodies,
            publisher,
            snapshots,
            lender,
            shared: Arc::clone(&shared),
            signer: NodeSigner(identity),
            promises,
        };
        let (tell, ended) = oneshot::channel();
        let group = Group::new(parts, started);
        let thread = thread::Builder::new().name("group".into()).spawn(move || {
            // Nobody may be there to hear it.
            let _ = tell.send(group.run());
        })?;
        let more_status = OnceLock::new();
        let backend = NodeBackend {
            topology,
            site,
            own,
            incarnation,
            shards: backend::shards(&shared, &inbox),
            inbox,
            shared,
            first_shard,
            more_status,
            paths,
        };
        Ok(Self { backend: Arc::new(backend), thread, ended: Some(ended) })
    }

    /// What the node offers to clients.
    #[must_use]
    pub fn backend(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.backend) as Arc<dyn Backend>
    }

    /// Its ledgers, to be given to mirrors.
    #[must_use]
    pub fn feeds(&self) -> Vec<Feed> {
        let feed = |replica: &Arc<Replica>| Feed {
            ledger: replica.ledger.clone(),
            lineage: replica.lineage,
            reader: replica.reader.clone(),
            head: replica.head.subscribe(),
            shelf: Arc::new(Shelf::of(replica.directory.clone())),
        };
        self.backend.shared.replicas.iter().flatten().map(feed).collect()
    }

    /// The views that it takes part in.
    #[must_use]
    pub fn views(&self) -> Arc<Views> {
        Arc::clone(&self.backend.shared.views)
    }

    /// Adds to the node's status what it does not know itself; the first call counts.
    pub fn add_status(&self, more: MoreStatus) {
        let _ = self.backend.more_status.set(more);
    }

    /// Waits until the node ends by itself, and says why. To be called once; pending for ever while all is well.
    pub async fn failed(&mut self) -> Ended {
        match self.ended.take() {
            Some(ended) => match ended.await {
                Ok(Err(ended)) => ended,
                Ok(Ok(())) => Ended::Failed("it was stopped".into()),
                Err(_) => Ended::Failed("its group thread panicked".into()),
            },
            None => std::future::pending().await,
        }
    }

    /// Ends the node's threads after what the log has queued.
    pub fn stop(self) {
        self.backend.inbox.stop();
        if self.thread.join().is_err() {
            tracing::error!("the group thread panicked");
        }
        tracing::info!("node stopped");
    }
}

/// Opens the ledger of each shard that this node is a member of.
fn recover(
    topology: &Topology,
    config: &NodeConfig,
    directory: &Path,
) -> Result<Recovered, StartError> {
    let mut recovered = Recovered::default();
    for (place, shard) in config.shards.iter().enumerate() {
        let last = config.rosters.last().expect("a site has a first roster");
        if !last.shards[place].contains(&config.own) {
            recovered.replicas.push(None);
            continue;
        }
        let index = group::index(place);
        let ledger = shard.genesis.ledger.clone();
        let lineage = shard.genesis.lineage().expect("a genesis from a checked topology");
        let directory = directory.join(ledger.to_string());
        let options =
            Options { expected_lineage: Some(lineage), face: Face::Packed, ..Options::default() };
        crate::rewind::perform(&directory, &options).map_err(|source| StartError::Rewind {
            ledger: ledger.clone(),
            source: Box::new(source),
        })?;
        // A snapshot that was taken wholly takes the place of what was here.
        if tradewind_store_disk::replace_ledger(&intake::folder(&directory), &directory)? {
            tracing::info!(%ledger, "begins with a snapshot of the others");
        }
        let opened = tradewind_store_disk::open(&directory, &options, &config.limits.snapshots);
        let Begun { opened, store, started, due } = opened.map_err(|source| {
            StartError::Ledger { ledger: ledger.clone(), source: Box::new(source) }
        })?;
        let (snapshot, replayed) = (started.size(), started.replayed);
        tracing::info!(%ledger, size = %opened.replay.size(), %snapshot, replayed, recovery = ?opened.recovery, "ledger opened");
        let retain = config::retain(topology, ledger.pool());
        let store = SharedStore(Arc::new(store.into()));
        let replica = Replica {
            index,
            ledger,
            lineage,
            directory,
            store: store.clone(),
            reader: opened.reader.clone(),
            own_disk: OwnDisk::default(),
            retain,
            started,
            horizon: watch::Sender::new(horizon(&opened.checkpoint)),
            head: watch::Sender::new(opened.checkpoint.map(Arc::new)),
        };
        recovered.replicas.push(Some(Arc::new(replica)));
        recovered.due.push(due);
        recovered.writers.push((index, opened.writer));
        recovered.publishers.insert(index, opened.publisher);
        recovered.shards.push(RecoveredShard { replay: opened.replay, store });
    }
    Ok(recovered)
}

/// What readers may see before the first view: what a majority has signed was committed.
fn horizon(checkpoint: &Option<SignedNote>) -> Horizon {
    let size =
        checkpoint.as_ref().and_then(|note| note.checkpoint().ok()).map(|signed| signed.size);
    Horizon { readable: size.unwrap_or_default(), ..Horizon::default() }
}

fn fabric(
    topology: &Topology,
    site: &Site,
    own: usize,
    identity: &Identity,
    incarnation: u64,
) -> Result<(Box<dyn Fabric>, Arc<Paths>), StartError> {
    let directory = Arc::new(Directory::from_topology(topology)?);
    let own = fabric::NodeId(u16::try_from(own).expect("a site has far fewer nodes than 2^16"));
    let options = TcpOptions::from_topology(topology, site, own, identity, directory, incarnation);
    Ok(fabric::open(site.fabric, options.map_err(fabric::OpenError::from)?)?)
}

/// By pool of the topology: the place of its first shard among the site's shards.
fn first_shards(topology: &Topology, shards: &[ShardConfig]) -> Vec<Option<usize>> {
    let first = |pool: &str| shards.iter().position(|shard| shard.genesis.ledger.pool() == pool);
    topology.pools.iter().map(|pool| first(pool.name.as_str())).collect()
}
