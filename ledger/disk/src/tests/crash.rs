//! Loses power after every single change to the files, in several ways each, and opens what is left.

use std::fs;
use std::path::Path;

use tradewind_ledger::ids::{Digest, Version};
use tradewind_ledger::note::SignedNote;
use tradewind_ledger::segment_file::{PAGE, RECORD_HEADER, SegmentName};
use tradewind_ledger::tile::{self, TileKind, tiles};
use tradewind_ledger::tree::root_at;

use crate::layout::Layout;
use crate::open::{Face, Opened, Options, open, open_with};
use crate::start::Start;
use crate::testing::{Author, Event, Image, Random, Recorder, tempdir};
use crate::writer::{LedgerWriter, is_seal};

/// Ways of losing power that are tried after each change.
const WAYS: u64 = 24;

fn options(face: Face) -> Options {
    Options { preallocate: 16 << 10, face, ..Options::default() }
}

/// Where what is left is opened from: the newest base that the checkpoint covers is tried too.
#[derive(Clone, Copy)]
enum From {
    Genesis,
    Base,
}

/// One step of a run: entries up to this size are appended and synced; then perhaps published.
struct Batch {
    upto: Version,
    publish: bool,
}

/// A short history with what can happen in one: batches within a segment, batches with one and two
/// SEALs in them, detached values, publications.
fn history() -> (Author, Vec<Batch>) {
    let mut author = Author::new("crash");
    let mut batches = Vec::new();
    let mut batch = |author: &Author, publish| batches.push(Batch { upto: author.size(), publish });
    batch(&author, false);
    (0..5).for_each(|_| author.put(300));
    batch(&author, true);
    author.put(2_000);
    author.put_detached(40_000);
    author.seal();
    batch(&author, false);
    (0..3).for_each(|_| author.put(900));
    author.seal();
    author.put(10);
    author.seal();
    author.put(20);
    batch(&author, true);
    (0..270).for_each(|_| author.put(40));
    author.put_detached(40_000);
    batch(&author, true);
    author.seal();
    batch(&author, false);
    author.put(1);
    batch(&author, true);
    (author, batches)
}

/// Stores a value at once, or stages and adopts it.
fn store(writer: &mut LedgerWriter, version: Version, digest: &Digest, value: &[u8]) {
    if version.0.is_multiple_of(2) {
        return writer.store_value(digest, value).expect("stored");
    }
    let mut staged = writer.stager().begin(version.0).expect("begun");
    value.chunks(15_000).for_each(|piece| staged.write(piece).expect("staged"));
    assert_eq!(staged.finish().expect("synced"), Some(*digest));
    writer.adopt_value(digest, version.0).expect("adopted");
}

/// Brings an open ledger to the end of the history.
fn run(opened: &mut Opened, author: &Author, batches: &[Batch], note: impl Fn(Event)) {
    for batch in batches {
        let from = opened.writer.size();
        for (version, digest, value) in &author.values {
            if (from..batch.upto).contains(version) {
                store(&mut opened.writer, *version, digest, value);
            }
        }
        if from < batch.upto {
            let entries = &author.entries[from.0 as usize..batch.upto.0 as usize];
            opened.writer.append(entries).expect("appended");
        }
        let durable = opened.writer.sync().expect("synced");
        note(Event::Durable(durable));
        if batch.publish && batch.upto > opened.publisher.published() {
            opened.publisher.publish(&author.checkpoint(batch.upto)).expect("published");
            note(Event::Published(batch.upto));
        }
    }
}

/// The checkpoint's tiles hold what they must.
fn assert_published(dir: &Path, author: &Author, face: Face) -> Version {
    let Ok(note) = fs::read(dir.join("checkpoint")) else { return Version::ZERO };
    let note = SignedNote::parse(&note).expect("a whole note");
    let size = note.checkpoint().expect("a checkpoint").size;
    assert_eq!(note, author.checkpoint(size));
    let tree = author.tree();
    for id in tiles(size) {
        if face == Face::Packed && id.kind == TileKind::Entries {
            continue;
        }
        let bytes = crate::tiles::read(dir, &id).unwrap_or_else(|error| {
            panic!("{id}, needed for {size}: {error}");
        });
        match id.kind {
            TileKind::Hashes { .. } => {
                let hashes = tile::decode_hashes(&bytes, id.width).expect("a whole tile");
                assert_eq!(Some(hashes), tile::hashes_of(&id, &tree), "{id}");
            }
            TileKind::Entries => {
                let entries = tile::decode_bundle(&bytes, id.width).expect("a whole bundle");
                let first = id.first() as usize;
                assert_eq!(entries, author.entries[first..first + entries.len()], "{id}");
            }
        }
    }
    size
}

/// Opens what a loss of power left: nothing that was acknowledged may be missing, nothing may be there
/// that was not written, and the ledger goes on to the same end.
fn assert_recovers(
    dir: &Path,
    author: &Author,
    batches: &[Batch],
    acknowledged: [Version; 2],
    (from, face): (From, Face),
) {
    let [durable, published] = acknowledged;
    let found = assert_published(dir, author, face);
    assert!(found >= published, "a published checkpoint is lost");
    let start = match (from, author.base_at(found)) {
        (From::Base, Some(base)) => Start::Base(base),
        _ => Start::Genesis,
    };
    let options = Options { start, ..options(face) };
    let mut opened = open(dir, &options, |_, _| Ok(())).expect("it opens");
    let size = opened.replay.size();
    assert_eq!(opened.replay.root(), root_at(&author.tree(), size).expect("a size that was"));
    assert!(size >= durable, "{durable} entries were acknowledged, {size} are there");
    assert_eq!(opened.reader.durable_size(), size);
    let entries = opened.reader.entries(Version::ZERO, size, usize::MAX);
    if size > Version::ZERO {
        assert_eq!(entries.expect("readable"), author.entries[..size.0 as usize]);
    }
    for (version, digest, value) in &author.values {
        if *version < size {
            let found = opened.reader.value(digest).expect("readable");
            assert_eq!(found.as_ref(), Some(value), "the value of {version}");
        }
    }
    assert_nothing_follows(dir, author, size);
    run(&mut opened, author, batches, drop);
    drop(opened);
    assert_eq!(assert_published(dir, author, face), batches.last().expect("some").upto);
    assert_no_leftovers(dir);
}

/// Behind the records of the open file there are only zeroes: a remnant of a torn write could be taken
/// for a record after the next crash.
fn assert_nothing_follows(dir: &Path, author: &Author, size: Version) {
    let entries = &author.entries[..size.0 as usize];
    let first = entries.iter().rposition(|entry| is_seal(entry)).map_or(0, |seal| seal + 1);
    let name = SegmentName { first: Version(first as u64), last: None };
    let Ok(bytes) = fs::read(Layout::new(dir).segment(name)) else { return };
    let end =
        entries[first..].iter().map(|entry| RECORD_HEADER + entry.len()).sum::<usize>() + PAGE;
    assert!(
        bytes[end..].iter().all(|byte| *byte == 0),
        "{name} holds something after entry {size}"
    );
}

fn assert_no_leftovers(dir: &Path) {
    let layout = Layout::new(dir);
    for dir in [&layout.segments, &layout.values, &layout.tiles] {
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            assert!(!path.to_string_lossy().ends_with(".tmp"), "{} is left", path.display());
        }
    }
}

fn acknowledged(events: &[Event]) -> [Version; 2] {
    let mut durable = Version::ZERO;
    let mut published = Version::ZERO;
    for event in events {
        match event {
            Event::Durable(size) => durable = *size,
            Event::Published(size) => published = *size,
            _ => {}
        }
    }
    [durable, published]
}

fn is_change(event: &Event) -> bool {
    !matches!(event, Event::Durable(_) | Event::Published(_))
}

#[test]
fn no_loss_of_power_loses_what_was_acknowledged() {
    lose_power_everywhere(From::Genesis, Face::Static);
}

#[test]
fn no_loss_of_power_loses_what_was_acknowledged_where_tiles_are_packed() {
    lose_power_everywhere(From::Genesis, Face::Packed);
    lose_power_everywhere(From::Base, Face::Packed);
}

#[test]
fn no_loss_of_power_loses_what_was_acknowledged_when_opened_from_a_base() {
    lose_power_everywhere(From::Base, Face::Static);
}

fn lose_power_everywhere(from: From, face: Face) {
    let (author, batches) = history();
    let reference = tempdir();
    let recorder = Recorder::default();
    let ops = recorder.ops(reference.path());
    let mut opened = open_with(ops, reference.path(), &options(face), |_, _| Ok(())).expect("new");
    run(&mut opened, &author, &batches, |event| recorder.note(event));
    drop(opened);
    let sealed = segment_files(reference.path());
    assert_eq!(sealed.len(), 5, "{:?}", sealed.iter().map(|(name, _)| name).collect::<Vec<_>>());

    let events = recorder.events();
    let mut image = Image::default();
    for (position, event) in events.iter().enumerate() {
        image.apply(event);
        if !is_change(event) {
            continue;
        }
        for way in 0..WAYS {
            let seed = position as u64 * WAYS + way;
            let dir = tempdir();
            image.lose_power(&mut Random::new(seed)).restore(dir.path());
            let acknowledged = acknowledged(&events[..=position]);
            let result = std::panic::catch_unwind(|| {
                let how = (from, face);
                assert_recovers(dir.path(), &author, &batches, acknowledged, how);
            });
            assert!(result.is_ok(), "power was lost after {event:?} ({position}), way {way}");
            assert_eq!(segment_files(dir.path()), sealed, "after {event:?}, way {way}");
        }
    }
}

/// Names and bytes of the sealed segments, and of the records in the open one.
fn segment_files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir.join("segments"))
        .expect("a directory")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let mut bytes = fs::read(&path).expect("a file");
            if name.ends_with(".open") {
                bytes.drain(512..2_048);
                let used = bytes.iter().rposition(|byte| *byte != 0).expect("a header");
                bytes.truncate(used + 1);
            }
            (name, bytes)
        })
        .collect();
    files.sort_unstable();
    files
}

#[test]
fn power_may_be_lost_again_during_recovery() {
    for face in [Face::Static, Face::Packed] {
        lose_power_twice(face);
    }
}

fn lose_power_twice(face: Face) {
    let (author, batches) = history();
    let recorder = Recorder::default();
    let first = tempdir();
    let mut opened =
        open_with(recorder.ops(first.path()), first.path(), &options(face), |_, _| Ok(()))
            .expect("new");
    run(&mut opened, &author, &batches, |event| recorder.note(event));
    drop(opened);

    let events = recorder.events();
    let mut image = Image::default();
    for (position, event) in events.iter().enumerate() {
        image.apply(event);
        if !is_change(event) {
            continue;
        }
        let acknowledged = acknowledged(&events[..=position]);
        let mut random = Random::new(position as u64);
        let dir = tempdir();
        image.lose_power(&mut random).restore(dir.path());
        let mut image = Image::of(dir.path());
        let again = Recorder::default();
        let opened = open_with(again.ops(dir.path()), dir.path(), &options(face), |_, _| Ok(()));
        drop(opened.expect("it opens"));
        for change in again.events() {
            image.apply(&change);
            let dir = tempdir();
            image.lose_power(&mut random).restore(dir.path());
            let result = std::panic::catch_unwind(|| {
                assert_recovers(dir.path(), &author, &batches, acknowledged, (From::Base, face));
            });
            assert!(result.is_ok(), "power was lost after {event:?} ({position}), then {change:?}");
        }
    }
}
