//! [`Group`]: membership of a site, in this process.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tradewind_client::wire::PoolIndex;
use tradewind_gateway::{Gateway, Options as GatewayOptions, Security};
use tradewind_ledger::LedgerId;
use tradewind_site::{Ended, Membership, Node, Standing, StartError};
use tradewind_store::shard_of;
use tradewind_topology::{Process, Topology};
use tradewind_transport::tls::{Credentials, CredentialsError};
use tradewind_transport::{Directory, DirectoryError, Identity};

use crate::error::OpenError;
use crate::follower::{Follower, Source};
use crate::machine::StateMachine;
use crate::replicated::{Options, Replicated, Way};

/// Why a member does not serve clients.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Keys that are not one for each name.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The own key or certificate.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// A port of the topology.
    #[error("listening at {address}: {source}; is another process there?")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// This process as a member of its site: it runs the real node, with ledgers on its own disk.
///
/// Leave with [`leave`](Self::leave). Dropped without it, the node's threads go on to the end of the process.
pub struct Group {
    node: Node,
    topology: Arc<Topology>,
    identity: Arc<Identity>,
    opened: Mutex<Vec<Opened>>,
    gateway: Option<Gateway>,
}

/// A state machine that was opened.
struct Opened {
    pool: String,
    name: String,
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl Group {
    /// Starts this process' node, which joins the others of its site by itself. Returns as soon as it speaks to them.
    ///
    /// # Errors
    /// [`StartError`], in words that say what to do.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn join(
        topology: Arc<Topology>,
        identity: Arc<Identity>,
    ) -> Result<Self, StartError> {
        let starting = (Arc::clone(&topology), Arc::clone(&identity));
        // Opening reads every entry that there is.
        let node = tokio::task::spawn_blocking(move || Node::start(starting.0, starting.1));
        let node = node.await.expect("starting a node does not panic")?;
        let (opened, gateway) = (Mutex::default(), None);
        Ok(Self { node, topology, identity, opened, gateway })
    }

    /// The node itself: its ledgers for mirrors, its status.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Whether this member takes part, and in which view; and how that changes.
    #[must_use]
    pub fn membership(&self) -> watch::Receiver<Membership> {
        self.node.views().membership()
    }

    /// Waits until a view runs here.
    pub async fn active(&self) {
        let mut membership = self.membership();
        // The sender lives as long as the node.
        let _ = membership.wait_for(|now| now.standing == Standing::Active).await;
    }

    /// Opens the state machine `name`, whose commands are the values of the key of that name in `pool`: this member's
    /// replica of it begins with its newest snapshot, or else with `initial`, and catches up by itself. `initial` is to be
    /// the same at all members and for ever, as code is.
    ///
    /// Give nobody else the right to write in that pool: what others put under the key is passed over if it is no
    /// command, but applied if it is one.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn replicated<S: StateMachine>(
        &self,
        pool: &str,
        name: &str,
        initial: S,
        options: Options,
    ) -> Result<Replicated<S>, OpenError> {
        let mut opened = self.opened.lock();
        opened.retain(|opened| !opened.thread.is_finished());
        if opened.iter().any(|opened| opened.pool == pool && opened.name == name) {
            return Err(OpenError::AlreadyOpen { pool: pool.into(), name: name.into() });
        }
        let (way, source) = self.place(pool, name, &options)?;
        let stop = CancellationToken::new();
        let (follower, replica) = Follower::new(initial, source, options.on_view, stop.clone())?;
        let run = move || follower.run();
        let thread = thread::Builder::new().name(format!("apply {name}")).spawn(run)?;
        opened.push(Opened { pool: pool.into(), name: name.into(), stop: stop.clone(), thread });
        Ok(Replicated::new(replica, way, stop))
    }

    /// Where the commands of a state machine go, and where they come from.
    fn place(&self, pool: &str, name: &str, options: &Options) -> Result<(Way, Source), OpenError> {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if !(1..=63).contains(&name.len()) || !name.bytes().all(allowed) {
            return Err(OpenError::Name(name.into()));
        }
        let Some(Process::Node { site, .. }) = self.topology.process(self.identity.name()) else {
            unreachable!("its node has started")
        };
        let pools = &self.topology.pools;
        let index = pools.iter().position(|p| p.name.as_str() == pool && p.home == site.name);
        let index = index.ok_or_else(|| OpenError::NoSuchPool {
            pool: pool.into(),
            pools: self.topology.pools_of(&site.name).map(|p| p.name.to_string()).collect(),
        })?;
        let shard = shard_of(name.as_bytes(), pools[index].shards);
        let pool_index = PoolIndex(u32::try_from(index).expect("far fewer pools"));
        let backend = self.node.backend();
        let feed = self
            .node
            .feeds()
            .into_iter()
            .find(|feed| feed.ledger.pool() == pool && feed.ledger.shard() == shard);
        let (Some(feed), Some(reading)) = (feed, backend.shard(pool_index, shard)) else {
            let members = self.topology.shard_members(&pools[index], shard).into_iter();
            let members = members.map(|node| site.nodes[node].name.to_string()).collect();
            let ledger =
                LedgerId::new(pool, shard).expect("the name of a pool is that of a ledger");
            return Err(OpenError::NotMember { ledger, members });
        };
        let key = name.as_bytes().to_vec();
        let source = Source {
            shard: Arc::clone(&reading),
            reader: feed.reader,
            lineage: feed.lineage,
            views: self.node.views(),
            key: key.clone(),
            snapshots: self.directory(&feed.ledger, name),
            snapshot_every: options.snapshot_every.max(1),
        };
        let way =
            Way { backend, pool: pool_index, shard, reading, key, deadline: options.deadline };
        Ok((way, source))
    }

    fn directory(&self, ledger: &LedgerId, name: &str) -> PathBuf {
        let data = self.topology.data.join(self.identity.name());
        data.join("replicated").join(ledger.to_string()).join(name)
    }

    /// Serves the client protocol, HTTP and the ledgers' public face at the node's ports of the topology, as `tradewind
    /// serve` does: `tradewind status`, `history` and auditors then work on this member. (Mirrors are fed by
    /// `tradewind serve`.)
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn serve(&mut self) -> Result<(), ServeError> {
        let Some(process) = self.topology.process(self.identity.name()) else {
            unreachable!("its node has started")
        };
        let directory = Arc::new(Directory::from_topology(&self.topology)?);
        let credentials = Credentials::new(&self.identity, directory)?;
        let listen = async |address| {
            let listener = TcpListener::bind(address).await;
            listener.map_err(|source| ServeError::Listen { address, source })
        };
        let client = listen(process.ports().client()).await?;
        let (http, address) = (listen(process.ports().http()).await?, process.ports().http());
        let options = GatewayOptions {
            client,
            security: Security::Tls(credentials),
            http: Some(http),
            connections_max: GatewayOptions::CONNECTIONS_MAX,
            large_bytes: GatewayOptions::LARGE_BYTES,
            restart: None,
        };
        let gateway = Gateway::start(self.node.backend(), options);
        self.gateway = Some(gateway.map_err(|source| ServeError::Listen { address, source })?);
        Ok(())
    }

    /// Waits until the node ends by itself, and says why; pending for ever while all is well, and after it was told once.
    /// Nothing is lost by it: [`leave`](Self::leave), and join again, in a fresh process when it says
    /// [`Ended::Restart`].
    pub async fn ended(&mut self) -> Ended {
        self.node.failed().await
    }

    /// Ends all replicas, each with a last snapshot, and then the node, after what its log has queued. The others go on
    /// without it.
    pub async fn leave(self) {
        if let Some(gateway) = self.gateway {
            gateway.stop().await;
        }
        let (node, opened) = (self.node, self.opened.into_inner());
        let end = move || {
            for opened in &opened {
                opened.stop.cancel();
            }
            for Opened { name, thread, .. } in opened {
                if thread.join().is_err() {
                    tracing::error!(name, "the state machine's thread panicked");
                }
            }
            node.stop();
        };
        tokio::task::spawn_blocking(end).await.expect("ending a node does not panic");
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Group({}, {:?})", self.identity.name(), *self.membership().borrow())
    }
}
