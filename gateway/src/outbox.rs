//! What is to be sent on one connection: filled by many, sent by one.

use crate::{ReplySink, Shard};
use parking_lot::Mutex;
use std::{mem, pin::pin, sync::Arc};
use tokio::sync::Notify;
use tradewind_client::wire::{self, Answer, CallId, Fault, FrameError, Kind, Response};
use tradewind_store::Reply;

/// Bytes to be sent beyond which a connection takes no further requests.
const FULL: usize = 4 << 20;

/// Encoded answers on their way to the writer, and the count of requests without one.
#[derive(Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// Told when there is something to send, or nothing more to come.
    filled: Notify,
    /// Told when requests were answered, or answers sent.
    drained: Notify,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    in_flight: usize,
    unfinished: Vec<Unfinished>,
    closed: bool,
}

/// A reply whose values must be looked up before it is sent.
pub(crate) struct Unfinished {
    pub(crate) call: CallId,
    pub(crate) reply: Reply,
    pub(crate) shard: Arc<dyn Shard>,
    pub(crate) command: Vec<u8>,
}

/// What the writer takes.
pub(crate) struct Outgoing {
    pub(crate) bytes: Vec<u8>,
    pub(crate) unfinished: Vec<Unfinished>,
    /// Whether it is the last.
    pub(crate) closed: bool,
}

impl Outbox {
    /// Counts requests that were taken.
    pub(crate) fn took(&self, count: usize) {
        self.state.lock().in_flight += count;
    }

    /// Answers a request that was counted.
    pub(crate) fn answer(&self, call: CallId, response: &Response) {
        self.keep(call, response);
        self.flush();
    }

    /// Leaves a reply to the writer to finish.
    pub(crate) fn unfinished(&self, unfinished: Unfinished) {
        self.state.lock().unfinished.push(unfinished);
    }

    /// Sends what was kept, if anything was.
    pub(crate) fn flush_kept(&self) {
        let kept = !self.state.lock().bytes.is_empty();
        if kept {
            self.flush();
        }
    }

    /// Answers a request that was counted, with the next [`ReplySink::flush`].
    pub(crate) fn keep(&self, call: CallId, response: &Response) {
        let mut state = self.state.lock();
        state.in_flight -= 1;
        append(&mut state.bytes, call, response);
    }

    /// Sends a message that is no answer.
    pub(crate) fn send(&self, kind: Kind, message: &impl serde::Serialize) {
        wire::encode(&mut self.state.lock().bytes, kind, CallId(0), message)
            .expect("messages that are no answers are short");
        self.filled.notify_one();
    }

    /// What is there is sent, then the connection closed; answers that come later go nowhere.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_one();
    }

    /// How many requests have no answer yet.
    pub(crate) fn in_flight(&self) -> usize {
        self.state.lock().in_flight
    }

    /// Waits until fewer than `max` requests are without an answer and few bytes are waiting to be sent.
    pub(crate) async fn room(&self, max: usize) {
        let mut drained = pin!(self.drained.notified());
        loop {
            drained.as_mut().enable();
            {
                let state = self.state.lock();
                if state.in_flight < max && state.bytes.len() < FULL {
                    return;
                }
            }
            drained.as_mut().await;
            drained.set(self.drained.notified());
        }
    }

    /// Waits for something to send; `sent` is the buffer sent before, to be used again.
    pub(crate) async fn next(&self, mut sent: Vec<u8>) -> Outgoing {
        sent.clear();
        sent.shrink_to(1 << 20);
        loop {
            {
                let mut state = self.state.lock();
                let closed = state.closed;
                if !state.bytes.is_empty() || !state.unfinished.is_empty() || closed {
                    let bytes = mem::replace(&mut state.bytes, sent);
                    let unfinished = mem::take(&mut state.unfinished);
                    self.drained.notify_waiters();
                    return Outgoing { bytes, unfinished, closed };
                }
            }
            self.filled.notified().await;
        }
    }
}

impl ReplySink for Outbox {
    fn push(&self, call: CallId, answer: Result<Reply, Fault>) {
        self.keep(call, &answer.map(Answer::Reply));
    }

    fn flush(&self) {
        self.filled.notify_one();
        self.drained.notify_waiters();
    }
}

fn append(bytes: &mut Vec<u8>, call: CallId, response: &Response) {
    if let Err(FrameError::Length { length, .. }) =
        wire::encode(bytes, Kind::Response, call, response)
    {
        let fault: Response = Err(Fault::AnswerTooLong { length });
        wire::encode(bytes, Kind::Response, call, &fault).expect("a fault is short");
    }
}
