//! One key: its present value and the chain of its versions.

use crate::{Current, Item, ItemValue, timeline::Timeline};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use tradewind_ledger::{Digest, KeyVersion, Version};

/// The version of one change of a key, and whether it was a deletion, in eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change(u64);

impl Change {
    fn new(version: Version, deleted: bool) -> Self {
        Self(version.0 << 1 | u64::from(deleted))
    }

    pub(crate) fn version(self) -> Version {
        Version(self.0 >> 1)
    }

    pub(crate) fn deleted(self) -> bool {
        self.0 & 1 == 1
    }
}

/// The value a key has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Latest {
    Deleted,
    Inline(Arc<[u8]>),
    /// Boxed, so that a key with a small value does not pay for it.
    Detached(Box<(u64, Digest)>),
}

impl Latest {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Deleted => 0,
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Detached(detached) => detached.0,
        }
    }

    fn item_value(&self) -> Option<ItemValue> {
        match self {
            Self::Deleted => None,
            Self::Inline(bytes) => Some(ItemValue::Inline(Arc::clone(bytes))),
            Self::Detached(detached) => {
                let (length, digest) = **detached;
                Some(ItemValue::Detached { length, digest })
            }
        }
    }
}

/// A key that was written at least once. Its n-th change has key version n, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    older: Vec<Change>,
    last: Change,
    latest: Latest,
}

impl Record {
    pub(crate) fn new(version: Version, latest: Latest) -> Self {
        let last = Change::new(version, matches!(latest, Latest::Deleted));
        Self { older: Vec::new(), last, latest }
    }

    pub(crate) fn push(&mut self, version: Version, latest: Latest) {
        debug_assert!(self.last.version() < version);
        self.older.push(self.last);
        self.last = Change::new(version, matches!(latest, Latest::Deleted));
        self.latest = latest;
    }

    pub(crate) fn latest(&self) -> &Latest {
        &self.latest
    }

    pub(crate) fn version(&self) -> Version {
        self.last.version()
    }

    pub(crate) fn key_version(&self) -> KeyVersion {
        KeyVersion(self.older.len() as u64 + 1)
    }

    pub(crate) fn exists(&self) -> bool {
        !self.last.deleted()
    }

    /// What is known of the value it has, if it exists.
    pub(crate) fn current(&self) -> Current {
        Current { version: self.version(), key_version: self.key_version() }
    }

    /// What was known of the value it had after the first `at` entries, if it existed.
    pub(crate) fn current_before(&self, at: Version) -> Option<Current> {
        let (key_version, change) = self.before(at)?;
        (!change.deleted()).then(|| Current { version: change.version(), key_version })
    }

    /// The key version of the change made by the entry `version`, if that changed this key.
    pub(crate) fn changed_by(&self, version: Version) -> Option<KeyVersion> {
        let (key_version, change) = self.before(version.next())?;
        (change.version() == version).then_some(key_version)
    }

    /// The newest change among the first `at` entries.
    pub(crate) fn before(&self, at: Version) -> Option<(KeyVersion, Change)> {
        if self.last.version() < at {
            return Some((self.key_version(), self.last));
        }
        let index = self.older.partition_point(|change| change.version() < at);
        Some((KeyVersion(index as u64), *self.older.get(index.checked_sub(1)?)?))
    }

    /// What the key was after the first `at` entries; `None` if it did not exist.
    pub(crate) fn item(&self, at: Version, timeline: &Timeline) -> Option<Item> {
        let (key_version, change) = self.before(at)?;
        let version = change.version();
        let value = if version == self.version() {
            self.latest.item_value()?
        } else if change.deleted() {
            return None;
        } else {
            ItemValue::Logged
        };
        Some(Item { version, key_version, hlc: timeline.at(version), value })
    }

    /// All changes among the first `at` entries, oldest first.
    pub(crate) fn changes(
        &self,
        at: Version,
    ) -> impl DoubleEndedIterator<Item = (KeyVersion, Change)> {
        let last = (self.last.version() < at).then_some(self.last);
        let older = self.older.partition_point(|change| change.version() < at);
        let older_count = self.older.len() as u64;
        self.older[..older]
            .iter()
            .enumerate()
            .map(|(index, change)| (KeyVersion(index as u64 + 1), *change))
            .chain(last.map(|change| (KeyVersion(older_count + 1), change)))
    }
}
