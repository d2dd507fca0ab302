//! The mirroring protocol over QUIC: feeding children and following parents.
//!
//! The protocol itself, with every decision in it, is `tradewind-wan-protocol`; here are the
//! connections, the clock and the ledger's files that its two state machines are driven with. A node
//! of a site and a mirror feed their children with the very same [`serve`].
//!
//! | module | what it holds |
//! |---|---|
//! | `source` | [`Source`]: a ledger that can be fed |
//! | `serve` | [`serve`]: accepts children that the topology allows |
//! | `feed` | one child's connection |
//! | `follow` | [`follow`]: keeps ledgers up to date from the best parent there is |
//! | `lend` | [`Lender`]: a parent's snapshots, for a child that lacks what was pruned |
//! | `link` | one connection to a parent |
//! | `mirrors` | [`Mirrors`]: which mirrors there are below this process, and how far they are |
//! | `stream` | frames and bulk on QUIC streams |
//! | `route` | which ledgers come from which processes, by the topology |

mod clock;
mod feed;
mod follow;
mod lend;
mod link;
mod mirrors;
mod route;
mod serve;
mod source;
mod stream;

pub use follow::{DurableNotice, FollowConfig, Following, Sink, follow};
pub use lend::Lender;
pub use mirrors::{LedgerLag, MirrorStatus, Mirrors};
pub use route::{Candidate, Route, RouteError, expected_genesis, routes, timing_of};
pub use serve::{ServeConfig, Server, serve};
pub use source::{Lend, Source};
pub use tradewind_wan_protocol as protocol;
