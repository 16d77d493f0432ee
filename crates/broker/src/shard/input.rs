//! What a shard is told. Everything names its partition; nothing needs an order across partitions.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;

use ottla_metadata::Image;
use ottla_records::BatchHeader;
use ottla_replication::{FrameFacts, IsrAnswer};
use ottla_storage::{FlushDone, Log, PartitionMarks, ReadError};
use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionId};

use crate::{
    api::Acks, completion::Completion, partition::Confirmation, replica_fetcher::CreditGuard,
    replica_stream::Lane,
};

/// One batch of a producer.
pub(crate) struct ProduceInput {
    pub(crate) id: PartitionId,
    pub(crate) batch: BytesMut,
    pub(crate) header: BatchHeader,
    pub(crate) acks: Acks,
    pub(crate) completion: Arc<Completion>,
    pub(crate) slot: usize,
}

/// A follower's acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AckInput {
    pub(crate) id: PartitionId,
    pub(crate) follower: BrokerId,
    pub(crate) incarnation: BrokerEpoch,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) subscription: u64,
    pub(crate) log_end_offset: Offset,
    pub(crate) flushed_offset: Offset,
    pub(crate) no_space: bool,
    /// Newest round of confirmation that reached it.
    pub(crate) confirm: u64,
}

/// A follower asks for a partition from its log end on.
#[derive(Clone)]
pub(crate) struct SubscribeInput {
    pub(crate) id: PartitionId,
    pub(crate) follower: BrokerId,
    pub(crate) incarnation: BrokerEpoch,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) subscription: u64,
    pub(crate) log_end_offset: Offset,
    pub(crate) last_epoch: Option<LeaderEpoch>,
    pub(crate) flushed_offset: Offset,
    pub(crate) no_space: bool,
    pub(crate) lane: Arc<Lane>,
}

/// A frame from a leader.
pub(crate) struct FrameInput {
    pub(crate) id: PartitionId,
    pub(crate) leader: BrokerId,
    pub(crate) facts: FrameFacts,
    pub(crate) records: Vec<Bytes>,
    /// Newest round of confirmation that its leader has begun.
    pub(crate) confirm: u64,
    /// Returns the frame's credit when the frame is done with, used or refused.
    #[allow(dead_code, reason = "held for its drop")]
    pub(crate) credit: CreditGuard,
}

/// A log found and recovered at start.
pub(crate) struct RecoveredLog {
    pub(crate) id: PartitionId,
    pub(crate) topic: Arc<str>,
    pub(crate) log: Log,
    pub(crate) high_watermark: Offset,
    /// Recovery found damage below what was durable.
    pub(crate) damaged: bool,
}

/// What a metadata update touched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changed {
    /// Everything may have: an image, or the first update that counts.
    pub(crate) all: bool,
    /// Partitions whose record changed.
    pub(crate) partitions: Vec<PartitionId>,
    /// Topics that are gone.
    pub(crate) removed_topics: Vec<ottla_types::TopicId>,
    /// Some registration changed.
    pub(crate) brokers: bool,
    /// Some config changed.
    pub(crate) configs: bool,
}

/// A read for a follower that is behind.
pub(crate) struct ChunkRead {
    pub(crate) id: PartitionId,
    pub(crate) follower: BrokerId,
    pub(crate) subscription: u64,
    pub(crate) from: Offset,
    pub(crate) result: Result<(Bytes, Offset), ReadError>,
}

/// Anything but a client's request or an acknowledgement.
pub(crate) enum Input {
    /// Logs recovered at start.
    Adopt(Vec<RecoveredLog>),
    /// Metadata moved.
    Image {
        image: Arc<Image>,
        changed: Arc<Changed>,
    },
    /// Frames from a leader.
    Frames(Vec<FrameInput>),
    /// A follower subscribes.
    Subscribe(SubscribeInput),
    /// A follower wants no more of it.
    Unsubscribe {
        id: PartitionId,
        follower: BrokerId,
        subscription: u64,
    },
    /// A follower's live lane closed.
    StreamClosed { follower: BrokerId, lane: u64 },
    /// A lane has credit again for a session that waits.
    Credit { id: PartitionId, follower: BrokerId },
    /// A read for a follower is done.
    ChunkRead(ChunkRead),
    /// A stream to a leader is up.
    LinkUp { leader: BrokerId },
    /// It broke.
    LinkDown { leader: BrokerId },
    /// A flush is done.
    Flushed {
        id: PartitionId,
        done: FlushDone,
        micros: u64,
    },
    /// The controller has answered a proposal, or nobody knows.
    IsrAnswered {
        id: PartitionId,
        leader_epoch: LeaderEpoch,
        answer: IsrAnswer,
    },
    /// Somebody must know whether this replica still leads in this epoch.
    Confirm {
        id: PartitionId,
        leader_epoch: LeaderEpoch,
        reply: oneshot::Sender<Confirmation>,
    },
    /// The disk has room again, or none.
    SpaceChanged,
    /// The log directory failed: so has every log in it.
    DirectoryFailed,
    /// Answer everybody, close the logs, end the thread.
    Close {
        done: oneshot::Sender<Vec<PartitionMarks>>,
    },
    /// End the thread as a killed process would.
    Kill,
}
