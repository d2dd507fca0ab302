//! A read-only replica: admit, verify, append, apply, serve, relay.
//!
//! A mirror follows the ledgers of the pools it subscribes to, keeps them on its own disk byte for
//! byte as they are at their home site, shows readers what is verified and durable, and feeds
//! mirrors below it by the very code that a site feeds it with. It never takes a write.
//!
//! ```text
//! parent ──wan──► follower thread: verify ──► log thread: append, sync, apply ──► readers, children
//!                                                                  └──► publisher thread: tiles, checkpoint
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `mirror` | [`Mirror`]: start, stop, status |
//! | `replica` | one ledger with its store, and what is shown of it |
//! | `open` | opens a replica from disk |
//! | `log` | the log thread: group commit for all ledgers |
//! | `publish` | the publisher thread |
//! | `failing` | the end of a mirror that can do its work no more |
//! | `taking` | taking a snapshot of a parent |
//! | `sink` | what the follower hands over |
//! | `backend` | what the gateway serves |
//! | `evidence` | evidence of forks, kept for people |
//!
//! Crash at any point: the ledgers' own recovery tells how far each one is, and the follower goes on
//! from there. What lies beyond the published checkpoint is shown again only when a parent has
//! proven anew that it is signed for.

mod backend;
mod evidence;
mod failing;
mod log;
mod mirror;
mod open;
mod publish;
mod replica;
mod sink;
mod snapshots;
mod taking;

pub use backend::mirror_json;
pub use failing::Ended;
pub use mirror::{Config, Mirror, MoreStatus, RouteStatus, StartError};
pub use open::ReplicaError;
