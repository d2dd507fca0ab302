//! Commands without their large values, which travel apart: so what is put in order is always small.

use crate::{
    Command, CommandError, Compare, Condition, Test, TxnOp,
    payload::{Apart, Given, Sealed, sha256},
};
use alloc::vec::Vec;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tradewind_ledger::{Digest, entry::MAX_INLINE_VALUE};

/// A command whose large values are named by length and digest, as the nodes of a site order it. Executing it needs
/// nothing else: such a value is detached from its entry in any case.
///
/// A format between the nodes of one site, not kept anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lean {
    /// Whether it is sent [once more](Command::Settle).
    pub(crate) settle: bool,
    pub(crate) command: Command<Given>,
}

/// A value that travels apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// Its SHA-256.
    pub digest: Digest,
    /// All of it.
    pub bytes: Bytes,
}

/// [`Command::Put`] in the bytes of a command.
#[derive(Deserialize)]
enum OnlyPut<'a> {
    Put {
        #[serde(borrow)]
        key: &'a [u8],
        #[serde(borrow)]
        value: &'a [u8],
        condition: Condition,
    },
}

/// [`Command::Settle`] in the bytes of a command.
#[derive(Deserialize)]
enum OnlySettle<'a> {
    Put(()),
    Delete(()),
    Txn(()),
    Settle {
        #[serde(borrow)]
        command: &'a [u8],
    },
}

impl Lean {
    /// Takes the values beyond what an entry holds out of an encoded command: gives it without them, and them, in the
    /// order in which the command has them. `None` if there are none, or it is no command at all.
    ///
    /// Hashes what it takes out: not on a thread that others wait for. A put's value is not copied.
    #[must_use]
    pub fn split(encoded: &Bytes) -> Option<(Self, Vec<Body>)> {
        let settled = match postcard::take_from_bytes(encoded) {
            Ok((OnlySettle::Settle { command }, [])) => Some(encoded.slice_ref(command)),
            _ => None,
        };
        let settle = settled.is_some();
        let plain = settled.as_ref().unwrap_or(encoded);
        let mut bodies = Vec::new();
        let command = match postcard::take_from_bytes(plain) {
            Ok((OnlyPut::Put { key, value, condition }, [])) => {
                let value = apart(plain.slice_ref(value), &mut bodies);
                Command::Put { key: key.to_vec(), value, condition }
            }
            _ => split_txn(plain, &mut bodies)?,
        };
        (!bodies.is_empty()).then_some((Self { settle, command }, bodies))
    }

    /// The values that are not in it, in order. A comparison needs no more than the digest of its value.
    pub fn apart(&self) -> impl Iterator<Item = Apart> {
        let (put, branches) = match &self.command {
            Command::Put { value, .. } => (Some(value), None),
            Command::Txn { then, otherwise, .. } => (None, Some(then.iter().chain(otherwise))),
            Command::Delete { .. } | Command::Settle { .. } => (None, None),
        };
        let values = put.into_iter().chain(branches.into_iter().flatten().filter_map(written));
        values.filter_map(|value| match value {
            Given::Apart(apart) => Some(*apart),
            Given::Here(_) => None,
        })
    }

    /// The bytes that are ordered.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("a command has nothing that postcard cannot write")
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`CommandError::Malformed`] if it is something else, or names a value that an entry would hold.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        match postcard::take_from_bytes::<Self>(bytes) {
            Ok((lean, [])) if lean.apart().all(|apart| apart.len > MAX_INLINE_VALUE as u64) => {
                Ok(lean)
            }
            _ => Err(CommandError::Malformed(bytes.len() as u64)),
        }
    }
}

fn written(operation: &TxnOp<Given>) -> Option<&Given> {
    match operation {
        TxnOp::Put { value, .. } => Some(value),
        TxnOp::Delete { .. } | TxnOp::Get { .. } => None,
    }
}

/// A value as it is ordered; the large one becomes a body.
fn apart(value: Bytes, bodies: &mut Vec<Body>) -> Given {
    if value.len() <= MAX_INLINE_VALUE {
        return Given::Here(value.into());
    }
    let (len, digest) = (value.len() as u64, sha256(&value));
    bodies.push(Body { digest, bytes: value });
    Given::Apart(Apart { len, digest })
}

/// A transaction without its large values; `None` if it is none.
fn split_txn(encoded: &[u8], bodies: &mut Vec<Body>) -> Option<Command<Given>> {
    let Ok((Command::Txn { compare, then, otherwise }, [])) = postcard::take_from_bytes(encoded)
    else {
        return None;
    };
    let lean = |Compare { key, test }: Compare| {
        let test = match test {
            Test::Value(value) if value.len() > MAX_INLINE_VALUE => {
                Test::Value(Given::Apart(Apart { len: value.length(), digest: value.digest() }))
            }
            Test::Value(value) => Test::Value(Given::Here(value)),
            Test::Exists(wanted) => Test::Exists(wanted),
            Test::Version(version) => Test::Version(version),
            Test::KeyVersion(version) => Test::KeyVersion(version),
            Test::OlderThan(micros) => Test::OlderThan(micros),
            Test::YoungerThan(micros) => Test::YoungerThan(micros),
        };
        Compare { key, test }
    };
    let compare = compare.into_iter().map(lean).collect();
    let mut branch = |branch: Vec<TxnOp>| {
        let lean = |op: TxnOp| match op {
            TxnOp::Put { key, value } => TxnOp::Put { key, value: apart(value.into(), bodies) },
            TxnOp::Delete { key } => TxnOp::Delete { key },
            TxnOp::Get { key } => TxnOp::Get { key },
        };
        branch.into_iter().map(lean).collect()
    };
    let (then, otherwise) = (branch(then), branch(otherwise));
    Some(Command::Txn { compare, then, otherwise })
}
