//! One ledger of a mirror, as its threads share it.

use std::{
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tradewind_gateway::Horizon;
use tradewind_ledger::{Genesis, Hlc, LedgerId, Lineage, SignedNote, Version};
use tradewind_ledger_disk::LedgerReader;
use tradewind_store::Store;
use tradewind_store_disk::{Shelf, Started};
use tradewind_wan::protocol::Head;
use tradewind_wan::protocol::wire::Part;
use tradewind_wan::{DurableNotice, Source};

use crate::snapshots::Policies;

/// A replica of one ledger. Only the log thread changes what is shown.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) genesis: Genesis,
    pub(crate) lineage: Lineage,
    pub(crate) directory: PathBuf,
    pub(crate) reader: Reader,
    pub(crate) policy: Policies,
    pub(crate) shelf: Arc<Shelf>,
    /// Where this start began, and what it replayed.
    pub(crate) started: Started,
    pub(crate) store: RwLock<Store>,
    /// What readers may see: verified and durable.
    pub(crate) horizon: watch::Sender<Horizon>,
    /// What children may have.
    pub(crate) heads: watch::Sender<Option<Arc<Head>>>,
    /// Since when the parent had nothing more than this.
    pub(crate) fresh: Mutex<Option<Instant>>,
    pub(crate) is_halted: AtomicBool,
    pub(crate) notice: OnceLock<DurableNotice>,
}

/// A ledger's reader.
#[derive(Clone)]
pub(crate) struct Reader(pub(crate) LedgerReader);

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reader({} entries)", self.0.durable_size())
    }
}

impl Replica {
    pub(crate) fn id(&self) -> &LedgerId {
        &self.genesis.ledger
    }

    pub(crate) fn is_halted(&self) -> bool {
        self.is_halted.load(Ordering::Relaxed)
    }

    /// How long ago what is shown was all that the home site had committed: by the parents' word, or,
    /// as long as none has said so, the age of the last entry.
    pub(crate) fn age(&self) -> Duration {
        let fresh = *self.fresh.lock();
        fresh.map_or_else(|| since(self.last_hlc()), |fresh| fresh.elapsed())
    }

    /// Time of the last entry that is shown; 0 if there is none.
    pub(crate) fn last_hlc(&self) -> Hlc {
        self.heads.borrow().as_ref().map_or(Hlc(0), |head| head.hlc)
    }

    /// The ledger as children may have it.
    pub(crate) fn source(self: &Arc<Self>) -> Source {
        let (replica, lender) = (Arc::clone(self), Arc::clone(self));
        Source {
            ledger: self.id().clone(),
            lineage: self.lineage,
            reader: self.reader.0.clone(),
            heads: self.heads.subscribe(),
            age: Arc::new(move || replica.age()),
            lend: Arc::new(move |size, part| lender.lend(size, part)),
        }
    }

    fn lend(&self, size: Version, part: Part) -> Result<Option<Vec<u8>>, String> {
        let reader = &self.reader.0;
        match part {
            Part::Manifest => {
                let head = self.heads.borrow().clone().filter(|head| head.is_signed());
                let note = head.and_then(|head| SignedNote::parse(head.note.as_bytes()).ok());
                self.shelf.manifest(reader, note)
            }
            Part::Block(index) => self.shelf.block(reader, size, index),
            Part::Chunk(index) => self.shelf.chunk(size, index),
            Part::Value(digest) => reader.value(&digest).map_err(|error| error.to_string()),
        }
    }
}

/// How long ago `hlc` was, by this machine's wall clock.
fn since(hlc: Hlc) -> Duration {
    let then = UNIX_EPOCH + Duration::from_micros(hlc.micros());
    SystemTime::now().duration_since(then).unwrap_or_default()
}
