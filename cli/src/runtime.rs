//! The threads that asynchronous work runs on.

use std::num::NonZero;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};

/// A runtime with a thread for every second core, and one at least. The other half is for a node's group, log and
/// publishing threads, which the work of clients must not push aside; and the fewer threads, the more requests and answers
/// go in one write.
pub(crate) fn runtime() -> std::io::Result<Runtime> {
    let cores = available_parallelism().map_or(1, NonZero::get);
    Builder::new_multi_thread().worker_threads((cores / 2).max(1)).enable_all().build()
}
