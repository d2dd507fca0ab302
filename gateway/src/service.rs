//! Requests of any protocol, checked and answered.
//!
//! A read whose answer is in memory is answered on the spot; one that must wait, or look at the disk, is
//! an [`Attempt::Slow`]: its caller spawns it.

use crate::{
    Backend, Counters, Restart, Shard,
    caller::Caller,
    large::Room,
    reading::{self, Position, Wanted},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;
use tradewind_client::wire::{
    Access, Answer, AsOf, Fault, Get, History, Incarnation, Level, List, Listed, PoolIndex,
    PoolInfo, Read, Response, Role, Welcome, Write,
};
use tradewind_ledger::Version;
use tradewind_store::{Command, Item, ItemValue, Reply, TxnOp, TxnResult, Walk, shard_of};

/// Most keys of a page, most changes of a history.
pub(crate) const PAGE_MAX: u32 = 10_000;
/// Bytes of values after which a page ends.
const PAGE_BYTES: usize = 4 << 20;
/// Longest time that a read may wait.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Reads that may wait or look at the disk at a time, in the whole process.
const SLOW_MAX: usize = 64;

/// What all connections of a process share.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) welcome: Arc<Welcome>,
    pub(crate) counters: Arc<Counters>,
    slow: Arc<Semaphore>,
    /// Room for large requests that are coming, or have no answer yet.
    pub(crate) large: Room,
    restart: Option<Arc<dyn Restart>>,
}

/// A read, found allowed and well formed.
pub(crate) struct Query {
    shard: Arc<dyn Shard>,
    read: Read,
    what: What,
}

enum What {
    Get { key: Vec<u8> },
    List { prefix: Vec<u8>, after: Option<Vec<u8>>, limit: usize, values: bool },
    History { key: Vec<u8>, before: Option<Version>, limit: usize },
}

/// What came of trying to answer on the spot.
pub(crate) enum Attempt {
    Done(Response),
    /// Something has to be waited for: leave it to [`Service::answer`].
    Slow(Query),
}

impl Service {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        counters: Arc<Counters>,
        large_bytes: usize,
        restart: Option<Arc<dyn Restart>>,
    ) -> Self {
        let welcome = Arc::new(backend.welcome());
        let slow = Arc::new(Semaphore::new(SLOW_MAX));
        let large = Room::new(large_bytes);
        Self { backend, welcome, counters, slow, large, restart }
    }

    /// The same, with what the backend says of itself now.
    pub(crate) fn renewed(&self) -> Self {
        let welcome = Arc::new(self.backend.welcome());
        Self { welcome, ..self.clone() }
    }

    fn pool(&self, index: PoolIndex) -> Result<&PoolInfo, Fault> {
        self.welcome
            .pools
            .get(index.0 as usize)
            .ok_or_else(|| self.no_such_pool(&format!("number {}", index.0)))
    }

    pub(crate) fn no_such_pool(&self, pool: &str) -> Fault {
        let pools = self.welcome.pools.iter().map(|pool| pool.name.clone()).collect();
        Fault::NoSuchPool { pool: pool.to_owned(), pools }
    }

    /// Whether `caller` may make this write here, and nothing is wrong with it. Tells whether it is a transaction
    /// that reads, whose reply may need [`Self::inline`].
    pub(crate) fn check_write(&self, caller: &Caller, write: &Write<'_>) -> Result<bool, Fault> {
        let pool = self.pool(write.pool)?;
        caller.check(&pool.name, Access::Write)?;
        if self.welcome.role == Role::Mirror {
            return Err(Fault::ReadOnly {
                server: self.welcome.server.clone(),
                pool: pool.name.clone(),
                home: pool.home.clone(),
            });
        }
        let shards = pool.shards.len() as u32;
        let right = |expected| match expected == write.shard {
            true => Ok(()),
            false => Err(Fault::WrongShard { found: write.shard, expected }),
        };
        if let Some(key) = Command::key_of_put(write.command) {
            return right(shard_of(key?, shards)).map(|()| false);
        }
        let command = Command::decode(write.command)?;
        right(command.shard(shards)?)?;
        let (Command::Txn { then, otherwise, .. }, _) = command.unwrap_settle()? else {
            return Ok(false);
        };
        Ok(then.iter().chain(&otherwise).any(|operation| matches!(operation, TxnOp::Get { .. })))
    }

    /// Whether `caller` may end this start of the process now: what begins it anew, to be told after the caller was
    /// answered; nothing if that start has ended already. Blocks on the disk.
    pub(crate) fn restart(
        &self,
        caller: &Caller,
        incarnation: Incarnation,
    ) -> Result<Option<&dyn Restart>, Fault> {
        let server = || self.welcome.server.clone();
        if !caller.is_administrator() {
            return Err(Fault::NotAdministrator { client: caller.name().into(), server: server() });
        }
        let own = self.backend.incarnation();
        if own > incarnation {
            return Ok(None);
        }
        let refused = |reason| Fault::RestartRefused { server: server(), reason };
        if own < incarnation {
            return Err(refused(format!("this is start {own}, start {incarnation} was meant")));
        }
        let Some(restart) = self.restart.as_deref() else {
            return Err(refused("it was embedded or started so that it cannot".into()));
        };
        restart.check().map_err(refused)?;
        Ok(Some(restart))
    }

    fn shard(&self, caller: &Caller, pool: PoolIndex, shard: u32) -> Result<Arc<dyn Shard>, Fault> {
        let info = self.pool(pool)?;
        caller.check(&info.name, Access::Read)?;
        let shards = info.shards.len() as u32;
        let Some(shard_info) = info.shards.get(shard as usize) else {
            return Err(Fault::NoSuchShard { pool: info.name.clone(), shard, shards });
        };
        self.backend.shard(pool, shard).ok_or_else(|| {
            let nodes = &self.welcome.nodes;
            let members = shard_info.members.iter().filter_map(|&m| nodes.get(m as usize));
            Fault::NotMember {
                server: self.welcome.server.clone(),
                pool: info.name.clone(),
                shard,
                members: members.map(|node| node.name.clone()).collect(),
            }
        })
    }

    fn shard_of_key(
        &self,
        caller: &Caller,
        pool: PoolIndex,
        key: &[u8],
    ) -> Result<Arc<dyn Shard>, Fault> {
        let shards = self.pool(pool)?.shards.len() as u32;
        self.shard(caller, pool, shard_of(key, shards))
    }

    pub(crate) fn get(&self, caller: &Caller, get: &Get<'_>) -> Result<Query, Fault> {
        let shard = self.shard_of_key(caller, get.pool, get.key)?;
        Ok(Query { shard, read: get.read, what: What::Get { key: get.key.to_vec() } })
    }

    pub(crate) fn list(&self, caller: &Caller, list: &List<'_>) -> Result<Query, Fault> {
        let shard = self.shard(caller, list.pool, list.shard)?;
        let what = What::List {
            prefix: list.prefix.to_vec(),
            after: list.after.map(|key| key.0.to_vec()),
            limit: list.limit.clamp(1, PAGE_MAX) as usize,
            values: list.values,
        };
        Ok(Query { shard, read: list.read, what })
    }

    pub(crate) fn history(&self, caller: &Caller, history: &History<'_>) -> Result<Query, Fault> {
        let shard = self.shard_of_key(caller, history.pool, history.key)?;
        let what = What::History {
            key: history.key.to_vec(),
            before: history.before,
            limit: history.limit.clamp(1, PAGE_MAX) as usize,
        };
        Ok(Query { shard, read: history.read, what })
    }

    /// Answers on the spot, if nothing has to be waited for. What wants a barrier is behind it.
    pub(crate) fn try_answer(query: Query) -> Attempt {
        debug_assert!(!query.wants_barrier());
        match query.position() {
            Err(_) if query.read.wait_ms > 0 => Attempt::Slow(query),
            Err(fault) => Attempt::Done(Err(fault)),
            Ok(Wanted::AtTime { .. }) => Attempt::Slow(query),
            Ok(Wanted::Found(position)) => {
                let (answer, rest) = query.look(position);
                match rest {
                    Rest::None => Attempt::Done(Ok(answer)),
                    _ => Attempt::Slow(query),
                }
            }
        }
    }

    /// Answers, however long it takes (though no longer than the read may wait).
    pub(crate) async fn answer(&self, query: Query) -> Response {
        let _slot = self.slow.acquire().await.expect("never closed");
        let wait = Duration::from_millis(query.read.wait_ms.into()).min(WAIT_MAX);
        let wanted = reading::wait(&*query.shard, &query.read, Instant::now() + wait).await?;
        let looking = tokio::task::spawn_blocking(move || query.resolve(wanted));
        looking.await.unwrap_or_else(|error| Err(Fault::Internal { reason: error.to_string() }))
    }

    /// [`Self::try_answer`], behind a barrier if the read wants one, and [`Self::answer`] if that does not do.
    pub(crate) async fn ask(&self, mut query: Query) -> Response {
        if query.wants_barrier() {
            query.barrier().await?;
            query = query.behind_barrier();
        }
        match Self::try_answer(query) {
            Attempt::Done(response) => response,
            Attempt::Slow(query) => self.answer(query).await,
        }
    }

    /// Puts the bytes of values that a transaction read into its reply. `ledger` is where it was executed.
    pub(crate) async fn inline(
        &self,
        shard: Arc<dyn Shard>,
        command: Vec<u8>,
        reply: Reply,
    ) -> Response {
        let _slot = self.slow.acquire().await.expect("never closed");
        let looking = tokio::task::spawn_blocking(move || inline_results(&*shard, &command, reply));
        let reply = looking
            .await
            .unwrap_or_else(|error| Err(Fault::Internal { reason: error.to_string() }));
        reply.map(Answer::Reply)
    }
}

/// Whether a reply holds values that must be looked up before it can be sent.
pub(crate) fn has_remote_values(reply: &Reply) -> bool {
    let Reply::Txn { results, .. } = reply else { return false };
    results.iter().any(|result| {
        matches!(result, TxnResult::Read(Some(item)) if !matches!(item.value, ItemValue::Inline(_)))
    })
}

fn inline_results(shard: &dyn Shard, command: &[u8], reply: Reply) -> Result<Reply, Fault> {
    let Reply::Txn { succeeded, written, mut results } = reply else { return Ok(reply) };
    let Ok((Command::Txn { then, otherwise, .. }, _)) =
        Command::decode(command).and_then(Command::unwrap_settle)
    else {
        return Err(Fault::Internal { reason: "a transaction's reply to something else".into() });
    };
    let branch = if succeeded { then } else { otherwise };
    for (operation, result) in branch.iter().zip(&mut results) {
        if let TxnResult::Read(Some(item)) = result {
            reading::inline(shard, operation.key(), item)?;
        }
    }
    Ok(Reply::Txn { succeeded, written, results })
}

impl Query {
    /// Whether the read has to see all that was acknowledged before it.
    pub(crate) fn wants_barrier(&self) -> bool {
        self.read.level == Level::Linearizable
    }

    /// Waits until all that was acknowledged before this call is readable here.
    pub(crate) async fn barrier(&self) -> Result<(), Fault> {
        self.shard.barrier().await
    }

    /// The same behind the barrier: what is here now is what it wants.
    pub(crate) fn behind_barrier(mut self) -> Self {
        self.read.level = Level::Local;
        self
    }

    /// Whether another one reads the same shard.
    pub(crate) fn is_of_shard(&self, other: &Query) -> bool {
        Arc::ptr_eq(&self.shard, &other.shard)
    }

    fn position(&self) -> Result<Wanted, Fault> {
        reading::position(&*self.shard, &self.read)
    }

    /// The answer as the store has it, and what is missing of it.
    fn look(&self, position: Position) -> (Answer, Rest) {
        let at = position.at;
        let as_of = AsOf {
            at,
            readable: position.readable,
            age_ms: u64::try_from(self.shard.age().as_millis()).unwrap_or(u64::MAX),
        };
        reading::look(&*self.shard, |store| match &self.what {
            What::Get { key } => match store.get(key, at) {
                Ok(item) => {
                    let is_here =
                        item.as_ref().is_none_or(|i| matches!(i.value, ItemValue::Inline(_)));
                    let rest = if is_here { Rest::None } else { Rest::Values };
                    (Answer::Item { item, as_of }, rest)
                }
                Err(walk) => (Answer::Item { item: None, as_of }, Rest::Item(walk)),
            },
            What::List { prefix, after, limit, values } => {
                let page = store.list(prefix, after.as_deref(), *limit, at);
                let is_here = !values && page.items.iter().all(|(_, item)| item.is_ok());
                let (items, rest) = match is_here {
                    true => (page.items.into_iter().filter_map(listed).collect(), Rest::None),
                    false => (Vec::new(), Rest::Page(page.items)),
                };
                (Answer::Page { items, next: page.next, as_of }, rest)
            }
            What::History { key, before, limit } => {
                let before = before.map_or(at, |before| before.min(at));
                let (mut revisions, walk) = store.history(key, before, limit + 1);
                let more = revisions.len() > *limit;
                revisions.truncate(*limit);
                let rest = walk.map_or(Rest::None, |walk| Rest::History(walk, before));
                (Answer::History { revisions, more, as_of }, rest)
            }
        })
    }

    /// The answer with all values. Blocks on the disk.
    fn resolve(&self, wanted: Wanted) -> Response {
        let shard = &*self.shard;
        let (mut answer, rest) = self.look(wanted.find(shard)?);
        match (&mut answer, rest) {
            (_, Rest::None) => {}
            (Answer::Item { item, as_of }, rest) => {
                if let Rest::Item(walk) = rest {
                    *item = reading::walk(shard, walk, as_of.at)?;
                }
                if let (Some(item), What::Get { key }) = (item, &self.what) {
                    reading::inline(shard, key, item)?;
                }
            }
            (Answer::Page { items, next, as_of }, Rest::Page(found)) => {
                let mut bytes = 0;
                for (key, item) in found {
                    let item = match item {
                        Ok(item) => Some(item),
                        Err(walk) => reading::walk(shard, walk, as_of.at)?,
                    };
                    let Some(mut item) = item else { continue };
                    if matches!(self.what, What::List { values: true, .. }) {
                        reading::inline(shard, &key, &mut item)?;
                        bytes += key.len() + item.bytes().map_or(0, |value| value.len());
                        if bytes > PAGE_BYTES && !items.is_empty() {
                            *next = items.last().map(|listed| listed.key.clone());
                            break;
                        }
                        items.push(Listed { key, item });
                    } else {
                        items.extend(listed((key, Ok(item))));
                    }
                }
            }
            (Answer::History { revisions, more, .. }, Rest::History(walk, before)) => {
                if let What::History { limit, .. } = &self.what {
                    let known = std::mem::take(revisions);
                    (*revisions, *more) =
                        reading::walk_history(shard, walk, known, before, limit + 1)?;
                    *more |= revisions.len() > *limit;
                    revisions.truncate(*limit);
                }
            }
            _ => unreachable!("the rest of another answer"),
        }
        Ok(answer)
    }
}

/// What a store does not have in memory of an answer.
enum Rest {
    None,
    /// Values of items.
    Values,
    /// An item.
    Item(Walk),
    /// Values, or items, of a page.
    Page(Vec<(Vec<u8>, Result<Item, Walk>)>),
    /// Changes among the first so many entries.
    History(Walk, Version),
}

/// A key of a page without its value.
fn listed((key, item): (Vec<u8>, Result<Item, Walk>)) -> Option<Listed> {
    let mut item = item.ok()?;
    item.value = ItemValue::Logged;
    Some(Listed { key, item })
}
