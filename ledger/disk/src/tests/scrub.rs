//! Bit rot under a ledger that is in use: found, not served, and mended by hash.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tradewind_ledger::ids::{Digest, Version};
use tradewind_ledger::note::SignedNote;
use tradewind_ledger::segment_file::{Framing, PAGE, RECORD_HEADER};
use tradewind_ledger::tree::leaf_hash;

use crate::error::ReadError;
use crate::open::{Opened, Options, open};
use crate::ops::{Op, Ops};
use crate::prune::PruneError;
use crate::repair::{DirPeer, Peer, PeerError};
use crate::scrub::{Fault, MendError, Scrubber};
use crate::start::Start;
use crate::testing::{Author, tempdir};

/// Five sealed segments of 121 entries with a value in each, and an open one.
fn history(value: u8) -> Author {
    let mut author = Author::new("scrub");
    for _ in 0..5 {
        (0..119).for_each(|_| author.put(value.into()));
        author.put_detached(70);
        author.seal();
    }
    author.put(1);
    author
}

fn ledger(author: &Author) -> (TempDir, Opened) {
    let dir = tempdir();
    let options = Options {
        preallocate: 8 << 10,
        cached_segments: 2,
        start: Start::Kept,
        ..Options::default()
    };
    let mut opened = open(dir.path(), &options, |_, _| Ok(())).expect("new");
    for (_, digest, value) in &author.values {
        opened.writer.store_value(digest, value).expect("stored");
    }
    opened.writer.append(&author.entries).expect("appended");
    opened.writer.sync().expect("synced");
    opened.publisher.publish(&author.checkpoint(author.size())).expect("published");
    (dir, opened)
}

/// One pass; the faults in it.
fn pass(scrubber: &mut Scrubber) -> Vec<Fault> {
    std::iter::from_fn(|| scrubber.step()).filter_map(|checked| checked.fault).collect()
}

fn flip(path: &Path, offset: u64) {
    let file = fs::File::options().read(true).write(true).open(path).expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("within the file");
    file.write_all_at(&[byte[0] ^ 0x10], offset).expect("written");
}

fn segment(dir: &Path, author: &Author, index: usize) -> PathBuf {
    let base = &author.bases[index];
    let name = format!("{:020}-{:020}.seg", base.seal().1.first.0, base.size().0 - 1);
    dir.join("segments").join(name)
}

#[test]
fn a_flipped_byte_of_a_sealed_segment_is_found_not_served_and_mended() {
    let author = history(30);
    let (dir, opened) = ledger(&author);
    let (peer, _peer) = ledger(&author);
    let peer = DirPeer::new(peer.path());
    let mut scrubber = opened.reader.scrubber();
    assert!(pass(&mut scrubber).is_empty());
    let path = segment(dir.path(), &author, 2);
    let whole = fs::read(&path).expect("a segment");
    let first = author.bases[1].size();
    let at = |version: u64| {
        let before = &author.entries[first.0 as usize..version as usize];
        PAGE + before.iter().map(|entry| RECORD_HEADER + entry.len()).sum::<usize>()
    };
    let entry = first.0 + 50;
    let places = [0, 30, 600, at(first.0) + 3, at(entry), at(entry) + 9, whole.len() - 1];
    for place in places {
        // The reader has the file open, as readers of a running process do.
        opened.reader.entry(Version(entry)).expect("readable");
        flip(&path, place as u64);
        let faults = pass(&mut scrubber);
        let [fault] = &faults[..] else { panic!("at {place}: {faults:?}") };
        for version in [first, Version(entry)] {
            let error = opened.reader.entry(version).expect_err("it is not served");
            assert!(matches!(error, ReadError::Quarantined { .. }), "{error}");
        }
        opened.reader.entry(Version(first.0 - 1)).expect("another segment");
        assert_eq!(pass(&mut scrubber).len(), 1, "it is found again as long as it is there");
        scrubber.mend(fault, &peer).expect("mended");
        assert_eq!(fs::read(&path).expect("a segment"), whole);
        assert!(pass(&mut scrubber).is_empty());
        let read = opened.reader.entries(Version::ZERO, author.size(), usize::MAX);
        assert_eq!(read.expect("readable"), author.entries);
    }
    let name = format!("segments-{}", path.file_name().expect("a name").to_string_lossy());
    let aside = fs::read(dir.path().join("damaged").join(name)).expect("it is put aside");
    assert_eq!(aside.iter().zip(&whole).filter(|(a, b)| a != b).count(), 1);
}

#[test]
fn an_entry_that_was_replaced_with_a_right_checksum_is_found_by_its_hash() {
    let author = history(30);
    let (dir, opened) = ledger(&author);
    let path = segment(dir.path(), &author, 0);
    let mut bytes = fs::read(&path).expect("a segment");
    let offset = PAGE + RECORD_HEADER + author.entries[0].len();
    let mut other = author.entries[1].clone();
    *other.last_mut().expect("a value") ^= 1;
    let lineage = author.replay().lineage().expect("a genesis");
    let header = Framing::new(lineage, crc32c::crc32c_append).record_header(Version(1), &other);
    bytes[offset..offset + RECORD_HEADER].copy_from_slice(&header);
    bytes[offset + RECORD_HEADER..][..other.len()].copy_from_slice(&other);
    fs::write(&path, bytes).expect("written");
    let mut scrubber = opened.reader.scrubber();
    let faults = pass(&mut scrubber);
    assert!(faults[0].to_string().contains("entry 1 does not have the hash"), "{}", faults[0]);
    let error = opened.reader.entry(Version(1)).expect_err("it is not served");
    assert!(matches!(error, ReadError::Quarantined { .. }), "{error}");
    let (peer, _peer) = ledger(&author);
    scrubber.mend(&faults[0], &DirPeer::new(peer.path())).expect("mended");
    assert_eq!(opened.reader.entry(Version(1)).expect("readable"), author.entries[1]);
}

#[test]
fn a_damaged_tile_is_made_of_the_entries_and_a_damaged_value_of_a_peers() {
    let author = history(30);
    let (dir, opened) = ledger(&author);
    let (peer, _peer) = ledger(&author);
    let digest = author.values[3].1.to_string();
    let files = ["tile/0/001".into(), format!("values/{}/{digest}", &digest[..2])];
    for file in files.map(|file: String| dir.path().join(file)) {
        let whole = fs::read(&file).expect("a file");
        flip(&file, 33);
        let mut scrubber = opened.reader.scrubber();
        let faults = pass(&mut scrubber);
        assert!(!faults.is_empty(), "{}", file.display());
        for fault in &faults {
            scrubber.mend(fault, &DirPeer::new(peer.path())).expect("mended");
        }
        assert_eq!(fs::read(&file).expect("a file"), whole);
        assert!(pass(&mut scrubber).is_empty());
    }
    let read = opened.reader.entries(Version::ZERO, author.size(), usize::MAX);
    assert_eq!(read.expect("nothing is withheld"), author.entries);
}

#[test]
fn a_peer_with_other_entries_or_none_mends_nothing() {
    struct Nobody;
    impl Peer for Nobody {
        fn name(&self) -> String {
            "nobody".into()
        }
        fn checkpoint(&self) -> Result<Option<SignedNote>, PeerError> {
            Ok(None)
        }
        fn entries(&self, _: Version) -> Result<Vec<Vec<u8>>, PeerError> {
            Ok(Vec::new())
        }
        fn value(&self, _: &Digest) -> Result<Option<Vec<u8>>, PeerError> {
            Err("not at home".into())
        }
    }
    let author = history(30);
    let (dir, opened) = ledger(&author);
    let (other, _other) = ledger(&history(31));
    let path = segment(dir.path(), &author, 1);
    flip(&path, 5_000);
    let damaged = fs::read(&path).expect("a segment");
    let mut scrubber = opened.reader.scrubber();
    let faults = pass(&mut scrubber);
    let error = scrubber.mend(&faults[0], &DirPeer::new(other.path())).expect_err("refused");
    assert!(matches!(error, MendError::Differs { .. }), "{error}");
    let error = scrubber.mend(&faults[0], &Nobody).expect_err("refused");
    assert!(matches!(error, MendError::Short { .. }), "{error}");
    assert_eq!(fs::read(&path).expect("a segment"), damaged);
    assert!(!dir.path().join("damaged").exists());
    let error = opened.reader.entry(author.bases[0].size()).expect_err("not served");
    assert!(matches!(error, ReadError::Quarantined { .. }), "{error}");
}

#[test]
fn a_missing_file_is_mended_and_a_pruned_one_is_not_missed() {
    let author = history(30);
    let (dir, mut opened) = ledger(&author);
    let (peer, _peer) = ledger(&author);
    let path = segment(dir.path(), &author, 4);
    fs::remove_file(&path).expect("removed");
    let mut scrubber = opened.reader.scrubber();
    let faults = pass(&mut scrubber);
    assert_eq!(faults.len(), 1);
    // Which values the damaged segment refers to is not known, so none goes yet.
    let error = opened.publisher.prune(&author.bases[2], |_| false).expect_err("not yet");
    assert!(matches!(error, PruneError::Read(ReadError::Quarantined { .. })), "{error}");
    scrubber.mend(&faults[0], &DirPeer::new(peer.path())).expect("mended");
    assert!(path.exists());
    let pruned = opened.publisher.prune(&author.bases[2], |_| false).expect("pruned");
    assert_eq!(pruned.segments, 3);
    assert!(pass(&mut scrubber).is_empty());
    let kept = opened.reader.entries(opened.reader.first(), author.size(), usize::MAX);
    assert_eq!(kept.expect("readable"), author.entries[author.bases[2].size().0 as usize..]);
}

/// Does something once, when a file that is made again is on its way.
fn meanwhile(is_then: fn(Op<'_>) -> bool, work: impl FnOnce() + Send + 'static) -> Ops {
    let work = Mutex::new(Some(work));
    let tap = move |op: Op<'_>| {
        if is_then(op)
            && let Some(work) = work.lock().expect("no test panicked here").take()
        {
            work();
        }
        Ok(())
    };
    Ops { tap: Some(Arc::new(tap)) }
}

#[test]
fn a_tile_is_made_again_while_others_are_published() {
    let author = history(30);
    let (dir, opened) = ledger(&author);
    let Opened { mut writer, mut publisher, reader, .. } = opened;
    flip(&dir.path().join("tile/0/001"), 33);
    let mut scrubber = reader.scrubber();
    let faults = pass(&mut scrubber);
    let mut more = author;
    let begun = more.entries.len();
    (0..600).for_each(|_| more.put(9));
    writer.append(&more.entries[begun..]).expect("appended");
    writer.sync().expect("synced");
    let checkpoint = more.checkpoint(more.size());
    scrubber.ops = meanwhile(
        |op| matches!(op, Op::Rename(..)),
        move || publisher.publish(&checkpoint).expect("published"),
    );
    scrubber.mend(&faults[0], &DirPeer::new(dir.path())).expect("mended");
    drop((writer, scrubber, reader));
    // Each tile is in its own file.
    let again = open(dir.path(), &Options::default(), |_, _| Ok(())).expect("it opens");
    assert_eq!(again.publisher.published(), more.size());
    assert!(pass(&mut again.reader.scrubber()).is_empty());
    for index in 0..more.size().0 / 256 {
        let tile = fs::read(dir.path().join(format!("tile/0/{index:03}"))).expect("a tile");
        let leaves = more.entries[index as usize * 256..][..256].iter();
        assert_eq!(tile, leaves.flat_map(|entry| leaf_hash(entry).0).collect::<Vec<_>>());
    }
}

#[test]
fn a_value_is_made_again_while_it_is_stored_and_not_if_it_was_removed() {
    let author = history(30);
    let (dir, opened) = ledger(&author);
    let (peer, _peer) = ledger(&author);
    let (_, digest, value) = author.values[3].clone();
    let name = digest.to_string();
    let path = dir.path().join(format!("values/{}/{name}", &name[..2]));
    let mut scrubber = opened.reader.scrubber();
    fs::write(&path, b"short").expect("written");
    let faults = pass(&mut scrubber);
    let mut writer = opened.writer;
    let stored = value.clone();
    let is_written = |op: Op<'_>| matches!(op, Op::SyncFile(_));
    scrubber.ops =
        meanwhile(is_written, move || writer.store_value(&digest, &stored).expect("stored"));
    scrubber.mend(&faults[0], &DirPeer::new(peer.path())).expect("mended");
    assert_eq!(fs::read(&path).expect("a value"), value);

    // As pruning does while the bytes are on their way to the disk.
    fs::write(&path, b"short").expect("written");
    let (faults, gone) = (pass(&mut scrubber), path.clone());
    scrubber.ops = meanwhile(is_written, move || fs::remove_file(&gone).expect("removed"));
    scrubber.mend(&faults[0], &DirPeer::new(peer.path())).expect("there is nothing to mend");
    assert!(!path.exists(), "what was pruned does not come back");
    let left = fs::read_dir(dir.path().join("values")).expect("a directory");
    assert!(left.map(|file| file.expect("a file")).all(|file| file.path().is_dir()));
}
