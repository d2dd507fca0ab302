//! The public face: tiles, checkpoints, hashes for proofs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tempfile::TempDir;
use tradewind_ledger::ids::{Digest, Version};
use tradewind_ledger::note::Checkpoint;
use tradewind_ledger::tile::{self, MAX_TILE_LEVEL, TILE_HEIGHT, TileId, TileKind, tiles};
use tradewind_ledger::tree::{
    consistency_proof, inclusion_proof, leaf_hash, root_at, verify_consistency, verify_inclusion,
};

use crate::error::PublishError;
use crate::open::{Face, Opened, Options, open};
use crate::start::Start;
use crate::testing::{Author, tempdir};

/// Enough for a full tile of level 1 and a partial one of level 2.
const MANY: usize = 256 * 256 + 300;

const OPTIONS: Options = Options {
    preallocate: 64 << 10,
    cached_segments: 2,
    face: Face::Static,
    expected_lineage: None,
    start: Start::Genesis,
};

fn reopen(dir: &Path) -> Opened {
    open(dir, &OPTIONS, |_, _| Ok(())).expect("it opens")
}

fn author(entries: usize) -> Author {
    let mut author = Author::new("publish");
    while author.entries.len() < entries {
        match author.entries.len() % 5_000 {
            0 => author.seal(),
            _ => author.put(8),
        }
    }
    author
}

/// The paths and bytes of all files below `tile/`.
fn tile_files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![dir.join("tile")];
    while let Some(below) = dirs.pop() {
        for entry in fs::read_dir(&below).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let name = path.strip_prefix(dir).expect("below").to_string_lossy().into_owned();
                files.insert(name, fs::read(&path).expect("a file"));
            }
        }
    }
    files
}

fn names(size: Version) -> Vec<String> {
    let mut names: Vec<_> = tiles(size).map(|tile| tile.to_string()).collect();
    names.sort_unstable();
    names
}

fn published(author: &Author, steps: &[u64]) -> TempDir {
    published_with(&OPTIONS, author, steps)
}

fn published_with(options: &Options, author: &Author, steps: &[u64]) -> TempDir {
    let dir = tempdir();
    let mut opened = open(dir.path(), options, |_, _| Ok(())).expect("it opens");
    for step in steps {
        let from = opened.writer.size().0 as usize;
        opened.writer.append(&author.entries[from..*step as usize]).expect("appended");
        opened.writer.sync().expect("synced");
        opened.publisher.publish(&author.checkpoint(Version(*step))).expect("published");
    }
    dir
}

#[test]
fn replicas_that_batch_and_publish_differently_have_the_same_files() {
    let author = author(MANY);
    let size = author.size();
    let one = published(&author, &[size.0]);
    let other = published(&author, &[1, 2, 255, 256, 257, 5_001, 65_535, 65_537, size.0, size.0]);
    for dir in [&one, &other] {
        // Those of the checkpoint before may be there as well; one more publication leaves them out.
        let mut opened = reopen(dir.path());
        opened.publisher.publish(&author.checkpoint(size)).expect("published");
        let files = tile_files(dir.path());
        assert_eq!(files.keys().cloned().collect::<Vec<_>>(), names(size));
    }
    assert_eq!(tile_files(one.path()), tile_files(other.path()));
    for (_, name) in sealed(&author) {
        let read =
            |dir: &TempDir| fs::read(dir.path().join("segments").join(&name)).expect("there");
        assert_eq!(read(&one), read(&other), "{name}");
    }
}

fn sealed(author: &Author) -> Vec<(usize, String)> {
    let seals = author.entries.iter().enumerate().filter(|(_, it)| crate::writer::is_seal(it));
    let mut first = 0;
    let name = |(seal, _)| {
        let name = format!("{first:020}-{seal:020}.seg");
        first = seal + 1;
        (seal, name)
    };
    seals.map(name).collect()
}

#[test]
fn partial_tiles_of_the_checkpoint_before_stay_and_older_ones_go() {
    let author = author(300);
    let dir = published(&author, &[10, 20, 30]);
    let mut expected = [names(Version(20)), names(Version(30))].concat();
    expected.sort_unstable();
    assert_eq!(tile_files(dir.path()).into_keys().collect::<Vec<_>>(), expected);
    drop(reopen(dir.path()));
    assert_eq!(tile_files(dir.path()).into_keys().collect::<Vec<_>>(), names(Version(30)));
}

#[test]
fn tiles_that_are_lost_or_damaged_are_made_again() {
    let author = author(MANY);
    let dir = published(&author, &[author.size().0]);
    let whole = tile_files(dir.path());
    for name in ["tile/0/000", "tile/1/000", "tile/2/000.p/1", "tile/0/257.p/44"] {
        fs::remove_file(dir.path().join(name)).expect("removed");
    }
    fs::write(dir.path().join("tile/entries/007"), b"short").expect("written");
    fs::write(dir.path().join("tile/0/009"), vec![0; 8_192]).expect("written");
    fs::write(dir.path().join("tile/entries/257.p/44"), b"").expect("written");
    let opened = reopen(dir.path());
    assert_eq!(opened.recovery.repaired_tiles, 7);
    assert_eq!(tile_files(dir.path()), whole);
    drop(opened);
    fs::remove_dir_all(dir.path().join("tile")).expect("removed");
    drop(reopen(dir.path()));
    assert_eq!(tile_files(dir.path()), whole);
}

const PACKED: Options = Options { face: Face::Packed, ..OPTIONS };

/// The files below `tile/` where tiles are packed.
fn packed_files(size: Version) -> BTreeMap<String, u64> {
    let levels = (0..=MAX_TILE_LEVEL).map(|level| (level, size.0 >> (TILE_HEIGHT * level)));
    let some = levels.filter(|(_, nodes)| *nodes > 0);
    some.map(|(level, nodes)| (format!("tile/{level}.hashes"), nodes * 32)).collect()
}

fn lengths(dir: &Path) -> BTreeMap<String, u64> {
    tile_files(dir).into_iter().map(|(name, bytes)| (name, bytes.len() as u64)).collect()
}

/// The hash tiles that a checkpoint of the author's size needs, as they are read.
fn assert_tiles(dir: &Path, author: &Author) {
    let tree = author.tree();
    let hashes = tiles(author.size()).filter(|tile| tile.kind != TileKind::Entries);
    for tile in hashes {
        let expected = tile::hashes_of(&tile, &tree).expect("within the tree");
        let bytes = crate::tiles::read(dir, &tile).expect("there");
        assert_eq!(bytes, tile::encode_hashes(&expected), "{tile}");
    }
}

#[test]
fn packed_tiles_hold_the_same_hashes_in_one_file_a_level() {
    let author = author(MANY);
    let size = author.size();
    let steps = [1, 255, 256, 300, 1_000, 65_535, 65_537, size.0, size.0];
    for steps in [&steps[..], &[size.0]] {
        let dir = published_with(&PACKED, &author, steps);
        assert_eq!(lengths(dir.path()), packed_files(size));
        assert_tiles(dir.path(), &author);
        let opened = open(dir.path(), &PACKED, |_, _| Ok(())).expect("it opens");
        assert_eq!(opened.recovery.repaired_tiles, 0);
    }
}

#[test]
fn packed_tiles_that_are_lost_or_damaged_are_made_again_and_those_not_published_are_cut_off() {
    let author = author(MANY);
    let size = author.size();
    let dir = published_with(&PACKED, &author, &[size.0]);
    let whole = tile_files(dir.path());
    let (zero, one) = (dir.path().join("tile/0.hashes"), dir.path().join("tile/1.hashes"));
    let reopened = || {
        let opened = open(dir.path(), &PACKED, |_, _| Ok(())).expect("it opens");
        assert_eq!(tile_files(dir.path()), whole);
        opened.recovery.repaired_tiles
    };
    let mut bytes = whole["tile/0.hashes"].clone();
    for at in [0, 9 * 8_192 + 77, bytes.len() - 1] {
        bytes[at] ^= 1;
    }
    fs::write(&zero, &bytes).expect("written");
    assert_eq!(reopened(), 3);
    bytes.extend([7; 100]);
    fs::write(&zero, &bytes[..]).expect("written");
    fs::write(&one, &whole["tile/1.hashes"][..8_192 + 1]).expect("written");
    assert_eq!(reopened(), 4);
    fs::remove_dir_all(dir.path().join("tile")).expect("removed");
    assert_eq!(reopened(), 257 + 1 + 3);
}

#[test]
fn where_tiles_are_packed_from_now_on_those_that_are_files_are_read_and_go_one_by_one() {
    let mut author = author(1_000);
    let dir = published(&author, &[300, 1_000]);
    let opened = open(dir.path(), &PACKED, |_, _| Ok(())).expect("it opens");
    // The partial one of each level.
    assert_eq!(opened.recovery.repaired_tiles, 2);
    assert_tiles(dir.path(), &author);
    drop(opened);
    (0..2_000).for_each(|_| author.put(8));
    let mut opened = open(dir.path(), &PACKED, |_, _| Ok(())).expect("it opens");
    opened.writer.append(&author.entries[1_000..]).expect("appended");
    opened.writer.sync().expect("synced");
    opened.publisher.publish(&author.checkpoint(author.size())).expect("published");
    drop(opened);
    let files = tile_files(dir.path()).into_keys().collect::<Vec<_>>();
    assert_eq!(files, ["tile/0.hashes", "tile/0/000", "tile/0/001", "tile/0/002", "tile/1.hashes"]);
    fs::write(dir.path().join("tile/0/001"), b"damaged").expect("written");
    let opened = open(dir.path(), &PACKED, |_, _| Ok(())).expect("it opens");
    assert_eq!(opened.recovery.repaired_tiles, 1);
    assert_tiles(dir.path(), &author);
}

#[test]
fn only_what_is_durable_and_true_is_published() {
    let author = author(100);
    let dir = tempdir();
    let mut opened = reopen(dir.path());
    opened.writer.append(&author.entries[..60]).expect("appended");
    opened.writer.sync().expect("synced");
    opened.writer.append(&author.entries[60..]).expect("appended");
    let refused = opened.publisher.publish(&author.checkpoint(Version(61)));
    assert!(matches!(refused, Err(PublishError::NotDurable { durable: Version(60), .. })));
    opened.publisher.publish(&author.checkpoint(Version(40))).expect("published");
    let refused = opened.publisher.publish(&author.checkpoint(Version(39)));
    assert!(matches!(refused, Err(PublishError::Older { .. })));

    let note = author.checkpoint(Version(50));
    let forged = Checkpoint { root: Digest([9; 32]), ..note.checkpoint().expect("a checkpoint") };
    let forged = forged.with_signatures(note.signatures().to_vec()).expect("a note");
    let refused = opened.publisher.publish(&forged);
    assert!(matches!(refused, Err(PublishError::RootMismatch { size: Version(50), .. })));
    assert_eq!(opened.publisher.published(), Version(40));
    let text = fs::read_to_string(dir.path().join("checkpoint")).expect("there");
    assert_eq!(text, author.checkpoint(Version(40)).to_string());
}

#[test]
fn proofs_hold_at_any_durable_size_published_or_not() {
    let author = author(MANY);
    let tree = author.tree();
    let root = |size| root_at(&tree, size).expect("reached");
    let dir = published(&author, &[66, 1_000, 65_600]);
    let mut opened = reopen(dir.path());
    opened.writer.append(&author.entries[65_600..]).expect("appended");
    opened.writer.sync().expect("synced");
    let reader = &opened.reader;
    let size = author.size();
    for (old, new) in [(1, 2), (66, 1_000), (255, 257), (65_536, 65_537), (1_000, size.0)] {
        let (old, new) = (Version(old), Version(new));
        assert_eq!(root_at(reader, new), Ok(root(new)));
        let proof = consistency_proof(reader, old, new).expect("provable");
        verify_consistency(old, new, &root(old), &root(new), &proof).expect("it holds");
    }
    for version in [0, 255, 256, 65_535, 65_600, size.0 - 1].map(Version) {
        let leaf = leaf_hash(&author.entries[version.0 as usize]);
        let proof = inclusion_proof(reader, version, size).expect("provable");
        verify_inclusion(&leaf, version, size, &proof, &root(size)).expect("it holds");
    }
    assert!(root_at(reader, size.next()).is_err());
}

#[test]
fn a_tile_of_a_larger_size_is_taken_over_by_the_next_publication() {
    let author = author(600);
    let dir = published(&author, &[100]);
    // As an interrupted publication leaves it: a full tile that is not whole, and a partial one.
    let torn: TileId = "tile/0/000".parse().expect("a path");
    fs::write(dir.path().join(torn.to_string()), b"torn").expect("written");
    fs::create_dir_all(dir.path().join("tile/0/001.p")).expect("made");
    fs::write(dir.path().join("tile/0/001.p/9"), b"torn").expect("written");
    let mut opened = reopen(dir.path());
    opened.writer.append(&author.entries[100..]).expect("appended");
    opened.writer.sync().expect("synced");
    opened.publisher.publish(&author.checkpoint(author.size())).expect("published");
    drop(opened);
    drop(reopen(dir.path()));
    assert_eq!(tile_files(dir.path()).into_keys().collect::<Vec<_>>(), names(author.size()));
    let fresh = published(&author, &[author.size().0]);
    assert_eq!(tile_files(dir.path()), tile_files(fresh.path()));
}
