//! A position in a partition's log.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The position of a record in a partition's log; never negative.
///
/// Signed as on the wire and on disk, so that no cast stands between memory and either.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Offset(i64);

impl Offset {
    /// The first offset of an empty log.
    pub const ZERO: Offset = Offset(0);

    /// Makes an offset; a negative number (a sentinel of the wire) gives `None`.
    #[must_use]
    pub const fn new(value: i64) -> Option<Offset> {
        if value < 0 { None } else { Some(Offset(value)) }
    }

    /// Makes an offset from a number that is known not to be negative; negative ones become zero.
    #[must_use]
    pub const fn saturating(value: i64) -> Offset {
        Offset(if value < 0 { 0 } else { value })
    }

    /// The number as the wire carries it.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The offset `count` records later; stays at the largest offset instead of overflowing.
    #[must_use]
    pub const fn plus(self, count: i64) -> Offset {
        Offset::saturating(self.0.saturating_add(count))
    }

    /// The offset after this one.
    #[must_use]
    pub const fn next(self) -> Offset {
        self.plus(1)
    }

    /// How many offsets lie between `earlier` and this one; negative if it is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Offset) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_never_negative() {
        assert_eq!(Offset::new(-1), None);
        assert_eq!(Offset::saturating(-5), Offset::ZERO);
        assert_eq!(Offset::ZERO.plus(-3), Offset::ZERO);
        assert_eq!(Offset::saturating(i64::MAX).next().get(), i64::MAX);
    }

    #[test]
    fn distance_is_signed() {
        let (a, b) = (Offset::saturating(3), Offset::saturating(10));
        assert_eq!(b.since(a), 7);
        assert_eq!(a.since(b), -7);
    }
}
