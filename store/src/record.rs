//! One key: its present value and the chain of its versions, as far as it is in memory.

use crate::{Current, Item, ItemValue, Revision, Walk, timeline::Timeline};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use tradewind_ledger::{Digest, Hlc, KeyVersion, Value, Version};

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
    /// The value that an update gives; `None`: it deletes the key.
    pub(crate) fn new(value: Option<&Value>) -> Self {
        match value {
            None => Self::Deleted,
            Some(Value::Inline(bytes)) => Self::Inline(Arc::from(&bytes[..])),
            Some(Value::Detached { len, digest }) => Self::Detached(Box::new((*len, *digest))),
        }
    }

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

/// The change is older than those in memory: it is found in the ledger, from the oldest one on down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Earlier {
    oldest: Version,
    key_version: KeyVersion,
}

impl Earlier {
    pub(crate) fn walk(self, key: &[u8]) -> Walk {
        Walk::new(key, self.oldest, self.key_version)
    }
}

/// A change of a key, with which one it is.
pub(crate) type Numbered = (KeyVersion, Change);

/// A key that was written at least once. Its n-th change has key version n, counted from 1.
///
/// Of its changes the latest ones are here, without a gap. The time of the oldest of them is here too, the times of the
/// others are in the timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    oldest: Change,
    oldest_key_version: KeyVersion,
    oldest_hlc: Hlc,
    later: Vec<Change>,
    latest: Latest,
}

impl Record {
    pub(crate) fn new(version: Version, key_version: KeyVersion, hlc: Hlc, latest: Latest) -> Self {
        let oldest = Change::new(version, matches!(latest, Latest::Deleted));
        let (oldest_key_version, oldest_hlc) = (key_version, hlc);
        Self { oldest, oldest_key_version, oldest_hlc, later: Vec::new(), latest }
    }

    pub(crate) fn push(&mut self, version: Version, value: Option<&Value>) {
        debug_assert!(self.version() < version);
        self.later.push(Change::new(version, value.is_none()));
        self.latest = Latest::new(value);
    }

    /// Lets go of the changes before the last one among the first `base` entries.
    pub(crate) fn compact(&mut self, base: Version, timeline: &Timeline) {
        let gone = self.later.partition_point(|change| change.version() < base);
        let Some(oldest) = gone.checked_sub(1).map(|index| self.later[index]) else { return };
        self.oldest_hlc = self.hlc(oldest, timeline);
        self.oldest = oldest;
        self.oldest_key_version.0 += gone as u64;
        self.later = self.later.split_off(gone);
    }

    pub(crate) fn latest(&self) -> &Latest {
        &self.latest
    }

    fn last(&self) -> Change {
        *self.later.last().unwrap_or(&self.oldest)
    }

    pub(crate) fn version(&self) -> Version {
        self.last().version()
    }

    pub(crate) fn key_version(&self) -> KeyVersion {
        KeyVersion(self.oldest_key_version.0 + self.later.len() as u64)
    }

    pub(crate) fn exists(&self) -> bool {
        !self.last().deleted()
    }

    /// When a change that is here was made.
    pub(crate) fn hlc(&self, change: Change, timeline: &Timeline) -> Hlc {
        if change == self.oldest {
            return self.oldest_hlc;
        }
        timeline.at(change.version()).expect("the times of all but the oldest change are there")
    }

    /// What is known of the value it has, if it exists.
    pub(crate) fn current(&self) -> Current {
        Current { version: self.version(), key_version: self.key_version() }
    }

    /// The value it had after the first `at` entries, if it existed: which change, and what is known of it.
    pub(crate) fn current_before(&self, at: Version) -> Result<Option<(Change, Current)>, Earlier> {
        let found = self.before(at)?.filter(|(_, change)| !change.deleted());
        Ok(found.map(|(key_version, change)| {
            (change, Current { version: change.version(), key_version })
        }))
    }

    /// The key version of the change made by the entry `version`, if that changed this key.
    pub(crate) fn changed_by(&self, version: Version) -> Option<KeyVersion> {
        let (key_version, change) = self.before(version.next()).ok()??;
        (change.version() == version).then_some(key_version)
    }

    /// The newest change among the first `at` entries, if there was any.
    pub(crate) fn before(&self, at: Version) -> Result<Option<Numbered>, Earlier> {
        if self.version() < at {
            return Ok(Some((self.key_version(), self.last())));
        }
        let first = self.oldest_key_version;
        let count = self.later.partition_point(|change| change.version() < at);
        match count.checked_sub(1) {
            Some(index) => Ok(Some((KeyVersion(first.0 + count as u64), self.later[index]))),
            None if self.oldest.version() < at => Ok(Some((first, self.oldest))),
            None => self.earlier().map_or(Ok(None), Err),
        }
    }

    /// Whether there are older changes than those here.
    fn earlier(&self) -> Option<Earlier> {
        let key_version = self.oldest_key_version;
        (key_version > KeyVersion(1))
            .then_some(Earlier { oldest: self.oldest.version(), key_version })
    }

    /// What the key was after the first `at` entries; `None` if it did not exist.
    pub(crate) fn item(&self, at: Version, timeline: &Timeline) -> Result<Option<Item>, Earlier> {
        let Some((key_version, change)) = self.before(at)? else { return Ok(None) };
        let version = change.version();
        let value = if version == self.version() {
            self.latest.item_value()
        } else if change.deleted() {
            None
        } else {
            Some(ItemValue::Logged)
        };
        let hlc = self.hlc(change, timeline);
        Ok(value.map(|value| Item { version, key_version, hlc, value }))
    }

    /// The newest `limit` changes among the first `at` entries, newest first, as far as they are here; and where
    /// others are, if that is not all.
    pub(crate) fn history(
        &self,
        at: Version,
        limit: usize,
        timeline: &Timeline,
    ) -> (Vec<Revision>, Option<Earlier>) {
        let first = self.oldest_key_version.0;
        let changes = core::iter::once(&self.oldest).chain(&self.later).zip(first..);
        let revision = |(change, key_version): (&Change, u64)| Revision {
            version: change.version(),
            key_version: KeyVersion(key_version),
            hlc: self.hlc(*change, timeline),
            deleted: change.deleted(),
        };
        let count = 1 + self.later.len();
        let here = match self.oldest.version() < at {
            true => 1 + self.later.partition_point(|change| change.version() < at),
            false => 0,
        };
        debug_assert!(here <= count);
        let skip = here.saturating_sub(limit);
        let mut revisions: Vec<_> = changes.take(here).skip(skip).map(revision).collect();
        revisions.reverse();
        let earlier = self.earlier().filter(|_| here < limit);
        (revisions, earlier)
    }
}
