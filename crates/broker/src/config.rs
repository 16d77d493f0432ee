//! What a broker is told at its start: plain values, read from the configuration by `server`.

use std::{path::PathBuf, sync::Arc};

use ottla_metadata::{Endpoint, Image};
use ottla_storage::{Files, LogConfig, OsFiles};
use ottla_types::{BrokerId, FlushMode};

use crate::groups::GroupsConfig;

/// Settings of one topic as they are in force: dynamic ones over static ones. The one that decides
/// what is committed, `min.insync.replicas`, comes from the image, as the controllers see it.
#[derive(Clone, Debug)]
pub struct TopicSettings {
    /// What the log needs to know.
    pub log: LogConfig,
    /// `flush.messages` of 1 is `Ack` (design: durability is the default).
    pub flush_mode: FlushMode,
}

impl Default for TopicSettings {
    fn default() -> TopicSettings {
        TopicSettings {
            log: LogConfig::default(),
            flush_mode: FlushMode::Ack,
        }
    }
}

/// Resolves a topic's settings from its name and the image's dynamic configs.
pub type TopicSettingsOf = Arc<dyn Fn(&Image, &str) -> TopicSettings + Send + Sync>;

/// A broker's settings.
#[derive(Clone)]
pub struct BrokerConfig {
    /// `node.id`.
    pub broker_id: BrokerId,
    /// `cluster.id`, if configured; learned from the quorum otherwise.
    pub cluster_id: Option<String>,
    /// The log directory.
    pub log_dir: PathBuf,
    /// The file system that it is in.
    pub files: Arc<dyn Files>,
    /// `host:port` of every controller, in the order of `controller.quorum.voters`.
    pub controllers: Vec<(BrokerId, String)>,
    /// Advertised addresses of the Kafka listeners.
    pub endpoints: Vec<Endpoint>,
    /// Advertised `host:port` of the replication service.
    pub replication_address: String,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// Settings of a topic, dynamic configs included.
    pub topic_settings: TopicSettingsOf,
    /// Settings of the group coordinator.
    pub groups: GroupsConfig,
    /// Threads that own partitions; 0 for min(cores, 4).
    pub shards: usize,
    /// Threads that wait for fsync.
    pub flush_threads: usize,
    /// `num.io.threads`: threads that read files.
    pub io_threads: usize,
    /// `num.recovery.threads.per.data.dir`.
    pub recovery_threads: usize,
    /// `broker.heartbeat.interval.ms`.
    pub heartbeat_interval_ms: u64,
    /// `broker.session.timeout.ms`.
    pub session_timeout_ms: u64,
    /// `replica.lag.time.max.ms`.
    pub replica_lag_time_ms_max: u64,
    /// `replica.high.watermark.checkpoint.interval.ms`.
    pub high_watermark_checkpoint_interval_ms: u64,
    /// `log.flush.offset.checkpoint.interval.ms`.
    pub recovery_point_checkpoint_interval_ms: u64,
    /// `log.retention.check.interval.ms`.
    pub retention_check_interval_ms: u64,
    /// Limit of the controlled shutdown.
    pub controlled_shutdown_ms_max: u64,
    /// Bytes of client requests that may wait in one shard.
    pub admission_bytes_max: usize,
    /// Client requests' entries that may wait in one shard.
    pub admission_entries_max: usize,
    /// Byte credit of a live replica stream.
    pub live_window_bytes: usize,
    /// Byte credit of a catch-up replica stream.
    pub catch_up_window_bytes: usize,
    /// Produce is refused when less room than this is left on the disk (P-23).
    pub produce_free_bytes_min: u64,
    /// Replication is refused when less room than this is left; metadata goes on.
    pub replication_free_bytes_min: u64,
}

impl BrokerConfig {
    /// A configuration with every limit at its default.
    #[must_use]
    pub fn new(
        broker_id: BrokerId,
        log_dir: PathBuf,
        controllers: Vec<(BrokerId, String)>,
        replication_address: String,
    ) -> BrokerConfig {
        BrokerConfig {
            broker_id,
            cluster_id: None,
            log_dir,
            files: Arc::new(OsFiles),
            controllers,
            endpoints: Vec::new(),
            replication_address,
            rack: None,
            topic_settings: Arc::new(|_, _| TopicSettings::default()),
            groups: GroupsConfig::default(),
            shards: 0,
            flush_threads: 16,
            io_threads: 8,
            recovery_threads: 2,
            heartbeat_interval_ms: 500,
            session_timeout_ms: 2_000,
            replica_lag_time_ms_max: 10_000,
            high_watermark_checkpoint_interval_ms: 5_000,
            recovery_point_checkpoint_interval_ms: 60_000,
            retention_check_interval_ms: 300_000,
            controlled_shutdown_ms_max: 30_000,
            admission_bytes_max: 64 << 20,
            admission_entries_max: 16_384,
            live_window_bytes: 32 << 20,
            catch_up_window_bytes: 8 << 20,
            produce_free_bytes_min: 64 << 20,
            replication_free_bytes_min: 32 << 20,
        }
    }

    /// The number of shards that `shards` asks for.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        if self.shards > 0 {
            return self.shards;
        }
        std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(4)
    }
}
