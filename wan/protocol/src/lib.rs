//! The mirroring protocol as pure state machines: no clock, socket, file, thread or random source.
//!
//! A child mirror dials its parent, says how far it has come, and pulls. What it is sent is a
//! [`Batch`]: entries exactly as they are hashed, the home site's signed checkpoint, and the proof
//! that the batch's end lies under it. One rule, [`admit`], decides whether a batch may be shown to
//! readers; it trusts nobody but the keys in the ledger's own genesis, so a lying parent can delay a
//! child but never deceive it. `docs/mirroring.md` tells the protocol as a story,
//! `docs/formats/wan.md` gives every byte of it.
//!
//! | module | what it holds |
//! |---|---|
//! | `wire` | frames, messages and bulk streams; strict decoding |
//! | `claim` | [`Head`], [`Claim`]: why a prefix of a ledger is to be believed; the chain of proofs |
//! | `admit` | [`admit`], the only door through which entries come in |
//! | `evidence` | [`Evidence`] of a fork: two signed heads that exclude each other |
//! | `parents` | which parent to try next, and when |
//! | `follower` | [`Follower`]: the child's side |
//! | `feeder` | [`Feeder`]: the parent's side, for one child |
//! | `time` | [`Instant`] and the deadlines |

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod admit;
mod claim;
mod evidence;
mod feeder;
#[cfg(test)]
mod fixture;
mod follower;
mod parents;
mod time;
pub mod wire;

pub use admit::{Admitted, Refusal, admit};
pub use claim::{Claim, ClaimError, Head, LINKS_MAX, Link};
pub use evidence::Evidence;
pub use feeder::{FeedAction, Feeder, FeederConfig, Located, ReadDone};
pub use follower::{
    FollowAction, FollowEvent, FollowStatus, Follower, FollowerConfig, LedgerConfig, LedgerStatus,
    Local, SessionId,
};
pub use time::{Instant, Timing};
pub use wire::{Batch, Fresh, Frontier, MirrorReport, Position, RefuseReason, Value};
