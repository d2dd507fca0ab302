//! What every process serves: client protocol, HTTP, the ledger's public face.
//!
//! | module | holds |
//! |---|---|
//! | `backend` | [`Backend`], [`Shard`]: what a node or a mirror offers |
//! | `completion` | [`ReplyTo`], [`Completions`]: the way back of a write's answer |

mod backend;
mod completion;

pub use backend::{Backend, Horizon, Readiness, Shard, Submission};
pub use completion::{Completions, ReplySink, ReplyTo};
