//! The cores' clock.

use std::time::{Duration, Instant as SystemInstant};

use tradewind_wan_protocol::Instant;

/// Monotonic time since this was made, as the cores count it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(SystemInstant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(SystemInstant::now())
    }

    pub(crate) fn now(self) -> Instant {
        Instant::default().after(self.0.elapsed())
    }

    /// The system's instant of a core's; far ones are an hour away.
    pub(crate) fn system(self, at: Instant) -> tokio::time::Instant {
        let span = at.since(Instant::default()).min(self.0.elapsed() + Duration::from_secs(3_600));
        tokio::time::Instant::from_std(self.0 + span)
    }

    /// The system's instant of a moment in the past.
    pub(crate) fn past(self, at: Instant) -> SystemInstant {
        self.0 + at.since(Instant::default()).min(self.0.elapsed())
    }
}
