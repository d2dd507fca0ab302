//! Entries to versioned key/value state; the same code on a node and on a mirror.
//!
//! A [`Store`] is what the first N entries of one ledger amount to. It has one way in, the next entry, and two who
//! take it: a node [executes](Store::execute) a [`Command`] (which makes the entry), a mirror or a restarting node
//! [applies](Store::apply) an entry that exists. Both lead to the same state.
//!
//! | module | holds |
//! |---|---|
//! | `command` | [`Command`] and its limits, [`Durability`] |
//! | `lean`, `payload` | [`Lean`]: a command without its large values, as it is ordered |
//! | `reply` | [`Reply`], [`Refusal`], [`Item`] and other answers |
//! | `shard` | [`shard_of`]: which shard a key belongs to |
//! | `store` | [`Store`], and [`apply`](Store::apply) |
//! | `execute` | [`execute`](Store::execute): command to entry |
//! | `read` | reads of the state after any number of entries |
//! | `walk` | [`Walk`]: what is older than the store's base, out of the ledger |
//! | [`snapshot`] | the state as bytes, in chunks under one root |
//! | `lease` | [`LeaseName`]: leases with fencing tokens, out of transactions |
//! | `session` | exactly once: the requests executed lately |
//! | `record`, `timeline`, `fingerprint` | one key, the times of all entries, summary of a request's writes |
//!
//! Pure: no clock, no I/O, no random source; what a store answers is a function of the entries. The present value of
//! each key is in memory, earlier ones are in the ledger and values beyond 32 KiB beside it: then the caller is told
//! where ([`ItemValue`]). Which changes there were is in memory from the [base](Store::base) on, and can be
//! [let go](Store::compact) before it: so memory grows with the state, not with its history.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod command;
mod execute;
mod fingerprint;
mod lean;
mod lease;
mod octets;
mod payload;
mod read;
mod record;
mod reply;
mod session;
mod shard;
pub mod snapshot;
mod store;
mod timeline;
mod walk;

pub use command::{
    Command, CommandError, Compare, Condition, Durability, MAX_COMMAND, MAX_TXN_OPS, Printable,
    Test, TxnOp,
};
pub use execute::{Context, Outcome};
pub use lean::{Body, Lean};
pub use lease::{GRACE, Holding, LeaseError, LeaseName, LeaseOutcome, MAX_HOLDER, MAX_TTL};
pub use payload::{Apart, Given, Payload};
pub use read::value_in;
pub use reply::{Current, Item, ItemValue, Page, Refusal, Reply, Revision, Stamp, TxnResult};
pub use session::{MAX_SESSIONS, WINDOW, session_id, session_opened};
pub use shard::{shard_of, tag};
pub use snapshot::SnapshotRule;
pub use store::{ApplyError, ApplyFault, Stats, Store};
pub use walk::{BrokenChain, TimeSearch, Walk};
