//! One connection to a parent, as the follower sees it.
//!
//! ```text
//!   Dialing ──connected──► Greeting ──Welcome──► Open
//! ```
//!
//! At most two exist: the *active* one, which feeds, and the *probe*, which finds out whether a
//! parent of higher preference would.

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use tradewind_ledger::ids::{Digest, LedgerId, Version};

use super::SessionId;
use crate::time::{Instant, Timing};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Dialing,
    Greeting,
    Open,
}

/// What a parent said to the wish to follow a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing yet, or that it is behind.
    Waiting,
    /// It feeds.
    Ready,
    /// It does not.
    Refused,
}

/// Where a ledger was when the parent was asked to feed it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) size: Version,
    pub(super) root: Digest,
    pub(super) answer: Answer,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    /// Index into the parents.
    pub(super) parent: usize,
    pub(super) phase: Phase,
    /// When this phase began; of an open active session: when it began to feed.
    pub(super) since: Instant,
    /// Last sign of life.
    pub(super) heard: Instant,
    /// Last progress of a batch or value.
    pub(super) moved: Instant,
    /// Last time that a ledger grew.
    pub(super) grew: Instant,
    pub(super) path: Option<Vec<String>>,
    /// Since when the parent has no path to a site.
    pub(super) cut_off: Option<Instant>,
    pub(super) asked: BTreeMap<LedgerId, Asked>,
    /// Bytes of batches granted, received, and done with, in all.
    pub(super) granted: u64,
    pub(super) received: u64,
    pub(super) done: u64,
    /// Values asked for and not yet here, with their lengths.
    pub(super) wanted: BTreeMap<(LedgerId, Digest), u64>,
    pub(super) has_settled: bool,
}

impl Session {
    pub(super) fn new(id: SessionId, parent: usize, now: Instant) -> Self {
        Self {
            id,
            parent,
            phase: Phase::Dialing,
            since: now,
            heard: now,
            moved: now,
            grew: now,
            path: None,
            cut_off: Some(now),
            asked: BTreeMap::new(),
            granted: 0,
            received: 0,
            done: 0,
            wanted: BTreeMap::new(),
            has_settled: false,
        }
    }

    pub(super) fn enter(&mut self, now: Instant, phase: Phase) {
        (self.phase, self.since, self.heard) = (phase, now, now);
    }

    pub(super) fn set_path(&mut self, now: Instant, path: Option<Vec<String>>) {
        self.cut_off = if path.is_some() { None } else { self.cut_off.or(Some(now)) };
        self.path = path;
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether every ledger asked for is fed: reason enough to prefer this parent.
    pub(super) fn is_ready(&self) -> bool {
        self.is_open()
            && self.path.is_some()
            && !self.asked.is_empty()
            && self.asked.values().all(|asked| asked.answer == Answer::Ready)
    }

    /// What this session has failed at by now, whatever other parents there are. `owed`: a batch or
    /// value is due.
    pub(super) fn overdue(
        &self,
        now: Instant,
        owed: bool,
        timing: &Timing,
    ) -> Option<&'static str> {
        let late = |since: Instant, span| now.since(since) >= span;
        match self.phase {
            Phase::Dialing if late(self.since, timing.connect) => Some("it cannot be reached"),
            Phase::Greeting if late(self.since, timing.connect) => Some("it does not greet"),
            Phase::Open if late(self.heard, timing.stall) => Some("it is silent"),
            Phase::Open if owed && late(self.moved, timing.stall) => {
                Some("it holds back a batch or value")
            }
            _ => None,
        }
    }

    /// When [`Session::overdue`] may change its answer.
    pub(super) fn deadline(&self, owed: bool, timing: &Timing) -> Instant {
        if !self.is_open() {
            return self.since.after(timing.connect);
        }
        let heard = self.heard.after(timing.stall);
        if owed { heard.min(self.moved.after(timing.stall)) } else { heard }
    }

    /// When [`Session::lags`] may change its answer.
    pub(super) fn lags_at(&self, timing: &Timing) -> Instant {
        let grew = self.grew.after(timing.silence);
        self.cut_off.map_or(grew, |cut_off| grew.min(cut_off.after(timing.stall)))
    }

    /// Why another parent, if there is one, would serve better.
    pub(super) fn lags(&self, now: Instant, timing: &Timing) -> Option<&'static str> {
        let late = |since: Instant, span| now.since(since) >= span;
        if !self.is_open() {
            return None;
        }
        if self.cut_off.is_some_and(|since| late(since, timing.stall)) {
            return Some("it is cut off from the site");
        }
        late(self.grew, timing.silence).then_some("its ledgers do not grow")
    }
}
