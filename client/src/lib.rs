//! The client library and the wire messages of the client protocol.
//!
//! A [`Client`] is asynchronous and pipelined: clone it, call it from as many tasks as you like. It finds the nodes of
//! a key's shard, sends each write under a number of its session until a node says what became of it (exactly once,
//! through whichever node), and fails over when a node is gone.
//!
//! | module | holds |
//! |---|---|
//! | `client` | [`Client`]: connecting, routing, failing over |
//! | `operations` | its put, get, delete, txn, list, history, status |
//! | `admin` | its restart |
//! | `lease` | its leases, and writes under their tokens |
//! | `config`, `error` | [`Config`], [`Endpoint`], [`Error`] |
//! | `connection` | one connection, many calls |
//! | `session` | request numbers within the window that a shard remembers |
//! | [`wire`] | frames and messages; the server in `tradewind-gateway` uses them too |
//!
//! ```no_run
//! use tradewind_client::{Client, Condition, Config, Endpoint, TlsFor, wire::Read};
//!
//! # async fn example(tls: TlsFor) -> Result<(), tradewind_client::Error> {
//! let endpoint = Endpoint { name: "a1".into(), address: "10.0.1.1:7000".into() };
//! let client = Client::connect(Config::new(Some(tls)), vec![endpoint]).await?;
//! let reply = client.put("flights", b"KL601", b"boarding", Condition::Absent).await?;
//! let (item, as_of) = client.get("flights", b"KL601", Read::default()).await?;
//! println!("{reply:?}: {item:?} at {as_of:?}");
//! # Ok(())
//! # }
//! ```

mod admin;
mod client;
mod config;
mod connection;
mod error;
mod lease;
mod operations;
mod session;
pub mod wire;

pub use client::Client;
pub use config::{Config, Endpoint, TlsFor};
pub use connection::ConnectionError;
pub use error::Error;
pub use lease::{Lease, LeaseFailure};
pub use operations::{Page, Range};
pub use session::{Numbered, Session};
pub use tradewind_store::{
    Command, Compare, Condition, Current, Durability, Holding, Item, ItemValue, LeaseName, Refusal,
    Reply, Revision, Test, TxnOp, TxnResult,
};
