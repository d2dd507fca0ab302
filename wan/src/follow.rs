//! Keeps ledgers up to date from the best parent there is: the follower's shell.
//!
//! One thread owns the core, because admitting a batch is work for a processor, not for a task:
//! every entry is decoded and hashed. Connections are tasks; they hand over by a bounded queue. What
//! is to be made durable goes to a [`Sink`], which answers through a [`DurableNotice`]; both ways
//! hold no more than the window of bytes that the parent was granted.

use std::{
    collections::HashMap, fmt, sync::Arc, thread::JoinHandle, time::Instant as SystemInstant,
};

use quinn::Endpoint;
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};
use tradewind_ledger::ids::{Digest, Hlc, LedgerId, Version};
use tradewind_transport::{quic::Tuning, tls::Credentials};
use tradewind_wan_protocol::wire::{Bulk, ChildMessage};
use tradewind_wan_protocol::{
    Admitted, Evidence, FollowAction, FollowEvent, FollowStatus, Follower, FollowerConfig, Head,
    Instant, LedgerConfig, Local, SessionId, Timing,
};

use crate::{
    clock::Clock,
    lend::Lender,
    link::{Dialer, Input},
    mirrors::Mirrors,
    route::Candidate,
};

/// Inputs from connections that may wait for the follower.
const INPUTS: usize = 16;
/// Messages to a parent that may wait.
const OUTBOX: usize = 256;
/// Bounds of the window of granted bytes; in between, it is twice what is on its way on a full link.
const WINDOW_BYTES_MIN: u64 = 8 << 20;
const WINDOW_BYTES_MAX: u64 = 64 << 20;

/// Where verified entries go. Calls come from the follower's thread, in order; they may wait.
pub trait Sink: Local + Send + Sync + 'static {
    /// Called once before all others: through `notice` the sink answers what it is told to commit.
    fn attach(&self, notice: DurableNotice);
    /// Stores a detached value; it must be there before what is committed after it is durable.
    /// [`DurableNotice::stored`] tells when.
    fn store_value(&self, ledger: &LedgerId, digest: Digest, bytes: Vec<u8>);
    /// Makes entries durable, then applies and shows them; [`DurableNotice::durable`] tells when.
    fn commit(&self, admitted: Box<Admitted>);
    /// All of the ledger that was found on disk at the start is signed for: it may be shown.
    fn confirm(&self, ledger: &LedgerId, head: Head);
    /// All parents have pruned what comes next: takes a snapshot of this one. [`DurableNotice::not_taken`] tells if that fails;
    /// otherwise the process begins anew. Must not wait.
    fn take_snapshot(&self, ledger: &LedgerId, lender: Lender);
    /// What is durable was all that the home site had committed at that moment.
    fn fresh(&self, ledger: &LedgerId, as_of: SystemInstant);
    /// Keeps evidence of a fork. The ledger is halted.
    fn evidence(&self, evidence: &Evidence);
    /// The path from this mirror to a site on this route changed; `None`: it is cut off.
    fn path(&self, path: Option<Vec<String>>);
    /// The follower's thread panicked: nothing is followed any more, and the process should end.
    fn panicked(&self);
}

/// What to follow, and from where.
#[derive(Debug)]
pub struct FollowConfig {
    /// The deployment's name.
    pub deployment: String,
    /// The processes to be fed from, most preferred first.
    pub candidates: Vec<Candidate>,
    /// What to follow.
    pub ledgers: Vec<LedgerConfig>,
    /// Proves who this process is.
    pub credentials: Credentials,
    /// Dials.
    pub endpoint: Endpoint,
    /// How connections are tuned; the window is made from its link.
    pub tuning: Tuning,
    /// The deadlines.
    pub timing: Timing,
    /// What mirrors below this one report goes up with the own frontiers.
    pub mirrors: Mirrors,
}

/// Things that happen beside connections.
enum Order {
    Durable(LedgerId, Version, Hlc),
    Stored(LedgerId, Digest),
    NotTaken(LedgerId),
    Stop,
}

/// A follower at work; it stops when this is dropped.
pub struct Following {
    orders: mpsc::UnboundedSender<Order>,
    status: watch::Receiver<FollowStatus>,
    thread: Option<JoinHandle<()>>,
}

/// Tells a follower what became durable; for the thread that makes it so.
#[derive(Clone)]
pub struct DurableNotice(mpsc::UnboundedSender<Order>);

impl DurableNotice {
    /// Entries became durable up to `size`; `hlc` is the time of the last of them.
    pub fn durable(&self, ledger: &LedgerId, size: Version, hlc: Hlc) {
        // After the end nobody needs to know.
        _ = self.0.send(Order::Durable(ledger.clone(), size, hlc));
    }

    /// A detached value takes no more memory here: it is stored.
    pub fn stored(&self, ledger: &LedgerId, digest: Digest) {
        _ = self.0.send(Order::Stored(ledger.clone(), digest));
    }

    /// No snapshot was taken.
    pub fn not_taken(&self, ledger: &LedgerId) {
        _ = self.0.send(Order::NotTaken(ledger.clone()));
    }
}

impl fmt::Debug for DurableNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DurableNotice")
    }
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Following({:?})", self.status.borrow().parent)
    }
}

impl Following {
    /// How it stands; renewed at every event.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<FollowStatus> {
        self.status.clone()
    }

    /// Ends it and waits for its thread: afterwards the sink is not called any more.
    pub fn stop(&mut self) {
        _ = self.orders.send(Order::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the follower's thread panicked");
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Follows the ledgers from the best of the candidates, within the current tokio runtime.
///
/// `sink` is called from a thread of its own, and must not wait for [`Following`] to end.
///
/// # Panics
/// Outside of a tokio runtime, without candidates, and if no thread can be started.
#[must_use]
pub fn follow(config: FollowConfig, sink: Arc<dyn Sink>) -> Following {
    let (orders, incoming_orders) = mpsc::unbounded_channel();
    let (inputs, incoming) = mpsc::channel(INPUTS);
    sink.attach(DurableNotice(orders.clone()));
    let clock = Clock::start();
    let core = FollowerConfig {
        deployment: config.deployment,
        name: config.credentials.own().name.clone(),
        parents: config.candidates.iter().map(|candidate| candidate.name.clone()).collect(),
        window_bytes: window_bytes(&config.tuning),
        timing: config.timing,
    };
    let ledgers = config.ledgers.iter().map(|ledger| ledger.genesis.ledger.clone()).collect();
    let core = Follower::new(core, config.ledgers, clock.now());
    let (status, status_receiver) = watch::channel(core.status());
    let dialer = Dialer {
        endpoint: config.endpoint,
        credentials: config.credentials,
        tuning: config.tuning,
        inputs,
    };
    let shell = Shell {
        core,
        clock,
        sink,
        status,
        dialer,
        candidates: config.candidates,
        ledgers,
        sessions: HashMap::new(),
        runtime: Handle::current(),
        mirrors: config.mirrors,
        reported: 0,
    };
    let thread = std::thread::Builder::new().name("follow".into());
    let thread = thread
        .spawn(move || {
            let _watch = Watch(Arc::clone(&shell.sink));
            shell.run(incoming, incoming_orders);
        })
        .expect("a thread can be started");
    Following { orders, status: status_receiver, thread: Some(thread) }
}

fn window_bytes(tuning: &Tuning) -> u64 {
    let link = tuning.link;
    let product = u64::from(link.bandwidth_mbps) * 125 * u64::from(link.rtt_ms);
    (2 * product).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX)
}

/// Tells the sink when the thread ends by a panic.
struct Watch(Arc<dyn Sink>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.panicked();
        }
    }
}

struct Shell {
    core: Follower,
    clock: Clock,
    sink: Arc<dyn Sink>,
    status: watch::Sender<FollowStatus>,
    dialer: Dialer,
    candidates: Vec<Candidate>,
    ledgers: Vec<LedgerId>,
    sessions: HashMap<SessionId, mpsc::Sender<ChildMessage>>,
    runtime: Handle,
    mirrors: Mirrors,
    /// Change of the table of mirrors that was taken up last.
    reported: u64,
}

/// What wakes the follower.
enum Wake {
    Input(Input),
    Order(Order),
    Reports,
    Time,
}

impl Shell {
    fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        mut orders: mpsc::UnboundedReceiver<Order>,
    ) {
        let mut changes = self.mirrors.changes();
        changes.mark_changed();
        let runtime = self.runtime.clone();
        loop {
            self.act();
            let due = self.clock.system(self.core.poll_timeout());
            let wake = runtime.block_on(async {
                tokio::select! {
                    biased;
                    Some(order) = orders.recv() => Wake::Order(order),
                    Some(input) = inputs.recv() => Wake::Input(input),
                    Ok(()) = changes.changed() => Wake::Reports,
                    () = tokio::time::sleep_until(due) => Wake::Time,
                }
            });
            let now = self.clock.now();
            match wake {
                Wake::Order(Order::Stop) => return,
                Wake::Order(order) => self.order(now, order),
                Wake::Input(input) => self.input(now, input),
                Wake::Reports => {
                    let upto = *changes.borrow_and_update();
                    let ledgers = &self.ledgers;
                    let reports = self.mirrors.since(self.reported, |id| ledgers.contains(id));
                    self.reported = upto;
                    self.core.handle_reports(now, reports);
                }
                Wake::Time => {}
            }
            if now >= self.core.poll_timeout() {
                self.core.handle_tick(now);
            }
        }
    }

    fn order(&mut self, now: Instant, order: Order) {
        match order {
            Order::Durable(ledger, size, hlc) => {
                self.core.handle_durable(now, &ledger, size, hlc);
            }
            Order::Stored(ledger, digest) => self.core.handle_stored(&ledger, digest),
            Order::NotTaken(ledger) => self.core.handle_not_taken(&ledger),
            Order::Stop => {}
        }
    }

    fn input(&mut self, now: Instant, input: Input) {
        let local: &dyn Local = &*self.sink;
        match input {
            Input::Connected(session) => self.core.handle_connected(now, session),
            Input::Closed(session, reason) => {
                self.sessions.remove(&session);
                self.core.handle_closed(now, session, &reason);
            }
            Input::Message(session, message) => {
                self.core.handle_message(now, local, session, message);
            }
            Input::Bulk(session, Bulk::Batch(batch), _room) => {
                self.core.handle_batch(now, local, session, batch);
            }
            Input::Bulk(session, Bulk::Value(value), _room) => {
                self.core.handle_value(now, session, value);
            }
            Input::Progress(session) => self.core.handle_progress(now, session),
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.core.poll_action() {
            match action {
                FollowAction::Dial { session, parent } => {
                    let (sender, outgoing) = mpsc::channel(OUTBOX);
                    self.sessions.insert(session, sender);
                    let parent = self.candidates[parent].clone();
                    self.runtime.spawn(self.dialer.clone().run(session, parent, outgoing));
                }
                FollowAction::Send { session, message } => {
                    let full = self
                        .sessions
                        .get(&session)
                        .is_some_and(|outbox| outbox.try_send(message).is_err());
                    if full {
                        // Its end comes as an input.
                        self.sessions.remove(&session);
                    }
                }
                FollowAction::Close { session, reason } => {
                    if let Some(outbox) = self.sessions.remove(&session) {
                        let bye = tradewind_wan_protocol::wire::Bye { reason };
                        _ = outbox.try_send(ChildMessage::Bye(bye));
                    }
                }
                FollowAction::StoreValue { ledger, digest, bytes } => {
                    self.sink.store_value(&ledger, digest, bytes);
                }
                FollowAction::Commit(admitted) => self.sink.commit(admitted),
                FollowAction::Confirm { ledger, head } => self.sink.confirm(&ledger, head),
                FollowAction::TakeSnapshot { ledger, parent } => {
                    let parent = self.candidates[parent].clone();
                    let lender = Lender::new(self.dialer.clone(), parent, ledger.clone());
                    self.sink.take_snapshot(&ledger, lender);
                }
                FollowAction::Fresh { ledger, as_of } => {
                    self.sink.fresh(&ledger, self.clock.past(as_of));
                }
                FollowAction::Evidence(evidence) => self.sink.evidence(&evidence),
                FollowAction::Path(path) => self.sink.path(path),
                FollowAction::Event(event) => log(&self.dialer.credentials.own().name, &event),
            }
        }
        self.status.send_replace(self.core.status());
    }
}

fn log(mirror: &str, event: &FollowEvent) {
    match event {
        FollowEvent::Following { .. } => tracing::info!(mirror, "{event}"),
        FollowEvent::Left { .. } | FollowEvent::Refused { .. } => tracing::warn!(mirror, "{event}"),
        FollowEvent::Halted { .. } => tracing::error!(mirror, "{event}"),
    }
}
