//! What clients asked and were told, key by key.

use std::collections::BTreeMap;

use tradewind_ledger::{KeyVersion, Version};
use tradewind_store::{Command, Condition, Current, Item, Refusal, Reply, TxnOp, TxnResult};

use super::report::{self, Violation};

/// One call on one key. Times are in any unit, from one clock that all clients share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// Who called; for the report only.
    pub client: usize,
    /// What was asked.
    pub op: Op,
    /// When the request was sent first.
    pub began: u64,
    /// When the reply came, and what it said; `None` if it is not known whether the call took effect.
    pub ended: Option<(u64, Outcome)>,
}

/// What is asked of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Its value.
    Get,
    /// To be given a value.
    Put {
        /// The value.
        value: Vec<u8>,
        /// What must hold.
        condition: Condition,
    },
    /// To be deleted, if it exists.
    Delete {
        /// What must hold.
        condition: Condition,
    },
    /// To be deleted as a transaction does: a change also of a key that does not exist.
    Erase,
}

/// What a reply says of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was this.
    Value(Option<Seen>),
    /// Changed.
    Written {
        /// By this entry.
        version: Version,
        /// For this time.
        key_version: KeyVersion,
    },
    /// Not changed: the condition did not hold.
    Conflict(Option<Current>),
    /// Not deleted: there was nothing.
    Absent,
}

/// What a read saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The entry that wrote the value.
    pub version: Version,
    /// How often the key was written.
    pub key_version: KeyVersion,
    /// The value, if the answer had it.
    pub value: Option<Vec<u8>>,
}

/// All calls of a run. All keys begin as never written.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct History {
    keys: BTreeMap<Vec<u8>, Vec<Call>>,
}

impl History {
    /// Adds a call.
    pub fn push(&mut self, key: &[u8], call: Call) {
        self.keys.entry(key.to_vec()).or_default().push(call);
    }

    /// Adds a read that was answered.
    pub fn record_get(
        &mut self,
        client: usize,
        key: &[u8],
        (began, ended): (u64, u64),
        item: Option<&Item>,
    ) {
        let outcome = Outcome::Value(item.map(Seen::of));
        self.push(key, Call { client, op: Op::Get, began, ended: Some((ended, outcome)) });
    }

    /// Adds a command, with its reply and the time of that; without one, it is not known whether it took effect. A
    /// transaction counts as one call on each of its keys: less than it promises, but never more.
    pub fn record(
        &mut self,
        client: usize,
        command: &Command,
        began: u64,
        ended: Option<(u64, &Reply)>,
    ) {
        let (at, reply) = match ended {
            // Executed without an effect, and what it saw is not told.
            Some((_, Reply::Refused(Refusal::AnswerLost { .. } | Refusal::OtherBody { .. }))) => {
                return;
            }
            Some((_, Reply::Refused(Refusal::Command(_)))) => return,
            None | Some((_, Reply::Refused(_))) => (0, None),
            Some((at, reply)) => (at, Some(reply)),
        };
        let mut push = |key: &[u8], op, outcome: Option<Outcome>| {
            let ended = outcome.map(|outcome| (at, outcome));
            self.push(key, Call { client, op, began, ended });
        };
        match command {
            Command::Put { key, value, condition } => {
                let op = Op::Put { value: value.clone(), condition: *condition };
                push(key, op, reply.map(outcome));
            }
            Command::Delete { key, condition } => {
                push(key, Op::Delete { condition: *condition }, reply.map(outcome));
            }
            Command::Txn { then, otherwise, .. } => match reply {
                Some(Reply::Txn { succeeded, written, results }) => {
                    let branch = if *succeeded { then } else { otherwise };
                    for (operation, result) in branch.iter().zip(results) {
                        let outcome = match result {
                            TxnResult::Read(item) => Outcome::Value(item.as_ref().map(Seen::of)),
                            TxnResult::Written { key_version } => {
                                let version = written.expect("it wrote").version;
                                Outcome::Written { version, key_version: *key_version }
                            }
                        };
                        push(operation.key(), op(operation), Some(outcome));
                    }
                }
                Some(other) => panic!("a transaction was answered {other:?}"),
                // Any of its writes may have happened.
                None => then.iter().chain(otherwise).for_each(|o| push(o.key(), op(o), None)),
            },
            Command::Settle { .. } => {
                let (command, _) = command.clone().unwrap_settle().expect("a command");
                self.record(client, &command, began, ended);
            }
        }
    }

    /// How many calls there are.
    pub fn calls(&self) -> usize {
        self.keys.values().map(Vec::len).sum()
    }

    /// Whether each key's calls are linearizable.
    ///
    /// # Errors
    /// The first key whose are not, with the calls that show it; or the key for which the search takes too long.
    pub fn check(&self) -> Result<(), Violation> {
        self.keys.iter().try_for_each(|(key, calls)| report::check(key, calls))
    }
}

impl Seen {
    fn of(item: &Item) -> Self {
        let value = item.bytes().map(|bytes| bytes.to_vec());
        Self { version: item.version, key_version: item.key_version, value }
    }
}

fn op(operation: &TxnOp) -> Op {
    match operation {
        TxnOp::Get { .. } => Op::Get,
        TxnOp::Put { value, .. } => Op::Put { value: value.clone(), condition: Condition::Always },
        TxnOp::Delete { .. } => Op::Erase,
    }
}

fn outcome(reply: &Reply) -> Outcome {
    match reply {
        Reply::Written { version, key_version, .. } => {
            Outcome::Written { version: *version, key_version: *key_version }
        }
        Reply::Conflict { current } => Outcome::Conflict(*current),
        Reply::Absent => Outcome::Absent,
        Reply::Txn { .. } | Reply::Refused(_) => panic!("a put or delete was answered {reply:?}"),
    }
}
