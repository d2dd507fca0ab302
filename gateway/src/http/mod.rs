//! HTTP: keys as JSON and bytes, the ledger's public face, health, and a page to look at. See docs/http.md.

mod answer;
mod health;
mod keys;
mod limited;
mod log;
mod params;
mod status;

use crate::{Counters, caller::Caller, service::Service};
use answer::Failure;
use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::StatusCode,
    routing::{MethodRouter, get},
};
use parking_lot::Mutex;
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use tradewind_client::wire::Access;
use tradewind_ledger::{RequestId, RequestNumber, entry::MAX_VALUE};
use tradewind_store::session_id;

pub use params::parse_time;
pub(crate) use status::status;

/// Values that may be received at a time: each may have 128 MiB.
const UPLOADS_MAX: usize = 4;

/// What all HTTP requests share.
pub(crate) struct Http {
    pub(crate) service: Service,
    pub(crate) caller: Caller,
    pub(crate) counters: Arc<Counters>,
    /// The next request of the session of all writes that come by HTTP.
    next_request: Mutex<RequestId>,
    /// Values being received, each up to the longest allowed.
    uploads: Semaphore,
}

impl Http {
    /// `local` says that nobody but this machine can connect: then writes are taken too.
    pub(crate) fn new(service: Service, counters: Arc<Counters>, local: bool) -> Self {
        let caller = Caller::Anyone(if local { Access::Write } else { Access::Read });
        let next_request = Mutex::new(first_request(&service));
        Self { service, caller, counters, next_request, uploads: Semaphore::new(UPLOADS_MAX) }
    }

    fn request(&self) -> RequestId {
        let mut next = self.next_request.lock();
        let request = *next;
        next.number = RequestNumber(request.number.0 + 1);
        request
    }

    /// Begins a new session: the shard has forgotten that of `request`.
    fn renew(&self, request: RequestId) {
        let mut next = self.next_request.lock();
        if next.session == request.session {
            *next = first_request(&self.service.renewed());
        }
    }
}

fn first_request(service: &Service) -> RequestId {
    // Unique among the sessions opened at this moment: no two processes have both pid and nanosecond in common.
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    let random = u64::from(std::process::id()) << 32 | u64::from(nanos);
    RequestId { session: session_id(service.welcome.now, random), number: RequestNumber(1) }
}

type Shared = axum::extract::State<Arc<Http>>;

/// Serves HTTP until told to stop.
pub(crate) async fn run(
    listener: TcpListener,
    connections_max: u32,
    http: Http,
    stop: CancellationToken,
) {
    let listener = limited::Limited::new(listener, connections_max);
    let serving = axum::serve(listener, router(Arc::new(http)))
        .with_graceful_shutdown(async move { stop.cancelled().await });
    if let Err(error) = serving.await {
        tracing::error!("HTTP ends: {error}");
    }
}

fn router(http: Arc<Http>) -> Router {
    let only = |methods: MethodRouter<Arc<Http>>| methods.fallback(not_allowed);
    Router::new()
        .route("/", only(get(health::page)))
        .route("/livez", only(get(health::livez)))
        .route("/readyz", only(get(health::readyz)))
        .route("/status", only(get(health::status)))
        .route("/metrics", only(get(health::metrics)))
        .route("/v1/pools", only(get(keys::pools)))
        .route("/v1/pools/{pool}/keys", only(get(keys::list)))
        .route(
            "/v1/pools/{pool}/keys/{*key}",
            only(get(keys::get).put(keys::put).delete(keys::delete)),
        )
        .route("/v1/pools/{pool}/history/{*key}", only(get(keys::history)))
        .route("/log", only(get(log::ledgers)))
        .route("/log/{ledger}/{*path}", only(get(log::file)))
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(MAX_VALUE as usize))
        .with_state(http)
}

async fn not_allowed() -> Failure {
    Failure {
        status: StatusCode::METHOD_NOT_ALLOWED,
        error: "this method is not allowed here".into(),
        allowed: "GET and HEAD; for a key also PUT and DELETE".into(),
        next_step: "see docs/http.md".into(),
    }
}

async fn not_found() -> Failure {
    Failure {
        status: StatusCode::NOT_FOUND,
        error: "there is nothing here".into(),
        allowed: "/, /status, /livez, /readyz, /metrics, /v1/pools, /log".into(),
        next_step: "see docs/http.md".into(),
    }
}
