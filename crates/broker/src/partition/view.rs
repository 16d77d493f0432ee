//! What a shard publishes of a partition: an immutable snapshot that anyone may read without a hop.
//!
//! # Invariants
//! * `log_start <= last_stable_offset <= high_watermark <= log_end` in every snapshot.
//! * Whoever waits for a partition registers first and looks second; a shard publishes first and
//!   wakes second: no wake-up is lost.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use ottla_replication::lineage::EpochStart;
use ottla_storage::LogReader;
use ottla_types::{BrokerId, LeaderEpoch, Offset, PartitionId};

use crate::api::{LeaderHint, ReplicaRole, ReplicaStatus};

/// A partition at one moment.
pub(crate) struct View {
    pub(crate) role: ReplicaRole,
    /// Its log directory failed.
    pub(crate) failed: bool,
    pub(crate) leader: LeaderHint,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) epoch_start_offset: Option<Offset>,
    pub(crate) log_start_offset: Offset,
    pub(crate) high_watermark: Offset,
    pub(crate) log_end_offset: Offset,
    pub(crate) flushed_offset: Offset,
    pub(crate) size_bytes: u64,
    pub(crate) epochs: Arc<[EpochStart]>,
    pub(crate) isr: Arc<[BrokerId]>,
    pub(crate) replica_count: usize,
    pub(crate) min_isr: usize,
    pub(crate) reader: Option<LogReader>,
}

impl View {
    /// Without transactions every committed record is stable.
    pub(crate) fn last_stable_offset(&self) -> Offset {
        self.high_watermark
    }

    pub(crate) fn status(&self) -> ReplicaStatus {
        ReplicaStatus {
            role: self.role,
            leader_epoch: self.leader_epoch,
            epoch_start_offset: self.epoch_start_offset,
            log_start_offset: self.log_start_offset,
            high_watermark: self.high_watermark,
            log_end_offset: self.log_end_offset,
            flushed_offset: self.flushed_offset,
            size_bytes: self.size_bytes,
            isr: self.isr.to_vec(),
        }
    }
}

/// Somebody who waits for records in one or more partitions.
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    pub(crate) notify: Notify,
    done: AtomicBool,
}

impl Waiter {
    /// The waiter has its answer; entries that name it are dead.
    pub(crate) fn finish(&self) {
        self.done.store(true, Ordering::Relaxed);
    }
}

/// A partition hosted here, as the outside sees it.
pub(crate) struct PartitionHandle {
    pub(crate) id: PartitionId,
    pub(crate) topic: Arc<str>,
    pub(crate) view: ArcSwap<View>,
    waiters: Mutex<Vec<Arc<Waiter>>>,
    has_waiters: AtomicBool,
}

impl PartitionHandle {
    pub(crate) fn new(id: PartitionId, topic: Arc<str>, view: View) -> PartitionHandle {
        PartitionHandle {
            id,
            topic,
            view: ArcSwap::from_pointee(view),
            waiters: Mutex::new(Vec::new()),
            has_waiters: AtomicBool::new(false),
        }
    }

    /// Wakes `waiter` at the next publication that moves what can be read.
    pub(crate) fn register(&self, waiter: &Arc<Waiter>) {
        let mut waiters = self.waiters.lock();
        if waiters.len() >= 16 {
            waiters.retain(|waiter| !waiter.done.load(Ordering::Relaxed));
        }
        waiters.push(Arc::clone(waiter));
        self.has_waiters.store(true, Ordering::SeqCst);
    }

    /// Wakes everybody who waits here; after the view was stored.
    pub(crate) fn wake(&self) {
        if !self.has_waiters.load(Ordering::SeqCst) {
            return;
        }
        let waiters = {
            let mut waiters = self.waiters.lock();
            self.has_waiters.store(false, Ordering::SeqCst);
            std::mem::take(&mut *waiters)
        };
        for waiter in waiters {
            waiter.notify.notify_one();
        }
    }
}

/// Every partition hosted here, by id.
#[derive(Default)]
pub(crate) struct PartitionRegistry {
    partitions: ArcSwap<HashMap<PartitionId, Arc<PartitionHandle>>>,
    /// Fetches that wait.
    pub(crate) purgatory_size: AtomicUsize,
}

impl PartitionRegistry {
    pub(crate) fn get(&self, id: PartitionId) -> Option<Arc<PartitionHandle>> {
        self.partitions.load().get(&id).cloned()
    }

    pub(crate) fn contains(&self, id: PartitionId) -> bool {
        self.partitions.load().contains_key(&id)
    }

    pub(crate) fn all(&self) -> Arc<HashMap<PartitionId, Arc<PartitionHandle>>> {
        self.partitions.load_full()
    }

    /// Adds and removes in one step: a shard collects a whole metadata update first.
    pub(crate) fn change(&self, added: &[Arc<PartitionHandle>], removed: &[PartitionId]) {
        if added.is_empty() && removed.is_empty() {
            return;
        }
        self.partitions.rcu(|current| {
            let mut next = HashMap::clone(current);
            for id in removed {
                next.remove(id);
            }
            for handle in added {
                next.insert(handle.id, Arc::clone(handle));
            }
            next
        });
    }
}
