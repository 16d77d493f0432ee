//! What a topic's configuration means for its logs.

use ottla_records::TimestampType;

/// Positions within a segment are 31 bits wide in Kafka's index files.
pub(crate) const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;

/// Settings of one log, each named as the topic's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A segment rolls before it would grow beyond this; a larger batch is refused.
    pub segment_bytes: u64,
    /// A segment rolls when its first batch is older than this.
    pub segment_ms: u64,
    /// Up to this much is taken off `segment_ms`, so that logs do not all roll at once.
    pub segment_jitter_ms: u64,
    /// An index entry for so many bytes.
    pub index_interval_bytes: u32,
    /// A segment rolls when its index has grown to this.
    pub segment_index_bytes: u32,
    /// Whether `cleanup.policy` contains `delete`: only then does retention apply.
    pub cleanup_delete: bool,
    /// Segments older than this are deleted; `None` keeps them.
    pub retention_ms: Option<u64>,
    /// The oldest segments beyond this total are deleted; `None` keeps them.
    pub retention_bytes: Option<u64>,
    /// 1 is mode `ack`: only flushed offsets count. Larger is mode `page`.
    pub flush_messages: u64,
    /// How long data may stay unflushed in mode `page`.
    pub flush_ms: u64,
    /// The largest batch that may be produced.
    pub max_message_bytes: u32,
    /// Whose clock the timestamps are.
    pub timestamp_type: TimestampType,
    /// An idempotent producer is forgotten so long after this process last saw it write.
    pub producer_id_expiration_ms: u64,
    /// How many idempotent producers are remembered; beyond, the longest silent are forgotten.
    pub producer_ids_max: usize,
    /// After so many appended bytes a flush takes a snapshot of the producers along, so that the
    /// next start replays no more than that (S-12).
    pub producer_snapshot_bytes: u64,
    /// How long files of deleted segments stay on disk, for readers that still hold them.
    pub file_delete_delay_ms: u64,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        const DAY_MS: u64 = 24 * 60 * 60 * 1000;
        LogConfig {
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY_MS,
            segment_jitter_ms: 0,
            index_interval_bytes: 4096,
            segment_index_bytes: 10 << 20,
            cleanup_delete: true,
            retention_ms: Some(7 * DAY_MS),
            retention_bytes: None,
            flush_messages: 1,
            flush_ms: u64::MAX,
            max_message_bytes: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            producer_id_expiration_ms: DAY_MS,
            producer_ids_max: 100_000,
            producer_snapshot_bytes: 64 << 20,
            file_delete_delay_ms: 60_000,
        }
    }
}

impl LogConfig {
    /// Whether only flushed offsets count as stored (mode `ack`).
    #[must_use]
    pub fn counts_flushed_only(&self) -> bool {
        self.flush_messages <= 1
    }

    pub(crate) fn segment_bytes_max(&self) -> u64 {
        self.segment_bytes.min(SEGMENT_BYTES_MAX)
    }
}
