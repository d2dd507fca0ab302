//! A real ledger on disk: starts count what they replay, damage falls back, pruning leaves what is needed.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use tradewind_ledger::note::Checkpoint;
use tradewind_ledger::{
    Base, Digest, Ed25519Signer, Entry, Genesis, Hlc, LedgerId, Member, Replay, RequestId,
    RequestNumber, SessionId, Signer, Version, ViewId,
};
use tradewind_ledger_disk::{LedgerReader, LedgerWriter, OpenError, Options, Publisher};
use tradewind_store::{Command, Condition, Context, ItemValue, SnapshotRule, Store};
use tradewind_store_disk::{Due, Retain, Snapshotter, Source, Started, open};

/// Keys that are written again and again.
const KEYS: u64 = 40;
/// Entries of a segment, its SEAL included.
const RULE: SnapshotRule = SnapshotRule { bytes: 1_000, entries: 3 };
const SEGMENT: u64 = 100;

/// One ledger with its store, as a process holds them.
struct Shard {
    ledger: LedgerId,
    directory: PathBuf,
    store: RwLock<Store>,
    reader: LedgerReader,
    publisher: Mutex<Publisher>,
    retain: Retain,
}

struct Running {
    shard: Arc<Shard>,
    writer: LedgerWriter,
    replay: Replay,
    snapshots: Snapshotter,
    started: Started,
}

struct Shared(Arc<Shard>);

impl Source for Shared {
    fn ledger(&self) -> &LedgerId {
        &self.0.ledger
    }
    fn directory(&self) -> &Path {
        &self.0.directory
    }
    fn reader(&self) -> &LedgerReader {
        &self.0.reader
    }
    fn read(&self, look: &mut dyn FnMut(&Store)) {
        look(&self.0.store.read().unwrap());
    }
    fn change(&self, change: &mut dyn FnMut(&mut Store)) {
        change(&mut self.0.store.write().unwrap());
    }
    fn signed(&self) -> Version {
        self.0.publisher.lock().unwrap().published()
    }
    fn retain(&self) -> Retain {
        self.0.retain
    }
    fn prune(&self, base: Base, live: HashSet<Digest>) {
        // Too new to be pruned is said by an error, and tried again.
        let _ = self.0.publisher.lock().unwrap().prune(&base, |digest| live.contains(digest));
    }
}

impl Running {
    fn start(directory: &Path, retain: Retain) -> Result<Self, OpenError> {
        let (opened, store, started) = open(directory, &Options::default(), &RULE)?;
        let shard = Arc::new(Shard {
            ledger: "flights.0".parse().unwrap(),
            directory: directory.to_path_buf(),
            store: RwLock::new(store),
            reader: opened.reader,
            publisher: Mutex::new(opened.publisher),
            retain,
        });
        let snapshots = Snapshotter::start(vec![Box::new(Shared(Arc::clone(&shard)))]).unwrap();
        let (writer, replay) = (opened.writer, opened.replay);
        let mut running = Self { shard, writer, replay, snapshots, started };
        if running.replay.size() == Version::ZERO {
            running.append(&genesis().into_entry(), true);
        }
        Ok(running)
    }

    fn append(&mut self, entry: &Entry, apply: bool) {
        if apply {
            let version = self.replay.size();
            self.shard.store.write().unwrap().apply(version, entry).unwrap();
        }
        let bytes = entry.to_bytes().unwrap();
        self.replay.push(&bytes).unwrap();
        self.writer.append(&[bytes]).unwrap();
    }

    /// Writes, seals, signs and publishes so many segments; waits for the snapshots that became due.
    fn segments(&mut self, count: u64) {
        for _ in 0..count {
            while self.replay.segment().count() < SEGMENT as u32 - 1 {
                self.put();
            }
            let seal = self.replay.segment().make_seal(self.next_hlc(), ViewId(0));
            self.append(&seal, true);
            let due = self.shard.store.write().unwrap().pin_if_due(&RULE);
            self.publish();
            if let Some(pin) = due {
                let (at, base) = (pin.at(), Arc::clone(self.replay.base().unwrap()));
                self.snapshots.push(Due { source: 0, pin, base });
                let file = self.snapshot(at);
                wait(|| file.exists());
            }
        }
    }

    fn next_hlc(&self) -> Hlc {
        Hlc(self.replay.last_hlc().0 + 1)
    }

    fn put(&mut self) {
        let version = self.replay.size();
        let number = RequestNumber(version.0);
        let request = RequestId { session: SessionId(1 << 64), number };
        let context = Context { version, hlc: self.next_hlc(), view: ViewId(0), request };
        let (key, condition) = (key(version.0 % KEYS), Condition::Always);
        let command = Command::Put { key, value: version.0.to_be_bytes().to_vec(), condition };
        let outcome = self.shard.store.write().unwrap().execute(context, command);
        self.append(&outcome.entry.expect("a put writes"), false);
    }

    fn publish(&mut self) {
        let size = self.writer.sync().unwrap();
        let checkpoint = Checkpoint { origin: genesis().origin(), size, root: self.replay.root() };
        let signature = checkpoint.sign(&signer());
        let note = checkpoint.with_signatures(vec![signature]).unwrap();
        self.shard.publisher.lock().unwrap().publish(&note).unwrap();
    }

    fn snapshot(&self, at: Version) -> PathBuf {
        self.shard.directory.join(format!("snapshots/{:020}.snap", at.0))
    }

    fn stop(self) -> Store {
        self.snapshots.stop();
        self.shard.store.read().unwrap().clone()
    }
}

fn signer() -> Ed25519Signer {
    Ed25519Signer::from_seed(&[7; 32])
}

fn genesis() -> Genesis {
    Genesis {
        deployment: "atlas".into(),
        site: "ams".into(),
        ledger: "flights.0".parse().unwrap(),
        members: vec![Member { name: "a1".into(), public_key: signer().public_key() }],
    }
}

fn key(n: u64) -> Vec<u8> {
    format!("key {n:03}").into_bytes()
}

/// Waits for another thread.
fn wait(mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < until, "waited for too long");
        std::thread::yield_now();
    }
}

fn snapshots(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory.join("snapshots")).unwrap();
    let mut found: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "snap"))
        .collect();
    found.sort();
    found
}

/// Whether two stores answer alike, whatever each has in memory.
fn assert_same(one: &Store, other: &Store) {
    assert_eq!((one.next(), one.stats()), (other.next(), other.stats()));
    let present = |store: &Store| -> Vec<_> {
        let page = store.list(b"", None, 1_000, store.next());
        page.items.into_iter().map(|(key, item)| (key, item.expect("present"))).collect()
    };
    assert_eq!(present(one), present(other));
}

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
        let (_, store, started) = open(directory.path(), &Options::default(), &RULE).unwrap();
        assert_same(&store, &due);
        assert!(started.size() > Version::ZERO && started.replayed >= SEGMENT, "{at}");
        last = started.replayed;
    }
    fs::write(&newer, &good[..good.len() - 1]).unwrap();
    let bytes = fs::read(&older).unwrap();
    fs::write(&older, [&bytes[..], b"x"].concat()).unwrap();
    let (_, store, started) = open(directory.path(), &Options::default(), &RULE).unwrap();
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
