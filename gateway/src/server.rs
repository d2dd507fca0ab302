//! Takes clients: the client protocol over TCP and TLS.

use crate::{
    caller::Caller,
    connection::{self, Ended},
    service::Service,
};
use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tradewind_client::wire::Access;
use tradewind_transport::tls::{Credentials, PeerError, Protocol};

/// How long a client may take for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long to wait after the system refuses another connection, mostly for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections beyond the most that are told so, rather than just closed.
const POLITE: usize = 16;

/// How clients are known.
#[derive(Clone, Debug)]
pub enum Security {
    /// By their keys, over TLS 1.3.
    Tls(Credentials),
    /// Not at all: every client may do everything, over plain TCP. For tests on one machine.
    Plain,
}

/// Figures of the client protocol's server.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections at present.
    pub connections: AtomicU64,
    /// Connections ever welcomed.
    pub accepted: AtomicU64,
    /// Connections that ended because of what the client did or failed to do.
    pub failed: AtomicU64,
}

/// The listener and what its connections share.
pub(crate) struct Server {
    pub(crate) service: Service,
    pub(crate) security: Security,
    pub(crate) connections_max: u32,
    pub(crate) counters: Arc<Counters>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Server {
    /// Accepts connections until it is told to stop.
    pub(crate) async fn run(self, listener: TcpListener) {
        let slots = Arc::new(Semaphore::new(self.connections_max as usize));
        let polite = Arc::new(Semaphore::new(POLITE));
        let server = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = server.stop.cancelled() => return,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("accepting a client: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let full = slots.available_permits() == 0;
            let slots = if full { &polite } else { &slots };
            let Ok(slot) = Arc::clone(slots).try_acquire_owned() else {
                tracing::warn!(%address, "closed a client at once: there are {} already", server.connections_max);
                continue;
            };
            let task = Arc::clone(&server).take(stream, address, full, slot);
            server.tasks.spawn(task);
        }
    }

    async fn take(
        self: Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        full: bool,
        _slot: OwnedSemaphorePermit,
    ) {
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        let result = self.serve(stream, full).await;
        self.counters.connections.fetch_sub(1, Ordering::Relaxed);
        match result {
            Ok(()) => {}
            // How a process ends that has what it wanted: frames tell of themselves whether they are whole, so
            // nothing depends on a farewell.
            Err(Failed { client, ended: Ended::Io(error) })
                if matches!(
                    error.kind(),
                    ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
                ) =>
            {
                tracing::debug!(%address, client, "a client is gone: {error}");
            }
            Err(Failed { client, ended }) => {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%address, client, "closed a client: {ended}");
            }
        }
    }

    async fn serve(&self, stream: TcpStream, full: bool) -> Result<(), Failed> {
        let unknown = |ended: Ended| Failed { client: "unknown".to_owned(), ended };
        stream.set_nodelay(true).map_err(|error| unknown(error.into()))?;
        let (service, stop) = (self.service.renewed(), self.stop.clone());
        let full = full.then_some(self.connections_max);
        match &self.security {
            Security::Plain => {
                self.counters.accepted.fetch_add(1, Ordering::Relaxed);
                let caller = Caller::Anyone(Access::Admin);
                connection::serve(stream, service, caller, full, stop).await.map_err(unknown)
            }
            Security::Tls(credentials) => {
                let acceptor = TlsAcceptor::from(credentials.server(Protocol::Client));
                let accepting = timeout(HANDSHAKE, acceptor.accept(stream)).await;
                let stream = accepting
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                    .map_err(|error| unknown(error.into()))?;
                let peer = credentials
                    .peer(Protocol::Client, stream.get_ref().1)
                    .map_err(|error: PeerError| unknown(io::Error::other(error).into()))?;
                self.counters.accepted.fetch_add(1, Ordering::Relaxed);
                let client = peer.name.clone();
                connection::serve(stream, service, Caller::Peer(peer), full, stop)
                    .await
                    .map_err(|ended| Failed { client, ended })
            }
        }
    }
}

/// A connection that did not end well.
struct Failed {
    client: String,
    ended: Ended,
}
