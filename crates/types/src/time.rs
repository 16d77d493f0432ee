//! Instants. Nobody below the edge reads a clock: time comes in with the input.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds on a clock that never goes back and starts anywhere; for deadlines and lag.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct MonotonicMs(pub u64);

impl MonotonicMs {
    /// The instant `ms` later.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> MonotonicMs {
        MonotonicMs(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this instant; zero if it is not earlier.
    #[must_use]
    pub const fn ms_since(self, earlier: MonotonicMs) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Milliseconds since 1970 on the wall clock; only for record timestamps and retention, never for
/// a rule of safety or liveness (P-22).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct WallClockMs(pub i64);

impl fmt::Display for WallClockMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
