//! How long a thread looks at the rings before it parks: as long as that has paid lately, and not at all when idle.
//!
//! To park and to be woken costs a system call at both ends and some microseconds until the sleeper runs; a peer that
//! is awake answers sooner. Whether the answer comes so soon is not known before, but the last waits tell: the limit
//! grows with each wait that was short, whether it was spent looking or asleep, and falls to nothing within a few
//! that were long. So a thread with nothing to do looks at no ring, and one that waits for a disk loses little.
//!
//! A peer may need the very core on which we look. So after the first looks the core is offered to others between
//! any two ([`std::thread::yield_now`], which returns at once where nobody wants it). One who then does not come back
//! soon learns that the core is needed, and rests: parks without a look, for longer each time that it happens again.

use std::{
    hint, thread,
    time::{Duration, Instant},
};

/// A wait that ends within this time would have been spent better looking than parked.
const SHORT: Duration = Duration::from_micros(20);
/// The limit when it begins to grow, and the longest. The longest is about what a park and a wake-up cost.
const LIMIT_MIN: Duration = Duration::from_micros(2);
const LIMIT_MAX: Duration = Duration::from_micros(16);
/// Looks before the core is offered to others, and between any two offers.
const LOOKS: u32 = 32;
/// Who gets the core back later than this has taken it from somebody.
const AWAY: Duration = Duration::from_micros(100);
const REST_MIN: Duration = Duration::from_millis(1);
const REST_MAX: Duration = Duration::from_secs(1);

/// What the last waits have taught.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Duration,
    rest: Duration,
    rest_until: Option<Instant>,
}

impl Default for Patience {
    fn default() -> Self {
        Self { limit: Duration::ZERO, rest: REST_MIN, rest_until: None }
    }
}

impl Patience {
    /// Looks until `found`, for as long as it pays. Whether it was found.
    pub(super) fn look(
        &mut self,
        began: Instant,
        mut clock: impl FnMut() -> Instant,
        mut found: impl FnMut() -> bool,
    ) -> bool {
        if self.limit.is_zero() || self.rest_until.is_some_and(|until| began < until) {
            return false;
        }
        let mut now = began;
        while now - began <= self.limit {
            for _ in 0..LOOKS {
                if found() {
                    // What one loses by going away is paid by some hundred answers that were found.
                    self.rest = (self.rest - self.rest / 64).max(REST_MIN);
                    return true;
                }
                hint::spin_loop();
            }
            thread::yield_now();
            let before = std::mem::replace(&mut now, clock());
            if now - before > AWAY {
                self.rest_until = Some(now + self.rest);
                self.rest = (2 * self.rest).min(REST_MAX);
                break;
            }
        }
        found()
    }

    /// Learns from a wait: how long it took until there was what a look finds, `None` if it ended otherwise.
    pub(super) fn learn(&mut self, waited: Option<Duration>) {
        self.limit = match waited.is_some_and(|waited| waited <= SHORT) {
            true => (2 * self.limit).clamp(LIMIT_MIN, LIMIT_MAX),
            false => Some(self.limit / 2).filter(|half| *half >= LIMIT_MIN).unwrap_or_default(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    /// Looks in vain, by a clock that goes on by `step` at each look at it; gives how long it took.
    fn look_in_vain(patience: &mut Patience, began: Instant, step: Duration) -> Duration {
        let mut now = began;
        let clock = || {
            now += step;
            now
        };
        assert!(!patience.look(began, clock, || false));
        now - began
    }

    #[test]
    fn one_looks_only_while_waits_are_short_and_never_when_idle() {
        let (mut patience, began) = (Patience::default(), Instant::now());
        assert!(look_in_vain(&mut patience, began, US).is_zero(), "nothing is known yet");
        (0..9).for_each(|_| patience.learn(Some(5 * US)));
        let longest = look_in_vain(&mut patience, began, US);
        assert!((LIMIT_MAX..LIMIT_MAX + 2 * US).contains(&longest), "{longest:?}");
        let mut looks = 0;
        let third = || {
            looks += 1;
            looks == 3
        };
        assert!(patience.look(began, Instant::now, third));

        // All the looks in vain of a thread that becomes idle, together, whatever ends its waits.
        for idle in [Some(Duration::from_millis(1)), None] {
            (0..9).for_each(|_| patience.learn(Some(5 * US)));
            let mut lost = Duration::ZERO;
            for _ in 0..9 {
                patience.learn(idle);
                lost += look_in_vain(&mut patience, began, US);
            }
            assert!(lost < 20 * US, "{lost:?}");
            assert!(look_in_vain(&mut patience, began, US).is_zero(), "idle, and still it looks");
        }
    }

    #[test]
    fn one_whose_core_is_needed_rests_longer_each_time() {
        let (mut patience, mut began) = (Patience::default(), Instant::now());
        (0..9).for_each(|_| patience.learn(Some(5 * US)));
        for rest in [1, 2, 4].map(Duration::from_millis) {
            let away = look_in_vain(&mut patience, began, Duration::from_millis(3));
            assert_eq!(away, Duration::from_millis(3), "one offer, and the core was gone");
            let back = began + away;
            assert!(look_in_vain(&mut patience, back + rest - US, US).is_zero(), "it rests");
            began = back + rest;
        }
        assert!(patience.look(began, Instant::now, || true), "and looks again after it");
    }
}
