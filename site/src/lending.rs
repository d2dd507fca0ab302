//! The thread that reads ledgers and snapshots for nodes that complete theirs: nobody else waits for its disk.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tradewind_ledger::tree::root_at;
use tradewind_ledger::{Digest, Manifest, Version};
use tradewind_ledger_disk::{LedgerReader, ReadError, ValueFile};
use tradewind_site_protocol::{EntryBatch, NodeId, Part, ReadFor, ShardIndex};
use tradewind_store_disk::{Lent, manifest_of};

use crate::inbox::{Inbox, PanicWatch};
use crate::log::Done;
use crate::shared::Replica;

/// Open files are let go of when nobody asked for so long.
const KEPT: Duration = Duration::from_secs(60);

/// What is to be read for a node.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// Entries and the root before them.
    Log { first: Version, end: Version, max_bytes: usize },
    /// Roots over the first entries.
    Roots { sizes: Vec<Version> },
    /// A piece of a detached value.
    Value { digest: Digest, offset: u64, max_bytes: usize },
    /// A piece of a part of the snapshot of `size` entries; and where its SNAPSHOT entry stands if that is known.
    Part { size: Version, entry: Option<Version>, part: Part, offset: u64, max_bytes: usize },
}

/// What waits to be read: one question a node, for a node has one under way at a time.
#[derive(Default)]
struct Questions {
    state: Mutex<Waiting>,
    some: Condvar,
}

#[derive(Default)]
struct Waiting {
    questions: VecDeque<(ReadFor, Wanted)>,
    stopped: bool,
}

/// What the thread is to do next.
enum Next {
    Read(ReadFor, Wanted),
    /// Nobody asked for long.
    Idle,
    Stop,
}

impl Questions {
    /// A newer question takes the place of the one that waits: who asks does not wait for that one's answer any more.
    fn push(&self, reader: ReadFor, wanted: Wanted) {
        let mut state = self.state.lock();
        if let Some(at) = state.questions.iter().position(|(it, _)| it.peer == reader.peer) {
            let (peer, shard) = (reader.peer, reader.shard);
            tracing::info!(%peer, %shard, "it asks for something else than it waited for");
            state.questions.remove(at);
        }
        state.questions.push_back((reader, wanted));
        self.some.notify_one();
    }

    fn next(&self, limit: Option<Duration>) -> Next {
        let mut state = self.state.lock();
        let none = |state: &mut Waiting| state.questions.is_empty() && !state.stopped;
        match limit {
            Some(limit) => _ = self.some.wait_while_for(&mut state, none, limit),
            None => self.some.wait_while(&mut state, none),
        }
        match state.questions.pop_front() {
            _ if state.stopped => Next::Stop,
            Some((reader, wanted)) => Next::Read(reader, wanted),
            None => Next::Idle,
        }
    }

    fn stop(&self) {
        self.state.lock().stopped = true;
        self.some.notify_one();
    }
}

/// The group thread's end of the thread.
pub(crate) struct Lender {
    questions: Arc<Questions>,
    thread: JoinHandle<()>,
}

impl Lender {
    /// Starts the thread over the shards of this node.
    pub(crate) fn start(
        replicas: Vec<Option<Arc<Replica>>>,
        inbox: &Arc<Inbox>,
    ) -> std::io::Result<Self> {
        let questions = Arc::new(Questions::default());
        let watch = PanicWatch::new("lending", inbox);
        let worker = Worker::new(replicas, Arc::clone(inbox));
        let asked = Arc::clone(&questions);
        let thread = thread::Builder::new().name("lending".into()).spawn(move || {
            let _watch = watch;
            worker.run(&asked);
        })?;
        Ok(Self { questions, thread })
    }

    /// Reads what a node asks for.
    pub(crate) fn push(&self, reader: ReadFor, wanted: Wanted) {
        self.questions.push(reader, wanted);
    }

    /// Ends the thread; what waits is of no use to anybody.
    pub(crate) fn stop(self) {
        self.questions.stop();
        if self.thread.join().is_err() {
            tracing::error!("the lending thread panicked");
        }
    }
}

/// The snapshot of a shard that was asked for last. Opening it reads and hashes all of it, which is not to be done again for
/// each piece, whoever else asks for another shard's.
struct Open {
    size: Version,
    lent: Lent,
    manifest: Option<Vec<u8>>,
    /// The block of leaf hashes that was asked for last.
    block: Option<(u32, Vec<u8>)>,
}

struct Worker {
    replicas: Vec<Option<Arc<Replica>>>,
    inbox: Arc<Inbox>,
    /// By shard.
    snapshots: Vec<Option<Open>>,
    /// By the node that takes it: a detached value, which is read and hashed once for all its pieces.
    values: HashMap<NodeId, (ShardIndex, Digest, ValueFile)>,
}

/// How long something is, and a piece of it.
type Piece = (u64, Vec<u8>);

impl Worker {
    fn new(replicas: Vec<Option<Arc<Replica>>>, inbox: Arc<Inbox>) -> Self {
        let snapshots = replicas.iter().map(|_| None).collect();
        Self { replicas, inbox, snapshots, values: HashMap::new() }
    }

    fn run(mut self, questions: &Questions) {
        loop {
            let open = !self.values.is_empty() || self.snapshots.iter().any(Option::is_some);
            match questions.next(open.then_some(KEPT)) {
                Next::Read(reader, wanted) => {
                    if let Some(done) = self.read(reader, wanted) {
                        self.inbox.done(done);
                    }
                }
                Next::Idle => {
                    self.values.clear();
                    self.snapshots.fill_with(|| None);
                }
                Next::Stop => return,
            }
        }
    }

    /// `None` if the node gets no answer, and asks elsewhere.
    fn read(&mut self, reader: ReadFor, wanted: Wanted) -> Option<Done> {
        let replica =
            Arc::clone(self.replicas[reader.shard.index()].as_ref().expect("an own shard"));
        let failed = |reason: String| Some(Done::Failed(format!("the disk: {reason}")));
        match wanted {
            Wanted::Log { first, end, max_bytes } => {
                read_log(&replica.reader, reader, (first, end), max_bytes).unwrap_or_else(failed)
            }
            Wanted::Roots { sizes } => {
                let root = |size| root_at(&replica.reader, size).map(|root| (size, root));
                let roots = sizes.into_iter().map(root).collect::<Result<_, _>>();
                let done = roots.map(|roots| Some(Done::Roots { reader, roots }));
                done.unwrap_or_else(|error| failed(error.to_string()))
            }
            Wanted::Value { digest, offset, max_bytes } => {
                match self.value(&replica, &reader, digest, (offset, max_bytes)) {
                    Ok(bytes) => Some(Done::ValueRead { reader, digest, offset, bytes }),
                    Err(error) => {
                        tracing::error!(%digest, %error, "no value for a peer");
                        None
                    }
                }
            }
            Wanted::Part { size, entry, part, offset, max_bytes } => {
                let piece = self.part(&replica, (size, entry), part, (offset, max_bytes));
                let piece = piece.unwrap_or_else(|error| {
                    let (peer, shard) = (reader.peer, reader.shard);
                    tracing::error!(%peer, %shard, %size, error, "a snapshot cannot be given away");
                    self.snapshots[shard.index()] = None;
                    None
                });
                let (total, bytes) = piece.unwrap_or_default();
                Some(Done::PartRead { reader, size, part, piece: (offset, total, bytes) })
            }
        }
    }

    fn value(
        &mut self,
        replica: &Replica,
        reader: &ReadFor,
        digest: Digest,
        (offset, max_bytes): (u64, usize),
    ) -> Result<Vec<u8>, String> {
        let open = self.values.remove(&reader.peer);
        let open = open.filter(|(shard, open, _)| (*shard, *open) == (reader.shard, digest));
        let file = match open {
            Some((.., file)) => file,
            None => {
                let file = replica.reader.open_value(&digest).map_err(|error| error.to_string())?;
                file.ok_or_else(|| format!("the detached value {digest} is missing"))?
            }
        };
        let bytes = file.piece(offset, max_bytes).map_err(|error| error.to_string())?;
        if bytes.len() == max_bytes {
            self.values.insert(reader.peer, (reader.shard, digest, file));
        }
        Ok(bytes)
    }

    /// A piece of a part; `None` if it is not here, or not yet.
    fn part(
        &mut self,
        replica: &Replica,
        (size, entry): (Version, Option<Version>),
        part: Part,
        (offset, max_bytes): (u64, usize),
    ) -> Result<Option<Piece>, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let place = &mut self.snapshots[replica.index.index()];
        if place.as_ref().is_none_or(|open| open.size != size) {
            let lent = Lent::open(&replica.directory, size).map_err(|error| text(&error))?;
            *place = lent.map(|lent| Open { size, lent, manifest: None, block: None });
        }
        let Some(open) = place else { return Ok(None) };
        match part {
            Part::Chunk(index) => {
                open.lent.piece(index, offset, max_bytes).map_err(|error| text(&error))
            }
            Part::Block(index) => {
                if open.block.as_ref().is_none_or(|(of, _)| *of != index) {
                    let leaves = Manifest::block_of(&replica.reader, size, index.into());
                    let leaves = leaves.map_err(|error| text(&error))?;
                    open.block = Some((index, leaves.iter().flat_map(|leaf| leaf.0).collect()));
                }
                Ok(open.block.as_ref().map(|(_, bytes)| piece_of(bytes, offset, max_bytes)))
            }
            Part::Manifest => {
                if open.manifest.is_none()
                    && let Some(entry) = entry
                {
                    let note = replica.head.borrow().as_deref().cloned();
                    let (ledger, reader) = (&replica.directory, &replica.reader);
                    let made = manifest_of(ledger, reader, &open.lent, (entry, note))?;
                    open.manifest = made.map(|manifest| manifest.encode());
                }
                Ok(open.manifest.as_ref().map(|bytes| piece_of(bytes, offset, max_bytes)))
            }
        }
    }
}

fn piece_of(bytes: &[u8], offset: u64, max_bytes: usize) -> Piece {
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let len = max_bytes.min(bytes.len() - from);
    (bytes.len() as u64, bytes[from..][..len].to_vec())
}

/// Reads entries for a peer. `None` if they are damaged here: the peer gets no answer, and asks elsewhere.
fn read_log(
    ledger: &LedgerReader,
    reader: ReadFor,
    (first, end): (Version, Version),
    max_bytes: usize,
) -> Result<Option<Done>, String> {
    let (peer, shard, kept) = (reader.peer, reader.shard, ledger.first());
    if first < kept {
        tracing::info!(%peer, %shard, "the peer lacks entries from {first} on, which were pruned before {kept} here: it can \
            take a snapshot");
        return Ok(Some(Done::LogPruned { reader }));
    }
    let root_before = root_at(ledger, first).map_err(|error| error.to_string())?;
    let mut entries = EntryBatch::default();
    match ledger.for_each(first, end, max_bytes, |_, entry| entries.push(entry)) {
        Ok(_) => Ok(Some(Done::LogRead { reader, first, root_before, entries })),
        // Pruned since it was looked.
        Err(ReadError::Pruned { .. }) => Ok(Some(Done::LogPruned { reader })),
        Err(error @ ReadError::Quarantined { .. }) => {
            tracing::error!(%peer, %shard, %error, "no entries for a peer; if no other has them, replace its data by a copy");
            Ok(None)
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::sync::watch;
    use tradewind_gateway::Horizon;
    use tradewind_ledger::ViewId;
    use tradewind_ledger::tree::value_digest;
    use tradewind_ledger_disk::{Face, Options};
    use tradewind_store_disk::{Intake, Retain, Started};
    use tradewind_transport::fabric::Wake;

    use super::*;
    use crate::intake::tests::manifest as taken;
    use crate::shared::{OwnDisk, SharedStore};

    #[derive(Debug)]
    struct Nobody;

    impl Wake for Nobody {
        fn wake(&self) {}
    }

    fn reader(peer: u16, shard: u16) -> ReadFor {
        ReadFor { peer: NodeId(peer), view: ViewId(1), shard: ShardIndex(shard) }
    }

    /// A shard with an empty ledger, these values, and a snapshot that was taken.
    fn replica(directory: &Path, index: u16, values: &[&[u8]]) -> Arc<Replica> {
        let (manifest, hashes) = taken();
        let folder = directory.join("taking");
        let mut intake = Intake::begin(&folder, manifest.clone()).unwrap();
        intake.keep_block(0, &hashes).unwrap();
        intake.finish(Face::Packed).unwrap();
        let directory = directory.join("ledger");
        let opened = tradewind_ledger_disk::open(&directory, &Options::default(), |_, _| Ok(()));
        let reader = opened.unwrap().reader;
        std::fs::rename(folder.join("ledger/snapshots"), directory.join("snapshots")).unwrap();
        for value in values {
            tradewind_ledger_disk::keep_value(&directory, &value_digest(value), value).unwrap();
        }
        Arc::new(Replica {
            index: ShardIndex(index),
            ledger: "flights.0".parse().unwrap(),
            lineage: manifest.base.lineage(),
            directory,
            store: SharedStore::default(),
            reader,
            own_disk: OwnDisk::default(),
            retain: Retain::All,
            started: Started::default(),
            horizon: watch::Sender::new(Horizon::default()),
            head: watch::Sender::new(None),
        })
    }

    #[test]
    fn what_nodes_take_at_a_time_is_opened_once_for_each_of_them() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let values: [&[u8]; 2] = [b"one value", b"another value"];
        let of = |index: usize| Some(replica(dirs[index].path(), index as u16, &values));
        let mut worker = Worker::new(vec![of(0), of(1)], Arc::new(Inbox::new(Arc::new(Nobody))));
        let manifest = taken().0;
        let (size, whole) = (manifest.base.size(), manifest.encode());
        let mut part = |shard: u16, offset: usize| {
            let (entry, offset) = (Some(manifest.version), offset as u64);
            let wanted = Wanted::Part { size, entry, part: Part::Manifest, offset, max_bytes: 100 };
            match worker.read(reader(shard, shard), wanted) {
                Some(Done::PartRead { piece: (_, total, bytes), .. }) => (total, bytes),
                _ => panic!("a piece"),
            }
        };
        for (round, shard) in (0..3).flat_map(|round| [(round, 0), (round, 1)]) {
            let piece = &whole[round * 100..][..100];
            assert_eq!(part(shard, round * 100), (whole.len() as u64, piece.to_vec()));
            // What is open stays readable.
            let _ =
                std::fs::remove_dir_all(dirs[usize::from(shard)].path().join("ledger/snapshots"));
        }
        assert_eq!(part(0, whole.len() + 1), (whole.len() as u64, Vec::new()), "nothing behind it");

        let mut piece = |peer: u16, value: &[u8], offset: u64| {
            let digest = value_digest(value);
            let wanted = Wanted::Value { digest, offset, max_bytes: 4 };
            match worker.read(reader(peer, 0), wanted) {
                Some(Done::ValueRead { bytes, .. }) => Some(bytes),
                _ => None,
            }
        };
        for offset in [0, 4] {
            for (peer, value) in [(1, values[0]), (2, values[1])] {
                assert_eq!(piece(peer, value, offset).unwrap(), value[offset as usize..][..4]);
                let name = value_digest(value).to_string();
                let file = Path::new("ledger/values").join(&name[..2]).join(name);
                let _ = std::fs::remove_file(dirs[0].path().join(file));
            }
        }
        assert_eq!(piece(1, values[0], 8).unwrap(), b"e");
        assert_eq!(piece(3, values[0], 0), None, "it is not there any more");
    }

    #[test]
    fn one_question_of_a_node_waits_the_newest() {
        let questions = Questions::default();
        let ask = |peer: u16, size: u64| {
            questions.push(reader(peer, 0), Wanted::Roots { sizes: vec![Version(size)] });
        };
        (0..1_000).for_each(|size| ask(1, size));
        ask(2, 7);
        ask(1, 1_000);
        let next = || match questions.next(Some(Duration::ZERO)) {
            Next::Read(reader, Wanted::Roots { sizes }) => Some((reader.peer.0, sizes[0].0)),
            _ => None,
        };
        assert_eq!([next(), next(), next()], [Some((2, 7)), Some((1, 1_000)), None]);
        questions.stop();
        assert!(matches!(questions.next(None), Next::Stop));
    }
}
