//! The beginning of a connection.

use serde::{Deserialize, Serialize};
use std::fmt;
use tradewind_ledger::Hlc;

/// The first bytes a client's hello holds.
pub const MAGIC: [u8; 8] = *b"tradewnd";
/// The protocol version that this code speaks.
pub const PROTOCOL: u16 = 1;

/// Client to server: which protocol versions it speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// The lowest protocol version the client speaks.
    pub protocol_min: u16,
    /// The highest.
    pub protocol_max: u16,
    /// Name and version of the client's software, for the server's log.
    pub agent: String,
}

impl Hello {
    /// The hello of this library.
    pub fn new(agent: impl Into<String>) -> Self {
        Self { magic: MAGIC, protocol_min: PROTOCOL, protocol_max: PROTOCOL, agent: agent.into() }
    }
}

/// Server to client: who it is and what there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The protocol version of this connection.
    pub protocol: u16,
    /// The deployment's name.
    pub deployment: String,
    /// The server's name in the topology.
    pub server: String,
    /// What the server is.
    pub role: Role,
    /// The server's time, at which a session may be opened.
    pub now: Hlc,
    /// Most requests that may be unanswered on this connection.
    pub in_flight_max: u32,
    /// The nodes of all sites; [`ShardInfo::members`] are positions in this list.
    pub nodes: Vec<NodeInfo>,
    /// The pools of the deployment; requests name a pool by its [`PoolIndex`] in this list.
    pub pools: Vec<PoolInfo>,
}

/// What a server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A node of a site.
    Node {
        /// The site's name.
        site: String,
    },
    /// A mirror.
    Mirror,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Node { site } => write!(f, "node of {site}"),
            Self::Mirror => f.write_str("mirror"),
        }
    }
}

/// A process that clients may dial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its name in the topology.
    pub name: String,
    /// Where it takes clients: `address:port`.
    pub address: String,
}

/// A pool's position in [`Welcome::pools`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PoolIndex(pub u32);

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolInfo {
    /// Its name.
    pub name: String,
    /// The site that takes its writes.
    pub home: String,
    /// Its shards.
    pub shards: Vec<ShardInfo>,
}

/// A shard of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardInfo {
    /// The nodes that take its writes: positions in [`Welcome::nodes`].
    pub members: Vec<u32>,
    /// Whether this server holds the shard, so that it can be read here.
    pub here: bool,
}

/// Server to client: why the connection ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Rejected {
    /// No common protocol version.
    #[error(
        "the server speaks client protocol versions {min} to {max}, this client {PROTOCOL}: use a client of the same release"
    )]
    Protocol {
        /// The lowest version the server speaks.
        min: u16,
        /// The highest.
        max: u16,
    },
    /// The server has as many connections as it takes.
    #[error("the server has {0} connections, the most it takes: try another node or later")]
    Full(u32),
    /// What the client sent is not the client protocol.
    #[error("closed by the server: {0}")]
    Malformed(String),
    /// The server is going down.
    #[error("the server is shutting down: try another node")]
    ShuttingDown,
}
