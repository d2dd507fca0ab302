//! One member's thread: the shell of a real core, without a disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use tradewind_ledger::{RequestId, RequestNumber, SessionId, Version};
use tradewind_site::{Rows, now};
use tradewind_site_protocol::{
    Action, BULK_ABOVE, NodeId, Now, Refused, ShardIndex, Staged, State, Submission, Ticket,
};
use tradewind_store::{Command, Condition, Durability};
use tradewind_transport::fabric::{self, Counters, FabricEvent};

use super::group::Parts;

/// The longest a thread parks without a look at the phase.
const PARK_MAX: Duration = Duration::from_millis(200);
const SHARD: ShardIndex = ShardIndex(0);
/// A message that takes longer is counted with this time.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// What members do after they have warmed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    Measure = 1,
    Stop = 2,
}

/// Shared by the members and whoever runs them.
#[derive(Debug, Default)]
pub(super) struct Stage {
    phase: AtomicU8,
    /// Members in whose view the group runs.
    active: AtomicUsize,
}

impl Stage {
    pub(super) fn set(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    pub(super) fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    fn is(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Acquire) == phase as u8
    }
}

/// What a member sends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Bytes of a message.
    pub(super) size: usize,
    /// Messages sent and not yet delivered; none of those who only listen.
    pub(super) inflight: usize,
}

/// What a member has seen while it was measured.
pub(super) struct Seen {
    /// From handing a message to the core until it was delivered in order, held by all.
    pub(super) latency_ns: Histogram<u64>,
    pub(super) publishes: u64,
    pub(super) bells_rung: u64,
}

/// A running member.
pub(super) struct Member {
    parts: Parts,
    load: Load,
    stage: Arc<Stage>,
    started: Instant,
    /// Tickets are numbers of messages; answers come in their order.
    sent: u64,
    waiting: VecDeque<Instant>,
    /// What was counted when the measured time began, and latencies since.
    since: Option<Counters>,
    latency_ns: Histogram<u64>,
    peers: Vec<fabric::NodeId>,
    active: bool,
}

impl Member {
    pub(super) fn new(parts: Parts, load: Load, stage: Arc<Stage>, started: Instant) -> Self {
        let latency_ns = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("valid bounds");
        Self {
            parts,
            load,
            stage,
            started,
            sent: 0,
            waiting: VecDeque::new(),
            since: None,
            latency_ns,
            peers: Vec::new(),
            active: false,
        }
    }

    /// Takes part until told to stop.
    ///
    /// # Errors
    /// When the group breaks: nothing was measured then.
    pub(super) fn run(mut self) -> anyhow::Result<Seen> {
        let mut events = Vec::new();
        let mut timeout = Duration::ZERO;
        loop {
            self.parts.fabric.poll(Some(timeout), &mut events);
            if self.stage.is(Phase::Stop) {
                // Others may have left already: what is lost now does not count.
                break;
            }
            let now = now(self.started);
            for event in events.drain(..) {
                self.handle_event(now, event)?;
            }
            if self.since.is_none() && self.stage.is(Phase::Measure) {
                self.since = Some(self.parts.fabric.counters());
            }
            self.submit()?;
            let Parts { core, fabric, .. } = &mut self.parts;
            core.handle_rows(now, &mut Rows { fabric: &mut **fabric, peers: &mut self.peers });
            self.act_all(now)?;
            self.parts.fabric.flush();
            let timer = self.parts.core.poll_timeout();
            let timer = timer.map(|at| Duration::from_micros(at.since(now.instant)));
            // Answers may have made room in the window: there is something to send at once.
            let room = self.active && self.waiting.len() < self.load.inflight;
            timeout = if room { Duration::ZERO } else { timer.unwrap_or(PARK_MAX).min(PARK_MAX) };
        }
        let before = self.since.context("stopped before it was measured")?;
        let after = self.parts.fabric.counters();
        Ok(Seen {
            latency_ns: self.latency_ns,
            publishes: after.publishes - before.publishes,
            bells_rung: after.bells_rung - before.bells_rung,
        })
    }

    fn handle_event(&mut self, now: Now, event: FabricEvent) -> anyhow::Result<()> {
        let core = &mut self.parts.core;
        match event {
            FabricEvent::Connected { peer, .. } => core.handle_connected(now, NodeId(peer.0)),
            FabricEvent::Lost { peer, reason } if self.stage.is(Phase::Measure) => {
                bail!("{peer} was lost while it was measured: {reason}");
            }
            FabricEvent::Lost { peer, .. } => core.handle_lost(now, NodeId(peer.0)),
            FabricEvent::Message { peer, bytes } => {
                core.handle_message(now, NodeId(peer.0), &bytes);
            }
            _ => {}
        }
        self.act_all(now)
    }

    /// Keeps the window full. A message is a write whose condition never holds: it goes the whole way of
    /// any other, and leaves nothing behind, so what is measured is the multicast and not the store.
    fn submit(&mut self) -> anyhow::Result<()> {
        if !self.active {
            self.active = matches!(self.parts.core.state(), State::Active);
            self.stage.active.fetch_add(usize::from(self.active), Ordering::AcqRel);
        }
        while self.active && self.waiting.len() < self.load.inflight {
            let command = Command::Put {
                key: b"multicast".to_vec(),
                value: vec![0x5a; self.load.size],
                condition: Condition::Version(Version(u64::MAX)),
            };
            let number = RequestNumber(self.sent + 1);
            let session = SessionId(1 + self.parts.index as u128);
            let submission = Submission {
                ticket: Ticket(self.sent),
                request: RequestId { session, number },
                durability: Durability::Memory,
                command: command.encode(),
                bodies: Vec::new(),
            };
            let submission = submission.lighten(BULK_ABOVE);
            match self.parts.core.handle_submit(SHARD, submission) {
                Ok(()) => {}
                // The last ones to arrive form the view anew.
                Err(Refused::Unavailable { .. }) if self.since.is_none() => break,
                Err(refused) => return Err(refused.into()),
            }
            self.waiting.push_back(Instant::now());
            self.sent += 1;
        }
        Ok(())
    }

    fn act_all(&mut self, now: Now) -> anyhow::Result<()> {
        while let Some(action) = self.parts.core.poll_action() {
            self.act(now, action)?;
        }
        Ok(())
    }

    fn act(&mut self, now: Now, action: Action) -> anyhow::Result<()> {
        let Parts { core, fabric, identity, .. } = &mut self.parts;
        match action {
            Action::Prepare { view, members, row_len } => {
                let members: Vec<_> =
                    members.into_iter().map(|node| fabric::NodeId(node.0)).collect();
                fabric.prepare(view.0, &members, row_len)?;
            }
            Action::Send { to, message } => {
                let taken = fabric.send(fabric::NodeId(to.0), &message);
                ensure!(taken, "the control lane to {to} is full");
            }
            Action::Disconnect { peer, reason } => {
                fabric.disconnect(fabric::NodeId(peer.0), &reason.to_string());
            }
            // In memory: what is handed over is there.
            Action::Append { shard, first, entries, .. } => {
                core.handle_durable(now, shard, Version(first.0 + entries.len() as u64));
            }
            Action::Stage { shard, body, bytes, last, .. } => {
                core.handle_staged(now, shard, body, Staged::Part(bytes.len()));
                if last {
                    core.handle_staged(now, shard, body, Staged::Whole);
                }
            }
            Action::Promise(promise) => core.handle_promised(now, promise.view),
            Action::Remember(_) | Action::Snapshot { .. } => {}
            Action::Sign { shard, checkpoint } => {
                let signature = identity.sign(checkpoint.to_string().as_bytes());
                core.handle_signature(shard, checkpoint.size, signature);
            }
            Action::Answers(answers) => {
                for _ in answers {
                    let sent = self.waiting.pop_front().context("an answer nobody waits for")?;
                    if self.since.is_some() {
                        let ns = u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX);
                        self.latency_ns.saturating_record(ns);
                    }
                }
            }
            Action::Failed(fatal) => bail!("a member cannot go on: {fatal}"),
            _ => {}
        }
        Ok(())
    }
}
