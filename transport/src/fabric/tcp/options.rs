//! What a [`TcpFabric`](super::TcpFabric) is made from.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tradewind_topology::{Site, Timeouts, Topology};

use crate::{
    Directory, Identity,
    fabric::NodeId,
    tls::{Credentials, CredentialsError},
};

/// Who takes part, who we are, and how links are kept.
#[derive(Clone, Debug)]
pub struct TcpOptions {
    /// The own node.
    pub own: NodeId,
    /// All nodes of the site, in the order of the topology, the own one included.
    pub nodes: Vec<TcpNode>,
    /// The deployment's name.
    pub deployment: String,
    /// The site's name.
    pub site: String,
    /// Digest of what the nodes of a site must agree on.
    pub digest: [u8; 32],
    /// Grows with each start of this process, for ever.
    pub incarnation: u64,
    /// Whether links are encrypted.
    pub security: Security,
    /// Deadlines.
    pub timing: Timing,
}

/// A node as its peers reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpNode {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it was removed from the site: it is dialled seldom, only to be told so.
    pub is_former: bool,
}

/// Whether links are encrypted.
#[derive(Clone, Debug)]
pub enum Security {
    /// TLS 1.3 with the keys of the topology.
    Tls(Credentials),
    /// Nothing: whoever reaches the port can claim to be any node. For a network that is trusted.
    Plain,
}

/// Deadlines of links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A link without traffic carries a sign of life this often.
    pub keep_alive: Duration,
    /// A link that brings nothing for this long is lost; several times `keep_alive`.
    pub silence: Duration,
    /// A link that is not up after this long is given up.
    pub connect: Duration,
    /// The pause before the first new attempt; it doubles with each.
    pub backoff_min: Duration,
    /// The longest pause between attempts.
    pub backoff_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self::from_topology(&Timeouts::default())
    }
}

impl Timing {
    /// The deadlines of a topology.
    #[must_use]
    pub fn from_topology(timeouts: &Timeouts) -> Self {
        Self {
            keep_alive: timeouts.heartbeat,
            silence: timeouts.suspect,
            connect: timeouts.connect,
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
        }
    }
}

/// Why there is no fabric.
#[derive(Debug, thiserror::Error)]
pub enum TcpError {
    /// The port could not be had.
    #[error("cannot listen at {address} for the other nodes of the site: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The kernel gives no event queue.
    #[error("cannot make an event queue: {0}")]
    Queue(io::Error),
    /// The own key is not the one that the topology names.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

impl TcpOptions {
    /// The options of the node with index `own` in `site`.
    ///
    /// # Errors
    /// [`TcpError::Credentials`] if the site's links are encrypted and `identity` does not fit.
    ///
    /// # Panics
    /// If the site has no node of that index.
    pub fn from_topology(
        topology: &Topology,
        site: &Site,
        own: NodeId,
        identity: &Identity,
        directory: Arc<Directory>,
        incarnation: u64,
    ) -> Result<Self, TcpError> {
        assert!(own.index() < site.nodes.len(), "{own} of {} in {}", site.nodes.len(), site.name);
        let security = match site.fabric_tls {
            true => Security::Tls(Credentials::new(identity, directory)?),
            false => Security::Plain,
        };
        let node = |(index, node): (usize, &tradewind_topology::Node)| TcpNode {
            name: node.name.to_string(),
            address: node.ports.group(),
            is_former: site.is_removed(index),
        };
        Ok(Self {
            own,
            nodes: site.nodes.iter().enumerate().map(node).collect(),
            deployment: topology.name.to_string(),
            site: site.name.to_string(),
            digest: topology.site_digest(site),
            incarnation,
            security,
            timing: Timing::from_topology(&topology.timeouts),
        })
    }
}
