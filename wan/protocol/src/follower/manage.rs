//! Which session feeds, and when it is left for another.

use alloc::{string::String, vec::Vec};

use super::session::{Answer, Asked, Phase, Session};
use super::{FollowAction, FollowEvent, Follower, SessionId};
use crate::time::Instant;
use crate::wire::{ChildMessage, Hello, Position};

impl Follower {
    /// When [`Follower::handle_tick`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let timing = &self.config.timing;
        let mut due = Instant(u64::MAX);
        for session in [&self.active, &self.probe].into_iter().flatten() {
            due = due.min(session.deadline(self.is_owed(), timing));
            // It is left for another one only when there is one that may be tried.
            let other = self.parents.next_other(session.parent);
            if let Some(other) = other.filter(|_| session.is_open()) {
                due = due.min(session.lags_at(timing).max(other));
            }
        }
        if let Some(probe) = self.probe.as_ref().filter(|probe| probe.is_open()) {
            due = due.min(probe.since.after(timing.stall));
        }
        match &self.active {
            None if self.has_work() => {
                due = due.min(self.parents.next_at(self.parents.len()).unwrap_or(due));
            }
            Some(active) if active.is_open() => {
                due = due.min(self.next_beat);
                if !self.dirty.is_empty() {
                    due = due.min(self.next_report);
                }
                let settled = active.since.after(timing.probe);
                if !active.has_settled {
                    due = due.min(settled);
                } else if self.probe.is_none()
                    && let Some(at) = self.parents.next_at(active.parent)
                {
                    due = due.min(at);
                }
            }
            _ => {}
        }
        due
    }

    /// Time has passed.
    pub fn handle_tick(&mut self, now: Instant) {
        self.manage(now);
        self.report(now);
    }

    /// A dialled parent is reached and proved its identity.
    pub fn handle_connected(&mut self, now: Instant, session: SessionId) {
        let Some(dialled) = self.session_mut(session).filter(|s| s.phase == Phase::Dialing) else {
            return;
        };
        dialled.enter(now, Phase::Greeting);
        let (deployment, mirror) = (self.config.deployment.clone(), self.config.name.clone());
        let message = ChildMessage::Hello(Hello { deployment, mirror });
        self.actions.push_back(FollowAction::Send { session, message });
    }

    /// A parent could not be reached, or the connection broke.
    pub fn handle_closed(&mut self, now: Instant, session: SessionId, reason: &str) {
        self.drop_session(now, session, reason, false);
        self.manage(now);
    }

    /// Some bytes of a batch or value came.
    pub fn handle_progress(&mut self, now: Instant, session: SessionId) {
        if let Some(session) = self.session_mut(session) {
            (session.heard, session.moved) = (now, now);
        }
    }

    pub(super) fn session_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        [&mut self.active, &mut self.probe].into_iter().flatten().find(|session| session.id == id)
    }

    pub(super) fn is_active(&self, id: SessionId) -> bool {
        self.active.as_ref().is_some_and(|active| active.id == id)
    }

    /// Leaves a parent because of what it did or did not do; it gets a pause.
    pub(super) fn fail(&mut self, now: Instant, session: SessionId, reason: &str) {
        self.drop_session(now, session, reason, true);
        self.manage(now);
    }

    fn has_work(&self) -> bool {
        self.ledgers.values().any(|ledger| !ledger.is_halted)
    }

    fn is_owed(&self) -> bool {
        let waits = self.active.as_ref().is_some_and(|active| !active.wanted.is_empty());
        waits || self.ledgers.values().any(super::Ledger::has_gap)
    }

    fn drop_session(&mut self, now: Instant, id: SessionId, reason: &str, close: bool) {
        let was_active = self.is_active(id);
        let slot = if was_active { &mut self.active } else { &mut self.probe };
        let Some(session) = slot.take_if(|session| session.id == id) else { return };
        self.parents.failed(now, session.parent, &self.config.timing);
        self.end(&session, reason, close);
        if was_active {
            self.ledgers.values_mut().for_each(super::Ledger::clear_queue);
        }
    }

    /// Says that a session is over.
    fn end(&mut self, session: &Session, reason: &str, close: bool) {
        if close {
            let (session, reason) = (session.id, String::from(reason));
            self.actions.push_back(FollowAction::Close { session, reason });
        }
        let parent = self.config.parents[session.parent].clone();
        self.event(FollowEvent::Left { parent, reason: reason.into() });
    }

    /// Brings sessions in line with what is due: drops, dials, promotes.
    pub(super) fn manage(&mut self, now: Instant) {
        self.leave_overdue(now);
        if !self.has_work() {
            for session in [self.active.take(), self.probe.take()].into_iter().flatten() {
                self.end(&session, "no ledger is left to follow", true);
            }
        } else if self.active.is_none() {
            self.active = self.probe.take();
            match self.active.as_ref() {
                Some(active) if active.is_open() => self.begin(now),
                Some(_) => {}
                None => {
                    let next = self.parents.next(now, self.parents.len());
                    self.active = next.map(|parent| self.dial(now, parent));
                }
            }
        } else {
            self.prefer(now);
        }
        self.publish_path();
    }

    fn leave_overdue(&mut self, now: Instant) {
        let timing = self.config.timing;
        let owed = self.is_owed();
        let mut left = Vec::new();
        for session in [&self.active, &self.probe].into_iter().flatten() {
            let lags = || session.lags(now, &timing).filter(|_| self.has_other(now, session));
            if let Some(reason) = session.overdue(now, owed, &timing).or_else(lags) {
                left.push((session.id, reason));
            }
        }
        for (session, reason) in left {
            self.drop_session(now, session, reason, true);
        }
    }

    fn has_other(&self, now: Instant, session: &Session) -> bool {
        self.probe.is_some() || self.parents.has_other(now, session.parent)
    }

    /// Looks whether a parent of higher preference serves again.
    fn prefer(&mut self, now: Instant) {
        let timing = self.config.timing;
        let Some(active) = self.active.as_mut().filter(|active| active.is_open()) else { return };
        if now.since(active.since) < timing.probe {
            return;
        }
        if !active.has_settled {
            active.has_settled = true;
            self.parents.settled(active.parent);
        }
        let rank = active.parent;
        match &self.probe {
            None => {
                let next = self.parents.next(now, rank);
                self.probe = next.map(|parent| self.dial(now, parent));
            }
            Some(probe) if probe.is_ready() => {
                let better = self.probe.take();
                let old = core::mem::replace(&mut self.active, better);
                if let Some(old) = old {
                    self.end(&old, "a parent of higher preference serves again", true);
                }
                self.ledgers.values_mut().for_each(super::Ledger::clear_queue);
                self.begin(now);
            }
            Some(probe) if probe.is_open() && now.since(probe.since) >= timing.stall => {
                // It lives, but it is behind or cut off.
                if let Some(probe) = self.probe.take() {
                    self.parents.rest(now, probe.parent, &timing);
                    self.end(&probe, "it is not up to date yet", true);
                }
            }
            Some(_) => {}
        }
    }

    fn dial(&mut self, now: Instant, parent: usize) -> Session {
        let session = SessionId(self.sessions);
        self.sessions += 1;
        self.actions.push_back(FollowAction::Dial { session, parent });
        Session::new(session, parent, now)
    }

    /// The active session is open: ask it to feed.
    pub(super) fn begin(&mut self, now: Instant) {
        let Some(active) = &mut self.active else { return };
        active.enter(now, Phase::Open);
        (active.moved, active.grew) = (now, now);
        let (session, parent) = (active.id, self.config.parents[active.parent].clone());
        self.event(FollowEvent::Following { parent });
        self.ask(session);
        self.grant();
        self.want();
        self.dirty.extend(self.subtree.keys().cloned());
        self.dirty.insert(self.config.name.clone());
        self.report(now);
        self.publish_path();
    }

    /// Tells a parent where each ledger is.
    pub(super) fn ask(&mut self, session: SessionId) {
        let followed = self.ledgers.values().filter(|ledger| !ledger.is_halted);
        let positions: Vec<Position> = followed.map(super::Ledger::position).collect();
        let Some(open) = self.session_mut(session) else { return };
        open.asked = positions
            .iter()
            .map(|Position { ledger, size, root, .. }| {
                let asked = Asked { size: *size, root: *root, answer: Answer::Waiting };
                (ledger.clone(), asked)
            })
            .collect();
        let message = ChildMessage::Follow(positions);
        self.actions.push_back(FollowAction::Send { session, message });
    }

    /// Tells children when the own path to a site changed.
    pub(super) fn publish_path(&mut self) {
        let upward = self.active.as_ref().filter(|active| active.is_open());
        let path = upward.and_then(|active| active.path.as_ref()).map(|path| {
            let mut own = Vec::with_capacity(path.len() + 1);
            own.push(self.config.name.clone());
            own.extend(path.iter().cloned());
            own
        });
        if self.path != path {
            self.path.clone_from(&path);
            self.actions.push_back(FollowAction::Path(path));
        }
    }
}
