//! [`Replicated`]: commands in, state out.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tradewind_client::wire::{CallId, Executed, Fault, PoolIndex};
use tradewind_client::{Command, Condition, Durability, Refusal, Reply, Session};
use tradewind_gateway::{Backend, ReplySink, ReplyTo, Shard, Submission};
use tradewind_ledger::{LedgerId, RequestId, Version};

use crate::command;
use crate::error::{QueryError, SendError, Stopped};
use crate::follower::{Applied, Progress, Replica, ViewUpcall};
use crate::machine::StateMachine;
use crate::views::ViewEvents;

/// The pause between two attempts while no view runs.
const PAUSE: Duration = Duration::from_millis(10);
/// With less time left than this, and a quarter of all, no further attempt is begun: one that cannot be awaited would
/// leave its outcome unknown.
const LAST_ATTEMPT: Duration = Duration::from_millis(250);

/// How a replicated state machine behaves.
pub struct Options {
    /// How long a command or a query may take in all, a change of view included.
    pub deadline: Duration,
    /// After how many ledger entries another snapshot is kept: a restart replays no more than these, and what was being
    /// written.
    pub snapshot_every: u64,
    /// Called with each view event, between the commands before it and those after it. While it runs nothing is applied.
    pub on_view: Option<ViewUpcall>,
}

impl Default for Options {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(10), snapshot_every: 16_384, on_view: None }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("deadline", &self.deadline)
            .field("snapshot_every", &self.snapshot_every)
            .finish_non_exhaustive()
    }
}

/// Where commands are sent.
pub(crate) struct Way {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) pool: PoolIndex,
    pub(crate) shard: u32,
    pub(crate) reading: Arc<dyn Shard>,
    /// The key whose values are the commands.
    pub(crate) key: Vec<u8>,
    pub(crate) deadline: Duration,
}

/// This member's replica of a state machine. Cheap to clone; the replica ends with its last clone, or with the group.
pub struct Replicated<S: StateMachine> {
    replica: Arc<Replica<S>>,
    handle: Arc<Handle>,
}

struct Handle {
    way: Way,
    session: Session,
    progress: watch::Receiver<Progress>,
    _stop: DropGuard,
}

impl<S: StateMachine> Clone for Replicated<S> {
    fn clone(&self) -> Self {
        Self { replica: Arc::clone(&self.replica), handle: Arc::clone(&self.handle) }
    }
}

impl<S: StateMachine> std::fmt::Debug for Replicated<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replicated({}, {} applied)", self.ledger(), self.applied())
    }
}

impl<S: StateMachine> Replicated<S> {
    pub(crate) fn new(replica: Arc<Replica<S>>, way: Way, stop: CancellationToken) -> Self {
        let session = Session::new(way.backend.welcome().now, random());
        let progress = replica.progress.subscribe();
        let handle = Handle { way, session, progress, _stop: stop.drop_guard() };
        Self { replica, handle: Arc::new(handle) }
    }

    /// The ledger that holds the commands.
    #[must_use]
    pub fn ledger(&self) -> &LedgerId {
        self.handle.way.reading.id()
    }

    /// How many entries of the ledger are applied here.
    #[must_use]
    pub fn applied(&self) -> Version {
        self.handle.progress.borrow().applied
    }

    /// Why this replica applies nothing any more, if so.
    #[must_use]
    pub fn stopped(&self) -> Option<Stopped> {
        self.handle.progress.borrow().stopped.clone()
    }

    /// Sends a command through the total order, waits until it is on disk at a majority and applied *here*, and gives the
    /// reply of this member's state machine.
    ///
    /// It is applied exactly once, whatever happens to views meanwhile: it is sent again under the same request number
    /// until the deadline. Calls of many tasks share messages and disk writes; at most 512 are under way at a time, the
    /// others wait. If the future is dropped, the command may still be applied.
    ///
    /// # Errors
    /// [`SendError`] says whether the command was applied.
    pub async fn ordered_send(&self, command: &S::Command) -> Result<Applied<S::Reply>, SendError> {
        let value =
            command::encode(command).map_err(|error| SendError::Encode(error.to_string()))?;
        let way = &self.handle.way;
        let put = Command::Put { key: way.key.clone(), value, condition: Condition::Always };
        put.check().map_err(|error| SendError::Refused(error.into()))?;
        let bytes = put.encode();
        let mut attempts = Attempts::new(way.deadline);
        loop {
            let numbered = timeout_at(attempts.deadline, self.handle.session.number()).await;
            let numbered = numbered.map_err(|_| attempts.over())?;
            match self.send(numbered.request, &bytes, &mut attempts).await {
                // Never executed, so it may be numbered anew, in a session the shard cannot have forgotten.
                Err(SendError::Refused(Refusal::SessionExpired)) if !attempts.unknown => {
                    let now = way.backend.welcome().now;
                    self.handle.session.renew(numbered.request.session, now, random());
                }
                outcome => return outcome,
            }
        }
    }

    /// Sends one command until it is answered.
    async fn send(
        &self,
        request: RequestId,
        bytes: &[u8],
        attempts: &mut Attempts,
    ) -> Result<Applied<S::Reply>, SendError> {
        let mut reply = Awaited::register(&self.replica, request);
        loop {
            if let Some(stopped) = self.stopped() {
                return Err(stopped.into());
            }
            let answered = self.submit(request, bytes);
            let answer = tokio::select! {
                biased;
                // Applied without an answer of the node: after a change of view the first one may be lost.
                applied = &mut reply.receiver => {
                    return applied.map_err(|_| self.stopped().unwrap_or(Stopped::Closed).into());
                }
                answer = timeout_at(attempts.deadline, answered) => answer,
            };
            let fault = match answer {
                Ok(Ok(Ok(Reply::Written { version, .. }))) => {
                    return self.applied_as(version, reply, attempts).await;
                }
                Ok(Ok(Ok(Reply::Refused(refusal)))) if attempts.unknown => {
                    attempts.last = Arc::new(Fault::Unknown { reason: refusal.to_string() });
                    return Err(attempts.over());
                }
                Ok(Ok(Ok(Reply::Refused(refusal)))) => return Err(refusal.into()),
                Ok(Ok(Ok(other))) => {
                    Fault::Internal { reason: format!("a put was answered {other:?}") }
                }
                Ok(Ok(Err(fault))) => fault,
                Ok(Err(_)) => {
                    Fault::Unknown { reason: "the view stopped, or the node ends".into() }
                }
                Err(_) => {
                    attempts.unknown = true;
                    return Err(attempts.over());
                }
            };
            attempts.failed(fault).await?;
        }
    }

    /// Waits for the reply of a command that is known to be in the ledger.
    async fn applied_as(
        &self,
        version: Version,
        reply: Awaited<'_, S>,
        attempts: &Attempts,
    ) -> Result<Applied<S::Reply>, SendError> {
        let mut reply = reply;
        match timeout_at(attempts.deadline, &mut reply.receiver).await {
            Ok(Ok(applied)) => Ok(applied),
            Ok(Err(_)) => Err(self.stopped().unwrap_or(Stopped::Closed).into()),
            Err(_) => Err(SendError::ReplyLost { version, after_ms: attempts.after_ms() }),
        }
    }

    fn submit(&self, request: RequestId, bytes: &[u8]) -> oneshot::Receiver<Result<Reply, Fault>> {
        let (sender, answered) = oneshot::channel();
        let way = &self.handle.way;
        way.backend.submit(vec![Submission {
            pool: way.pool,
            shard: way.shard,
            request,
            durability: Some(Durability::Disk),
            command: bytes.to_vec(),
            reply: ReplyTo::new(Arc::new(Answer(Mutex::new(Some(sender)))), CallId(0)),
        }]);
        answered
    }

    /// Reads the state linearizably: nothing that any member was told before the call is missing. `read` runs once, under a
    /// lock that other readers share.
    ///
    /// # Errors
    /// [`QueryError`] if no majority confirms that within the deadline.
    pub async fn query<R>(&self, read: impl FnOnce(&S) -> R) -> Result<R, QueryError> {
        let way = &self.handle.way;
        let mut attempts = Attempts::new(way.deadline);
        let given_up = |attempts: &Attempts| QueryError::Unavailable {
            after_ms: attempts.after_ms(),
            last: Arc::clone(&attempts.last),
        };
        loop {
            match timeout_at(attempts.deadline, way.reading.barrier()).await {
                Ok(Ok(())) => break,
                Ok(Err(fault)) => {
                    if attempts.failed(fault).await.is_err() {
                        return Err(given_up(&attempts));
                    }
                }
                Err(_) => return Err(given_up(&attempts)),
            }
        }
        let readable = way.reading.horizon().borrow().readable;
        match timeout_at(attempts.deadline, self.reached(readable)).await {
            Ok(reached) => reached?,
            Err(_) => return Err(given_up(&attempts)),
        }
        Ok(self.query_local(read))
    }

    /// Reads the state as it is here, at once, also when the group is gone: it may lack the latest commands.
    pub fn query_local<R>(&self, read: impl FnOnce(&S) -> R) -> R {
        read(&self.replica.machine.read())
    }

    /// Waits until the command at `version` is applied here: what another member answered is then in the state.
    ///
    /// # Errors
    /// If the replica stops before.
    pub async fn await_applied(&self, version: Version) -> Result<(), Stopped> {
        self.reached(version.next()).await
    }

    /// Waits until so many entries are applied here.
    async fn reached(&self, wanted: Version) -> Result<(), Stopped> {
        let mut progress = self.handle.progress.clone();
        let reached = progress.wait_for(|p| p.applied >= wanted || p.stopped.is_some()).await;
        match reached {
            Ok(progress) if progress.applied >= wanted => Ok(()),
            Ok(progress) => Err(progress.stopped.clone().unwrap_or(Stopped::Closed)),
            Err(_) => Err(Stopped::Closed),
        }
    }

    /// The views that this member takes part in, from the present one on.
    #[must_use]
    pub fn views(&self) -> ViewEvents {
        self.replica.teller.subscribe()
    }
}

/// A place among those who wait for the reply of a command, left when it is dropped.
struct Awaited<'a, S: StateMachine> {
    replica: &'a Replica<S>,
    request: RequestId,
    receiver: oneshot::Receiver<Applied<S::Reply>>,
}

impl<'a, S: StateMachine> Awaited<'a, S> {
    fn register(replica: &'a Replica<S>, request: RequestId) -> Self {
        let (sender, receiver) = oneshot::channel();
        replica.waiting.lock().insert(request, sender);
        Self { replica, request, receiver }
    }
}

impl<S: StateMachine> Drop for Awaited<'_, S> {
    fn drop(&mut self) {
        self.replica.waiting.lock().remove(&self.request);
    }
}

/// Takes the node's answer.
struct Answer(Mutex<Option<oneshot::Sender<Result<Reply, Fault>>>>);

impl ReplySink for Answer {
    fn push(&self, _: CallId, answer: Result<Reply, Fault>) {
        if let Some(sender) = self.0.lock().take() {
            // Whoever waited may have gone.
            let _ = sender.send(answer);
        }
    }

    fn flush(&self) {}
}

/// What has become of a request so far.
struct Attempts {
    began: Instant,
    deadline: Instant,
    /// Whether an attempt may have had an effect without our learning of it.
    unknown: bool,
    last: Arc<Fault>,
    /// No attempt begins after this.
    begin_until: Instant,
}

impl Attempts {
    fn new(allowed: Duration) -> Self {
        let began = Instant::now();
        let last = Arc::new(Fault::Busy { reason: "no answer in time".into() });
        let deadline = began + allowed;
        let begin_until = deadline - LAST_ATTEMPT.min(allowed / 4);
        Self { began, deadline, unknown: false, last, begin_until }
    }

    fn after_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn over(&self) -> SendError {
        let (after_ms, last) = (self.after_ms(), Arc::clone(&self.last));
        match self.unknown {
            true => SendError::OutcomeUnknown { after_ms, last },
            false => SendError::NotApplied { after_ms, last },
        }
    }

    /// Waits a little before the next attempt; an error if there is none.
    async fn failed(&mut self, fault: Fault) -> Result<(), SendError> {
        self.unknown |= fault.executed() == Executed::Unknown;
        let again = fault.is_retryable() && Instant::now() + PAUSE < self.begin_until;
        self.last = Arc::new(fault);
        if !again {
            return Err(self.over());
        }
        sleep_until(Instant::now() + PAUSE).await;
        Ok(())
    }
}

fn random() -> u64 {
    getrandom::u64().expect("the operating system has random numbers")
}
