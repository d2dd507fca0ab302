//! A replicated state machine inside an application.
//!
//! An application process embeds one member of a site: a [`Group`] runs the real node, and [`Replicated`] is this member's
//! replica of the application's own [`StateMachine`]. A command that one member [sends](Replicated::ordered_send) is
//! applied by every member, once, in one order; each member [reads](Replicated::query) its own copy, and hears of
//! [views](ViewEvent) in order with the commands. It is in the spirit of Derecho's `Group` and `Replicated<T>`, with these
//! differences: a command is applied when it is on disk at a majority, and it stays: commands are entries of a signed
//! ledger, the values of one key, so that history, auditors and mirrors work on them as on any other data.
//!
//! | module | holds |
//! |---|---|
//! | `machine` | [`StateMachine`], [`At`]: what an application writes |
//! | `group` | [`Group`]: joining, leaving, serving |
//! | `replicated` | [`Replicated`]: sending, querying; [`Options`] |
//! | `follower` | the thread that applies what the ledger says; [`Applied`] |
//! | `views` | [`View`], [`ViewEvent`], [`ViewEvents`] |
//! | `snapshot` | snapshots on the own disk |
//! | `command` | the bytes of a command |
//! | `error` | [`OpenError`], [`SendError`], [`QueryError`], [`Stopped`] |
//!
//! Guide: `docs/embedding.md`. Example with three processes: `examples/air_traffic`.
//!
//! ```
//! use std::{error::Error, sync::Arc};
//! use tradewind_embed::{At, Group, Options, Replicated, StateMachine};
//! # use tradewind_local::{Deployment, Plan};
//! # use tradewind_transport::Identity;
//!
//! /// How many passengers have boarded.
//! #[derive(Default)]
//! struct Boarded(u64);
//!
//! impl StateMachine for Boarded {
//!     type Command = u64;
//!     type Reply = u64;
//!
//!     fn apply(&mut self, _: At, passengers: u64) -> u64 {
//!         self.0 += passengers;
//!         self.0
//!     }
//!
//!     fn snapshot(&self) -> Vec<u8> {
//!         self.0.to_le_bytes().to_vec()
//!     }
//!
//!     fn restore(bytes: &[u8]) -> Result<Self, Box<dyn Error + Send + Sync>> {
//!         Ok(Self(u64::from_le_bytes(bytes.try_into()?)))
//!     }
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let deployment = Deployment::create(dir.path(), "unused".as_ref(), Plan::one_site(3, 1))?;
//! # let topology = Arc::new(deployment.topology().clone());
//! // Three members; in earnest each is a process of its own, on a machine of its own.
//! let mut members = Vec::new();
//! for name in ["ams-1", "ams-2", "ams-3"] {
//!     let identity = Identity::load(name, &topology.keys.join(format!("{name}.key")))?;
//!     members.push(Group::join(Arc::clone(&topology), Arc::new(identity)).await?);
//! }
//! let open = |group: &Group| group.replicated("bench", "boarded", Boarded::default(), Options::default());
//! let gates: Vec<Replicated<Boarded>> = members.iter().map(open).collect::<Result<_, _>>()?;
//!
//! gates[0].ordered_send(&70).await?;
//! let applied = gates[1].ordered_send(&16).await?;
//! assert_eq!(applied.reply, 86);
//! assert_eq!(gates[2].query(|boarded| boarded.0).await?, 86);
//! # for group in members {
//! #     group.leave().await;
//! # }
//! # Ok(())
//! # }
//! ```

mod command;
mod error;
mod follower;
mod group;
mod machine;
mod replicated;
mod snapshot;
mod views;

pub use command::decode_command;
pub use error::{OpenError, QueryError, SendError, Stopped};
pub use follower::{Applied, ViewUpcall};
pub use group::{Group, ServeError};
pub use machine::{At, StateMachine};
pub use replicated::{Options, Replicated};
pub use tradewind_site::{Ended, Membership, Standing, StartError};
pub use views::{View, ViewEvent, ViewEvents};
