//! Failures as JSON: what is wrong, what is allowed, what to do next.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;
use tradewind_client::wire::Fault;
use tradewind_store::{CommandError, Refusal};

/// A request without success.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) error: String,
    pub(crate) allowed: String,
    pub(crate) next_step: String,
}

impl Failure {
    /// A parameter, header or path that cannot be understood.
    pub(crate) fn bad(error: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            error: error.into(),
            allowed: allowed.into(),
            next_step: "correct the request; see docs/http.md".into(),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self { status, error, allowed, next_step } = self;
        let body = json!({ "error": error, "allowed": allowed, "next_step": next_step });
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let error = fault.to_string();
        let (status, allowed, next_step) = match fault {
            Fault::Unavailable { .. } => (
                StatusCode::SERVICE_UNAVAILABLE,
                "reads go on at level local".to_owned(),
                "look at /status for what is missing; the request had no effect and may be sent again",
            ),
            Fault::Unknown { .. } => (
                StatusCode::GATEWAY_TIMEOUT,
                "a write whose outcome is unknown may have happened".to_owned(),
                "read the key, then write on condition of its version",
            ),
            Fault::Busy { .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                "fewer requests at a time".to_owned(),
                "send the request again a little later; it had no effect",
            ),
            Fault::NotMember { members, .. } => (
                StatusCode::MISDIRECTED_REQUEST,
                format!("nodes that hold the shard: {}", members.join(", ")),
                "ask one of them",
            ),
            Fault::ReadOnly { .. } => {
                (StatusCode::METHOD_NOT_ALLOWED, "GET".to_owned(), "write at a node of that site")
            }
            // Restarts are not asked for over HTTP.
            Fault::Forbidden { .. }
            | Fault::NotAdministrator { .. }
            | Fault::RestartRefused { .. } => (
                StatusCode::FORBIDDEN,
                "over plain HTTP reads; writes too where HTTP listens on a loopback address"
                    .to_owned(),
                "use the client protocol, as a client that the topology gives the right",
            ),
            Fault::NoSuchPool { pools, .. } => {
                (StatusCode::NOT_FOUND, format!("pools: {}", pools.join(", ")), "name one of them")
            }
            Fault::NoSuchShard { shards, .. } => {
                (StatusCode::NOT_FOUND, format!("shards 0 to {}", shards - 1), "name one of them")
            }
            Fault::WrongShard { expected, .. } => {
                (StatusCode::BAD_REQUEST, format!("shard {expected}"), "ask again")
            }
            Fault::Command(error) => return error.into(),
            Fault::NotYet { readable, .. } => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("versions below {readable}"),
                "ask again with a longer ?wait=, or at a node of the pool's home site",
            ),
            Fault::TimeNotYet { covered, .. } => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("times up to {} us", covered.micros()),
                "ask again with a longer ?wait=, or for an earlier time",
            ),
            Fault::TooStale { age_ms, .. } => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("a max_staleness of at least {age_ms}ms"),
                "ask again with a longer ?wait=, or nearer to the pool's home site",
            ),
            Fault::Pruned { before, .. } => (
                StatusCode::GONE,
                format!("versions from {before} on"),
                "ask for a later state, or a process that keeps more",
            ),
            Fault::NotLinearizable { .. } => {
                (StatusCode::NOT_IMPLEMENTED, "level=local".to_owned(), "ask at that level")
            }
            Fault::BadRequest { .. } => {
                (StatusCode::BAD_REQUEST, "see docs/http.md".to_owned(), "correct the request")
            }
            Fault::AnswerTooLong { .. } => {
                (StatusCode::BAD_REQUEST, "shorter pages".to_owned(), "ask with a smaller ?limit=")
            }
            Fault::Internal { .. } => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "this should not happen".to_owned(),
                "look into the server's log; verify its ledger with tradewind audit verify",
            ),
        };
        Self { status, error, allowed, next_step: next_step.to_owned() }
    }
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        let status = match error {
            CommandError::ValueLength(_) | CommandError::TooLarge(_) => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            _ => StatusCode::BAD_REQUEST,
        };
        Self {
            status,
            ..Self::bad(error.to_string(), "keys of 1 to 4096 bytes, values of up to 128 MiB")
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Command(error) => error.into(),
            other => Self {
                status: StatusCode::CONFLICT,
                ..Self::bad(other.to_string(), "each request once")
            },
        }
    }
}
