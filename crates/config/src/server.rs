//! A node's configuration, typed: one field per key that the runtime uses.
//!
//! Fields are named after their keys and grouped by who reads them. Durations are milliseconds
//! unless the name says otherwise; "no limit" is `None`, never -1.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use ottla_types::BrokerId;

use crate::{
    error::ConfigErrors, key::split_list, layers::Layers, listeners::Listeners, load::StaticConfig,
    values::Values, voters::Voter,
};

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// It holds partitions and serves clients.
    pub broker: bool,
    /// It votes in the controller quorum.
    pub controller: bool,
}

/// A node's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// `process.roles`.
    pub roles: Roles,
    /// `node.id`.
    pub node_id: BrokerId,
    /// `cluster.id`, where the operator chose it.
    pub cluster_id: Option<String>,
    /// `broker.rack`.
    pub broker_rack: Option<String>,
    /// `log.dirs`: one directory.
    pub log_dir: PathBuf,
    /// `metadata.log.dir`, or `log_dir`.
    pub metadata_log_dir: PathBuf,
    /// `controller.quorum.voters`.
    pub controller_quorum_voters: Vec<Voter>,
    /// Every address.
    pub listeners: Listeners,
    /// Controllers, broker sessions, elections.
    pub cluster: ClusterConfig,
    /// Connections and requests.
    pub network: NetworkConfig,
    /// How topics come to be.
    pub topics: TopicCreationConfig,
    /// Consumer groups.
    pub groups: GroupConfig,
    /// Logs on disk.
    pub storage: StorageConfig,
    /// Streams between brokers.
    pub replication: ReplicationConfig,
    /// Sizes of the thread pools.
    pub threads: ThreadConfig,
    statics: StaticConfig,
}

/// Controllers, broker sessions, elections.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterConfig {
    /// `auto.leader.rebalance.enable`.
    pub auto_leader_rebalance_enable: bool,
    /// `leader.imbalance.check.interval.seconds`, in milliseconds.
    pub leader_imbalance_check_interval_ms: u64,
    /// `broker.heartbeat.interval.ms`.
    pub broker_heartbeat_interval_ms: u64,
    /// `broker.session.timeout.ms`.
    pub broker_session_timeout_ms: u64,
    /// `ottla.broker.fencing.grace.ms`.
    pub broker_fencing_grace_ms: u64,
    /// `controlled.shutdown.enable`.
    pub controlled_shutdown_enable: bool,
    /// `ottla.controller.heartbeat.interval.ms`.
    pub controller_heartbeat_interval_ms: u64,
    /// `ottla.controller.election.timeout.ms`.
    pub controller_election_timeout_ms: u64,
    /// `ottla.controller.snapshot.entries`.
    pub controller_snapshot_entries: u64,
    /// `ottla.shutdown.timeout.ms`.
    pub shutdown_timeout_ms: u64,
}

/// Connections and requests.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkConfig {
    /// `socket.request.max.bytes`.
    pub socket_request_max_bytes: usize,
    /// `socket.send.buffer.bytes`; `None` leaves it to the kernel.
    pub socket_send_buffer_bytes: Option<usize>,
    /// `socket.receive.buffer.bytes`; `None` leaves it to the kernel.
    pub socket_receive_buffer_bytes: Option<usize>,
    /// `socket.listen.backlog.size`.
    pub socket_listen_backlog_size: i32,
    /// `connections.max.idle.ms`; `None` is for ever.
    pub connections_max_idle_ms: Option<u64>,
    /// `max.connections`, per address and overall.
    pub connection_limits: ConnectionLimits,
    /// `queued.max.request.bytes`; `None` is no limit.
    pub queued_max_request_bytes: Option<usize>,
    /// `ottla.connection.requests.max`.
    pub connection_requests_max: usize,
    /// `fetch.max.bytes`.
    pub fetch_max_bytes: usize,
    /// `max.incremental.fetch.session.cache.slots`.
    pub max_incremental_fetch_session_cache_slots: usize,
    /// `max.request.partition.size.limit`.
    pub max_request_partition_size_limit: usize,
    /// `request.timeout.ms`.
    pub request_timeout_ms: u64,
}

/// How many client connections there may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// `max.connections`.
    pub max_connections: usize,
    /// `max.connections.per.ip`.
    pub max_connections_per_ip: usize,
    /// `max.connections.per.ip.overrides`.
    pub max_connections_per_ip_overrides: BTreeMap<IpAddr, usize>,
}

/// How topics come to be.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicCreationConfig {
    /// `auto.create.topics.enable`.
    pub auto_create_topics_enable: bool,
    /// `delete.topic.enable`.
    pub delete_topic_enable: bool,
    /// `num.partitions`.
    pub num_partitions: i32,
    /// `default.replication.factor`; `None` is min(3, registered brokers), decided at creation.
    pub default_replication_factor: Option<i16>,
}

/// Consumer groups.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupConfig {
    /// `group.initial.rebalance.delay.ms`.
    pub group_initial_rebalance_delay_ms: u64,
    /// `group.min.session.timeout.ms`.
    pub group_min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub group_max_session_timeout_ms: i32,
    /// `group.max.size`.
    pub group_max_size: usize,
    /// `offset.metadata.max.bytes`.
    pub offset_metadata_max_bytes: usize,
    /// `offsets.commit.timeout.ms`.
    pub offsets_commit_timeout_ms: u64,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: u64,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check_interval_ms: u64,
    /// `offsets.topic.num.partitions`.
    pub offsets_topic_num_partitions: i32,
    /// `offsets.topic.replication.factor`; `None` is min(3, registered brokers).
    pub offsets_topic_replication_factor: Option<i16>,
    /// `offsets.topic.segment.bytes`.
    pub offsets_topic_segment_bytes: u32,
}

/// Logs on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct StorageConfig {
    /// `log.retention.check.interval.ms`.
    pub log_retention_check_interval_ms: u64,
    /// `log.flush.offset.checkpoint.interval.ms`.
    pub log_flush_offset_checkpoint_interval_ms: u64,
    /// `ottla.produce.free.bytes.min`.
    pub produce_free_bytes_min: u64,
    /// `ottla.replication.free.bytes.min`.
    pub replication_free_bytes_min: u64,
    /// `replica.high.watermark.checkpoint.interval.ms`.
    pub replica_high_watermark_checkpoint_interval_ms: u64,
    /// `num.recovery.threads.per.data.dir`.
    pub num_recovery_threads_per_data_dir: usize,
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration_ms: u64,
}

/// Streams between brokers.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicationConfig {
    /// `replica.lag.time.max.ms`.
    pub replica_lag_time_max_ms: u64,
    /// `ottla.replication.window.bytes`.
    pub replication_window_bytes: usize,
}

/// Sizes of the thread pools; zero where the server decides by the number of cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadConfig {
    /// `ottla.shards`.
    pub shards: usize,
    /// `ottla.data.threads`.
    pub data_threads: usize,
    /// `ottla.control.threads`.
    pub control_threads: usize,
    /// `ottla.flush.threads`.
    pub flush_threads: usize,
    /// `ottla.io.threads`.
    pub io_threads: usize,
}

impl ServerConfig {
    /// What was set before the start, key by key.
    #[must_use]
    pub fn statics(&self) -> &StaticConfig {
        &self.statics
    }

    /// The limits on connections after dynamic broker configs.
    #[must_use]
    pub fn connection_limits<'a>(
        &'a self,
        dynamic_broker: impl Into<Option<&'a BTreeMap<String, String>>>,
        cluster_default: impl Into<Option<&'a BTreeMap<String, String>>>,
    ) -> ConnectionLimits {
        let layers = self.layers(dynamic_broker.into(), cluster_default.into());
        ConnectionLimits::read(|key| {
            let winner = layers.synonyms(&[key], None).into_iter().next();
            winner.map(|synonym| synonym.value).unwrap_or_default()
        })
    }

    pub(crate) fn layers<'a>(
        &'a self,
        broker: Option<&'a BTreeMap<String, String>>,
        cluster: Option<&'a BTreeMap<String, String>>,
    ) -> Layers<'a> {
        Layers {
            broker,
            cluster,
            statics: &self.statics,
        }
    }

    pub(crate) fn build(
        statics: StaticConfig,
        hostname: &str,
        notes: &mut Vec<String>,
    ) -> Result<ServerConfig, ConfigErrors> {
        let values = Values(&statics);
        let roles = values.roles()?;
        let node_id = values.node_id()?;
        let controller_quorum_voters = values.voters(roles, node_id)?;
        let log_dir = values.log_dir()?;
        values.check_pairs()?;
        values.check_overrides_per_ip()?;
        let listeners = Listeners::resolve(&statics, roles, hostname, notes)?;
        Ok(ServerConfig {
            roles,
            node_id,
            cluster_id: values.cluster_id()?,
            broker_rack: values.text("broker.rack"),
            metadata_log_dir: values
                .text("metadata.log.dir")
                .map_or_else(|| log_dir.clone(), PathBuf::from),
            log_dir,
            controller_quorum_voters,
            listeners,
            cluster: values.cluster(),
            network: values.network(),
            topics: TopicCreationConfig {
                auto_create_topics_enable: values.flag("auto.create.topics.enable"),
                delete_topic_enable: values.flag("delete.topic.enable"),
                num_partitions: values.number("num.partitions"),
                default_replication_factor: values.decided("default.replication.factor"),
            },
            groups: values.groups(),
            storage: StorageConfig {
                log_retention_check_interval_ms: values.number("log.retention.check.interval.ms"),
                log_flush_offset_checkpoint_interval_ms: values
                    .number("log.flush.offset.checkpoint.interval.ms"),
                produce_free_bytes_min: values.number("ottla.produce.free.bytes.min"),
                replication_free_bytes_min: values.number("ottla.replication.free.bytes.min"),
                replica_high_watermark_checkpoint_interval_ms: values
                    .number("replica.high.watermark.checkpoint.interval.ms"),
                num_recovery_threads_per_data_dir: values
                    .number("num.recovery.threads.per.data.dir"),
                producer_id_expiration_ms: values.number("producer.id.expiration.ms"),
            },
            replication: ReplicationConfig {
                replica_lag_time_max_ms: values.number("replica.lag.time.max.ms"),
                replication_window_bytes: values.number("ottla.replication.window.bytes"),
            },
            threads: ThreadConfig {
                shards: values.number("ottla.shards"),
                data_threads: values.number("ottla.data.threads"),
                control_threads: values.number("ottla.control.threads"),
                flush_threads: values.number("ottla.flush.threads"),
                io_threads: values.number("ottla.io.threads"),
            },
            statics,
        })
    }
}

impl ConnectionLimits {
    pub(crate) fn read(value: impl Fn(&str) -> String) -> ConnectionLimits {
        let number = |key| value(key).parse().unwrap_or(usize::MAX);
        ConnectionLimits {
            max_connections: number("max.connections"),
            max_connections_per_ip: number("max.connections.per.ip"),
            max_connections_per_ip_overrides: parse_overrides_per_ip(&value(
                "max.connections.per.ip.overrides",
            ))
            .unwrap_or_default(),
        }
    }
}

/// `address:count`, comma separated.
pub(crate) fn parse_overrides_per_ip(text: &str) -> Result<BTreeMap<IpAddr, usize>, String> {
    split_list(text)
        .map(|item| {
            let error = || format!("{item:?} is not address:count");
            let (address, count) = item.rsplit_once(':').ok_or_else(error)?;
            let address = address
                .trim_matches(['[', ']'])
                .parse()
                .map_err(|_| error())?;
            Ok((address, count.trim().parse().map_err(|_| error())?))
        })
        .collect()
}

#[cfg(test)]
#[path = "server_tests.rs"]
pub(crate) mod tests;
