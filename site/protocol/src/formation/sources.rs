//! Which of several sources a node asks that completes its ledgers (docs/protocol.md, section 8).

use alloc::vec::Vec;
use core::cmp::Reverse;

use super::Stage;
use crate::access::StoreAccess;
use crate::ids::{Instant, NodeId, Now};
use crate::node::{NodeCore, Phase};
use crate::wire::Control;

/// A source has not answered yet: since when, and when it was asked last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owed {
    since: Instant,
    asked: Instant,
}

impl<S: StoreAccess> NodeCore<S> {
    /// Asks a source. A node has one question under way at a time: that is what bounds the work that it makes for others.
    pub(super) fn question(&mut self, now: Now, to: NodeId, question: Control) {
        let owes = &mut self.peers[to.index()].owes;
        let since = owes.map_or(now.instant, |owed| owed.since);
        *owes = Some(Owed { since, asked: now.instant });
        self.send(to, question);
    }

    /// A source answered, whatever became of the question meanwhile.
    pub(super) fn answered(&mut self, from: NodeId) {
        self.peers[from.index()].owes = None;
    }

    /// How readily a source is asked: who owes an answer for too long only if all others do, and of these who was asked
    /// longest ago.
    pub(super) fn readiness(&self, now: Now, node: NodeId) -> Reverse<Option<Instant>> {
        let silence = self.config.limits.silence_us;
        let owes = self.peers[node.index()].owes;
        let owes = owes.filter(|owed| now.instant.since(owed.since) > silence);
        Reverse(owes.map(|owed| owed.asked))
    }

    /// One of those that rank highest: each node begins at another one, and at each attempt, so that not all ask the same.
    pub(super) fn one_of<T, R: Ord>(
        &self,
        sources: impl Iterator<Item = T>,
        rank: impl Fn(&T) -> R,
    ) -> Option<T> {
        let mut sources: Vec<T> = sources.collect();
        let best = sources.iter().map(&rank).max()?;
        sources.retain(|source| rank(source) == best);
        let turn = self.attempt.wrapping_add(self.config.own.index() as u64);
        Some(sources.swap_remove((turn % sources.len() as u64) as usize))
    }

    /// A source that does not answer is not asked again if there is another; within a formation there is one only for the
    /// parts of a snapshot.
    pub(super) fn watch_sources(&mut self, now: Now) {
        let (slept, silence) = (self.slept(now), self.config.limits.silence_us);
        let Phase::Forming(forming) = &mut self.phase else { return };
        let learns = matches!(forming.stage, Stage::Learning(_));
        let Some(completion) = forming.completion() else { return };
        if slept {
            completion.moved_at = now.instant;
        }
        let awaited = if learns { completion.awaited() } else { completion.awaited_part() };
        let Some(source) = awaited else { return };
        if now.instant.since(completion.moved_at) > silence {
            completion.abandon_source(source);
            self.out.counters.sources_lost += 1;
            self.catch_up(now);
        }
    }
}
