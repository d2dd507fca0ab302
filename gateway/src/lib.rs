//! What every process serves: client protocol, HTTP, the ledger's public face.
//!
//! A node and a mirror differ in what stands behind [`Backend`]; to those who connect they are alike.
//!
//! | module | holds |
//! |---|---|
//! | `backend` | [`Backend`], [`Shard`]: what a node or a mirror offers; [`Restart`] |
//! | `completion` | [`ReplyTo`], [`Completions`]: the way back of a write's answer |
//! | `gateway` | [`Gateway`]: starting and stopping |
//! | `server`, `connection`, `outbox` | the client protocol: listener, one connection, what it is to be sent |
//! | `large` | room for large requests, of all connections together |
//! | `service`, `reading`, `caller` | requests of any protocol: rights, checks, which state, waiting, values on disk |
//! | `http` | HTTP/JSON, `/log/...`, health, metrics, the page at `/` |

mod backend;
mod caller;
mod completion;
mod connection;
mod gateway;
mod http;
mod large;
mod outbox;
mod reading;
mod reads;
mod server;
mod service;

pub use backend::{Backend, Horizon, Readiness, Restart, Shard, Submission};
pub use completion::{Completions, ReplySink, ReplyTo};
pub use gateway::{Gateway, Options};
pub use http::parse_time;
pub use server::{Counters, Security};
