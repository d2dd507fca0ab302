//! Snapshots on their way into this node: what the log thread keeps of them, and what a start makes of that.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use tradewind_ledger::{Digest, Manifest, Version};
use tradewind_ledger_disk::Face;
use tradewind_site_protocol::{Held, Part, ShardIndex};
use tradewind_store_disk::Intake;

/// The folder in which a snapshot of the ledger in this directory is taken.
pub(crate) fn folder(ledger: &Path) -> PathBuf {
    let data = ledger.parent().and_then(Path::parent).unwrap_or(Path::new("."));
    data.join("taking").join(ledger.file_name().unwrap_or_default())
}

/// The snapshots that are being taken, by shard.
pub(crate) struct Intakes {
    /// The ledgers' directories.
    ledgers: HashMap<ShardIndex, PathBuf>,
    open: HashMap<ShardIndex, Intake>,
}

impl Intakes {
    /// Over the ledgers of the node's shards; nothing is looked at.
    pub(crate) fn new(ledgers: HashMap<ShardIndex, PathBuf>) -> Self {
        Self { ledgers, open: HashMap::new() }
    }

    /// Begins to take a snapshot, or goes on with it; what is there.
    pub(crate) fn begin(&mut self, shard: ShardIndex, manifest: &Manifest) -> io::Result<Held> {
        self.open.remove(&shard);
        let intake = Intake::begin(&folder(&self.ledgers[&shard]), manifest.clone())?;
        let held = held(&intake);
        self.open.insert(shard, intake);
        Ok(held)
    }

    /// Keeps a part; the values that it names and that are not there.
    pub(crate) fn keep(
        &mut self,
        shard: ShardIndex,
        (size, part): (Version, Part),
        bytes: &[u8],
    ) -> io::Result<Vec<(u64, Digest)>> {
        let intake = self.intake(shard)?;
        match part {
            // Of one that was given up for the one that is open.
            _ if intake.manifest().base.size() != size => Ok(Vec::new()),
            Part::Manifest => Ok(Vec::new()),
            Part::Block(index) => intake.keep_block(index, bytes).map(|()| Vec::new()),
            Part::Chunk(index) => intake.keep_chunk(index, bytes),
        }
    }

    pub(crate) fn keep_value(
        &mut self,
        shard: ShardIndex,
        digest: &Digest,
        value: &[u8],
    ) -> io::Result<()> {
        self.intake(shard)?.keep_value(digest, value)
    }

    /// All of it is there: makes a ledger of it, which the next start begins with.
    pub(crate) fn finish(&mut self, shard: ShardIndex) -> Result<(), String> {
        let intake = self.intake(shard).map_err(|error| error.to_string())?;
        intake.finish(Face::Packed).map_err(|error| error.to_string())
    }

    /// The one that is open, or was when the process started.
    fn intake(&mut self, shard: ShardIndex) -> io::Result<&mut Intake> {
        if !self.open.contains_key(&shard) {
            let found = Intake::resume(&folder(&self.ledgers[&shard]))?;
            let missing = || io::Error::other("nothing of the snapshot is there any more");
            self.open.insert(shard, found.ok_or_else(missing)?);
        }
        Ok(self.open.get_mut(&shard).expect("put there just now"))
    }
}

/// What a start finds of a snapshot that was being taken, for the core.
pub(crate) fn found(ledger: &Path) -> io::Result<Option<(Box<Manifest>, Held)>> {
    let intake = Intake::resume(&folder(ledger))?;
    Ok(intake.map(|intake| (Box::new(intake.manifest().clone()), held(&intake))))
}

fn held(intake: &Intake) -> Held {
    let held = intake.held();
    Held { blocks: held.blocks, chunks: held.chunks, missing: held.missing.clone() }
}
