//! The child's side: chooses a parent, pulls, verifies, and hands on what may be made durable.
//!
//! One follower serves ledgers that can be had from the same parents. It owns the truth about how
//! far each of them is verified; a session with a parent comes and goes. Whatever a parent does
//! wrong costs it the session and a pause, and leaves the ledgers as they were.
//!
//! | module | what it holds |
//! |---|---|
//! | `ledger` | the way of one ledger's batches: queue, admit, wait for values, commit |
//! | `session` | one connection, and its deadlines |
//! | `input` | what comes from a parent |
//! | `manage` | which session feeds, when to leave it |

mod input;
mod ledger;
mod manage;
mod session;
#[cfg(test)]
mod tests;

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet, VecDeque},
    string::String,
    vec::Vec,
};
use core::fmt;

use tradewind_ledger::ids::{Digest, Hlc, LedgerId, Version};

pub use self::ledger::LedgerConfig;
use self::ledger::{Ledger, Ledgers};
use self::session::Session;
use crate::admit::Admitted;
use crate::claim::Head;
use crate::evidence::Evidence;
use crate::parents::Parents;
use crate::time::{Instant, Timing};
use crate::wire::{ChildMessage, Frontier, MirrorReport};

/// Names one connection to a parent for the follower and its shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {}", self.0)
    }
}

/// What a follower must know.
#[derive(Clone, Debug)]
pub struct FollowerConfig {
    /// The deployment.
    pub deployment: String,
    /// The own name.
    pub name: String,
    /// Names of the processes to be fed from, most preferred first.
    pub parents: Vec<String>,
    /// Bytes of batches that may be on their way, or here and not yet durable; at least 2 MiB.
    pub window_bytes: u64,
    /// The deadlines.
    pub timing: Timing,
}

/// What lies on this mirror's disk already, as far as the follower must ask.
pub trait Local {
    /// The root of the ledger's first `size` entries; `None` if they are not durable.
    fn root_at(&self, ledger: &LedgerId, size: Version) -> Option<Digest>;
    /// The consistency proof between two sizes; `None` if it cannot be made.
    fn proof(&self, ledger: &LedgerId, from: Version, to: Version) -> Option<Vec<Digest>>;
    /// Whether the detached value is stored.
    fn has_value(&self, ledger: &LedgerId, digest: &Digest) -> bool;
}

/// What the shell shall do, in this order.
#[derive(Debug)]
pub enum FollowAction {
    /// Connect to the parent of this index; answer with [`Follower::handle_connected`] or
    /// [`Follower::handle_closed`].
    Dial {
        /// Name of the connection from now on.
        session: SessionId,
        /// Index into [`FollowerConfig::parents`].
        parent: usize,
    },
    /// Send on the session's control stream.
    Send {
        /// Which connection.
        session: SessionId,
        /// What.
        message: ChildMessage,
    },
    /// End the connection.
    Close {
        /// Which one.
        session: SessionId,
        /// In words, for the parent's log too.
        reason: String,
    },
    /// Store a detached value, before what is committed after it; answer with
    /// [`Follower::handle_stored`].
    StoreValue {
        /// Whose.
        ledger: LedgerId,
        /// SHA-256 of it, verified.
        digest: Digest,
        /// The value.
        bytes: Vec<u8>,
    },
    /// Make the entries durable, then apply and show them; answer with
    /// [`Follower::handle_durable`].
    Commit(Box<Admitted>),
    /// All of the ledger that was found on disk at the start is signed for: it may be shown.
    Confirm {
        /// Which ledger.
        ledger: LedgerId,
        /// Over all that is durable.
        head: Head,
    },
    /// All parents that can be reached have pruned what comes next here: take a snapshot of this one, which the next start
    /// begins with. If that fails, [`Follower::handle_not_taken`].
    TakeSnapshot {
        /// Which ledger.
        ledger: LedgerId,
        /// Index into [`FollowerConfig::parents`].
        parent: usize,
    },
    /// What is durable was all that the home site had committed at that moment.
    Fresh {
        /// Which ledger.
        ledger: LedgerId,
        /// By the parent's word, which is not proven.
        as_of: Instant,
    },
    /// Write down the evidence; the ledger is halted.
    Evidence(Box<Evidence>),
    /// The path from this mirror to a site changed; `None`: it is cut off.
    Path(Option<Vec<String>>),
    /// Something for the log and the counters.
    Event(FollowEvent),
}

/// What an operator may want to know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowEvent {
    /// A parent feeds from now on.
    #[error("fed by {parent}")]
    Following {
        /// Its name.
        parent: String,
    },
    /// A parent was left or lost.
    #[error("left {parent}: {reason}")]
    Left {
        /// Its name.
        parent: String,
        /// In words.
        reason: String,
    },
    /// Something was refused; the ledger's state is unchanged.
    #[error("refused from {parent} for {ledger}: {reason}")]
    Refused {
        /// Who sent it.
        parent: String,
        /// Which ledger.
        ledger: LedgerId,
        /// In words.
        reason: String,
    },
    /// A ledger is followed no more.
    #[error("{ledger} is halted: its site signed two histories; see the evidence file")]
    Halted {
        /// Which ledger.
        ledger: LedgerId,
    },
}

/// A follower at a glance.
#[derive(Clone, Debug, Default)]
pub struct FollowStatus {
    /// Who feeds, if anybody.
    pub parent: Option<String>,
    /// From that parent to the site, if it is not cut off.
    pub path: Option<Vec<String>>,
    /// Each ledger.
    pub ledgers: Vec<LedgerStatus>,
}

/// A followed ledger at a glance.
#[derive(Clone, Debug)]
pub struct LedgerStatus {
    /// How far it is.
    pub frontier: Frontier,
    /// Whether evidence of a fork stopped it.
    pub is_halted: bool,
    /// Batches, values and claims that were refused since the start.
    pub refusals: u64,
    /// Detached values that verified entries wait for.
    pub values_missing: usize,
}

/// The child's side of the protocol, for ledgers that come from the same parents.
#[derive(Debug)]
pub struct Follower {
    config: FollowerConfig,
    ledgers: Ledgers,
    parents: Parents,
    active: Option<Session>,
    probe: Option<Session>,
    sessions: u64,
    path: Option<Vec<String>>,
    /// Values handed on and not stored yet, with their lengths.
    storing: BTreeMap<(LedgerId, Digest), u64>,
    /// What mirrors below this one reported, by name.
    subtree: BTreeMap<String, MirrorReport>,
    /// Whose report is to be sent; the own name stands for the own.
    dirty: BTreeSet<String>,
    next_report: Instant,
    next_beat: Instant,
    actions: VecDeque<FollowAction>,
}

impl Follower {
    /// A follower that is about to dial its first parent.
    ///
    /// # Panics
    /// Without a parent, with a window below 2 MiB, and if a genesis has no encoding.
    #[must_use]
    pub fn new(config: FollowerConfig, ledgers: Vec<LedgerConfig>, now: Instant) -> Self {
        assert!(!config.parents.is_empty(), "a follower has a parent");
        assert!(config.window_bytes >= 2 << 20, "a window of two batches at least");
        let by_id = |ledger: LedgerConfig| (ledger.genesis.ledger.clone(), Ledger::new(ledger));
        let mut follower = Self {
            ledgers: ledgers.into_iter().map(by_id).collect(),
            parents: Parents::new(config.parents.len()),
            active: None,
            probe: None,
            sessions: 0,
            path: None,
            storing: BTreeMap::new(),
            subtree: BTreeMap::new(),
            dirty: BTreeSet::new(),
            next_report: now,
            next_beat: now,
            config,
            actions: VecDeque::new(),
        };
        follower.manage(now);
        follower
    }

    /// The next thing to do, if there is one.
    pub fn poll_action(&mut self) -> Option<FollowAction> {
        self.actions.pop_front()
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> FollowStatus {
        let active = self.active.as_ref().filter(|active| active.is_open());
        let ledger = |ledger: &Ledger| LedgerStatus {
            frontier: ledger.frontier(),
            is_halted: ledger.is_halted,
            refusals: ledger.refusals,
            values_missing: ledger.missing_count(),
        };
        FollowStatus {
            parent: active.map(|active| self.config.parents[active.parent].clone()),
            path: active.and_then(|active| active.path.clone()),
            ledgers: self.ledgers.values().map(ledger).collect(),
        }
    }

    /// Entries became durable up to `size`; `hlc` is the time of the last of them.
    ///
    /// # Panics
    /// If they were never committed.
    pub fn handle_durable(&mut self, now: Instant, ledger: &LedgerId, size: Version, hlc: Hlc) {
        let of = self.ledgers.get_mut(ledger).expect("only known ledgers are committed");
        let credits = of.durable(size, hlc);
        if let Some(as_of) = of.awaited() {
            self.actions.push_back(FollowAction::Fresh { ledger: ledger.clone(), as_of });
        }
        for (session, bytes) in credits {
            self.done_with(session, bytes);
        }
        self.grant();
        self.dirty.insert(self.config.name.clone());
        self.report(now);
    }

    /// A detached value was stored.
    pub fn handle_stored(&mut self, ledger: &LedgerId, digest: Digest) {
        self.storing.remove(&(ledger.clone(), digest));
        self.want();
    }

    /// No snapshot was taken: what is there of it is gone on with when a parent refuses again.
    pub fn handle_not_taken(&mut self, ledger: &LedgerId) {
        self.ledgers.get_mut(ledger).expect("a known ledger").is_taking = false;
    }

    /// Mirrors below this one reported.
    pub fn handle_reports(&mut self, now: Instant, reports: Vec<MirrorReport>) {
        for report in reports {
            if report.mirror == self.config.name {
                continue;
            }
            self.dirty.insert(report.mirror.clone());
            self.subtree.insert(report.mirror.clone(), report);
        }
        self.report(now);
    }

    /// Credits the session with bytes that take no more room here.
    fn done_with(&mut self, session: SessionId, bytes: u64) {
        if let Some(active) = self.active.as_mut().filter(|active| active.id == session) {
            active.done += bytes;
        }
    }

    /// Tells the parent what it may send, if that is news worth a message.
    fn grant(&mut self) {
        let window = self.config.window_bytes;
        let Some(active) = self.active.as_mut().filter(|active| active.is_open()) else { return };
        let granted = active.done + window;
        if granted - active.granted >= window / 8 {
            active.granted = granted;
            let (session, message) = (active.id, ChildMessage::Grant(granted));
            self.actions.push_back(FollowAction::Send { session, message });
        }
    }

    /// Sends the reports that are due.
    fn report(&mut self, now: Instant) {
        let Some(active) = self.active.as_ref().filter(|active| active.is_open()) else { return };
        if now >= self.next_beat {
            self.dirty.insert(self.config.name.clone());
        }
        if self.dirty.is_empty() || now < self.next_report {
            return;
        }
        let parent = &self.config.parents[active.parent];
        // What was below once may be above by now.
        let is_above = |name: &String| {
            name == parent || active.path.as_ref().is_some_and(|path| path.contains(name))
        };
        let own = MirrorReport {
            mirror: self.config.name.clone(),
            parent: parent.clone(),
            ledgers: self.ledgers.values().map(Ledger::frontier).collect(),
        };
        let report = |name: String| match self.subtree.get(&name) {
            Some(report) => report.clone(),
            None => own.clone(),
        };
        let dirty = core::mem::take(&mut self.dirty);
        let reports = dirty.into_iter().filter(|name| !is_above(name)).map(report).collect();
        self.next_report = now.after(self.config.timing.report);
        self.next_beat = now.after(self.config.timing.beat);
        let (session, message) = (active.id, ChildMessage::Report(reports));
        self.actions.push_back(FollowAction::Send { session, message });
    }

    fn event(&mut self, event: FollowEvent) {
        self.actions.push_back(FollowAction::Event(event));
    }
}
