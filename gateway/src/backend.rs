//! What a process offers to those who connect: implemented by a node and by a mirror.

use crate::completion::ReplyTo;
use std::{fmt, future::Future, io, path::Path, pin::Pin, sync::Arc, time::Duration};
use tokio::sync::watch;
use tradewind_client::wire::{Fault, Incarnation, PoolIndex, Welcome};
use tradewind_ledger::{Digest, Hlc, LedgerId, RequestId, Version};
use tradewind_store::{Durability, Store};

/// A node or a mirror, as seen by the gateway. Calls come from many tasks at a time and must not block, unless they
/// say so.
pub trait Backend: Send + Sync + 'static {
    /// Who this process is and what there is; asked anew for each connection. The gateway sets
    /// [`Welcome::in_flight_max`] itself.
    fn welcome(&self) -> Welcome;

    /// Takes writes, in this order, and answers each by its [`ReplyTo`], from whatever thread, once it is as durable
    /// as it asks. What cannot be taken is answered at once: [`Fault::Busy`] when a queue is full.
    ///
    /// The gateway has checked rights, limits and that the keys belong to the shard, but not whether this process
    /// takes writes of it.
    fn submit(&self, batch: Vec<Submission>);

    /// A shard that this process holds.
    fn shard(&self, pool: PoolIndex, shard: u32) -> Option<Arc<dyn Shard>>;

    /// All ledgers that this process holds.
    fn ledgers(&self) -> Vec<LedgerId>;

    /// The shard of a ledger that this process holds.
    fn ledger(&self, id: &LedgerId) -> Option<Arc<dyn Shard>>;

    /// What the process is doing, as a JSON object for people and programs; see docs/http.md for what the page at `/`
    /// shows of it.
    fn status(&self) -> serde_json::Value;

    /// More lines for `/metrics`, in the text format of Prometheus; none unless a process has some.
    fn metrics(&self) -> String {
        String::new()
    }

    /// Whether it can do its work.
    fn readiness(&self) -> Readiness;

    /// Which start of this process it is.
    fn incarnation(&self) -> Incarnation;
}

/// How the process ends and begins anew when an administrator asks.
pub trait Restart: fmt::Debug + Send + Sync + 'static {
    /// Whether it could begin anew: called before anything is ended. May block on the disk.
    ///
    /// # Errors
    /// Why it could not, for the administrator.
    fn check(&self) -> Result<(), String>;

    /// Begins; returns at once.
    fn begin(&self);
}

/// One write on its way.
#[derive(Debug)]
pub struct Submission {
    /// Where.
    pub pool: PoolIndex,
    /// Which shard of the pool.
    pub shard: u32,
    /// Whose request it is: the same one is executed once.
    pub request: RequestId,
    /// When to answer; `None` for what the pool says.
    pub durability: Option<Durability>,
    /// An encoded [`Command`](tradewind_store::Command), which decodes.
    pub command: Vec<u8>,
    /// Who waits for the answer.
    pub reply: ReplyTo,
}

/// A shard that can be read here.
pub trait Shard: Send + Sync + 'static {
    /// Its ledger's id.
    fn id(&self) -> &LedgerId;

    /// The ledger's directory, which holds `checkpoint` and `tile/`.
    fn directory(&self) -> &Path;

    /// What readers may see, and how it grows.
    fn horizon(&self) -> watch::Receiver<Horizon>;

    /// How long ago this process last knew that it had all there was. At a healthy node zero.
    fn age(&self) -> Duration;

    /// Waits until whatever was acknowledged before the call is readable here.
    ///
    /// # Errors
    /// A [`Fault`] if this process cannot promise that: [`Fault::NotLinearizable`] or [`Fault::Unavailable`].
    fn barrier(&self) -> Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>>;

    /// Calls `read` with the state, which may be newer than the horizon. Short, and never while holding a lock.
    fn with_store(&self, read: &mut dyn FnMut(&Store));

    /// Waits until an entry below the horizon is on this process' own disk, and with it the values it names: a majority
    /// may have committed it before. Blocks.
    ///
    /// # Errors
    /// If that takes too long.
    fn await_own_disk(&self, version: Version) -> io::Result<()> {
        let _ = version;
        Ok(())
    }

    /// The first entry that is kept here; those before it were pruned.
    fn first(&self) -> Version;

    /// The bytes of an entry below the horizon. Blocks on the disk.
    ///
    /// # Errors
    /// What the disk says.
    fn entry(&self, version: Version) -> io::Result<Vec<u8>>;

    /// A detached value. Blocks on the disk.
    ///
    /// # Errors
    /// What the disk says; a missing or damaged value is [`io::ErrorKind::InvalidData`].
    fn value(&self, digest: &Digest) -> io::Result<Vec<u8>>;
}

/// What readers of a shard may see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Horizon {
    /// The first so many entries: committed at a node, verified at a mirror.
    pub readable: Version,
    /// No later entry has a time at or before this; zero if nothing better is known than the last entry's time.
    pub covered: Hlc,
}

/// Whether a process can do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Why it cannot, if so.
    pub fault: Option<String>,
    /// How old what it shows may be, the worst of its shards.
    pub lag: Duration,
}
