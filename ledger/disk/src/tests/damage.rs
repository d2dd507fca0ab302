//! Damage, foreign files and torn tails: what is refused, and what is cut off.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tradewind_ledger::ids::{Digest, Lineage, Version};
use tradewind_ledger::segment_file::{PAGE, RECORD_HEADER};
use tradewind_ledger::tree::leaf_hash;

use crate::error::{Found, OpenError, ReadError};
use crate::open::{Opened, Options, open, open_with};
use crate::testing::{Author, Event, Recorder, tempdir};

const FIRST: &str = "segments/00000000000000000000-00000000000000000004.seg";
const SECOND: &str = "segments/00000000000000000005-00000000000000000008.seg";
const OPEN: &str = "segments/00000000000000000009.open";

fn options() -> Options {
    Options { preallocate: 8 << 10, ..Options::default() }
}

fn reopen(dir: &Path) -> Result<Opened, OpenError> {
    open(dir, &options(), |_, _| Ok(()))
}

fn refusal(dir: &Path) -> OpenError {
    reopen(dir).map(drop).expect_err("it must be refused")
}

/// Two sealed segments and an open one with three entries, the last of them in a batch of its own.
fn ledger(pool: &str) -> (TempDir, Author) {
    let mut author = Author::new(pool);
    for _ in 0..2 {
        (0..3).for_each(|_| author.put(100));
        author.seal();
    }
    (0..3).for_each(|_| author.put(200));
    let dir = tempdir();
    let mut opened = reopen(dir.path()).expect("new");
    let (last, before) = author.entries.split_last().expect("some");
    for batch in [before, std::slice::from_ref(last)] {
        opened.writer.append(batch).expect("appended");
        opened.writer.sync().expect("synced");
    }
    opened.publisher.publish(&author.checkpoint(Version(9))).expect("published");
    (dir, author)
}

fn flip(path: &Path, offset: u64) {
    let file = fs::File::options().read(true).write(true).open(path).expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("within the file");
    file.write_all_at(&[byte[0] ^ 0x10], offset).expect("written");
}

/// The bytes of all files, to see that nothing was changed.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(dir.join("segments")).expect("a directory");
    let mut files: Vec<_> = files
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let bytes = fs::read(&path).expect("a file");
            (path, bytes)
        })
        .collect();
    files.sort_unstable();
    files
}

#[test]
fn any_flipped_byte_of_a_sealed_segment_is_refused_with_its_place() {
    let (dir, _) = ledger("damage");
    let path = dir.path().join(FIRST);
    let len = fs::metadata(&path).expect("a file").len();
    for offset in (0..len).filter(|offset| *offset >= PAGE as u64 || offset % 37 == 0) {
        flip(&path, offset);
        match refusal(dir.path()) {
            OpenError::Damaged(damage) => {
                assert_eq!(damage.file, path);
                let before = damage.offset <= offset || damage.offset < PAGE as u64;
                assert!(before, "a flip at {offset} was found at {}", damage.offset);
            }
            // The lineage in the header is compared with the caller's first, where there is one.
            error => panic!("a flip at {offset}: {error}"),
        }
        flip(&path, offset);
    }
    reopen(dir.path()).expect("as it was");
}

#[test]
fn a_sealed_segment_cut_or_grown_anywhere_is_refused() {
    let (dir, _) = ledger("damage");
    let path = dir.path().join(SECOND);
    let whole = fs::read(&path).expect("a file");
    for len in (0..whole.len()).step_by(7) {
        fs::write(&path, &whole[..len]).expect("written");
        assert!(matches!(refusal(dir.path()), OpenError::Damaged(_)), "cut at {len}");
    }
    for more in [&[0_u8][..], &[1], &[0; 64]] {
        fs::write(&path, [&whole, more].concat()).expect("written");
        let OpenError::Damaged(damage) = refusal(dir.path()) else { panic!("grown") };
        assert!(matches!(damage.found, Found::Trailing), "{damage}");
        assert_eq!(damage.offset, whole.len() as u64);
    }
}

#[test]
fn damage_below_the_watermark_is_refused_and_nothing_is_cut_off() {
    let (dir, author) = ledger("damage");
    let path = dir.path().join(OPEN);
    let end = PAGE + author.entries[9..].iter().map(|it| RECORD_HEADER + it.len()).sum::<usize>();
    for offset in PAGE..end {
        flip(&path, offset as u64);
        let before = contents(dir.path());
        let error = refusal(dir.path());
        assert!(matches!(error, OpenError::Damaged(_)), "at {offset}: {error}");
        assert_eq!(contents(dir.path()), before);
        flip(&path, offset as u64);
    }
    let whole = fs::read(&path).expect("a file");
    for len in 0..end {
        fs::write(&path, &whole[..len]).expect("written");
        assert!(matches!(refusal(dir.path()), OpenError::Damaged(_)), "cut at {len}");
    }
}

/// The open file as it is when power is lost before the last batch's sync: its mark is the one before.
fn without_last_mark(path: &Path, records: u64) {
    let file = fs::File::options().write(true).open(path).expect("a file");
    // Three marks were written: at creation, and after each of the two batches (the third one odd).
    assert_eq!(records, 3);
    file.write_all_at(&[0; 32], 512).expect("written");
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_off_and_the_log_goes_on() {
    let (dir, author) = ledger("damage");
    let path = dir.path().join(OPEN);
    without_last_mark(&path, 3);
    let torn = fs::read(&path).expect("a file");
    let len_of = |entry: &Vec<u8>| RECORD_HEADER + entry.len();
    let start = PAGE + author.entries[9..11].iter().map(len_of).sum::<usize>();
    let end = start + len_of(&author.entries[11]);
    for at in start..end {
        for cut in [true, false] {
            let mut bytes = torn.clone();
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 0x40;
            }
            fs::write(&path, &bytes).expect("written");
            let mut opened = reopen(dir.path()).expect("it opens");
            assert_eq!(opened.replay.size(), Version(11), "torn at {at}");
            let cut_off = opened.recovery.truncated_bytes;
            assert!(cut_off <= (end - start) as u64 && (cut_off > 0 || at <= start + 1), "{at}");
            opened.writer.append(&author.entries[11..]).expect("appended");
            opened.writer.sync().expect("synced");
            drop(opened);
            let opened = reopen(dir.path()).expect("it opens");
            assert_eq!(opened.replay.size(), author.size());
            assert_eq!(opened.recovery, Default::default());
        }
    }
}

#[test]
fn whole_entries_beyond_the_watermark_are_kept_and_written_again() {
    let (dir, author) = ledger("damage");
    without_last_mark(&dir.path().join(OPEN), 3);
    let recorder = Recorder::default();
    let opened = open_with(recorder.ops(dir.path()), dir.path(), &options(), |_, _| Ok(()));
    let opened = opened.expect("it opens");
    assert_eq!(opened.replay.size(), author.size());
    assert_eq!(opened.recovery.resynced_entries, 1);
    assert_eq!(opened.recovery.truncated_bytes, 0);
    // A failed sync may have left them in memory alone, marked as if they were on disk.
    let events = recorder.events();
    let entry = author.entries.last().expect("some");
    let is_written = |event: &Event| matches!(event, Event::Write(_, _, it) if it.ends_with(entry));
    let written = events.iter().position(is_written).expect("the entry was written again");
    assert!(events[written..].iter().any(|event| matches!(event, Event::SyncFile(_))));
}

#[test]
fn missing_segments_are_refused() {
    let (dir, _) = ledger("damage");
    fs::rename(dir.path().join(SECOND), dir.path().join("aside")).expect("renamed");
    match refusal(dir.path()) {
        OpenError::Gap { file, expected, found } => {
            assert_eq!(file, dir.path().join(OPEN));
            assert_eq!((expected, found), (Version(5), Version(9)));
        }
        error => panic!("{error}"),
    }
    fs::rename(dir.path().join("aside"), dir.path().join(SECOND)).expect("renamed");
    fs::remove_file(dir.path().join(OPEN)).expect("removed");
    reopen(dir.path()).expect("what was published is there");
    fs::remove_file(dir.path().join(SECOND)).expect("removed");
    match refusal(dir.path()) {
        OpenError::BehindCheckpoint { published, present, .. } => {
            assert_eq!((published, present), (Version(9), Version(5)));
        }
        error => panic!("{error}"),
    }
}

#[test]
fn segments_of_another_ledger_are_refused() {
    let (dir, _) = ledger("damage");
    let (other, _) = ledger("other");
    fs::copy(other.path().join(SECOND), dir.path().join(SECOND)).expect("copied");
    let OpenError::Damaged(damage) = refusal(dir.path()) else { panic!("a foreign segment") };
    assert!(matches!(damage.found, Found::Lineage { .. }), "{damage}");
    assert_eq!(damage.file, dir.path().join(SECOND));
}

#[test]
fn swapped_segments_are_refused() {
    let (dir, _) = ledger("damage");
    fs::copy(dir.path().join(FIRST), dir.path().join(SECOND)).expect("copied");
    let OpenError::Damaged(damage) = refusal(dir.path()) else { panic!("a swapped segment") };
    assert!(matches!(damage.found, Found::First(Version(0))), "{damage}");
}

#[test]
fn a_file_with_another_name_is_refused_and_a_temporary_one_removed() {
    let (dir, _) = ledger("damage");
    let temporary = dir.path().join("segments/00000000000000000012.open.tmp");
    fs::write(&temporary, b"half").expect("written");
    reopen(dir.path()).expect("it opens");
    assert!(!temporary.exists());
    let foreign = dir.path().join("segments/notes.txt");
    fs::write(&foreign, b"").expect("written");
    assert!(matches!(refusal(dir.path()), OpenError::Foreign { file } if file == foreign));
}

#[test]
fn another_ledger_than_the_expected_one_is_refused() {
    let (dir, author) = ledger("damage");
    let own = Lineage(leaf_hash(&author.entries[0]));
    let other = Lineage(Digest([1; 32]));
    let expecting = |lineage| Options { expected_lineage: Some(lineage), ..options() };
    drop(open(dir.path(), &expecting(own), |_, _| Ok(())).expect("its own"));
    let refused = open(dir.path(), &expecting(other), |_, _| Ok(())).map(drop);
    match refused.expect_err("another") {
        OpenError::WrongLedger { found, expected, .. } => {
            assert_eq!((found, expected), (own, other));
        }
        error => panic!("{error}"),
    }
}

#[test]
fn a_checkpoint_of_other_entries_is_refused() {
    let (dir, _) = ledger("damage");
    let (other, _) = ledger("other");
    fs::copy(other.path().join("checkpoint"), dir.path().join("checkpoint")).expect("copied");
    assert!(matches!(refusal(dir.path()), OpenError::ForkedCheckpoint { .. }));
    fs::write(dir.path().join("checkpoint"), b"nonsense").expect("written");
    assert!(matches!(refusal(dir.path()), OpenError::Damaged(_)));
}

#[test]
fn a_second_process_is_told_who_has_the_lock() {
    let (dir, _) = ledger("damage");
    let opened = reopen(dir.path()).expect("it opens");
    match refusal(dir.path()) {
        OpenError::Locked { process, .. } => assert_eq!(process, Some(std::process::id())),
        error => panic!("{error}"),
    }
    let reader = opened.reader.clone();
    drop(opened);
    drop(reopen(dir.path()).expect("writer and publisher are gone"));
    assert_eq!(reader.durable_size(), Version(12));
}

#[test]
fn a_refusal_of_the_caller_stops_the_opening() {
    let (dir, _) = ledger("damage");
    let visit = |version, _| match version {
        Version(7) => Err("not this one".into()),
        _ => Ok(()),
    };
    let refused = open(dir.path(), &options(), visit).map(drop).expect_err("refused");
    assert!(matches!(refused, OpenError::Refused { version: Version(7), .. }), "{refused}");
}

#[test]
fn damage_that_comes_later_is_found_by_reading() {
    let (dir, author) = ledger("damage");
    let opened = reopen(dir.path()).expect("it opens");
    let first = dir.path().join(FIRST);
    flip(&first, fs::metadata(&first).expect("a file").len() - 1);
    flip(&dir.path().join(OPEN), PAGE as u64 + 20);
    for version in [Version(4), Version(9)] {
        let error = opened.reader.entry(version).expect_err("damaged");
        assert!(matches!(error, ReadError::Damaged(_)), "{error}");
    }
    assert_eq!(opened.reader.entry(Version(6)).expect("good"), author.entries[6]);
}

#[test]
fn a_value_is_stored_once_and_checked_when_it_is_read() {
    let mut author = Author::new("values");
    author.put_detached(100_000);
    let (_, digest, value) = &author.values[0];
    let dir = tempdir();
    let mut opened = reopen(dir.path()).expect("new");
    assert_eq!(opened.reader.value(digest).expect("readable"), None);
    for _ in 0..2 {
        opened.writer.store_value(digest, value).expect("stored");
        opened.writer.sync().expect("synced");
        assert_eq!(opened.reader.value(digest).expect("readable").as_ref(), Some(value));
    }
    let name = digest.to_string();
    let path = dir.path().join("values").join(&name[..2]).join(&name);
    flip(&path, 70_000);
    let error = opened.reader.value(digest).expect_err("damaged");
    assert!(matches!(error, ReadError::Damaged(damage) if damage.file == path));
}
