//! A node of a site: the shell around the core group's protocols.
//!
//! The protocols are pure ([`tradewind_site_protocol::NodeCore`]); this crate owns time, files, sockets and threads:
//!
//! | module | what it holds |
//! |---|---|
//! | [`node`] | [`Node`]: start, hand out, stop; the threads and what they share |
//! | `config` | what the core is told, from the topology |
//! | `group` | the group thread: a reactor that drives the core over the fabric |
//! | `log` | the log thread: group commit, and reads for peers that are behind |
//! | `bodies` | the bodies thread: writes large values while they arrive by the bulk lane |
//! | `promise` | the last view that the node accepted, on disk |
//! | `peers` | what the node remembers of the others, on disk: whoever comes back with less is refused |
//! | `rows` | rows on a fabric and clocks, for a core |
//! | `rewind` | a suffix that a majority went on without: asked for, and cut off at the next start |
//! | `publish` | the publisher thread: tiles and `checkpoint` files, what is remembered of peers: off the critical path |
//! | `snapshots` | what the thread for snapshots sees of a shard |
//! | `lending` | the thread that reads snapshots for nodes that take one |
//! | `intake` | snapshots on their way into this node |
//! | `shared` | what the threads and the readers share: watermarks, stores, heads |
//! | `changes` | how long changes of views took, for status and metrics |
//! | `views` | [`Views`]: the views that the node takes part in, for an application in the same process |
//! | `backend` | [`tradewind_gateway::Backend`]: how clients reach the node |

mod backend;
mod bodies;
mod changes;
mod config;
mod group;
mod inbox;
mod intake;
mod lending;
mod log;
pub mod node;
mod peers;
mod promise;
mod publish;
mod rewind;
mod rows;
mod shared;
mod snapshots;
mod views;

pub use backend::MoreStatus;
pub use group::Ended;
pub use node::{Feed, Node, StartError};
pub use rows::{Rows, now};
pub use views::{Membership, Standing, Views};
