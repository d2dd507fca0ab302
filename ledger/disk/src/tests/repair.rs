//! Damaged ledgers made whole from another replica, and peers that are not believed.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tradewind_ledger::ids::{Digest, Version};
use tradewind_ledger::segment_file::PAGE;

use crate::open::{Opened, Options, open};
use crate::repair::{DirPeer, Repair, RepairError, repair};
use crate::testing::{Author, tempdir};

const FIRST: &str = "segments/00000000000000000000-00000000000000000004.seg";
const SECOND: &str = "segments/00000000000000000005-00000000000000000008.seg";
const OPEN: &str = "segments/00000000000000000009.open";

/// Two sealed segments, and an open one with three entries.
fn history() -> Author {
    let mut author = Author::signing("repair");
    for _ in 0..2 {
        (0..2).for_each(|_| author.put(30));
        author.put_detached(100);
        author.seal();
    }
    (0..3).for_each(|_| author.put(40));
    author
}

fn reopen(dir: &Path) -> Opened {
    let options = Options { preallocate: 8 << 10, ..Options::default() };
    open(dir, &options, |_, _| Ok(())).expect("it opens")
}

/// A replica of the first `size` entries that has published `published` of them.
fn replica(author: &Author, size: usize, published: u64) -> TempDir {
    let dir = tempdir();
    let mut opened = reopen(dir.path());
    for (_, digest, value) in author.values.iter().filter(|(at, ..)| at.0 < size as u64) {
        opened.writer.store_value(digest, value).expect("stored");
    }
    opened.writer.append(&author.entries[..size]).expect("appended");
    opened.writer.sync().expect("synced");
    if published > 0 {
        opened.publisher.publish(&author.checkpoint(Version(published))).expect("published");
    }
    dir
}

fn flip(path: &Path, offset: u64) {
    let file = fs::File::options().read(true).write(true).open(path).expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("within the file");
    file.write_all_at(&[byte[0] ^ 0x10], offset).expect("written");
}

fn from(peer: &TempDir, dir: &TempDir) -> Result<Repair, RepairError> {
    repair(dir.path(), &DirPeer::new(peer.path()))
}

/// The names and bytes of a ledger's segments, without what is being written.
fn segments(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(dir.join("segments")).expect("a directory");
    let files = files.map(|entry| entry.expect("an entry").path());
    let whole = files.filter(|path| path.extension().is_none_or(|it| it != "tmp"));
    let mut files: Vec<_> =
        whole.map(|path| (path.clone(), fs::read(&path).expect("a file"))).collect();
    files.sort_unstable();
    files
}

#[test]
fn any_flipped_byte_of_a_sealed_segment_is_repaired_from_a_peer() {
    let author = history();
    let (dir, peer) = (replica(&author, 12, 9), replica(&author, 12, 12));
    for name in [FIRST, SECOND] {
        let path = dir.path().join(name);
        let whole = fs::read(&path).expect("a file");
        let offsets = (0..whole.len() as u64).filter(|at| *at >= PAGE as u64 || at % 61 == 0);
        for offset in offsets {
            flip(&path, offset);
            let report = from(&peer, &dir).unwrap_or_else(|error| panic!("at {offset}: {error}"));
            assert_eq!(report.segments.len(), 1, "at {offset}: {report:?}");
            assert_eq!(report.segments[0].0, path);
            assert_eq!((report.size, report.proven), (Version(12), Version(12)));
            assert!(fs::read(&path).expect("a file") == whole, "at {offset}");
        }
    }
    assert_eq!(reopen(dir.path()).replay.size(), Version(12));
}

#[test]
fn what_was_on_disk_of_the_open_segment_is_repaired_and_what_came_after_is_kept() {
    let author = history();
    let (dir, peer) = (replica(&author, 12, 9), replica(&author, 12, 12));
    let path = dir.path().join(OPEN);
    let before = fs::read(&path).expect("a file");
    let used = before.iter().rposition(|byte| *byte != 0).expect("records") as u64 + 1;
    for offset in PAGE as u64..used {
        flip(&path, offset);
        let report = from(&peer, &dir).unwrap_or_else(|error| panic!("at {offset}: {error}"));
        assert_eq!((report.segments.len(), report.size), (1, Version(12)), "at {offset}");
        assert!(fs::read(&path).expect("a file")[PAGE..] == before[PAGE..], "at {offset}");
    }
    let opened = reopen(dir.path());
    assert_eq!((opened.replay.size(), opened.recovery.truncated_bytes), (Version(12), 0));
    drop(opened);
    flip(&path, 0);
    let error = from(&peer, &dir).expect_err("how far it went is not known");
    assert!(matches!(error, RepairError::OpenHeader { .. }), "{error}");
}

#[test]
fn segments_that_are_missing_or_cut_are_made_again() {
    let author = history();
    let (dir, peer) = (replica(&author, 12, 9), replica(&author, 12, 12));
    let whole = segments(dir.path());
    fs::remove_file(dir.path().join(FIRST)).expect("removed");
    let second = fs::File::options().write(true).open(dir.path().join(SECOND)).expect("a file");
    second.set_len(5000).expect("cut");
    let report = from(&peer, &dir).expect("repaired");
    assert_eq!(report.segments.len(), 2, "{report:?}");
    assert!(segments(dir.path()) == whole);
    reopen(dir.path());
}

#[test]
fn nothing_is_changed_where_nothing_is_damaged() {
    let author = history();
    let (dir, peer) = (replica(&author, 12, 9), replica(&author, 9, 9));
    let before = segments(dir.path());
    let report = from(&peer, &dir).expect("whole");
    assert!(report.segments.is_empty() && report.values.is_empty() && !report.checkpoint);
    assert_eq!(report.proven, Version(9));
    assert!(segments(dir.path()) == before);
}

#[test]
fn values_are_repaired_and_those_that_nobody_has_are_named() {
    let author = history();
    let (dir, peer) = (replica(&author, 12, 9), replica(&author, 12, 12));
    let path = |dir: &TempDir, digest: &Digest| {
        let name = digest.to_string();
        dir.path().join("values").join(&name[..2]).join(name)
    };
    let (first, second) = (author.values[0].1, author.values[1].1);
    flip(&path(&dir, &first), 50);
    fs::remove_file(path(&dir, &second)).expect("removed");
    flip(&path(&peer, &second), 0);
    let error = from(&peer, &dir).expect_err("the peer's is damaged too");
    assert!(matches!(error, RepairError::Peer { .. }), "{error}");
    fs::remove_file(path(&peer, &second)).expect("removed");
    flip(&path(&dir, &first), 51);
    let report = from(&peer, &dir).expect("as far as it goes");
    assert_eq!((report.values, report.lost_values), (vec![first], vec![second]));
    let reader = reopen(dir.path()).reader;
    assert_eq!(reader.value(&first).expect("whole").as_deref(), Some(&author.values[0].2[..]));
}

#[test]
fn a_peer_with_another_history_is_refused_and_nothing_is_changed() {
    let author = history();
    let mut other = Author::signing("repair");
    (0..2).for_each(|_| other.put(31));
    other.put(10);
    other.seal();
    // The wrong last segment: it fits what is before it, and nothing behind it tells.
    let mut forked = Author::signing("repair");
    (0..2).for_each(|_| forked.put(30));
    forked.put_detached(100);
    forked.seal();
    (0..3).for_each(|_| forked.put(30));
    forked.seal();
    for (name, wrong) in [(FIRST, &other), (SECOND, &forked)] {
        let dir = replica(&author, 9, 9);
        let peer = replica(wrong, wrong.entries.len(), 0);
        flip(&dir.path().join(name), PAGE as u64 + 20);
        let before = segments(dir.path());
        let error = from(&peer, &dir).expect_err("another history");
        let refused = matches!(
            error,
            RepairError::Unfit { .. } | RepairError::Root { .. } | RepairError::PeerShort { .. }
        );
        assert!(refused, "{error}");
        assert!(segments(dir.path()) == before);
    }
}

#[test]
fn what_no_majority_has_signed_is_not_taken() {
    let author = history();
    let (dir, peer) = (replica(&author, 12, 5), replica(&author, 12, 5));
    flip(&dir.path().join(SECOND), PAGE as u64 + 20);
    let before = segments(dir.path());
    let error = from(&peer, &dir).expect_err("signed are five");
    let RepairError::NotProven { needed: Version(9), proven: Version(5), .. } = error else {
        panic!("{error}")
    };
    assert!(segments(dir.path()) == before);
    reopen(peer.path()).publisher.publish(&author.checkpoint(Version(12))).expect("published");
    from(&peer, &dir).expect("now it is signed");
    reopen(dir.path());
}

#[test]
fn a_checkpoint_signed_by_strangers_proves_nothing() {
    // Its only member has another key than the one that signs.
    let mut author = Author::new("repair");
    (0..3).for_each(|_| author.put(30));
    author.seal();
    let (dir, peer) = (replica(&author, 5, 5), replica(&author, 5, 5));
    flip(&dir.path().join(FIRST), PAGE as u64 + 20);
    let error = from(&peer, &dir).expect_err("not signed by a member");
    assert!(matches!(error, RepairError::NotProven { .. }), "{error}");
}

#[test]
fn a_damaged_checkpoint_is_replaced_or_left_to_be_published_anew() {
    let author = history();
    let dir = replica(&author, 12, 9);
    let checkpoint = dir.path().join("checkpoint");
    for (size, published) in [(12, 9), (12, 12)] {
        fs::write(&checkpoint, "not a checkpoint").expect("written");
        let report = from(&replica(&author, size, published), &dir).expect("repaired");
        assert!(report.checkpoint);
        let opened = reopen(dir.path());
        assert_eq!(opened.checkpoint, Some(author.checkpoint(Version(published))));
    }
    let mut longer = history();
    longer.put(50);
    fs::write(&checkpoint, "not a checkpoint").expect("written");
    let report = from(&replica(&longer, 13, 13), &dir).expect("repaired");
    assert!(report.checkpoint && !checkpoint.exists());
    assert_eq!(report.proven, Version(13));
    let mut opened = reopen(dir.path());
    opened.publisher.publish(&author.checkpoint(Version(12))).expect("published anew");
}

#[test]
fn a_lost_end_is_not_repaired_as_it_is_not_known_what_was_acknowledged() {
    let author = history();
    let (dir, peer) = (replica(&author, 12, 12), replica(&author, 12, 12));
    fs::remove_file(dir.path().join(OPEN)).expect("removed");
    let error = from(&peer, &dir).expect_err("entries 9 to 11 are lost");
    assert!(matches!(error, RepairError::Short { size: Version(9), .. }), "{error}");
}

#[test]
fn a_ledger_in_use_is_left_alone() {
    let author = history();
    let (dir, peer) = (replica(&author, 12, 12), replica(&author, 12, 12));
    let opened = reopen(dir.path());
    let error = from(&peer, &dir).expect_err("it is open");
    assert!(error.to_string().contains("stop it first"), "{error}");
    drop(opened);
}
