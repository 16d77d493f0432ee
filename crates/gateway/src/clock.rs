//! The one place of the gateway that reads the wall clock: record timestamps are judged by it.

use std::time::{SystemTime, UNIX_EPOCH};

use ottla_types::WallClockMs;

/// Milliseconds since 1970, now.
#[allow(
    clippy::disallowed_methods,
    reason = "time is read at the edge, here, once a request"
)]
pub(crate) fn wall_clock() -> WallClockMs {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    WallClockMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
