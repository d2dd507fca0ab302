//! Snapshots of a state machine on the own disk, so that a restart replays the tail of the ledger only.
//!
//! A file `<entries>.snap` each, laid out in docs/formats/replicated.md. It names the ledger's lineage and the root of
//! the tree over the entries that it covers, so one of another history is told from one's own; and a digest over all of
//! it, so a damaged one is not restored. It is never needed: what it covers is in the ledger.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use sha2::{Digest as _, Sha256};
use tradewind_ledger::{Digest, Lineage, Version};
use tradewind_ledger_disk::replace;

const MAGIC: &[u8; 8] = b"TWSNAP1\n";
const HEADER: usize = 8 + 32 + 8 + 32 + 8;
const DIGEST: usize = 32;
const EXTENSION: &str = "snap";
/// How many files are kept: the newest may turn out to be damaged.
const KEPT: usize = 2;

/// A state after some entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) lineage: Lineage,
    /// After so many entries.
    pub(crate) applied: Version,
    /// Over these entries.
    pub(crate) root: Digest,
    pub(crate) state: Vec<u8>,
}

impl Snapshot {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.state.len() + DIGEST);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.lineage.0.0);
        bytes.extend_from_slice(&self.applied.0.to_le_bytes());
        bytes.extend_from_slice(&self.root.0);
        bytes.extend_from_slice(&(self.state.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&self.state);
        let digest = Sha256::digest(&bytes);
        bytes.extend_from_slice(&digest);
        bytes
    }

    /// Reads one that is whole.
    ///
    /// # Errors
    /// In words what is wrong.
    fn decode(mut bytes: Vec<u8>) -> Result<Self, String> {
        let Some(end) = bytes.len().checked_sub(DIGEST).filter(|end| *end >= HEADER) else {
            return Err(format!(
                "it has {} bytes, no snapshot has fewer than {}",
                bytes.len(),
                HEADER + DIGEST
            ));
        };
        let (content, digest) = bytes.split_at(end);
        if &content[..8] != MAGIC {
            return Err("it does not begin as a snapshot of format 1".into());
        }
        if Sha256::digest(content)[..] != *digest {
            return Err("its digest differs: it is damaged".into());
        }
        let word = |at: usize| u64::from_le_bytes(content[at..at + 8].try_into().expect("8 bytes"));
        let hash = |at: usize| Digest(content[at..at + 32].try_into().expect("32 bytes"));
        let (lineage, applied, root, length) =
            (Lineage(hash(8)), Version(word(40)), hash(48), word(80));
        if length != (end - HEADER) as u64 {
            return Err(format!("its state has {} bytes, not {length}", end - HEADER));
        }
        bytes.truncate(end);
        bytes.drain(..HEADER);
        Ok(Self { lineage, applied, root, state: bytes })
    }
}

/// The snapshots in `directory` that are whole, the newest first; what is not is reported and left alone.
pub(crate) fn stored(directory: &Path) -> impl Iterator<Item = Snapshot> {
    let files = match files(directory) {
        Ok(files) => files,
        Err(error) => {
            tracing::warn!(directory = %directory.display(), %error, "no snapshot can be read");
            Vec::new()
        }
    };
    files.into_iter().rev().filter_map(|(_, path)| {
        let read = fs::read(&path).map_err(|error| error.to_string()).and_then(Snapshot::decode);
        read.inspect_err(|fault| {
            tracing::warn!(file = %path.display(), fault, "a snapshot is not usable; the ledger has what it would have told");
        })
        .ok()
    })
}

/// The snapshot files by ascending number of entries.
fn files(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|e| e == EXTENSION)) {
            files.push((number, path));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Writes snapshots, beside the thread that applies commands.
pub(crate) struct Keeper {
    queue: SyncSender<Snapshot>,
    thread: JoinHandle<()>,
}

impl Keeper {
    pub(crate) fn start(directory: PathBuf) -> io::Result<Self> {
        let (queue, snapshots) = sync_channel(0);
        let run = move || keep(&directory, &snapshots);
        let thread = thread::Builder::new().name("snapshot".into()).spawn(run)?;
        Ok(Self { queue, thread })
    }

    /// Has a snapshot written, unless one is being written: then it is left for the next time.
    pub(crate) fn offer(&self, snapshot: Snapshot) -> bool {
        self.queue.try_send(snapshot).is_ok()
    }

    /// Has a last one written and waits for it.
    pub(crate) fn finish(self, last: Option<Snapshot>) {
        if let Some(last) = last {
            // The thread ends only when the queue is closed.
            let _ = self.queue.send(last);
        }
        drop(self.queue);
        if self.thread.join().is_err() {
            tracing::error!("the snapshot thread panicked");
        }
    }
}

fn keep(directory: &Path, snapshots: &Receiver<Snapshot>) {
    while let Ok(snapshot) = snapshots.recv() {
        let path = directory.join(format!("{:020}.{EXTENSION}", snapshot.applied.0));
        match write(directory, &path, &snapshot) {
            Ok(()) => tracing::debug!(file = %path.display(), "snapshot written"),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "no snapshot; a restart replays more of the ledger");
            }
        }
    }
}

fn write(directory: &Path, path: &Path, snapshot: &Snapshot) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    replace(path, &snapshot.encode())?;
    // What claims to be newer is of another history, or this one would not have begun before it.
    let (older, newer): (Vec<_>, _) =
        files(directory)?.into_iter().partition(|(number, _)| *number <= snapshot.applied.0);
    let surplus = older.into_iter().rev().skip(KEPT);
    surplus.chain(newer).try_for_each(|(_, path)| fs::remove_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(applied: u64, state: &[u8]) -> Snapshot {
        let (lineage, root) = (Lineage(Digest([1; 32])), Digest([2; 32]));
        Snapshot { lineage, applied: Version(applied), root, state: state.to_vec() }
    }

    #[test]
    fn the_two_newest_are_kept_and_a_damaged_one_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::start(dir.path().join("snapshots")).unwrap();
        for applied in [7, 8, 9] {
            keeper.queue.send(snapshot(applied, b"state")).unwrap();
        }
        keeper.finish(None);
        let directory = dir.path().join("snapshots");
        let numbers =
            |directory: &Path| -> Vec<u64> { stored(directory).map(|s| s.applied.0).collect() };
        assert_eq!(numbers(&directory), [9, 8]);
        let newest = directory.join(format!("{:020}.snap", 9));
        let whole = fs::read(&newest).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            Snapshot::decode(damaged).unwrap_err();
            Snapshot::decode(whole[..at].to_vec()).unwrap_err();
        }
        fs::write(&newest, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(numbers(&directory), [8]);
        assert_eq!(stored(&directory).next().unwrap(), snapshot(8, b"state"));
    }
}
