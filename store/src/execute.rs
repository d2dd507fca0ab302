//! A command becomes an entry.

use crate::{
    Command, Compare, Condition, Current, Refusal, Reply, Stamp, Store, Test, TxnOp, TxnResult,
    command::{ENTRY_OVERHEAD, TXN_SMALL_VALUE, UPDATE_OVERHEAD},
    fingerprint::{Effect, Fingerprint},
    record::{Latest, Record},
    session::{self, Seen},
};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use sha2::{Digest as _, Sha256};
use tradewind_ledger::{
    Body, Digest, Entry, Hlc, KeyVersion, RequestId, Txn, Update, Value, Version, ViewId, Write,
    entry::{MAX_ENTRY, MAX_INLINE_VALUE},
};

/// Under what a command is executed: agreed by the replicas, the same at each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The version of the entry that the command may make: [`Store::next`].
    pub version: Version,
    /// The entry's time, later than that of the entry before it.
    pub hlc: Hlc,
    /// The view in which it is ordered.
    pub view: ViewId,
    /// Whose request it is.
    pub request: RequestId,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The entry to append to the ledger; it is already part of the state. `None` if nothing was written.
    pub entry: Option<Entry>,
    /// Values that the entry mentions only by hash: to be stored before the entry is.
    pub detached: Vec<(Digest, Vec<u8>)>,
    /// The answer to the client.
    pub reply: Reply,
}

impl Outcome {
    fn only(reply: Reply) -> Self {
        Self { entry: None, detached: Vec::new(), reply }
    }
}

/// A value on its way: into the entry, into the index, and, if it is long, beside the ledger.
struct Incoming {
    value: Option<Value>,
    latest: Latest,
    detached: Option<(Digest, Vec<u8>)>,
}

impl Incoming {
    fn new(value: Option<Vec<u8>>, inline_max: usize) -> Self {
        match value {
            None => Self { value: None, latest: Latest::Deleted, detached: None },
            Some(bytes) if bytes.len() <= inline_max => Self {
                latest: Latest::Inline(Arc::from(&bytes[..])),
                value: Some(Value::Inline(bytes)),
                detached: None,
            },
            Some(bytes) => {
                let (len, digest) = (bytes.len() as u64, sha256(&bytes));
                Self {
                    value: Some(Value::Detached { len, digest }),
                    latest: Latest::Detached(Box::new((len, digest))),
                    detached: Some((digest, bytes)),
                }
            }
        }
    }

    fn effect(&self) -> Effect<'_> {
        match &self.value {
            None => Effect::Deleted,
            Some(Value::Inline(bytes)) => Effect::Inline(bytes),
            Some(Value::Detached { digest, .. }) => Effect::Detached(digest),
        }
    }
}

impl Store {
    /// Executes `command` as the next in order, exactly once: if the request was executed before, gives its first
    /// reply again and makes no entry. (Only what the request wrote is compared with the first: conditions and reads
    /// are not in the ledger. A value read by a repeated transaction may be [`Logged`](crate::ItemValue::Logged).)
    ///
    /// A command that breaks a limit is refused, by the same words at every replica.
    ///
    /// # Panics
    /// If `context` is not that of the next entry.
    pub fn execute(&mut self, context: Context, command: Command) -> Outcome {
        assert_eq!(context.version, self.next(), "commands are executed in order");
        assert!(self.last_hlc() < Some(context.hlc), "time goes forward");
        if let Err(error) = command.check() {
            return Outcome::only(Reply::Refused(error.into()));
        }
        match self.sessions.seen(context.request) {
            Seen::New => {}
            Seen::Executed(record) => {
                return Outcome::only(self.repeated(record, context, command));
            }
            Seen::Expired { highest } => {
                let number = context.request.number;
                return Outcome::only(Reply::Refused(Refusal::Expired { number, highest }));
            }
            Seen::SessionExpired => {
                return Outcome::only(Reply::Refused(Refusal::SessionExpired));
            }
        }
        match command {
            Command::Put { key, value, condition } => {
                self.execute_one(context, key, Some(value), condition)
            }
            Command::Delete { key, condition } => self.execute_one(context, key, None, condition),
            Command::Txn { compare, then, otherwise } => {
                self.execute_txn(context, &compare, then, otherwise)
            }
        }
    }

    fn execute_one(
        &mut self,
        context: Context,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
        condition: Condition,
    ) -> Outcome {
        let Context { version, hlc, request, view } = context;
        if value.is_none() || condition != Condition::Always {
            let current = self.keys.get(&key[..]).filter(|record| record.exists());
            let holds = match condition {
                Condition::Always => true,
                Condition::Absent => current.is_none(),
                Condition::Version(version) => current.is_some_and(|r| r.version() == version),
            };
            if !holds {
                return Outcome::only(Reply::Conflict { current: current.map(Record::current) });
            }
            if value.is_none() && current.is_none() {
                return Outcome::only(Reply::Absent);
            }
        }
        let kind = if value.is_some() { Fingerprint::PUT } else { Fingerprint::DELETE };
        let incoming = Incoming::new(value, MAX_INLINE_VALUE);
        let fingerprint = kind.with(&key, &incoming.effect());
        let (key_version, prev_version) = self.write(&key, version, incoming.latest);
        self.sessions.record(request, version, hlc, fingerprint);
        self.timeline.push(hlc);
        let is_put = incoming.value.is_some();
        let update = Update { key, key_version, prev_version, value: incoming.value };
        let write = Write { request, update };
        let body = if is_put { Body::Put(write) } else { Body::Delete(write) };
        Outcome {
            entry: Some(Entry { hlc, view, body }),
            detached: incoming.detached.into_iter().collect(),
            reply: Reply::Written { version, key_version, hlc },
        }
    }

    fn execute_txn(
        &mut self,
        context: Context,
        compare: &[Compare],
        then: Vec<TxnOp>,
        otherwise: Vec<TxnOp>,
    ) -> Outcome {
        let Context { version, hlc, request, view } = context;
        let succeeded = compare.iter().all(|compare| self.holds(compare));
        let branch = if succeeded { then } else { otherwise };
        let results = self.results(&branch, version);
        let mut updates = Vec::new();
        let mut detached = Vec::new();
        let mut fingerprint = Fingerprint::TXN;
        for (key, incoming) in incoming(branch) {
            fingerprint = fingerprint.with(&key, &incoming.effect());
            let (key_version, prev_version) = self.write(&key, version, incoming.latest);
            updates.push(Update { key, key_version, prev_version, value: incoming.value });
            detached.extend(incoming.detached);
        }
        if updates.is_empty() {
            return Outcome::only(Reply::Txn { succeeded, written: None, results });
        }
        self.sessions.record(request, version, hlc, fingerprint);
        self.timeline.push(hlc);
        let body = Body::Txn(Txn { request, updates });
        let written = Some(Stamp { version, hlc });
        let reply = Reply::Txn { succeeded, written, results };
        Outcome { entry: Some(Entry { hlc, view, body }), detached, reply }
    }

    fn holds(&self, Compare { key, test }: &Compare) -> bool {
        let current = self.keys.get(&key[..]).filter(|record| record.exists());
        match (test, current) {
            (Test::Exists(wanted), current) => *wanted == current.is_some(),
            (_, None) => false,
            (Test::Version(version), Some(record)) => record.version() == *version,
            (Test::KeyVersion(version), Some(record)) => record.key_version() == *version,
            (Test::Value(wanted), Some(record)) => match record.latest() {
                Latest::Deleted => unreachable!("filtered out above"),
                Latest::Inline(bytes) => bytes[..] == wanted[..],
                Latest::Detached(detached) => {
                    detached.0 == wanted.len() as u64 && detached.1 == sha256(wanted)
                }
            },
        }
    }

    /// What a transaction at `version` answers for each operation; the same before it is executed and ever after.
    fn results(&self, branch: &[TxnOp], version: Version) -> Vec<TxnResult> {
        let result = |operation: &TxnOp| {
            let record = self.keys.get(operation.key());
            match operation {
                TxnOp::Get { .. } => {
                    TxnResult::Read(record.and_then(|record| record.item(version, &self.timeline)))
                }
                TxnOp::Put { .. } | TxnOp::Delete { .. } => {
                    let before = record.and_then(|record| record.before(version));
                    TxnResult::Written { key_version: KeyVersion(before.map_or(0, |b| b.0.0) + 1) }
                }
            }
        };
        branch.iter().map(result).collect()
    }

    /// The first reply of a request that was executed, or a refusal if that wrote something else.
    fn repeated(&self, first: session::Record, context: Context, command: Command) -> Reply {
        let version = first.version;
        let hlc = self.timeline.at(version);
        let one = |kind: Fingerprint, key: &[u8], value: Option<Vec<u8>>| {
            let incoming = Incoming::new(value, MAX_INLINE_VALUE);
            let same = kind.with(key, &incoming.effect()) == first.fingerprint;
            let record = self.keys.get(key).filter(|_| same)?;
            let key_version = record.changed_by(version)?;
            Some(Reply::Written { version, key_version, hlc })
        };
        let reply = match command {
            Command::Put { key, value, .. } => one(Fingerprint::PUT, &key, Some(value)),
            Command::Delete { key, .. } => one(Fingerprint::DELETE, &key, None),
            Command::Txn { then, otherwise, .. } => {
                let branch = |succeeded, branch: Vec<TxnOp>| {
                    let results = self.results(&branch, version);
                    let fingerprint = incoming(branch)
                        .fold(Fingerprint::TXN, |f, (key, value)| f.with(&key, &value.effect()));
                    let written = Some(Stamp { version, hlc });
                    (fingerprint == first.fingerprint).then_some(Reply::Txn {
                        succeeded,
                        written,
                        results,
                    })
                };
                branch(true, then).or_else(|| branch(false, otherwise))
            }
        };
        let number = context.request.number;
        reply.unwrap_or(Reply::Refused(Refusal::OtherBody { number, version }))
    }
}

/// The writes of a branch, by ascending key as the entry has them; the longer values are detached if the entry would
/// not hold them all.
fn incoming(branch: Vec<TxnOp>) -> impl Iterator<Item = (Vec<u8>, Incoming)> {
    let size = |op: &TxnOp| {
        op.write().map_or(0, |(key, value)| {
            let value = value.map_or(0, <[u8]>::len);
            UPDATE_OVERHEAD + key.len() + if value > MAX_INLINE_VALUE { 0 } else { value }
        })
    };
    let fits = ENTRY_OVERHEAD + branch.iter().map(size).sum::<usize>() <= MAX_ENTRY;
    let inline_max = if fits { MAX_INLINE_VALUE } else { TXN_SMALL_VALUE };
    let mut writes: Vec<_> = branch
        .into_iter()
        .filter_map(|operation| match operation {
            TxnOp::Put { key, value } => Some((key, Some(value))),
            TxnOp::Delete { key } => Some((key, None)),
            TxnOp::Get { .. } => None,
        })
        .collect();
    writes.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    writes.into_iter().map(move |(key, value)| (key, Incoming::new(value, inline_max)))
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

impl Record {
    fn current(&self) -> Current {
        Current { version: self.version(), key_version: self.key_version() }
    }
}
