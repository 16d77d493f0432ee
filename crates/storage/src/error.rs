//! What can go wrong, by operation: each says whether the log is still good.

use std::io;
use std::path::PathBuf;

use ottla_records::BatchError;
use ottla_types::{LeaderEpoch, Offset, PartitionIndex, TopicId};

/// The disk did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Full. Nothing changed, and a retry works once there is space (S-7).
    #[error("no space is left in the log directory")]
    NoSpace,
    /// No file can be opened now. Nothing changed, and a retry works once others were closed.
    #[error("too many files are open")]
    TooManyFiles,
    /// An earlier error made the whole directory unusable in this process (S-6).
    #[error("the log directory failed earlier")]
    DirectoryFailed,
    /// Anything else. After a write or a sync the directory is failed (S-6).
    #[error("{operation} {}", path.display())]
    Io {
        /// What was asked.
        operation: &'static str,
        /// Of which file.
        path: PathBuf,
        /// The answer.
        #[source]
        source: io::Error,
    },
}

impl DiskError {
    /// Whether a retry may work without anybody's help but that of time.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            DiskError::NoSpace | DiskError::TooManyFiles => true,
            DiskError::DirectoryFailed | DiskError::Io { .. } => false,
        }
    }
}

/// Why an append did nothing: none of the call's batches is in the log.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The disk is full; the log ends at its last whole batch and is well (S-7).
    #[error("no space is left in the log directory")]
    NoSpace,
    /// No file can be opened now; the log is well.
    #[error("too many files are open")]
    TooManyFiles,
    /// The log directory is failed, now or earlier (S-6).
    #[error("the log directory is failed")]
    Io(#[source] DiskError),
    /// Not whole batches of the right format with the right CRC.
    #[error("corrupt batch: {0}")]
    Corrupt(#[source] BatchError),
    /// A batch larger than a segment may be.
    #[error("batch of {size_bytes} bytes in segments of {segment_bytes}")]
    BatchTooLarge {
        /// The batch's size.
        size_bytes: usize,
        /// `segment.bytes`.
        segment_bytes: u64,
    },
    /// A replicated batch that does not continue the log.
    #[error("batch at offset {found} where {expected} is next")]
    OutOfOrder {
        /// The log's end.
        expected: Offset,
        /// The batch's base offset.
        found: Offset,
    },
    /// A batch of an epoch older than the log's newest.
    #[error("batch of leader epoch {found} after epoch {latest}")]
    EpochRegressed {
        /// The newest epoch of the log.
        latest: LeaderEpoch,
        /// The batch's epoch.
        found: LeaderEpoch,
    },
    /// No offset is left.
    #[error("the offsets are used up")]
    OffsetsExhausted,
}

impl From<DiskError> for AppendError {
    fn from(error: DiskError) -> AppendError {
        match error {
            DiskError::NoSpace => AppendError::NoSpace,
            DiskError::TooManyFiles => AppendError::TooManyFiles,
            error @ (DiskError::DirectoryFailed | DiskError::Io { .. }) => AppendError::Io(error),
        }
    }
}

/// Why a log could not be opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The directory belongs to another topic of the same name.
    #[error("the directory belongs to topic id {found:?}, not to {expected}")]
    TopicIdMismatch {
        /// The id asked for.
        expected: TopicId,
        /// The id found, if one could be read.
        found: Option<TopicId>,
    },
    /// A topic name that cannot be a directory.
    #[error("{0:?} is not a topic name")]
    TopicName(String),
    /// An offset outside the log.
    #[error("offset {offset} is outside the log, which ends at {log_end_offset}")]
    OffsetOutOfRange {
        /// The offset.
        offset: Offset,
        /// The log's end.
        log_end_offset: Offset,
    },
    /// Bytes that were good are not (P-28).
    #[error("the log is damaged at offset {offset}")]
    Corrupt {
        /// Where.
        offset: Offset,
    },
}

impl LogError {
    /// Whether a retry may work without anybody's help but that of time.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            LogError::Disk(error) => error.is_transient(),
            LogError::TopicIdMismatch { .. }
            | LogError::TopicName(_)
            | LogError::OffsetOutOfRange { .. }
            | LogError::Corrupt { .. } => false,
        }
    }
}

/// Why a read gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset is not in the log.
    #[error("offset {offset} is outside {log_start_offset}..{log_end_offset}")]
    OutOfRange {
        /// The offset asked for.
        offset: Offset,
        /// First offset readable.
        log_start_offset: Offset,
        /// Offset that the next record will get.
        log_end_offset: Offset,
    },
    /// The batch there is not what was written; it must not be served (P-28).
    #[error("the log is damaged at offset {offset}")]
    Corrupt {
        /// The first offset that cannot be read.
        offset: Offset,
    },
    /// The log was truncated again and again under the reader; a retry works.
    #[error("the log was truncated during the read")]
    Truncated,
    /// The disk.
    #[error("read the log")]
    Io(#[source] io::Error),
}

/// Why a log directory could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum LogDirError {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Another process has it (S-10).
    #[error("{} is locked by another process", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// `meta.properties` cannot be read.
    #[error("{}: {reason}", path.display())]
    Meta {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The directory belongs to another node (S-10).
    #[error("the log directory belongs to node {found}, this is node {expected}")]
    NodeId {
        /// Our `node.id`.
        expected: i32,
        /// The one on disk.
        found: i32,
    },
    /// The directory belongs to another cluster (S-10).
    #[error("the log directory belongs to cluster {found:?}, this is {expected:?}")]
    ClusterId {
        /// Our cluster.
        expected: String,
        /// The one on disk.
        found: String,
    },
    /// A topic name that cannot be a directory.
    #[error("{0:?} is not a topic name")]
    TopicName(String),
    /// The log did not end cleanly (S-5).
    #[error("the log of {topic}-{partition} was not closed")]
    NotClosed {
        /// The topic's name.
        topic: String,
        /// The partition.
        partition: PartitionIndex,
    },
}
