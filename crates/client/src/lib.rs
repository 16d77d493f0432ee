//! The Kafka client: a producer, a consumer and an admin.
//!
//! It knows nothing of the server: the same code speaks to Ottla and to Apache Kafka.
//!
//! # Invariants
//! * An error says whether the write may have happened; a lost answer is never taken for a no.
//! * Failures of brokers cost time and nothing else: what is retriable is retried, with metadata
//!   from any broker that answers, until the caller's deadline.
//! * Everything is bounded: memory for records, requests in flight, waits.

mod admin;
mod backoff;
mod clock;
mod cluster;
mod config;
mod connection;
mod consumer;
mod error;
mod group;
mod leaders;
mod metadata;
mod offsets;
mod producer;

pub use admin::{
    Admin, AdminError, AlterConfig, ClusterDescription, ConfigChange, ConfigEntry, ConfigResource,
    ElectionType, GroupDescription, GroupListing, GroupMember, LogDir, LogDirReplica, NewTopic,
    ProducerState, QuorumDescription, QuorumReplica, Reassignment, Refusal,
};
pub use cluster::TopicError;
pub use config::ClientConfig;
pub use consumer::{
    Assignor, Consumer, ConsumerConfig, ConsumerError, ConsumerRecord, OffsetReset, Polled,
    RebalanceEvent,
};
pub use error::RequestError;
pub use group::{CommittedOffset, GroupError};
pub use leaders::PartitionError;
pub use metadata::{Metadata, Node, Partition, Topic, TopicPartition};
pub use offsets::{IsolationLevel, ListedOffset, OffsetSpec};
pub use ottla_records::Codec;
pub use ottla_types::{BrokerId, TopicId};
pub use ottla_wire::ErrorCode;
pub use producer::{
    Acks, ConfigError, Delivery, DeliveryError, Producer, ProducerConfig, ProducerRecord,
    RecordMetadata, SendError, partition_for_key,
};
