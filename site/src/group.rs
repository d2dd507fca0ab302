//! The group thread: a reactor that drives the core over the fabric, and parks when there is nothing to do.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::mem::Discriminant;
use std::sync::Arc;
use std::time::Duration;

use tradewind_client::wire::Fault;
use tradewind_gateway::{Completions, Horizon, ReplyTo};
use tradewind_ledger::{Hlc, Signer};
use tradewind_site_protocol::{Action, Barrier, NodeCore, NodeId, Now, ShardIndex, State, Ticket};
use tradewind_store_disk::{Due, Snapshotter};
use tradewind_transport::Identity;
use tradewind_transport::fabric::{self, Fabric, FabricEvent};

use crate::backend::fault_of;
use crate::bodies::{self, Bodies};
use crate::inbox::{Inbox, Passed, Read, Submitted};
use crate::lending::{Lender, Wanted};
use crate::log::{Done, Job, Log};
use crate::promise::PromiseFile;
use crate::publish::Publisher;
use crate::rewind;
use crate::rows::{Rows, now, on_fabric};
use crate::shared::{Shared, SharedStore};

/// The longest the thread parks without looking at its clock.
const PARK_MAX: Duration = Duration::from_secs(1);
/// How often the status is left for those who ask, at most.
const STATUS_PACE: Duration = Duration::from_millis(100);

/// The group thread's state.
pub(crate) struct Group {
    parts: Parts,
    waiting: HashMap<Ticket, ReplyTo, BuildHasherDefault<TicketHasher>>,
    next_ticket: u64,
    /// By shard: the reads that wait for a barrier, in its order.
    reads: Vec<VecDeque<(Barrier, Passed)>>,
    started: std::time::Instant,
    /// Whether something happened since the status was left, and when and in which state that was.
    status_stale: bool,
    status_at: std::time::Instant,
    status_state: Discriminant<State>,
    /// Peers in the fabric's own type, to spare an allocation a publish.
    peers: Vec<fabric::NodeId>,
}

/// The parts that the thread works with.
pub(crate) struct Parts {
    pub(crate) core: NodeCore<SharedStore>,
    pub(crate) fabric: Box<dyn Fabric>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) log: Log,
    pub(crate) bodies: Bodies,
    pub(crate) publisher: Publisher,
    pub(crate) snapshots: Snapshotter,
    pub(crate) lender: Lender,
    pub(crate) shared: Arc<Shared>,
    pub(crate) signer: NodeSigner,
    pub(crate) promises: PromiseFile,
}

/// Why the node ended by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It is to be started again, in a fresh process: it goes on from there by itself.
    Restart(String),
    /// It cannot go on.
    Failed(String),
}

impl From<String> for Ended {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

/// Signs checkpoints with the node's key.
pub(crate) struct NodeSigner(pub(crate) Arc<Identity>);

impl Signer for NodeSigner {
    fn public_key(&self) -> [u8; 32] {
        *self.0.public_key().as_bytes()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message)
    }
}

/// Spreads tickets, which are counted here: nobody can choose them.
#[derive(Default)]
struct TicketHasher(u64);

impl Hasher for TicketHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("tickets are numbers");
    }

    fn write_u64(&mut self, ticket: u64) {
        self.0 = ticket.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Group {
    pub(crate) fn new(parts: Parts, started: std::time::Instant) -> Self {
        let status_state = std::mem::discriminant(&parts.core.state());
        let reads = parts.shared.replicas.iter().map(|_| VecDeque::new()).collect();
        Self {
            parts,
            reads,
            waiting: HashMap::default(),
            next_ticket: 0,
            started,
            status_stale: true,
            status_at: started,
            status_state,
            peers: Vec::new(),
        }
    }

    /// Runs until it is told to stop, or the node cannot go on; gives the reason in the second case.
    pub(crate) fn run(mut self) -> Result<(), Ended> {
        let mut events = Vec::new();
        let mut timeout = Duration::ZERO;
        let outcome = loop {
            self.parts.fabric.poll(Some(timeout), &mut events);
            let now = now(self.started);
            for event in events.drain(..) {
                self.handle_event(now, event);
            }
            match self.turn(now) {
                Ok(true) => timeout = self.park(now),
                Ok(false) => break Ok(()),
                Err(reason) => break Err(reason),
            }
        };
        match &outcome {
            Ok(()) => {}
            Err(Ended::Failed(reason)) => tracing::error!(%reason, "the node cannot go on"),
            Err(Ended::Restart(reason)) => tracing::warn!(%reason, "the node begins anew"),
        }
        // Those who wait learn that the outcome is not known: their `ReplyTo`s are dropped.
        drop((self.waiting, self.reads));
        self.parts.log.stop();
        self.parts.bodies.stop();
        self.parts.snapshots.stop();
        self.parts.lender.stop();
        self.parts.publisher.stop();
        outcome
    }

    fn handle_event(&mut self, now: Now, event: FabricEvent) {
        let core = &mut self.parts.core;
        match event {
            FabricEvent::Connected { peer, incarnation } => {
                tracing::info!(%peer, incarnation, "connected");
                core.handle_connected(now, NodeId(peer.0));
            }
            FabricEvent::Lost { peer, reason } => {
                tracing::warn!(%peer, %reason, "lost");
                core.handle_lost(now, NodeId(peer.0));
            }
            FabricEvent::Unreachable { peer, reason } => {
                tracing::warn!(%peer, %reason, "unreachable");
            }
            FabricEvent::Message { peer, bytes } => {
                core.handle_message(now, NodeId(peer.0), &bytes);
            }
            FabricEvent::RowChanged { .. } | FabricEvent::Woken => return,
        }
        self.status_stale = true;
    }

    /// One turn: takes in what waits, lets the core work, does what it asks. `false`: stop was asked for.
    fn turn(&mut self, now: Now) -> Result<bool, Ended> {
        let taken = self.parts.inbox.take();
        for done in taken.done {
            self.handle_done(now, done)?;
        }
        for submitted in taken.submissions {
            self.submit(submitted);
        }
        for read in taken.reads {
            self.read(read);
        }
        self.act_all(now)?;
        let Parts { core, fabric, .. } = &mut self.parts;
        core.handle_rows(now, &mut Rows { fabric: &mut **fabric, peers: &mut self.peers });
        self.act_all(now)?;
        self.parts.fabric.flush();
        self.leave_status();
        Ok(!taken.stop)
    }

    fn act_all(&mut self, now: Now) -> Result<(), Ended> {
        while let Some(action) = self.parts.core.poll_action() {
            self.status_stale = true;
            self.act(now, action)?;
        }
        Ok(())
    }

    fn submit(&mut self, submitted: Submitted) {
        let Submitted { shard, mut submission, reply } = submitted;
        submission.ticket = Ticket(self.next_ticket);
        let ticket = submission.ticket;
        match self.parts.core.handle_submit(shard, submission) {
            Ok(()) => {
                self.next_ticket += 1;
                self.waiting.insert(ticket, reply);
            }
            Err(refused) => {
                let ledger = &self.parts.shared.replica(shard).ledger;
                reply.send(Err(fault_of(refused, ledger)));
            }
        }
    }

    fn read(&mut self, Read { shard, passed }: Read) {
        match self.parts.core.handle_read(shard) {
            Ok(barrier) => self.reads[shard.index()].push_back((barrier, passed)),
            Err(refused) => {
                let ledger = &self.parts.shared.replica(shard).ledger;
                // Whoever waited may have gone; so below.
                let _ = passed.send(Err(fault_of(refused, ledger)));
            }
        }
    }

    fn handle_done(&mut self, now: Now, done: Done) -> Result<(), Ended> {
        let core = &mut self.parts.core;
        match done {
            Done::Durable { shard, version } => {
                core.handle_durable(now, shard, version);
                self.parts.shared.replica(shard).own_disk.grow(version);
            }
            Done::Staged { shard, body, staged } => {
                core.handle_staged(now, shard, body, staged);
            }
            Done::LogRead { reader, first, root_before, entries } => {
                core.handle_log_read(reader, first, root_before, entries);
            }
            Done::ValueRead { reader, digest, offset, bytes } => {
                core.handle_value_read(reader, digest, offset, bytes);
            }
            Done::Roots { reader, roots } => core.handle_roots(now, reader, roots),
            Done::LogPruned { reader } => core.handle_log_pruned(reader),
            Done::PartRead { reader, size, part, piece } => {
                core.handle_part_read(reader, size, part, piece);
            }
            Done::Taken { shard, manifest, held } => {
                let ledger = &self.parts.shared.replica(shard).ledger;
                let (size, chunks) = (manifest.base.size(), manifest.chunks.len());
                tracing::info!(%ledger, %size, chunks, ?held, "taking a snapshot");
                core.handle_taken(now, shard, manifest, held);
            }
            Done::PartKept { shard, size, part, missing } => {
                core.handle_part_kept(now, shard, (size, part), missing);
            }
            Done::ValueKept { shard, size, value } => {
                core.handle_value_kept(now, shard, size, value);
            }
            Done::Planted { shard } => {
                let ledger = &self.parts.shared.replica(shard).ledger;
                return Err(Ended::Restart(format!(
                    "{ledger} begins with a snapshot of the others"
                )));
            }
            Done::SnapshotMade { shard, record } => core.handle_snapshot_made(now, shard, record),
            Done::Failed(reason) => return Err(Ended::Failed(reason)),
        }
        self.status_stale = true;
        Ok(())
    }

    fn act(&mut self, now: Now, action: Action) -> Result<(), Ended> {
        let Parts {
            core, fabric, log, lender, publisher, shared, signer, promises, snapshots, ..
        } = &mut self.parts;
        match action {
            Action::Prepare { view, members, row_len } => {
                let members: Vec<_> = members.into_iter().map(on_fabric).collect();
                fabric.prepare(view.0, &members, row_len).map_err(|error| error.to_string())?;
            }
            Action::Send { to, message } => {
                if !fabric.send(on_fabric(to), &message) {
                    fabric.disconnect(on_fabric(to), "its control lane is full");
                    core.handle_lost(now, to);
                }
            }
            Action::Disconnect { peer, reason } => {
                tracing::warn!(%peer, %reason, "disconnecting");
                fabric.disconnect(on_fabric(peer), &reason.to_string());
            }
            Action::Append { shard, entries, leaves, values, bodies, .. } => {
                log.push(Job::Append { shard, entries, leaves, values, bodies });
            }
            Action::Stage { shard, body, bytes, last, check } => {
                self.parts.bodies.push(bodies::Job::Stage { shard, body, bytes, last, check });
            }
            Action::Unstage { shard, body } => {
                self.parts.bodies.push(bodies::Job::Unstage { shard, body });
            }
            Action::Snapshot { shard, pin, base } => {
                let source = shared.place(shard);
                snapshots.push(Due { source, pin: *pin, base });
            }
            Action::ReadPart { reader, size, entry, part, offset, max_bytes } => {
                lender.push(reader, Wanted::Part { size, entry, part, offset, max_bytes });
            }
            Action::Take { shard, manifest } => log.push(Job::Take { shard, manifest }),
            Action::KeepPart { shard, size, part, bytes } => {
                log.push(Job::KeepPart { shard, size, part, bytes });
            }
            Action::KeepValue { shard, size, len, digest, bytes } => {
                log.push(Job::KeepValue { shard, size, value: (len, digest), bytes });
            }
            Action::Agreed { shard, size, at } => {
                snapshots.agreed(shared.place(shard), size, at);
            }
            Action::Plant { shard, size } => log.push(Job::Plant { shard, size }),
            Action::ReadLog { reader, first, end, max_bytes } => {
                lender.push(reader, Wanted::Log { first, end, max_bytes });
            }
            Action::ReadValue { reader, digest, offset, max_bytes } => {
                lender.push(reader, Wanted::Value { digest, offset, max_bytes });
            }
            Action::Promise(promise) => {
                // Rare, and nothing else can go on before it: written right here.
                promises.write(&promise).map_err(|error| format!("the promise: {error}"))?;
                core.handle_promised(now, promise.view);
            }
            Action::Remember(peers) => publisher.remember(peers),
            Action::ReadRoots { reader, sizes } => lender.push(reader, Wanted::Roots { sizes }),
            Action::Rewind { shard, to, dropped } => {
                let replica = shared.replica(shard);
                rewind::ask(&replica.directory, to).map_err(|error| format!("rewind: {error}"))?;
                return Err(Ended::Restart(format!(
                    "{} ends with {dropped} unacknowledged entries that a majority went on without: they are cut off",
                    replica.ledger
                )));
            }
            Action::Unknown(tickets) => {
                // Those who wait learn that the outcome is not known.
                tickets.iter().for_each(|ticket| drop(self.waiting.remove(ticket)));
            }
            Action::Sign { shard, checkpoint } => {
                let signature = signer.sign(checkpoint.to_string().as_bytes());
                core.handle_signature(shard, checkpoint.size, signature);
            }
            Action::Answers(answers) => {
                let mut completions = Completions::default();
                for answer in answers {
                    let to = self.waiting.remove(&answer.ticket).expect("one answer a ticket");
                    completions.push(to, Ok(answer.reply));
                }
            }
            Action::Committed { shard, version } => {
                // Times of later entries are later than that of the last one here: nothing better is known.
                let horizon = Horizon { readable: version, covered: Hlc(0) };
                shared.replica(shard).horizon.send_replace(horizon);
            }
            Action::BarrierPassed { shard, barrier } => {
                let waiting = &mut self.reads[shard.index()];
                while let Some((_, passed)) = waiting.pop_front_if(|(of, _)| *of <= barrier) {
                    let _ = passed.send(Ok(()));
                }
            }
            Action::Checkpoint { shard, note, .. } => {
                shared.replica(shard).head.send_replace(Some(Arc::new(note.clone())));
                publisher.push(shard, note);
            }
            Action::Stopped { view, why } => {
                tracing::info!(%view, ?why, "view stopped");
                shared.changes.stopped(&why);
                for (_, passed) in self.reads.iter_mut().flat_map(|reads| reads.drain(..)) {
                    let reason = format!("view {view} stopped before the read was certain");
                    let _ = passed.send(Err(Fault::Unavailable { reason }));
                }
            }
            Action::Installed { view, members } => {
                tracing::info!(%view, ?members, "view installed");
                shared.changes.installed(view);
                shared.views.install(view, &members);
            }
            Action::SnapshotsDiffer { shard, peer, differ } => {
                let (ledger, size) = (&shared.replica(shard).ledger, differ.size);
                tracing::error!(%ledger, %size, here = %differ.root, there = %differ.agreed, %peer,
                    "two nodes made different snapshots of the same entries: one of them computed wrongly, and ends once a majority agrees against it");
            }
            Action::Failed(fatal) => return Err(Ended::Failed(fatal.to_string())),
        }
        Ok(())
    }

    /// Leaves the status for those who ask: at once when the state changed, otherwise now and then.
    fn leave_status(&mut self) {
        let state = std::mem::discriminant(&self.parts.core.state());
        let due = self.status_stale && self.status_at.elapsed() >= STATUS_PACE;
        if due || state != self.status_state {
            self.parts.shared.set_status(self.parts.core.status());
            self.status_stale = false;
            self.status_at = std::time::Instant::now();
            self.status_state = state;
        }
    }

    /// How long to park if nothing happens.
    fn park(&self, now: Now) -> Duration {
        let timer = self.parts.core.poll_timeout();
        let timer = timer.map(|at| Duration::from_micros(at.since(now.instant)));
        let status =
            self.status_stale.then(|| STATUS_PACE.saturating_sub(self.status_at.elapsed()));
        timer.into_iter().chain(status).min().unwrap_or(PARK_MAX).min(PARK_MAX)
    }
}

/// The fault for a request that came while the node ends.
pub(crate) fn ending() -> Fault {
    Fault::Unavailable { reason: "the node is shutting down".into() }
}

/// The place of a shard among the site's.
pub(crate) fn index(place: usize) -> ShardIndex {
    ShardIndex(u16::try_from(place).expect("the core checked the number of shards"))
}
