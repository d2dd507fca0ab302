//! When the lowest member of the view asks for a seal or a mark: the only place where a clock has a say, and all it can do is to put an
//! ordered request into a message (docs/protocol.md, sections 4 and 6).

use tradewind_ledger::Version;

use super::{Outputs, Replica};
use crate::access::StoreAccess;
use crate::config::Limits;
use crate::ids::{Instant, Now};
use crate::ring::Flags;

/// Deadlines of the lowest member, who asks for seals and marks.
#[derive(Clone, Debug)]
pub(super) struct Timers {
    /// Since when the open segment has entries.
    pub(super) content_since: Option<Instant>,
    /// When the last segment was sealed.
    pub(super) sealed_at: Instant,
    pub(super) segment: u64,
    /// Since when there are entries behind the last mark.
    pub(super) unmarked_since: Option<Instant>,
    pub(super) marked: Version,
    pub(super) marked_at: Instant,
}

impl Default for Timers {
    fn default() -> Self {
        Self::of_view(Instant(0), 0)
    }
}

impl Timers {
    /// A view begins, while this segment is open.
    pub(super) fn of_view(now: Instant, segment: u64) -> Self {
        Self {
            content_since: None,
            sealed_at: now,
            segment,
            unmarked_since: None,
            marked: Version::ZERO,
            marked_at: now,
        }
    }
}

impl<S: StoreAccess> Replica<S> {
    /// Whether another own message may be on its way. If not, a delivery or a sync will say so again.
    pub(super) fn may_send(&self, limits: &Limits) -> bool {
        let outstanding = self.flow.as_ref().map_or(0, |flow| flow.order.outstanding());
        outstanding < limits.outstanding_messages && self.backlog_bytes <= limits.backlog_bytes
    }

    /// What the lowest member has to ask for with its next message; `rides` if one is sent anyway.
    pub(super) fn control_flags(&self, now: Instant, limits: &Limits, rides: bool) -> Flags {
        let mut flags = Flags::default();
        let Some(flow) = self.flow.as_ref().filter(|flow| flow.leads) else { return flags };
        let timers = &self.timers;
        if flow.seals_sent == 0 {
            if self.seal_due_at(limits).is_some_and(|due| due <= now) {
                flags = flags.with(Flags::SEAL);
            } else if self.beat_due_at(limits).is_some_and(|due| due <= now) {
                flags = flags.with(Flags::BEAT);
            }
        }
        let interval = limits.mark_interval_us;
        // One mark at a time, unless its signatures do not come.
        let patience = if self.marks.is_outstanding() { 50 * interval } else { interval };
        if flow.marks_sent == 0 && now >= timers.marked_at.plus(patience) {
            let waited = timers.unmarked_since.is_some_and(|since| now >= since.plus(interval));
            if waited || rides && timers.unmarked_since.is_some() {
                flags = flags.with(Flags::MARK);
            }
        }
        flags
    }

    fn seal_due_at(&self, limits: &Limits) -> Option<Instant> {
        self.timers.content_since.map(|since| since.plus(limits.seal.age.as_micros() as u64))
    }

    fn beat_due_at(&self, limits: &Limits) -> Option<Instant> {
        let beat = limits.seal.heartbeat.as_micros() as u64;
        self.replay().segment().is_empty().then(|| self.timers.sealed_at.plus(beat))
    }

    /// When the lowest member has something to ask for if nothing happens until then.
    pub(crate) fn next_timer(&self, limits: &Limits) -> Option<Instant> {
        let flow = self.flow.as_ref().filter(|flow| flow.leads)?;
        if !self.may_send(limits) || flow.writer.place(0).is_none() {
            // Not time, but something that lands will make it possible.
            return None;
        }
        let seal = match flow.seals_sent {
            0 => self.seal_due_at(limits).or_else(|| self.beat_due_at(limits)),
            _ => None,
        };
        let interval = limits.mark_interval_us;
        let mark = self.timers.unmarked_since.filter(|_| flow.marks_sent == 0).map(|since| {
            let patience = if self.marks.is_outstanding() { 50 * interval } else { interval };
            since.plus(interval).max(self.timers.marked_at.plus(patience))
        });
        seal.into_iter().chain(mark).min()
    }

    /// Starts and stops the timers by what was delivered.
    pub(super) fn note_progress(&mut self, now: Now, out: &mut Outputs) {
        let Self { machine, timers, .. } = self;
        let segment = machine.replay().segment();
        if timers.segment != segment.segment() {
            out.counters.seals += segment.segment() - timers.segment;
            timers.segment = segment.segment();
            timers.sealed_at = now.instant;
            timers.content_since = None;
        }
        if segment.is_empty() {
            timers.content_since = None;
        } else {
            timers.content_since.get_or_insert(now.instant);
        }
        if machine.size() > timers.marked {
            timers.unmarked_since.get_or_insert(now.instant);
        } else {
            timers.unmarked_since = None;
        }
    }
}
