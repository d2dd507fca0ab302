//! What a shard answers.

use crate::{CommandError, Walk, octets};
use alloc::{sync::Arc, vec::Vec};
use serde::{Deserialize, Serialize};
use tradewind_ledger::{Digest, Hlc, KeyVersion, RequestNumber, Value, Version};

/// The answer to a command. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Written as the entry `version`.
    Written {
        /// The entry's position in the ledger, and from now on the key's version.
        version: Version,
        /// How often the key was written, this time included.
        key_version: KeyVersion,
        /// When.
        hlc: Hlc,
    },
    /// The condition did not hold; nothing was written.
    Conflict {
        /// What the key is now; `None` if it does not exist.
        current: Option<Current>,
    },
    /// There was nothing to delete; nothing was written.
    Absent,
    /// The transaction ran.
    Txn {
        /// Whether all comparisons held, so that `then` was done.
        succeeded: bool,
        /// The entry it made; `None` if the branch only read.
        written: Option<Stamp>,
        /// One result for each operation of the branch.
        results: Vec<TxnResult>,
    },
    /// Not executed, and never will be as it is.
    Refused(Refusal),
}

/// The present state of a key that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Current {
    /// The entry that wrote its value.
    pub version: Version,
    /// How often it was written.
    pub key_version: KeyVersion,
}

/// Where and when an entry stands in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Its position.
    pub version: Version,
    /// Its time.
    pub hlc: Hlc,
}

/// The result of one operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnResult {
    /// Put or deleted.
    Written {
        /// How often the key was written, this time included.
        key_version: KeyVersion,
    },
    /// Read, before the transaction; `None` if the key did not exist.
    Read(Option<Item>),
}

/// Why a request was refused by the state; the same at every replica.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// The command breaks a limit.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The request number was used for another command.
    #[error(
        "request {number} of this session was another command, executed as version {version}; number requests anew"
    )]
    OtherBody {
        /// The number.
        number: RequestNumber,
        /// The entry that the first one made.
        version: Version,
    },
    /// The number lies too far behind the session's latest to be remembered.
    #[error(
        "request {number} is too far behind the session's latest, {highest}: whether it was executed is no longer known; \
         read the key to find out, and send fewer requests at a time"
    )]
    Expired {
        /// The number.
        number: RequestNumber,
        /// The session's highest.
        highest: RequestNumber,
    },
    /// The request was executed and wrote nothing; what it answered depended on a value that is no longer in memory.
    #[error(
        "request {number} of this session was executed, as version {version}, and wrote nothing; its answer is not known any more: ask anew"
    )]
    AnswerLost {
        /// The number.
        number: RequestNumber,
        /// The entry that says so.
        version: Version,
    },
    /// The session was opened before sessions that are already forgotten.
    #[error(
        "the session is forgotten, or may be: whether the request was executed before is not known; open a new session"
    )]
    SessionExpired,
    /// The request was executed and wrote; what else it answered is older than what is kept in memory.
    #[error(
        "request {number} of this session was executed, as version {version}; all that it answered is not known any \
         more: it took effect once, read its keys for the rest"
    )]
    AnswerForgotten {
        /// The number.
        number: RequestNumber,
        /// The entry that it made.
        version: Version,
    },
}

/// A key's value at some version, and what is known about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The entry that wrote it.
    pub version: Version,
    /// How often the key was written, up to this value.
    pub key_version: KeyVersion,
    /// When it was written.
    pub hlc: Hlc,
    /// The value, or where it is.
    pub value: ItemValue,
}

/// A value, or where the caller finds it. Over the wire it is always inline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ItemValue {
    /// The bytes.
    Inline(#[serde(with = "octets")] Arc<[u8]>),
    /// In the ledger: read the entry at the item's version, and see [`value_in`](crate::value_in).
    Logged,
    /// Stored beside the ledger.
    Detached {
        /// Its length in bytes.
        length: u64,
        /// Its SHA-256, under which it is stored.
        digest: Digest,
    },
}

impl From<&Value> for ItemValue {
    fn from(value: &Value) -> Self {
        match value {
            Value::Inline(bytes) => Self::Inline(bytes.as_slice().into()),
            Value::Detached { len, digest } => Self::Detached { length: *len, digest: *digest },
        }
    }
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys in ascending order with what they were, or, if that is no longer in memory, the walk through the ledger
    /// that finds it: then the key may also turn out not to have existed.
    pub items: Vec<(Vec<u8>, Result<Item, Walk>)>,
    /// Continue after this key; `None` if the listing is complete. A page may be short, even empty, and still go on.
    pub next: Option<Vec<u8>>,
}

/// One change of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// The entry that made it.
    pub version: Version,
    /// How often the key was written, this time included.
    pub key_version: KeyVersion,
    /// When.
    pub hlc: Hlc,
    /// Whether it deleted the key.
    pub deleted: bool,
}

impl Item {
    /// The value, if it is inline.
    pub fn bytes(&self) -> Option<&Arc<[u8]>> {
        match &self.value {
            ItemValue::Inline(bytes) => Some(bytes),
            ItemValue::Logged | ItemValue::Detached { .. } => None,
        }
    }
}
