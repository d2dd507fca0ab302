//! What can become of a request.

use crate::{connection::ConnectionError, wire::Fault};
use tradewind_store::{CommandError, Refusal};

/// Why a request has no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No server could be reached.
    #[error("no server can be reached: {0}")]
    Connection(#[from] ConnectionError),
    /// No server to begin with.
    #[error("no server is given: name at least one, as name and address")]
    NoEndpoints,
    /// Certainly not executed within the deadline.
    #[error("not executed, given up after {after_ms} ms: {last}")]
    NotExecuted {
        /// How long it was tried, in milliseconds.
        after_ms: u64,
        /// What the last attempt met.
        last: Box<Self>,
    },
    /// Not known to be executed within the deadline. Reading the key tells.
    #[error(
        "whether the request was executed is not known after {after_ms} ms: {last}; read the key to find out"
    )]
    OutcomeUnknown {
        /// How long it was tried, in milliseconds.
        after_ms: u64,
        /// What the last attempt met.
        last: Box<Self>,
    },
    /// A server gives a reason, and trying again would not help.
    #[error("{0}")]
    Fault(#[from] Fault),
    /// The shard refused the request.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The command can never be executed.
    #[error("{0}")]
    Command(#[from] CommandError),
    /// An attempt took longer than is left.
    #[error("no answer in time")]
    TimedOut,
    /// The server answered something else than was asked.
    #[error("{server} answered something else than was asked; use a client of the same release")]
    Confused {
        /// The server's name.
        server: String,
    },
}
