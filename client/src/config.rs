//! How a client reaches the servers.

use rustls_pki_types::ServerName;
use std::{fmt, sync::Arc, time::Duration};

/// For the server of a given name: with what to dial it, and the host name to give. Whoever makes it decides whom to
/// trust; the key that the topology gives to that name, as a rule.
pub type TlsFor =
    Arc<dyn Fn(&str) -> (Arc<rustls::ClientConfig>, ServerName<'static>) + Send + Sync>;

/// A server to begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name in the topology.
    pub name: String,
    /// `host:port` where it takes clients.
    pub address: String,
}

/// How a [`Client`](crate::Client) behaves.
#[derive(Clone)]
pub struct Config {
    /// TLS; `None` sends everything in the clear, for tests on one machine.
    pub tls: Option<TlsFor>,
    /// How long a request may take in all, failing over included; one that carries much has a second more for each 8 MB.
    pub deadline: Duration,
    /// How long connecting to one server may take.
    pub connect_timeout: Duration,
    /// What the servers' logs call this software.
    pub agent: String,
}

impl Config {
    /// A deadline of ten seconds for a request, of two for a connection.
    pub fn new(tls: Option<TlsFor>) -> Self {
        Self {
            tls,
            deadline: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(2),
            agent: concat!("tradewind-client/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl Config {
    /// How long a request that carries so many bytes may take.
    pub(crate) fn allowed(&self, bytes: usize) -> Duration {
        self.deadline + Duration::from_millis(bytes as u64 / 8_000)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Config")
            .field("tls", &self.tls.is_some())
            .field("deadline", &self.deadline)
            .field("connect_timeout", &self.connect_timeout)
            .field("agent", &self.agent)
            .finish()
    }
}
