//! How clients reach the node: [`Backend`] over the group thread's letter box and the shared stores.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tradewind_client::wire::{
    Fault, Incarnation, NodeInfo, PROTOCOL, PoolIndex, PoolInfo, Role, ShardInfo, Welcome,
};
use tradewind_gateway::{Backend, Horizon, Readiness, Shard, Submission};
use tradewind_ledger::{Digest, Hlc, LedgerId, Version};
use tradewind_site_protocol::{
    self as protocol, BULK_ABOVE, NodeId, Refused, ShardIndex, State, Ticket,
};
use tradewind_store::{Durability, Store};
use tradewind_topology::Topology;
use tradewind_transport::fabric::{self, Paths};

use crate::group;
use crate::inbox::{Inbox, Read, Submitted};
use crate::shared::{Replica, Shared, Snapshot};

/// Adds to the status what this crate does not know of (the mirrors below this node).
pub type MoreStatus = Box<dyn Fn() -> Value + Send + Sync>;

/// How long a read waits for the own disk to have what a majority's disks have.
const OWN_DISK_WAIT: Duration = Duration::from_secs(10);

/// What the node offers.
pub(crate) struct NodeBackend {
    pub(crate) topology: Arc<Topology>,
    pub(crate) site: usize,
    pub(crate) own: usize,
    pub(crate) incarnation: u64,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) shards: Vec<Option<Arc<dyn Shard>>>,
    /// By pool of the topology: the place of its first shard among the site's, if it is at home here.
    pub(crate) first_shard: Vec<Option<usize>>,
    pub(crate) more_status: OnceLock<MoreStatus>,
    pub(crate) paths: Arc<Paths>,
}

impl NodeBackend {
    fn name(&self) -> &str {
        self.topology.sites[self.site].nodes[self.own].name.as_str()
    }

    fn place(&self, pool: PoolIndex, shard: u32) -> Option<ShardIndex> {
        let first = (*self.first_shard.get(pool.0 as usize)?)?;
        let shards = self.topology.pools[pool.0 as usize].shards;
        (shard < shards).then(|| group::index(first + shard as usize))
    }

    fn replica(&self, pool: PoolIndex, shard: u32) -> Option<&Arc<Replica>> {
        self.shared.replicas[self.place(pool, shard)?.index()].as_ref()
    }

    fn durability(&self, pool: PoolIndex) -> Durability {
        match self.topology.pools[pool.0 as usize].durability {
            tradewind_topology::Durability::Memory => Durability::Memory,
            tradewind_topology::Durability::Disk => Durability::Disk,
        }
    }

    /// Why a write of this shard cannot be taken here.
    fn not_here(&self, pool: PoolIndex, shard: u32) -> Fault {
        let server = self.name().to_owned();
        let Some(found) = self.topology.pools.get(pool.0 as usize) else {
            let pools = self.topology.pools.iter().map(|pool| pool.name.to_string()).collect();
            return Fault::NoSuchPool { pool: format!("#{}", pool.0), pools };
        };
        let name = found.name.to_string();
        if shard >= found.shards {
            return Fault::NoSuchShard { pool: name, shard, shards: found.shards };
        }
        if self.first_shard[pool.0 as usize].is_none() {
            return Fault::ReadOnly { server, pool: name, home: found.home.to_string() };
        }
        let nodes = &self.topology.sites[self.site].nodes;
        let members = self.topology.shard_members(found, shard);
        let members = members.into_iter().map(|node| nodes[node].name.to_string()).collect();
        Fault::NotMember { server, pool: name, shard, members }
    }
}

impl Backend for NodeBackend {
    fn welcome(&self) -> Welcome {
        let site = &self.topology.sites[self.site];
        Welcome {
            protocol: PROTOCOL,
            deployment: self.topology.name.to_string(),
            server: self.name().to_owned(),
            role: Role::Node { site: site.name.to_string() },
            now: wall_clock(),
            in_flight_max: 0,
            nodes: nodes(&self.topology),
            pools: pools(&self.topology, |pool, shard| self.replica(pool, shard).is_some()),
        }
    }

    fn submit(&self, batch: Vec<Submission>) {
        let submitted = batch.into_iter().filter_map(|submission| {
            let Submission { pool, shard, request, durability, command, reply } = submission;
            if self.replica(pool, shard).is_none() {
                reply.send(Err(self.not_here(pool, shard)));
                return None;
            }
            let shard = self.place(pool, shard)?;
            let durability = durability.unwrap_or_else(|| self.durability(pool));
            let ticket = Ticket(0);
            let submission =
                protocol::Submission { ticket, request, durability, command, bodies: Vec::new() };
            let submitted = Submitted { shard, submission, reply };
            if submitted.submission.command.len() > BULK_ABOVE {
                self.submit_large(submitted);
                return None;
            }
            Some(submitted)
        });
        // All of it before the group thread's box is open: a large one may be handed in on the way.
        let submitted: Vec<_> = submitted.collect();
        hand_in(&self.inbox, submitted.into_iter());
    }

    fn shard(&self, pool: PoolIndex, shard: u32) -> Option<Arc<dyn Shard>> {
        self.shards[self.place(pool, shard)?.index()].clone()
    }

    fn ledgers(&self) -> Vec<LedgerId> {
        self.shared.replicas.iter().flatten().map(|replica| replica.ledger.clone()).collect()
    }

    fn ledger(&self, id: &LedgerId) -> Option<Arc<dyn Shard>> {
        self.shards.iter().flatten().find(|shard| shard.id() == id).cloned()
    }

    fn status(&self) -> Value {
        let snapshot = self.shared.snapshot();
        let site = &self.topology.sites[self.site];
        let mut status = json!({
            "deployment": self.topology.name.as_str(),
            "name": self.name(),
            "role": "node",
            "site": site.name.as_str(),
            "region": site.region.as_str(),
            "fabric": self.fabric_status(),
        });
        let more = self.more_status.get().map_or_else(|| json!({}), |more| more());
        for part in [self.group_status(&snapshot), more] {
            let (Value::Object(status), Value::Object(part)) = (&mut status, part) else {
                continue;
            };
            status.extend(part);
        }
        status
    }

    fn metrics(&self) -> String {
        let (name, slow) =
            ("tradewind_slow_members_total", self.shared.snapshot().status.counters.slow);
        let help = "Members that held a shard up in a view which ended, and could be spared.";
        let changes = self.shared.changes.metrics();
        format!("{changes}# HELP {name} {help}\n# TYPE {name} counter\n{name} {slow}\n")
    }

    fn readiness(&self) -> Readiness {
        let snapshot = self.shared.snapshot();
        let fault = match &snapshot.status.state {
            State::Active => None,
            state => Some(self.describe(state)),
        };
        Readiness { fault, lag: self.shared.age() }
    }

    fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation)
    }
}

/// Gives submissions to the group thread.
fn hand_in(inbox: &Inbox, submitted: impl Iterator<Item = Submitted>) {
    for refused in inbox.submit(submitted) {
        let reason = "the node's queue of requests is full".into();
        refused.reply.send(Err(Fault::Busy { reason }));
    }
}

impl NodeBackend {
    /// Takes the large values out of a command first. To hash them takes a while: beside the tasks that serve clients.
    fn submit_large(&self, submitted: Submitted) {
        let inbox = Arc::clone(&self.inbox);
        let work = move || {
            let Submitted { shard, submission, reply } = submitted;
            let submission = submission.lighten(BULK_ABOVE);
            hand_in(&inbox, std::iter::once(Submitted { shard, submission, reply }));
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(work)),
            Err(_) => work(),
        }
    }

    /// What a state means, for people.
    fn describe(&self, state: &State) -> String {
        match state {
            State::Active => "active".into(),
            State::Forming { .. } => "forming a view".into(),
            State::Minority { missing, .. } => {
                format!("stalled: waiting for {}", self.names(missing).join(", "))
            }
            State::Learning { view, .. } => format!("view {view} runs without this node"),
            State::Failed(fatal) => format!("failed: {fatal}"),
        }
    }

    fn names(&self, nodes: &[NodeId]) -> Vec<String> {
        let all = &self.topology.sites[self.site].nodes;
        nodes.iter().map(|node| all[node.index()].name.to_string()).collect()
    }

    /// How rows reach each peer, and why so.
    fn fabric_status(&self) -> Value {
        let site = &self.topology.sites[self.site];
        let peers = site.nodes.iter().zip((0..).map(fabric::NodeId)).filter_map(|(node, id)| {
            let path = self.paths.to(id).filter(|_| id.index() != self.own)?;
            let (name, kind) = (node.name.as_str(), path.kind.to_string());
            Some(json!({ "name": name, "rows": kind, "why": path.why }))
        });
        let peers: Vec<Value> = peers.collect();
        json!({ "kind": site.fabric, "tls": site.fabric_tls, "peers": peers })
    }

    /// What the group thread says about itself.
    fn group_status(&self, snapshot: &Snapshot) -> Value {
        let status = &snapshot.status;
        let inactive = snapshot.inactive_since.map(|since| since.elapsed());
        let missing = match &status.state {
            State::Minority { missing, .. } => self.names(missing),
            _ => Vec::new(),
        };
        let peers = status.peers.iter().map(|peer| {
            json!({
                "name": peer.name,
                "connected": peer.connected,
                "refused": peer.refusal.as_ref().map(ToString::to_string),
                "clock_ahead_ms": peer.clock_ahead_us / 1_000,
            })
        });
        let shards = status.shards.iter().filter_map(|shard| {
            let replica = shard.replica.as_ref()?;
            Some(json!({
                "ledger": shard.ledger.to_string(),
                "members": self.names(&shard.members),
                "waiting_for": self.names(&shard.waiting_for),
                "delivered": replica.delivered.0,
                "durable": replica.durable.0,
                "committed": replica.committed.0,
                "checkpoint": replica.checkpoint.0,
                "time_us": replica.hlc.micros(),
                "pending": replica.pending,
                "kept": self.kept(&shard.ledger),
            }))
        });
        let state = match &status.state {
            State::Active => "active",
            State::Forming { .. } => "forming",
            State::Minority { .. } => "stalled",
            State::Learning { .. } => "learning",
            State::Failed(_) => "failed",
        };
        let counters = &status.counters;
        json!({
            "state": state,
            "explanation": self.describe(&status.state),
            "waiting_for": missing,
            "inactive_ms": inactive.map(|inactive| inactive.as_millis() as u64),
            "view": status.view.0,
            "view_members": self.names(&status.members),
            "view_changes": self.shared.changes.status(),
            "roster": status.roster.0,
            "file_roster": status.last_roster.0,
            "peers": peers.collect::<Vec<_>>(),
            "shards": shards.collect::<Vec<_>>(),
            "counters": {
                "views": counters.views,
                "stalls": counters.stalls,
                "slow": counters.slow,
                "messages": counters.messages,
                "commands": counters.commands,
                "resent": counters.resent,
                "nulls": counters.nulls,
                "caught_up": counters.caught_up,
                "seals": counters.seals,
                "checkpoints": counters.checkpoints,
                "bad_signatures": counters.bad_signatures,
            },
        })
    }

    /// From which version on entries are kept, and how this start began.
    fn kept(&self, ledger: &LedgerId) -> Value {
        let replica = self.shared.replicas.iter().flatten().find(|it| it.ledger == *ledger);
        replica.map_or(Value::Null, |replica| {
            let bytes = tradewind_store_disk::kept_bytes(&replica.directory, &replica.reader);
            json!({
                "first": replica.reader.first().0,
                "bytes": bytes,
                "snapshot_at_start": replica.started.size().0,
                "replayed_at_start": replica.started.replayed,
            })
        })
    }
}

/// The shards of a node, for readers: by shard of the site, `None` where the node is no member.
pub(crate) fn shards(shared: &Arc<Shared>, inbox: &Arc<Inbox>) -> Vec<Option<Arc<dyn Shard>>> {
    let shard = |replica: &Arc<Replica>| {
        let (shared, inbox) = (Arc::clone(shared), Arc::clone(inbox));
        Arc::new(Reading { replica: Arc::clone(replica), shared, inbox }) as Arc<dyn Shard>
    };
    shared.replicas.iter().map(|replica| replica.as_ref().map(shard)).collect()
}

/// A shard of this node, for readers.
struct Reading {
    replica: Arc<Replica>,
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
}

impl Shard for Reading {
    fn id(&self) -> &LedgerId {
        &self.replica.ledger
    }

    fn directory(&self) -> &Path {
        &self.replica.directory
    }

    fn horizon(&self) -> watch::Receiver<Horizon> {
        self.replica.horizon.subscribe()
    }

    fn age(&self) -> Duration {
        self.shared.age()
    }

    fn barrier(&self) -> Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>> {
        let (passed, told) = oneshot::channel();
        let refused = self.inbox.read(Read { shard: self.replica.index, passed });
        Box::pin(async move {
            if refused.is_some() {
                return Err(Fault::Busy { reason: "the node's queue of reads is full".into() });
            }
            told.await.unwrap_or_else(|_| Err(group::ending()))
        })
    }

    fn with_store(&self, read: &mut dyn FnMut(&Store)) {
        read(&self.replica.store.0.read());
    }

    fn await_own_disk(&self, version: Version) -> io::Result<()> {
        let wanted = version.next();
        if self.replica.reader.durable_size() >= wanted {
            return Ok(());
        }
        let have = self.replica.own_disk.wait_for(wanted, OWN_DISK_WAIT);
        if have >= wanted {
            return Ok(());
        }
        let text = format!("entry {version} is committed, but this node's disk has only {have}");
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    }

    fn first(&self) -> Version {
        self.replica.reader.first()
    }

    fn entry(&self, version: Version) -> io::Result<Vec<u8>> {
        Ok(self.replica.reader.entry(version)?)
    }

    fn value(&self, digest: &Digest) -> io::Result<Vec<u8>> {
        let missing =
            || io::Error::new(io::ErrorKind::InvalidData, format!("value {digest} is missing"));
        self.replica.reader.value(digest).map_err(io::Error::other)?.ok_or_else(missing)
    }
}

/// The fault that a client is told for a refused submission.
pub(crate) fn fault_of(refused: Refused, ledger: &LedgerId) -> Fault {
    match refused {
        Refused::Unavailable { .. } => {
            Fault::Unavailable { reason: format!("{ledger}: {refused}") }
        }
        Refused::Busy { .. } => Fault::Busy { reason: refused.to_string() },
        Refused::TooLarge { .. } => Fault::BadRequest { reason: refused.to_string() },
        Refused::Failed(_) => Fault::Unavailable { reason: refused.to_string() },
        // The gateway's backend looked before it submitted.
        other => Fault::Internal { reason: other.to_string() },
    }
}

/// All nodes of the deployment, site by site: positions as in [`pools`].
fn nodes(topology: &Topology) -> Vec<NodeInfo> {
    let nodes = topology.sites.iter().flat_map(|site| &site.nodes);
    nodes
        .map(|node| NodeInfo {
            name: node.name.to_string(),
            address: node.ports.client().to_string(),
        })
        .collect()
}

fn pools(topology: &Topology, here: impl Fn(PoolIndex, u32) -> bool) -> Vec<PoolInfo> {
    let pools = (0..).map(PoolIndex).zip(&topology.pools);
    pools
        .map(|(index, pool)| {
            let before = topology.sites.iter().take_while(|site| site.name != pool.home);
            let first: usize = before.map(|site| site.nodes.len()).sum();
            let shard = |shard| ShardInfo {
                members: topology
                    .shard_members(pool, shard)
                    .into_iter()
                    .map(|node| u32::try_from(first + node).expect("far fewer nodes"))
                    .collect(),
                here: here(index, shard),
            };
            PoolInfo {
                name: pool.name.to_string(),
                home: pool.home.to_string(),
                shards: (0..pool.shards).map(shard).collect(),
            }
        })
        .collect()
}

fn wall_clock() -> Hlc {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Hlc::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
