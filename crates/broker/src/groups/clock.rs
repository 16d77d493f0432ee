//! The one place where hosted groups read the time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use ottla_coordinator::Now;
use ottla_types::{MonotonicMs, WallClockMs};

/// Translates between tokio's clock and the instants of the state machines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    pub(super) fn new() -> Clock {
        Clock {
            start: Instant::now(),
        }
    }

    pub(super) fn now(&self) -> Now {
        Now {
            monotonic: self.monotonic(Instant::now()),
            wall: wall_clock(),
        }
    }

    pub(super) fn monotonic(&self, at: Instant) -> MonotonicMs {
        let elapsed = at.saturating_duration_since(self.start).as_millis();
        MonotonicMs(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    pub(super) fn instant(&self, at: MonotonicMs) -> Instant {
        // A deadline too far away to be told is as good as a day.
        let far = Duration::from_secs(86_400);
        self.start
            .checked_add(Duration::from_millis(at.0))
            .unwrap_or(self.start + far)
    }
}

/// Only ends up in records (P-22).
#[allow(
    clippy::disallowed_methods,
    reason = "this is the clock of hosted groups"
)]
fn wall_clock() -> WallClockMs {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    WallClockMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
