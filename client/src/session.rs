//! A client's session at one shard: numbers for requests, kept within the window that the shard remembers.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
};
use tokio::sync::Notify;
use tradewind_ledger::{Hlc, RequestId, RequestNumber, SessionId};
use tradewind_store::{WINDOW, session_id};

/// Half of the window, so that a request which is answered late is still remembered when it is sent again.
const SPAN: u64 = WINDOW / 2;

/// Request numbers for one shard, for as many tasks as like: those in use never lie further apart than the shard
/// remembers.
#[derive(Debug)]
pub struct Session {
    state: Mutex<State>,
    /// Told when the lowest unanswered request is answered.
    moved: Notify,
}

#[derive(Debug)]
struct State {
    id: SessionId,
    next: u64,
    /// From the lowest unanswered request to the highest: which are answered.
    answered: VecDeque<bool>,
}

/// A request number in use, until it is dropped.
#[derive(Debug)]
pub struct Numbered<'a> {
    /// The session's id and the number.
    pub request: RequestId,
    session: &'a Session,
}

impl Session {
    /// Opens a session at the server's time `opened`; `random` tells it from others opened at that time.
    pub fn new(opened: Hlc, random: u64) -> Self {
        let id = session_id(opened, random);
        let state = Mutex::new(State { id, next: 1, answered: VecDeque::new() });
        Self { state, moved: Notify::new() }
    }

    /// The next number, if the lowest unanswered one is not too far behind.
    pub fn try_number(&self) -> Option<Numbered<'_>> {
        let request = self.lock().take()?;
        Some(Numbered { request, session: self })
    }

    /// The next number, once the lowest unanswered one is not too far behind.
    pub async fn number(&self) -> Numbered<'_> {
        loop {
            let moved = self.moved.notified();
            if let Some(numbered) = self.try_number() {
                return numbered;
            }
            moved.await;
        }
    }

    /// Begins anew under another id; requests under way keep the old one.
    pub fn renew(&self, old: SessionId, opened: Hlc, random: u64) {
        let mut state = self.lock();
        if state.id == old {
            *state = State { id: session_id(opened, random), next: 1, answered: VecDeque::new() };
            self.moved.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while it is held")
    }
}

impl State {
    fn take(&mut self) -> Option<RequestId> {
        if self.answered.len() as u64 >= SPAN {
            return None;
        }
        let number = RequestNumber(self.next);
        self.next += 1;
        self.answered.push_back(false);
        Some(RequestId { session: self.id, number })
    }
}

impl Drop for Numbered<'_> {
    fn drop(&mut self) {
        let mut state = self.session.lock();
        if state.id != self.request.session {
            return;
        }
        let lowest = state.next - state.answered.len() as u64;
        let index = usize::try_from(self.request.number.0 - lowest).expect("within the span");
        state.answered[index] = true;
        while state.answered.front() == Some(&true) {
            state.answered.pop_front();
        }
        if index == 0 {
            self.session.moved.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn numbers_stay_within_the_span_of_the_lowest_unanswered() {
        let session = Session::new(Hlc(1), 2);
        let mut context = Context::from_waker(Waker::noop());
        let mut take = || {
            let mut number = Box::pin(session.number());
            match number.as_mut().poll(&mut context) {
                Poll::Ready(number) => Some(number),
                Poll::Pending => None,
            }
        };
        let first = take().expect("the first");
        for n in 1..SPAN {
            assert_eq!(take().expect("within").request.number, RequestNumber(n + 1));
        }
        assert!(take().is_none());
        drop(first);
        assert_eq!(take().expect("moved on").request.number, RequestNumber(SPAN + 1));
        let old = session.lock().id;
        session.renew(old, Hlc(9), 9);
        assert_eq!(take().expect("anew").request.number, RequestNumber(1));
    }
}
