//! What the gateway serves: reads of what is verified, and no writes.

use std::{
    future::Future,
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value as Json, json};
use tokio::sync::watch;
use tradewind_client::wire::{
    Fault, Incarnation, NodeInfo, PROTOCOL, PoolIndex, PoolInfo, Role, ShardInfo, Welcome,
};
use tradewind_gateway::{Backend, Completions, Horizon, Readiness, Shard, Submission};
use tradewind_ledger::{Digest, Hlc, LedgerId, Version};
use tradewind_store::Store;
use tradewind_topology::{Pool, Topology};
use tradewind_wan::{LedgerLag, MirrorStatus};

use crate::{
    mirror::{Mirror, RouteStatus},
    replica::Replica,
};

impl Backend for Mirror {
    fn welcome(&self) -> Welcome {
        let nodes = self.topology.sites.iter().flat_map(|site| &site.nodes);
        let node = |node: &tradewind_topology::Node| NodeInfo {
            name: node.name.to_string(),
            address: node.ports.client().to_string(),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Welcome {
            protocol: PROTOCOL,
            deployment: self.topology.name.to_string(),
            server: self.name.clone(),
            role: Role::Mirror,
            now: Hlc::from_micros(u64::try_from(now.as_micros()).unwrap_or(u64::MAX)),
            in_flight_max: 0,
            nodes: nodes.map(node).collect(),
            pools: self.topology.pools.iter().map(|pool| self.pool_info(pool)).collect(),
        }
    }

    fn submit(&self, batch: Vec<Submission>) {
        let mut completions = Completions::default();
        for submission in batch {
            let pool = usize::try_from(submission.pool.0).ok();
            let fault = match pool.and_then(|index| self.topology.pools.get(index)) {
                Some(pool) => Fault::ReadOnly {
                    server: self.name.clone(),
                    pool: pool.name.to_string(),
                    home: pool.home.to_string(),
                },
                None => Fault::BadRequest { reason: "there is no such pool".to_owned() },
            };
            completions.push(submission.reply, Err(fault));
        }
    }

    fn shard(&self, pool: PoolIndex, shard: u32) -> Option<Arc<dyn Shard>> {
        let pool = self.topology.pools.get(usize::try_from(pool.0).ok()?)?;
        self.ledger(&LedgerId::new(pool.name.as_str(), shard).ok()?)
    }

    fn ledgers(&self) -> Vec<LedgerId> {
        self.replicas.keys().cloned().collect()
    }

    fn ledger(&self, id: &LedgerId) -> Option<Arc<dyn Shard>> {
        let replica = Arc::clone(self.replicas.get(id)?);
        let (server, home) = (self.name.clone(), replica.genesis.site.clone());
        Some(Arc::new(MirrorShard { server, home, replica }))
    }

    fn status(&self) -> Json {
        let shard = |replica: &Arc<Replica>| {
            let head = replica.heads.borrow().clone();
            json!({
                "ledger": replica.id().to_string(),
                "size": head.as_ref().map_or(0, |head| head.size.0),
                "root": head.as_ref().map(|head| head.root.to_string()),
                "durable": replica.reader.0.durable_size().0,
                "age_ms": millis(replica.age()),
                "halted": replica.is_halted(),
                "kept": {
                    "first": replica.reader.0.first().0,
                    "bytes": tradewind_store_disk::kept_bytes(&replica.directory, &replica.reader.0),
                    "snapshot_at_start": replica.started.size().0,
                    "replayed_at_start": replica.started.replayed,
                },
            })
        };
        let mut status = json!({
            "name": self.name,
            "role": "mirror",
            "deployment": self.topology.name.as_str(),
            "path": *self.path().borrow(),
            "shards": self.replicas.values().map(shard).collect::<Vec<_>>(),
            "routes": self.routes().iter().map(route_json).collect::<Vec<_>>(),
            "mirrors": self.mirrors().iter().map(mirror_json).collect::<Vec<_>>(),
        });
        let more = self.more_status.get().map(|more| more());
        if let (Some(Json::Object(more)), Json::Object(status)) = (more, &mut status) {
            status.extend(more);
        }
        status
    }

    fn readiness(&self) -> Readiness {
        let halted = || {
            let halted = self.replicas.values().find(|replica| replica.is_halted())?;
            let id = halted.id();
            Some(format!(
                "ledger {id} is halted: there is evidence of a fork, kept in evidence/{id}-*.txt of the data directory"
            ))
        };
        let failure = self.failure().borrow().as_ref().map(ToString::to_string);
        let lag = self.replicas.values().map(|replica| replica.age()).max();
        Readiness { fault: failure.or_else(halted), lag: lag.unwrap_or_default() }
    }

    fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation)
    }
}

impl Mirror {
    fn pool_info(&self, pool: &Pool) -> PoolInfo {
        let shard = |shard| {
            let members = members(&self.topology, pool, shard);
            let id = LedgerId::new(pool.name.as_str(), shard).expect("both have the same grammar");
            ShardInfo { members, here: self.replicas.contains_key(&id) }
        };
        PoolInfo {
            name: pool.name.to_string(),
            home: pool.home.to_string(),
            shards: (0..pool.shards).map(shard).collect(),
        }
    }
}

/// A shard's members as positions in the list of all sites' nodes.
fn members(topology: &Topology, pool: &Pool, shard: u32) -> Vec<u32> {
    let before = topology.sites.iter().take_while(|site| site.name != pool.home);
    let offset: usize = before.map(|site| site.nodes.len()).sum();
    let position = |index| u32::try_from(offset + index).expect("a topology has far fewer nodes");
    topology.shard_members(pool, shard).into_iter().map(position).collect()
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn route_json(route: &RouteStatus) -> Json {
    let ledger = |ledger: &tradewind_wan::protocol::LedgerStatus| {
        json!({
            "ledger": ledger.frontier.ledger.to_string(),
            "received": ledger.frontier.received.0,
            "verified": ledger.frontier.verified.0,
            "durable": ledger.frontier.durable.0,
            "refusals": ledger.refusals,
            "values_missing": ledger.values_missing,
            "halted": ledger.is_halted,
        })
    };
    json!({
        "candidates": route.candidates,
        "parent": route.status.parent,
        "path": route.status.path,
        "ledgers": route.status.ledgers.iter().map(ledger).collect::<Vec<_>>(),
    })
}

/// A mirror below this process, for `status`.
#[must_use]
pub fn mirror_json(mirror: &MirrorStatus) -> Json {
    let ledger = |lag: &LedgerLag| {
        json!({
            "ledger": lag.frontier.ledger.to_string(),
            "received": lag.frontier.received.0,
            "verified": lag.frontier.verified.0,
            "durable": lag.frontier.durable.0,
            "behind": lag.behind,
            "lag_ms": millis(lag.lag),
        })
    };
    json!({
        "name": mirror.mirror,
        "parent": mirror.parent,
        "connected": mirror.is_connected,
        "reported_ms_ago": millis(mirror.reported),
        "ledgers": mirror.ledgers.iter().map(ledger).collect::<Vec<_>>(),
    })
}

/// A shard as readers see it here.
struct MirrorShard {
    server: String,
    home: String,
    replica: Arc<Replica>,
}

impl Shard for MirrorShard {
    fn id(&self) -> &LedgerId {
        self.replica.id()
    }

    fn directory(&self) -> &Path {
        &self.replica.directory
    }

    fn horizon(&self) -> watch::Receiver<Horizon> {
        self.replica.horizon.subscribe()
    }

    fn age(&self) -> Duration {
        self.replica.age()
    }

    fn barrier(&self) -> Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>> {
        let fault = Fault::NotLinearizable {
            server: self.server.clone(),
            pool: self.replica.id().pool().to_owned(),
            home: self.home.clone(),
        };
        Box::pin(std::future::ready(Err(fault)))
    }

    fn with_store(&self, read: &mut dyn FnMut(&Store)) {
        read(&self.replica.store.read());
    }

    fn first(&self) -> Version {
        self.replica.reader.0.first()
    }

    fn entry(&self, version: Version) -> io::Result<Vec<u8>> {
        Ok(self.replica.reader.0.entry(version)?)
    }

    fn value(&self, digest: &Digest) -> io::Result<Vec<u8>> {
        let missing = || {
            let reason = format!("the detached value {digest} is missing");
            io::Error::new(io::ErrorKind::InvalidData, reason)
        };
        match self.replica.reader.0.value(digest) {
            Ok(value) => value.ok_or_else(missing),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}
