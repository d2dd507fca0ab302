//! The group thread: a reactor that drives the core over the fabric, and parks when there is nothing to do.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tradewind_ledger::note::SignedNote;
use tradewind_site_protocol::{
    Action, Answer, Instant, Memory, NodeCore, NodeId, Now, Refused, Rejected, ShardIndex, Ticket,
};
use tradewind_store::Reply;
use tradewind_transport::fabric::{self, Fabric, FabricEvent};

use crate::backend::Completion;
use crate::inbox::{Inbox, Submitted};
use crate::log::{Done, Job, Log};
use crate::publish::Publisher;
use crate::shared::{Shared, SharedStore};
use tradewind_transport::Identity;

/// The longest the thread parks without looking at its clock.
const PARK_MAX: Duration = Duration::from_secs(1);

/// What became of a submission.
pub(crate) type Outcome = Result<Reply, Failure>;

/// Why a submission has no reply.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Not accepted: definitely not executed.
    #[error("{0}")]
    Refused(#[from] Refused),
    /// Ordered, and refused alike by every replica.
    #[error("{0}")]
    Rejected(#[from] Rejected),
}

/// Everything the thread owns.
pub(crate) struct Group {
    core: NodeCore<SharedStore>,
    fabric: Box<dyn Fabric>,
    inbox: Arc<Inbox>,
    log: Log,
    publisher: Publisher,
    shared: Arc<Shared>,
    identity: Arc<Identity>,
    waiting: HashMap<Ticket, Completion>,
    next_ticket: u64,
    epoch: std::time::Instant,
}

/// The parts that the thread is made from.
pub(crate) struct Parts {
    pub(crate) core: NodeCore<SharedStore>,
    pub(crate) fabric: Box<dyn Fabric>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) log: Log,
    pub(crate) publisher: Publisher,
    pub(crate) shared: Arc<Shared>,
    pub(crate) identity: Arc<Identity>,
}

/// The part of the fabric that the core may touch.
struct Rows<'a>(&'a mut dyn Fabric);

impl Memory for Rows<'_> {
    fn store(&mut self, offset: usize, bytes: &[u8]) {
        self.0.store(offset, bytes);
    }

    fn publish(&mut self, range: std::ops::Range<usize>, peers: &[NodeId]) {
        self.0.publish(range, peers);
    }

    fn load(&self, peer: NodeId, offset: usize) -> u64 {
        self.0.load(peer, offset)
    }

    fn copy(&self, peer: NodeId, offset: usize, out: &mut [u8]) {
        self.0.copy(peer, offset, out);
    }
}

impl Group {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { core, fabric, inbox, log, publisher, shared, identity } = parts;
        Self {
            core,
            fabric,
            inbox,
            log,
            publisher,
            shared,
            identity,
            waiting: HashMap::new(),
            next_ticket: 0,
            epoch: std::time::Instant::now(),
        }
    }

    /// Runs until it is told to stop, or the node cannot go on; gives the reason in the second case.
    pub(crate) fn run(mut self) -> Result<(), String> {
        let mut events = Vec::new();
        let mut timeout = Some(Duration::ZERO);
        let outcome = loop {
            self.fabric.poll(timeout, &mut events);
            let now = self.now();
            for event in events.drain(..) {
                self.handle_event(now, event);
            }
            match self.turn(now) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(reason) => break Err(reason),
            }
            self.fabric.flush();
            timeout = Some(self.park(now));
        };
        for completion in self.waiting.into_values() {
            completion.finish(Err(Failure::Refused(Refused::Unavailable { waiting_for: Vec::new() })));
        }
        self.log.stop();
        self.publisher.stop();
        outcome
    }

    fn now(&self) -> Now {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Now {
            instant: Instant(micros(self.epoch.elapsed())),
            // A clock before 1970 only makes stamps small; entry times still grow.
            wall_us: micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
        }
    }
}

impl Group {
    fn handle_event(&mut self, now: Now, event: FabricEvent) {
        match event {
            FabricEvent::Connected { peer, incarnation } => {
                tracing::info!(%peer, incarnation, "connected");
                self.core.handle_connected(now, NodeId(peer.0), Incarnation(incarnation));
            }
            FabricEvent::Lost { peer, reason } => {
                tracing::warn!(%peer, %reason, "lost");
                self.core.handle_lost(now, NodeId(peer.0));
            }
            FabricEvent::Unreachable { peer, reason } => tracing::warn!(%peer, %reason, "unreachable"),
            FabricEvent::Message { peer, bytes } => {
                self.core.handle_message(now, NodeId(peer.0), &bytes);
            }
            FabricEvent::RowChanged { .. } | FabricEvent::Woken => {}
        }
    }

    /// One turn: takes in what waits, lets the core work, does what it asks. `false`: stop was asked for.
    fn turn(&mut self, now: Now) -> Result<bool, String> {
        let taken = self.inbox.take(!self.log.is_full());
        for done in taken.done {
            self.handle_done(now, done)?;
        }
        for submitted in taken.submissions {
            self.submit(now, submitted);
        }
        // With a full log nothing is received, so nothing becomes stable anywhere: the shard goes at this disk's pace.
        if !self.log.is_full() {
            self.core.handle_rows(now, &mut Rows(&mut *self.fabric));
        }
        self.core.handle_tick(now, &mut Rows(&mut *self.fabric));
        while let Some(action) = self.core.poll_action() {
            self.act(now, action)?;
        }
        for question in taken.questions {
            // Whoever asked may have gone.
            let _ = question.send(self.core.status());
        }
        Ok(!taken.stop)
    }

    fn submit(&mut self, now: Now, submitted: Submitted) {
        let Submitted { shard, mut submission, reply } = submitted;
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        submission.ticket = ticket;
        match self.core.handle_submit(now, shard, submission) {
            Ok(()) => {
                self.waiting.insert(ticket, reply);
            }
            Err(refused) => reply.finish(Err(refused.into())),
        }
    }

    fn handle_done(&mut self, now: Now, done: Done) -> Result<(), String> {
        match done {
            Done::Durable { shard, version } => self.core.handle_durable(now, shard, version),
            Done::LogRead { reader, first, root_before, entries } => {
                self.core.handle_log_read(now, reader, first, root_before, entries);
            }
            Done::ValueRead { reader, digest, offset, len, bytes } => {
                self.core.handle_value_read(now, reader, digest, offset, len, bytes);
            }
            Done::Failed(reason) => return Err(format!("the disk: {reason}")),
        }
        Ok(())
    }
}
