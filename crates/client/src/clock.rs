//! The one place of the client that reads the wall clock: timestamps of records.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, now.
#[allow(
    clippy::disallowed_methods,
    reason = "time is read at the edge, here, once a record"
)]
pub(crate) fn wall_clock_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
