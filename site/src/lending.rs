//! The thread that reads snapshots for nodes that take one: nobody else waits for its disk.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tradewind_ledger::tree::root_of;
use tradewind_ledger::{Body, Entry, Manifest, SignedNote, Version};
use tradewind_site_protocol::{Part, ReadFor, ShardIndex};
use tradewind_store_disk::Lent;

use crate::inbox::{Inbox, PanicWatch};
use crate::log::Done;
use crate::shared::Replica;

/// An open file is let go of when nobody asked for so long.
const KEPT: Duration = Duration::from_secs(60);

/// A piece of a part that is to be read.
pub(crate) struct Wanted {
    pub(crate) reader: ReadFor,
    /// Entries that the snapshot is of, and where its SNAPSHOT entry stands if that is known.
    pub(crate) size: Version,
    pub(crate) entry: Option<Version>,
    pub(crate) part: Part,
    pub(crate) offset: u64,
    pub(crate) max_bytes: usize,
}

/// The group thread's end of the thread.
pub(crate) struct Lender {
    wanted: Sender<Wanted>,
    thread: JoinHandle<()>,
}

impl Lender {
    /// Starts the thread over the shards of this node.
    pub(crate) fn start(
        replicas: Vec<Option<Arc<Replica>>>,
        inbox: &Arc<Inbox>,
    ) -> std::io::Result<Self> {
        let (wanted, receiver) = channel();
        let watch = PanicWatch::new("lending", inbox);
        let worker = Worker { replicas, inbox: Arc::clone(inbox), open: None };
        let thread = thread::Builder::new().name("lending".into()).spawn(move || {
            let _watch = watch;
            worker.run(&receiver);
        })?;
        Ok(Self { wanted, thread })
    }

    /// Reads a piece; a peer has one question under way at a time.
    pub(crate) fn push(&self, wanted: Wanted) {
        // The thread ends before its other end only if it panicked, which the group thread was told.
        let _ = self.wanted.send(wanted);
    }

    /// Ends the thread.
    pub(crate) fn stop(self) {
        drop(self.wanted);
        if self.thread.join().is_err() {
            tracing::error!("the lending thread panicked");
        }
    }
}

/// The snapshot that was asked for last.
struct Open {
    shard: ShardIndex,
    size: Version,
    lent: Lent,
    manifest: Option<Vec<u8>>,
}

struct Worker {
    replicas: Vec<Option<Arc<Replica>>>,
    inbox: Arc<Inbox>,
    open: Option<Open>,
}

impl Worker {
    fn run(mut self, wanted: &Receiver<Wanted>) {
        loop {
            let next = match &self.open {
                Some(_) => match wanted.recv_timeout(KEPT) {
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                        self.open = None;
                        continue;
                    }
                    next => next.ok(),
                },
                None => wanted.recv().ok(),
            };
            let Some(Wanted { reader, size, entry, part, offset, max_bytes }) = next else {
                return;
            };
            let bytes = self.part(reader.shard, size, entry, part).unwrap_or_else(|error| {
                let (peer, shard) = (reader.peer, reader.shard);
                tracing::error!(%peer, %shard, %size, error, "a snapshot cannot be given away");
                self.open = None;
                None
            });
            let bytes = bytes.unwrap_or_default();
            let total = bytes.len() as u64;
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            let bytes = bytes[from..][..max_bytes.min(bytes.len() - from)].to_vec();
            self.inbox.done(Done::PartRead { reader, size, part, piece: (offset, total, bytes) });
        }
    }

    /// All of a part; `None` if it is not here, or not yet.
    fn part(
        &mut self,
        shard: ShardIndex,
        size: Version,
        entry: Option<Version>,
        part: Part,
    ) -> Result<Option<Vec<u8>>, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let replica = self.replicas[shard.index()].as_ref().expect("an own shard");
        if self.open.as_ref().is_none_or(|open| (open.shard, open.size) != (shard, size)) {
            let lent = Lent::open(&replica.directory, size).map_err(|error| text(&error))?;
            self.open = lent.map(|lent| Open { shard, size, lent, manifest: None });
        }
        let Some(open) = &mut self.open else { return Ok(None) };
        match part {
            Part::Chunk(index) => open.lent.chunk(index).map_err(|error| text(&error)),
            Part::Block(index) => {
                let leaves = Manifest::block_of(&replica.reader, size, index.into());
                let leaves = leaves.map_err(|error| text(&error))?;
                Ok(Some(leaves.iter().flat_map(|leaf| leaf.0).collect()))
            }
            Part::Manifest => {
                if open.manifest.is_none()
                    && let Some(entry) = entry
                {
                    open.manifest = manifest(replica, &open.lent, entry)?;
                }
                Ok(open.manifest.clone())
            }
        }
    }
}

/// The manifest of a snapshot whose SNAPSHOT entry stands at `at`: the one that it was taken by, or one that is made; `None`
/// while nothing signed covers that.
fn manifest(replica: &Replica, lent: &Lent, at: Version) -> Result<Option<Vec<u8>>, String> {
    let damaged = "its file is not what the ledger commits to; remove it";
    let taken = tradewind_store_disk::manifest(&replica.directory, lent.base().size());
    if let Some(taken) = taken.map_err(|error| error.to_string())? {
        return match taken.chunks == lent.leaves() {
            true => Ok(Some(taken.encode())),
            false => Err(damaged.into()),
        };
    }
    let Some(note) = replica.head.borrow().clone() else { return Ok(None) };
    let signed = note.checkpoint().map_err(|error| error.to_string())?.size;
    if signed <= at || replica.reader.durable_size() < signed {
        return Ok(None);
    }
    let entry = replica.reader.entry(at).map_err(|error| error.to_string())?;
    let leaves = lent.leaves();
    match Entry::decode(&entry).map(|entry| entry.body) {
        Ok(Body::Snapshot(record)) if record.root == root_of(leaves.iter().copied()) => {}
        _ => return Err(damaged.into()),
    }
    let note = SignedNote::clone(&note);
    let made = Manifest::make(&replica.reader, note, (at, entry), lent.base().clone(), leaves);
    made.map(|manifest| Some(manifest.encode())).map_err(|error| error.to_string())
}
