//! Reads: always of the state after some number of entries, `at`, which may be earlier than the newest.

use crate::{Item, Page, Revision, Store};
use core::ops::Bound;
use tradewind_ledger::{Body, Entry, Hlc, Value, Version};

/// Keys a listing looks at for each one it may give, deleted ones and those not yet written at `at` included.
const EXAMINED_FACTOR: usize = 16;

impl Store {
    /// What `key` was after the first `at` entries; `None` if it did not exist then.
    pub fn get(&self, key: &[u8], at: Version) -> Option<Item> {
        self.keys.get(key)?.item(at, &self.timeline)
    }

    /// Up to `limit` keys that begin with `prefix` and come after `after`, in ascending order, with what they were
    /// after the first `at` entries. Continue with [`Page::next`] as `after` and the same `at`.
    pub fn list(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize, at: Version) -> Page {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut page = Page::default();
        let mut last = None;
        let mut examined = limit.saturating_mul(EXAMINED_FACTOR).max(1024);
        for (key, record) in self.keys.range::<[u8], _>((from, Bound::Unbounded)) {
            if !key.starts_with(prefix) {
                break;
            }
            if page.items.len() >= limit || examined == 0 {
                page.next = last.map(<[u8]>::to_vec);
                break;
            }
            examined -= 1;
            last = Some(&key[..]);
            if let Some(item) = record.item(at, &self.timeline) {
                page.items.push((key.to_vec(), item));
            }
        }
        page
    }

    /// The newest `limit` changes of `key` among the first `before` entries, newest first. Continue with the version
    /// of the last one as `before`.
    pub fn history(&self, key: &[u8], before: Version, limit: usize) -> alloc::vec::Vec<Revision> {
        let Some(record) = self.keys.get(key) else { return alloc::vec::Vec::new() };
        let revision = |(key_version, change): (_, crate::record::Change)| {
            let version = change.version();
            let hlc = self.timeline.at(version);
            Revision { version, key_version, hlc, deleted: change.deleted() }
        };
        record.changes(before).rev().take(limit).map(revision).collect()
    }

    /// How many entries were made at `hlc` or earlier: the `at` of "the state at that time".
    pub fn version_at(&self, hlc: Hlc) -> Version {
        self.timeline.through(hlc)
    }

    /// When the entry `version` was made; `None` if it does not exist.
    pub fn hlc_of(&self, version: Version) -> Option<Hlc> {
        (version < self.next()).then(|| self.timeline.at(version))
    }
}

/// The value that `entry` gave to `key`: what an [`ItemValue::Logged`](crate::ItemValue::Logged) stands for. `None`
/// if it wrote none.
pub fn value_in<'a>(entry: &'a Entry, key: &[u8]) -> Option<&'a Value> {
    let update = match &entry.body {
        Body::Put(write) | Body::Delete(write) => Some(&write.update),
        Body::Txn(txn) => txn.updates.iter().find(|update| update.key == key),
        Body::Seal(_) | Body::View(_) | Body::Genesis(_) => None,
    };
    update.filter(|update| update.key == key)?.value.as_ref()
}
