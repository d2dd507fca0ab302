//! Starting and stopping all that a process serves.

use crate::{
    Backend, Counters, Restart, Security,
    http::{self, Http},
    server::Server,
    service::Service,
};
use std::{io, sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long connections may take to end when the gateway stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// What to serve on.
#[derive(Debug)]
pub struct Options {
    /// Takes the client protocol.
    pub client: TcpListener,
    /// How its clients are known.
    pub security: Security,
    /// Takes HTTP, if wanted. Writes are taken only if it is bound to a loopback address.
    pub http: Option<TcpListener>,
    /// Most connections on each.
    pub connections_max: u32,
    /// Bytes of large requests that all connections together may have on their way or without an answer. One that is
    /// longer than that has to be alone.
    pub large_bytes: usize,
    /// Begins the process anew when an administrator asks; without it such requests are refused.
    pub restart: Option<Arc<dyn Restart>>,
}

impl Options {
    /// Most connections on each listener, unless said otherwise.
    pub const CONNECTIONS_MAX: u32 = 1024;
    /// Room for large requests, unless said otherwise: some of the longest.
    pub const LARGE_BYTES: usize = 1 << 30;
}

/// What a process serves, while this is kept.
#[derive(Debug)]
pub struct Gateway {
    stop: CancellationToken,
    tasks: TaskTracker,
    counters: Arc<Counters>,
}

impl Gateway {
    /// Serves `backend` from now on, on tasks of the runtime that this is called on.
    ///
    /// # Errors
    /// If a listener does not know its own address.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(backend: Arc<dyn Backend>, options: Options) -> io::Result<Self> {
        let Options { client, security, http, connections_max, large_bytes, restart } = options;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let counters = Arc::new(Counters::default());
        let service = Service::new(backend, Arc::clone(&counters), large_bytes, restart);
        if let Some(listener) = http {
            let local = listener.local_addr()?.ip().is_loopback();
            let http = Http::new(service.clone(), Arc::clone(&counters), local);
            tasks.spawn(http::run(listener, connections_max, http, stop.clone()));
        }
        let server = Server {
            service,
            security,
            connections_max,
            counters: Arc::clone(&counters),
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        tasks.spawn(server.run(client));
        Ok(Self { stop, tasks, counters })
    }

    /// Figures of the client protocol's server.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Takes no more, tells the clients, and waits a little for connections to end.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(FAREWELL, self.tasks.wait()).await.is_err() {
            tracing::warn!("{} tasks of the gateway did not end in time", self.tasks.len());
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.close();
    }
}
