//! The one place in this crate that reads clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ottla_types::{MonotonicMs, WallClockMs};

/// A monotonic clock that starts near zero, and the wall clock for record timestamps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    #[allow(clippy::disallowed_methods, reason = "time is read here and passed on")]
    pub(crate) fn new() -> Clock {
        Clock {
            start: Instant::now(),
        }
    }

    #[allow(clippy::disallowed_methods, reason = "time is read here and passed on")]
    pub(crate) fn now(&self) -> MonotonicMs {
        // One second ahead of zero, so that "long ago" has room.
        let elapsed = Instant::now().saturating_duration_since(self.start);
        MonotonicMs(
            u64::try_from(elapsed.as_millis())
                .unwrap_or(u64::MAX)
                .saturating_add(1_000),
        )
    }

    /// Microseconds since some start; for durations.
    #[allow(clippy::disallowed_methods, reason = "time is read here and passed on")]
    pub(crate) fn micros(&self) -> u64 {
        let elapsed = Instant::now().saturating_duration_since(self.start);
        u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
    }

    /// How long until `deadline`.
    pub(crate) fn until(&self, deadline: MonotonicMs) -> Duration {
        Duration::from_millis(deadline.ms_since(self.now()))
    }

    /// Only for record timestamps and retention (P-22).
    #[allow(clippy::disallowed_methods, reason = "time is read here and passed on")]
    pub(crate) fn wall(&self) -> WallClockMs {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        WallClockMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}
