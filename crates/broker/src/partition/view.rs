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
///
/// It stands in the list of a partition at most once, however often others wake it.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) notify: Notify,
    done: AtomicBool,
    /// For each of its partitions, whether it stands in that one's list.
    listed: Vec<AtomicBool>,
}

impl Waiter {
    /// One that waits for so many partitions.
    pub(crate) fn new(partitions: usize) -> Waiter {
        Waiter {
            notify: Notify::new(),
            done: AtomicBool::new(false),
            listed: (0..partitions).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    /// Notes that it stands in this list, or does not; what was noted before.
    fn set_listed(&self, slot: usize, listed: bool) -> bool {
        let noted = self.listed.get(slot);
        noted.is_some_and(|noted| noted.swap(listed, Ordering::SeqCst))
    }

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
    /// Who waits, and which of its partitions this one is.
    waiters: Mutex<Vec<(Arc<Waiter>, usize)>>,
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

    /// Wakes `waiter` at the next publication that moves what can be read; this is its partition
    /// number `slot`.
    pub(crate) fn register(&self, waiter: &Arc<Waiter>, slot: usize) {
        if waiter.set_listed(slot, true) {
            return;
        }
        let mut waiters = self.waiters.lock();
        if waiters.len() >= 16 {
            waiters.retain(|(waiter, _)| !waiter.done.load(Ordering::Relaxed));
        }
        waiters.push((Arc::clone(waiter), slot));
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
        for (waiter, slot) in waiters {
            // Before it is notified: it registers again before it looks again.
            waiter.set_listed(slot, false);
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

#[cfg(test)]
mod tests {
    use ottla_types::{PartitionIndex, TopicId};

    use super::*;

    fn handle(partition: i32) -> PartitionHandle {
        let view = View {
            role: ReplicaRole::Leader,
            failed: false,
            leader: None,
            leader_epoch: LeaderEpoch::ZERO,
            epoch_start_offset: None,
            log_start_offset: Offset::ZERO,
            high_watermark: Offset::ZERO,
            log_end_offset: Offset::ZERO,
            flushed_offset: Offset::ZERO,
            size_bytes: 0,
            epochs: Arc::from([]),
            isr: Arc::from([]),
            replica_count: 1,
            min_isr: 1,
            reader: None,
        };
        let id = PartitionId {
            topic_id: TopicId::new(uuid::Uuid::from_u128(1)).unwrap(),
            partition: PartitionIndex(partition),
        };
        PartitionHandle::new(id, Arc::from("t"), view)
    }

    #[tokio::test]
    async fn a_busy_partition_does_not_fill_the_list_of_a_quiet_one() {
        let (busy, quiet) = (handle(0), handle(1));
        let waiter = Arc::new(Waiter::new(2));
        for _ in 0..100 {
            busy.register(&waiter, 0);
            quiet.register(&waiter, 1);
            busy.wake();
            waiter.notify.notified().await;
        }
        assert_eq!(quiet.waiters.lock().len(), 1, "X-12");
        quiet.wake();
        waiter.notify.notified().await;
    }
}
