//! Simulated clients: one request at a time each, repeated at other nodes until it is answered.

use tradewind_ledger::{Hlc, RequestId, RequestNumber, SessionId, Version};
use tradewind_store::{Command, Compare, Condition, Durability, Reply, Test, TxnOp, session_id};

use super::plan::{BULK_ABOVE, Plan};
use super::rng::Rng;

/// What keys begin with that are written at durability memory.
const MEMORY: &str = "memory-";

/// A request of a client until its end.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) shard: usize,
    pub(crate) id: RequestId,
    pub(crate) durability: Durability,
    pub(crate) command: Vec<u8>,
    /// Submissions so far.
    pub(crate) attempts: u64,
    /// When the first was made.
    pub(crate) began: u64,
}

impl Request {
    /// What is submitted: after the first time, the command as one sent once more, for an earlier copy may be under way.
    pub(crate) fn submitted(&self) -> Vec<u8> {
        if self.attempts > 1 { Command::settle(&self.command) } else { self.command.clone() }
    }
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    session: SessionId,
    pub(crate) done: u64,
    pub(crate) current: Option<Request>,
    /// The shard, key and version that it wrote last.
    pub(crate) seen: Option<(usize, Vec<u8>, Version)>,
}

impl Client {
    pub(crate) fn new(index: usize) -> Self {
        let session = session_id(Hlc::from_micros(1_600_000_000_000_000), (index as u64) << 32);
        Self { session, done: 0, current: None, seen: None }
    }

    /// Makes the next request.
    pub(crate) fn next_request(&mut self, plan: &Plan, rng: &mut Rng, now: u64) -> Request {
        let memory = rng.percent(plan.memory_percent);
        let shard = rng.index(plan.shards.len());
        Request {
            shard,
            id: RequestId { session: self.session, number: RequestNumber(self.done + 1) },
            durability: if memory { Durability::Memory } else { Durability::Disk },
            command: self.command(plan, rng, shard, memory).encode(),
            attempts: 0,
            began: now,
        }
    }

    fn command(&self, plan: &Plan, rng: &mut Rng, shard: usize, memory: bool) -> Command {
        let command = command(plan, rng, memory);
        match (&self.seen, command) {
            // Whoever else wrote the key since makes this one fail.
            (Some((at, key, version)), Command::Put { value, .. })
                if *at == shard && !memory && rng.percent(25) =>
            {
                Command::Put { key: key.clone(), value, condition: Condition::Version(*version) }
            }
            (_, command) => command,
        }
    }
}

/// Keys begin with [`MEMORY`] if the request is durable in memory only: a crash of all may take it back.
fn command(plan: &Plan, rng: &mut Rng, memory: bool) -> Command {
    let kind = if memory { MEMORY } else { "key-" };
    let key = |rng: &mut Rng| format!("{kind}{}", rng.range(0..12)).into_bytes();
    let bulk = plan.bulk_percent > 0 && rng.percent(plan.bulk_percent);
    let len = match rng.percent(plan.big_percent) {
        _ if bulk => rng.range(BULK_ABOVE as u64..plan.bulk_bytes) as usize,
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
        3 | 4 => {
            let then = vec![TxnOp::Get { key: key(rng) }];
            Command::Txn { compare: Vec::new(), then, otherwise: Vec::new() }
        }
        _ => Command::Put { key: key(rng), value, condition: Condition::Always },
    }
}

/// What of [`Client::seen`] an answer tells.
pub(crate) fn written(
    shard: usize,
    command: &Command,
    reply: &Reply,
) -> Option<(usize, Vec<u8>, Version)> {
    let (Command::Put { key, .. }, Reply::Written { version, .. }) = (command, reply) else {
        return None;
    };
    Some((shard, key.clone(), *version))
}

/// The entry that an answer speaks of.
pub(crate) fn entry_of(reply: &Reply) -> Option<Version> {
    match reply {
        Reply::Written { version, .. } => Some(*version),
        Reply::Txn { written, .. } => written.map(|stamp| stamp.version),
        Reply::Conflict { .. } | Reply::Absent | Reply::Refused(_) => None,
    }
}
