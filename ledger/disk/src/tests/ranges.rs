//! Any batches, any reopening: the same entries.

use std::thread;

use proptest::prelude::*;
use tradewind_ledger::ids::Version;
use tradewind_ledger::segment_file::crc32c_append;

use crate::error::ReadError;
use crate::open::{Options, open};
use crate::testing::{Author, tempdir};

#[derive(Clone, Debug)]
enum Step {
    Put(usize),
    Seal,
    Sync,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3_000_usize).prop_map(Step::Put),
        1 => Just(Step::Put(30_000)),
        2 => Just(Step::Seal),
        3 => Just(Step::Sync),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_was_synced_is_read_back(
        steps in prop::collection::vec(step(), 1..60),
        cuts in prop::collection::vec((0..80_u64, 0..80_u64, 0..200_000_usize), 8),
    ) {
        let dir = tempdir();
        let options = Options { preallocate: 16 << 10, cached_segments: 1, ..Options::default() };
        let mut author = Author::new("any");
        let mut opened = open(dir.path(), &options, |_, _| Ok(())).expect("new");
        let mut appended = 0;
        for step in steps.into_iter().chain([Step::Sync]) {
            match step {
                Step::Put(len) => author.put(len),
                Step::Seal => author.seal(),
                Step::Sync | Step::Reopen => {
                    opened.writer.append(&author.entries[appended..]).expect("appended");
                    appended = author.entries.len();
                    prop_assert_eq!(opened.writer.sync().expect("synced"), author.size());
                }
            }
            if matches!(step, Step::Reopen) {
                drop(opened);
                let mut seen = Vec::new();
                let visit = |version: Version, entry: tradewind_ledger::Entry| {
                    assert_eq!(version.0, seen.len() as u64);
                    seen.push(entry.to_bytes().expect("canonical"));
                    Ok(())
                };
                opened = open(dir.path(), &options, visit).expect("it opens");
                prop_assert_eq!(&seen, &author.entries);
                prop_assert_eq!(opened.recovery, Default::default());
            }
        }
        for (first, end, max) in cuts {
            let (first, end) = (first.min(author.size().0 - 1), end.min(author.size().0));
            let read = opened.reader.entries(Version(first), Version(end), max).expect("readable");
            let wanted = &author.entries[first as usize..end.max(first) as usize];
            prop_assert_eq!(&read, &wanted[..read.len()]);
            prop_assert!(!read.is_empty() || wanted.is_empty());
            let bytes = |entries: &[Vec<u8>]| entries.iter().map(|it| 8 + it.len()).sum::<usize>();
            prop_assert!(bytes(&read) <= max.max(8 + 65_535));
            if read.len() < wanted.len() {
                prop_assert!(bytes(&wanted[..read.len() + 1]) > max, "more would have fitted");
            }
        }
    }

    #[test]
    fn both_checksums_are_the_same(bytes: Vec<u8>, crc: u32) {
        prop_assert_eq!(crc32c_append(crc, &bytes), crc32c::crc32c_append(crc, &bytes));
    }
}

#[test]
fn readers_follow_the_writer() {
    let mut author = Author::new("follow");
    for index in 1..3_000 {
        if index % 400 == 0 { author.seal() } else { author.put(index % 700) }
    }
    let dir = tempdir();
    let options = Options { preallocate: 16 << 10, cached_segments: 2, ..Options::default() };
    let mut opened = open(dir.path(), &options, |_, _| Ok(())).expect("new");
    let reader = opened.reader.clone();
    let size = author.size();
    thread::scope(|scope| {
        let followers: Vec<_> = (0..2)
            .map(|_| {
                let (reader, author) = (reader.clone(), &author);
                scope.spawn(move || {
                    let mut next = Version::ZERO;
                    while next < size {
                        let durable = reader.durable_size();
                        if next == durable {
                            thread::yield_now();
                            continue;
                        }
                        let read = reader.entries(next, durable, 50_000).expect("readable");
                        let from = next.0 as usize;
                        assert_eq!(read, author.entries[from..from + read.len()]);
                        next = next.plus(read.len() as u64);
                        assert_eq!(
                            reader.entry(Version(next.0 / 2)).expect("readable"),
                            author.entries[next.0 as usize / 2]
                        );
                    }
                })
            })
            .collect();
        for batch in author.entries.chunks(37) {
            opened.writer.append(batch).expect("appended");
            opened.writer.sync().expect("synced");
        }
        followers.into_iter().for_each(|follower| follower.join().expect("it saw all"));
    });
    assert_eq!(reader.sealed_segments().len(), 7);
    for version in [size, size.next(), Version(u64::MAX)] {
        let error = reader.entry(version).expect_err("not there");
        assert!(matches!(error, ReadError::Beyond { .. }), "{error}");
    }
}
