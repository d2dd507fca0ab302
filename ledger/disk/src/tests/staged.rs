//! Values that were written before an entry named them. (That adopted ones survive any crash is shown in `crash`.)

use std::fs;

use tradewind_ledger::tree::value_digest;

use crate::open::{Face, Options, open};
use crate::testing::{Author, tempdir};

fn options() -> Options {
    Options { preallocate: 8 << 10, face: Face::Packed, ..Options::default() }
}

#[test]
fn a_staged_value_is_read_once_it_is_adopted() {
    let mut author = Author::signing("staged");
    author.put_detached(60_000);
    let dir = tempdir();
    let mut opened = open(dir.path(), &options(), |_, _| Ok(())).unwrap();
    let (_, digest, value) = &author.values[0];
    let stager = opened.writer.stager();
    let mut staged = stager.begin(7).unwrap();
    for piece in value.chunks(7_000) {
        staged.write(piece).unwrap();
    }
    assert_eq!(staged.finish().unwrap(), Some(value_digest(value)));
    assert_eq!(opened.reader.value(digest).unwrap(), None);
    opened.writer.adopt_value(digest, 7).unwrap();
    opened.writer.append(&author.entries).unwrap();
    opened.writer.sync().unwrap();
    assert_eq!(opened.reader.value(digest).unwrap().as_ref(), Some(value));
    drop(opened);
    let opened = open(dir.path(), &options(), |_, _| Ok(())).unwrap();
    assert_eq!(opened.reader.value(digest).unwrap().as_ref(), Some(value));
}

#[test]
fn a_value_whose_digest_is_known_is_staged_without_computing_it() {
    let mut author = Author::signing("known");
    author.put_detached(60_000);
    let dir = tempdir();
    let mut opened = open(dir.path(), &options(), |_, _| Ok(())).unwrap();
    let (_, digest, value) = &author.values[0];
    let mut staged = opened.writer.stager().begin_known(3).unwrap();
    staged.write(value).unwrap();
    assert_eq!(staged.finish().unwrap(), None);
    opened.writer.adopt_value(digest, 3).unwrap();
    assert_eq!(opened.reader.value(digest).unwrap().as_ref(), Some(value));
}

#[test]
fn what_no_entry_named_is_removed_by_hand_or_at_the_next_start() {
    let dir = tempdir();
    let opened = open(dir.path(), &options(), |_, _| Ok(())).unwrap();
    let values = dir.path().join("values");
    let count = || fs::read_dir(&values).unwrap().count();
    let stager = opened.writer.stager();
    for number in 0..3 {
        stager.begin(number).unwrap().write(b"some of it").unwrap();
    }
    stager.remove(1).unwrap();
    assert_eq!(count(), 2);
    drop(opened);
    let _opened = open(dir.path(), &options(), |_, _| Ok(())).unwrap();
    assert_eq!(count(), 0);
}
