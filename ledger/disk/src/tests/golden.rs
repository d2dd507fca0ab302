//! A whole ledger of format version 1: this program must go on writing these files, and reading them, for
//! ever. To add files for a *new* format, run with `TRADEWIND_BLESS=1`; the existing ones never change.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tradewind_ledger::ids::Version;

use crate::open::{Options, Recovery, open};
use crate::testing::{Author, tempdir};

fn options() -> Options {
    Options { preallocate: 8 << 10, ..Options::default() }
}

/// One sealed segment, an open one with two batches, a detached value, a checkpoint with its tiles.
fn history() -> Author {
    let mut author = Author::new("golden");
    author.put(20);
    author.put_detached(100);
    author.seal();
    author.put(0);
    author.put(70);
    author
}

fn write(dir: &Path) {
    let author = history();
    let mut opened = open(dir, &options(), |_, _| Ok(())).expect("new");
    let (_, digest, value) = &author.values[0];
    opened.writer.store_value(digest, value).expect("stored");
    for batch in [&author.entries[..5], &author.entries[5..]] {
        opened.writer.append(batch).expect("appended");
        opened.writer.sync().expect("synced");
    }
    opened.publisher.publish(&author.checkpoint(Version(5))).expect("published");
}

/// Paths and bytes of a directory's files, without the lock.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else if !path.ends_with("LOCK") {
                let name = path.strip_prefix(root).expect("below").to_owned();
                files.insert(name, fs::read(path).expect("a file"));
            }
        }
    }
    files
}

fn copy(files: &BTreeMap<PathBuf, Vec<u8>>, to: &Path) {
    for (name, bytes) in files {
        let path = to.join(name);
        fs::create_dir_all(path.parent().expect("below")).expect("a directory");
        fs::write(path, bytes).expect("written");
    }
}

#[test]
fn the_files_of_format_1_are_written_and_read() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1");
    let made = tempdir();
    write(made.path());
    if std::env::var_os("TRADEWIND_BLESS").is_some() && !golden.exists() {
        copy(&files(made.path()), &golden);
    }
    let kept = files(&golden);
    let made = files(made.path());
    assert_eq!(kept.keys().collect::<Vec<_>>(), made.keys().collect::<Vec<_>>());
    for (name, bytes) in &kept {
        assert!(*bytes == made[name], "{} has other bytes", name.display());
    }

    let dir = tempdir();
    copy(&kept, dir.path());
    let author = history();
    let opened = open(dir.path(), &options(), |_, _| Ok(())).expect("it opens");
    assert_eq!(opened.recovery, Recovery::default());
    let entries = opened.reader.entries(Version::ZERO, author.size(), usize::MAX);
    assert_eq!(entries.expect("readable"), author.entries);
    let (_, digest, value) = &author.values[0];
    assert_eq!(opened.reader.value(digest).expect("readable").as_ref(), Some(value));
    assert_eq!(opened.checkpoint, Some(author.checkpoint(Version(5))));
    drop(opened);
    assert_eq!(files(dir.path()), kept, "opening changes nothing");
}
