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

    /// All of the snapshot of `size` entries is there: makes a ledger of it, which the next start begins with. Returns whether
    /// that is the one that is being taken.
    pub(crate) fn finish(&mut self, shard: ShardIndex, size: Version) -> io::Result<bool> {
        let intake = self.intake(shard)?;
        if intake.manifest().base.size() != size {
            return Ok(false);
        }
        intake.finish(Face::Packed)?;
        Ok(true)
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

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use tradewind_ledger::note::SignedNote;
    use tradewind_ledger::tree::{leaf_hash, root_of};
    use tradewind_ledger::{Genesis, Hlc, Member, Replay, ViewId};
    use tradewind_transport::fabric::Wake;

    use super::*;
    use crate::inbox::Inbox;
    use crate::log::{Done, Job, Log, when_room};

    const SHARD: ShardIndex = ShardIndex(0);

    #[derive(Debug)]
    struct Told(std::sync::mpsc::Sender<()>);

    impl Wake for Told {
        fn wake(&self) {
            // Nobody may wait any more.
            let _ = self.0.send(());
        }
    }

    /// A snapshot of a ledger of two entries, without any state; and the leaf hashes of these.
    pub(crate) fn manifest() -> (Manifest, Vec<u8>) {
        let genesis = Genesis {
            deployment: "atlas".into(),
            site: "ams".into(),
            ledger: "flights.0".parse().unwrap(),
            members: vec![Member { name: "a1".into(), public_key: [1; 32] }],
        };
        let mut replay = Replay::new();
        let first = genesis.into_entry().to_bytes().unwrap();
        replay.push(&first).unwrap();
        let seal = replay.segment().make_seal(Hlc(1), ViewId(0)).to_bytes().unwrap();
        replay.push(&seal).unwrap();
        let leaves = [leaf_hash(&first), leaf_hash(&seal)];
        let note = "atlas/ams/flights/0\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n\
                    — atlas/ams/flights/0 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==\n";
        let manifest = Manifest {
            note: SignedNote::parse(note.as_bytes()).unwrap(),
            version: Version(2),
            entry: Vec::new(),
            inclusion: Vec::new(),
            base: (**replay.base().unwrap()).clone(),
            consistency: Vec::new(),
            chunks: Vec::new(),
            blocks: vec![root_of(leaves)],
        };
        (manifest, leaves.iter().flat_map(|leaf| leaf.0).collect())
    }

    fn inbox() -> (Arc<Inbox>, Receiver<()>) {
        let (sender, woken) = channel();
        (Arc::new(Inbox::new(Arc::new(Told(sender)))), woken)
    }

    fn wait(inbox: &Inbox, woken: &Receiver<()>, is_it: impl Fn(&Done) -> bool) {
        loop {
            for done in inbox.take().done {
                assert!(!matches!(done, Done::Failed(_)), "the log thread goes on");
                if is_it(&done) {
                    return;
                }
            }
            woken.recv_timeout(Duration::from_secs(30)).expect("told of it");
        }
    }

    #[test]
    fn the_end_of_a_taking_waits_for_room_on_a_full_disk() {
        let data = tempfile::tempdir().unwrap();
        let ledger = data.path().join("ledgers/flights.0");
        let (manifest, hashes) = manifest();
        let size = manifest.base.size();
        let mut intakes = Intakes::new(HashMap::from([(SHARD, ledger.clone())]));
        intakes.begin(SHARD, &manifest).unwrap();
        intakes.keep(SHARD, (size, Part::Block(0)), &hashes).unwrap();
        // No room where it writes after it has moved the chunks.
        let snapshots = folder(&ledger).join("ledger/snapshots");
        std::fs::create_dir_all(&snapshots).unwrap();
        let full = snapshots.join(format!("{:020}.tmp", size.0));
        std::os::unix::fs::symlink("/dev/full", &full).unwrap();

        let (inbox, _woken) = inbox();
        let mut refused = 0;
        let planted = when_room(&inbox, || {
            intakes.finish(SHARD, size).inspect_err(|_| {
                refused += 1;
                std::fs::remove_file(&full).unwrap();
            })
        });
        assert_eq!((planted, refused), (Ok(true), 1));
        assert!(folder(&ledger).join("whole").exists());
    }

    #[test]
    fn the_end_of_another_taking_than_the_one_that_is_open_is_passed_over() {
        let data = tempfile::tempdir().unwrap();
        let ledger = data.path().join("ledgers/flights.0");
        let (manifest, hashes) = manifest();
        let (shard, size) = (SHARD, manifest.base.size());
        let (inbox, woken) = inbox();
        let intakes = Intakes::new(HashMap::from([(shard, ledger.clone())]));
        let log = Log::start(Vec::new(), intakes, Arc::clone(&inbox)).unwrap();
        log.push(Job::Take { shard, manifest: Box::new(manifest) });
        log.push(Job::Plant { shard, size: Version(1) });
        log.push(Job::KeepPart { shard, size, part: Part::Block(0), bytes: hashes });
        wait(&inbox, &woken, |done| matches!(done, Done::PartKept { .. }));
        log.stop();
        assert!(!folder(&ledger).join("whole").exists());
    }
}
