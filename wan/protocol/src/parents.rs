//! Which parent to try next, and when.
//!
//! Parents stand in order of preference. One that fails is left alone for a while that doubles with
//! each further failure; one that served for some time is forgiven everything.

use alloc::{vec, vec::Vec};

use crate::time::{Instant, Timing};

#[derive(Clone, Copy, Debug, Default)]
struct Candidate {
    failures: u32,
    not_before: Instant,
}

/// The candidates of one follower.
#[derive(Debug)]
pub(crate) struct Parents {
    candidates: Vec<Candidate>,
}

impl Parents {
    pub(crate) fn new(count: usize) -> Self {
        Self { candidates: vec![Candidate::default(); count] }
    }

    /// The most preferred of the first `count` that may be tried now.
    pub(crate) fn next(&self, now: Instant, count: usize) -> Option<usize> {
        self.candidates.iter().take(count).position(|candidate| candidate.not_before <= now)
    }

    /// When the first of the first `count` may be tried again.
    pub(crate) fn next_at(&self, count: usize) -> Option<Instant> {
        self.candidates.iter().take(count).map(|candidate| candidate.not_before).min()
    }

    /// Whether there is another one than `index` that may be tried now.
    pub(crate) fn has_other(&self, now: Instant, index: usize) -> bool {
        self.next_other(index).is_some_and(|at| at <= now)
    }

    /// When another one than `index` may be tried; `None` if there is no other.
    pub(crate) fn next_other(&self, index: usize) -> Option<Instant> {
        let others = self.candidates.iter().enumerate().filter(|(other, _)| *other != index);
        others.map(|(_, candidate)| candidate.not_before).min()
    }

    pub(crate) fn failed(&mut self, now: Instant, index: usize, timing: &Timing) {
        let candidate = &mut self.candidates[index];
        let doublings = candidate.failures.min(16);
        let pause = timing.backoff_min.saturating_mul(1 << doublings).min(timing.backoff_max);
        candidate.failures += 1;
        candidate.not_before = now.after(pause);
    }

    /// Not before `probe` from now shall this one be tried, although it did nothing wrong.
    pub(crate) fn rest(&mut self, now: Instant, index: usize, timing: &Timing) {
        let candidate = &mut self.candidates[index];
        candidate.not_before = candidate.not_before.max(now.after(timing.probe));
    }

    pub(crate) fn settled(&mut self, index: usize) {
        self.candidates[index] = Candidate::default();
    }

    pub(crate) fn len(&self) -> usize {
        self.candidates.len()
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn failures_double_the_pause_up_to_its_limit_and_service_forgives() {
        let timing = Timing::default();
        let mut parents = Parents::new(2);
        let now = Instant(0);
        assert_eq!(parents.next(now, 2), Some(0));
        parents.failed(now, 0, &timing);
        assert_eq!(parents.next(now, 2), Some(1));
        assert_eq!(parents.next_at(1), Some(now.after(timing.backoff_min)));
        parents.failed(now, 0, &timing);
        assert_eq!(parents.next_at(1), Some(now.after(timing.backoff_min * 2)));
        (0..40).for_each(|_| parents.failed(now, 0, &timing));
        assert_eq!(parents.next_at(1), Some(now.after(timing.backoff_max)));
        assert!(parents.has_other(now, 0) && !parents.has_other(now, 1));
        parents.settled(0);
        parents.failed(now, 0, &timing);
        assert_eq!(parents.next(Instant(0).after(Duration::from_millis(100)), 1), Some(0));
    }
}
