//! A short summary of what a request wrote, to tell it from another request under the same number.
//!
//! Not a cryptographic hash: a session's owner could only deceive itself. It is part of snapshots, so the same for ever
//! (docs/formats/snapshot.md).

use tradewind_ledger::{Digest, Value};

const SEEDS: [u64; 4] =
    [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db, 0x8ebc_6af0_9c88_c6e3, 0x5899_65cc_7537_4cc3];

/// A summary of the kind of a request and its updates in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(u64);

/// What an update made of a key.
pub(crate) enum Effect<'a> {
    Deleted,
    Inline(&'a [u8]),
    Detached(&'a Digest),
}

impl<'a> Effect<'a> {
    /// That of the value which an update gives; `None`: it deletes the key.
    pub(crate) fn of(value: Option<&'a Value>) -> Self {
        match value {
            None => Self::Deleted,
            Some(Value::Inline(bytes)) => Self::Inline(bytes),
            Some(Value::Detached { digest, .. }) => Self::Detached(digest),
        }
    }
}

impl Fingerprint {
    pub(crate) const PUT: Self = Self(SEEDS[0]);
    pub(crate) const DELETE: Self = Self(SEEDS[1]);
    /// By itself: of a request that wrote nothing.
    pub(crate) const TXN: Self = Self(SEEDS[2]);

    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    #[must_use]
    pub(crate) fn with(self, key: &[u8], effect: &Effect) -> Self {
        let state = absorb(self.0, 1, key);
        Self(match effect {
            Effect::Deleted => absorb(state, 2, &[]),
            Effect::Inline(value) => absorb(state, 3, value),
            Effect::Detached(digest) => absorb(state, 4, &digest.0),
        })
    }
}

/// Folded 64 x 64 -> 128 bit products over blocks of 16 bytes, as wyhash does.
fn absorb(state: u64, kind: u64, bytes: &[u8]) -> u64 {
    let mut state = mix(state ^ kind, SEEDS[3] ^ bytes.len() as u64);
    let mut blocks = bytes.chunks_exact(16);
    for block in &mut blocks {
        state = mix(word(&block[..8]) ^ SEEDS[1], word(&block[8..]) ^ state);
    }
    let mut last = [0; 16];
    let rest = blocks.remainder();
    last[..rest.len()].copy_from_slice(rest);
    mix(word(&last[..8]) ^ SEEDS[2], word(&last[8..]) ^ state)
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}
