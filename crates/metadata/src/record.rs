//! What has been decided: the records that brokers fold into their image, as KRaft's.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use ottla_types::{
    BrokerEpoch, BrokerId, FlushMode, LeaderEpoch, Offset, PartitionEpoch, PartitionId, ProducerId,
    TopicId,
};

/// One decided fact. Each carries the whole new value, so that folding one twice changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The cluster's id, fixed when the quorum first forms.
    Cluster {
        /// 22 characters of URL-safe base64, or what `cluster.id` says.
        cluster_id: String,
    },
    /// A topic exists.
    Topic {
        /// Its identity.
        topic_id: TopicId,
        /// Its name.
        name: String,
    },
    /// A topic with all its partitions and configs is gone.
    RemoveTopic {
        /// The topic.
        topic_id: TopicId,
    },
    /// A partition's new state.
    Partition {
        /// The partition.
        id: PartitionId,
        /// Its state.
        state: PartitionRecord,
    },
    /// A broker's registration, or a change of it.
    Broker(BrokerRecord),
    /// A broker is no longer registered.
    RemoveBroker {
        /// The broker.
        broker_id: BrokerId,
    },
    /// A dynamic config was set, or removed with `None`.
    Config {
        /// What is configured.
        resource: ConfigResource,
        /// The key.
        key: String,
        /// The value.
        value: Option<String>,
    },
    /// Producer ids below this one have been handed out.
    ProducerIds {
        /// The first id of the next block.
        next: ProducerId,
    },
    /// A finalized feature level; zero removes it.
    Feature {
        /// For example `metadata.version`.
        name: String,
        /// The level.
        level: i16,
    },
}

/// A partition as the controller has decided it.
///
/// # Invariants (C-7)
/// * `leader` is in `isr` (or was elected from `elr` into it) or `None`.
/// * `isr` is within `replicas`; `isr` and `elr` share no broker; `replicas` are distinct.
/// * Without a leader, `isr` may be one fenced broker, or empty after an unclean restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRecord {
    /// Assigned brokers, the preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// Committed in-sync replicas.
    pub isr: Vec<BrokerId>,
    /// Eligible leader replicas: they left the ISR while it was below min ISR (KIP-966).
    #[serde(default)]
    pub elr: Vec<BrokerId>,
    /// Members that an unclean restart took out of ISR or ELR while nobody led: not
    /// electable, but the best an operator can ask for once ISR and ELR are both empty.
    #[serde(default)]
    pub last_known_elr: Vec<BrokerId>,
    /// How long the logs of `last_known_elr` are, of those that have said so in their present
    /// registration: in mode `page` the longest leads once all have.
    #[serde(default)]
    pub reported_logs: Vec<ReportedLog>,
    /// Replicas being added by a reassignment.
    #[serde(default)]
    pub adding_replicas: Vec<BrokerId>,
    /// Replicas being removed by a reassignment.
    #[serde(default)]
    pub removing_replicas: Vec<BrokerId>,
    /// Who leads, if anyone can.
    pub leader: Option<BrokerId>,
    /// Rises with each election.
    pub leader_epoch: LeaderEpoch,
    /// Rises with each change of this record.
    pub partition_epoch: PartitionEpoch,
    /// The leader was elected uncleanly and has not reported its log recovered yet.
    #[serde(default)]
    pub recovering: bool,
    /// The leader was elected because its log was the longest of `last_known_elr`: records that
    /// were acknowledged before they were flushed may be gone (P-13).
    #[serde(default)]
    pub possible_loss: bool,
}

/// How far the log of a replica reaches, as it said when nobody led.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedLog {
    /// Whose log.
    pub broker_id: BrokerId,
    /// The registration in which it said so.
    pub broker_epoch: BrokerEpoch,
    /// The leader epoch of its last record; `None` for an empty log.
    pub last_epoch: Option<LeaderEpoch>,
    /// The offset that its next record would get.
    pub log_end_offset: Offset,
}

/// How a listener is secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecurityProtocol {
    /// Neither encrypted nor authenticated.
    Plaintext,
    /// TLS.
    Ssl,
    /// SASL without TLS.
    SaslPlaintext,
    /// SASL over TLS.
    SaslSsl,
}

/// One advertised address of a broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The listener's name, upper case.
    pub listener: String,
    /// Host name or address to connect to.
    pub host: String,
    /// Port to connect to.
    pub port: u16,
    /// How it is secured.
    pub security: SecurityProtocol,
}

/// A registered broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerRecord {
    /// `node.id`.
    pub broker_id: BrokerId,
    /// The registration's epoch: the index of the command that registered it.
    pub epoch: BrokerEpoch,
    /// Drawn anew at each start of the process.
    pub incarnation: Uuid,
    /// The log directories' ids; a new one means a new disk.
    pub directory_ids: Vec<Uuid>,
    /// Advertised addresses of the Kafka listeners.
    pub endpoints: Vec<Endpoint>,
    /// Where other brokers reach its replication service, as `host:port`.
    pub replication_address: String,
    /// `broker.rack`.
    #[serde(default)]
    pub rack: Option<String>,
    /// Fenced brokers lead nothing, are in no ISR and are not listed to clients.
    pub fenced: bool,
    /// It asked to shut down and takes no new leaderships.
    #[serde(default)]
    pub in_controlled_shutdown: bool,
    /// Log directories that failed in this registration (P-25). Which partitions lie in which is
    /// not known here: one that failed counts as all of them.
    #[serde(default)]
    pub offline_directories: Vec<Uuid>,
    /// Its disk has no room for producers' records, or has stalled: it leads only where nobody else
    /// can (P-23, P-24).
    #[serde(default)]
    pub no_space: bool,
    /// The flush mode of its replicas of a topic whose configs name none.
    #[serde(default)]
    pub default_flush_mode: FlushMode,
}

impl BrokerRecord {
    /// Whether its replicas may be in sync or lead: neither fenced nor stopping, its disks fine.
    #[must_use]
    pub fn in_service(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown && self.offline_directories.is_empty()
    }
}

/// What a dynamic config belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ConfigResource {
    /// A topic, by name.
    Topic(String),
    /// One broker.
    Broker(BrokerId),
    /// The default of all brokers.
    ClusterDefault,
    /// What the configuration file of the active controller says, below every dynamic config.
    ControllerFile,
    /// A group, by id.
    Group(String),
}
