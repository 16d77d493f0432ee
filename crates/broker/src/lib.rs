//! Shards of partitions, replica streams, hosted groups, the link to the controller.
//!
//! A produce enters at [`BrokerHandle::produce`], goes to the shard that owns the partition
//! (`shard.rs`), is appended (`partition/produce.rs`), pushed to followers (`partition/lead.rs`) and
//! flushed, and is answered when the replication machine moves the high watermark. A fetch
//! (`fetch.rs`) reads published views and files and needs no shard.
//!
//! # Invariants
//! * A partition's state belongs to one thread; what others see of it is an immutable view.
//! * Nothing here knows Kafka's wire types; errors say whether a write may still happen.
//! * Controllers are reached by gRPC only, also in the same process.

mod api;
mod clock;
mod completion;
mod config;
mod confirm;
mod feed;
mod fetch;
pub mod groups;
mod handle;
mod isr_proposer;
mod lifecycle;
mod log_reporter;
mod maintenance;
mod metadata_link;
mod metrics;
mod offsets;
mod offsets_log;
mod partition;
mod recovery;
mod replica_fetcher;
mod replica_stream;
mod residency;
mod shard;
mod stall;
#[cfg(test)]
mod testing;
mod worker_pool;

pub use api::{
    AbortedTransaction, Acks, BrokerState, ControllerError, FetchAnswer, FetchError,
    FetchPartition, FetchRequest, FetchedPartition, FetchedRecords, FoundOffset, Isolation,
    LeaderHint, ListOffsetsError, LogDirInfo, OffsetQuery, ProduceEntry, ProduceError, Produced,
    QuorumDescription, QuorumReplica, Reader, ReplicaRole, ReplicaStatus,
};
pub use completion::ProduceAnswer;
pub use config::{BrokerConfig, TopicSettings, TopicSettingsOf};
pub use groups::GroupsHandle;
pub use handle::BrokerHandle;
pub use lifecycle::{Broker, StartError};
pub use metrics::{BrokerMetrics, Counter, CounterValues, MetricsSnapshot};
pub use ottla_storage::{LogConfig, LogSlice};
