//! What a client asks a shard to do, and the limits of it.

use crate::{
    octets,
    payload::{self, Payload},
    shard_of,
};
use alloc::{collections::BTreeSet, string::String, vec::Vec};
use core::fmt;
use serde::{Deserialize, Serialize};
use tradewind_ledger::{
    KeyVersion, Version,
    entry::{MAX_ENTRY, MAX_KEY, MAX_VALUE},
};

/// Most comparisons, and most operations of one branch, that a transaction may have.
pub const MAX_TXN_OPS: usize = 128;
/// Most bytes of one encoded [`Command`]: the largest value, and room for keys and the rest.
pub const MAX_COMMAND: usize = MAX_VALUE as usize + (1 << 20);
/// Most bytes of the values of a command together; the rest of [`MAX_COMMAND`] is for keys.
const MAX_VALUES: usize = MAX_VALUE as usize + (1 << 19);
/// Values of a transaction longer than this are detached when its entry would otherwise outgrow [`MAX_ENTRY`].
pub(crate) const TXN_SMALL_VALUE: usize = 256;
/// No less than what one update of an entry takes beside its key and value.
pub(crate) const UPDATE_OVERHEAD: usize = 64;
/// No less than what an entry takes beside its updates.
pub(crate) const ENTRY_OVERHEAD: usize = 128;

/// An update to be ordered and executed by every replica of one shard.
///
/// Travels from the application to [`Store::execute`](crate::Store::execute) as the same bytes
/// ([`encode`](Self::encode)). Variants are only ever appended.
///
/// `V` is what stands for a value: its bytes, everywhere but in a command as it is ordered ([`Lean`](crate::Lean)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "V: Payload")]
pub enum Command<V = Vec<u8>> {
    /// Sets `key` to `value`.
    Put {
        /// 1 to [`MAX_KEY`] bytes, any bytes.
        #[serde(with = "octets")]
        key: Vec<u8>,
        /// Up to [`MAX_VALUE`] bytes.
        #[serde(with = "payload")]
        value: V,
        /// What must hold for it to happen.
        condition: Condition,
    },
    /// Deletes `key`.
    Delete {
        /// 1 to [`MAX_KEY`] bytes, any bytes.
        #[serde(with = "octets")]
        key: Vec<u8>,
        /// What must hold for it to happen.
        condition: Condition,
    },
    /// If every comparison holds does `then`, else `otherwise`: all or nothing, and all keys of one shard.
    Txn {
        /// The comparisons.
        compare: Vec<Compare<V>>,
        /// Done if all hold.
        then: Vec<TxnOp<V>>,
        /// Done if one does not.
        otherwise: Vec<TxnOp<V>>,
    },
    /// A command sent once more, when it is not known what became of it the first time. If it writes nothing, an
    /// entry without updates says so: a copy that is still on its way then finds that the request was executed. (If
    /// not, it might find its condition fulfilled after the client was told that it was not.)
    Settle {
        /// The command, encoded, and not itself one of these.
        #[serde(with = "octets")]
        command: Vec<u8>,
    },
}

/// [`Command::Put`] in the bytes of a command.
#[derive(Deserialize)]
enum OnlyPut<'a> {
    Put {
        #[serde(borrow)]
        key: &'a [u8],
        #[serde(borrow)]
        value: &'a [u8],
        #[expect(dead_code, reason = "it has its place in the bytes")]
        condition: Condition,
    },
}

/// What must hold of a key for a put or a delete to happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Nothing.
    #[default]
    Always,
    /// The key must not exist (never written, or deleted).
    Absent,
    /// The key exists and this is the version of its current value.
    Version(Version),
}

/// One comparison of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "V: Payload")]
pub struct Compare<V = Vec<u8>> {
    /// The key compared.
    #[serde(with = "octets")]
    pub key: Vec<u8>,
    /// What must hold of it.
    pub test: Test<V>,
}

/// What a comparison wants of a key. Only `Exists(false)` holds for a key that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "V: Payload")]
pub enum Test<V = Vec<u8>> {
    /// Whether the key exists.
    Exists(bool),
    /// The version of its current value.
    Version(Version),
    /// How often the key was written.
    KeyVersion(KeyVersion),
    /// Its current value, byte for byte.
    Value(#[serde(with = "payload")] V),
    /// So many microseconds or more have passed, by the order's own clock, from the write of its current value to
    /// this command. The clock is that of entries ([`Hlc`](tradewind_ledger::Hlc)): every replica computes the same.
    OlderThan(u64),
    /// Fewer have.
    YoungerThan(u64),
}

/// One operation of a transaction's branch. A branch writes a key at most once; a `Get` sees the state before the
/// transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "V: Payload")]
pub enum TxnOp<V = Vec<u8>> {
    /// Sets a key.
    Put {
        /// The key.
        #[serde(with = "octets")]
        key: Vec<u8>,
        /// Its new value.
        #[serde(with = "payload")]
        value: V,
    },
    /// Deletes a key. The entry says so even if the key does not exist.
    Delete {
        /// The key.
        #[serde(with = "octets")]
        key: Vec<u8>,
    },
    /// Reads a key.
    Get {
        /// The key.
        #[serde(with = "octets")]
        key: Vec<u8>,
    },
}

/// How safe a write must be before it is acknowledged.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Durability {
    /// In the memory of every member of the shard.
    Memory,
    /// On disk at a majority of the shard's members.
    #[default]
    Disk,
}

/// Why a command can never be executed, whatever the state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum CommandError {
    /// Not the bytes of a command.
    #[error(
        "not a command: {0} bytes cannot be decoded; use the client library of this protocol version"
    )]
    Malformed(u64),
    /// A key of a wrong length.
    #[error("a key has {0} bytes; allowed are 1 to {max}", max = MAX_KEY)]
    KeyLength(u64),
    /// A value that is too long.
    #[error("a value has {0} bytes; allowed are up to {max}: split it over several keys", max = MAX_VALUE)]
    ValueLength(u64),
    /// Too many parts.
    #[error("a transaction has {0} comparisons or operations in one list; allowed are up to {max}", max = MAX_TXN_OPS)]
    TxnLength(u64),
    /// Its keys and small values do not fit into one entry.
    #[error(
        "a transaction's branch would take {0} bytes in one entry of at most {max}, values beyond \
         256 bytes not counted: write fewer or shorter keys", max = MAX_ENTRY
    )]
    TxnTooLarge(u64),
    /// All values together are too long.
    #[error("a command, or its values together, have {0} bytes; allowed are up to {max}", max = MAX_VALUES)]
    TooLarge(u64),
    /// A branch that writes one key twice.
    #[error("a transaction's branch writes the key {0} twice; write it once")]
    KeyTwice(Printable),
    /// Two branches that cannot be told apart in the ledger.
    #[error(
        "both branches of a transaction make the same writes; make them without comparing, and read beside them"
    )]
    SameBranches,
    /// Keys of several shards.
    #[error(
        "a transaction's keys lie in different shards: {first} in {first_shard}, {other} in {other_shard}; keys with \
         the same part in braces, as in order/{{alice}}/1 and cart/{{alice}}, share a shard"
    )]
    CrossShard {
        /// A key.
        first: Printable,
        /// Its shard.
        first_shard: u32,
        /// Another key.
        other: Printable,
        /// And its shard.
        other_shard: u32,
    },
}

/// The start of a key as text for messages, whatever its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Printable(String);

impl Printable {
    /// The first 64 bytes of `key`, escaped.
    pub fn new(key: &[u8]) -> Self {
        let shown = &key[..key.len().min(64)];
        let more = if shown.len() < key.len() { "..." } else { "" };
        Self(alloc::format!("\"{}{more}\"", shown.escape_ascii()))
    }
}

impl fmt::Display for Printable {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Command {
    /// The bytes that travel.
    pub fn encode(&self) -> Vec<u8> {
        let bytes = match self {
            Self::Put { key, value, .. } => key.len() + value.len() + ENTRY_OVERHEAD,
            _ => 0,
        };
        postcard::to_extend(self, Vec::with_capacity(bytes))
            .expect("a command has nothing that postcard cannot write")
    }

    /// Reads what [`encode`](Self::encode) wrote and checks it by [`check`](Self::check).
    ///
    /// # Errors
    /// [`CommandError::Malformed`] unless `bytes` are exactly one command; or a limit it breaks.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        let malformed = CommandError::Malformed(bytes.len() as u64);
        if bytes.len() > MAX_COMMAND {
            return Err(CommandError::TooLarge(bytes.len() as u64));
        }
        match postcard::take_from_bytes::<Self>(bytes) {
            Ok((command, [])) => command.check().map(|()| command),
            _ => Err(malformed),
        }
    }

    /// The key of an encoded put, checked as [`decode`](Self::decode) does but without a copy of its parts; `None` for
    /// every other command.
    ///
    /// # Errors
    /// A limit that the put breaks.
    pub fn key_of_put(bytes: &[u8]) -> Option<Result<&[u8], CommandError>> {
        if bytes.len() > MAX_COMMAND {
            return None;
        }
        let Ok((OnlyPut::Put { key, value, .. }, [])) = postcard::take_from_bytes(bytes) else {
            return None;
        };
        let limits = check_key(key).and_then(|()| check_length(value.len() as u64));
        Some(limits.map(|()| key))
    }

    /// This encoded command as one sent [once more](Self::Settle), encoded.
    pub fn settle(encoded: &[u8]) -> Vec<u8> {
        Self::Settle { command: encoded.to_vec() }.encode()
    }

    /// The command itself, and whether it is sent [once more](Self::Settle).
    ///
    /// # Errors
    /// [`CommandError::Malformed`] if it wraps anything but one plain command.
    pub fn unwrap_settle(self) -> Result<(Self, bool), CommandError> {
        let Self::Settle { command: bytes } = self else { return Ok((self, false)) };
        match postcard::take_from_bytes::<Self>(&bytes) {
            Ok((Self::Settle { .. }, _)) | Err(_) => {
                Err(CommandError::Malformed(bytes.len() as u64))
            }
            Ok((command, [])) => Ok((command, true)),
            Ok(_) => Err(CommandError::Malformed(bytes.len() as u64)),
        }
    }

    fn wrapped(&self) -> Result<Self, CommandError> {
        self.clone().unwrap_settle().map(|(command, _)| command)
    }

    /// Whether the command keeps all limits, those of a shard apart.
    ///
    /// # Errors
    /// The first limit it breaks.
    pub fn check(&self) -> Result<(), CommandError> {
        match self {
            Self::Settle { .. } => self.wrapped()?.check(),
            plain => plain.check_plain(),
        }
    }

    /// The shard, of `shards`, that executes the command; an empty transaction is executed by the first.
    ///
    /// # Errors
    /// [`CommandError::CrossShard`] if its keys lie in different shards; [`CommandError::Malformed`] if it wraps
    /// something else than a command.
    pub fn shard(&self, shards: u32) -> Result<u32, CommandError> {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => Ok(shard_of(key, shards)),
            Self::Txn { compare, then, otherwise } => {
                let operations = then.iter().chain(otherwise).map(TxnOp::key);
                let mut keys = compare.iter().map(|c| c.key.as_slice()).chain(operations);
                let Some(first) = keys.next() else { return Ok(0) };
                let shard = shard_of(first, shards);
                match keys.find(|key| shard_of(key, shards) != shard) {
                    None => Ok(shard),
                    Some(other) => Err(CommandError::CrossShard {
                        first: Printable::new(first),
                        first_shard: shard,
                        other: Printable::new(other),
                        other_shard: shard_of(other, shards),
                    }),
                }
            }
            Self::Settle { .. } => self.wrapped()?.shard(shards),
        }
    }
}

impl<V: Payload> Command<V> {
    /// As [`check`](Command::check), of a command that is not one sent [once more](Self::Settle).
    pub(crate) fn check_plain(&self) -> Result<(), CommandError> {
        match self {
            Self::Put { key, value, .. } => {
                check_key(key)?;
                check_value(value)
            }
            Self::Delete { key, .. } => check_key(key),
            Self::Txn { compare, then, otherwise } => check_txn(compare, then, otherwise),
            Self::Settle { command } => Err(CommandError::Malformed(command.len() as u64)),
        }
    }
}

impl<V> TxnOp<V> {
    /// The key operated on.
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put { key, .. } | Self::Delete { key } | Self::Get { key } => key,
        }
    }

    /// The key and the value written, `None` for deletion; nothing if the operation only reads.
    pub(crate) fn write(&self) -> Option<(&[u8], Option<&V>)> {
        match self {
            Self::Put { key, value } => Some((key, Some(value))),
            Self::Delete { key } => Some((key, None)),
            Self::Get { .. } => None,
        }
    }
}

fn check_key(key: &[u8]) -> Result<(), CommandError> {
    match key.len() {
        1..=MAX_KEY => Ok(()),
        other => Err(CommandError::KeyLength(other as u64)),
    }
}

fn check_value(value: &impl Payload) -> Result<(), CommandError> {
    check_length(value.length())
}

fn check_length(value: u64) -> Result<(), CommandError> {
    match value {
        0..=MAX_VALUE => Ok(()),
        other => Err(CommandError::ValueLength(other)),
    }
}

fn check_txn<V: Payload>(
    compare: &[Compare<V>],
    then: &[TxnOp<V>],
    otherwise: &[TxnOp<V>],
) -> Result<(), CommandError> {
    for length in [compare.len(), then.len(), otherwise.len()] {
        if length > MAX_TXN_OPS {
            return Err(CommandError::TxnLength(length as u64));
        }
    }
    let mut bytes = 0;
    for Compare { key, test } in compare {
        check_key(key)?;
        if let Test::Value(value) = test {
            check_value(value)?;
            bytes += value.length();
        }
    }
    bytes += check_branch(then)? + check_branch(otherwise)?;
    if bytes > MAX_VALUES as u64 {
        return Err(CommandError::TooLarge(bytes));
    }
    // Which branch ran is told, to a repeated request, by what it wrote: see `session`.
    let writes = sorted_writes(then);
    if !writes.is_empty() && writes == sorted_writes(otherwise) {
        return Err(CommandError::SameBranches);
    }
    Ok(())
}

fn sorted_writes<V: Payload>(branch: &[TxnOp<V>]) -> Vec<(&[u8], Option<&V>)> {
    let mut writes: Vec<_> = branch.iter().filter_map(TxnOp::write).collect();
    writes.sort_unstable();
    writes
}

/// The bytes of all values of a branch.
fn check_branch<V: Payload>(operations: &[TxnOp<V>]) -> Result<u64, CommandError> {
    let mut written = BTreeSet::new();
    let mut entry = ENTRY_OVERHEAD;
    let mut bytes = 0;
    for operation in operations {
        check_key(operation.key())?;
        let Some((key, value)) = operation.write() else { continue };
        let len = value.map_or(0, V::length);
        value.map_or(Ok(()), check_value)?;
        if !written.insert(key) {
            return Err(CommandError::KeyTwice(Printable::new(key)));
        }
        entry += UPDATE_OVERHEAD + key.len() + len.min(TXN_SMALL_VALUE as u64) as usize;
        bytes += len;
    }
    if entry > MAX_ENTRY {
        return Err(CommandError::TxnTooLarge(entry as u64));
    }
    Ok(bytes)
}
