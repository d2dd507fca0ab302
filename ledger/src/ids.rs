//! Newtypes for every id, position and digest, so that none is mistaken for another.
//!
//! **One type for positions and sizes.** A ledger of size `n` holds the entries `0 ..= n - 1`, so its
//! size is also the version that the next entry will get. Both are a [`Version`]: entry `v` exists in
//! a ledger of size `s` iff `v < s`.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

number! {
    /// Position of an entry in a shard's ledger (the leaf index), for ever; also a ledger's size.
    Version(u64)
}
number! {
    /// One epoch of the core group's membership. Genesis is view 0, the first working view is 1.
    ViewId(u64)
}
number! {
    /// How often a key was written, deletions included: its first write is 1.
    KeyVersion(u64)
}
number! {
    /// Number of a request within its session.
    RequestNumber(u64)
}

impl Version {
    /// The first entry, and the size of an empty ledger.
    pub const ZERO: Self = Self(0);

    /// The version after this one.
    ///
    /// # Panics
    /// At `u64::MAX`, which no ledger reaches.
    #[must_use]
    pub fn next(self) -> Self {
        self.plus(1)
    }

    /// The version `count` further.
    ///
    /// # Panics
    /// When the sum overflows.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0.checked_add(count).expect("a ledger never reaches 2^64 entries"))
    }

    /// How many entries lie between `earlier` and this one; zero if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Hybrid logical clock: microseconds since 1970 in the upper 52 bits, a counter in the lower 12.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Hlc(pub u64);

impl Hlc {
    /// Bits of the logical counter.
    pub const LOGICAL_BITS: u32 = 12;

    /// The stamp of a moment of the wall clock; moments beyond 52 bits (the year 2112) saturate.
    #[must_use]
    pub fn from_micros(micros: u64) -> Self {
        Self(micros.min(u64::MAX >> Self::LOGICAL_BITS) << Self::LOGICAL_BITS)
    }

    /// The wall-clock part, in microseconds since 1970.
    #[must_use]
    pub fn micros(self) -> u64 {
        self.0 >> Self::LOGICAL_BITS
    }

    /// The logical counter.
    #[must_use]
    pub fn logical(self) -> u16 {
        (self.0 & ((1 << Self::LOGICAL_BITS) - 1)) as u16
    }

    /// The time of an entry delivered after one at `previous` and sent at `self`:
    /// `max(previous + 1, self)`, so every replica computes the same, strictly increasing stamp.
    #[must_use]
    pub fn after(self, previous: Self) -> Self {
        Self(self.0.max(previous.0.saturating_add(1)))
    }
}

impl fmt::Display for Hlc {
    /// `<seconds>.<microseconds>+<logical>`, as in `1700000000.000250+3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.micros();
        write!(f, "{}.{:06}+{}", micros / 1_000_000, micros % 1_000_000, self.logical())
    }
}

/// A client session, drawn at random by the client.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct SessionId(pub u128);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A request of a client: exactly-once is decided by this pair.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct RequestId {
    /// Whose request.
    pub session: SessionId,
    /// Which one of that session.
    pub number: RequestNumber,
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.session, self.number)
    }
}

/// A SHA-256 digest: of a leaf, a node, a root or a detached value. Written in lower-case hex.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// All zeroes: stands for "there is none" where a format says so.
    pub const ZERO: Self = Self([0; 32]);

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A digest is 64 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest is 64 lower-case hex digits")]
pub struct DigestError;

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(DigestError),
        };
        let text = text.as_bytes();
        if text.len() != 64 {
            return Err(DigestError);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    /// Hex in readable formats (JSON), the 32 bytes in binary ones.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

/// The identity of a ledger: the leaf hash of its genesis entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lineage(pub Digest);

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Lineage {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        text.parse().map(Self)
    }
}

/// Names a ledger within its deployment and site: `<pool>.<shard>`, as in `flights.0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct LedgerId {
    pool: String,
    shard: u32,
}

/// Why a name is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Wrong length or characters.
    #[error("`{0}` is not a name: 1 to 63 characters of a-z, 0-9 and `-` are allowed")]
    Name(String),
    /// Not `<pool>.<shard>`.
    #[error(
        "`{0}` is not a ledger's name: `<pool>.<shard>` is allowed, as in `flights.0` (shard \
         0 to 4294967295, without leading zeroes)"
    )]
    Ledger(String),
}

/// Checks a name of a deployment, site, process or pool: `[a-z0-9-]{1,63}`.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if (1..=63).contains(&name.len()) && name.bytes().all(allowed) {
        Ok(())
    } else {
        Err(NameError::Name(name.chars().take(80).collect()))
    }
}

impl LedgerId {
    /// The ledger of a pool's shard. Fails if `pool` is not `[a-z0-9-]{1,63}`.
    pub fn new(pool: &str, shard: u32) -> Result<Self, NameError> {
        check_name(pool)?;
        Ok(Self { pool: pool.to_owned(), shard })
    }

    /// The pool's name.
    #[must_use]
    pub fn pool(&self) -> &str {
        &self.pool
    }

    /// The shard within the pool.
    #[must_use]
    pub fn shard(&self) -> u32 {
        self.shard
    }
}

impl fmt::Display for LedgerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.pool, self.shard)
    }
}

impl FromStr for LedgerId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bad = || NameError::Ledger(text.chars().take(80).collect());
        let (pool, shard) = text.split_once('.').ok_or_else(bad)?;
        let shard = crate::text::decimal(shard).and_then(|n| u32::try_from(n).ok());
        Self::new(pool, shard.ok_or_else(bad)?).map_err(|_| bad())
    }
}

impl From<LedgerId> for String {
    fn from(id: LedgerId) -> Self {
        alloc::format!("{id}")
    }
}

impl TryFrom<String> for LedgerId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}
