//! Which state a read sees, waiting for it, and values that are not in memory.

use crate::{Horizon, Shard};
use std::time::{Duration, Instant};
use tradewind_client::wire::{At, Fault, Read};
use tradewind_ledger::{Entry, Hlc, Value, Version};
use tradewind_store::{BrokenChain, Item, ItemValue, Revision, Store, TimeSearch, Walk, value_in};

/// How often the age of a state is looked at while a read waits for a fresher one.
const AGE_CHECK: Duration = Duration::from_millis(20);

/// The state that a read sees.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    /// The first so many entries.
    pub(crate) at: Version,
    /// Of so many.
    pub(crate) readable: Version,
}

/// A position, or how to find it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    /// There it is.
    Found(Position),
    /// At a time before those in memory: to be searched on the disk.
    AtTime { search: TimeSearch, readable: Version },
}

impl Wanted {
    /// The position. May block on the disk.
    pub(crate) fn find(self, shard: &dyn Shard) -> Result<Position, Fault> {
        match self {
            Self::Found(position) => Ok(position),
            Self::AtTime { search, readable } => {
                let at = search.find(shard.first(), |version| entry(shard, version));
                Ok(Position { at: at?.min(readable), readable })
            }
        }
    }
}

/// Calls `read` with the store.
pub(crate) fn look<R>(shard: &dyn Shard, read: impl FnOnce(&Store) -> R) -> R {
    let mut read = Some(read);
    let mut result = None;
    shard.with_store(&mut |store| {
        if let Some(read) = read.take() {
            result = Some(read(store));
        }
    });
    result.expect("a shard calls the closure that it is given")
}

/// The state that `read` wants, if the shard has it.
pub(crate) fn position(shard: &dyn Shard, read: &Read) -> Result<Wanted, Fault> {
    let horizon = *shard.horizon().borrow();
    let Horizon { readable, .. } = horizon;
    let needs = |wanted: Version| match wanted < readable {
        true => Ok(()),
        false => Err(Fault::NotYet { wanted, readable }),
    };
    if let Some(wanted) = read.min_version {
        needs(wanted)?;
    }
    if let Some(allowed_ms) = read.max_staleness_ms {
        let age_ms = u64::try_from(shard.age().as_millis()).unwrap_or(u64::MAX);
        if age_ms > u64::from(allowed_ms) {
            return Err(Fault::TooStale { age_ms, allowed_ms });
        }
    }
    let at = match read.at {
        At::Latest => readable,
        At::Version(wanted) => {
            needs(wanted)?;
            wanted.next()
        }
        At::Time(wanted) => {
            let covered = covered(shard, horizon);
            if wanted > covered {
                return Err(Fault::TimeNotYet { wanted, covered });
            }
            match look(shard, |store| store.version_at(wanted)) {
                Ok(at) => at.min(readable),
                Err(search) => return Ok(Wanted::AtTime { search, readable }),
            }
        }
    };
    Ok(Wanted::Found(Position { at, readable }))
}

/// The time up to which the shard has all entries.
pub(crate) fn covered(shard: &dyn Shard, horizon: Horizon) -> Hlc {
    let Some(last) = horizon.readable.0.checked_sub(1) else { return horizon.covered };
    let last = look(shard, |store| store.hlc_of(Version(last)));
    horizon.covered.max(last.unwrap_or_default())
}

/// Waits for the state that `read` wants, until `deadline`.
pub(crate) async fn wait(
    shard: &dyn Shard,
    read: &Read,
    deadline: Instant,
) -> Result<Wanted, Fault> {
    let mut horizon = shard.horizon();
    loop {
        horizon.mark_unchanged();
        let fault = match position(shard, read) {
            Ok(position) => return Ok(position),
            Err(fault) => fault,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(fault);
        }
        let pause = match fault {
            // A mirror may learn that it has all there is without any entry arriving.
            Fault::TooStale { .. } | Fault::TimeNotYet { .. } => left.min(AGE_CHECK),
            _ => left,
        };
        if let Ok(Err(_)) = tokio::time::timeout(pause, horizon.changed()).await {
            return Err(Fault::Unavailable { reason: "the server is going down".into() });
        }
    }
}

/// An entry below the horizon. Blocks on the disk.
pub(crate) fn entry(shard: &dyn Shard, version: Version) -> Result<Entry, Fault> {
    let pruned = || {
        let before = shard.first();
        (version < before).then(|| Fault::Pruned { ledger: shard.id().to_string(), before })
    };
    if let Some(fault) = pruned() {
        return Err(fault);
    }
    let read = || shard.await_own_disk(version).and_then(|()| shard.entry(version));
    // It may have been pruned meanwhile.
    let bytes =
        read().map_err(|error| pruned().unwrap_or_else(|| failed(shard, version, &error)))?;
    Entry::decode(&bytes).map_err(|error| failed(shard, version, &error))
}

fn failed(shard: &dyn Shard, version: Version, what: &dyn std::fmt::Display) -> Fault {
    tracing::error!(ledger = %shard.id(), %version, "reading a value: {what}");
    Fault::Internal { reason: format!("reading a value of {}: {what}", shard.id()) }
}

/// What `key` was after the first `at` entries, when that is older than what is in memory. Blocks on the disk.
pub(crate) fn walk(shard: &dyn Shard, walk: Walk, at: Version) -> Result<Option<Item>, Fault> {
    Ok(walk.item(at, |version| Ok::<_, Walked>(entry(shard, version)?))?)
}

/// The changes of a key that are older than those in memory, after these: the newest `limit` among the first `before`
/// entries, and whether there are more. Blocks on the disk.
pub(crate) fn walk_history(
    shard: &dyn Shard,
    walk: Walk,
    known: Vec<Revision>,
    before: Version,
    limit: usize,
) -> Result<(Vec<Revision>, bool), Fault> {
    let read = |version| Ok::<_, Walked>(entry(shard, version)?);
    Ok(walk.history(known, before, limit, read)?)
}

/// Why a walk ended.
struct Walked(Fault);

impl From<Fault> for Walked {
    fn from(fault: Fault) -> Self {
        Self(fault)
    }
}

impl From<BrokenChain> for Walked {
    fn from(broken: BrokenChain) -> Self {
        tracing::error!(%broken, "a key's chain of changes");
        Self(Fault::Internal { reason: broken.to_string() })
    }
}

impl From<Walked> for Fault {
    fn from(Walked(fault): Walked) -> Self {
        fault
    }
}

/// Replaces the place of an item's value by its bytes. Blocks on the disk.
pub(crate) fn inline(shard: &dyn Shard, key: &[u8], item: &mut Item) -> Result<(), Fault> {
    let version = item.version;
    let detached = |digest: &_| {
        let value = shard.await_own_disk(version).and_then(|()| shard.value(digest));
        value.map_err(|error| failed(shard, version, &error))
    };
    let bytes = match &item.value {
        ItemValue::Inline(_) => return Ok(()),
        ItemValue::Detached { digest, .. } => detached(digest)?,
        ItemValue::Logged => match value_in(&entry(shard, version)?, key) {
            Some(Value::Inline(bytes)) => bytes.clone(),
            Some(Value::Detached { digest, .. }) => detached(digest)?,
            None => return Err(failed(shard, version, &"the entry does not write the key")),
        },
    };
    item.value = ItemValue::Inline(bytes.into());
    Ok(())
}
