//! What a broker is told at its start.

use std::sync::Arc;

use ottla_broker::{BrokerConfig, TopicSettings, TopicSettingsOf, groups::GroupsConfig};
use ottla_config::{ServerConfig, TimestampType, TopicConfig};
use ottla_metadata::{ConfigResource, Endpoint, SecurityProtocol};
use ottla_records::TimestampType as RecordTimestampType;
use ottla_storage::LogConfig;
use ottla_types::BrokerId;

use crate::{exit::ExitReason, listen::BoundListeners};

/// What waits in a shard at most where `queued.max.request.bytes` is off.
const ADMISSION_BYTES_WITHOUT_BUDGET: usize = 1 << 30;

/// The broker's part of a node's configuration; the listeners are already bound.
pub(crate) fn broker_config(
    server: &Arc<ServerConfig>,
    bound: &BoundListeners,
) -> Result<BrokerConfig, ExitReason> {
    let controllers = server
        .controller_quorum_voters
        .iter()
        .map(|voter| (voter.id, address(&voter.host, voter.port)))
        .collect();
    let replication = bound
        .replication
        .as_ref()
        .and_then(|bound| bound.advertised.as_ref());
    let Some((host, port)) = replication else {
        return Err(ExitReason::Start(
            "a broker needs a replication listener".to_owned(),
        ));
    };
    let mut config = BrokerConfig::new(
        server.node_id,
        server.log_dir.clone(),
        controllers,
        address(host, *port),
    );
    config.cluster_id.clone_from(&server.cluster_id);
    config.endpoints = endpoints(bound);
    config.rack.clone_from(&server.broker_rack);
    config.topic_settings = topic_settings(server);
    config.groups = groups(server);
    config.shards = server.threads.shards;
    config.flush_threads = server.threads.flush_threads;
    config.io_threads = server.threads.io_threads;
    config.recovery_threads = server.storage.num_recovery_threads_per_data_dir;
    config.heartbeat_interval_ms = server.cluster.broker_heartbeat_interval_ms;
    config.session_timeout_ms = server.cluster.broker_session_timeout_ms;
    config.replica_lag_time_ms_max = server.replication.replica_lag_time_max_ms;
    config.high_watermark_checkpoint_interval_ms =
        server.storage.replica_high_watermark_checkpoint_interval_ms;
    config.recovery_point_checkpoint_interval_ms =
        server.storage.log_flush_offset_checkpoint_interval_ms;
    config.retention_check_interval_ms = server.storage.log_retention_check_interval_ms;
    config.controlled_shutdown_ms_max = server.cluster.shutdown_timeout_ms;
    // The gateway stops reading sockets when its budget is spent: one shard must be able to hold
    // all of that, or produces would be refused before clients feel any back-pressure.
    config.admission_bytes_max = server
        .network
        .queued_max_request_bytes
        .unwrap_or(ADMISSION_BYTES_WITHOUT_BUDGET);
    config.live_window_bytes = server.replication.replication_window_bytes;
    config.produce_free_bytes_min = server.storage.produce_free_bytes_min;
    config.replication_free_bytes_min = server.storage.replication_free_bytes_min;
    Ok(config)
}

/// IPv6 addresses stand in brackets where a port follows.
fn address(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn endpoints(bound: &BoundListeners) -> Vec<Endpoint> {
    let advertised = bound.clients.iter().filter_map(|listener| {
        let (host, port) = listener.advertised.clone()?;
        let listener = listener.name.clone();
        Some(Endpoint {
            listener,
            host,
            port,
            security: SecurityProtocol::Plaintext,
        })
    });
    advertised.collect()
}

/// Resolves a topic's settings against the image that is current when it is asked.
fn topic_settings(server: &Arc<ServerConfig>) -> TopicSettingsOf {
    let server = Arc::clone(server);
    let node_id: BrokerId = server.node_id;
    Arc::new(move |image, topic| {
        let config = TopicConfig::resolve(
            image.configs_of(&ConfigResource::Topic(topic.to_owned())),
            image.configs_of(&ConfigResource::Broker(node_id)),
            image.configs_of(&ConfigResource::ClusterDefault),
            &server,
        );
        TopicSettings {
            log: log_config(&config, server.storage.producer_id_expiration_ms),
            flush_mode: config.flush_mode(),
        }
    })
}

fn log_config(topic: &TopicConfig, producer_id_expiration_ms: u64) -> LogConfig {
    LogConfig {
        segment_bytes: topic.segment_bytes.into(),
        segment_ms: topic.segment_ms,
        segment_jitter_ms: topic.segment_jitter_ms,
        index_interval_bytes: topic.index_interval_bytes,
        segment_index_bytes: topic.segment_index_bytes,
        cleanup_delete: topic.cleanup_policy.delete,
        retention_ms: topic.retention_ms,
        retention_bytes: topic.retention_bytes,
        flush_messages: topic.flush_messages,
        flush_ms: topic.flush_ms,
        max_message_bytes: topic.max_message_bytes,
        timestamp_type: match topic.message_timestamp_type {
            TimestampType::CreateTime => RecordTimestampType::CreateTime,
            TimestampType::LogAppendTime => RecordTimestampType::LogAppendTime,
        },
        producer_id_expiration_ms,
        file_delete_delay_ms: topic.file_delete_delay_ms,
        ..LogConfig::default()
    }
}

fn groups(server: &ServerConfig) -> GroupsConfig {
    let groups = &server.groups;
    let of_topics = TopicConfig::resolve(None, None, None, server);
    GroupsConfig {
        session_timeout_min_ms: groups.group_min_session_timeout_ms,
        session_timeout_max_ms: groups.group_max_session_timeout_ms,
        initial_rebalance_delay_ms: groups.group_initial_rebalance_delay_ms,
        group_size_max: groups.group_max_size,
        offset_metadata_bytes_max: groups.offset_metadata_max_bytes,
        offsets_retention_ms: groups.offsets_retention_ms,
        offsets_retention_check_interval_ms: groups.offsets_retention_check_interval_ms,
        offsets_commit_timeout_ms: groups.offsets_commit_timeout_ms,
        offsets_topic_partitions: groups.offsets_topic_num_partitions,
        offsets_topic_replication_factor: groups.offsets_topic_replication_factor,
        offsets_topic_segment_bytes: groups.offsets_topic_segment_bytes.into(),
        offsets_batch_bytes_max: usize::try_from(of_topics.max_message_bytes).unwrap_or(usize::MAX),
    }
}
