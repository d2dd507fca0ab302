//! What comes from a parent, and what it leads to.

use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
    vec::Vec,
};

use core::time::Duration;

use tradewind_ledger::ids::{Digest, LedgerId};
use tradewind_ledger::tree::value_digest;

use super::session::{Answer, Asked, Phase};
use super::{FollowAction, FollowEvent, Follower, Local, SessionId};
use crate::evidence::Evidence;
use crate::time::Instant;
use crate::wire::{
    Accept, Batch, ChildMessage, Fresh, HeadNote, ParentMessage, Refuse, RefuseReason, Value, Want,
    Welcome,
};

/// Values asked for, or here and not stored yet, at once.
const VALUES_WANTED_MAX: usize = 8;
/// Their bytes; a single value may have more.
const VALUE_BYTES_WANTED_MAX: u64 = 64 << 20;

impl Follower {
    /// A parent said something.
    pub fn handle_message(
        &mut self,
        now: Instant,
        local: &dyn Local,
        session: SessionId,
        message: ParentMessage,
    ) {
        let Some(open) = self.session_mut(session) else { return };
        open.heard = now;
        match (open.phase, message) {
            (Phase::Greeting, ParentMessage::Welcome(welcome)) => {
                self.welcome(now, session, welcome);
            }
            (_, ParentMessage::Bye(bye)) => {
                self.fail(now, session, &format!("it said: {}", bye.reason));
            }
            (Phase::Open, ParentMessage::Accept(accept)) => {
                self.accept(now, session, accept);
            }
            (Phase::Open, ParentMessage::Refuse(refuse)) => {
                self.refuse(now, local, session, refuse);
            }
            (Phase::Open, ParentMessage::Beat(beat)) => {
                if self.is_active(session) {
                    self.fresh(now, &beat.ledgers);
                }
                self.path(now, session, beat.path);
            }
            (Phase::Open, ParentMessage::Head(head)) => self.head(now, local, session, &head),
            (Phase::Open, ParentMessage::NoValue(value)) if self.is_active(session) => {
                self.fail(now, session, &format!("it lacks value {}", value.digest));
            }
            (_, _) => self.fail(now, session, "a message out of turn"),
        }
    }

    /// A batch came.
    pub fn handle_batch(
        &mut self,
        now: Instant,
        local: &dyn Local,
        session: SessionId,
        batch: Batch,
    ) {
        let Some(active) = self.active.as_mut().filter(|active| active.id == session) else {
            return;
        };
        let bytes = batch.body.len() as u64;
        (active.heard, active.moved) = (now, now);
        active.received += bytes;
        if active.received > active.granted {
            return self.fail(now, session, "more than was granted");
        }
        let id = batch.header.ledger.clone();
        let Some(ledger) = self.ledgers.get_mut(&id).filter(|ledger| !ledger.is_halted) else {
            if !self.ledgers.contains_key(&id) {
                self.fail(now, session, "a batch of a ledger that was not asked for");
            } else {
                self.done_with(session, bytes);
                self.grant();
            }
            return;
        };
        match ledger.take(local, session, batch) {
            Ok(0) => {}
            Ok(_) => {
                if let Some(active) = &mut self.active {
                    active.grew = now;
                }
                self.commit(&id);
                self.want();
                self.dirty.insert(self.config.name.clone());
            }
            Err(refusal) => {
                // Batches before the bad one were good.
                self.commit(&id);
                self.refused(now, session, &id, &refusal.to_string());
            }
        }
    }

    /// A detached value came.
    pub fn handle_value(&mut self, now: Instant, session: SessionId, value: Value) {
        let Some(active) = self.active.as_mut().filter(|active| active.id == session) else {
            return;
        };
        (active.heard, active.moved) = (now, now);
        let (ledger, digest) = (value.header.ledger, value.header.digest);
        let Some(len) = active.wanted.remove(&(ledger.clone(), digest)) else {
            return self.fail(now, session, "a value that was not asked for");
        };
        let is_right = value.body.len() as u64 == len && value_digest(&value.body) == digest;
        if !is_right {
            let reason = format!("{} bytes that are not value {digest}", value.body.len());
            return self.refused(now, session, &ledger, &reason);
        }
        let of = self.ledgers.get_mut(&ledger).expect("values of known ledgers are wanted");
        of.found(&digest);
        let bytes = value.body;
        self.storing.insert((ledger.clone(), digest), len);
        self.actions.push_back(FollowAction::StoreValue { ledger: ledger.clone(), digest, bytes });
        self.commit(&ledger);
        self.want();
    }

    fn welcome(&mut self, now: Instant, session: SessionId, welcome: Welcome) {
        let Some(greeted) = self.session_mut(session) else { return };
        let parent = greeted.parent;
        greeted.enter(now, Phase::Open);
        if welcome.name != self.config.parents[parent] {
            let reason = format!("it calls itself {:?}", welcome.name);
            return self.fail(now, session, &reason);
        }
        self.path(now, session, welcome.path);
        if self.is_active(session) {
            self.begin(now);
        } else {
            self.ask(session);
        }
    }

    fn fresh(&mut self, now: Instant, ledgers: &[Fresh]) {
        for fresh in ledgers {
            let Some(ledger) = self.ledgers.get_mut(&fresh.ledger) else { continue };
            let as_of = now.before(Duration::from_millis(fresh.age_ms));
            if let Some(as_of) = ledger.fresh(fresh.size, as_of) {
                let ledger = fresh.ledger.clone();
                self.actions.push_back(FollowAction::Fresh { ledger, as_of });
            }
        }
    }

    fn path(&mut self, now: Instant, session: SessionId, path: Option<Vec<String>>) {
        let is_loop = path.as_ref().is_some_and(|path| path.contains(&self.config.name));
        if is_loop {
            return self.fail(now, session, "it is fed through this mirror: a loop");
        }
        let Some(open) = self.session_mut(session) else { return };
        open.set_path(now, path);
        self.manage(now);
    }

    fn asked(&mut self, session: SessionId, ledger: &LedgerId) -> Option<Asked> {
        self.session_mut(session)?.asked.get(ledger).cloned()
    }

    fn answered(&mut self, session: SessionId, ledger: &LedgerId, answer: Answer) {
        let asked = self.session_mut(session).and_then(|open| open.asked.get_mut(ledger));
        asked.expect("it was looked up before").answer = answer;
    }

    fn accept(&mut self, now: Instant, session: SessionId, accept: Accept) {
        let id = accept.ledger;
        let Some(asked) = self.asked(session, &id) else {
            return self.fail(now, session, "it accepts what was not asked for");
        };
        let Some(claim) = accept.claim else {
            if accept.size >= asked.size {
                self.answered(session, &id, Answer::Ready);
            }
            return self.manage(now);
        };
        let ledger = self.ledgers.get_mut(&id).expect("only known ledgers are asked for");
        let policy = ledger.policy().expect("members of a verified ledger have usable keys");
        if let Err(error) = claim.verify(&policy, asked.size, asked.root) {
            return self.refused(now, session, &id, &error.to_string());
        }
        self.answered(session, &id, Answer::Ready);
        if self.is_active(session)
            && let Some(ledger) = self.ledgers.get_mut(&id)
            && let Some(head) = ledger.confirm(asked.size, claim)
        {
            self.actions.push_back(FollowAction::Confirm { ledger: id, head });
        }
        self.manage(now);
    }

    fn refuse(&mut self, now: Instant, local: &dyn Local, session: SessionId, refuse: Refuse) {
        let id = refuse.ledger;
        let Some(asked) = self.asked(session, &id) else {
            return self.fail(now, session, "it refuses what was not asked for");
        };
        let ledger = self.ledgers.get(&id).expect("only known ledgers are asked for");
        let reason = match refuse.reason {
            RefuseReason::Unknown => "it does not offer this ledger".to_string(),
            RefuseReason::Unreadable => {
                format!("it cannot read entry {} of its own ledger: its log says why", asked.size)
            }
            RefuseReason::Pruned { first } => {
                self.behind(now, session, &id);
                format!(
                    "it has pruned the entries before {first}, of which {} are here",
                    asked.size
                )
            }
            RefuseReason::Lineage { ours } => {
                format!("its ledger has lineage {ours}, ours is {}", ledger.lineage)
            }
            RefuseReason::Fork { root, claim } => {
                let policy = ledger.policy().expect("a verified ledger has usable keys");
                let proven = claim.verify(&policy, asked.size, root);
                if proven.is_ok() && root != asked.root {
                    let size = asked.size;
                    let evidence = ledger.evidence(local, size, asked.root, root, claim);
                    return self.halt(now, evidence);
                }
                format!("it claims a fork at size {} without proof", asked.size)
            }
        };
        self.answered(session, &id, Answer::Refused);
        self.note_refusal(session, &id, &reason);
        let open = self.session_mut(session).expect("it was looked up before");
        let parent = open.parent;
        let feeds = open.asked.values().any(|asked| asked.answer != Answer::Refused);
        if !self.is_active(session) || !feeds || self.parents.has_other(now, parent) {
            self.fail(now, session, &format!("it does not feed {id}: {reason}"));
        }
    }

    /// A parent has pruned what comes next here. If none of the others may have it, a snapshot is taken of this one.
    fn behind(&mut self, now: Instant, session: SessionId, id: &LedgerId) {
        let Some(parent) = self.session_mut(session).map(|open| open.parent) else { return };
        let ledger = self.ledgers.get_mut(id).expect("a known ledger");
        if !ledger.is_taking && !self.parents.has_other(now, parent) {
            ledger.is_taking = true;
            self.actions.push_back(FollowAction::TakeSnapshot { ledger: id.clone(), parent });
        }
    }

    /// A signed checkpoint of a ledger in which this mirror is ahead.
    fn head(&mut self, now: Instant, local: &dyn Local, session: SessionId, head: &HeadNote) {
        let Some(ledger) = self.ledgers.get(&head.ledger) else {
            return self.fail(now, session, "a head of a ledger that was not asked for");
        };
        match ledger.compare(local, &head.note) {
            Ok(None) => {}
            Ok(Some(evidence)) => self.halt(now, evidence),
            Err(error) => self.refused(now, session, &head.ledger, &error.to_string()),
        }
    }

    /// Two histories are signed: follow this ledger no more, keep both heads.
    fn halt(&mut self, now: Instant, evidence: Evidence) {
        let id = evidence.ledger.clone();
        self.ledgers.get_mut(&id).expect("evidence of a known ledger").halt();
        for session in [&mut self.active, &mut self.probe].into_iter().flatten() {
            session.asked.remove(&id);
        }
        self.actions.push_back(FollowAction::Evidence(Box::new(evidence)));
        self.event(FollowEvent::Halted { ledger: id });
        self.manage(now);
    }

    /// Something from this session is not believed: the ledger stays as it is, the parent is left.
    fn refused(&mut self, now: Instant, session: SessionId, ledger: &LedgerId, reason: &str) {
        self.note_refusal(session, ledger, reason);
        self.fail(now, session, &format!("{ledger}: {reason}"));
    }

    fn note_refusal(&mut self, session: SessionId, ledger: &LedgerId, reason: &str) {
        let Some(parent) = self.session_mut(session).map(|session| session.parent) else { return };
        let parent = self.config.parents[parent].clone();
        self.ledgers.get_mut(ledger).expect("a known ledger").refusals += 1;
        let (ledger, reason) = (ledger.clone(), reason.to_string());
        self.event(FollowEvent::Refused { parent, ledger, reason });
    }

    /// Hands on what can be made durable.
    fn commit(&mut self, ledger: &LedgerId) {
        let ledger = self.ledgers.get_mut(ledger).expect("a known ledger");
        while let Some(admitted) = ledger.ready() {
            self.actions.push_back(FollowAction::Commit(admitted));
        }
    }

    /// Asks for values that verified entries wait for, a few at a time.
    pub(super) fn want(&mut self) {
        let Some(active) = self.active.as_mut().filter(|active| active.is_open()) else { return };
        let held = self.storing.len();
        let mut bytes: u64 = active.wanted.values().chain(self.storing.values()).sum();
        for (id, ledger) in &self.ledgers {
            let mut digests: Vec<Digest> = Vec::new();
            for (digest, len) in ledger.missing() {
                let fits = bytes == 0 || bytes + len <= VALUE_BYTES_WANTED_MAX;
                if active.wanted.len() + held >= VALUES_WANTED_MAX || !fits {
                    break;
                }
                if active.wanted.insert((id.clone(), *digest), len).is_none() {
                    bytes += len;
                    digests.push(*digest);
                }
            }
            if !digests.is_empty() {
                let message = ChildMessage::Want(Want { ledger: id.clone(), digests });
                self.actions.push_back(FollowAction::Send { session: active.id, message });
            }
        }
    }
}
