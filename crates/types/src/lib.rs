//! Ids, epochs, offsets and times: the words every other crate speaks.
//!
//! Each number that Kafka's protocol carries has a type of its own here, so that swapping two of
//! them does not compile. Widths are those of the wire and of the log on disk; a sentinel such as
//! `-1` never appears inside: it is an `Option`, translated at the edge.

mod epoch;
mod flush;
mod id;
mod offset;
mod time;

pub use epoch::{BrokerEpoch, LeaderEpoch, PartitionEpoch, ProducerEpoch};
pub use flush::FlushMode;
pub use id::{BrokerId, ParseTopicIdError, PartitionId, PartitionIndex, ProducerId, TopicId};
pub use offset::Offset;
pub use time::{MonotonicMs, WallClockMs};
