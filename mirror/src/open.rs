//! Opens a replica from disk.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, atomic::AtomicBool},
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tradewind_gateway::Horizon;
use tradewind_ledger::note::VerifierKeyError;
use tradewind_ledger::tree::root_at;
use tradewind_ledger::{
    Base, EntryError, Genesis, Hlc, Manifest, Policy, PolicyError, Replay, SignedNote, Version,
};
use tradewind_ledger_disk::{DataError, LedgerWriter, OpenError, Opened, Options, Publisher};
use tradewind_store::Store;
use tradewind_store::snapshot::Pin;
use tradewind_store_disk::{Begun, Shelf};
use tradewind_wan::protocol::{Head, LedgerConfig, Link};

use crate::{
    evidence::EvidenceFolder,
    replica::{Reader, Replica},
    snapshots::Policies,
};

/// Why a ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The topology's names or keys make no genesis.
    #[error("the topology gives the ledger no beginning: {0}")]
    Genesis(#[from] EntryError),
    /// The ledger's directory cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The members of the ledger have keys that are none.
    #[error("{}: the ledger's members have unusable keys: {source}", .directory.display())]
    Members {
        /// The ledger's directory.
        directory: PathBuf,
        /// Why.
        source: VerifierKeyError,
    },
    /// The published checkpoint is not signed as it must be.
    #[error(
        "{}/checkpoint does not hold: {source}; the file was changed: restore it, or remove the \
         directory to fetch the ledger anew", .directory.display()
    )]
    Checkpoint {
        /// The ledger's directory.
        directory: PathBuf,
        /// Why.
        source: PolicyError,
    },
    /// The evidence folder cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The directory cannot be made.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A ledger that was opened: for the threads that own its parts.
pub(crate) struct OpenReplica {
    pub(crate) replica: Arc<Replica>,
    pub(crate) writer: LedgerWriter,
    pub(crate) publisher: Publisher,
    pub(crate) config: LedgerConfig,
    /// The snapshot that is to be made first.
    pub(crate) due: Option<(Pin, Arc<Base>)>,
}

/// Opens the ledger that begins with `genesis`, or makes an empty one, and rebuilds its store.
///
/// What the published checkpoint covers is shown at once, or, in a ledger that begins with a snapshot that was taken, that; the rest was verified before it was written,
/// but the proof is not at hand any more: it waits for a parent's.
pub(crate) fn open_replica(
    data: &Path,
    genesis: Genesis,
    policy: Policies,
    evidence: &EvidenceFolder,
) -> Result<OpenReplica, ReplicaError> {
    let lineage = genesis.lineage()?;
    let directory = data.join("ledgers").join(genesis.ledger.to_string());
    let folder = crate::taking::folder(data, &genesis.ledger.to_string());
    let replaced = tradewind_store_disk::replace_ledger(&folder, &directory);
    if replaced.map_err(|source| ReplicaError::Io { path: folder, source })? {
        tracing::info!(ledger = %genesis.ledger, "begins with a snapshot of a parent");
    }
    std::fs::create_dir_all(&directory)
        .map_err(|source| ReplicaError::Io { path: directory.clone(), source })?;
    let options = Options { expected_lineage: Some(lineage), ..Options::default() };
    let Begun { opened, store, started, due } =
        tradewind_store_disk::open(&directory, &options, &policy.rule)?;
    let head = match &opened.checkpoint {
        None => taken(&directory, &opened, &genesis, started.size()),
        Some(note) => Some(head(&directory, &opened.replay, &genesis, note, &store)?),
    };
    let readable = head.as_ref().map_or(Version::ZERO, |head| head.size);
    let halted = evidence.find(&genesis.ledger)?;
    if let Some(file) = &halted {
        let file = file.display();
        tracing::error!(ledger = %genesis.ledger, %file, "not followed: there is evidence of a fork");
    }
    if opened.recovery != tradewind_ledger_disk::Recovery::default() {
        tracing::info!(ledger = %genesis.ledger, recovery = ?opened.recovery, "repaired at start");
    }
    let is_halted = halted.is_some();
    let config = LedgerConfig { genesis: genesis.clone(), replay: opened.replay, is_halted };
    let shelf = Arc::new(Shelf::of(directory.clone()));
    let replica = Replica {
        genesis,
        lineage,
        directory,
        reader: Reader(opened.reader),
        policy,
        started,
        shelf,
        store: RwLock::new(store),
        horizon: watch::Sender::new(Horizon { readable, covered: Hlc(0) }),
        heads: watch::Sender::new(head.map(Arc::new)),
        fresh: Mutex::new(None),
        is_halted: AtomicBool::new(is_halted),
        notice: OnceLock::new(),
    };
    let (writer, publisher) = (opened.writer, opened.publisher);
    Ok(OpenReplica { replica: Arc::new(replica), writer, publisher, config, due })
}

/// The head of the published checkpoint, once its signatures are verified; that it speaks of these
/// entries was verified when the ledger was opened.
fn head(
    directory: &Path,
    replay: &Replay,
    genesis: &Genesis,
    note: &SignedNote,
    store: &Store,
) -> Result<Head, ReplicaError> {
    let policy = Policy::majority(&genesis.origin(), replay.members().to_vec())
        .map_err(|source| ReplicaError::Members { directory: directory.into(), source })?;
    let verified = policy
        .verify(note)
        .map_err(|source| ReplicaError::Checkpoint { directory: directory.into(), source })?;
    let signed = verified.checkpoint;
    let last = signed.size.0.checked_sub(1).map(Version);
    let hlc = last.and_then(|last| store.hlc_of(last)).unwrap_or(Hlc(0));
    Ok(Head::signed(signed.size, signed.root, hlc, &note.to_string()))
}

/// The head where a ledger begins with a snapshot that was taken, if what that was taken by is there and still shows that a
/// majority has signed for it.
fn taken(directory: &Path, opened: &Opened, genesis: &Genesis, size: Version) -> Option<Head> {
    let manifest = tradewind_store_disk::manifest(directory, size);
    let manifest = manifest.inspect_err(|error| {
        tracing::error!(ledger = %genesis.ledger, %size, %error, "what a snapshot was taken by cannot be read");
    });
    let manifest = manifest.ok()??;
    let known = [opened.replay.members(), &genesis.members];
    let believed = known.into_iter().any(|members| {
        let policy = Policy::majority(&genesis.origin(), members.to_vec());
        policy.is_ok_and(|policy| manifest.verify(&policy).is_ok())
    });
    let Manifest { note, base, consistency, .. } = manifest;
    let here = root_at(&opened.reader, base.size()).ok();
    if !believed || here != Some(base.root()) {
        return None;
    }
    let signed = note.checkpoint().ok()?;
    let link = Link { size: signed.size, root: signed.root, proof: consistency };
    let links = if signed.size == base.size() { Vec::new() } else { vec![link] };
    let note = note.to_string().into();
    Some(Head {
        size: base.size(),
        root: base.root(),
        hlc: base.last_hlc(),
        note,
        links: links.into(),
    })
}
