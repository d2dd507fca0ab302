//! Follows every key from change to change: versions without a gap, each naming the one before.

use std::collections::HashMap;

use tradewind_ledger::{KeyVersion, Update, Version};

/// The latest change of each key.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// Changes before it were pruned.
    first: Version,
    latest: HashMap<Vec<u8>, (KeyVersion, Version)>,
}

impl Keys {
    /// The keys of a ledger of which the entries from `first` on are there.
    pub(crate) fn new(first: Version) -> Self {
        Self { first, latest: HashMap::new() }
    }

    /// Takes up a change by the entry `version`; says what is wrong with it.
    pub(crate) fn follow(&mut self, version: Version, update: &Update) -> Result<(), String> {
        let before = match self.latest.get_mut(&update.key) {
            Some(latest) => {
                let before = *latest;
                *latest = (update.key_version, version);
                Some(before)
            }
            None => {
                self.latest.insert(update.key.clone(), (update.key_version, version));
                None
            }
        };
        let pruned = |prev: Version| prev < self.first && update.key_version.0 > 1;
        if before.is_none() && update.prev_version.is_some_and(pruned) {
            return Ok(());
        }
        let expected = before.map_or(1, |(latest, _)| latest.0.wrapping_add(1));
        let previous = before.map(|(_, version)| version);
        if update.key_version.0 == expected && update.prev_version == previous {
            return Ok(());
        }
        let show = |version: Option<Version>| version.map_or("none".into(), |v| v.to_string());
        Err(format!(
            "key `{}` has key version {} and previous version {}, where {expected} and {} follow",
            update.key.escape_ascii(),
            update.key_version,
            show(update.prev_version),
            show(previous),
        ))
    }
}
