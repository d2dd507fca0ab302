//! Accepts children that the topology allows.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use quinn::{Endpoint, Incoming, VarInt};
use tokio::{
    sync::{Semaphore, watch},
    task::{AbortHandle, JoinSet},
};
use tradewind_topology::{Parent, Process, Topology};
use tradewind_transport::{quic, tls::Credentials, tls::Protocol};
use tradewind_wan_protocol::{FeederConfig, Timing};

use crate::{feed, mirrors::Mirrors, source::Source};

/// Children connected at once, at most.
const CHILDREN_MAX: usize = 256;

/// What a process feeds its children, and how.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Says which child may have what.
    pub topology: Arc<Topology>,
    /// Proves who this process is.
    pub credentials: Credentials,
    /// The ledgers that there are.
    pub sources: Vec<Source>,
    /// From this process to a site: the own name first; at a node nothing but its name and that of
    /// its site. `None` while it is cut off.
    pub path: watch::Receiver<Option<Vec<String>>>,
    /// Takes up what children report.
    pub mirrors: Mirrors,
    /// The deadlines.
    pub timing: Timing,
}

/// Feeds children until it is dropped.
#[derive(Debug)]
pub struct Server {
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Feeds children that connect to `endpoint`, within the current tokio runtime.
///
/// A child is a mirror of the topology that names this process's site, or this mirror, among its
/// parents; it gets the pools that it subscribes to. Anybody else is refused, with a line in the log.
///
/// # Panics
/// Outside of a tokio runtime, and if the topology does not have this process.
#[must_use]
pub fn serve(endpoint: Endpoint, config: ServeConfig) -> Server {
    let name = &config.credentials.own().name;
    assert!(config.topology.process(name).is_some(), "{name} is not in the topology");
    let task = tokio::spawn(accept(endpoint, Arc::new(config))).abort_handle();
    Server { task }
}

async fn accept(endpoint: Endpoint, config: Arc<ServeConfig>) {
    static CONNECTIONS: AtomicU64 = AtomicU64::new(1);
    let children = Arc::new(Semaphore::new(CHILDREN_MAX));
    let mut tasks = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        while tasks.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&children).try_acquire_owned() else {
            tracing::warn!(limit = CHILDREN_MAX, "too many children: one more is refused");
            incoming.refuse();
            continue;
        };
        let config = Arc::clone(&config);
        let via = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        tasks.spawn(async move {
            child(incoming, &config, via).await;
            drop(permit);
        });
    }
}

async fn child(incoming: Incoming, config: &ServeConfig, via: u64) {
    let address = incoming.remote_address();
    let connection = match tokio::time::timeout(config.timing.connect, incoming).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::info!(%address, %error, "a child could not connect"),
        Err(_) => return tracing::info!(%address, "a child was too slow to connect"),
    };
    let peer = match quic::peer(&connection, &config.credentials, Protocol::Wan) {
        Ok(peer) => peer,
        Err(error) => {
            tracing::warn!(%address, %error, "refused a connection");
            return connection.close(VarInt::from_u32(1), b"who are you?");
        }
    };
    let sources = match allowed(config, &peer.name) {
        Ok(sources) => sources,
        Err(reason) => {
            tracing::warn!(%address, child = peer.name, reason, "refused a child");
            return connection.close(VarInt::from_u32(1), reason.as_bytes());
        }
    };
    let feeder = FeederConfig {
        name: config.credentials.own().name.clone(),
        deployment: config.topology.name.to_string(),
        child: peer.name.clone(),
        ledgers: sources.iter().map(|(id, source)| (id.clone(), source.lineage)).collect(),
        timing: config.timing,
    };
    tracing::info!(child = peer.name, %address, "a child connected");
    let end = feed::run(&connection, feeder, sources, config, via).await;
    tracing::info!(child = peer.name, reason = end, "a child is gone");
    connection.close(VarInt::from_u32(0), end.as_bytes());
    config.mirrors.lost(via);
}

/// The sources that a child may have.
fn allowed(
    config: &ServeConfig,
    child: &str,
) -> Result<BTreeMap<tradewind_ledger::ids::LedgerId, Source>, &'static str> {
    let topology = &config.topology;
    let own = match topology.process(&config.credentials.own().name) {
        Some(Process::Node { site, .. }) => Parent::Site(site.name.clone()),
        Some(Process::Mirror(mirror)) => Parent::Mirror(mirror.name.clone()),
        None => return Err("this process is not in the topology"),
    };
    let mirror = topology.mirror(child).ok_or("the topology has no such mirror")?;
    if !mirror.parents.contains(&own) {
        return Err("the topology does not name this process among the child's parents");
    }
    let wanted = |source: &&Source| {
        let pool = source.ledger.pool();
        mirror.pools.iter().any(|own| own.as_str() == pool) && topology.offers(&own, pool)
    };
    let sources = config.sources.iter().filter(wanted);
    Ok(sources.map(|source| (source.ledger.clone(), source.clone())).collect())
}
