//! Which state a read sees, waiting for it, and values that are not in memory.

use crate::{Horizon, Shard};
use std::time::{Duration, Instant};
use tradewind_client::wire::{At, Fault, Read};
use tradewind_ledger::{Entry, Hlc, Value, Version};
use tradewind_store::{Item, ItemValue, Store, value_in};

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
pub(crate) fn position(shard: &dyn Shard, read: &Read) -> Result<Position, Fault> {
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
            look(shard, |store| store.version_at(wanted)).min(readable)
        }
    };
    Ok(Position { at, readable })
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
) -> Result<Position, Fault> {
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

/// Replaces the place of an item's value by its bytes. Blocks on the disk.
pub(crate) fn inline(shard: &dyn Shard, key: &[u8], item: &mut Item) -> Result<(), Fault> {
    let failed = |what: String| {
        tracing::error!(ledger = %shard.id(), version = %item.version, "reading a value: {what}");
        Fault::Internal { reason: format!("reading a value of {}: {what}", shard.id()) }
    };
    if let ItemValue::Inline(_) = &item.value {
        return Ok(());
    }
    let detached = |digest: &_| shard.value(digest).map_err(|error| failed(error.to_string()));
    shard.await_own_disk(item.version).map_err(|error| failed(error.to_string()))?;
    let bytes = match &item.value {
        ItemValue::Inline(_) => unreachable!("nothing to do for it"),
        ItemValue::Detached { digest, .. } => detached(digest)?,
        ItemValue::Logged => {
            let bytes = shard.entry(item.version).map_err(|error| failed(error.to_string()))?;
            let entry = Entry::decode(&bytes).map_err(|error| failed(error.to_string()))?;
            match value_in(&entry, key) {
                Some(Value::Inline(bytes)) => bytes.clone(),
                Some(Value::Detached { digest, .. }) => detached(digest)?,
                None => return Err(failed("the entry does not write the key".into())),
            }
        }
    };
    item.value = ItemValue::Inline(bytes.into());
    Ok(())
}
