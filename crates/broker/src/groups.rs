//! Hosted consumer groups: the coordinators of the `__consumer_offsets` partitions this broker
//! leads, and warm standbys for those it follows.
//!
//! One task owns them all. It folds the committed records of every local replica into that
//! partition's base; where it leads it drives the groups, appends what they want stored, and
//! answers once that is committed.
//!
//! # Invariants
//! * A partition serves only while this broker leads it in the epoch in which it was activated,
//!   after everything below that epoch's start was applied (G-6, P-44).
//! * An answer that grants something without storing anything waits until the leadership has been
//!   confirmed after the question came (P-29, C-12).
//! * Records are folded in the order of the log, each once, and only when committed.
//! * Whoever asked gets exactly one answer: when the record is committed, when it may not be, or
//!   when the leadership is gone.
//!
//! Start at [`GroupsHandle`] for what can be asked, at `owner.rs` for the task behind it.

mod checkpoint;
mod checkpoints;
mod clock;
mod config;
mod confirm;
mod create;
mod handle;
mod hosted;
mod numbers;
mod offsets_log;
mod owner;
mod roles;
mod serve;
mod tail;
mod topics;
mod write;

pub use self::{
    config::GroupsConfig,
    handle::{Groups, GroupsHandle},
    numbers::GroupNumbers,
    offsets_log::OffsetsLog,
};
pub use ottla_coordinator::{
    CommitPartition, CommitRequest, CommitTopic, CommittedOffset, CommittedTopic, DeletedOffset,
    DescribedMember, FetchOffsetsRequest, FetchedOffset, FetchedTopic, GenerationId,
    GroupDescription, GroupError, GroupListing, GroupState, HeartbeatRequest, JoinRequest, Joined,
    JoinedMember, LeaveRequest, LeavingMember, Protocol, SyncRequest, Synced,
};

/// The internal topic that holds groups and their offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

#[cfg(test)]
mod tests;
