//! A disk that refuses: no space, and a sync that fails.

use std::io::{Error, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tradewind_ledger::entry::MAX_VALUE;
use tradewind_ledger::ids::Version;

use crate::error::WriteError;
use crate::open::{Options, open, open_with};
use crate::ops::{Op, Ops};
use crate::testing::{Author, Random, tempdir};

fn options() -> Options {
    Options { preallocate: 8 << 10, ..Options::default() }
}

fn history() -> Author {
    let mut author = Author::new("failures");
    for _ in 0..3 {
        author.put(500);
        author.put_detached(40_000);
        author.seal();
    }
    author.put(10);
    author
}

/// Fails the changes that `fails` says, told their number.
fn ops(fails: impl Fn(usize, Op<'_>) -> Option<ErrorKind> + Send + Sync + 'static) -> Ops {
    let count = AtomicUsize::new(0);
    let tap = move |op: Op<'_>| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        fails(number, op).map_or(Ok(()), |kind| Err(Error::from(kind)))
    };
    Ops { tap: Some(Arc::new(tap)) }
}

fn is_sync(op: Op<'_>) -> bool {
    matches!(op, Op::SyncFile(_) | Op::SyncDir(_) | Op::SyncAll)
}

/// Tries until it goes through; how often it did not.
fn insist(mut action: impl FnMut() -> Result<(), WriteError>) -> usize {
    for failures in 0..100 {
        match action() {
            Ok(()) => return failures,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
    panic!("it never goes through")
}

#[test]
fn a_full_disk_loses_nothing_whatever_it_refuses() {
    let author = history();
    for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::ReadOnlyFilesystem] {
        let dir = tempdir();
        drop(open(dir.path(), &options(), |_, _| Ok(())).expect("new"));
        let fails = move |number: usize, op: Op<'_>| {
            let unlucky = Random::new(number as u64).below(4) == 0;
            (unlucky && !is_sync(op)).then_some(kind)
        };
        let mut opened =
            open_with(ops(fails), dir.path(), &options(), |_, _| Ok(())).expect("it opens");
        let mut failures = 0;
        for entry in author.entries.chunks(3) {
            for (_, digest, value) in &author.values {
                failures += insist(|| opened.writer.store_value(digest, value));
            }
            opened.writer.append(entry).expect("buffered");
            let before = opened.reader.durable_size();
            failures += insist(|| opened.writer.sync().map(drop));
            assert!(opened.reader.durable_size() > before);
        }
        assert!(failures > 0, "nothing was refused");
        assert_eq!(opened.reader.durable_size(), author.size());
        drop(opened);
        let opened = open(dir.path(), &options(), |_, _| Ok(())).expect("it opens");
        let entries = opened.reader.entries(Version::ZERO, author.size(), usize::MAX);
        assert_eq!(entries.expect("readable"), author.entries);
    }
}

#[test]
fn after_a_failed_sync_nothing_is_written_any_more() {
    let author = history();
    for failing in 0.. {
        let dir = tempdir();
        drop(open(dir.path(), &options(), |_, _| Ok(())).expect("new"));
        let failed = Arc::new(AtomicUsize::new(0));
        let syncs = AtomicUsize::new(0);
        let fails = {
            let failed = Arc::clone(&failed);
            move |_, op: Op<'_>| {
                assert_eq!(failed.load(Ordering::Relaxed), 0, "{op:?} after a failed sync");
                if !is_sync(op) || syncs.fetch_add(1, Ordering::Relaxed) != failing {
                    return None;
                }
                failed.store(1, Ordering::Relaxed);
                Some(ErrorKind::Other)
            }
        };
        let mut opened =
            open_with(ops(fails), dir.path(), &options(), |_, _| Ok(())).expect("it opens");
        let mut run = || -> Result<(), WriteError> {
            for entry in &author.entries {
                for (_, digest, value) in &author.values {
                    opened.writer.store_value(digest, value)?;
                }
                opened.writer.append(&[entry])?;
                opened.writer.sync()?;
            }
            Ok(())
        };
        let Err(error) = run() else {
            assert!(failing > 10, "only {failing} syncs");
            return;
        };
        assert!(matches!(error, WriteError::Failed(_)) && !error.is_retryable(), "{error}");
        let durable = opened.reader.durable_size();
        for again in [
            opened.writer.append(&author.entries[..1]).map(drop),
            opened.writer.sync().map(drop),
            opened.writer.store_value(&author.values[0].1, &author.values[0].2),
        ] {
            assert!(matches!(again, Err(WriteError::Failed(_))));
        }
        drop(opened);
        let opened = open(dir.path(), &options(), |_, _| Ok(())).expect("it opens");
        assert!(opened.replay.size() >= durable);
    }
}

#[test]
fn what_cannot_be_an_entry_of_the_segment_is_not_taken() {
    let author = history();
    let dir = tempdir();
    let mut opened = open(dir.path(), &options(), |_, _| Ok(())).expect("new");
    let seal = &author.entries[3];
    let first = &author.entries[0];
    assert!(matches!(
        opened.writer.append(&[first, first, &vec![0; 65_536]]),
        Err(WriteError::NotAnEntry { version: Version(2), .. })
    ));
    assert!(matches!(
        opened.writer.append(&[&b""[..]]),
        Err(WriteError::NotAnEntry { version: Version(0), .. })
    ));
    assert_eq!(opened.writer.size(), Version(0));
    opened.writer.append(&[first, &author.entries[1], &author.entries[2], seal]).expect("taken");
    assert!(matches!(
        opened.writer.append(&[seal]),
        Err(WriteError::SealRange { version: Version(4), .. })
    ));
    let value = vec![0; MAX_VALUE as usize + 1];
    let digest = tradewind_ledger::tree::value_digest(&value);
    let refused = opened.writer.store_value(&digest, &value);
    assert!(matches!(refused, Err(WriteError::ValueTooLong(_))));
    assert_eq!(opened.writer.sync().expect("synced"), Version(4));
}
