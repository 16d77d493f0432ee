//! What a shard's partitions reach outside of themselves; none of it ever makes them wait.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use ottla_storage::{DeletedSegment, LogDir};
use ottla_types::{BrokerId, MonotonicMs, PartitionId};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    clock::Clock,
    config::BrokerConfig,
    isr_proposer::IsrProposer,
    metadata_link::LinkHandle,
    metrics::BrokerMetrics,
    partition::view::PartitionRegistry,
    replica_fetcher::Fetchers,
    replica_stream::FollowerStreams,
    shard::{input::Input, mailbox::Mailbox},
    stall::Flushes,
    worker_pool::WorkerPool,
};

/// Every shard's inbox, and which partition belongs to which.
pub(crate) struct Router {
    mailboxes: Vec<Arc<Mailbox>>,
}

impl Router {
    pub(crate) fn new(mailboxes: Vec<Arc<Mailbox>>) -> Router {
        Router { mailboxes }
    }

    pub(crate) fn shard_of(&self, id: PartitionId) -> usize {
        shard_of(id, self.mailboxes.len())
    }

    pub(crate) fn mailbox(&self, shard: usize) -> &Arc<Mailbox> {
        &self.mailboxes[shard]
    }

    pub(crate) fn of(&self, id: PartitionId) -> &Arc<Mailbox> {
        self.mailbox(self.shard_of(id))
    }

    pub(crate) fn all(&self) -> &[Arc<Mailbox>] {
        &self.mailboxes
    }

    pub(crate) fn post_all(&self, make: impl Fn() -> Input) {
        for mailbox in &self.mailboxes {
            mailbox.post(make());
        }
    }
}

/// A topic's partitions go round the shards, each topic starting elsewhere.
pub(crate) fn shard_of(id: PartitionId, shards: usize) -> usize {
    let (high, low) = id.topic_id.uuid().as_u64_pair();
    let start = (high ^ low).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let number = u64::from(id.partition.get().unsigned_abs());
    let shards_u64 = u64::try_from(shards.max(1)).unwrap_or(1);
    usize::try_from((start + number) % shards_u64).unwrap_or(0)
}

/// Whether the disk has room: produce stops first, then replication, metadata never (P-23). And
/// whether it answers (P-24).
#[derive(Debug, Default)]
pub(crate) struct Space {
    produce_blocked: AtomicBool,
    replication_blocked: AtomicBool,
    stalled: AtomicBool,
    denied: Notify,
}

impl Space {
    /// The disk refused a write for lack of room: nothing more is tried until it is found to have
    /// some.
    pub(crate) fn deny(&self) {
        self.set(true, true);
        self.denied.notify_one();
    }

    /// Waits until the disk has refused a write.
    pub(crate) async fn denied(&self) {
        self.denied.notified().await;
    }

    /// Flushes do not come back: the ISR should not wait for what is stored here.
    pub(crate) fn stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    pub(crate) fn set_stalled(&self, stalled: bool) {
        self.stalled.store(stalled, Ordering::Relaxed);
    }

    pub(crate) fn produce_blocked(&self) -> bool {
        self.produce_blocked.load(Ordering::Relaxed)
    }

    pub(crate) fn replication_blocked(&self) -> bool {
        self.replication_blocked.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, produce_blocked: bool, replication_blocked: bool) {
        self.produce_blocked
            .store(produce_blocked, Ordering::Relaxed);
        self.replication_blocked
            .store(replication_blocked, Ordering::Relaxed);
    }
}

/// Files of deleted segments, until nobody can be reading them.
#[derive(Default)]
pub(crate) struct Trash {
    files: Mutex<Vec<(MonotonicMs, DeletedSegment)>>,
}

impl Trash {
    pub(crate) fn put(&self, deleted: Vec<DeletedSegment>, due: MonotonicMs) {
        if !deleted.is_empty() {
            self.files
                .lock()
                .extend(deleted.into_iter().map(|segment| (due, segment)));
        }
    }

    /// Removes what is due; waits for the disk.
    pub(crate) fn empty(&self, now: MonotonicMs) {
        let due: Vec<_> = self
            .files
            .lock()
            .extract_if(.., |(at, _)| *at <= now)
            .collect();
        for (_, segment) in due {
            if let Err(error) = segment.remove() {
                tracing::warn!(%error, "remove a deleted segment");
            }
        }
    }
}

/// A shard's surroundings.
pub(crate) struct Env {
    pub(crate) broker_id: BrokerId,
    pub(crate) config: Arc<BrokerConfig>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<BrokerMetrics>,
    /// This shard's own inbox, for completions.
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) log_dir: Arc<LogDir>,
    pub(crate) flush_pool: Arc<WorkerPool>,
    pub(crate) flushes: Arc<Flushes>,
    pub(crate) io_pool: Arc<WorkerPool>,
    pub(crate) fetchers: Arc<Fetchers>,
    pub(crate) streams: Arc<FollowerStreams>,
    pub(crate) proposer: Arc<IsrProposer>,
    pub(crate) space: Arc<Space>,
    pub(crate) trash: Arc<Trash>,
    pub(crate) registry: Arc<PartitionRegistry>,
    /// Subscriptions begin here: differs between lives of the process.
    pub(crate) first_subscription: u64,
    /// Told when the log directory fails.
    pub(crate) directory_failed: Arc<Notify>,
    pub(crate) link: LinkHandle,
}

impl Env {
    pub(crate) fn on_directory_failed(&self) {
        self.directory_failed.notify_one();
    }
}
