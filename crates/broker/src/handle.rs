//! The broker as everybody else in the process sees it: named methods, no channels.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicI64, AtomicU8, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use ottla_metadata::{Command, CommandError, Image, Outcome};
use ottla_storage::LogDir;
use ottla_types::{BrokerEpoch, BrokerId, PartitionId, ProducerId};

use crate::{
    api::{
        Acks, BrokerState, ControllerError, LogDirInfo, ProduceEntry, ProduceError,
        QuorumDescription, ReplicaRole, ReplicaStatus,
    },
    completion::{Completion, ProduceAnswer},
    config::BrokerConfig,
    groups::GroupsHandle,
    metadata_link::LinkHandle,
    metrics::{BrokerMetrics, MetricsSnapshot},
    partition::view::PartitionRegistry,
    replica_fetcher::Fetchers,
    shard::{
        env::{Router, Space},
        input::ProduceInput,
    },
    worker_pool::WorkerPool,
};

/// What all handles share.
pub(crate) struct Shared {
    pub(crate) config: Arc<BrokerConfig>,
    pub(crate) metrics: Arc<BrokerMetrics>,
    pub(crate) image: Arc<ArcSwap<Image>>,
    pub(crate) image_index: watch::Sender<u64>,
    pub(crate) broker_epoch: Arc<AtomicI64>,
    pub(crate) state: AtomicU8,
    pub(crate) registry: Arc<PartitionRegistry>,
    pub(crate) router: Arc<Router>,
    pub(crate) io_pool: Arc<WorkerPool>,
    pub(crate) link: LinkHandle,
    pub(crate) fetchers: Weak<Fetchers>,
    /// Owned by the broker's threads and tasks: a handle that outlives them must not keep the
    /// directory locked.
    pub(crate) log_dir: Weak<LogDir>,
    pub(crate) producer_ids: tokio::sync::Mutex<ProducerIdBlock>,
    pub(crate) space: Arc<Space>,
    pub(crate) space_bytes: Mutex<Option<(u64, u64)>>,
}

impl Shared {
    fn log_dir_failed(&self) -> bool {
        self.log_dir
            .upgrade()
            .is_some_and(|log_dir| log_dir.failed())
    }
}

/// Producer ids handed out by the controller and not by us yet (C-11).
#[derive(Default)]
pub(crate) struct ProducerIdBlock {
    next: i64,
    end: i64,
}

/// A cheap handle on a running broker.
#[derive(Clone)]
pub struct BrokerHandle {
    pub(crate) shared: Arc<Shared>,
    /// `None` only in the handle that the groups themselves hold.
    pub(crate) groups: Option<GroupsHandle>,
}

impl BrokerHandle {
    /// `node.id`.
    #[must_use]
    pub fn broker_id(&self) -> BrokerId {
        self.shared.config.broker_id
    }

    /// The current registration, while there is one.
    #[must_use]
    pub fn broker_epoch(&self) -> Option<BrokerEpoch> {
        BrokerEpoch::new(self.shared.broker_epoch.load(Ordering::SeqCst))
    }

    /// The cluster as this broker knows it.
    #[must_use]
    pub fn image(&self) -> Arc<Image> {
        self.shared.image.load_full()
    }

    /// Index of the image, whenever it moves.
    #[must_use]
    pub fn image_changes(&self) -> watch::Receiver<u64> {
        self.shared.image_index.subscribe()
    }

    /// How far the broker has come in its life.
    #[must_use]
    pub fn state(&self) -> BrokerState {
        match self.shared.state.load(Ordering::SeqCst) {
            0 => BrokerState::Starting,
            1 => BrokerState::Recovering,
            2 => BrokerState::Running,
            3 => BrokerState::PendingControlledShutdown,
            _ => BrokerState::ShuttingDown,
        }
    }

    /// Registered, unfenced and heard of it lately, and its log directory is fine (M-21).
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state() == BrokerState::Running
            && self.shared.link.session().borrow().unfenced
            && self.shared.link.is_heard()
            && !self.shared.log_dir_failed()
            && !self.shared.space.stalled()
    }

    /// Why the quorum has refused this broker for good, if it has.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
        self.shared.link.refused().borrow().clone()
    }

    /// Whether the replica stream from `broker` broke a moment ago: its process may be dead while
    /// metadata still names it as a leader.
    #[must_use]
    pub fn is_suspect(&self, broker: BrokerId) -> bool {
        let fetchers = self.shared.fetchers.upgrade();
        fetchers.is_some_and(|fetchers| fetchers.is_suspect(broker))
    }

    /// Whether some partition here follows `broker`: only then does [`BrokerHandle::is_suspect`]
    /// have anything to go by.
    #[must_use]
    pub fn follows(&self, broker: BrokerId) -> bool {
        let fetchers = self.shared.fetchers.upgrade();
        fetchers.is_some_and(|fetchers| fetchers.follows(broker))
    }

    /// Whether this replica leads and takes appends.
    #[must_use]
    pub fn leads(&self, id: PartitionId) -> bool {
        self.replica_status(id)
            .is_some_and(|status| status.role == crate::ReplicaRole::Leader)
    }

    /// Enqueues every entry in its owning shard before returning, so the place of each batch in
    /// its log is fixed by the order of calls; the future only waits, and no longer than
    /// `deadline`.
    pub fn produce(
        &self,
        entries: Vec<ProduceEntry>,
        acks: Acks,
        deadline: Instant,
    ) -> ProduceAnswer {
        let completion = Completion::new(entries.len());
        let router = &self.shared.router;
        let mut by_shard: Vec<Vec<ProduceInput>> = Vec::new();
        by_shard.resize_with(router.all().len(), Vec::new);
        let closing = self.state() == BrokerState::ShuttingDown;
        for (slot, entry) in entries.into_iter().enumerate() {
            let refusal = if closing {
                Some(ProduceError::ShuttingDown)
            } else {
                self.refuse_early(entry.id)
            };
            if let Some(error) = refusal {
                self.shared.metrics.failed_produce_requests.one();
                completion.answer(slot, Err(error));
                continue;
            }
            by_shard[router.shard_of(entry.id)].push(ProduceInput {
                id: entry.id,
                batch: entry.batch,
                header: entry.header,
                acks,
                completion: Arc::clone(&completion),
                slot,
            });
        }
        for (shard, produces) in by_shard.into_iter().enumerate() {
            if produces.is_empty() {
                continue;
            }
            if let Err(refused) = router.mailbox(shard).admit(produces) {
                self.shared
                    .metrics
                    .throttled_produces
                    .add_len(refused.len());
                for produce in refused {
                    completion.answer(produce.slot, Err(ProduceError::Throttled));
                }
            }
        }
        ProduceAnswer::new(completion, deadline)
    }

    /// What need not go to a shard: partitions that are not here at all. One that is to be here is
    /// the shard's to refuse, which remembers what it refused (P-8).
    fn refuse_early(&self, id: PartitionId) -> Option<ProduceError> {
        if self.shared.registry.contains(id) {
            return None;
        }
        let image = self.shared.image.load();
        Some(match image.partition(id) {
            Some(record) if record.replicas.contains(&self.broker_id()) => return None,
            Some(record) => ProduceError::NotLeader {
                leader: record.leader.map(|leader| (leader, record.leader_epoch)),
            },
            None => ProduceError::UnknownPartition,
        })
    }

    /// Takes a command to the active controller, again and again until the deadline.
    ///
    /// # Errors
    /// No decision is known: see [`ControllerError`].
    pub async fn execute(
        &self,
        command: Command,
        deadline: Instant,
    ) -> Result<(u64, Outcome), ControllerError> {
        self.shared.link.execute(command, deadline).await
    }

    /// Waits until the image includes `index`; false at the deadline.
    pub async fn wait_for_image(&self, index: u64, deadline: Instant) -> bool {
        let limit = deadline.saturating_duration_since(Instant::now());
        self.shared.link.wait_for_image(index, limit).await
    }

    /// A producer id that nobody has had before (C-11).
    ///
    /// # Errors
    /// A block is needed and no controller gave one in time.
    pub async fn next_producer_id(&self) -> Result<ProducerId, ControllerError> {
        let mut block = self.shared.producer_ids.lock().await;
        if block.next >= block.end {
            let (next, end) = self.allocate_producer_ids().await?;
            *block = ProducerIdBlock { next, end };
        }
        let id = ProducerId(block.next);
        block.next += 1;
        Ok(id)
    }

    async fn allocate_producer_ids(&self) -> Result<(i64, i64), ControllerError> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let Some(broker_epoch) = self.broker_epoch() else {
                let reason = "this broker is not registered".to_owned();
                return Err(ControllerError::Unavailable(reason));
            };
            let command = Command::AllocateProducerIds {
                broker_id: self.broker_id(),
                broker_epoch,
            };
            match self.execute(command, deadline).await? {
                (_, Outcome::ProducerIds { first, count }) => {
                    return Ok((first.get(), first.get().saturating_add(i64::from(count))));
                }
                (_, Outcome::Refused(CommandError::StaleBrokerEpoch)) => {
                    if Instant::now() >= deadline {
                        return Err(ControllerError::TimedOut);
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                (_, outcome) => {
                    return Err(ControllerError::Unavailable(format!(
                        "answered {outcome:?}"
                    )));
                }
            }
        }
    }

    /// The controller quorum, as its leader sees it.
    ///
    /// # Errors
    /// No active controller answered in time.
    pub async fn describe_quorum(
        &self,
        deadline: Instant,
    ) -> Result<QuorumDescription, ControllerError> {
        self.shared.link.describe_quorum(deadline).await
    }

    /// The active controller, as far as this broker knows.
    #[must_use]
    pub fn active_controller(&self) -> Option<BrokerId> {
        self.shared.link.active_controller()
    }

    /// A local replica as last published by its shard.
    #[must_use]
    pub fn replica_status(&self, id: PartitionId) -> Option<ReplicaStatus> {
        Some(self.shared.registry.get(id)?.view.load().status())
    }

    /// Every partition with a replica here.
    #[must_use]
    pub fn local_partitions(&self) -> Vec<PartitionId> {
        let mut ids: Vec<PartitionId> = self.shared.registry.all().keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// The log directory.
    #[must_use]
    pub fn log_dir_info(&self) -> LogDirInfo {
        let space = *self.shared.space_bytes.lock();
        LogDirInfo {
            path: self.shared.config.log_dir.clone(),
            failed: self.shared.log_dir_failed(),
            total_bytes: space.map(|(total, _)| total),
            usable_bytes: space.map(|(_, usable)| usable),
        }
    }

    /// The group coordinator.
    ///
    /// # Panics
    /// Never on a handle from [`crate::Broker::handle`]: groups start before it is given out.
    #[must_use]
    pub fn groups(&self) -> &GroupsHandle {
        self.groups
            .as_ref()
            .expect("groups are started before the handle is given out")
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> Arc<BrokerMetrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// Counters and gauges at this moment.
    #[must_use]
    pub fn metrics_snapshot(&self) -> MetricsSnapshot {
        let shared = &self.shared;
        let image = shared.image.load();
        let mut snapshot = MetricsSnapshot {
            counters: shared.metrics.values(),
            offline_partitions: image.offline_partitions(),
            fetch_purgatory_size: shared.registry.purgatory_size.load(Ordering::Relaxed),
            admission_bytes: shared.router.all().iter().map(|m| m.produce_bytes()).sum(),
            metadata_index: image.index,
            metadata_lag: shared.link.metadata_lag(),
            fenced: !shared.link.session().borrow().unfenced,
            offline_log_directories: usize::from(shared.log_dir_failed()),
            groups: self
                .groups
                .as_ref()
                .map(GroupsHandle::numbers)
                .unwrap_or_default(),
            ..MetricsSnapshot::default()
        };
        for handle in shared.registry.all().values() {
            let view = handle.view.load();
            snapshot.partition_count += 1;
            snapshot.log_bytes += view.size_bytes;
            snapshot.offline_replicas += usize::from(view.failed);
            if view.role == ReplicaRole::Leader {
                let in_sync = view.isr.len();
                snapshot.leader_count += 1;
                snapshot.under_replicated_partitions += usize::from(in_sync < view.replica_count);
                snapshot.under_min_isr_partitions += usize::from(in_sync < view.min_isr);
                snapshot.at_min_isr_partitions += usize::from(in_sync == view.min_isr);
            }
        }
        snapshot
    }
}
