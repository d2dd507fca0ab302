//! Requests and responses. All enums are only ever appended to.

use super::{Fault, PoolIndex};
use serde::{Deserialize, Serialize};
use std::fmt;
use tradewind_ledger::{Hlc, RequestId, Version};
use tradewind_store::{Durability, Item, Reply, Revision};

/// Client to server. Borrows from the frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request<'a> {
    /// Execute a command; answered by [`Answer::Reply`].
    Write(#[serde(borrow)] Write<'a>),
    /// Read a key; answered by [`Answer::Item`].
    Get(#[serde(borrow)] Get<'a>),
    /// List keys; answered by [`Answer::Page`].
    List(#[serde(borrow)] List<'a>),
    /// The changes of a key; answered by [`Answer::History`].
    History(#[serde(borrow)] History<'a>),
    /// What the server is doing; answered by [`Answer::Status`].
    Status,
    /// End, and begin anew as a fresh process, if this is still the start that the client means; answered by
    /// [`Answer::Restarting`]. For administrators only.
    Restart {
        /// The start that is to end: a request that is sent again does not restart twice.
        incarnation: Incarnation,
    },
}

/// Which start of a process it is: larger at each.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Execute a command, exactly once however often it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write<'a> {
    /// The pool.
    pub pool: PoolIndex,
    /// The shard that all keys of the command belong to.
    pub shard: u32,
    /// The session and number of the request.
    pub request: RequestId,
    /// When to acknowledge; `None` for what the pool says.
    pub durability: Option<Durability>,
    /// An encoded [`Command`](tradewind_store::Command).
    #[serde(with = "octets")]
    pub command: &'a [u8],
}

/// Which state a read wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// The state at which moment.
    pub at: At,
    /// The server must have this entry first, and waits for it: read your own writes, at any replica.
    pub min_version: Option<Version>,
    /// The server's state must be known to be no older than this many milliseconds.
    pub max_staleness_ms: Option<u32>,
    /// How fresh.
    pub level: Level,
    /// How long the server may wait for it, in milliseconds.
    pub wait_ms: u32,
}

/// A moment in a ledger's history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum At {
    /// As new as the server has it.
    #[default]
    Latest,
    /// Right after this entry.
    Version(Version),
    /// Right after the last entry made at this time or before.
    Time(Hlc),
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// Whatever the server may show: never wrong, perhaps not the newest.
    #[default]
    Local,
    /// Nothing acknowledged before the read began is missing. Not at mirrors.
    Linearizable,
}

/// Read a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get<'a> {
    /// The pool.
    pub pool: PoolIndex,
    /// The key.
    #[serde(with = "octets")]
    pub key: &'a [u8],
    /// Which state.
    pub read: Read,
}

/// List keys of one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List<'a> {
    /// The pool.
    pub pool: PoolIndex,
    /// The shard.
    pub shard: u32,
    /// What the keys begin with.
    #[serde(with = "octets")]
    pub prefix: &'a [u8],
    /// Keys after this one only.
    #[serde(borrow)]
    pub after: Option<Key<'a>>,
    /// Most keys of the answer; the server may give fewer.
    pub limit: u32,
    /// Whether the values are wanted too.
    pub values: bool,
    /// Which state.
    pub read: Read,
}

/// A key where one may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key<'a>(#[serde(with = "octets")] pub &'a [u8]);

/// The changes of a key, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History<'a> {
    /// The pool.
    pub pool: PoolIndex,
    /// The key.
    #[serde(with = "octets")]
    pub key: &'a [u8],
    /// Only changes before this version.
    pub before: Option<Version>,
    /// Most changes of the answer; the server may give fewer.
    pub limit: u32,
    /// Which state.
    pub read: Read,
}

/// Server to client.
pub type Response = Result<Answer, Fault>;

/// What a request brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Of a write. Values that a transaction read are inline.
    Reply(Reply),
    /// Of a get.
    Item {
        /// The key's value, inline; `None` if the key does not exist.
        item: Option<Item>,
        /// The state that was read.
        as_of: AsOf,
    },
    /// Of a list.
    Page {
        /// Keys in ascending order.
        items: Vec<Listed>,
        /// Continue after this key, at [`AsOf::at`]; `None` if the shard has no more.
        #[serde(with = "optional_octets")]
        next: Option<Vec<u8>>,
        /// The state that was read.
        as_of: AsOf,
    },
    /// Of a history.
    History {
        /// The changes, newest first.
        revisions: Vec<Revision>,
        /// Whether there are earlier ones.
        more: bool,
        /// The state that was read.
        as_of: AsOf,
    },
    /// The server's status: a JSON document.
    Status(String),
    /// Of a restart: it begins now, or has happened already.
    Restarting,
}

/// A key of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The key.
    #[serde(with = "octets")]
    pub key: Vec<u8>,
    /// Its value, inline if values were wanted.
    pub item: Item,
}

/// The state that a read saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsOf {
    /// It saw the first so many entries.
    pub at: Version,
    /// The server had so many entries to show.
    pub readable: Version,
    /// How old the newest of those may be in milliseconds: how long ago the server last knew it had all there is.
    pub age_ms: u64,
}

/// Borrowed and owned byte strings as one block (serde would visit them byte by byte).
mod octets {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        bytes: &impl AsRef<[u8]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes.as_ref())
    }

    pub(super) fn deserialize<'de, D, T>(deserializer: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: From<&'de [u8]>,
    {
        <&[u8]>::deserialize(deserializer).map(T::from)
    }
}

mod optional_octets {
    use super::Key;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        bytes.as_deref().map(Key).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        Ok(Option::<Key>::deserialize(deserializer)?.map(|key| key.0.to_vec()))
    }
}
