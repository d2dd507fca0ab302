//! The parent's side, for one child: what to offer, what to send next, and never more than was asked.
//!
//! A feeder keeps soft state only: where the child is in each ledger, and how many bytes it granted.
//! It reads nothing itself; it asks its shell to look up roots ([`FeedAction::Locate`]) and to read
//! and send batches ([`FeedAction::Read`]), one at a time in each ledger and a few in all, so that a
//! slow child costs a bounded amount of memory and nobody else's time.
//!
//! State of each ledger:
//!
//! ```text
//!   Idle ──Follow──► Placing ──root is ours──► Feeding(next) ──Follow──► Placing …
//!              │        ▲  └──other root──► Refused
//!              │        │ head reaches the child's size
//!              └──► Ahead(position): the child has more than this parent
//! ```
//!
//! Beside it, `busy` says what the shell was asked to do for that ledger and has not answered yet.

#[cfg(test)]
mod tests;

use alloc::{
    collections::{BTreeMap, VecDeque},
    string::{String, ToString},
    vec::Vec,
};

use core::time::Duration;

use tradewind_ledger::ids::{Digest, LedgerId, Lineage, Version};

use crate::claim::Head;
use crate::time::{Instant, Timing};
use crate::wire::{
    Accept, Beat, Bye, ChildMessage, Fresh, HeadNote, Hello, MirrorReport, NoValue, ParentMessage,
    Position, Refuse, RefuseReason, Want, Welcome,
};

/// Bytes of entries in a batch, about.
pub(crate) const BATCH_BYTES: u64 = 1 << 20;
/// A batch is not begun with less: one entry fits in any case.
const CREDIT_BYTES_MIN: u64 = 128 << 10;
/// Batches that are read or sent at once.
const IN_FLIGHT_MAX: usize = 6;
/// A child that is no more entries behind is at the tail, which goes before catching up.
const TAIL_ENTRIES: u64 = 1_024;
/// Values that are sent at once.
const VALUES_IN_FLIGHT_MAX: usize = 4;
/// Values that a child may ask for and that are not sent yet.
const VALUES_WANTED_MAX: usize = 4_096;

/// What a feeder must know.
#[derive(Clone, Debug)]
pub struct FeederConfig {
    /// The own name: a mirror's, or that of the node.
    pub name: String,
    /// The deployment.
    pub deployment: String,
    /// The child's name, as its certificate proved it.
    pub child: String,
    /// The ledgers that this child may have, with their lineages.
    pub ledgers: BTreeMap<LedgerId, Lineage>,
    /// The deadlines.
    pub timing: Timing,
}

/// What the shell shall do.
#[derive(Debug)]
pub enum FeedAction {
    /// Send on the control stream.
    Send(ParentMessage),
    /// Look up the root at `size` and the consistency proof from there to `head`, and answer with
    /// [`Feeder::handle_located`].
    Locate {
        /// Which ledger.
        ledger: LedgerId,
        /// The child's size, at most that of `head`.
        size: Version,
        /// The parent's head.
        head: Head,
    },
    /// Read entries from `first` on, as many as fit `max_bytes` and `head`, but one at least; send
    /// them on a stream of their own; answer with [`Feeder::handle_read`] as soon as they are read,
    /// and with [`Feeder::handle_sent`] when they are sent.
    Read {
        /// Which ledger.
        ledger: LedgerId,
        /// The first entry.
        first: Version,
        /// Bytes of entries and their lengths.
        max_bytes: u64,
        /// Up to here.
        head: Head,
        /// Whether the child is this close to the head: such a batch goes before others.
        is_tail: bool,
    },
    /// Send a detached value on a stream of its own and answer with [`Feeder::handle_value_sent`].
    SendValue {
        /// Whose.
        ledger: LedgerId,
        /// SHA-256 of it.
        digest: Digest,
    },
    /// The child reported these frontiers.
    Report(Vec<MirrorReport>),
    /// End the connection.
    Close {
        /// In words.
        reason: String,
    },
}

/// What [`FeedAction::Locate`] asked for.
#[derive(Clone, Debug)]
pub struct Located {
    /// The root at the child's size.
    pub root: Digest,
    /// Consistency proof from there to the head.
    pub proof: Vec<Digest>,
    /// The first entry that the parent keeps.
    pub first: Version,
}

/// What [`FeedAction::Read`] read.
#[derive(Clone, Copy, Debug)]
pub struct ReadDone {
    /// The version after the last entry that was read.
    pub end: Version,
    /// Bytes of the batch's body.
    pub bytes: u64,
}

#[derive(Clone, Debug)]
enum State {
    Idle,
    Ahead(Position),
    Placing(Position),
    Feeding { next: Version },
    Refused,
}

#[derive(Clone, Debug, PartialEq)]
enum Busy {
    Locating(Position),
    Reading,
}

#[derive(Debug)]
struct Fed {
    lineage: Lineage,
    head: Option<Head>,
    state: State,
    busy: Option<Busy>,
}

/// The parent's side of one connection.
#[derive(Debug)]
pub struct Feeder {
    config: FeederConfig,
    ledgers: BTreeMap<LedgerId, Fed>,
    path: Option<Vec<String>>,
    greeted: bool,
    closed: bool,
    granted: u64,
    spent: u64,
    in_flight: usize,
    /// Last ledger that was read, so that the next one has its turn.
    last_read: Option<LedgerId>,
    wanted: VecDeque<(LedgerId, Digest)>,
    values_in_flight: usize,
    next_beat: Instant,
    actions: VecDeque<FeedAction>,
}

impl Feeder {
    /// The state of a connection that was just accepted. `path` as in [`Beat::path`].
    #[must_use]
    pub fn new(config: FeederConfig, path: Option<Vec<String>>, now: Instant) -> Self {
        let fed = |lineage: &Lineage| {
            let (lineage, state) = (*lineage, State::Idle);
            Fed { lineage, head: None, state, busy: None }
        };
        let ledgers = config.ledgers.iter().map(|(id, lineage)| (id.clone(), fed(lineage)));
        Self {
            ledgers: ledgers.collect(),
            path,
            greeted: false,
            closed: false,
            granted: 0,
            spent: 0,
            in_flight: 0,
            last_read: None,
            wanted: VecDeque::new(),
            values_in_flight: 0,
            next_beat: now.after(config.timing.beat),
            config,
            actions: VecDeque::new(),
        }
    }

    /// The next thing to do, if there is one.
    pub fn poll_action(&mut self) -> Option<FeedAction> {
        self.actions.pop_front()
    }

    /// When [`Feeder::handle_tick`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        self.next_beat
    }

    /// Whether the child said who it is.
    #[must_use]
    pub fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// Time has passed. `ages`: how long ago the ledger's head was all that its site had committed.
    pub fn handle_tick(&mut self, now: Instant, ages: &dyn Fn(&LedgerId) -> Duration) {
        if now < self.next_beat {
            return;
        }
        self.next_beat = now.after(self.config.timing.beat);
        if !self.greeted || self.closed {
            return;
        }
        let fresh = |(ledger, fed): (&LedgerId, &Fed)| {
            let size = fed.head.as_ref()?.size;
            let age_ms = u64::try_from(ages(ledger).as_millis()).unwrap_or(u64::MAX);
            let is_fed = matches!(fed.state, State::Feeding { .. });
            is_fed.then(|| Fresh { ledger: ledger.clone(), size, age_ms })
        };
        let ledgers = self.ledgers.iter().filter_map(fresh).collect();
        self.send(ParentMessage::Beat(Beat { path: self.path.clone(), ledgers }));
    }

    /// The parent's own path to a site changed.
    pub fn handle_path(&mut self, now: Instant, path: Option<Vec<String>>) {
        if self.path != path {
            self.path = path;
            // The next tick tells it.
            self.next_beat = now;
        }
    }

    /// A ledger has a new head.
    pub fn handle_head(&mut self, ledger: &LedgerId, head: Head) {
        let Some(fed) = self.ledgers.get_mut(ledger) else { return };
        fed.head = Some(head);
        if let State::Ahead(position) = &fed.state {
            let position = position.clone();
            self.place(ledger, position);
        }
        self.pump();
    }

    /// The child said something.
    pub fn handle_message(&mut self, now: Instant, message: ChildMessage) {
        if self.closed {
            return;
        }
        match message {
            ChildMessage::Hello(hello) => self.hello(now, &hello),
            _ if !self.greeted => self.close("the first message is not a hello"),
            ChildMessage::Follow(positions) => {
                self.follow(positions);
                self.pump();
            }
            ChildMessage::Grant(granted) if granted < self.granted => {
                self.close("a grant was taken back");
            }
            ChildMessage::Grant(granted) => {
                self.granted = granted;
                self.pump();
            }
            ChildMessage::Want(want) => self.want(want),
            ChildMessage::Report(reports) => self.report(reports),
            ChildMessage::Bye(bye) => {
                let reason = alloc::format!("the child left: {}", bye.reason);
                self.closed = true;
                self.actions.push_back(FeedAction::Close { reason });
            }
        }
    }

    /// A root was looked up; `None` if the ledger could not be read.
    pub fn handle_located(&mut self, ledger: &LedgerId, head: &Head, located: Option<Located>) {
        let Some(fed) = self.ledgers.get_mut(ledger) else { return };
        let Some(Busy::Locating(asked)) = fed.busy.take() else { return };
        let State::Placing(position) = fed.state.clone() else { return };
        if position != asked {
            // The child has moved on in the meantime.
            self.place(ledger, position);
        } else if let Some(Located { root, proof, first }) = located {
            let claim = head.claim(position.size, proof);
            if root == position.root && position.size < first {
                self.refuse(ledger, RefuseReason::Pruned { first });
            } else if root == position.root {
                fed.state = State::Feeding { next: position.size };
                let accept = Accept { ledger: ledger.clone(), size: head.size, claim: Some(claim) };
                self.send(ParentMessage::Accept(accept));
            } else {
                self.refuse(ledger, RefuseReason::Fork { root, claim });
            }
        } else {
            self.refuse(ledger, RefuseReason::Unreadable);
        }
        self.pump();
    }

    /// A batch was read, and is being sent; `None` if the ledger could not be read.
    ///
    /// # Panics
    /// If nothing was asked for, or nothing was read.
    pub fn handle_read(&mut self, ledger: &LedgerId, first: Version, done: Option<ReadDone>) {
        let fed = self.ledgers.get_mut(ledger).expect("only known ledgers are read");
        assert_eq!(fed.busy.take(), Some(Busy::Reading), "an answer to a question");
        match done {
            None => {
                self.in_flight -= 1;
                self.refuse(ledger, RefuseReason::Unreadable);
            }
            Some(done) => {
                assert!(done.end > first, "at least one entry is read");
                self.spent += done.bytes;
                match &mut fed.state {
                    State::Feeding { next } => *next = done.end,
                    State::Placing(position) => {
                        let position = position.clone();
                        self.place(ledger, position);
                    }
                    _ => {}
                }
            }
        }
        self.pump();
    }

    /// A batch was sent, or could not be.
    pub fn handle_sent(&mut self) {
        self.in_flight -= 1;
        self.pump();
    }

    /// A value was sent (`true`) or is not there.
    pub fn handle_value_sent(&mut self, ledger: LedgerId, digest: Digest, sent: bool) {
        self.values_in_flight -= 1;
        if !sent {
            self.send(ParentMessage::NoValue(NoValue { ledger, digest }));
        }
        self.pump_values();
    }

    fn hello(&mut self, now: Instant, hello: &Hello) {
        if self.greeted {
            return self.close("a second hello");
        }
        if hello.deployment != self.config.deployment {
            let (found, own) = (&hello.deployment, &self.config.deployment);
            let reason = alloc::format!("deployment {found:?}, this process belongs to {own:?}");
            return self.close(&reason);
        }
        if hello.mirror != self.config.child {
            let (found, proven) = (&hello.mirror, &self.config.child);
            let reason =
                alloc::format!("the hello of {found:?} with the certificate of {proven:?}");
            return self.close(&reason);
        }
        self.greeted = true;
        self.next_beat = now.after(self.config.timing.beat);
        let (name, path) = (self.config.name.clone(), self.path.clone());
        self.send(ParentMessage::Welcome(Welcome { name, path }));
    }

    fn follow(&mut self, positions: Vec<Position>) {
        for fed in self.ledgers.values_mut() {
            fed.state = State::Idle;
        }
        for position in positions {
            let ledger = position.ledger.clone();
            match self.ledgers.get(&ledger) {
                None => {
                    let reason = RefuseReason::Unknown;
                    self.send(ParentMessage::Refuse(Refuse { ledger, reason }));
                }
                Some(fed) if fed.lineage != position.lineage => {
                    let ours = fed.lineage;
                    self.refuse(&ledger, RefuseReason::Lineage { ours });
                }
                Some(_) => self.place(&ledger, position),
            }
        }
    }

    /// Finds out how to feed a child at `position`.
    fn place(&mut self, ledger: &LedgerId, position: Position) {
        let fed = self.ledgers.get_mut(ledger).expect("only known ledgers are placed");
        // A full chain has no room for the proof from the child's size to the head.
        let reaches = |head: &&Head| {
            head.size == position.size || head.size > position.size && !head.is_chain_full()
        };
        if let Some(head) = fed.head.as_ref().filter(reaches) {
            if fed.busy.is_none() {
                let (ledger, size, head) = (ledger.clone(), position.size, head.clone());
                fed.busy = Some(Busy::Locating(position.clone()));
                self.actions.push_back(FeedAction::Locate { ledger, size, head });
            }
            fed.state = State::Placing(position);
            return;
        }
        let size = fed.head.as_ref().map_or(Version::ZERO, |head| head.size);
        let note = fed.head.as_ref().filter(|head| head.is_signed() && head.size < position.size);
        let note = note.map(|head| head.note.to_string());
        let is_news = !matches!(fed.state, State::Ahead(_));
        fed.state = State::Ahead(position);
        if is_news {
            let accept = Accept { ledger: ledger.clone(), size, claim: None };
            self.send(ParentMessage::Accept(accept));
        }
        if let Some(note) = note {
            self.send(ParentMessage::Head(HeadNote { ledger: ledger.clone(), note }));
        }
    }

    fn want(&mut self, want: Want) {
        if !self.ledgers.contains_key(&want.ledger) {
            return self.close("values of a ledger that the child may not have");
        }
        if self.wanted.len() + want.digests.len() > VALUES_WANTED_MAX {
            return self.close("too many values wanted at once");
        }
        let ledger = want.ledger;
        self.wanted.extend(want.digests.into_iter().map(|digest| (ledger.clone(), digest)));
        self.pump_values();
    }

    fn report(&mut self, reports: Vec<MirrorReport>) {
        // A child speaks for itself and for what is below it, never for its parent.
        if reports.iter().any(|report| report.mirror == self.config.name) {
            return self.close("a report about this process itself: a loop");
        }
        self.actions.push_back(FeedAction::Report(reports));
    }

    fn pump_values(&mut self) {
        while !self.closed && self.values_in_flight < VALUES_IN_FLIGHT_MAX {
            let Some((ledger, digest)) = self.wanted.pop_front() else { return };
            self.values_in_flight += 1;
            self.actions.push_back(FeedAction::SendValue { ledger, digest });
        }
    }

    /// Begins as many reads as the child's credit and the limits allow.
    fn pump(&mut self) {
        while !self.closed && self.in_flight < IN_FLIGHT_MAX {
            // What is being read may take up to a whole batch.
            let reading = self.ledgers.values().filter(|fed| fed.busy == Some(Busy::Reading));
            let held = self.spent + reading.count() as u64 * BATCH_BYTES;
            let max_bytes = self.granted.saturating_sub(held).min(BATCH_BYTES);
            if max_bytes < CREDIT_BYTES_MIN {
                return;
            }
            let Some((ledger, first, head)) = self.choose() else { return };
            let is_tail = head.size.since(first) <= TAIL_ENTRIES;
            let fed = self.ledgers.get_mut(&ledger).expect("it was chosen");
            fed.busy = Some(Busy::Reading);
            self.last_read = Some(ledger.clone());
            self.in_flight += 1;
            self.actions.push_back(FeedAction::Read { ledger, first, max_bytes, head, is_tail });
        }
    }

    /// The ledger to read next: those near their end first, otherwise in turn.
    fn choose(&self) -> Option<(LedgerId, Version, Head)> {
        let ready = |(ledger, fed): (&LedgerId, &Fed)| match (&fed.state, &fed.head) {
            (State::Feeding { next }, Some(head)) if fed.busy.is_none() && *next < head.size => {
                // A full chain has no room for the proof of a batch that ends before the head.
                (!head.is_chain_full()).then(|| (ledger.clone(), *next, head.clone()))
            }
            _ => None,
        };
        let had_turn = |ledger: &LedgerId| self.last_read.as_ref().is_some_and(|l| ledger <= l);
        self.ledgers.iter().filter_map(ready).min_by_key(|(ledger, next, head)| {
            let is_tail = head.size.since(*next) <= TAIL_ENTRIES;
            (!is_tail, had_turn(ledger), ledger.clone())
        })
    }

    fn refuse(&mut self, ledger: &LedgerId, reason: RefuseReason) {
        if let Some(fed) = self.ledgers.get_mut(ledger) {
            fed.state = State::Refused;
        }
        self.send(ParentMessage::Refuse(Refuse { ledger: ledger.clone(), reason }));
    }

    fn send(&mut self, message: ParentMessage) {
        self.actions.push_back(FeedAction::Send(message));
    }

    fn close(&mut self, reason: &str) {
        self.closed = true;
        let reason = String::from(reason);
        self.send(ParentMessage::Bye(Bye { reason: reason.clone() }));
        self.actions.push_back(FeedAction::Close { reason });
    }
}
