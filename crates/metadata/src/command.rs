//! What is asked of the controller, and what it answers.
//!
//! Validation happens when a command is applied, against exact state; whatever is not
//! deterministic (fresh ids, the brokers with a live stream, a seed) travels inside the command.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use ottla_types::{
    BrokerEpoch, BrokerId, FlushMode, LeaderEpoch, Offset, PartitionEpoch, PartitionId,
    PartitionIndex, ProducerId, TopicId,
};

use crate::{ConfigResource, Endpoint, PartitionRecord};

/// A request to change the cluster. `live` is always the set of brokers that have a live stream
/// to the active controller when it proposes the command; it is filled in there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// First command of a new quorum: fixes the cluster's id and the feature levels.
    Bootstrap {
        /// The cluster's id.
        cluster_id: String,
        /// Finalized feature levels.
        features: BTreeMap<String, i16>,
    },
    /// Register a broker, or supersede its earlier incarnation (C-8).
    RegisterBroker(Registration),
    /// A broker's stream broke or fell silent, or it asked to be fenced.
    FenceBroker {
        /// The broker.
        broker_id: BrokerId,
        /// Its registration; an older or newer one makes this a no-op.
        broker_epoch: BrokerEpoch,
        /// Brokers with a live stream.
        live: BTreeSet<BrokerId>,
    },
    /// A registered broker has caught up with metadata and is ready to serve.
    UnfenceBroker {
        /// The broker.
        broker_id: BrokerId,
        /// Its registration.
        broker_epoch: BrokerEpoch,
        /// Brokers with a live stream.
        live: BTreeSet<BrokerId>,
    },
    /// A broker wants to stop: move its leaderships, take it out of every ISR it can leave.
    BeginControlledShutdown {
        /// The broker.
        broker_id: BrokerId,
        /// Its registration.
        broker_epoch: BrokerEpoch,
        /// Brokers with a live stream.
        live: BTreeSet<BrokerId>,
    },
    /// Log directories of a broker failed: it loses every leadership and leaves ISR and ELR, until
    /// it registers anew with all of them healthy (P-25).
    FailDirectories {
        /// The broker.
        broker_id: BrokerId,
        /// Its registration; of another one this is a no-op.
        broker_epoch: BrokerEpoch,
        /// The directories.
        directories: Vec<Uuid>,
        /// Brokers with a live stream.
        live: BTreeSet<BrokerId>,
    },
    /// A broker's disk is full, or has room again: who has room leads (P-23).
    ReportSpace {
        /// The broker.
        broker_id: BrokerId,
        /// Its registration; of another one this is a no-op.
        broker_epoch: BrokerEpoch,
        /// Whether it has no room, or its disk has stalled.
        no_space: bool,
        /// Brokers with a live stream.
        live: BTreeSet<BrokerId>,
    },
    /// How long a broker's logs are, of partitions in mode `page` that nobody can lead and of
    /// which it is among the last known members.
    ReportLogs {
        /// The broker.
        broker_id: BrokerId,
        /// Its registration.
        broker_epoch: BrokerEpoch,
        /// The logs; one that is not asked for is passed over.
        logs: Vec<LogReport>,
        /// Brokers with a live stream.
        live: BTreeSet<BrokerId>,
    },
    /// Forget a broker that is fenced.
    UnregisterBroker {
        /// The broker.
        broker_id: BrokerId,
    },
    /// Create topics; each succeeds or fails alone.
    CreateTopics {
        /// The topics.
        topics: Vec<CreateTopic>,
        /// Check only.
        validate_only: bool,
        /// Brokers with a live stream.
        live: BTreeSet<BrokerId>,
    },
    /// Delete topics; each succeeds or fails alone.
    DeleteTopics {
        /// The topics.
        topics: Vec<DeleteTopic>,
    },
    /// Add partitions to topics; each succeeds or fails alone.
    CreatePartitions {
        /// The topics.
        topics: Vec<CreatePartitions>,
        /// Check only.
        validate_only: bool,
        /// Brokers with a live stream.
        live: BTreeSet<BrokerId>,
    },
    /// Change dynamic configs; nothing of one resource is applied if one of its keys fails.
    AlterConfigs {
        /// The changes. Values have been checked against the table of configs by the gateway.
        alterations: Vec<ConfigAlteration>,
        /// Check only.
        validate_only: bool,
    },
    /// ISR changes proposed by the leader of the partitions (KIP-497).
    AlterPartition {
        /// The leader that proposes.
        broker_id: BrokerId,
        /// Its registration.
        broker_epoch: BrokerEpoch,
        /// The changes; each succeeds or fails alone.
        partitions: Vec<AlterPartition>,
        /// Brokers with a live stream.
        live: BTreeSet<BrokerId>,
    },
    /// Elect preferred leaders, or leaders of partitions that have none.
    ElectLeaders {
        /// What to elect.
        request: ElectLeaders,
        /// Brokers with a live stream.
        live: BTreeSet<BrokerId>,
    },
    /// Hand out a block of 1000 producer ids (C-11).
    AllocateProducerIds {
        /// Who asks.
        broker_id: BrokerId,
        /// Its registration.
        broker_epoch: BrokerEpoch,
    },
}

/// A broker's registration request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// `node.id`.
    pub broker_id: BrokerId,
    /// Must be the cluster's, where the broker already knows one.
    pub cluster_id: Option<String>,
    /// Drawn anew at each start of the process.
    pub incarnation: Uuid,
    /// Ids of its log directories.
    pub directory_ids: Vec<Uuid>,
    /// Advertised Kafka listeners.
    pub endpoints: Vec<Endpoint>,
    /// `host:port` of its replication service.
    pub replication_address: String,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// All that counted may have been lost since its last life: a directory that is new.
    pub unclean: bool,
    /// Replicas that lack something that had been durable, or whose log cannot be opened.
    #[serde(default)]
    pub damaged: BTreeSet<PartitionId>,
    /// Set where the machine may have lost power since the broker's last life: what topics in mode
    /// `page` had not flushed may be gone, those in mode `ack` have lost nothing. Carries the mode
    /// of a topic whose configs name none.
    #[serde(default)]
    pub power_cut: Option<FlushMode>,
    /// The mode of a topic whose configs name none.
    #[serde(default)]
    pub default_flush_mode: FlushMode,
    /// Those of its log directories that have failed in this life of the process.
    #[serde(default)]
    pub offline_directories: Vec<Uuid>,
    /// Brokers with a live stream.
    pub live: BTreeSet<BrokerId>,
}

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTopic {
    /// Its name.
    pub name: String,
    /// A fresh id, drawn by the proposer.
    pub topic_id: TopicId,
    /// Number of partitions; `None` with `assignments`. Broker defaults are already filled in.
    pub partitions: Option<i32>,
    /// Replication factor; `None` means min(3, registered brokers), decided when applied.
    pub replication_factor: Option<i16>,
    /// Manual placement, by partition; empty for ours.
    pub assignments: BTreeMap<i32, Vec<BrokerId>>,
    /// Topic configs, checked by the gateway.
    pub configs: BTreeMap<String, String>,
    /// Varies the placement's starting point.
    pub seed: u64,
}

/// A topic by name or by id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TopicRef {
    /// By name.
    Name(String),
    /// By id.
    Id(TopicId),
}

/// A topic to delete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteTopic {
    /// Which.
    pub topic: TopicRef,
}

/// Partitions to add.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatePartitions {
    /// The topic.
    pub name: String,
    /// The new total.
    pub count: i32,
    /// Placement of the new partitions in order; empty for ours.
    pub assignments: Vec<Vec<BrokerId>>,
    /// Varies the placement's starting point.
    pub seed: u64,
}

/// One change of one key (KIP-339).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AlterConfigOp {
    /// Set the value.
    Set(String),
    /// Remove the key.
    Delete,
    /// Add to a list: the value the key has when it has no dynamic one, and the elements to add.
    Append {
        /// The list's value where no dynamic one is set.
        base: String,
        /// Elements, comma separated.
        value: String,
    },
    /// Remove from a list.
    Subtract {
        /// The list's value where no dynamic one is set.
        base: String,
        /// Elements, comma separated.
        value: String,
    },
}

/// Changes of one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigAlteration {
    /// The resource.
    pub resource: ConfigResource,
    /// The changes, in order.
    pub ops: Vec<(String, AlterConfigOp)>,
}

/// One proposed ISR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlterPartition {
    /// The partition.
    pub id: PartitionId,
    /// The proposer's leader epoch.
    pub leader_epoch: LeaderEpoch,
    /// The partition epoch on which the change builds: compare and set.
    pub partition_epoch: PartitionEpoch,
    /// The new ISR with the registration under which each member was seen (KIP-903).
    pub isr: Vec<(BrokerId, Option<BrokerEpoch>)>,
    /// The unclean leader's log is recovered.
    pub recovered: bool,
}

/// How far a broker's log of one partition reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogReport {
    /// The partition.
    pub id: PartitionId,
    /// The leader epoch of its last record; `None` for an empty log.
    pub last_epoch: Option<LeaderEpoch>,
    /// The offset that its next record would get.
    pub log_end_offset: Offset,
}

/// What kind of leader to elect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ElectionKind {
    /// The first replica of the assignment, if in the ISR.
    Preferred,
    /// Any live replica, for a partition without a leader.
    Unclean,
}

/// An election request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElectLeaders {
    /// Which kind.
    pub kind: ElectionKind,
    /// The partitions by topic name; `None` for all.
    pub partitions: Option<Vec<(String, PartitionIndex)>>,
}

/// Why one ISR change was refused (contract of AlterPartition, KIP-497 and KIP-903).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum AlterPartitionError {
    /// No such topic or partition.
    #[error("unknown partition")]
    UnknownPartition,
    /// The proposer's leader epoch is old: it no longer leads.
    #[error("leader epoch is now {current}")]
    FencedLeaderEpoch {
        /// The current epoch.
        current: LeaderEpoch,
    },
    /// The proposal builds on an old partition epoch.
    #[error("partition epoch is now {current}")]
    InvalidUpdateVersion {
        /// The current epoch.
        current: PartitionEpoch,
    },
    /// The proposer knows a newer epoch than this controller.
    #[error("this controller is behind")]
    ControllerBehind,
    /// The proposal is not well formed.
    #[error("invalid isr: {0}")]
    Invalid(String),
    /// A member is fenced, shutting down, or registered anew.
    #[error("broker {0} may not join the isr")]
    IneligibleReplica(BrokerId),
}

/// Why a command, or one item of it, was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum CommandError {
    /// The sender's registration is not the current one.
    #[error("the broker epoch is stale")]
    StaleBrokerEpoch,
    /// No such broker.
    #[error("broker {0} is not registered")]
    BrokerNotRegistered(BrokerId),
    /// Another incarnation with other directories is alive (C-8).
    #[error("broker {0} is registered by another live process with other directories")]
    DuplicateBroker(BrokerId),
    /// The cluster id differs.
    #[error("the cluster id is {expected:?}")]
    InconsistentClusterId {
        /// Ours.
        expected: String,
    },
    /// A topic of this name exists.
    #[error("topic {0:?} already exists")]
    TopicAlreadyExists(String),
    /// The name is not legal, or collides with another in metrics.
    #[error("{0}")]
    InvalidTopic(String),
    /// The number of partitions is not legal.
    #[error("{0}")]
    InvalidPartitions(String),
    /// The replication factor is not legal or cannot be met.
    #[error("{0}")]
    InvalidReplicationFactor(String),
    /// The manual placement is not legal.
    #[error("{0}")]
    InvalidReplicaAssignment(String),
    /// A config is not legal.
    #[error("{0}")]
    InvalidConfig(String),
    /// The request contradicts itself.
    #[error("{0}")]
    InvalidRequest(String),
    /// A policy or limit forbids it.
    #[error("{0}")]
    PolicyViolation(String),
    /// No such topic name or partition.
    #[error("unknown topic or partition")]
    UnknownTopicOrPartition,
    /// No such topic id.
    #[error("unknown topic id")]
    UnknownTopicId,
    /// The leader is already the wanted one.
    #[error("the election is not needed")]
    ElectionNotNeeded,
    /// The preferred replica is not alive and in sync.
    #[error("the preferred leader is not available")]
    PreferredLeaderNotAvailable,
    /// No live replica may lead.
    #[error("no eligible leader is available")]
    EligibleLeadersNotAvailable,
}

/// A topic as it was created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedTopic {
    /// Its id.
    pub topic_id: TopicId,
    /// Number of partitions.
    pub partitions: i32,
    /// Replication factor of the first partition.
    pub replication_factor: i16,
}

/// What applying a command answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done, nothing to say.
    Done,
    /// The whole command was refused.
    Refused(CommandError),
    /// The broker is registered under this epoch.
    Registered {
        /// The new epoch.
        broker_epoch: BrokerEpoch,
    },
    /// The broker still leads this many partitions that cannot be moved.
    ShutdownPending {
        /// Remaining leaderships.
        leaderships: usize,
    },
    /// One answer per topic, in the order of the request.
    CreatedTopics(Vec<Result<CreatedTopic, CommandError>>),
    /// One answer per topic: name and id of what was deleted.
    DeletedTopics(Vec<Result<(String, TopicId), CommandError>>),
    /// One answer per topic.
    CreatedPartitions(Vec<Result<(), CommandError>>),
    /// One answer per resource.
    AlteredConfigs(Vec<Result<(), CommandError>>),
    /// One answer per partition: its record now.
    AlteredPartitions(Vec<(PartitionId, Result<PartitionRecord, AlterPartitionError>)>),
    /// One answer per partition.
    Elections(Vec<(String, PartitionIndex, Result<(), CommandError>)>),
    /// The broker may use `first..first + count`.
    ProducerIds {
        /// First id.
        first: ProducerId,
        /// How many.
        count: i32,
    },
}
