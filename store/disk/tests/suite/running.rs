//! A real ledger on disk, with its store and the thread for snapshots, as a process holds them.

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
use tradewind_store::{Command, Condition, Context, SnapshotRule, Store};
use tradewind_store_disk::{Begun, Due, Retain, Snapshotter, Source, Started, open};

/// Keys that are written again and again.
pub(crate) const KEYS: u64 = 40;
/// Entries of a segment, its SEAL included.
pub(crate) const RULE: SnapshotRule = SnapshotRule { bytes: 1_000, entries: 3 };
pub(crate) const SEGMENT: u64 = 100;

/// One ledger with its store, as a process holds them.
pub(crate) struct Shard {
    pub(crate) ledger: LedgerId,
    pub(crate) directory: PathBuf,
    pub(crate) store: RwLock<Store>,
    pub(crate) reader: LedgerReader,
    pub(crate) publisher: Mutex<Publisher>,
    pub(crate) retain: Retain,
}

pub(crate) struct Running {
    pub(crate) shard: Arc<Shard>,
    pub(crate) writer: LedgerWriter,
    pub(crate) replay: Replay,
    pub(crate) snapshots: Snapshotter,
    pub(crate) started: Started,
}

pub(crate) struct Shared(Arc<Shard>);

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
    pub(crate) fn start(directory: &Path, retain: Retain) -> Result<Self, OpenError> {
        let Begun { opened, store, started, due } = open(directory, &Options::default(), &RULE)?;
        let shard = Arc::new(Shard {
            ledger: "flights.0".parse().unwrap(),
            directory: directory.to_path_buf(),
            store: RwLock::new(store),
            reader: opened.reader,
            publisher: Mutex::new(opened.publisher),
            retain,
        });
        let snapshots = Snapshotter::start(vec![Box::new(Shared(Arc::clone(&shard)))]).unwrap();
        if let Some((pin, base)) = due {
            snapshots.push(Due { source: 0, pin, base });
        }
        let (writer, replay) = (opened.writer, opened.replay);
        let mut running = Self { shard, writer, replay, snapshots, started };
        if running.replay.size() == Version::ZERO {
            running.append(&genesis().into_entry(), true);
        }
        Ok(running)
    }

    pub(crate) fn append(&mut self, entry: &Entry, apply: bool) {
        if apply {
            let version = self.replay.size();
            self.shard.store.write().unwrap().apply(version, entry).unwrap();
        }
        let bytes = entry.to_bytes().unwrap();
        self.replay.push(&bytes).unwrap();
        self.writer.append(&[bytes]).unwrap();
    }

    /// Writes, seals, signs and publishes so many segments; waits for the snapshots that became due.
    pub(crate) fn segments(&mut self, count: u64) {
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

    pub(crate) fn next_hlc(&self) -> Hlc {
        Hlc(self.replay.last_hlc().0 + 1)
    }

    pub(crate) fn put(&mut self) {
        let version = self.replay.size();
        let number = RequestNumber(version.0);
        let request = RequestId { session: SessionId(1 << 64), number };
        let context = Context { version, hlc: self.next_hlc(), view: ViewId(0), request };
        let (key, condition) = (key(version.0 % KEYS), Condition::Always);
        let command = Command::Put { key, value: version.0.to_be_bytes().to_vec(), condition };
        let outcome = self.shard.store.write().unwrap().execute(context, command);
        self.append(&outcome.entry.expect("a put writes"), false);
    }

    pub(crate) fn publish(&mut self) {
        let size = self.writer.sync().unwrap();
        let checkpoint = Checkpoint { origin: genesis().origin(), size, root: self.replay.root() };
        let signature = checkpoint.sign(&signer());
        let note = checkpoint.with_signatures(vec![signature]).unwrap();
        self.shard.publisher.lock().unwrap().publish(&note).unwrap();
    }

    pub(crate) fn snapshot(&self, at: Version) -> PathBuf {
        self.shard.directory.join(format!("snapshots/{:020}.snap", at.0))
    }

    pub(crate) fn stop(self) -> Store {
        self.snapshots.stop();
        self.shard.store.read().unwrap().clone()
    }
}

pub(crate) fn signer() -> Ed25519Signer {
    Ed25519Signer::from_seed(&[7; 32])
}

pub(crate) fn genesis() -> Genesis {
    Genesis {
        deployment: "atlas".into(),
        site: "ams".into(),
        ledger: "flights.0".parse().unwrap(),
        members: vec![Member { name: "a1".into(), public_key: signer().public_key() }],
    }
}

pub(crate) fn key(n: u64) -> Vec<u8> {
    format!("key {n:03}").into_bytes()
}

/// Waits for another thread.
pub(crate) fn wait(mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < until, "waited for too long");
        std::thread::yield_now();
    }
}

pub(crate) fn snapshots(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory.join("snapshots")).unwrap();
    let mut found: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "snap"))
        .collect();
    found.sort();
    found
}

/// Whether two stores answer alike, whatever each has in memory.
pub(crate) fn assert_same(one: &Store, other: &Store) {
    assert_eq!((one.next(), one.stats()), (other.next(), other.stats()));
    let present = |store: &Store| -> Vec<_> {
        let page = store.list(b"", None, 1_000, store.next());
        page.items.into_iter().map(|(key, item)| (key, item.expect("present"))).collect()
    };
    assert_eq!(present(one), present(other));
}
