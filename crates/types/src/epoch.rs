//! The four epochs, each of which fences something older.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! epoch {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// The first epoch.
            pub const ZERO: $name = $name(0);

            /// Makes an epoch; a negative number (a sentinel of the wire) gives `None`.
            #[must_use]
            pub const fn new(value: $inner) -> Option<$name> {
                if value < 0 { None } else { Some($name(value)) }
            }

            /// Makes an epoch from a number that is known not to be negative; negative ones
            /// become zero.
            #[must_use]
            pub const fn saturating(value: $inner) -> $name {
                $name(if value < 0 { 0 } else { value })
            }

            /// The number as the wire carries it.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }

            /// The epoch after this one.
            #[must_use]
            pub const fn next(self) -> $name {
                $name(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

epoch!(
    /// One leadership of a partition; fences a deposed leader (KIP-101, KIP-320).
    LeaderEpoch,
    i32
);
epoch!(
    /// One state of a partition's leader and ISR; fences a stale ISR change (KIP-497).
    PartitionEpoch,
    i32
);
epoch!(
    /// One registration (incarnation) of a broker; fences the broker's former life (KIP-903).
    BrokerEpoch,
    i64
);
epoch!(
    /// One life of a producer id; fences an earlier holder of it (KIP-98).
    ProducerEpoch,
    i16
);
