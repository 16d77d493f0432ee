//! A record as it is read, and what else a poll may bring.

use bytes::Bytes;

use ottla_wire::ErrorCode;

use crate::{
    error::RequestError, group::GroupError, leaders::PartitionError, metadata::TopicPartition,
};

/// A record of a partition; shares the memory of its batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerRecord {
    /// Where it stands.
    pub partition: TopicPartition,
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Epoch of the leader that took it.
    pub leader_epoch: Option<i32>,
    /// Key.
    pub key: Option<Bytes>,
    /// Value.
    pub value: Option<Bytes>,
    /// Headers, in order.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// What one poll brought.
#[derive(Debug, Default)]
pub struct Polled {
    /// Records, in order within each partition.
    pub records: Vec<ConsumerRecord>,
    /// What the group decided. [`RebalanceEvent::Revoked`] takes effect at the next poll: until
    /// then offsets of those partitions can be committed.
    pub events: Vec<RebalanceEvent>,
}

impl Polled {
    /// Whether nothing came.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.events.is_empty()
    }
}

/// A change of what this member reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RebalanceEvent {
    /// These are read from now on, besides those read before.
    Assigned(Vec<TopicPartition>),
    /// These are given up when polled again.
    Revoked(Vec<TopicPartition>),
    /// These were taken away: others may read them already, and commits are refused.
    Lost(Vec<TopicPartition>),
}

/// Why a consumer cannot go on, or cannot do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConsumerError {
    /// There is no offset to begin from and no rule for that.
    #[error("no offset to begin from: {0}")]
    NoOffset(TopicPartition),
    /// The offset does not exist (any more) and there is no rule for that.
    #[error("offset {offset} of {partition} is out of range")]
    OutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// The offset asked for.
        offset: i64,
    },
    /// The log was cut below what had been read (KIP-320), and there is no rule for that.
    #[error("{partition} was cut at {end_offset}, below the position {offset}")]
    Truncated {
        /// The partition.
        partition: TopicPartition,
        /// The position.
        offset: i64,
        /// Where the logs parted.
        end_offset: i64,
    },
    /// The broker refuses to serve the partition.
    #[error("{partition}: {code}")]
    Refused {
        /// The partition.
        partition: TopicPartition,
        /// Its reason.
        code: ErrorCode,
    },
    /// A batch is damaged.
    #[error("{partition}: {reason}")]
    Corrupt {
        /// The partition.
        partition: TopicPartition,
        /// What is wrong with it, and where.
        reason: String,
    },
    /// The question about a partition was not answered.
    #[error("{partition}: {error}")]
    Partition {
        /// The partition.
        partition: TopicPartition,
        /// Why.
        error: PartitionError,
    },
    /// The coordinator refuses, or was not found.
    #[error("group: {0}")]
    Group(#[from] GroupError),
    /// The offsets of a partition were not committed.
    #[error("commit of {partition}: {code}")]
    Commit {
        /// The partition.
        partition: TopicPartition,
        /// The coordinator's reason.
        code: ErrorCode,
    },
    /// The member was taken out of the group: its offsets can no longer be committed.
    #[error("no longer a member of the group")]
    NotAMember,
    /// The call does not fit how the consumer is used.
    #[error("{0}")]
    Misused(&'static str),
    /// The request cannot be made.
    #[error(transparent)]
    Request(#[from] RequestError),
}
