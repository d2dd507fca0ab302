//! The thread that makes snapshots, lets stores forget, and decides what is pruned.
//!
//! Nobody waits for it: it looks at a store for the length of a slice at a time, and takes what was overwritten since out
//! of the ledger. It begins only when a majority has signed for the state: no such state is ever taken back.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tradewind_ledger::{Base, Digest, Entry, Hlc, LedgerId, SnapshotRecord, Version};
use tradewind_ledger_disk::LedgerReader;
use tradewind_store::snapshot::{Encoder, KeyState, Pin};
use tradewind_store::{ItemValue, Store, value_in};

use crate::file::Writing;
use crate::folder::Folder;
use crate::retain::{Retain, bytes_from};

/// Keys that are looked at, or forgotten of, while others wait.
const SLICE: usize = 256;
/// How often it is looked whether a state that is to be snapshot is signed for.
const SIGNED_PACE: Duration = Duration::from_millis(20);
/// How long to wait before a full disk is tried again.
const FULL_DISK_RETRY: Duration = Duration::from_millis(500);
/// How often it is looked whether entries are too old to be kept.
const RETAIN_PACE: Duration = Duration::from_secs(60);

/// A ledger and its store, as a process holds them.
pub trait Source: Send + 'static {
    /// Which.
    fn ledger(&self) -> &LedgerId;
    /// The ledger's directory.
    fn directory(&self) -> &Path;
    /// The ledger's entries.
    fn reader(&self) -> &LedgerReader;
    /// Looks at the store.
    fn read(&self, look: &mut dyn FnMut(&Store));
    /// Changes the store, in a way that makes no difference to what it answers.
    fn change(&self, change: &mut dyn FnMut(&mut Store));
    /// Whether the ledger is to hold a snapshot of what is pruned, so that others can have it instead.
    fn agrees(&self) -> bool {
        false
    }
    /// A snapshot is on disk. Whoever has nobody to tell does nothing.
    fn made(&self, _record: SnapshotRecord) {}
    /// How many entries a majority has signed for, as known here.
    fn signed(&self) -> Version;
    /// How much history is to be kept.
    fn retain(&self) -> Retain;
    /// Hands to the thread that owns the ledger's publisher: everything before the base is to go, but for these values.
    fn prune(&self, base: Base, live: HashSet<Digest>);
}

/// A snapshot that is to be made.
#[derive(Debug)]
pub struct Due {
    /// Whose: the place of its source.
    pub source: usize,
    /// What was pinned of the store.
    pub pin: Pin,
    /// The end of the segment where that was.
    pub base: Arc<Base>,
}

/// What the thread is told.
#[derive(Debug)]
enum Told {
    /// A snapshot became due.
    Due(Due),
    /// The ledger of a source holds its snapshot of `size` entries, in the entry `at`.
    Agreed { source: usize, size: Version, at: Version },
}

/// The other threads' end of the thread, which alone changes the folders of snapshots while the process runs.
#[derive(Debug)]
pub struct Snapshotter {
    told: Sender<Told>,
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Snapshotter {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system has no thread.
    pub fn start(sources: Vec<Box<dyn Source>>) -> io::Result<Self> {
        let (told, receiver) = channel();
        let stopping = Arc::new(AtomicBool::new(false));
        let worker = Worker { sources, stopping: Arc::clone(&stopping) };
        let thread = thread::Builder::new().name("snapshots".into()).spawn(move || {
            worker.run(&receiver);
        })?;
        Ok(Self { told, stopping, thread })
    }

    /// A snapshot became due. What waits is bounded by the rule for snapshots: there is not one a segment, but one for as
    /// much as the state has.
    pub fn push(&self, due: Due) {
        // The thread ends before its other end only if it panicked, which was said.
        let _ = self.told.send(Told::Due(due));
    }

    /// The ledger of a source holds its snapshot of `size` entries, in the entry `at`, for good: that is noted for the next
    /// start, and the snapshot is kept until it is so of a later one.
    pub fn agreed(&self, source: usize, size: Version, at: Version) {
        // As above.
        let _ = self.told.send(Told::Agreed { source, size, at });
    }

    /// Ends the thread; a snapshot that is being made is given up.
    pub fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        drop(self.told);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            tracing::error!("the thread for snapshots panicked");
        }
    }
}

struct Worker {
    sources: Vec<Box<dyn Source>>,
    stopping: Arc<AtomicBool>,
}

impl Worker {
    fn run(&self, told: &Receiver<Told>) {
        while !self.is_stopping() {
            match told.recv_timeout(RETAIN_PACE) {
                Ok(Told::Due(due)) => {
                    let source = &*self.sources[due.source];
                    if let Err(error) = self.make(source, due.pin, &due.base) {
                        tracing::error!(ledger = %source.ledger(), %error, "a snapshot was not made");
                    }
                    self.retain(source);
                }
                Ok(Told::Agreed { source, size, at }) => {
                    let source = &*self.sources[source];
                    if let Err(error) = self.note(source, size, at) {
                        tracing::error!(ledger = %source.ledger(), %size, %error, "the next start will not know that the ledger holds this snapshot");
                    }
                    self.retain(source);
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.sources.iter().for_each(|source| self.retain(&**source));
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn make(&self, source: &dyn Source, pin: Pin, base: &Base) -> io::Result<()> {
        let at = base.size();
        assert_eq!(pin.at(), at, "pinned at the end of the segment");
        while source.signed() < at || source.reader().durable_size() < at {
            if self.is_stopping() {
                return Ok(());
            }
            thread::park_timeout(SIGNED_PACE);
        }
        let began = Instant::now();
        let folder = Folder::of(source.directory());
        let record = folder.write(base, |file| self.fill(source, pin, file))?;
        folder.tidy()?;
        let ledger = source.ledger();
        tracing::info!(%ledger, %at, root = %record.root, took = ?began.elapsed(), "snapshot");
        source.made(record);
        if let Some(safe) = folder.safe()? {
            self.forget(source, safe);
        }
        Ok(())
    }

    /// Notes that the ledger holds a snapshot; what that made needless goes.
    fn note(&self, source: &dyn Source, size: Version, at: Version) -> io::Result<()> {
        let folder = Folder::of(source.directory());
        while let Err(error) = folder.agree(size, at) {
            if !tradewind_ledger_disk::is_no_space(&error) || self.is_stopping() {
                return Err(error);
            }
            thread::park_timeout(FULL_DISK_RETRY);
        }
        folder.tidy()
    }

    fn fill(&self, source: &dyn Source, pin: Pin, file: &mut Writing) -> io::Result<()> {
        let at = pin.at();
        let mut encoder = Encoder::new(pin);
        self.slices(source, at, |state| {
            if let Some(item) = &mut state.item
                && item.value == ItemValue::Logged
            {
                let bytes = source.reader().entry(item.version).map_err(io::Error::other)?;
                let entry = Entry::decode(&bytes).map_err(io::Error::other)?;
                let missing = || io::Error::other("an entry does not write the key that it should");
                item.value = value_in(&entry, &state.key).ok_or_else(missing)?.into();
            }
            encoder.push(state);
            while let Some(chunk) = encoder.poll_chunk() {
                file.chunk(&chunk)?;
            }
            Ok(())
        })?;
        encoder.finish().try_for_each(|chunk| file.chunk(&chunk))
    }

    /// Shows every key as it was at `at`.
    fn slices(
        &self,
        source: &dyn Source,
        at: Version,
        mut show: impl FnMut(&mut KeyState) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut after: Option<Box<[u8]>> = None;
        loop {
            if self.is_stopping() {
                return Err(io::Error::other("the process ends"));
            }
            let mut slice = (Vec::new(), None);
            source.read(&mut |store| slice = store.slice(at, after.as_deref(), SLICE));
            slice.0.iter_mut().try_for_each(&mut show)?;
            match slice.1 {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
    }

    /// Lets the store go of what is before `base`.
    fn forget(&self, source: &dyn Source, base: Version) {
        let mut due = false;
        source.read(&mut |store| due = store.base() < base);
        let mut after: Option<Box<[u8]>> = None;
        while due && !self.is_stopping() {
            source.change(&mut |store| after = store.compact(base, after.as_deref(), SLICE));
            due = after.is_some();
        }
    }

    /// Prunes what the pool does not keep.
    fn retain(&self, source: &dyn Source) {
        let ledger = source.ledger();
        if source.retain() == Retain::All {
            return;
        }
        match self.prunable(source) {
            Ok(None) => {}
            Ok(Some((base, live))) => {
                tracing::info!(%ledger, before = %base.size(), "pruning");
                source.prune(base, live);
            }
            Err(error) => tracing::error!(%ledger, %error, "nothing is pruned"),
        }
    }

    fn prunable(&self, source: &dyn Source) -> io::Result<Option<(Base, HashSet<Digest>)>> {
        let folder = Folder::of(source.directory());
        let (reader, retain, now) = (source.reader(), source.retain(), wall_clock());
        let (first, segments) = (reader.first(), reader.sealed_segments());
        folder.forget_before(first)?;
        let agreed = folder.agreed()?.map_or(Version::ZERO, |(size, _)| size);
        let limit = if source.agrees() { agreed } else { Version(u64::MAX) };
        let places = folder.places()?.into_iter();
        let mut newest = None;
        for place in places.filter(|place| *place > first && *place <= limit) {
            let base = folder.base(place).map_err(io::Error::other)?;
            let bytes = bytes_from(source.directory(), &segments, place);
            if retain.may_prune(now, base.last_hlc(), bytes) {
                newest = Some(base);
            }
        }
        let Some(base) = newest else { return Ok(None) };
        // A key that was not changed since still has its value, and that may lie beside the ledger.
        let mut live = HashSet::new();
        let mut next = Version::ZERO;
        source.read(&mut |store| next = store.next());
        self.slices(source, next, |state| {
            if let Some(ItemValue::Detached { digest, .. }) =
                state.item.as_ref().map(|it| &it.value)
            {
                live.insert(*digest);
            }
            Ok(())
        })?;
        Ok(Some((base, live)))
    }
}

fn wall_clock() -> Hlc {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Hlc::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
