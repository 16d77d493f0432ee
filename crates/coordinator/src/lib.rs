//! Consumer groups: membership, assignments and offsets as pure state machines, and the records
//! of `__consumer_offsets` that they persist.
//!
//! Inputs carry the time at which they happened; consequences come back as [`Effect`]s. No clock,
//! no randomness, no I/O: the host (the broker's `groups`) stores records and delivers answers.
//!
//! # Invariants
//! * An answer that promises something waits until the record behind it is committed (G-1, G-4).
//! * Requests of an old generation, a stranger or a fenced instance move nothing (G-2).
//! * Reads are answered from the committed base alone; whatever is pending can be dropped (G-6).
//!
//! Start at [`Coordinator`], which serves one offsets partition, then `group.rs`, the state
//! machine of one group.

mod committed;
mod config;
mod coordinator;
mod error;
mod generation;
mod group;
mod outbox;
mod placement;
mod record;
mod request;
mod subscription;

pub use committed::{CommittedGroup, CommittedOffset, CommittedState};
pub use config::GroupRules;
pub use coordinator::{Coordinator, Topics};
pub use error::GroupError;
pub use generation::GenerationId;
pub use group::{GroupState, Now};
pub use outbox::{DeletedOffset, Effect, PersistToken, Reply, ReplyToken};
pub use placement::partition_for_group;
pub use record::{
    DecodeError, EncodeError, GroupMetadataValue, MemberMetadata, OffsetCommitValue, OffsetsRecord,
};
pub use request::{
    CommitPartition, CommitRequest, CommitTopic, CommittedTopic, DescribedMember,
    FetchOffsetsRequest, FetchedOffset, FetchedTopic, GroupDescription, GroupListing,
    HeartbeatRequest, JoinRequest, Joined, JoinedMember, LeaveRequest, LeavingMember, Protocol,
    SyncRequest, Synced,
};
pub use subscription::subscribed_topics;

#[cfg(test)]
mod scenarios;
