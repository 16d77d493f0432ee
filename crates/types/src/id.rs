//! Names of brokers, topics, partitions and producers.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// Makes an id; a negative number (a sentinel of the wire) gives `None`.
            #[must_use]
            pub const fn new(value: $inner) -> Option<$name> {
                if value < 0 { None } else { Some($name(value)) }
            }

            /// The number as the wire carries it.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// The `node.id` of a broker or controller.
    BrokerId,
    i32
);
number_id!(
    /// The number of a partition within its topic.
    PartitionIndex,
    i32
);
number_id!(
    /// An idempotent or transactional producer's id, allotted by the controller in blocks.
    ProducerId,
    i64
);

/// A topic's identity: a topic re-created under the same name is another topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TopicId(Uuid);

impl TopicId {
    /// Makes a topic id; the zero uuid, which the wire uses for "none", gives `None`.
    #[must_use]
    pub fn new(uuid: Uuid) -> Option<TopicId> {
        if uuid.is_nil() {
            None
        } else {
            Some(TopicId(uuid))
        }
    }

    /// The uuid as the wire carries it.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

/// Printed as Kafka prints it: 22 characters of URL-safe base64.
impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let bits = self.0.as_u128();
        for digit in 0..22u32 {
            // 22 digits of 6 bits hold 132: the last one carries four bits of padding.
            let shifted = if digit < 21 {
                bits >> (122 - 6 * digit)
            } else {
                (bits & 0b11) << 4
            };
            let index = usize::try_from(shifted & 0x3f).unwrap_or(0);
            write!(f, "{}", char::from(DIGITS[index]))?;
        }
        Ok(())
    }
}

/// The text is not the 22 characters of URL-safe base64 that Kafka prints for a topic id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a topic id is 22 characters of URL-safe base64 and not zero, got {0:?}")]
pub struct ParseTopicIdError(String);

impl FromStr for TopicId {
    type Err = ParseTopicIdError;

    fn from_str(text: &str) -> Result<TopicId, ParseTopicIdError> {
        let fail = || ParseTopicIdError(text.chars().take(64).collect());
        if text.len() != 22 {
            return Err(fail());
        }
        let mut bits: u128 = 0;
        for (position, byte) in text.bytes().enumerate() {
            let digit = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return Err(fail()),
            };
            bits = if position < 21 {
                (bits << 6) | u128::from(digit)
            } else {
                (bits << 2) | u128::from(digit >> 4)
            };
        }
        TopicId::new(Uuid::from_u128(bits)).ok_or_else(fail)
    }
}

/// One partition of one topic, by the topic's identity rather than its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId {
    /// The topic.
    pub topic_id: TopicId,
    /// The partition within it.
    pub partition: PartitionIndex,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic_id, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_id_prints_and_parses_as_kafka_does() {
        // 16 bytes 0..15 in URL-safe base64 without padding.
        let id = TopicId(Uuid::from_u128(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f));
        assert_eq!(id.to_string(), "AAECAwQFBgcICQoLDA0ODw");
        assert_eq!("AAECAwQFBgcICQoLDA0ODw".parse(), Ok(id));
        let all = TopicId(Uuid::from_u128(u128::MAX));
        assert_eq!(all.to_string().parse(), Ok(all));
    }

    #[test]
    fn odd_topic_ids_are_refused() {
        assert!("AAAAAAAAAAAAAAAAAAAAAA".parse::<TopicId>().is_err());
        assert!("short".parse::<TopicId>().is_err());
        assert!("AAECAwQFBgcICQoLDA0OD!".parse::<TopicId>().is_err());
    }
}
