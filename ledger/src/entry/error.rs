//! What can be wrong with an entry.

use super::{MAX_ENTRY, MAX_INLINE_VALUE, MAX_KEY, MAX_MEMBERS, MAX_VALUE};
use crate::ids::{NameError, Version, ViewId};

/// Why an entry cannot be encoded or bytes are not an entry. None of these goes away by retrying.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// Too long.
    #[error("an entry of {len} bytes; at most {MAX_ENTRY} are allowed (detach larger values)")]
    TooLong {
        /// Bytes found.
        len: usize,
    },
    /// The bytes end in the middle of a field.
    #[error("the entry ends at byte {at}, in the middle of {field}")]
    Truncated {
        /// Where the field begins.
        at: usize,
        /// Which field.
        field: &'static str,
    },
    /// Bytes after the last field.
    #[error("{count} bytes after the end of the entry")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// Not this format version.
    #[error("entry format {found}; this program reads format {}", super::ENTRY_FORMAT)]
    Format {
        /// The version byte.
        found: u8,
    },
    /// A kind of entry that is reserved.
    #[error("entries of kind {kind} ({name}) are reserved for a later version of this program")]
    Unsupported {
        /// The kind byte.
        kind: u8,
        /// Its name.
        name: &'static str,
    },
    /// A kind of entry that does not exist.
    #[error("there is no entry kind {kind}")]
    Kind {
        /// The kind byte.
        kind: u8,
    },
    /// A byte that selects among alternatives has none of their values.
    #[error("tag {found} in {field}")]
    Tag {
        /// Which field.
        field: &'static str,
        /// What stands there.
        found: u8,
    },
    /// Key too short or too long.
    #[error("a key of {len} bytes; 1 to {MAX_KEY} are allowed")]
    Key {
        /// Bytes found.
        len: usize,
    },
    /// Inline value too long.
    #[error("an inline value of {len} bytes; at most {MAX_INLINE_VALUE} are allowed (detach it)")]
    InlineValue {
        /// Bytes found.
        len: usize,
    },
    /// Detached value too long.
    #[error("a detached value of {len} bytes; at most {MAX_VALUE} are allowed")]
    DetachedValue {
        /// Bytes stated.
        len: u64,
    },
    /// A put without a value or a delete with one.
    #[error("a put carries a value and a delete carries none")]
    ValuePresence,
    /// Key version and previous version do not fit each other.
    #[error(
        "key version {key_version} with previous version {prev_version:?}: the first has none, \
         every later one has one"
    )]
    KeyHistory {
        /// The key version.
        key_version: u64,
        /// The previous version.
        prev_version: Option<Version>,
    },
    /// Keys of a transaction out of order or doubled.
    #[error("update {index} of a transaction: keys must be strictly ascending")]
    KeyOrder {
        /// Which update.
        index: usize,
    },
    /// Too many updates in a transaction.
    #[error("a transaction of {count} updates; at most 65535 are allowed")]
    Updates {
        /// How many.
        count: usize,
    },
    /// Bad number of members.
    #[error("{count} members; 1 to {MAX_MEMBERS} are allowed")]
    Members {
        /// How many.
        count: usize,
    },
    /// Two members with one name or one key.
    #[error("member {index} has the name or the key of an earlier one")]
    MemberTwice {
        /// Which one.
        index: usize,
    },
    /// A name with characters that are not allowed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A name that is not UTF-8.
    #[error("{field} is not a name: 1 to 63 characters of a-z, 0-9 and `-` are allowed")]
    NameBytes {
        /// Which field.
        field: &'static str,
    },
    /// A VIEW whose record names another view than its header.
    #[error("a VIEW entry for view {record} in view {header}: they must be the same")]
    View {
        /// The record's view.
        record: ViewId,
        /// The entry's view.
        header: ViewId,
    },
    /// A genesis whose time or view is not zero.
    #[error("a genesis has time 0 and view 0")]
    GenesisStamp,
    /// A SNAPSHOT of nothing.
    #[error(
        "a SNAPSHOT of {chunks} chunks with {bytes} bytes, of {size} entries: there is at least one of each, and no chunk is empty"
    )]
    Snapshot {
        /// Entries that the state is of.
        size: Version,
        /// Chunks.
        chunks: u32,
        /// Bytes of them.
        bytes: u64,
    },
    /// A SEAL that counts not even itself.
    #[error("a SEAL counts at least itself")]
    SealCount,
}
