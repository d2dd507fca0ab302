//! Why a request has no answer.

use serde::{Deserialize, Serialize};
use std::fmt;
use tradewind_ledger::{Hlc, Version};
use tradewind_store::CommandError;

/// Why a server does not answer a request. Only ever appended to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Fault {
    /// It cannot be served now; it was not executed.
    #[error("not available: {reason}")]
    Unavailable {
        /// What is missing.
        reason: String,
    },
    /// It was on its way when something broke; whether it is executed is not known here.
    #[error(
        "whether the request was executed is not known: {reason}; send it again under the same request number"
    )]
    Unknown {
        /// What broke.
        reason: String,
    },
    /// Too many requests are waiting; it was not executed.
    #[error("busy: {reason}; send it again a little later")]
    Busy {
        /// What is full.
        reason: String,
    },
    /// Another node must be asked.
    #[error("{server} does not hold shard {shard} of pool {pool}; ask one of {members:?}")]
    NotMember {
        /// Who answers.
        server: String,
        /// The pool.
        pool: String,
        /// The shard.
        shard: u32,
        /// Nodes that hold it.
        members: Vec<String>,
    },
    /// A write at a place that takes none.
    #[error(
        "{server} takes no writes of pool {pool}; its home is the site {home}: write to a node of it"
    )]
    ReadOnly {
        /// Who answers.
        server: String,
        /// The pool.
        pool: String,
        /// The pool's home site.
        home: String,
    },
    /// The client may not do that.
    #[error("{client} may not {access} in pool {pool}; give it that right in the topology")]
    Forbidden {
        /// The client's name.
        client: String,
        /// The pool.
        pool: String,
        /// What it wanted.
        access: Access,
    },
    /// There is no such pool.
    #[error("there is no pool {pool}; there are {pools:?}")]
    NoSuchPool {
        /// The pool asked for.
        pool: String,
        /// The pools there are.
        pools: Vec<String>,
    },
    /// The pool has fewer shards.
    #[error("pool {pool} has no shard {shard}; it has {shards}, counted from 0")]
    NoSuchShard {
        /// The pool.
        pool: String,
        /// The shard asked for.
        shard: u32,
        /// How many there are.
        shards: u32,
    },
    /// The command's keys belong to another shard than the request says.
    #[error(
        "the keys belong to shard {expected}, not {found}; client and server disagree on the number of shards"
    )]
    WrongShard {
        /// The shard of the request.
        found: u32,
        /// The shard of its keys.
        expected: u32,
    },
    /// The command can never be executed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The server does not have that entry, also after waiting.
    #[error(
        "version {wanted} is not there yet; the server has versions below {readable}: wait longer, or ask a node of the home site"
    )]
    NotYet {
        /// The version wanted.
        wanted: Version,
        /// The first version the server does not have.
        readable: Version,
    },
    /// The moment asked for is not over at the server.
    #[error(
        "the time {wanted} is not yet covered; the server has everything up to {covered}: wait longer, or ask for an earlier time"
    )]
    TimeNotYet {
        /// The time wanted.
        wanted: Hlc,
        /// What the server has.
        covered: Hlc,
    },
    /// The server's state may be older than the client accepts.
    #[error(
        "the state may be {age_ms} ms old, which is more than the {allowed_ms} ms allowed; ask nearer to the home site"
    )]
    TooStale {
        /// How old it may be.
        age_ms: u64,
        /// What the client accepts.
        allowed_ms: u32,
    },
    /// A level of reads that the server does not offer.
    #[error(
        "{server} offers no linearizable reads of pool {pool}: ask a node of its home site {home}, or read at level local"
    )]
    NotLinearizable {
        /// Who answers.
        server: String,
        /// The pool.
        pool: String,
        /// The pool's home site.
        home: String,
    },
    /// The request itself makes no sense.
    #[error("bad request: {reason}")]
    BadRequest {
        /// What is wrong with it.
        reason: String,
    },
    /// The answer does not fit into a frame.
    #[error("the answer has {length} bytes, more than fit into one: ask for fewer keys at a time")]
    AnswerTooLong {
        /// How many bytes.
        length: u64,
    },
    /// The server failed; its log says more.
    #[error("the server failed: {reason}")]
    Internal {
        /// What failed.
        reason: String,
    },
    /// Only an administrator of the whole deployment may do that.
    #[error(
        "{client} may not administrate {server}; that takes `rights = \"admin\"` for all pools in the topology"
    )]
    NotAdministrator {
        /// The client's name.
        client: String,
        /// Who answers.
        server: String,
    },
    /// The process will not begin anew; it goes on as it is.
    #[error("{server} does not restart: {reason}")]
    RestartRefused {
        /// Who answers.
        server: String,
        /// Why not.
        reason: String,
    },
    /// What was asked for is older than what the server keeps.
    #[error(
        "{ledger} was pruned before version {before} here: ask for a later state, or a process that keeps more (`retain` in the topology)"
    )]
    Pruned {
        /// The shard's ledger.
        ledger: String,
        /// The first version that is kept.
        before: Version,
    },
}

/// What a client may do in a pool, each including those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Access {
    /// Get, list, history, status.
    Read,
    /// Put, delete, transactions.
    Write,
    /// Change what there is.
    Admin,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "administrate",
        })
    }
}

/// Whether a request that brought no answer was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executed {
    /// Certainly not.
    No,
    /// Perhaps; asking again under the same number tells.
    Unknown,
}

impl Fault {
    /// Whether the request was executed nevertheless.
    pub fn executed(&self) -> Executed {
        match self {
            Self::Unknown { .. } | Self::Internal { .. } | Self::AnswerTooLong { .. } => {
                Executed::Unknown
            }
            _ => Executed::No,
        }
    }

    /// Whether another node, or the same one later, may well answer the same request.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. }
                | Self::Unknown { .. }
                | Self::Busy { .. }
                | Self::NotMember { .. }
        )
    }
}
