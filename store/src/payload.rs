//! What stands for a value in a command: its bytes, or, of a large one in a command that is ordered, where they are.

use crate::octets;
use alloc::vec::Vec;
use core::fmt::Debug;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use tradewind_ledger::Digest;

/// What stands for a value in a [`Command`](crate::Command).
pub trait Payload: Clone + Debug + Ord + private::Sealed {}

impl<V: private::Sealed> Payload for V {}

/// A value that travels apart from its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Apart {
    /// Its length, bytes; always more than an entry holds of a value
    /// ([`MAX_INLINE_VALUE`](tradewind_ledger::entry::MAX_INLINE_VALUE)).
    pub len: u64,
    /// Its SHA-256.
    pub digest: Digest,
}

/// A value in a [`Lean`](crate::Lean) command.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Given {
    /// The bytes.
    Here(#[serde(with = "octets")] Vec<u8>),
    /// It is elsewhere.
    Apart(Apart),
}

mod private {
    use super::{Apart, Debug, Digest, Vec};
    use serde::{Deserializer, Serializer};

    pub trait Sealed: Clone + Debug + Ord {
        fn length(&self) -> u64;
        /// The bytes, unless they are elsewhere.
        fn bytes(&self) -> Option<&[u8]>;
        /// The bytes, or where they are.
        fn into_bytes(self) -> Result<Vec<u8>, Apart>;
        fn digest(&self) -> Digest;
        fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
        fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
    }
}
pub(crate) use private::Sealed;

impl Sealed for Vec<u8> {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn bytes(&self) -> Option<&[u8]> {
        Some(self)
    }

    fn into_bytes(self) -> Result<Vec<u8>, Apart> {
        Ok(self)
    }

    fn digest(&self) -> Digest {
        sha256(self)
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        octets::serialize(self, serializer)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        octets::deserialize(deserializer)
    }
}

impl Sealed for Given {
    fn length(&self) -> u64 {
        match self {
            Self::Here(bytes) => bytes.len() as u64,
            Self::Apart(apart) => apart.len,
        }
    }

    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Here(bytes) => Some(bytes),
            Self::Apart(_) => None,
        }
    }

    fn into_bytes(self) -> Result<Vec<u8>, Apart> {
        match self {
            Self::Here(bytes) => Ok(bytes),
            Self::Apart(apart) => Err(apart),
        }
    }

    fn digest(&self) -> Digest {
        match self {
            Self::Here(bytes) => sha256(bytes),
            Self::Apart(apart) => apart.digest,
        }
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.serialize(serializer)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }
}

/// For `#[serde(with = "payload")]`.
pub(crate) fn serialize<S: Serializer>(
    value: &impl Payload,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    value.write(serializer)
}

/// For `#[serde(with = "payload")]`.
pub(crate) fn deserialize<'de, V: Payload, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<V, D::Error> {
    V::read(deserializer)
}

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}
