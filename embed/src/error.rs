//! What can go wrong, and what that says about the command.

use std::sync::Arc;

use tradewind_client::{Refusal, wire::Fault};
use tradewind_ledger::{LedgerId, Version};

/// Why a replicated state machine cannot be opened here.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A name that cannot be one.
    #[error("\"{0}\" cannot name a state machine: 1 to 63 of a-z, 0-9 and - are allowed")]
    Name(String),
    /// The topology has no such pool at home in this site.
    #[error("no pool {pool} is at home in this site; there are {}", .pools.join(", "))]
    NoSuchPool {
        /// Asked for.
        pool: String,
        /// The pools of the site.
        pools: Vec<String>,
    },
    /// This node does not hold the shard.
    #[error("this node is no member of {ledger}; its members are {}", .members.join(", "))]
    NotMember {
        /// The ledger that would hold the commands.
        ledger: LedgerId,
        /// The nodes that hold it.
        members: Vec<String>,
    },
    /// It is open in this process.
    #[error("{name} of pool {pool} is open already; clone what `replicated` gave the first time")]
    AlreadyOpen {
        /// Its pool.
        pool: String,
        /// Its name.
        name: String,
    },
    /// No thread.
    #[error("starting a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Why a replica applies nothing any more. Its state stays readable by `query_local`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// It was closed, or the node left the group.
    #[error("the state machine was closed")]
    Closed,
    /// A command that this program does not know.
    #[error(
        "the command at version {version} cannot be decoded: {reason}; run the release of the application that sent it"
    )]
    Command {
        /// Where.
        version: Version,
        /// What the decoder said.
        reason: String,
    },
    /// The ledger on the own disk cannot be read.
    #[error("reading the ledger at version {version}: {reason}")]
    Ledger {
        /// Where.
        version: Version,
        /// What was found.
        reason: String,
    },
    /// The application's code panicked.
    #[error("the state machine panicked; the process' standard error says where")]
    Panicked,
}

/// Why `ordered_send` has no reply, and whether the command was applied.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SendError {
    /// It was certainly not applied, and will not be: it may be sent again.
    #[error("not applied, given up after {after_ms} ms: {last}")]
    NotApplied {
        /// How long it was tried, in milliseconds.
        after_ms: u64,
        /// Why the last attempt failed.
        last: Arc<Fault>,
    },
    /// It may have been applied, or may be in time to come. The state will tell, if the command carries something to
    /// know it by.
    #[error(
        "whether the command was, or will be, applied is not known after {after_ms} ms: {last}"
    )]
    OutcomeUnknown {
        /// How long it was tried, in milliseconds.
        after_ms: u64,
        /// Why the last attempt failed.
        last: Arc<Fault>,
    },
    /// It is in the ledger, so every member applies it; the reply did not get here in time.
    #[error("applied as version {version}, but not at this member within {after_ms} ms")]
    ReplyLost {
        /// Where it stands.
        version: Version,
        /// How long it was waited for, in milliseconds.
        after_ms: u64,
    },
    /// It was certainly not applied: the order refused it, or it has no encoding or too long a one.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// It has no encoding.
    #[error("the command cannot be encoded: {0}")]
    Encode(String),
    /// The replica has stopped: the command may or may not be applied by others.
    #[error("{0}")]
    Stopped(#[from] Stopped),
}

impl SendError {
    /// Whether the command was certainly not applied and never will be, so that sending it again cannot apply it twice.
    #[must_use]
    pub fn is_not_applied(&self) -> bool {
        matches!(self, Self::NotApplied { .. } | Self::Refused(_) | Self::Encode(_))
    }
}

/// Why a query has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueryError {
    /// This member cannot promise that it has all that was acknowledged: it is in no view of a majority.
    #[error("given up after {after_ms} ms: {last}")]
    Unavailable {
        /// How long it was tried, in milliseconds.
        after_ms: u64,
        /// Why the last attempt failed.
        last: Arc<Fault>,
    },
    /// The replica has stopped.
    #[error("{0}")]
    Stopped(#[from] Stopped),
}
