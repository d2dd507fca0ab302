//! Time as the cores see it: an argument, never a call.

use core::time::Duration;

/// A moment of the shell's monotonic clock, in microseconds since some start of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub u64);

impl Instant {
    /// The moment `span` later; saturates.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }

    /// The moment `span` earlier; saturates.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How long before this moment `earlier` was; zero if it was not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// The protocol's deadlines.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A connection that is not established and greeted by then is given up.
    pub connect: Duration,
    /// How often a parent shows that it lives, and a child reports although nothing changed.
    pub beat: Duration,
    /// A parent that was not heard of for this long, or that owes a batch for this long, is left.
    pub stall: Duration,
    /// A parent whose ledgers have not grown at all for this long is left if there is another one.
    /// An idle ledger grows by a SEAL a minute, so this is longer than that.
    pub silence: Duration,
    /// First pause after a parent failed; it doubles with each further failure.
    pub backoff_min: Duration,
    /// Longest such pause.
    pub backoff_max: Duration,
    /// How often a parent of higher preference is tried while another one serves, and how long a
    /// parent must have served before its failures are forgotten.
    pub probe: Duration,
    /// Shortest time between two reports of frontiers.
    pub report: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            connect: ms(2_000),
            beat: ms(1_000),
            stall: ms(5_000),
            silence: ms(150_000),
            backoff_min: ms(100),
            backoff_max: ms(10_000),
            probe: ms(5_000),
            report: ms(50),
        }
    }
}
