//! The validated topology: plain data, with every name in it known to lead somewhere.
//!
//! Only [`Topology::load`] and its relatives make one, so whoever holds a `Topology` may rely on:
//! names are unique, parents and homes exist, the mirrors' tree has no cycle, every pool of a
//! mirror can be had from one of its parents, and no two processes listen on one address.

use crate::retain::Retain;
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::Serialize;

use crate::{
    key::PublicKey,
    names::{ClientName, DeploymentName, PoolName, ProcessName, Region, SiteName},
    roster::Change,
};

/// A whole deployment. Lists are in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Topology {
    /// `deployment.name`.
    pub name: DeploymentName,
    /// Directory of private key files, `<name>.key`; already resolved against the file's place.
    pub keys: PathBuf,
    /// Directory that holds one data directory for each process of this machine; resolved.
    pub data: PathBuf,
    /// Deadlines of the whole deployment.
    pub timeouts: Timeouts,
    /// The datacenters.
    pub sites: Vec<Site>,
    /// The read-only replicas.
    pub mirrors: Vec<Mirror>,
    /// The pools.
    pub pools: Vec<Pool>,
    /// The client identities.
    pub clients: Vec<ClientIdentity>,
}

/// Deadlines; the file gives them in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Timeouts {
    /// A node shows that it lives at least this often.
    pub heartbeat: Duration,
    /// A node with no heartbeat progress for this long is suspected; at least 3 heartbeats.
    pub suspect: Duration,
    /// A node that the others of a shard have waited for so long, while it shows that it lives, is left out if they are
    /// enough without it; not shorter than `suspect`.
    pub slow: Duration,
    /// A connection attempt is given up after this long.
    pub connect: Duration,
    /// A client's request is given up after this long; longer than `suspect`.
    pub request: Duration,
    /// A mirror leaves a parent that has shown no progress for this long.
    pub stall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            heartbeat: ms(100),
            suspect: ms(500),
            slow: ms(5_000),
            connect: ms(2_000),
            request: ms(10_000),
            stall: ms(5_000),
        }
    }
}

/// A datacenter: the nodes of one core group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Site {
    /// Unique among sites, nodes and mirrors.
    pub name: SiteName,
    /// Label for predicates and pictures.
    pub region: Region,
    /// How the nodes reach each other's table rows.
    pub fabric: FabricKind,
    /// Whether the fabric's links are encrypted and authenticated by TLS.
    pub fabric_tls: bool,
    /// All that are, were or will be members; a node's index here is its identity inside the site, so order matters, and
    /// nodes that were removed stay: see [`Site::present`].
    pub nodes: Vec<Node>,
    /// How the members changed since the site was founded, in order; by those who were added, the founders are known.
    pub changes: Vec<Change>,
}

/// The transport between the nodes of one site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FabricKind {
    /// The best there is: RDMA with a device on the node's address, else for each pair of nodes
    /// shared memory on one host, else TCP.
    Auto,
    /// Rows through memory that processes of one host share, all else over TCP.
    Shm,
    /// TCP, with TLS unless the site says otherwise.
    Tcp,
    /// Rows by RDMA, all else over TCP; needs a device, and a program that was built for it.
    Verbs,
}

impl fmt::Display for FabricKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Shm => "shm",
            Self::Tcp => "tcp",
            Self::Verbs => "verbs",
        })
    }
}

/// One member process of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Unique among sites, nodes and mirrors.
    pub name: ProcessName,
    /// Where it listens.
    pub ports: Ports,
    /// The only key whose holder is accepted under this name.
    pub key: PublicKey,
    /// The key under which it was a founding member, if it was replaced since: ledgers begin with it. Its holder is
    /// accepted nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub founding_key: Option<PublicKey>,
    /// A certificate for that key, where the operator has a CA; otherwise one is self-signed.
    pub certificate: Option<PathBuf>,
}

impl Node {
    /// The key that the first entry of its ledgers names.
    #[must_use]
    pub fn founder(&self) -> &PublicKey {
        self.founding_key.as_ref().unwrap_or(&self.key)
    }
}

/// A read-only replica; it may relay to children.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mirror {
    /// Unique among sites, nodes and mirrors.
    pub name: ProcessName,
    /// Label for predicates and pictures.
    pub region: Region,
    /// Where it listens.
    pub ports: Ports,
    /// The only key whose holder is accepted under this name.
    pub key: PublicKey,
    /// A certificate for that key, where the operator has a CA; otherwise one is self-signed.
    pub certificate: Option<PathBuf>,
    /// Never empty, in order of preference. A pool is fetched from the first parent that is up and
    /// offers it.
    pub parents: Vec<Parent>,
    /// Never empty; each is offered by at least one parent.
    pub pools: Vec<PoolName>,
    /// The link to the parents.
    pub link: Link,
}

/// From where a mirror is fed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Parent {
    /// Any node of this site; it offers the pools that have their home there.
    Site(SiteName),
    /// Another mirror; it offers the pools that it mirrors itself.
    Mirror(ProcessName),
}

impl Parent {
    /// The name of the site or mirror.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Site(name) => name.as_str(),
            Self::Mirror(name) => name.as_str(),
        }
    }
}

/// What is known of a WAN link; flow-control windows are made from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Round trip in milliseconds, 1 to 10,000.
    pub rtt_ms: u32,
    /// Capacity in Mbit/s, 1 to 400,000.
    pub bandwidth_mbps: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self { rtt_ms: 50, bandwidth_mbps: 1_000 }
    }
}

/// The listening addresses of one process: one base port and three that follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ports {
    /// Where peers and clients dial.
    pub address: IpAddr,
    /// `port` of the file, 1 to 65,532.
    pub base: u16,
    /// Where HTTP is served: loopback, port `base + 1`, unless the file says otherwise.
    pub http: SocketAddr,
}

impl Ports {
    /// Client protocol: TCP, the base port.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        self.at(0)
    }

    /// HTTP: TCP, the base port + 1 on loopback, or what the file's `http` says.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// WAN protocol: QUIC over UDP, the base port + 2.
    #[must_use]
    pub fn wan(&self) -> SocketAddr {
        self.at(2)
    }

    /// Core group: TCP, the base port + 3. Nodes only.
    #[must_use]
    pub fn group(&self) -> SocketAddr {
        self.at(3)
    }

    fn at(&self, offset: u16) -> SocketAddr {
        SocketAddr::new(self.address, self.base + offset)
    }
}

/// A named set of keys with one home site and one policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pool {
    /// Unique among pools.
    pub name: PoolName,
    /// The site that orders and stores its writes.
    pub home: SiteName,
    /// Number of shards, at least 1; fixed for the life of the pool.
    pub shards: u32,
    /// Nodes that hold each shard when it begins, at least 1 and at most the founders of the home site; a change of the site
    /// may raise it.
    pub replicas: u32,
    /// When a write is acknowledged, unless the request asks for more.
    pub durability: Durability,
    /// How much history each process that holds the pool keeps.
    pub retain: Retain,
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// All members of the shard have it in memory.
    Memory,
    /// A majority of the shard's members has it on disk.
    Disk,
}

/// A client's identity and what it may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientIdentity {
    /// Unique among clients.
    pub name: ClientName,
    /// The only key whose holder is accepted under this name.
    pub key: PublicKey,
    /// What it may do.
    pub rights: Rights,
}

/// What a client may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Rights {
    /// One right for all pools, those still to come included.
    All(Right),
    /// Rights by pool; none for the others.
    Pools(BTreeMap<PoolName, Right>),
}

impl Rights {
    /// The right in one pool, `None` if the pool is out of bounds.
    #[must_use]
    pub fn on(&self, pool: &str) -> Option<Right> {
        match self {
            Self::All(right) => Some(*right),
            Self::Pools(pools) => pools.get(pool).copied(),
        }
    }

    /// Whether they are those of an administrator of the whole deployment.
    #[must_use]
    pub fn are_unlimited(&self) -> bool {
        *self == Self::All(Right::Admin)
    }
}

/// One right; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Reads.
    Read,
    /// Reads and writes.
    Write,
    /// Everything, operation of the processes included.
    Admin,
}

/// What a key of the topology may stand for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A node of this site.
    Node(SiteName),
    /// Once a node of this site: the nodes tell it so, and nothing else.
    Former(SiteName),
    /// A mirror.
    Mirror,
    /// A client.
    Client,
}

/// A process found by its name.
#[derive(Clone, Copy, Debug)]
pub enum Process<'a> {
    /// A node: its site, and its index among the site's nodes.
    Node {
        /// The node's site.
        site: &'a Site,
        /// Index into `site.nodes`.
        index: usize,
    },
    /// A mirror.
    Mirror(&'a Mirror),
}

impl Process<'_> {
    /// The name of the process.
    #[must_use]
    pub fn name(&self) -> &ProcessName {
        match self {
            Self::Node { site, index } => &site.nodes[*index].name,
            Self::Mirror(mirror) => &mirror.name,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn ports(&self) -> &Ports {
        match self {
            Self::Node { site, index } => &site.nodes[*index].ports,
            Self::Mirror(mirror) => &mirror.ports,
        }
    }

    /// Its public key.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        match self {
            Self::Node { site, index } => &site.nodes[*index].key,
            Self::Mirror(mirror) => &mirror.key,
        }
    }

    /// The role that its key stands for.
    #[must_use]
    pub fn role(&self) -> Role {
        match self {
            Self::Node { site, .. } => Role::Node(site.name.clone()),
            Self::Mirror(_) => Role::Mirror,
        }
    }
}

impl Topology {
    /// The site of this name.
    #[must_use]
    pub fn site(&self, name: &str) -> Option<&Site> {
        self.sites.iter().find(|site| site.name.as_str() == name)
    }

    /// The mirror of this name.
    #[must_use]
    pub fn mirror(&self, name: &str) -> Option<&Mirror> {
        self.mirrors.iter().find(|mirror| mirror.name.as_str() == name)
    }

    /// The pool of this name.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name.as_str() == name)
    }

    /// The client of this name.
    #[must_use]
    pub fn client(&self, name: &str) -> Option<&ClientIdentity> {
        self.clients.iter().find(|client| client.name.as_str() == name)
    }

    /// The node or mirror of this name.
    #[must_use]
    pub fn process(&self, name: &str) -> Option<Process<'_>> {
        self.processes().find(|process| process.name().as_str() == name)
    }

    /// All nodes that were not removed, site by site, then all mirrors.
    pub fn processes(&self) -> impl Iterator<Item = Process<'_>> {
        let nodes = self
            .sites
            .iter()
            .flat_map(|site| site.present().map(move |(index, _)| Process::Node { site, index }));
        nodes.chain(self.mirrors.iter().map(Process::Mirror))
    }

    /// Every key of the deployment with the name and role that it stands for; keys are unique.
    pub fn identities(&self) -> impl Iterator<Item = (PublicKey, &str, Role)> {
        let processes = self.sites.iter().flat_map(|site| {
            site.nodes.iter().enumerate().map(|(index, node)| {
                let role = match site.is_removed(index) {
                    true => Role::Former(site.name.clone()),
                    false => Role::Node(site.name.clone()),
                };
                (node.key, node.name.as_str(), role)
            })
        });
        let mirrors = self.mirrors.iter().map(|m| (m.key, m.name.as_str(), Role::Mirror));
        let clients = self.clients.iter().map(|c| (c.key, c.name.as_str(), Role::Client));
        processes.chain(mirrors).chain(clients)
    }

    /// The pools whose home is this site, in the order of the file.
    pub fn pools_of(&self, site: &SiteName) -> impl Iterator<Item = &Pool> {
        self.pools.iter().filter(move |pool| &pool.home == site)
    }

    /// How many bytes of log are worth a snapshot at the nodes of a site, and at all mirrors of its pools: as the pool needs that
    /// keeps least.
    #[must_use]
    pub fn snapshot_bytes(&self, site: &SiteName) -> u64 {
        let pools = self.pools_of(site).map(|pool| pool.retain.snapshot_bytes());
        pools.min().unwrap_or(Retain::All.snapshot_bytes())
    }

    /// Whether `parent` offers `pool`: a site those with their home there, a mirror its own.
    #[must_use]
    pub fn offers(&self, parent: &Parent, pool: &str) -> bool {
        match parent {
            Parent::Site(site) => self.pool(pool).is_some_and(|pool| &pool.home == site),
            Parent::Mirror(name) => self
                .mirror(name.as_str())
                .is_some_and(|mirror| mirror.pools.iter().any(|own| own.as_str() == pool)),
        }
    }

    /// The parent from which `mirror` fetches `pool` when all are up: the first that offers it.
    #[must_use]
    pub fn source<'a>(&self, mirror: &'a Mirror, pool: &str) -> Option<&'a Parent> {
        mirror.parents.iter().find(|parent| self.offers(parent, pool))
    }

    /// The mirrors that name `parent` first among those they may be fed from.
    pub fn children<'a>(&'a self, parent: &'a str) -> impl Iterator<Item = &'a Mirror> {
        self.mirrors.iter().filter(move |mirror| mirror.parents[0].name() == parent)
    }
}
