//! A ledger whose first entries were pruned: the base that is left of them, and its place in the tree of hashes.

use tradewind_ledger::base::{Base, MAX_BASE};
use tradewind_ledger::tree::{CompactRange, leaf_hash};
use tradewind_ledger::{Digest, Version};

use crate::report::{Place, Problems};
use crate::source::Source;

/// The base of a pruned ledger; `None` if there is none, or it cannot be read (which is then listed).
pub(crate) fn read_base(source: &dyn Source, problems: &mut Problems) -> Option<Base> {
    let bytes = match source.read("base", MAX_BASE as u64) {
        Ok(bytes) => bytes?,
        Err(error) => {
            problems.unread(&error);
            return None;
        }
    };
    match Base::decode(&bytes) {
        Ok(base) => Some(base),
        Err(error) => {
            problems.fault(Place::file("base"), error.to_string());
            None
        }
    }
}

/// The leaf hashes before the base, as the tiles give them: they must have its root, and hold its entries.
pub(crate) struct Pruned {
    base: Base,
    /// Those that are known so far, as long as none is missing.
    range: Option<CompactRange>,
    /// Leaf hashes of the base's entries.
    entries: Vec<(Version, Digest)>,
}

impl Pruned {
    pub(crate) fn new(base: Base) -> Self {
        let entries = base.entries().into_iter();
        let entries = entries.map(|(version, bytes)| (version, leaf_hash(&bytes))).collect();
        Self { base, range: Some(CompactRange::new()), entries }
    }

    /// Takes up the leaf hashes from `first` on; those before come in order, and those from the base on are left alone.
    pub(crate) fn take(&mut self, first: u64, nodes: &[Option<Digest>], problems: &mut Problems) {
        for (version, node) in (first..self.base.size().0).map(Version).zip(nodes) {
            let Some(node) = node else {
                self.range = None;
                continue;
            };
            let stated = self.entries.iter().find(|(at, _)| *at == version);
            if let Some((_, leaf)) = stated.filter(|(_, leaf)| leaf != node) {
                let message = format!("its hash is {leaf}, the tiles have {node}");
                problems.fault(Place::file("base").of(version), message);
            }
            if let Some(range) = &mut self.range {
                range.push(*node);
            }
        }
    }

    /// All were taken up.
    pub(crate) fn finish(&self, problems: &mut Problems) {
        let expected = self.base.root();
        match &self.range {
            Some(range) if range == self.base.compact_range() => {}
            Some(range) => {
                let root = range.root();
                let message = format!("its root is {expected}, the tiles give {root}");
                problems.fault(Place::file("base"), message);
            }
            None => problems.missing(
                Place::file("base"),
                "its root cannot be computed: hashes of pruned entries are missing",
            ),
        }
    }
}
