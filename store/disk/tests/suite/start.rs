//! Starts count what they replay, damage falls back, pruning leaves what is needed.

use std::fs;

use tradewind_ledger::Version;
use tradewind_ledger_disk::{OpenError, Options};
use tradewind_store::ItemValue;
use tradewind_store_disk::{Begun, Retain, Started, open};

use crate::running::{KEYS, RULE, Running, SEGMENT, assert_same, key, snapshots, wait};

#[test]
fn a_start_replays_what_came_after_the_last_snapshot_however_long_history_is() {
    let directory = tempfile::tempdir().unwrap();
    for segments in [10, 40] {
        let mut running = Running::start(directory.path(), Retain::All).unwrap();
        running.segments(segments);
        (0..7).for_each(|_| running.put());
        running.publish();
        let before = running.stop();
        let again = Running::start(directory.path(), Retain::All).unwrap();
        assert_eq!(again.started.size().0 % SEGMENT, 0);
        assert!(again.started.size() > Version::ZERO);
        let after = before.next().0 - again.started.size().0;
        assert_eq!(again.started.replayed, after);
        assert!(after <= 2 * SEGMENT, "{after} entries replayed");
        assert!(before.base() > Version::ZERO, "the running store forgot what is old");
        assert_same(&again.stop(), &before);
        assert_eq!(snapshots(directory.path()).len(), 2);
    }
}

#[test]
fn snapshots_are_of_the_same_entries_and_bytes_whenever_a_process_was_restarted() {
    let (steady, restarted) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut running = Running::start(steady.path(), Retain::All).unwrap();
    running.segments(30);
    running.stop();
    for segments in [1, 9, 2, 11, 7] {
        let mut running = Running::start(restarted.path(), Retain::All).unwrap();
        running.segments(segments);
        running.stop();
        // The next start begins at the older snapshot, or at the genesis.
        if let Some(newest) = snapshots(restarted.path()).pop().filter(|_| segments != 7) {
            fs::remove_file(newest).unwrap();
        }
    }
    let [one, two] = [steady, restarted].map(|dir| {
        let files = snapshots(dir.path()).into_iter();
        files
            .map(|file| (file.file_name().unwrap().to_owned(), fs::read(&file).unwrap()))
            .next_back()
    });
    assert!(one.is_some() && one == two);
}

#[test]
fn a_damaged_snapshot_is_passed_over_and_history_is_the_last_resort() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = Running::start(directory.path(), Retain::All).unwrap();
    running.segments(10);
    let due = running.stop();
    let [older, newer] = snapshots(directory.path()).try_into().expect("two generations");
    let good = fs::read(&newer).unwrap();
    let mut last = 0;
    for at in (0..good.len()).step_by(37) {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(&newer, bytes).unwrap();
        let Begun { store, started, .. } =
            open(directory.path(), &Options::default(), &RULE).unwrap();
        assert_same(&store, &due);
        assert!(started.size() > Version::ZERO && started.replayed >= SEGMENT, "{at}");
        last = started.replayed;
    }
    fs::write(&newer, &good[..good.len() - 1]).unwrap();
    let bytes = fs::read(&older).unwrap();
    fs::write(&older, [&bytes[..], b"x"].concat()).unwrap();
    let Begun { store, started, .. } = open(directory.path(), &Options::default(), &RULE).unwrap();
    assert_same(&store, &due);
    assert_eq!(started, Started { snapshot: None, replayed: due.next().0 });
    assert!(started.replayed > last);
}

#[test]
fn old_segments_go_and_all_that_is_present_stays() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = Running::start(directory.path(), Retain::Bytes(50_000)).unwrap();
    let mut most = 0;
    for round in 0..12 {
        running.segments(10);
        let reader = &running.shard.reader;
        if round > 2 {
            wait(|| reader.first() > Version::ZERO);
        }
        most = most.max(reader.sealed_segments().len());
    }
    assert!(most < 60, "{most} of 120 segments were there at a time");
    let first = running.shard.reader.first();
    let due = running.stop();
    let again = Running::start(directory.path(), Retain::Bytes(50_000)).unwrap();
    assert!(again.shard.reader.first() >= first, "what was pruned is gone");
    assert!(again.started.replayed <= 2 * SEGMENT);
    let reader = again.shard.reader.clone();
    let store = again.stop();
    assert_same(&store, &due);
    assert!((0..KEYS).all(|n| {
        let item = store.get(&key(n), store.next()).expect("present").expect("it exists");
        matches!(item.value, ItemValue::Inline(_))
    }));
    assert!(reader.entry(Version(1)).unwrap_err().to_string().contains("pruned"));
    fs::remove_dir_all(directory.path().join("snapshots")).unwrap();
    drop(reader);
    let refused =
        open(directory.path(), &Options::default(), &RULE).err().expect("history is gone");
    assert!(matches!(refused, OpenError::Pruned { .. }), "{refused}");
}
