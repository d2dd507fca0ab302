//! How the answer of a write finds its way back: pushed from the backend's thread, one wake-up for many.

use std::{fmt, mem, sync::Arc};
use tradewind_client::wire::{CallId, Fault};
use tradewind_store::Reply;

/// Takes answers on behalf of those who wait for them.
pub trait ReplySink: Send + Sync {
    /// Keeps the answer of a call. Must not block for long: it runs on the backend's hottest thread.
    fn push(&self, call: CallId, answer: Result<Reply, Fault>);

    /// Tells whoever waits that there are answers.
    fn flush(&self);
}

/// Who waits for the answer of one write. If it is dropped, they are told that the outcome is unknown.
pub struct ReplyTo {
    sink: Option<Arc<dyn ReplySink>>,
    call: CallId,
}

impl ReplyTo {
    /// The answer goes to `sink` as that of `call`.
    pub fn new(sink: Arc<dyn ReplySink>, call: CallId) -> Self {
        Self { sink: Some(sink), call }
    }

    /// Answers this one alone. Cheaper for many: [`Completions`].
    pub fn send(self, answer: Result<Reply, Fault>) {
        let mut completions = Completions::default();
        completions.push(self, answer);
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        if let Some(sink) = self.sink.take() {
            sink.push(
                self.call,
                Err(Fault::Unknown { reason: "the server dropped the request".into() }),
            );
            sink.flush();
        }
    }
}

impl fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "ReplyTo({})", self.call)
    }
}

/// Answers given in one go: each connection is woken once, when this is flushed or dropped.
#[derive(Default)]
pub struct Completions {
    touched: Vec<Arc<dyn ReplySink>>,
}

impl Completions {
    /// Answers a write.
    pub fn push(&mut self, mut to: ReplyTo, answer: Result<Reply, Fault>) {
        let Some(sink) = to.sink.take() else { return };
        sink.push(to.call, answer);
        // Few connections have answers at a time, and those of one come together.
        if !self.touched.iter().rev().any(|other| Arc::ptr_eq(other, &sink)) {
            self.touched.push(sink);
        }
    }

    /// Wakes all who were answered.
    pub fn flush(&mut self) {
        for sink in mem::take(&mut self.touched) {
            sink.flush();
        }
    }
}

impl Drop for Completions {
    fn drop(&mut self) {
        self.flush();
    }
}

impl fmt::Debug for Completions {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Completions({} connections)", self.touched.len())
    }
}
