//! Opening from a base: what is shown, what is not even read, and which bases are refused.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use tradewind_ledger::base::Base;
use tradewind_ledger::ids::Version;
use tradewind_ledger::tile::{TILE_WIDTH, TileId, TileKind};
use tradewind_ledger::tree::{MemoryTree, inclusion_proof, leaf_hash, root_at, verify_inclusion};

use crate::error::{BaseFault, OpenError, ReadError};
use crate::open::{Opened, Options, open};
use crate::start::Start;
use crate::testing::{Author, tempdir};

fn options(start: Start) -> Options {
    Options { preallocate: 8 << 10, start, ..Options::default() }
}

fn open_from(dir: &Path, base: &Arc<Base>) -> Result<Opened, OpenError> {
    open(dir, &options(Start::Base(Arc::clone(base))), |_, _| Ok(()))
}

/// Six sealed segments, one with hundreds of entries, and an open one; published up to the last but one entry.
fn history(pool: &str) -> Author {
    let mut author = Author::new(pool);
    for segment in 0..6 {
        (0..if segment == 2 { 700 } else { 40 }).for_each(|_| author.put(30));
        author.seal();
    }
    (0..5).for_each(|_| author.put(30));
    author
}

fn ledger(author: &Author) -> TempDir {
    let dir = tempdir();
    let mut opened = open(dir.path(), &options(Start::Genesis), |_, _| Ok(())).expect("new");
    for entries in author.entries.chunks(100) {
        opened.writer.append(entries).expect("appended");
        opened.writer.sync().expect("synced");
    }
    let published = Version(author.size().0 - 1);
    opened.publisher.publish(&author.checkpoint(published)).expect("published");
    dir
}

fn fault(dir: &Path, base: &Arc<Base>) -> BaseFault {
    match open_from(dir, base).map(drop) {
        Err(OpenError::Base { fault, size, .. }) if size == base.size() => *fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn entries_from_the_base_on_are_shown_and_all_can_be_read_and_proven() {
    let mut author = history("base");
    let dir = ledger(&author);
    for base in author.bases.clone() {
        let mut shown = Vec::new();
        let options = options(Start::Base(Arc::clone(&base)));
        let mut opened = open(dir.path(), &options, |version, entry| {
            shown.push((version, entry.to_bytes()?));
            Ok(())
        })
        .expect("it opens");
        let from = base.size().0 as usize;
        let expected: Vec<_> =
            (base.size().0..).map(Version).zip(author.entries[from..].iter().cloned()).collect();
        assert_eq!(shown, expected);
        assert_eq!(format!("{:?}", opened.replay), format!("{:?}", author.replay()));

        let size = author.size();
        let reader = opened.reader.clone();
        let read = reader.entries(Version::ZERO, size, usize::MAX).expect("readable");
        assert_eq!(read, author.entries);
        let tree = author.tree();
        for version in (0..size.0).step_by(7).map(Version) {
            assert_eq!(root_at(&reader, version), root_at(&tree, version));
            let proof = inclusion_proof(&reader, version, size).expect("a proof");
            let leaf = leaf_hash(&author.entries[version.0 as usize]);
            verify_inclusion(&leaf, version, size, &proof, &author.replay().root()).expect("holds");
        }

        let before = author.entries.len();
        (0..260).for_each(|_| author.put(10));
        author.seal();
        opened.writer.append(&author.entries[before..]).expect("appended");
        opened.writer.sync().expect("synced");
        opened.publisher.publish(&author.checkpoint(author.size())).expect("published");
    }
    let opened = open(dir.path(), &options(Start::Genesis), |_, _| Ok(())).expect("it opens");
    assert_eq!(opened.recovery, Default::default());
    assert_eq!(opened.replay.root(), author.replay().root());
}

/// The cost of opening is that of what comes after the base: of what comes before, no segment but the newest is even
/// opened, nor a tile beside the right edge and the paths to the base's entries.
#[test]
fn nothing_of_the_history_before_the_base_is_read() {
    let mut author = Author::new("base");
    for _ in 0..40 {
        (0..2_000).for_each(|_| author.put(1));
        author.seal();
    }
    let dir = ledger(&author);
    let base = author.bases[38].clone();
    let segments: Vec<_> = author.bases.iter().map(|base| base.seal().1.first).collect();
    for (first, base) in segments.iter().zip(&author.bases[..38]) {
        let name = format!("segments/{:020}-{:020}.seg", first.0, base.size().0 - 1);
        fs::write(dir.path().join(name), b"").expect("emptied");
    }
    let needed = |tile: &TileId| match tile.kind {
        TileKind::Hashes { level: 0 } => tile.index == 0 || tile.index >= base.size().0 / 256,
        TileKind::Hashes { .. } => true,
        TileKind::Entries => false,
    };
    let size = Version(author.size().0 - 1);
    for tile in
        tradewind_ledger::tile::tiles(size).filter(|tile| tile.first() < base.size().0 - 512)
    {
        if tile.width == TILE_WIDTH && !needed(&tile) {
            fs::remove_file(dir.path().join(tile.to_string())).expect("removed");
        }
    }
    let opened = open_from(dir.path(), &base).expect("it opens");
    assert_eq!(opened.replay.root(), author.replay().root());
    assert_eq!(opened.recovery, Default::default());
    // Whoever does read there is told.
    let error = opened.reader.entry(Version(5)).expect_err("emptied");
    assert!(matches!(error, ReadError::Damaged(_)), "{error}");
    let in_newest = Version(author.bases[37].size().0 + 3);
    assert_eq!(opened.reader.entry(in_newest).expect("good"), author.entries[in_newest.0 as usize]);
}

#[test]
fn a_base_that_is_not_of_this_ledger_is_refused() {
    let author = history("base");
    let dir = ledger(&author);
    let other = history("other");
    assert!(matches!(fault(dir.path(), &other.bases[0]), BaseFault::Tile { .. }));
    let expected_lineage = author.replay().lineage();
    let start = Start::Base(Arc::clone(&other.bases[0]));
    let opened = open(dir.path(), &Options { expected_lineage, ..options(start) }, |_, _| Ok(()));
    let Err(OpenError::Base { fault: found, .. }) = opened.map(drop) else { panic!("accepted") };
    assert!(matches!(*found, BaseFault::Lineage { .. }), "{found}");
    // The same genesis, but other entries.
    let mut fork = Author::new("base");
    for _ in 0..6 {
        (0..40).for_each(|_| fork.put(31));
        fork.seal();
    }
    for base in &fork.bases {
        assert!(matches!(fault(dir.path(), base), BaseFault::Tile { .. }));
    }
    open_from(dir.path(), &author.bases[0]).expect("as it was");
}

#[test]
fn a_base_beyond_what_was_published_is_refused() {
    let mut author = history("base");
    let dir = ledger(&author);
    let before = author.entries.len();
    author.seal();
    let mut opened = open_from(dir.path(), &author.bases[5]).expect("it opens");
    opened.writer.append(&author.entries[before..]).expect("appended");
    opened.writer.sync().expect("synced");
    drop(opened);
    let refused = fault(dir.path(), author.bases.last().expect("some"));
    let published = Version(before as u64 - 1);
    assert!(matches!(refused, BaseFault::Unpublished { published: found } if found == published));
}

#[test]
fn a_damaged_tile_at_the_edge_or_on_the_path_to_the_genesis_is_refused() {
    let author = history("base");
    let dir = ledger(&author);
    let base = author.base_at(Version(author.size().0 - 1)).expect("some");
    let edge = dir.path().join("tile/0").join(format!("{:03}.p", base.size().0 / 256));
    let edge =
        fs::read_dir(edge).expect("a partial tile").next().expect("one").expect("one").path();
    let genesis = dir.path().join("tile/0/000");
    for (path, at_edge) in [(edge, true), (genesis, false)] {
        let whole = fs::read(&path).expect("a tile");
        let mut bytes = whole.clone();
        bytes[40] ^= 1;
        fs::write(&path, &bytes).expect("written");
        match fault(dir.path(), &base) {
            BaseFault::Tile { .. } => assert!(at_edge),
            BaseFault::Entry { .. } => assert!(!at_edge),
            other => panic!("{other}"),
        }
        let text = open_from(dir.path(), &base).map(drop).expect_err("refused").to_string();
        assert!(text.contains("open it from another base, or without one"), "{text}");
        fs::write(&path, &whole).expect("written");
    }
    open_from(dir.path(), &base).expect("as it was");
}

#[test]
fn missing_and_foreign_segments_before_the_base_are_refused() {
    let author = history("base");
    let dir = ledger(&author);
    let base = &author.bases[4];
    let file = |author: &Author, index: usize| {
        let base = &author.bases[index];
        format!("segments/{:020}-{:020}.seg", base.seal().1.first.0, base.size().0 - 1)
    };
    for index in [0, 2, 4] {
        let (path, aside) = (dir.path().join(file(&author, index)), dir.path().join("aside"));
        fs::rename(&path, &aside).expect("moved");
        let refused = open_from(dir.path(), base).map(drop).expect_err("a gap");
        assert!(matches!(refused, OpenError::Gap { .. }), "{refused}");
        fs::rename(&aside, &path).expect("moved");
    }
    let other = ledger(&history("other"));
    let newest = file(&author, 4);
    fs::copy(other.path().join(&newest), dir.path().join(&newest)).expect("copied");
    let refused = open_from(dir.path(), base).map(drop).expect_err("foreign");
    assert!(matches!(refused, OpenError::Damaged(_)), "{refused}");
}

#[test]
fn a_segment_before_the_base_whose_sealing_was_interrupted_is_sealed() {
    let author = history("base");
    let dir = ledger(&author);
    let base = &author.bases[5];
    let (first, last) = (base.seal().1.first, base.size().0 - 1);
    let sealed = dir.path().join(format!("segments/{first:0>20}-{last:0>20}.seg"));
    fs::rename(&sealed, dir.path().join(format!("segments/{first:0>20}.open"))).expect("renamed");
    let opened = open_from(dir.path(), base).expect("it opens");
    assert_eq!(opened.recovery.sealed_segments, 1);
    assert!(sealed.exists());
    let tree: MemoryTree = author.tree();
    assert_eq!(opened.replay.root(), tree.root());
    assert_eq!(opened.reader.entry(first).expect("readable"), author.entries[first.0 as usize]);
}
