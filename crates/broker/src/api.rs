//! The words in which the edge and the coordinators talk to the broker.
//!
//! Domain terms only: which Kafka error code an error becomes is decided in `gateway`. Errors say
//! whether the write may still happen (P-6, P-7).

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use ottla_records::BatchHeader;
use ottla_storage::LogSlice;
use ottla_types::{BrokerId, LeaderEpoch, Offset, PartitionId, WallClockMs};

/// How far the broker has come in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerState {
    /// Opening its log directory, looking for the quorum.
    Starting,
    /// Recovering logs, registered but fenced.
    Recovering,
    /// Unfenced: serves its partitions.
    Running,
    /// Handing its leaderships over, still serving.
    PendingControlledShutdown,
    /// Closing its logs: answers nothing any more.
    ShuttingDown,
}

/// What a producer wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// Nothing (acks=0).
    None,
    /// The leader has appended (acks=1).
    Leader,
    /// Every in-sync replica stores it (acks=all), P-1.
    All,
}

/// One batch for one partition, validated by the caller.
#[derive(Debug)]
pub struct ProduceEntry {
    /// Where it goes.
    pub id: PartitionId,
    /// The batch; offsets and leader epoch are stamped in place.
    pub batch: BytesMut,
    /// Its parsed header.
    pub header: BatchHeader,
}

/// A batch stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced {
    /// Offset of its first record; of the original for a duplicate.
    pub base_offset: Offset,
    /// The time stamped on it, if the topic uses LogAppendTime.
    pub log_append_time: Option<WallClockMs>,
    /// First offset still readable.
    pub log_start_offset: Offset,
}

/// Who leads a partition, as far as this broker knows.
pub type LeaderHint = Option<(BrokerId, LeaderEpoch)>;

/// Why a produce was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// Nothing was written: another broker leads.
    #[error("not the leader, {leader:?} is")]
    NotLeader {
        /// Who does.
        leader: LeaderHint,
    },
    /// Nothing was written: no such partition here.
    #[error("unknown partition")]
    UnknownPartition,
    /// Nothing was written: the ISR is below `min.insync.replicas`.
    #[error("{in_sync} replicas in sync, {required} required")]
    NotEnoughReplicas {
        /// Members of the ISR.
        in_sync: usize,
        /// `min.insync.replicas`.
        required: usize,
    },
    /// Written, but the ISR fell below `min.insync.replicas` meanwhile.
    #[error("fewer replicas in sync than required after the append")]
    NotEnoughReplicasAfterAppend,
    /// Written or not, nobody knew before the deadline.
    #[error("timed out")]
    TimedOut,
    /// Nothing was written: a gap in the producer's sequence.
    #[error("sequence out of order")]
    OutOfOrderSequence,
    /// Nothing was written: the producer id has a newer epoch.
    #[error("producer epoch is fenced")]
    InvalidProducerEpoch,
    /// Nothing was written: a non-transactional batch inside a transaction.
    #[error("transaction state does not allow this batch")]
    InvalidTxnState,
    /// Nothing was written: the disk is full.
    #[error("no space on the log directory")]
    NoSpace,
    /// The log directory failed; the batch may or may not be there.
    #[error("the log directory failed")]
    Storage,
    /// Written here, not known to be replicated: it may yet become durable.
    #[error("leadership ended before the append was replicated")]
    OutcomeUnknown,
    /// Nothing was written: too much is waiting already, or too many files are open.
    #[error("the admission budget is spent")]
    Throttled,
    /// Nothing was written: the batch does not fit a segment.
    #[error("the batch is larger than a segment")]
    BatchTooLargeForSegment,
    /// Nothing was written: the batch is not what its header says.
    #[error("the batch is not valid")]
    Corrupt,
    /// Nothing was written: the broker is shutting down.
    #[error("the broker is shutting down")]
    ShuttingDown,
}

/// Which records a consumer may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// All below the high watermark.
    ReadUncommitted,
    /// All below the last stable offset.
    ReadCommitted,
}

/// Who reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reader {
    /// A consumer: reads committed records from the leader.
    Consumer {
        /// Its rack, if it said one.
        rack: Option<String>,
    },
    /// A debugging consumer (replica id -2): reads any replica up to its log end.
    Debug,
    /// A coordinator in this process: reads any replica up to that replica's high watermark.
    LocalReplica,
}

/// One partition of a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchPartition {
    /// The partition.
    pub id: PartitionId,
    /// First offset wanted.
    pub offset: Offset,
    /// Most bytes of this partition.
    pub max_bytes: usize,
    /// The epoch the reader believes in (KIP-320).
    pub current_leader_epoch: Option<LeaderEpoch>,
    /// Epoch of the last record it has (KIP-320).
    pub last_fetched_epoch: Option<LeaderEpoch>,
}

/// A fetch of several partitions.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// The partitions, in the order in which they share `max_bytes`.
    pub partitions: Vec<FetchPartition>,
    /// Most bytes in total; the first partition with data may exceed it by one batch (KIP-74).
    pub max_bytes: usize,
    /// Wait until so many bytes are there.
    pub min_bytes: usize,
    /// Wait no longer than this.
    pub deadline: Instant,
    /// What the reader may see.
    pub isolation: Isolation,
    /// Who reads.
    pub reader: Reader,
}

/// The records of one partition's answer, whole batches.
#[derive(Clone, Debug)]
pub enum FetchedRecords {
    /// Nothing.
    Empty,
    /// In memory.
    Memory(Bytes),
    /// A range of a segment file.
    File(LogSlice),
}

impl FetchedRecords {
    /// Size in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            FetchedRecords::Empty => 0,
            FetchedRecords::Memory(bytes) => bytes.len(),
            FetchedRecords::File(slice) => slice.len,
        }
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An aborted transaction that overlaps the records of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose.
    pub producer_id: ottla_types::ProducerId,
    /// Its first offset.
    pub first_offset: Offset,
}

/// What was read of one partition.
#[derive(Clone, Debug)]
pub struct FetchedPartition {
    /// First offset not known to be committed.
    pub high_watermark: Offset,
    /// Bounds `read_committed`.
    pub last_stable_offset: Offset,
    /// First offset still readable.
    pub log_start_offset: Offset,
    /// The records.
    pub records: FetchedRecords,
    /// The reader's log diverges: the largest epoch it shares with us, and where that ends here.
    pub diverging: Option<(LeaderEpoch, Offset)>,
    /// Aborted transactions among the records (`read_committed` only).
    pub aborted: Vec<AbortedTransaction>,
}

/// The answer for one partition of a fetch.
#[derive(Clone, Debug)]
pub struct FetchAnswer {
    /// The partition.
    pub id: PartitionId,
    /// What was read, or why nothing was.
    pub result: Result<FetchedPartition, FetchError>,
}

/// Why a partition could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Another broker leads.
    #[error("not the leader, {leader:?} is")]
    NotLeader {
        /// Who does.
        leader: LeaderHint,
    },
    /// No such partition here.
    #[error("unknown partition")]
    UnknownPartition,
    /// The offset is not in the log.
    #[error("offset is outside {log_start}..={end}")]
    OffsetOutOfRange {
        /// First offset still readable.
        log_start: Offset,
        /// End of what the reader may ask for.
        end: Offset,
    },
    /// The reader's epoch is old.
    #[error("fenced leader epoch")]
    FencedLeaderEpoch {
        /// Who leads now.
        leader: LeaderHint,
    },
    /// The reader's epoch is newer than ours.
    #[error("unknown leader epoch")]
    UnknownLeaderEpoch,
    /// The log directory failed, or what was read is damaged.
    #[error("storage failed")]
    Storage,
    /// The broker is shutting down.
    #[error("the broker is shutting down")]
    ShuttingDown,
}

/// Which offset is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetQuery {
    /// The end of what the reader may see.
    Latest,
    /// The log start.
    Earliest,
    /// The record with the greatest timestamp.
    MaxTimestamp,
    /// The first record at or after this time.
    Timestamp(i64),
}

/// An offset found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundOffset {
    /// The offset.
    pub offset: Offset,
    /// Its record's timestamp, where a record was looked up.
    pub timestamp: Option<i64>,
    /// Its leader epoch, if known.
    pub leader_epoch: Option<LeaderEpoch>,
}

/// Why offsets could not be listed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListOffsetsError {
    /// Another broker leads.
    #[error("not the leader, {leader:?} is")]
    NotLeader {
        /// Who does.
        leader: LeaderHint,
    },
    /// No such partition here.
    #[error("unknown partition")]
    UnknownPartition,
    /// The asker's epoch is old.
    #[error("fenced leader epoch")]
    FencedLeaderEpoch {
        /// Who leads now.
        leader: LeaderHint,
    },
    /// The asker's epoch is newer than ours.
    #[error("unknown leader epoch")]
    UnknownLeaderEpoch,
    /// A new leader whose high watermark has not reached its epoch's start (P-42).
    #[error("offset not available yet")]
    OffsetNotAvailable,
    /// The log directory failed.
    #[error("storage failed")]
    Storage,
}

/// Why a command reached no decision that we know of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControllerError {
    /// No active controller answered.
    #[error("no active controller: {0}")]
    Unavailable(String),
    /// Outcome unknown at the deadline.
    #[error("timed out waiting for the controller")]
    TimedOut,
}

/// A replica's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaRole {
    /// Leads.
    Leader,
    /// Follows.
    Follower,
    /// Neither: its log directory failed, or it has no role yet.
    Offline,
}

/// A replica as last published by its shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Its role.
    pub role: ReplicaRole,
    /// The epoch of that role.
    pub leader_epoch: LeaderEpoch,
    /// Where the leader's epoch begins in its log; `None` on others.
    pub epoch_start_offset: Option<Offset>,
    /// First offset still readable.
    pub log_start_offset: Offset,
    /// First offset not known to be committed.
    pub high_watermark: Offset,
    /// The offset the next record gets.
    pub log_end_offset: Offset,
    /// Everything below is on disk.
    pub flushed_offset: Offset,
    /// Size of the log on disk.
    pub size_bytes: u64,
    /// Committed in-sync replicas, as the leader knows them; empty on others.
    pub isr: Vec<BrokerId>,
}

/// Which log directory this broker has, for DescribeLogDirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDirInfo {
    /// Its path.
    pub path: std::path::PathBuf,
    /// It has failed.
    pub failed: bool,
    /// Size of the file system.
    pub total_bytes: Option<u64>,
    /// Room left.
    pub usable_bytes: Option<u64>,
}

/// One member of the controller quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuorumReplica {
    /// Its node id.
    pub node_id: BrokerId,
    /// Its directory.
    pub directory_id: uuid::Uuid,
    /// End of its log; `None` if never heard of.
    pub log_end_index: Option<u64>,
    /// Milliseconds since it last answered; `None` for never.
    pub last_answer_ms_ago: Option<u64>,
}

/// The controller quorum, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumDescription {
    /// The active controller.
    pub leader: BrokerId,
    /// Its term.
    pub term: u64,
    /// Last committed index.
    pub committed_index: u64,
    /// Voters.
    pub voters: Vec<QuorumReplica>,
    /// Observers.
    pub observers: Vec<QuorumReplica>,
}
