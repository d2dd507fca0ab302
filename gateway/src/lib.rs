//! What every process serves: client protocol, HTTP, the ledger's public face.
//!
//! | module | holds |
//! |---|---|
//! | `backend` | [`Backend`], [`Shard`]: what a node or a mirror offers |
//! | `completion` | [`ReplyTo`], [`Completions`]: the way back of a write's answer |

mod backend;
mod caller;
mod completion;
mod connection;
mod outbox;
mod reading;
mod server;
mod service;

pub use backend::{Backend, Horizon, Readiness, Shard, Submission};
pub use completion::{Completions, ReplySink, ReplyTo};
