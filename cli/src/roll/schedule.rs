//! When the next roll is due: a pure function of the times that the caller tells.

use std::time::Duration;

/// A roll that failed is tried again after so long, or when the next is due if that is sooner.
const RETRY: Duration = Duration::from_secs(3_600);

/// Rolls at multiples of a period since the beginning, the first at once.
#[derive(Debug)]
pub(crate) struct Schedule {
    every: Duration,
    next: Duration,
}

impl Schedule {
    /// # Panics
    /// If `every` is zero, which [`period`] does not give.
    pub(crate) fn new(every: Duration) -> Self {
        assert!(!every.is_zero(), "a period");
        Self { every, next: Duration::ZERO }
    }

    /// When the next roll is due, since the beginning.
    pub(crate) fn next(&self) -> Duration {
        self.next
    }

    /// A roll ended at `now`. Times that passed meanwhile are left out: rolls do not pile up.
    pub(crate) fn rolled(&mut self, now: Duration, done: bool) {
        let periods = now.as_nanos() / self.every.as_nanos() + 1;
        let due = u32::try_from(periods).ok().and_then(|periods| self.every.checked_mul(periods));
        let due = due.unwrap_or(Duration::MAX);
        self.next = if done { due } else { due.min(now + RETRY) };
    }
}

/// `90s`, `30m`, `12h`, `7d`.
pub(crate) fn period(text: &str) -> Result<Duration, String> {
    let units = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];
    let parsed = units.into_iter().find_map(|(unit, seconds)| {
        let number: u32 = text.strip_suffix(unit)?.parse().ok()?;
        Some(Duration::from_secs(u64::from(number) * seconds))
    });
    let longest = Duration::from_secs(366 * 86_400);
    parsed
        .filter(|period| (Duration::from_secs(1)..=longest).contains(period))
        .ok_or_else(|| "a number and s, m, h or d, from 1s to 366d, as in 7d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600;

    fn at(hours: u64) -> Duration {
        Duration::from_secs(hours * HOUR)
    }

    #[test]
    fn rolls_keep_their_rhythm_whatever_a_roll_takes() {
        let mut schedule = Schedule::new(at(24));
        assert_eq!(schedule.next(), at(0), "the first at once");
        schedule.rolled(at(1), true);
        assert_eq!(schedule.next(), at(24));
        schedule.rolled(at(24) + Duration::from_secs(90), true);
        assert_eq!(schedule.next(), at(48));
        schedule.rolled(at(100), true);
        assert_eq!(schedule.next(), at(120), "what was due at 72 and 96 is left out");
    }

    #[test]
    fn a_roll_that_failed_is_tried_again_within_the_hour() {
        let mut schedule = Schedule::new(at(24));
        schedule.rolled(at(2), false);
        assert_eq!(schedule.next(), at(3));
        schedule.rolled(at(3), true);
        assert_eq!(schedule.next(), at(24), "and does not shift the others");
        let mut often = Schedule::new(Duration::from_secs(60));
        often.rolled(Duration::from_secs(5), false);
        assert_eq!(often.next(), Duration::from_secs(60));
    }

    #[test]
    fn periods_have_a_unit_and_bounds() {
        assert_eq!(period("7d"), Ok(at(7 * 24)));
        assert_eq!(period("90s"), Ok(Duration::from_secs(90)));
        for bad in ["", "7", "d", "0s", "-1d", "1.5h", "367d", "99999999999d", "7 d", "7w"] {
            assert!(period(bad).is_err(), "{bad}");
        }
    }
}
