//! What is older than the store's [base](crate::Store::base) is in the ledger itself: each change of a key names the
//! one before it, and entries are in the order of their times.
//!
//! The store says where to begin; whoever can read the ledger goes on, entry by entry. The same code serves nodes and
//! mirrors, and where the ledger itself begins later because old segments were pruned, the reader says so.

use crate::{Item, ItemValue, Revision, read::update_of};
use alloc::{boxed::Box, vec::Vec};
use tradewind_ledger::{Entry, Hlc, KeyVersion, Version};

/// The ledger does not have what the store, or a later entry, says of it: one of them is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "entry {version} is not change {key_version} of the key, as a later one says: verify the ledger"
)]
pub struct BrokenChain {
    /// The entry.
    pub version: Version,
    /// The change that it should make.
    pub key_version: KeyVersion,
}

/// The way down a key's chain of changes, from one that is known to those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    key: Box<[u8]>,
    entry: Version,
    key_version: KeyVersion,
}

/// A change, the value it gave to the key, and where the change before it is.
type Past = (Revision, Option<ItemValue>, Option<Version>);

impl Walk {
    /// The entry `entry` makes the change `key_version` of `key`.
    pub(crate) fn new(key: &[u8], entry: Version, key_version: KeyVersion) -> Self {
        Self { key: key.into(), entry, key_version }
    }

    /// What the key was after the first `at` entries; `None` if it did not exist then.
    ///
    /// # Errors
    /// What `read`, which reads an entry of the ledger, gives; and [`BrokenChain`].
    pub fn item<E: From<BrokenChain>>(
        mut self,
        at: Version,
        mut read: impl FnMut(Version) -> Result<Entry, E>,
    ) -> Result<Option<Item>, E> {
        loop {
            let (revision, value, before) = self.look(&read(self.entry)?)?;
            let Revision { version, key_version, hlc, .. } = revision;
            if version < at {
                return Ok(value.map(|value| Item { version, key_version, hlc, value }));
            }
            let Some(before) = before else { return Ok(None) };
            self.go(before);
        }
    }

    /// The newest `limit` changes among the first `before` entries, newest first, with those `known` in front, and
    /// whether there may be more.
    ///
    /// # Errors
    /// As [`Walk::item`], unless at least one change is known by then: those before it are asked for by themselves.
    pub fn history<E: From<BrokenChain>>(
        mut self,
        known: Vec<Revision>,
        before: Version,
        limit: usize,
        mut read: impl FnMut(Version) -> Result<Entry, E>,
    ) -> Result<(Vec<Revision>, bool), E> {
        let mut revisions = known;
        while revisions.len() < limit {
            let looked = read(self.entry).and_then(|entry| Ok(self.look(&entry)?));
            let (revision, _, earlier) = match looked {
                Ok(past) => past,
                Err(_) if !revisions.is_empty() => return Ok((revisions, true)),
                Err(error) => return Err(error),
            };
            let is_new = revisions.last().is_none_or(|last| revision.version < last.version);
            if revision.version < before && is_new {
                revisions.push(revision);
            }
            let Some(earlier) = earlier else { return Ok((revisions, false)) };
            self.go(earlier);
        }
        Ok((revisions, true))
    }

    fn go(&mut self, before: Version) {
        self.entry = before;
        self.key_version.0 -= 1;
    }

    fn look(&self, entry: &Entry) -> Result<Past, BrokenChain> {
        let Self { key, entry: version, key_version } = self;
        let broken = BrokenChain { version: *version, key_version: *key_version };
        let update = update_of(entry, key).ok_or(broken)?;
        let goes_down = update.prev_version.is_none_or(|before| before < *version);
        if update.key_version != *key_version || !goes_down {
            return Err(broken);
        }
        let (version, key_version, hlc) = (*version, *key_version, entry.hlc);
        let revision = Revision { version, key_version, hlc, deleted: update.value.is_none() };
        let value = update.value.as_ref().map(ItemValue::from);
        Ok((revision, value, update.prev_version))
    }
}

/// Searches the entries before the store's base for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeSearch {
    hlc: Hlc,
    /// The first entry that is known to be later.
    later: Version,
}

impl TimeSearch {
    pub(crate) fn new(hlc: Hlc, later: Version) -> Self {
        Self { hlc, later }
    }

    /// How many entries were made at the time or earlier. `first` is the first entry that can be read.
    ///
    /// # Errors
    /// What `read`, which reads an entry of the ledger, gives. If the time is before that of the entry `first`, the
    /// entry before that one is asked for.
    pub fn find<E>(
        self,
        first: Version,
        mut read: impl FnMut(Version) -> Result<Entry, E>,
    ) -> Result<Version, E> {
        let Self { hlc, later } = self;
        // Every entry before `low` is at the time or earlier, every one from `high` on is later.
        let (mut low, mut high) = (first.min(later), later);
        while low < high {
            let middle = Version(low.0 + (high.0 - low.0) / 2);
            match read(middle)?.hlc <= hlc {
                true => low = middle.next(),
                false => high = middle,
            }
        }
        match low.0.checked_sub(1) {
            Some(before) if low <= first => {
                let before = Version(before);
                // Only the entry before the first can tell whether that is all.
                read(before).map(|_| low)
            }
            _ => Ok(low),
        }
    }
}
