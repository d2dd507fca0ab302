//! Pruning: what goes and what stays, at any crash in between; and ledgers that begin at a base.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tradewind_ledger::base::Base;
use tradewind_ledger::ids::{Digest, Version};
use tradewind_ledger::tile::{HASH_TILE_BYTES, TileId};
use tradewind_ledger::tree::{
    HashSource, consistency_proof, inclusion_proof, leaf_hash, root_at, verify_consistency,
    verify_inclusion,
};

use crate::error::{BaseFault, OpenError, ReadError};
use crate::open::{Face, Opened, Options, open, open_with};
use crate::plant::{PlantError, plant};
use crate::prune::{PruneError, Pruning};
use crate::start::Start;
use crate::testing::{Author, Event, Image, Random, Recorder, tempdir};

fn options(start: Start) -> Options {
    Options { preallocate: 8 << 10, start, ..Options::default() }
}

fn open_kept(dir: &Path) -> Opened {
    open(dir, &options(Start::Kept), |_, _| Ok(())).expect("it opens")
}

/// Eight sealed segments of 151 entries, one detached value in each, and an open one.
fn history() -> Author {
    let mut author = Author::new("prune");
    for segment in 0..8 {
        (0..149).for_each(|_| author.put(20));
        author.put_detached(100 + segment);
        author.seal();
    }
    (0..5).for_each(|_| author.put(20));
    author
}

fn write(dir: &Path, author: &Author, opened: &mut Opened) {
    for (version, digest, value) in &author.values {
        if *version >= opened.writer.size() {
            opened.writer.store_value(digest, value).expect("stored");
        }
    }
    let from = opened.writer.size().0 as usize;
    for entries in author.entries[from..].chunks(100) {
        opened.writer.append(entries).expect("appended");
        opened.writer.sync().expect("synced");
    }
    opened.publisher.publish(&author.checkpoint(author.size())).expect("published");
    assert!(dir.join("checkpoint").exists());
}

fn ledger(author: &Author) -> TempDir {
    let dir = tempdir();
    let mut opened = open(dir.path(), &options(Start::Genesis), |_, _| Ok(())).expect("new");
    write(dir.path(), author, &mut opened);
    dir
}

/// Names and bytes of all files.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(at) = dirs.pop() {
        for entry in fs::read_dir(at).expect("a directory") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => dirs.push(path),
                false if path.ends_with("LOCK") => {}
                false => {
                    let bytes = fs::read(&path).expect("a file");
                    files.insert(path.strip_prefix(dir).expect("below it").to_owned(), bytes);
                }
            }
        }
    }
    files
}

/// Compares without printing what may be megabytes.
fn assert_same(
    found: &BTreeMap<PathBuf, Vec<u8>>,
    expected: &BTreeMap<PathBuf, Vec<u8>>,
    what: &str,
) {
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected), "{what}");
    let other: Vec<_> = found.iter().filter(|(name, bytes)| expected[*name] != **bytes).collect();
    let other: Vec<_> = other.into_iter().map(|(name, _)| name).collect();
    assert!(other.is_empty(), "{what}: {other:?} differ");
}

/// Entries from the base on are there, and everything kept is provable; what was before is known to be gone.
fn assert_pruned(opened: &Opened, author: &Author, base: &Base) {
    let (first, size, reader) = (base.size(), author.size(), &opened.reader);
    assert_eq!(reader.first(), first);
    let kept = reader.entries(first, size, usize::MAX).expect("readable");
    assert_eq!(kept, author.entries[first.0 as usize..]);
    for version in (0..first.0).step_by(11).map(Version) {
        match reader.entry(version) {
            Err(ReadError::Pruned { version: asked, first: found }) => {
                assert_eq!((asked, found), (version, first));
            }
            other => panic!("{other:?}"),
        }
    }
    let (tree, root) = (author.tree(), author.replay().root());
    for version in (0..size.0).step_by(13).map(Version) {
        assert_eq!(root_at(reader, version), root_at(&tree, version));
        let proof = inclusion_proof(reader, version, size).expect("a proof");
        let leaf = leaf_hash(&author.entries[version.0 as usize]);
        verify_inclusion(&leaf, version, size, &proof, &root).expect("holds");
        let proof = consistency_proof(reader, version, size).expect("a proof");
        let old = root_at(reader, version).expect("a root");
        verify_consistency(version, size, &old, &root, &proof).expect("holds");
    }
}

#[test]
fn what_is_before_the_base_goes_and_the_rest_can_be_proven() {
    let mut author = history();
    let dir = ledger(&author);
    for index in [1, 2, 5] {
        let base = author.bases[index].clone();
        let mut opened = open_kept(dir.path());
        let pruned = opened.publisher.prune(&base, |_| false).expect("pruned");
        assert!(pruned.segments > 0 && pruned.values == pruned.segments, "{pruned:?}");
        assert_pruned(&opened, &author, &base);
        for (version, digest, value) in &author.values {
            let found = opened.reader.value(digest).expect("readable");
            assert_eq!(found.as_ref(), (*version >= base.size()).then_some(value));
        }
        // The log goes on, and so does what is published.
        (0..200).for_each(|_| author.put(20));
        author.seal();
        write(dir.path(), &author, &mut opened);
        drop(opened);
        let mut shown = Vec::new();
        let opened = open(dir.path(), &options(Start::Kept), |version, _| {
            shown.push(version.0);
            Ok(())
        })
        .expect("it opens");
        assert_eq!(shown, (base.size().0..author.size().0).collect::<Vec<_>>());
        assert_eq!(opened.recovery, Default::default());
        assert_eq!(format!("{:?}", opened.replay), format!("{:?}", author.replay()));
        assert_pruned(&opened, &author, &base);
    }
    let opened = open(dir.path(), &options(Start::Genesis), |_, _| Ok(())).map(drop);
    let error = opened.expect_err("pruned");
    assert!(matches!(&error, OpenError::Pruned { first, .. } if *first == author.bases[5].size()));
    assert!(error.to_string().contains("were pruned; open it from a base"), "{error}");
    let older = Start::Base(author.bases[3].clone());
    let error = open(dir.path(), &options(older), |_, _| Ok(())).map(drop).expect_err("pruned");
    let OpenError::Base { fault, .. } = error else { panic!("{error}") };
    assert!(matches!(*fault, BaseFault::Pruned { .. }), "{fault}");
    let newer = Start::Base(author.bases[7].clone());
    let opened = open(dir.path(), &options(newer), |_, _| Ok(())).expect("it opens");
    assert_pruned(&opened, &author, &author.bases[5]);
}

#[test]
fn a_value_stays_while_an_entry_or_the_state_or_a_late_writer_needs_it() {
    let mut author = history();
    let shared = author.values[1].clone();
    // The same value again, in an entry that stays.
    author.put_value(&shared.2);
    author.seal();
    let dir = ledger(&author);
    let mut opened = open_kept(dir.path());
    let live = author.values[0].1;
    let late = author.values[2].clone();
    opened.writer.store_value(&late.1, &late.2).expect("stored");
    let base = author.bases[4].clone();
    let pruned = opened.publisher.prune(&base, |digest| *digest == live).expect("pruned");
    assert_eq!((pruned.segments, pruned.values), (5, 2));
    let is_there = |digest: &Digest| opened.reader.value(digest).expect("readable").is_some();
    for (index, (_, digest, _)) in author.values.iter().enumerate() {
        assert_eq!(is_there(digest), !matches!(index, 3 | 4), "value {index}");
    }
}

#[test]
fn a_base_that_does_not_fit_prunes_nothing() {
    let author = history();
    let dir = ledger(&author);
    let before = files(dir.path());
    let mut opened = open_kept(dir.path());
    let mut other = Author::new("other");
    (0..8).for_each(|_| (0..150).for_each(|_| other.put(20)));
    other.seal();
    let error = opened.publisher.prune(&other.bases[0], |_| false).expect_err("refused");
    assert!(matches!(error, PruneError::TooNew { .. }), "{error}");
    let mut other = Author::new("other");
    (0..149).for_each(|_| other.put(20));
    other.seal();
    let error = opened.publisher.prune(&other.bases[0], |_| false).expect_err("refused");
    assert!(matches!(error, PruneError::Foreign { .. }), "{error}");
    let newest = author.bases.last().expect("some");
    let error = opened.publisher.prune(newest, |_| false).expect_err("refused");
    let limit = Version(author.size().0 / 256 * 256);
    assert!(matches!(error, PruneError::TooNew { limit: found, .. } if found == limit), "{error}");
    drop(opened);
    assert_same(&files(dir.path()), &before, "refused");
}

/// Loses power at each change of a pruning: the ledger opens, has everything that stays, and the next pruning ends with
/// the same files.
#[test]
fn a_pruning_that_is_interrupted_anywhere_is_finished_by_the_next() {
    let author = history();
    let base = author.bases[5].clone();
    let origin = ledger(&author);
    drop(open_kept(origin.path()));
    let image = Image::of(origin.path());
    let recorder = Recorder::default();
    let opened =
        open_with(recorder.ops(origin.path()), origin.path(), &options(Start::Kept), |_, _| Ok(()));
    let done = opened.expect("it opens").publisher.prune(&base, |_| false).expect("pruned");
    let all = Pruning { segments: 6, values: 6, bundles: 3 };
    assert_eq!(done, all);
    let reference = files(origin.path());

    let events = recorder.events();
    let mut now = image;
    let mut interrupted = 0;
    for (position, event) in events.iter().enumerate() {
        now.apply(event);
        for way in 0..4 {
            let dir = tempdir();
            let mut random = Random::new(position as u64 * 4 + way);
            now.lose_power(&mut random).restore(dir.path());
            let mut opened = open_kept(dir.path());
            let first = opened.reader.first();
            assert!(first == Version::ZERO || first == base.size());
            if first == base.size() {
                interrupted += u64::from(!opened.publisher.leftover.is_empty());
                assert_pruned(&opened, &author, &base);
            }
            opened.publisher.prune(&base, |_| false).expect("pruned");
            assert_pruned(&opened, &author, &base);
            drop(opened);
            let what = format!("after {event:?} ({position}), way {way}");
            assert_same(&files(dir.path()), &reference, &what);
        }
    }
    assert!(interrupted > 10 && events.iter().any(|it| matches!(it, Event::Remove(_))));
}

#[test]
fn first_segments_deleted_by_hand_are_missed() {
    let author = history();
    let dir = ledger(&author);
    let first = |index: usize| {
        let base = &author.bases[index];
        let name = format!("{:020}-{:020}.seg", base.seal().1.first.0, base.size().0 - 1);
        dir.path().join("segments").join(name)
    };
    fs::remove_file(first(0)).expect("removed");
    for start in [Start::Genesis, Start::Kept, Start::Base(author.bases[4].clone())] {
        let refused = open(dir.path(), &options(start), |_, _| Ok(())).map(drop);
        assert!(matches!(refused, Err(OpenError::Gap { .. })), "{refused:?}");
    }
    // Of a pruned one too.
    let dir = ledger(&author);
    open_kept(dir.path()).publisher.prune(&author.bases[1], |_| false).expect("pruned");
    let base = &author.bases[2];
    let name = format!("segments/{:020}-{:020}.seg", base.seal().1.first.0, base.size().0 - 1);
    fs::remove_file(dir.path().join(name)).expect("removed");
    let refused = open(dir.path(), &options(Start::Kept), |_, _| Ok(())).map(drop);
    assert!(matches!(refused, Err(OpenError::Gap { .. })), "{refused:?}");
}

#[test]
fn a_damaged_base_is_refused_with_its_file() {
    let author = history();
    let dir = ledger(&author);
    open_kept(dir.path()).publisher.prune(&author.bases[1], |_| false).expect("pruned");
    let path = dir.path().join("base");
    let mut bytes = fs::read(&path).expect("a base");
    bytes[100] ^= 1;
    fs::write(&path, bytes).expect("written");
    let error = open(dir.path(), &options(Start::Kept), |_, _| Ok(())).map(drop).expect_err("it");
    assert!(matches!(&error, OpenError::Damaged(damage) if damage.file == path), "{error}");
}

#[test]
fn a_replica_planted_at_a_base_is_as_one_that_was_pruned_there() {
    let author = history();
    let reference = ledger(&author);
    let base: Arc<Base> = author.bases[3].clone();
    let reader = {
        let mut opened = open_kept(reference.path());
        opened.publisher.prune(&base, |_| false).expect("pruned");
        opened.reader.clone()
    };
    let leaves = |tile: &TileId| {
        let nodes = (0..u64::from(tile.width)).map(|at| reader.node(0, tile.first() + at));
        nodes.collect::<Option<Vec<_>>>().ok_or_else(|| "not there".into())
    };
    let dir = tempdir();
    // Wrong ones, and too few, leave no ledger.
    let wrong = plant(dir.path(), Face::Static, &base, |tile| {
        leaves(tile).map(|mut hashes| {
            hashes[0].0[0] ^= u8::from(tile.index == 1);
            hashes
        })
    });
    assert!(matches!(wrong, Err(PlantError::Root { .. })), "{wrong:?}");
    let short = plant(dir.path(), Face::Static, &base, |tile| {
        leaves(tile).map(|hashes| hashes[1..].to_vec())
    });
    assert!(matches!(short, Err(PlantError::Tile { .. })), "{short:?}");
    assert!(!dir.path().join("base").exists());

    plant(dir.path(), Face::Static, &base, leaves).expect("planted");
    let again = plant(dir.path(), Face::Static, &base, leaves);
    assert!(matches!(again, Err(PlantError::NotEmpty { .. })), "{again:?}");
    // Opened twice before anything is published: the right edge must still be there.
    drop(open_kept(dir.path()));
    let mut opened = open_kept(dir.path());
    assert_eq!(opened.replay.size(), base.size());
    for (version, digest, value) in &author.values {
        if *version >= base.size() {
            opened.writer.store_value(digest, value).expect("stored");
        }
    }
    write(dir.path(), &author, &mut opened);
    assert_pruned(&opened, &author, &base);
    drop(opened);
    let opened = open_kept(dir.path());
    assert_eq!(opened.recovery, Default::default());
    assert_pruned(&opened, &author, &base);
    drop(opened);
    // The bundle that the base lies in cannot be made; all else is the same.
    let (mut planted, mut pruned) = (files(dir.path()), files(reference.path()));
    let straddling = format!("tile/entries/{:03}", base.size().0 / 256);
    assert!(pruned.remove(Path::new(&straddling)).is_some());
    let unmarked = |files: &mut BTreeMap<PathBuf, Vec<u8>>| {
        for (name, bytes) in files {
            if name.extension().is_some_and(|it| it == "open") {
                bytes.drain(512..2_048);
            }
        }
    };
    unmarked(&mut planted);
    unmarked(&mut pruned);
    assert_same(&planted, &pruned, "planted");
    assert!(planted.values().any(|bytes| bytes.len() == HASH_TILE_BYTES));
}

#[test]
fn a_pruned_ledger_is_repaired_and_rewound_from_its_base() {
    let author = signed_history();
    let dir = ledger(&author);
    let peer = ledger(&author);
    let base = author.bases[2].clone();
    open_kept(dir.path()).publisher.prune(&base, |_| false).expect("pruned");
    let before = files(dir.path());
    let segment = |index: usize| {
        let base = &author.bases[index];
        let name = format!("{:020}-{:020}.seg", base.seal().1.first.0, base.size().0 - 1);
        dir.path().join("segments").join(name)
    };
    let mut bytes = fs::read(segment(4)).expect("a segment");
    bytes[5_000] ^= 1;
    fs::write(segment(4), bytes).expect("written");
    fs::remove_file(segment(3)).expect("removed");
    let repaired = crate::repair(dir.path(), &crate::DirPeer::new(peer.path())).expect("repaired");
    assert_eq!(repaired.segments.len(), 2);
    assert_same(&files(dir.path()), &before, "repaired");

    let mut longer = author.entries.clone();
    let mut more = signed_history();
    (0..9).for_each(|_| more.put(7));
    longer.extend_from_slice(&more.entries[author.entries.len()..]);
    let mut opened = open_kept(dir.path());
    opened.writer.append(&longer[author.entries.len()..]).expect("appended");
    opened.writer.sync().expect("synced");
    drop(opened);
    let aside = tempdir();
    let cut = crate::rewind(dir.path(), aside.path(), &options(Start::Genesis), author.size());
    assert_eq!(cut.expect("cut"), 9);
    let opened = open_kept(dir.path());
    assert_pruned(&opened, &author, &base);
    assert_eq!(opened.replay.size(), author.size());
}

/// As [`history`], with checkpoints that the only member signs.
fn signed_history() -> Author {
    let mut author = Author::signing("prune");
    for _ in 0..8 {
        (0..150).for_each(|_| author.put(20));
        author.seal();
    }
    author
}
