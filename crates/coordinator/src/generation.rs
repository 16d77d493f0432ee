//! The number of a group's rebalance round.

use std::fmt;

/// One rebalance round of a group; rises with each, and is durable before a member hears of it
/// (G-4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GenerationId(pub i32);

impl GenerationId {
    /// Makes a generation; a negative number (a sentinel of the wire) gives `None`.
    #[must_use]
    pub const fn new(value: i32) -> Option<GenerationId> {
        if value < 0 {
            None
        } else {
            Some(GenerationId(value))
        }
    }

    /// The number as the wire carries it.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }

    /// The next round. After the largest number comes 1: two billion rounds later nobody is left
    /// who could confuse the two.
    #[must_use]
    pub const fn next(self) -> GenerationId {
        match self.0.checked_add(1) {
            Some(next) if next > 0 => GenerationId(next),
            Some(_) | None => GenerationId(1),
        }
    }
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
