//! Replay: checks all of a ledger that its entries alone can show.
//!
//! Feed it every entry from the first on, or from a [`Base`] on. It checks, in this order: strict decoding; a genesis first and
//! only first; time strictly increasing; views (an entry is of the view in force, and only a VIEW entry
//! begins a new one, of a higher number); that a SNAPSHOT is of entries before it; every field of every SEAL; the limits of
//! a segment. What needs the keys' state (key and previous versions, a SNAPSHOT's root), detached values or signatures is
//! checked elsewhere.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::base::{Base, InForce, Parts};
use crate::entry::{Body, Entry, EntryError, Genesis, Member, Seal, SnapshotRecord};
use crate::ids::{Digest, Hlc, Lineage, Version, ViewId};
use crate::segment::{MAX_SEGMENT_BYTES, MAX_SEGMENT_ENTRIES, SegmentTracker};
use crate::tree::CompactRange;

/// The state after the entries so far. Cloning costs O(log size) and the keys of the open segment.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    tracker: SegmentTracker,
    start: Option<Start>,
    view: ViewId,
    members: Arc<Vec<Member>>,
    last_seal: Option<(Version, Seal)>,
    in_force: Option<InForce>,
    snapshot: Option<(Version, SnapshotRecord)>,
    base: Option<Arc<Base>>,
    /// The SEAL made last, with its time and the size it was made for: it needs no second look.
    made: Option<(Version, Hlc, Seal)>,
}

#[derive(Clone, Debug)]
struct Start {
    genesis: Arc<Genesis>,
    lineage: Lineage,
}

/// What is wrong with entry `version`. The replay is as it was before that entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {version}: {kind}")]
pub struct ReplayError {
    /// Which entry.
    pub version: Version,
    /// What is wrong with it.
    #[source]
    pub kind: ReplayErrorKind,
}

/// What can be wrong with an entry that follows others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayErrorKind {
    /// The bytes are not an entry.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The ledger begins with something else.
    #[error("a ledger begins with a GENESIS entry")]
    NotGenesis,
    /// A second beginning.
    #[error("a second GENESIS entry")]
    SecondGenesis,
    /// Time stands still or runs backwards.
    #[error("its time {found} is not after {previous}, the time of the entry before")]
    Time {
        /// Its time.
        found: Hlc,
        /// The time before.
        previous: Hlc,
    },
    /// Of another view than the one in force, or a VIEW that does not begin a higher one.
    #[error("its view is {found} while view {current} is in force")]
    View {
        /// Its view.
        found: ViewId,
        /// The view in force.
        current: ViewId,
    },
    /// A SEAL says something else than what is there.
    #[error("the SEAL's {field} does not match the segment")]
    Seal {
        /// The first field that differs.
        field: &'static str,
        /// What the SEAL should say.
        expected: alloc::boxed::Box<Seal>,
    },
    /// A SNAPSHOT of entries that come after it.
    #[error("a SNAPSHOT of the first {size} entries, which are not all before it")]
    Snapshot {
        /// Entries that it is said to be of.
        size: Version,
    },
    /// The segment has no end.
    #[error("the segment has more than {MAX_SEGMENT_ENTRIES} entries or {MAX_SEGMENT_BYTES} bytes")]
    SegmentTooLong,
}

impl Replay {
    /// The state before the first entry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The state after the entries below a base: as if all of them had been taken up.
    #[must_use]
    pub fn from_base(base: &Base) -> Self {
        let (version, seal) = base.seal();
        let genesis = Arc::clone(base.shared_genesis());
        Self {
            tracker: SegmentTracker::after_seal(base),
            start: Some(Start { genesis, lineage: base.lineage() }),
            view: base.view(),
            members: Arc::new(base.members().to_vec()),
            last_seal: Some((version, *seal)),
            in_force: base.in_force().cloned(),
            snapshot: None,
            base: Some(Arc::new(base.clone())),
            made: None,
        }
    }

    /// The state after the last SEAL, wherever the replay has come since; `None` before the first SEAL.
    #[must_use]
    pub fn base(&self) -> Option<&Arc<Base>> {
        self.base.as_ref()
    }

    /// The SEAL entry that closes the open segment at the time `hlc`, in the view in force. To take it up is cheap then: the
    /// root over the segment's keys, which it holds, is not computed again to check it.
    pub fn make_seal(&mut self, hlc: Hlc) -> Entry {
        let seal = self.tracker.seal(hlc);
        self.made = Some((self.size(), hlc, seal));
        Entry { hlc, view: self.view, body: Body::Seal(seal) }
    }

    /// Takes up the next entry from its bytes.
    ///
    /// # Errors
    /// See [`ReplayErrorKind`]; the state is then unchanged.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Entry, ReplayError> {
        let entry = Entry::decode(bytes)
            .map_err(|error| ReplayError { version: self.size(), kind: error.into() })?;
        self.observe(bytes, &entry)?;
        Ok(entry)
    }

    /// Takes up the next entry when the caller has it decoded already: `bytes` must be its encoding.
    /// Returns its leaf hash.
    ///
    /// # Errors
    /// As [`Replay::push`].
    pub fn observe(&mut self, bytes: &[u8], entry: &Entry) -> Result<Digest, ReplayError> {
        let version = self.size();
        self.check(bytes, entry).map_err(|kind| ReplayError { version, kind })?;
        let before = matches!(entry.body, Body::Seal(_)).then(|| self.compact_range().clone());
        let leaf = self.tracker.observe(bytes, entry);
        self.view = entry.view;
        match &entry.body {
            Body::Genesis(genesis) => {
                self.members = Arc::new(genesis.members.clone());
                let genesis = Arc::new(genesis.clone());
                self.start = Some(Start { genesis, lineage: Lineage(leaf) });
            }
            Body::View(record) => {
                self.members = Arc::new(record.members.clone());
                let record = Arc::new(record.clone());
                self.in_force = Some(InForce { version, hlc: entry.hlc, record });
            }
            Body::Seal(seal) => {
                self.last_seal = Some((version, *seal));
                let before = before.expect("kept for a SEAL");
                self.base = Some(Arc::new(self.base_after(*seal, before, entry.hlc, leaf)));
            }
            Body::Snapshot(record) => self.snapshot = Some((version, *record)),
            Body::Put(_) | Body::Delete(_) | Body::Txn(_) => {}
        }
        Ok(leaf)
    }

    fn base_after(&self, seal: Seal, before: CompactRange, hlc: Hlc, leaf: Digest) -> Base {
        let Start { genesis, lineage } = self.start.clone().expect("a SEAL is never the first");
        let (view, view_id) = (self.in_force.clone(), self.view);
        Base::of_replay(Parts { genesis, lineage, view, before, seal, hlc, view_id, leaf })
    }

    fn check(&self, bytes: &[u8], entry: &Entry) -> Result<(), ReplayErrorKind> {
        let is_genesis = matches!(entry.body, Body::Genesis(_));
        if self.start.is_none() {
            return if is_genesis { Ok(()) } else { Err(ReplayErrorKind::NotGenesis) };
        }
        if is_genesis {
            return Err(ReplayErrorKind::SecondGenesis);
        }
        let previous = self.tracker.last_hlc();
        if entry.hlc <= previous {
            return Err(ReplayErrorKind::Time { found: entry.hlc, previous });
        }
        let view_fits = match entry.body {
            Body::View(_) => entry.view > self.view,
            _ => entry.view == self.view,
        };
        if !view_fits {
            return Err(ReplayErrorKind::View { found: entry.view, current: self.view });
        }
        if self.tracker.bytes() + bytes.len() as u64 > MAX_SEGMENT_BYTES
            || self.tracker.count() >= MAX_SEGMENT_ENTRIES
        {
            return Err(ReplayErrorKind::SegmentTooLong);
        }
        match &entry.body {
            Body::Seal(seal) if self.made == Some((self.size(), entry.hlc, *seal)) => Ok(()),
            Body::Seal(seal) => check_seal(seal, self.tracker.seal(entry.hlc)),
            Body::Snapshot(record) if record.size > self.size() => {
                Err(ReplayErrorKind::Snapshot { size: record.size })
            }
            _ => Ok(()),
        }
    }

    /// Entries so far.
    #[must_use]
    pub fn size(&self) -> Version {
        self.tracker.size()
    }

    /// The root over them.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.tracker.tree().root()
    }

    /// The right edge of the tree over them.
    #[must_use]
    pub fn compact_range(&self) -> &CompactRange {
        self.tracker.tree()
    }

    /// Running state of the open segment: when to seal, and what the SEAL says.
    #[must_use]
    pub fn segment(&self) -> &SegmentTracker {
        &self.tracker
    }

    /// The ledger's beginning; `None` before the first entry.
    #[must_use]
    pub fn genesis(&self) -> Option<&Genesis> {
        self.start.as_ref().map(|start| &*start.genesis)
    }

    /// The ledger's identity; `None` before the first entry.
    #[must_use]
    pub fn lineage(&self) -> Option<Lineage> {
        self.start.as_ref().map(|start| start.lineage)
    }

    /// The view in force.
    #[must_use]
    pub fn view(&self) -> ViewId {
        self.view
    }

    /// The members of the view in force, by rank; none before the first entry.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Time of the last entry; zero before the first.
    #[must_use]
    pub fn last_hlc(&self) -> Hlc {
        self.tracker.last_hlc()
    }

    /// Leaf hash of the last entry; zero before the first.
    #[must_use]
    pub fn last_leaf(&self) -> Digest {
        self.tracker.last_leaf()
    }

    /// The last SNAPSHOT and its version, if there is one among the entries that were taken up.
    #[must_use]
    pub fn snapshot(&self) -> Option<&(Version, SnapshotRecord)> {
        self.snapshot.as_ref()
    }

    /// The last SEAL and its version, if there is one.
    #[must_use]
    pub fn last_seal(&self) -> Option<&(Version, Seal)> {
        self.last_seal.as_ref()
    }
}

fn check_seal(found: &Seal, expected: Seal) -> Result<(), ReplayErrorKind> {
    let fields = [
        ("segment number", found.segment == expected.segment),
        ("first version", found.first == expected.first),
        ("count", found.count == expected.count),
        ("hash of the previous SEAL", found.prev_seal == expected.prev_seal),
        ("root before it", found.root_before == expected.root_before),
        ("root of the keys", found.keys_root == expected.keys_root),
        ("first time", found.hlc_first == expected.hlc_first),
        ("last time", found.hlc_last == expected.hlc_last),
        ("policy epoch", found.policy_epoch == expected.policy_epoch),
    ];
    match fields.into_iter().find(|(_, same)| !same) {
        None => Ok(()),
        Some((field, _)) => Err(ReplayErrorKind::Seal { field, expected: expected.into() }),
    }
}
