//! The state that the first N entries of a ledger amount to.

use crate::{
    Printable,
    fingerprint::{Effect, Fingerprint},
    record::{Latest, Record},
    session::{self, Sessions},
    snapshot::Since,
    timeline::Timeline,
};
use alloc::{boxed::Box, collections::BTreeMap};
use core::ops::Bound;
use smallvec::SmallVec;
use tradewind_ledger::{Body, Entry, Hlc, KeyVersion, RequestId, Update, Value, Version};

/// A key. Short ones are in the map's own nodes: a search that follows a pointer for each comparison waits for memory at
/// each.
pub(crate) type Key = SmallVec<[u8; 16]>;

/// The versioned keys and values of one shard; see the crate's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Store {
    pub(crate) keys: BTreeMap<Key, Record>,
    pub(crate) timeline: Timeline,
    pub(crate) sessions: Sessions,
    pub(crate) stats: Stats,
    pub(crate) since: Since,
}

/// How much a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Keys that exist.
    pub keys: u64,
    /// Keys that were deleted; their history remains.
    pub deleted_keys: u64,
    /// Changes of keys, over all time.
    pub changes: u64,
    /// Bytes of the existing keys and their values.
    pub bytes: u64,
}

/// Why an entry cannot be the next one. The store is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {version} does not follow: {fault}")]
pub struct ApplyError {
    /// The version under which the entry was given.
    pub version: Version,
    /// What is wrong with it.
    pub fault: ApplyFault,
}

/// What is wrong with an entry that does not follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyFault {
    /// Not the next version.
    #[error("the next version is {expected}")]
    Version {
        /// The next version.
        expected: Version,
    },
    /// Its time is not later than its predecessor's.
    #[error("its time {found} is not later than {last}, that of the entry before it")]
    Time {
        /// The entry's time.
        found: Hlc,
        /// Its predecessor's.
        last: Hlc,
    },
    /// It leaves out, or repeats, a change of a key.
    #[error(
        "it makes change {found} of the key {key} after version {found_prev:?}; due is change {expected} after \
         {expected_prev:?}"
    )]
    Chain {
        /// The key.
        key: Printable,
        /// Its change number in the entry.
        found: KeyVersion,
        /// The key's change before it, according to the entry.
        found_prev: Option<Version>,
        /// The number due.
        expected: KeyVersion,
        /// The key's last change.
        expected_prev: Option<Version>,
    },
    /// It deletes a key that does not exist, which no node logs outside of a transaction.
    #[error("it deletes the key {key}, which does not exist")]
    DeletesNothing {
        /// The key.
        key: Printable,
    },
}

impl Store {
    /// The state before the first entry.
    pub fn new() -> Self {
        Self::default()
    }

    /// The version of the next entry, which is the number of entries so far.
    pub fn next(&self) -> Version {
        self.timeline.next()
    }

    /// The time of the last entry.
    pub fn last_hlc(&self) -> Option<Hlc> {
        self.timeline.last()
    }

    /// From which version on all changes, and the times of all entries, are in memory; and of each key the last change
    /// before it. What is older is found in the ledger ([`Walk`](crate::Walk), [`TimeSearch`](crate::TimeSearch)).
    /// It makes no difference to what is answered, to entries made, or to other replicas.
    pub fn base(&self) -> Version {
        self.timeline.start()
    }

    /// Lets go of what is older than `base`, a part at a time, so that nobody waits for long: of about `keys` keys after
    /// `after`. Returns after which key to go on; `None` when all is done, and the store has the base `base`.
    ///
    /// A transaction that is repeated may then be answered by [`AnswerForgotten`](crate::Refusal::AnswerForgotten).
    pub fn compact(
        &mut self,
        base: Version,
        after: Option<&[u8]>,
        keys: usize,
    ) -> Option<Box<[u8]>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut left = keys.max(1);
        for (key, record) in self.keys.range_mut::<[u8], _>((from, Bound::Unbounded)) {
            record.compact(base, &self.timeline);
            left -= 1;
            if left == 0 {
                return Some(Box::from(&key[..]));
            }
        }
        self.timeline.forget_before(base);
        None
    }

    /// How much is in it.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// How many sessions it remembers.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Takes the next entry as a mirror, or a node that starts, does. The caller has verified the ledger; here it is
    /// checked that each key's chain of changes skips none.
    ///
    /// # Errors
    /// [`ApplyError`] if `entry` cannot be the entry `version`; then nothing is changed.
    pub fn apply(&mut self, version: Version, entry: &Entry) -> Result<(), ApplyError> {
        self.check(version, entry).map_err(|fault| ApplyError { version, fault })?;
        match &entry.body {
            Body::Put(write) => {
                let updates = core::slice::from_ref(&write.update);
                self.applied(write.request, Fingerprint::PUT, (version, entry.hlc), updates);
            }
            Body::Delete(write) => {
                let updates = core::slice::from_ref(&write.update);
                self.applied(write.request, Fingerprint::DELETE, (version, entry.hlc), updates);
            }
            Body::Txn(txn) => {
                self.applied(txn.request, Fingerprint::TXN, (version, entry.hlc), &txn.updates);
            }
            Body::Seal(_) | Body::View(_) | Body::Snapshot(_) | Body::Genesis(_) => {}
        }
        self.timeline.push(entry.hlc);
        Ok(())
    }

    fn check(&self, version: Version, entry: &Entry) -> Result<(), ApplyFault> {
        if version != self.next() {
            return Err(ApplyFault::Version { expected: self.next() });
        }
        if let Some(last) = self.last_hlc()
            && entry.hlc <= last
        {
            return Err(ApplyFault::Time { found: entry.hlc, last });
        }
        match &entry.body {
            Body::Put(write) => self.check_chain(&write.update),
            Body::Delete(write) => {
                self.check_chain(&write.update)?;
                match self.keys.get(&write.update.key[..]) {
                    Some(record) if record.exists() => Ok(()),
                    _ => Err(ApplyFault::DeletesNothing { key: Printable::new(&write.update.key) }),
                }
            }
            // Canonical encoding has a transaction's keys in ascending order: none comes twice.
            Body::Txn(txn) => txn.updates.iter().try_for_each(|update| self.check_chain(update)),
            Body::Seal(_) | Body::View(_) | Body::Snapshot(_) | Body::Genesis(_) => Ok(()),
        }
    }

    fn check_chain(&self, update: &Update) -> Result<(), ApplyFault> {
        let (expected, expected_prev) = self.due(&update.key);
        if (update.key_version, update.prev_version) == (expected, expected_prev) {
            return Ok(());
        }
        Err(ApplyFault::Chain {
            key: Printable::new(&update.key),
            found: update.key_version,
            found_prev: update.prev_version,
            expected,
            expected_prev,
        })
    }

    /// The number of the next change of `key`, and the version of the last.
    pub(crate) fn due(&self, key: &[u8]) -> (KeyVersion, Option<Version>) {
        match self.keys.get(key) {
            Some(record) => (KeyVersion(record.key_version().0 + 1), Some(record.version())),
            None => (KeyVersion(1), None),
        }
    }

    fn applied(
        &mut self,
        request: RequestId,
        kind: Fingerprint,
        (version, hlc): (Version, Hlc),
        updates: &[Update],
    ) {
        let mut fingerprint = kind;
        for update in updates {
            let value = update.value.as_ref();
            fingerprint = fingerprint.with(&update.key, &Effect::of(value));
            self.write(&update.key, (version, hlc), value);
        }
        let key_version = match updates {
            [update] if kind != Fingerprint::TXN => update.key_version,
            _ => KeyVersion(0),
        };
        self.executed(request, (version, hlc), key_version, fingerprint);
    }

    /// Notes that a request made the entry `version`, which is the next one.
    pub(crate) fn executed(
        &mut self,
        RequestId { session, number }: RequestId,
        (version, hlc): (Version, Hlc),
        key_version: KeyVersion,
        fingerprint: Fingerprint,
    ) {
        let record = session::Record { number, version, hlc, key_version, fingerprint };
        self.sessions.record(session, record);
    }

    /// Makes `value` that of `key`, or deletes it; gives the change's number and the version of the one before it.
    pub(crate) fn write(
        &mut self,
        key: &[u8],
        (version, hlc): (Version, Hlc),
        value: Option<&Value>,
    ) -> (KeyVersion, Option<Version>) {
        let stats = &mut self.stats;
        stats.changes += 1;
        let exists = value.is_some();
        let (size, inline) = match value {
            None => (0, 0),
            Some(Value::Inline(bytes)) => (bytes.len() as u64, bytes.len() as u64),
            Some(Value::Detached { len, .. }) => (*len, 0),
        };
        self.since.bytes += key.len() as u64 + inline;
        let (key_version, previous, existed, old_size) = match self.keys.get_mut(key) {
            Some(record) => {
                let (previous, existed) = (record.version(), record.exists());
                let old_size = record.latest().len();
                record.push(version, value);
                (record.key_version(), Some(previous), existed, old_size)
            }
            None => {
                let record = Record::new(version, KeyVersion(1), hlc, Latest::new(value));
                self.keys.insert(Key::from_slice(key), record);
                stats.deleted_keys += 1;
                (KeyVersion(1), None, false, 0)
            }
        };
        if existed {
            stats.keys -= 1;
            stats.deleted_keys += 1;
            stats.bytes -= old_size + key.len() as u64;
        }
        if exists {
            stats.keys += 1;
            stats.deleted_keys -= 1;
            stats.bytes += size + key.len() as u64;
        }
        (key_version, previous)
    }
}
