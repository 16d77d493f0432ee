//! What a replica asks of its runtime. Answers come back as inputs: nothing here waits.

use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionEpoch};

/// A proposed ISR, to be committed by the controller on `partition_epoch` (KIP-497).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrProposal {
    /// The proposer's epoch.
    pub leader_epoch: LeaderEpoch,
    /// The record it builds on: compare and set.
    pub partition_epoch: PartitionEpoch,
    /// Members, with the registration under which each was seen (KIP-903).
    pub isr: Vec<(BrokerId, Option<BrokerEpoch>)>,
    /// The unclean leader's log is recovered.
    pub recovered: bool,
}

/// A consequence, in the order in which they are to be performed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// This replica leads from now on. Record that `leader_epoch` begins at `start` in the log's
    /// epoch list before anything is appended.
    BecameLeader {
        /// The epoch.
        leader_epoch: LeaderEpoch,
        /// The log end.
        start: Offset,
    },
    /// This replica no longer leads, or leads in a newer epoch: producers that wait for
    /// replication are told that the outcome is unknown; followers' subscriptions end.
    LeadershipEnded,
    /// This replica follows from now on. Epoch entries without batches are dropped from the end
    /// of its list, because the new leader may send records of an older epoch.
    BecameFollower {
        /// Whom; `None` while nobody leads.
        leader: Option<BrokerId>,
        /// In which epoch.
        leader_epoch: LeaderEpoch,
    },
    /// The high watermark moved here.
    HighWatermark(Offset),
    /// Ask the controller for this ISR and bring the answer back.
    ProposeIsr(IsrProposal),
    /// The committed ISR grew or shrank; for logs and counters.
    IsrChanged {
        /// Members that joined.
        joined: Vec<BrokerId>,
        /// Members that left.
        left: Vec<BrokerId>,
    },
    /// Ask the leader for records from the log end on.
    Subscribe {
        /// The leader.
        leader: BrokerId,
        /// The epoch in which we follow.
        leader_epoch: LeaderEpoch,
        /// Rises with each; frames of older ones are dropped.
        subscription: u64,
    },
}
