//! A suffix cut off: what stays, what is kept aside, what is refused, and a crash between the two renames.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tradewind_ledger::ids::Version;

use crate::open::{Face, Opened, Options, open};
use crate::rewind::{RewindError, rewind};
use crate::testing::{Author, tempdir};

/// Entries 0 to 4 are a sealed segment, behind it there are three more and a detached value.
fn history() -> Author {
    let mut author = Author::signing("rewind");
    (0..2).for_each(|_| author.put(30));
    author.put_detached(100);
    author.seal();
    (0..2).for_each(|_| author.put(40));
    author.put_detached(90);
    author
}

fn options() -> Options {
    Options { preallocate: 8 << 10, face: Face::Packed, ..Options::default() }
}

fn reopen(dir: &Path) -> Opened {
    open(dir, &options(), |_, _| Ok(())).expect("it opens")
}

/// A data directory with the ledger, of which `published` entries have a checkpoint.
fn data(author: &Author, published: u64) -> (TempDir, PathBuf, PathBuf) {
    let data = tempdir();
    let (ledger, aside) = (data.path().join("ledgers/f.0"), data.path().join("cut"));
    fs::create_dir_all(&ledger).unwrap();
    let mut opened = reopen(&ledger);
    for (_, digest, value) in &author.values {
        opened.writer.store_value(digest, value).unwrap();
    }
    opened.writer.append(&author.entries).unwrap();
    opened.writer.sync().unwrap();
    opened.publisher.publish(&author.checkpoint(Version(published))).unwrap();
    (data, ledger, aside)
}

#[test]
fn any_suffix_behind_the_checkpoint_is_cut_off_and_kept_aside() {
    let author = history();
    let size = author.entries.len() as u64;
    for to in 3..size {
        let (_data, ledger, aside) = data(&author, 3);
        assert_eq!(rewind(&ledger, &aside, &options(), Version(to)).unwrap(), size - to);
        let opened = reopen(&ledger);
        let left = opened.reader.entries(Version::ZERO, Version(to), usize::MAX).unwrap();
        assert_eq!(left, author.entries[..to as usize]);
        assert_eq!(opened.replay.size(), Version(to));
        let signed = opened.checkpoint.as_ref().expect("it was copied").checkpoint().unwrap();
        assert_eq!(signed.size, Version(3));
        for (_, digest, value) in author.values.iter().filter(|(at, ..)| at.0 < to) {
            assert_eq!(opened.reader.value(digest).unwrap().as_ref(), Some(value));
        }
        drop(opened);
        let old = reopen(&aside.join(format!("f.0-{to}-{size}")));
        assert_eq!(old.reader.durable_size(), Version(size), "nothing is lost");
        drop(old);
        assert_eq!(rewind(&ledger, &aside, &options(), Version(to)).unwrap(), 0, "done before");
    }
}

#[test]
fn what_a_majority_has_signed_is_not_cut_off() {
    let author = history();
    let (_data, ledger, aside) = data(&author, 5);
    let refused = rewind(&ledger, &aside, &options(), Version(4)).unwrap_err();
    assert!(matches!(refused, RewindError::Signed { signed: Version(5), .. }), "{refused}");
    assert_eq!(reopen(&ledger).reader.durable_size().0, author.entries.len() as u64);
}

#[test]
fn a_crash_between_the_two_renames_is_finished() {
    let author = history();
    let (_data, ledger, aside) = data(&author, 3);
    rewind(&ledger, &aside, &options(), Version(6)).unwrap();
    fs::rename(&ledger, aside.join("f.0.kept")).unwrap();
    assert_eq!(rewind(&ledger, &aside, &options(), Version(6)).unwrap(), 0);
    assert_eq!(reopen(&ledger).reader.durable_size(), Version(6));
}
