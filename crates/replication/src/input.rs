//! Facts that a replica is told, each with what is needed to judge whether it is late.

use std::collections::BTreeMap;

use ottla_types::{BrokerEpoch, BrokerId, FlushMode, LeaderEpoch, Offset, PartitionEpoch};

/// Settings of the partition's topic and of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// When an offset counts as stored.
    pub flush_mode: FlushMode,
    /// `min.insync.replicas`, before it is capped by the number of replicas.
    pub min_insync_replicas: usize,
    /// `replica.lag.time.max.ms`.
    pub replica_lag_time_ms_max: u64,
}

/// One broker's registration, as far as replication cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The registration's epoch (KIP-903).
    pub epoch: BrokerEpoch,
    /// Neither fenced nor shutting down: may join an ISR.
    pub eligible: bool,
}

/// The partition as committed metadata has it, with the registrations of its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Assigned brokers.
    pub replicas: Vec<BrokerId>,
    /// Committed in-sync replicas.
    pub isr: Vec<BrokerId>,
    /// Who leads.
    pub leader: Option<BrokerId>,
    /// Its epoch.
    pub leader_epoch: LeaderEpoch,
    /// The record's epoch.
    pub partition_epoch: PartitionEpoch,
    /// The unclean leader has yet to report that its log is recovered.
    pub recovering: bool,
    /// Registrations of `replicas`; one missing is not registered.
    pub registered: BTreeMap<BrokerId, Registered>,
}

/// A follower's word about its log, from its stream.
///
/// Given to the leader only once the subscription's position was found to match (lineage), so
/// that both offsets speak of the leader's own records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerReport {
    /// Who.
    pub broker_id: BrokerId,
    /// The registration under which its stream was opened.
    pub incarnation: BrokerEpoch,
    /// The epoch in which it follows.
    pub leader_epoch: LeaderEpoch,
    /// Its log end.
    pub log_end_offset: Offset,
    /// Everything below is on its disk.
    pub flushed_offset: Offset,
    /// Its disk is full.
    pub no_space: bool,
}

/// Why a report was not counted; it changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportRejected {
    /// Of another leader epoch (KIP-101, R-11).
    #[error("of another leader epoch")]
    WrongEpoch,
    /// Of an earlier registration than one already seen (KIP-903).
    #[error("of an earlier incarnation")]
    StaleIncarnation,
    /// Not an assigned replica.
    #[error("not a replica")]
    NotAReplica,
    /// Beyond the leader's log end: not of this log.
    #[error("beyond the log end")]
    BeyondLogEnd,
}

/// What became of an ISR proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IsrAnswer {
    /// Committed: the record now.
    Committed {
        /// Epoch of the record.
        partition_epoch: PartitionEpoch,
        /// Its ISR.
        isr: Vec<BrokerId>,
    },
    /// Refused because a member may not join, or the proposal is malformed. Nothing changed.
    Refused,
    /// Refused because the record has changed: metadata will tell.
    Outdated,
    /// Decided or not, nobody knows.
    Unknown,
}

/// What a frame from the leader says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// Batches.
    Data {
        /// Offset of the first record.
        base_offset: Offset,
        /// Offset after the last record.
        next_offset: Offset,
        /// The largest leader epoch among the batches.
        batch_epoch: LeaderEpoch,
    },
    /// Only the marks.
    Marks,
    /// The follower's log diverges.
    Diverging {
        /// The leader's largest epoch not above the follower's last.
        epoch: LeaderEpoch,
        /// Where it ends at the leader.
        end: Offset,
    },
    /// The follower's position is not in the leader's log.
    OutOfRange,
    /// The subscription was refused; try again later.
    Refused,
}

/// A frame from the leader, without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameFacts {
    /// The epoch in which the sender leads.
    pub leader_epoch: LeaderEpoch,
    /// The subscription it answers.
    pub subscription: u64,
    /// The leader's high watermark.
    pub high_watermark: Offset,
    /// The leader's log start.
    pub log_start_offset: Offset,
    /// What it is.
    pub kind: FrameKind,
}

/// A replica's own log, as it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogMarks {
    /// First offset still readable.
    pub log_start_offset: Offset,
    /// Everything below is on disk.
    pub flushed_offset: Offset,
    /// The offset the next record gets.
    pub log_end_offset: Offset,
}
