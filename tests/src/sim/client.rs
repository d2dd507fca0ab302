//! Simulated clients: one request at a time each, repeated at other nodes until it is answered.

use tradewind_ledger::{Hlc, RequestId, RequestNumber, SessionId};
use tradewind_store::{Command, Compare, Condition, Durability, Reply, Test, TxnOp, session_id};

use super::plan::Plan;
use super::rng::Rng;

/// A request of a client until its end.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) shard: usize,
    pub(crate) id: RequestId,
    pub(crate) durability: Durability,
    pub(crate) command: Vec<u8>,
    /// Submissions so far.
    pub(crate) attempts: u64,
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    session: SessionId,
    pub(crate) done: u64,
    pub(crate) current: Option<Request>,
}

impl Client {
    pub(crate) fn new(index: usize) -> Self {
        let session = session_id(Hlc::from_micros(1_600_000_000_000_000), (index as u64) << 32);
        Self { session, done: 0, current: None }
    }

    /// Makes the next request.
    pub(crate) fn next_request(&mut self, plan: &Plan, rng: &mut Rng) -> Request {
        let memory = rng.percent(plan.memory_percent);
        Request {
            shard: rng.index(plan.shards.len()),
            id: RequestId { session: self.session, number: RequestNumber(self.done + 1) },
            durability: if memory { Durability::Memory } else { Durability::Disk },
            command: command(plan, rng).encode(),
            attempts: 0,
        }
    }
}

fn command(plan: &Plan, rng: &mut Rng) -> Command {
    let key = |rng: &mut Rng| format!("key-{}", rng.range(0..12)).into_bytes();
    let len = match rng.percent(plan.big_percent) {
        // Several messages, and sometimes a detached value.
        true if rng.percent(60) && plan.limits.message_bytes >= 2_000 => 33_000,
        true => plan.limits.message_bytes * rng.range(1..5) as usize,
        false => rng.range(0..120) as usize,
    };
    let fill = rng.next();
    let value: Vec<u8> = (0..len as u64).map(|i| (fill.wrapping_mul(i | 1) >> 32) as u8).collect();
    match rng.range(0..10) {
        0 => Command::Delete { key: key(rng), condition: Condition::Always },
        1 => Command::Put { key: key(rng), value, condition: Condition::Absent },
        2 => {
            let (read, put) = (key(rng), key(rng));
            let compare = vec![Compare { key: read.clone(), test: Test::Exists(true) }];
            let then = vec![TxnOp::Get { key: read }, TxnOp::Put { key: put, value }];
            Command::Txn { compare, then, otherwise: vec![TxnOp::Delete { key: key(rng) }] }
        }
        _ => Command::Put { key: key(rng), value, condition: Condition::Always },
    }
}

/// The entry that an answer speaks of.
pub(crate) fn entry_of(reply: &Reply) -> Option<tradewind_ledger::Version> {
    match reply {
        Reply::Written { version, .. } => Some(*version),
        Reply::Txn { written, .. } => written.map(|stamp| stamp.version),
        Reply::Conflict { .. } | Reply::Absent | Reply::Refused(_) => None,
    }
}
