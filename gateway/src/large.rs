//! Room for large requests, which all connections of a process share: what comes beyond it waits in its client.

use crate::ReplySink;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tradewind_client::wire::{CallId, Fault};
use tradewind_store::Reply;

/// A frame that is longer has to wait for room.
const LARGE: usize = 1 << 20;

/// Bytes that large requests may take together, counted in KiB; whoever has waited longest is next.
#[derive(Clone)]
pub(crate) struct Room {
    kib: Arc<Semaphore>,
    all: u32,
}

/// Room for one frame, until it is dropped.
pub(crate) struct Taken {
    pub(crate) bytes: usize,
    _kib: OwnedSemaphorePermit,
}

/// Answers a large request, which takes room until then.
pub(crate) struct Roomy {
    pub(crate) sink: Arc<dyn ReplySink>,
    pub(crate) _room: Taken,
}

impl Room {
    pub(crate) fn new(bytes: usize) -> Self {
        let all = u32::try_from(bytes / 1024).unwrap_or(u32::MAX).max(1);
        Self { kib: Arc::new(Semaphore::new(all as usize)), all }
    }

    /// Whether a frame of so many bytes needs room.
    pub(crate) fn is_needed(bytes: usize) -> bool {
        bytes > LARGE
    }

    /// Waits for room for a frame of so many bytes: for all there is, if it is longer than that.
    pub(crate) async fn take(&self, bytes: usize) -> Taken {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(self.all);
        let permit = Arc::clone(&self.kib).acquire_many_owned(kib).await;
        Taken { bytes, _kib: permit.expect("never closed") }
    }

    /// Bytes that are taken.
    pub(crate) fn taken_bytes(&self) -> u64 {
        (u64::from(self.all)).saturating_sub(self.kib.available_permits() as u64) * 1024
    }
}

impl ReplySink for Roomy {
    fn push(&self, call: CallId, answer: Result<Reply, Fault>) {
        self.sink.push(call, answer);
    }

    fn flush(&self) {
        self.sink.flush();
    }
}
