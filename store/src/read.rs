//! Reads: always of the state after some number of entries, `at`, which may be earlier than the newest.

use crate::{Item, Page, Revision, Store, TimeSearch, Walk};
use alloc::vec::Vec;
use core::ops::Bound;
use tradewind_ledger::{Body, Entry, Hlc, Update, Value, Version};

/// Keys a listing looks at for each one it may give, deleted ones and those not yet written at `at` included.
const EXAMINED_FACTOR: usize = 16;

impl Store {
    /// What `key` was after the first `at` entries; `None` if it did not exist then.
    ///
    /// # Errors
    /// If that is older than what is in memory: the [`Walk`] through the ledger that finds it. Never if `at` is at
    /// least the [base](Store::base).
    pub fn get(&self, key: &[u8], at: Version) -> Result<Option<Item>, Walk> {
        let Some(record) = self.keys.get(key) else { return Ok(None) };
        record.item(at, &self.timeline).map_err(|earlier| earlier.walk(key))
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
            match record.item(at, &self.timeline) {
                Ok(None) => {}
                Ok(Some(item)) => page.items.push((key.to_vec(), Ok(item))),
                Err(earlier) => page.items.push((key.to_vec(), Err(earlier.walk(key)))),
            }
        }
        page
    }

    /// The newest `limit` changes of `key` among the first `before` entries, newest first, as far as they are in
    /// memory, and the walk that finds the others. Continue with the version of the last one as `before`.
    pub fn history(
        &self,
        key: &[u8],
        before: Version,
        limit: usize,
    ) -> (Vec<Revision>, Option<Walk>) {
        let Some(record) = self.keys.get(key) else { return (Vec::new(), None) };
        let (revisions, earlier) = record.history(before, limit, &self.timeline);
        (revisions, earlier.map(|earlier| earlier.walk(key)))
    }

    /// How many entries were made at `hlc` or earlier: the `at` of "the state at that time".
    ///
    /// # Errors
    /// If that is before the [base](Store::base): the search through the ledger that finds it.
    pub fn version_at(&self, hlc: Hlc) -> Result<Version, TimeSearch> {
        self.timeline.through(hlc).ok_or_else(|| TimeSearch::new(hlc, self.base()))
    }

    /// When the entry `version` was made; `None` if it does not exist, or is before the [base](Store::base) and not
    /// the last one.
    pub fn hlc_of(&self, version: Version) -> Option<Hlc> {
        self.timeline.at(version)
    }
}

/// The value that `entry` gave to `key`: what an [`ItemValue::Logged`](crate::ItemValue::Logged) stands for. `None`
/// if it wrote none.
pub fn value_in<'a>(entry: &'a Entry, key: &[u8]) -> Option<&'a Value> {
    update_of(entry, key)?.value.as_ref()
}

/// The change of `key` that `entry` makes.
pub(crate) fn update_of<'a>(entry: &'a Entry, key: &[u8]) -> Option<&'a Update> {
    let update = match &entry.body {
        Body::Put(write) | Body::Delete(write) => Some(&write.update),
        Body::Txn(txn) => txn.updates.iter().find(|update| update.key == key),
        Body::Seal(_) | Body::View(_) | Body::Snapshot(_) | Body::Genesis(_) => None,
    };
    update.filter(|update| update.key == key)
}
