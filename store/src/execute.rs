//! A command becomes an entry.

use crate::{
    Command, Compare, Condition, Current, Lean, Refusal, Reply, Stamp, Store, Test, TxnOp,
    TxnResult,
    command::{ENTRY_OVERHEAD, TXN_SMALL_VALUE, UPDATE_OVERHEAD},
    fingerprint::{Effect, Fingerprint},
    payload::{Apart, Payload, sha256},
    record::{Change, Latest, Record},
    session::{self, Seen},
};
use alloc::vec::Vec;
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

/// A value on its way into the entry, and, if it is long, beside the ledger.
struct Incoming {
    value: Option<Value>,
    detached: Option<(Digest, Vec<u8>)>,
}

impl Incoming {
    fn new<V: Payload>(value: Option<V>, inline_max: usize) -> Self {
        let beside =
            |len, digest, detached| Self { value: Some(Value::Detached { len, digest }), detached };
        match value.map(V::into_bytes) {
            None => Self { value: None, detached: None },
            Some(Ok(bytes)) if bytes.len() <= inline_max => {
                Self { value: Some(Value::Inline(bytes)), detached: None }
            }
            Some(Ok(bytes)) => {
                let digest = sha256(&bytes);
                beside(bytes.len() as u64, digest, Some((digest, bytes)))
            }
            Some(Err(Apart { len, digest })) => beside(len, digest, None),
        }
    }

    fn effect(&self) -> Effect<'_> {
        Effect::of(self.value.as_ref())
    }
}

impl Store {
    /// Executes `command` as the next in order, exactly once: if the request was executed before, gives its first
    /// reply again and makes no entry. (Only what the request wrote is compared with the first: conditions and reads
    /// are not in the ledger. A value read by a repeated transaction may be [`Logged`](crate::ItemValue::Logged).)
    ///
    /// A command that writes nothing makes no entry, unless it is sent [once more](Command::Settle).
    ///
    /// A command that breaks a limit is refused, by the same words at every replica.
    ///
    /// # Panics
    /// If `context` is not that of the next entry.
    pub fn execute(&mut self, context: Context, command: Command) -> Outcome {
        match command.check().and_then(|()| command.unwrap_settle()) {
            Ok((command, settle)) => self.execute_checked(context, command, settle),
            Err(error) => Outcome::only(Reply::Refused(error.into())),
        }
    }

    /// As [`execute`](Self::execute), of a command whose large values are elsewhere: to the same effect, entry and
    /// answer. The caller has the values that the entry mentions, and [`Outcome::detached`] leaves them out.
    ///
    /// # Panics
    /// As [`execute`](Self::execute).
    pub fn execute_lean(&mut self, context: Context, Lean { settle, command }: Lean) -> Outcome {
        match command.check_plain() {
            Ok(()) => self.execute_checked(context, command, settle),
            Err(error) => Outcome::only(Reply::Refused(error.into())),
        }
    }

    fn execute_checked<V: Payload>(
        &mut self,
        context: Context,
        command: Command<V>,
        settle: bool,
    ) -> Outcome {
        assert_eq!(context.version, self.next(), "commands are executed in order");
        assert!(self.last_hlc() < Some(context.hlc), "time goes forward");
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
        let mut outcome = match command {
            Command::Put { key, value, condition } => {
                self.execute_one(context, key, Some(value), condition)
            }
            Command::Delete { key, condition } => {
                self.execute_one::<V>(context, key, None, condition)
            }
            Command::Txn { compare, then, otherwise } => {
                self.execute_txn(context, &compare, then, otherwise)
            }
            Command::Settle { .. } => unreachable!("unwrapped above"),
        };
        if settle && outcome.entry.is_none() {
            outcome.entry = Some(self.settled(context));
        }
        outcome
    }

    /// The entry of a request that wrote nothing.
    fn settled(&mut self, Context { version, hlc, view, request }: Context) -> Entry {
        self.executed(request, (version, hlc), KeyVersion(0), Fingerprint::TXN);
        self.timeline.push(hlc);
        Entry { hlc, view, body: Body::Txn(Txn { request, updates: Vec::new() }) }
    }

    fn execute_one<V: Payload>(
        &mut self,
        context: Context,
        key: Vec<u8>,
        value: Option<V>,
        condition: Condition,
    ) -> Outcome {
        let Context { version, hlc, request, view } = context;
        if value.is_none() || condition != Condition::Always {
            let current = self.keys.get(&key[..]).filter(|record| record.exists());
            let current = current.map(Record::current);
            if let Some(reply) = without_effect(condition, current, value.is_some()) {
                return Outcome::only(reply);
            }
        }
        let kind = if value.is_some() { Fingerprint::PUT } else { Fingerprint::DELETE };
        let incoming = Incoming::new(value, MAX_INLINE_VALUE);
        let fingerprint = kind.with(&key, &incoming.effect());
        let (key_version, prev_version) = self.write(&key, (version, hlc), incoming.value.as_ref());
        self.executed(request, (version, hlc), key_version, fingerprint);
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

    fn execute_txn<V: Payload>(
        &mut self,
        context: Context,
        compare: &[Compare<V>],
        then: Vec<TxnOp<V>>,
        otherwise: Vec<TxnOp<V>>,
    ) -> Outcome {
        let Context { version, hlc, request, view } = context;
        let succeeded = compare.iter().all(|compare| self.holds(compare, hlc));
        let branch = if succeeded { then } else { otherwise };
        let results = self.results(&branch, version).expect("present changes are in memory");
        let mut updates = Vec::new();
        let mut detached = Vec::new();
        let mut fingerprint = Fingerprint::TXN;
        for (key, incoming) in incoming(branch) {
            fingerprint = fingerprint.with(&key, &incoming.effect());
            let (key_version, prev_version) =
                self.write(&key, (version, hlc), incoming.value.as_ref());
            updates.push(Update { key, key_version, prev_version, value: incoming.value });
            detached.extend(incoming.detached);
        }
        if updates.is_empty() {
            return Outcome::only(Reply::Txn { succeeded, written: None, results });
        }
        self.executed(request, (version, hlc), KeyVersion(0), fingerprint);
        self.timeline.push(hlc);
        let body = Body::Txn(Txn { request, updates });
        let written = Some(Stamp { version, hlc });
        let reply = Reply::Txn { succeeded, written, results };
        Outcome { entry: Some(Entry { hlc, view, body }), detached, reply }
    }

    fn holds<V: Payload>(&self, compare: &Compare<V>, now: Hlc) -> bool {
        self.held(compare, self.next(), now).expect("present values are in memory")
    }

    /// Whether a comparison held after the first `at` entries, at the time `now`; `None` if that depends on something
    /// that is no longer in memory.
    fn held<V: Payload>(
        &self,
        Compare { key, test }: &Compare<V>,
        at: Version,
        now: Hlc,
    ) -> Option<bool> {
        let record = self.keys.get(&key[..]);
        let current = match record {
            Some(record) => record.current_before(at).ok()?.map(|current| (record, current)),
            None => None,
        };
        Some(match (test, current) {
            (Test::Exists(wanted), current) => *wanted == current.is_some(),
            (_, None) => false,
            (Test::Version(version), Some((_, (_, current)))) => current.version == *version,
            (Test::KeyVersion(version), Some((_, (_, current)))) => current.key_version == *version,
            (Test::OlderThan(micros), Some((record, (change, _)))) => {
                self.age(record, change, now) >= *micros
            }
            (Test::YoungerThan(micros), Some((record, (change, _)))) => {
                self.age(record, change, now) < *micros
            }
            (Test::Value(_), Some((record, (_, current))))
                if record.version() != current.version =>
            {
                return None;
            }
            (Test::Value(wanted), Some((record, _))) => match record.latest() {
                Latest::Deleted => unreachable!("it exists"),
                // What is elsewhere is longer than any value that is in memory.
                Latest::Inline(bytes) => Some(&bytes[..]) == wanted.bytes(),
                Latest::Detached(detached) => {
                    detached.0 == wanted.length() && detached.1 == wanted.digest()
                }
            },
        })
    }

    /// Microseconds from a change of a key to the time `now`.
    fn age(&self, record: &Record, change: Change, now: Hlc) -> u64 {
        now.micros().saturating_sub(record.hlc(change, &self.timeline).micros())
    }

    /// What a transaction at `version` answers for each operation; the same before it is executed and ever after.
    /// `None` if that is no longer in memory.
    fn results<V>(&self, branch: &[TxnOp<V>], version: Version) -> Option<Vec<TxnResult>> {
        let result = |operation: &TxnOp<V>| {
            let record = self.keys.get(operation.key());
            Some(match operation {
                TxnOp::Get { .. } => TxnResult::Read(match record {
                    Some(record) => record.item(version, &self.timeline).ok()?,
                    None => None,
                }),
                TxnOp::Put { .. } | TxnOp::Delete { .. } => TxnResult::Written {
                    key_version: match record {
                        None => KeyVersion(1),
                        Some(record) => match record.changed_by(version) {
                            Some(key_version) => key_version,
                            None => {
                                let before = record.before(version).ok()?;
                                KeyVersion(before.map_or(0, |(number, _)| number.0) + 1)
                            }
                        },
                    },
                },
            })
        };
        branch.iter().map(result).collect()
    }

    /// The first reply of a request that was executed, or a refusal if that wrote something else.
    fn repeated<V: Payload>(
        &self,
        first: session::Record,
        context: Context,
        command: Command<V>,
    ) -> Reply {
        let version = first.version;
        let number = context.request.number;
        if first.fingerprint == Fingerprint::TXN {
            let lost = Refusal::AnswerLost { number, version };
            return self.repeated_without_effect(first, command, Reply::Refused(lost));
        }
        let session::Record { hlc, key_version, .. } = first;
        let one = |kind: Fingerprint, key: &[u8], value: Option<V>| {
            let incoming = Incoming::new(value, MAX_INLINE_VALUE);
            let same = kind.with(key, &incoming.effect()) == first.fingerprint;
            same.then_some(Reply::Written { version, key_version, hlc })
        };
        let reply = match command {
            Command::Put { key, value, .. } => one(Fingerprint::PUT, &key, Some(value)),
            Command::Delete { key, .. } => one(Fingerprint::DELETE, &key, None),
            Command::Txn { then, otherwise, .. } => {
                let branch = |succeeded, branch: Vec<TxnOp<V>>| {
                    let results = self.results(&branch, version);
                    let fingerprint = incoming(branch)
                        .fold(Fingerprint::TXN, |f, (key, value)| f.with(&key, &value.effect()));
                    let written = Some(Stamp { version, hlc });
                    let reply = match results {
                        Some(results) => Reply::Txn { succeeded, written, results },
                        None => Reply::Refused(Refusal::AnswerForgotten { number, version }),
                    };
                    (fingerprint == first.fingerprint).then_some(reply)
                };
                branch(true, then).or_else(|| branch(false, otherwise))
            }
            Command::Settle { .. } => unreachable!("unwrapped before"),
        };
        reply.unwrap_or(Reply::Refused(Refusal::OtherBody { number, version }))
    }

    /// The first reply of a request that was executed at `version` and wrote nothing: it follows from the state before.
    /// Of a command that would have written, which is another one, and of one whose answer can no longer be told,
    /// `lost`.
    fn repeated_without_effect<V: Payload>(
        &self,
        session::Record { version, hlc: now, .. }: session::Record,
        command: Command<V>,
        lost: Reply,
    ) -> Reply {
        let one = |key: &[u8], condition, puts| {
            let current = match self.keys.get(key) {
                Some(record) => record.current_before(version).ok()?.map(|(_, current)| current),
                None => None,
            };
            without_effect(condition, current, puts)
        };
        let reply = match command {
            Command::Put { key, condition, .. } => one(&key, condition, true),
            Command::Delete { key, condition } => one(&key, condition, false),
            Command::Txn { compare, then, otherwise } => {
                let held = compare.iter().map(|compare| self.held(compare, version, now));
                let held = held.collect::<Option<Vec<bool>>>().map(|held| !held.contains(&false));
                held.and_then(|succeeded| {
                    let branch = if succeeded { then } else { otherwise };
                    let reads_only = branch.iter().all(|operation| operation.write().is_none());
                    let results = self.results(&branch, version).filter(|_| reads_only)?;
                    Some(Reply::Txn { succeeded, written: None, results })
                })
            }
            Command::Settle { .. } => unreachable!("unwrapped before"),
        };
        reply.unwrap_or(lost)
    }
}

/// The reply to a put, or a delete, that writes nothing; `None` if it writes.
fn without_effect(condition: Condition, current: Option<Current>, puts: bool) -> Option<Reply> {
    let holds = match condition {
        Condition::Always => true,
        Condition::Absent => current.is_none(),
        Condition::Version(version) => current.is_some_and(|c| c.version == version),
    };
    match current {
        current if !holds => Some(Reply::Conflict { current }),
        None if !puts => Some(Reply::Absent),
        _ => None,
    }
}

/// The writes of a branch, by ascending key as the entry has them; the longer values are detached if the entry would
/// not hold them all.
fn incoming<V: Payload>(branch: Vec<TxnOp<V>>) -> impl Iterator<Item = (Vec<u8>, Incoming)> {
    let size = |op: &TxnOp<V>| {
        op.write().map_or(0, |(key, value)| {
            let value = value.map_or(0, V::length) as usize;
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
