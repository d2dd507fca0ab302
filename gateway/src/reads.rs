//! The reads of one connection: answered on the spot if that can be, together behind a barrier if they ask for one, and
//! apart from the others if they wait or look at the disk.

use crate::{
    ReplySink as _,
    outbox::Outbox,
    service::{Attempt, Query, Service},
};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tradewind_client::wire::{CallId, Fault};

/// Most reads of a connection that wait or look at the disk at a time.
const SLOW_MAX: usize = 16;
/// Answers after which it is looked whether the client takes them.
const CHUNK: usize = 64;

/// Answers the reads of a connection.
#[derive(Clone)]
pub(crate) struct Reads {
    service: Service,
    outbox: Arc<Outbox>,
    slow: Arc<Semaphore>,
}

/// Reads that came together and want a barrier of the same shard.
#[derive(Default)]
pub(crate) struct Behind(Vec<Vec<(CallId, Query)>>);

impl Behind {
    fn push(&mut self, call: CallId, query: Query) {
        let same = |group: &&mut Vec<(CallId, Query)>| group[0].1.is_of_shard(&query);
        match self.0.iter_mut().find(same) {
            Some(group) => group.push((call, query)),
            None => self.0.push(vec![(call, query)]),
        }
    }
}

impl Reads {
    pub(crate) fn new(service: Service, outbox: Arc<Outbox>) -> Self {
        Self { service, outbox, slow: Arc::new(Semaphore::new(SLOW_MAX)) }
    }

    /// Keeps the answer of a read for [`Outbox::flush`], unless it has to wait.
    pub(crate) fn take(&self, call: CallId, query: Query, behind: &mut Behind) {
        match query.wants_barrier() {
            true => behind.push(call, query),
            false => self.answer(call, query),
        }
    }

    /// Answers reads once what they ask for is known to be here: one barrier for all of a shard.
    pub(crate) fn behind_barriers(&self, behind: Behind) {
        for group in behind.0 {
            let this = self.clone();
            tokio::spawn(async move { this.behind_barrier(group).await });
        }
    }

    async fn behind_barrier(&self, group: Vec<(CallId, Query)>) {
        let passed = group[0].1.barrier().await;
        for (place, (call, query)) in group.into_iter().enumerate() {
            if place % CHUNK == 0 {
                self.outbox.flush();
                self.outbox.room(usize::MAX).await;
            }
            match &passed {
                Ok(()) => self.answer(call, query.behind_barrier()),
                Err(fault) => self.outbox.keep(call, &Err(fault.clone())),
            }
        }
        self.outbox.flush();
    }

    fn answer(&self, call: CallId, query: Query) {
        match Service::try_answer(query) {
            Attempt::Done(response) => self.outbox.keep(call, &response),
            Attempt::Slow(query) => self.answer_slowly(call, query),
        }
    }

    fn answer_slowly(&self, call: CallId, query: Query) {
        let Ok(slot) = Arc::clone(&self.slow).try_acquire_owned() else {
            let reason = format!("{SLOW_MAX} reads of this connection wait already");
            return self.outbox.keep(call, &Err(Fault::Busy { reason }));
        };
        let (service, outbox) = (self.service.clone(), Arc::clone(&self.outbox));
        tokio::spawn(async move {
            let response = service.answer(query).await;
            outbox.room(usize::MAX).await;
            outbox.answer(call, &response);
            drop(slot);
        });
    }
}
