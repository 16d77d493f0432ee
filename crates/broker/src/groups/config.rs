//! What an operator sets about groups and their internal topic, as plain values.

use ottla_coordinator::GroupRules;

/// Configuration of hosted groups; the defaults are Kafka's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupsConfig {
    /// `group.min.session.timeout.ms`.
    pub session_timeout_min_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_max_ms: i32,
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: u64,
    /// `group.max.size`.
    pub group_size_max: usize,
    /// `offset.metadata.max.bytes`.
    pub offset_metadata_bytes_max: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: u64,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check_interval_ms: u64,
    /// `offsets.commit.timeout.ms`.
    pub offsets_commit_timeout_ms: u64,
    /// `offsets.topic.num.partitions`.
    pub offsets_topic_partitions: i32,
    /// `offsets.topic.replication.factor`; `None` is min(3, registered brokers).
    pub offsets_topic_replication_factor: Option<i16>,
    /// `offsets.topic.segment.bytes`.
    pub offsets_topic_segment_bytes: u64,
    /// Most bytes of one batch of the internal topic (`message.max.bytes`).
    pub offsets_batch_bytes_max: usize,
}

impl Default for GroupsConfig {
    fn default() -> GroupsConfig {
        let rules = GroupRules::default();
        GroupsConfig {
            session_timeout_min_ms: rules.session_timeout_min_ms,
            session_timeout_max_ms: rules.session_timeout_max_ms,
            initial_rebalance_delay_ms: rules.initial_rebalance_delay_ms,
            group_size_max: rules.group_size_max,
            offset_metadata_bytes_max: rules.offset_metadata_bytes_max,
            offsets_retention_ms: rules.offsets_retention_ms,
            offsets_retention_check_interval_ms: 600_000,
            offsets_commit_timeout_ms: 5_000,
            offsets_topic_partitions: 50,
            offsets_topic_replication_factor: None,
            offsets_topic_segment_bytes: 104_857_600,
            offsets_batch_bytes_max: 1_048_588,
        }
    }
}

impl GroupsConfig {
    pub(super) fn rules(&self) -> GroupRules {
        GroupRules {
            session_timeout_min_ms: self.session_timeout_min_ms,
            session_timeout_max_ms: self.session_timeout_max_ms,
            initial_rebalance_delay_ms: self.initial_rebalance_delay_ms,
            group_size_max: self.group_size_max,
            offset_metadata_bytes_max: self.offset_metadata_bytes_max,
            offsets_retention_ms: self.offsets_retention_ms,
        }
    }
}
