//! Where a ledger's replay begins: at its genesis, or at a [`Base`], whose place in this ledger is proven by the hash tiles.
//!
//! A directory whose first entries were pruned holds the base of the first entry that is kept, in the file `base`.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::sync::Arc;

use tradewind_ledger::base::{Base, MAX_BASE};
use tradewind_ledger::ids::Version;
use tradewind_ledger::note::Checkpoint;
use tradewind_ledger::tree::{inclusion_proof, leaf_hash, verify_inclusion};

use crate::error::{BaseFault, Context, Damage, OpenError};
use crate::layout::Layout;
use crate::open::Options;
use crate::tree::TileTree;

/// Where to begin when a ledger is opened.
#[derive(Clone, Debug, Default)]
pub enum Start {
    /// At the genesis: every entry is read. A ledger whose first entries were pruned is refused.
    #[default]
    Genesis,
    /// At this base. Segments before it are neither read nor checked until somebody reads in them.
    Base(Arc<Base>),
    /// At the first entry that is kept: the genesis, or the base that pruning left.
    Kept,
}

/// What is there, and what of it is replayed.
pub(crate) struct Begin {
    /// The base that pruning left.
    pub(crate) kept: Option<Arc<Base>>,
    /// The base to replay from.
    pub(crate) base: Option<Arc<Base>>,
}

impl Begin {
    /// Finds out where to begin in the directory, as far as that takes no tile.
    pub(crate) fn find(
        layout: &Layout,
        options: &Options,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<Self, OpenError> {
        let kept = read(layout)?;
        let base = match (&options.start, &kept) {
            (Start::Genesis, None) => None,
            (Start::Genesis, Some(kept)) => {
                return Err(OpenError::Pruned { dir: layout.dir.clone(), first: kept.size() });
            }
            (Start::Base(base), _) => Some(Arc::clone(base)),
            (Start::Kept, kept) => kept.clone(),
        };
        let begin = Self { kept, base };
        if let Some(base) = &begin.base {
            begin.check(base, options, checkpoint).map_err(|fault| refused(layout, base, fault))?;
        }
        Ok(begin)
    }

    /// The first entry that is kept.
    pub(crate) fn first(&self) -> Version {
        self.kept.as_ref().map_or(Version::ZERO, |kept| kept.size())
    }

    fn check(
        &self,
        base: &Base,
        options: &Options,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(), BaseFault> {
        let lineages = [options.expected_lineage, self.kept.as_ref().map(|kept| kept.lineage())];
        let found = base.lineage();
        if let Some(expected) = lineages.into_iter().flatten().find(|it| *it != found) {
            return Err(BaseFault::Lineage { found, expected });
        }
        let first = self.first();
        if base.size() < first {
            return Err(BaseFault::Pruned { first });
        }
        let published = checkpoint.map_or(Version::ZERO, |checkpoint| checkpoint.size);
        if base.size() > published.max(first) {
            return Err(BaseFault::Unpublished { published });
        }
        let same_size = checkpoint.filter(|checkpoint| checkpoint.size == base.size());
        if same_size.is_some_and(|checkpoint| checkpoint.root != base.root()) {
            return Err(BaseFault::Root);
        }
        Ok(())
    }

    /// The tree to go on with: its right edge comes from the tiles, and all that the base says is in it.
    pub(crate) fn tree(
        &self,
        layout: &Layout,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<TileTree, OpenError> {
        let Some(base) = &self.base else { return Ok(TileTree::new(&layout.dir)) };
        let published = checkpoint.map_or(Version::ZERO, |checkpoint| checkpoint.size);
        let tree = TileTree::at(&layout.dir, base.compact_range(), published);
        let tree = tree.map_err(|tile| refused(layout, base, BaseFault::Tile { tile }))?;
        for (version, entry) in base.entries() {
            let proven = inclusion_proof(&tree, version, base.size()).and_then(|proof| {
                verify_inclusion(&leaf_hash(&entry), version, base.size(), &proof, &base.root())
            });
            if let Err(error) = proven {
                return Err(refused(layout, base, BaseFault::Entry { version, error }));
            }
        }
        Ok(tree)
    }
}

pub(crate) fn refused(layout: &Layout, base: &Base, fault: BaseFault) -> OpenError {
    OpenError::Base { dir: layout.dir.clone(), size: base.size(), fault: Box::new(fault) }
}

/// The base that pruning left in the directory.
pub(crate) fn read(layout: &Layout) -> Result<Option<Arc<Base>>, OpenError> {
    let path = &layout.base;
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        result => result.context("open", path)?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_BASE as u64 + 1).read_to_end(&mut bytes).context("read", path)?;
    let base = Base::decode(&bytes).map_err(|error| Damage {
        file: path.clone(),
        offset: 0,
        found: error.into(),
    })?;
    Ok(Some(Arc::new(base)))
}
