//! One directory gives a snapshot, another takes it, and becomes a ledger that goes on from there.

use std::fs;
use std::path::Path;

use tradewind_ledger::manifest::Manifest;
use tradewind_ledger::segment_file::{PAGE, SegmentName};
use tradewind_ledger::tree::{root_at, root_of};
use tradewind_ledger::{Body, Digest, Entry, Policy, SignedNote, SnapshotRecord, Version, ViewId};
use tradewind_ledger_disk::{Face, Options, Start};
use tradewind_store_disk::{
    Begun, Intake, Lent, Next, Retain, agreed, manifest, open, replace_ledger,
};

use crate::running::{RULE, Running, assert_same, genesis, snapshots, wait};

/// A ledger that was pruned, with a SNAPSHOT entry of its newest snapshot; and how that snapshot is given away.
struct Giver {
    running: Running,
    lent: Lent,
    manifest: Manifest,
}

impl Giver {
    fn new(directory: &Path) -> Self {
        let mut running = Running::start(directory, Retain::All).unwrap();
        running.segments(120);
        let newest = snapshots(directory).pop().expect("a snapshot");
        let name = newest.file_stem().unwrap().to_str().unwrap().to_owned();
        let size = Version(name.parse().unwrap());
        let lent = Lent::open(directory, size).unwrap().expect("it is there");
        let leaves = lent.leaves();
        let chunks = (0..).map_while(|index| lent.piece(index, 0, usize::MAX).unwrap());
        let record = SnapshotRecord {
            size,
            root: root_of(leaves.iter().copied()),
            chunks: leaves.len() as u32,
            bytes: chunks.map(|(len, _)| len - 8).sum(),
        };
        let at = running.replay.size();
        let body = Body::Snapshot(record);
        let entry = Entry { hlc: running.next_hlc(), view: ViewId(0), body };
        running.append(&entry, true);
        running.segments(1);
        let note = SignedNote::parse(&fs::read(directory.join("checkpoint")).unwrap()).unwrap();
        let reader = &running.shard.reader;
        let entry = (at, entry.to_bytes().unwrap());
        let manifest = Manifest::make(reader, note, entry, lent.base().clone(), leaves).unwrap();
        Self { running, lent, manifest }
    }

    fn block(&self, index: u32) -> Vec<u8> {
        let size = self.manifest.base.size();
        let leaves = Manifest::block_of(&self.running.shard.reader, size, index.into()).unwrap();
        leaves.iter().flat_map(|leaf| leaf.0).collect()
    }

    /// In pieces, as it travels.
    fn chunk(&self, index: u32) -> Vec<u8> {
        let mut got = Vec::new();
        loop {
            let piece = self.lent.piece(index, got.len() as u64, 1_000).unwrap();
            let (len, bytes) = piece.expect("there is such a chunk");
            if bytes.is_empty() {
                assert_eq!(len, got.len() as u64);
                return got;
            }
            assert!(bytes.len() <= 1_000);
            got.extend(bytes);
        }
    }

    /// Gives what is missing, up to so many parts; whether that was all.
    fn give(&self, intake: &mut Intake, mut parts: usize) -> bool {
        let blocks = self.manifest.blocks.len() as u32;
        let chunks = self.manifest.chunks.len() as u32;
        while intake.held().blocks < blocks {
            let index = intake.held().blocks;
            if parts == 0 {
                return false;
            }
            parts -= 1;
            intake.keep_block(index, &self.block(index)).unwrap();
        }
        while intake.held().chunks < chunks {
            let index = intake.held().chunks;
            if parts == 0 {
                return false;
            }
            parts -= 1;
            let missing = intake.keep_chunk(index, &self.chunk(index));
            assert_eq!(missing.unwrap(), [], "no values lie beside this ledger");
        }
        true
    }
}

#[test]
fn a_snapshot_is_taken_and_a_ledger_goes_on_from_it() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let giver = Giver::new(from.path());
    let record = giver.manifest.verify(&Policy::of_genesis(&genesis()).unwrap()).unwrap();
    let (folder, ledger) = (to.path().join("taking"), to.path().join("ledgers/flights.0"));
    // What was there before is replaced, and nothing earlier than that.
    fs::create_dir_all(&ledger).unwrap();
    fs::write(ledger.join("old"), b"of before").unwrap();

    // Part by part, with a crash after each, which leaves half of the next one.
    let mut rounds = 0;
    while !giver.give(&mut Intake::begin(&folder, giver.manifest.clone()).unwrap(), 1) {
        assert!(!replace_ledger(&folder, &ledger).unwrap() && ledger.join("old").exists());
        for file in ["hashes", "chunks"] {
            let path = folder.join(file);
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, [&bytes[..], &[0x55; 100]].concat()).unwrap();
        }
        rounds += 1;
    }
    assert!(rounds > 2, "several blocks and chunks: {rounds}");
    let intake = Intake::resume(&folder).unwrap().expect("it is there");
    assert_eq!(intake.manifest(), &giver.manifest);
    intake.finish(Face::Packed).unwrap();
    intake.finish(Face::Packed).unwrap();
    drop(intake);
    assert!(replace_ledger(&folder, &ledger).unwrap());
    assert!(!folder.exists() && !replace_ledger(&folder, &ledger).unwrap());
    assert!(!ledger.join("old").exists());

    let options = Options {
        expected_lineage: Some(genesis().lineage().unwrap()),
        face: Face::Packed,
        ..Options::default()
    };
    let Begun { opened, store, started, .. } = open(&ledger, &options, &RULE).unwrap();
    assert_eq!((started.snapshot, started.replayed), (Some(record), 0));
    assert_eq!(opened.reader.first(), record.size);
    // It can give it on at once, though its ledger does not hold the SNAPSHOT entry yet.
    let offered = agreed(&ledger, &opened.reader).unwrap();
    assert_eq!(offered, Some((giver.manifest.version, record)));
    assert_eq!(manifest(&ledger, record.size).unwrap(), Some(giver.manifest.clone()));
    assert_eq!(manifest(&ledger, Version(1)).unwrap(), None, "nor any other");
    let lent = Lent::open(&ledger, record.size).unwrap().expect("it is there");
    assert_eq!(lent.leaves(), giver.manifest.chunks);
    // It takes up the rest and is as the giver then.
    let (mut writer, mut store, mut replay) = (opened.writer, store, opened.replay);
    let reader = &giver.running.shard.reader;
    for version in record.size.0..reader.durable_size().0 {
        let bytes = reader.entry(Version(version)).unwrap();
        let entry = replay.push(&bytes).unwrap();
        store.apply(Version(version), &entry).unwrap();
        writer.append(&[bytes]).unwrap();
    }
    writer.sync().unwrap();
    assert_eq!(replay.root(), giver.running.replay.root());
    assert_same(&store, &giver.running.shard.store.read().unwrap());
    drop((writer, opened.publisher, opened.reader));
    let again = open(&ledger, &Options { start: Start::Kept, ..options }, &RULE).unwrap();
    assert_eq!(again.opened.replay.root(), giver.running.replay.root());
    giver.running.stop();
}

#[test]
fn an_end_that_is_interrupted_at_any_step_begins_once_more_and_nothing_is_taken_again() {
    let from = tempfile::tempdir().unwrap();
    let giver = Giver::new(from.path());
    let snapshot = format!("{:020}", giver.manifest.base.size().0);
    // Where something stands in the way of a step: all before it are done then.
    let steps = [
        "ledger/segments".to_owned(),
        "ledger/base.tmp".to_owned(),
        format!("ledger/snapshots/{snapshot}.tmp"),
        format!("ledger/snapshots/{snapshot}.at"),
        "whole.tmp".to_owned(),
    ];
    for (step, again) in steps.iter().flat_map(|step| [(step, false), (step, true)]) {
        let to = tempfile::tempdir().unwrap();
        let (folder, ledger) = (to.path().join("taking"), to.path().join("ledgers/flights.0"));
        let mut intake = Intake::begin(&folder, giver.manifest.clone()).unwrap();
        assert!(giver.give(&mut intake, usize::MAX));
        let all = intake.held().clone();
        let obstacle = folder.join(step);
        match step.ends_with("segments") {
            true => {
                fs::create_dir_all(folder.join("ledger")).unwrap();
                fs::write(&obstacle, b"").unwrap();
            }
            false => fs::create_dir_all(&obstacle).unwrap(),
        }
        assert!(intake.finish(Face::Packed).is_err(), "{step}");
        match obstacle.is_dir() {
            true => fs::remove_dir(&obstacle).unwrap(),
            false => fs::remove_file(&obstacle).unwrap(),
        }
        // By the same process, or by the next one.
        if again {
            drop(intake);
            assert!(!replace_ledger(&folder, &ledger).unwrap());
            intake = Intake::resume(&folder).unwrap().expect("it is there");
            assert_eq!(*intake.held(), all, "{step}");
        }
        intake.finish(Face::Packed).unwrap();
        assert!(replace_ledger(&folder, &ledger).unwrap());
        let options = Options { face: Face::Packed, ..Options::default() };
        let Begun { started, .. } = open(&ledger, &options, &RULE).unwrap();
        assert_eq!(started.size(), giver.manifest.base.size(), "{step}");
        assert_eq!(manifest(&ledger, started.size()).unwrap(), Some(giver.manifest.clone()));
    }
    giver.running.stop();
}

#[test]
fn a_snapshot_whose_entry_cannot_be_read_is_no_offer() {
    let directory = tempfile::tempdir().unwrap();
    let giver = Giver::new(directory.path());
    let (at, size) = (giver.manifest.version, giver.manifest.base.size());
    giver.running.snapshots.agreed(0, size, at);
    let noted = directory.path().join(format!("snapshots/{:020}.at", size.0));
    wait(|| noted.exists());
    let reader = giver.running.shard.reader.clone();
    assert_eq!(agreed(directory.path(), &reader).unwrap().map(|(found, _)| found), Some(at));
    giver.running.stop();

    let segment = reader.sealed_segments().into_iter().find(|segment| segment.last >= at).unwrap();
    let name = SegmentName { first: segment.first, last: Some(segment.last) };
    let file = directory.path().join("segments").join(name.to_string());
    let mut bytes = fs::read(&file).unwrap();
    bytes[PAGE..].fill(0x55);
    fs::write(&file, bytes).unwrap();
    assert_eq!(agreed(directory.path(), &reader).unwrap(), None);
}

#[test]
fn what_was_damaged_in_the_folder_is_taken_again_and_another_snapshot_begins_anew() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let giver = Giver::new(from.path());
    let folder = to.path().join("taking");
    let whole = || {
        let mut intake = Intake::begin(&folder, giver.manifest.clone()).unwrap();
        assert!(giver.give(&mut intake, usize::MAX));
        intake.held().clone()
    };
    let all = whole();
    for file in ["hashes", "chunks"] {
        let path = folder.join(file);
        let good = fs::read(&path).unwrap();
        for at in (0..good.len()).step_by(good.len() / 7) {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            let found = Intake::resume(&folder).unwrap().expect("a manifest").held().clone();
            assert!(found.blocks < all.blocks || found.chunks < all.chunks, "{file} {at}");
            assert_eq!(whole(), all);
            assert_eq!(fs::read(&path).unwrap(), good, "{file} {at}");
        }
    }
    let mut other = giver.manifest.clone();
    other.chunks[0] = Digest::ZERO;
    assert_eq!(Intake::begin(&folder, other).unwrap().held().chunks, 0);
    fs::write(folder.join("manifest"), b"torn").unwrap();
    assert!(Intake::resume(&folder).unwrap().is_none());
    giver.running.stop();
}

#[test]
fn a_base_that_is_not_of_the_hashes_makes_no_ledger() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let giver = Giver::new(from.path());
    let mut manifest = giver.manifest.clone();
    let other = tempfile::tempdir().unwrap();
    let mut running = Running::start(other.path(), Retain::All).unwrap();
    let (size, root, chunks, bytes) = (Version(1), Digest::ZERO, 1, 60);
    let body = Body::Snapshot(SnapshotRecord { size, root, chunks, bytes });
    let another = Entry { hlc: running.next_hlc(), view: ViewId(0), body };
    running.append(&another, true);
    running.segments(2);
    manifest.base = (**running.replay.base().unwrap()).clone();
    running.stop();
    let mut intake = Intake::begin(&to.path().join("taking"), manifest).unwrap();
    for index in 0..giver.manifest.blocks.len() as u32 {
        intake.keep_block(index, &giver.block(index)).unwrap();
    }
    assert!(intake.finish(Face::Packed).is_err());
    assert!(!replace_ledger(&to.path().join("taking"), &to.path().join("ledger")).unwrap());
    giver.running.stop();
}

#[test]
fn a_wrong_part_is_not_kept_and_what_is_there_is_gone_on_with() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let giver = Giver::new(from.path());
    let begin = || Intake::begin(to.path(), giver.manifest.clone()).unwrap();
    let mut intake = begin();
    let mut parts = 0;
    while let Some(next) = intake.next() {
        let bytes = match next {
            Next::Block(index) => giver.block(index),
            Next::Chunk(index) => giver.chunk(index),
            Next::Value(..) => panic!("no values lie beside this ledger"),
        };
        let held = intake.held().clone();
        let flipped = |at: usize| {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1;
            wrong
        };
        let long = [&bytes[..], &[0; 32]].concat();
        for wrong in [flipped(0), flipped(bytes.len() - 1), long, bytes[1..].to_vec(), vec![]] {
            assert!(!intake.keep(next, &wrong).unwrap(), "{next:?}");
            assert_eq!((intake.held(), intake.next()), (&held, Some(next)));
        }
        assert!(intake.keep(next, &bytes).unwrap(), "{next:?}");
        parts += 1;
        intake = begin();
    }
    assert!(parts > 2, "several blocks and chunks: {parts}");
    let reader = &giver.running.shard.reader;
    for size in [Version::ZERO, Version(1), giver.manifest.base.size()] {
        assert_eq!(intake.root_at(size).unwrap(), Some(root_at(reader, size).unwrap()), "{size}");
    }
    assert_eq!(intake.root_at(giver.manifest.base.size().next()).unwrap(), None);
    giver.running.stop();
}
