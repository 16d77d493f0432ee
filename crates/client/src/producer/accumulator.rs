//! All partitions' queues, and which batches are not settled yet: what `flush` waits for.

use std::collections::BTreeMap;

use tokio::{
    sync::{OwnedSemaphorePermit, oneshot, watch},
    time::Instant,
};

use super::batch::{Batch, Identity};
use super::queue::{Outcome, Queue, QueueRules};
use super::record::{DeliveryError, ProducerRecord, RecordMetadata};
use crate::metadata::TopicPartition;

pub(super) struct Accumulator {
    rules: QueueRules,
    queues: BTreeMap<TopicPartition, Queue>,
    /// Unsettled batches by id; the halves of a split one count separately.
    unsettled: BTreeMap<u64, usize>,
    next_batch_id: u64,
    /// Batches below this id are sent without linger.
    hurry_below: u64,
    /// The lowest unsettled id, or the next id if all is settled.
    settled_below: watch::Sender<u64>,
    is_closed: bool,
}

/// The producer has ended: the record was not taken.
#[derive(Debug)]
pub(super) struct Closed;

impl Accumulator {
    pub(super) fn new(rules: QueueRules) -> Accumulator {
        Accumulator {
            rules,
            queues: BTreeMap::new(),
            unsettled: BTreeMap::new(),
            next_batch_id: 0,
            hurry_below: 0,
            settled_below: watch::Sender::new(0),
            is_closed: false,
        }
    }

    /// Adds a record, unless the producer has ended; true if the sender should look at the queue: a
    /// new batch began, or one is full.
    pub(super) fn append(
        &mut self,
        partition: TopicPartition,
        record: ProducerRecord,
        timestamp: i64,
        permit: OwnedSemaphorePermit,
        (now, deadline): (Instant, Instant),
        waiter: oneshot::Sender<Result<RecordMetadata, DeliveryError>>,
    ) -> Result<bool, Closed> {
        if self.is_closed {
            return Err(Closed);
        }
        let rules = self.rules;
        let hurry_below = self.hurry_below;
        let queue = self
            .queues
            .entry(partition.clone())
            .or_insert_with(|| Queue::new(rules));
        // A batch that a flush waits for takes no more records: the flush would never end.
        if let Some(batch) = queue.open_batch(record.size_bytes())
            && batch.id >= hurry_below
        {
            batch.push(record, timestamp, waiter, permit);
            return Ok(batch.size_bytes() >= rules.batch_bytes);
        }
        let id = self.next_batch_id;
        self.next_batch_id += 1;
        self.unsettled.insert(id, 1);
        let mut batch = Batch::new(partition, id, now, deadline);
        batch.push(record, timestamp, waiter, permit);
        queue.push(batch);
        Ok(true)
    }

    /// Partitions with a batch that may be sent now.
    pub(super) fn ready(&self, now: Instant) -> Vec<TopicPartition> {
        let hurry = self.is_in_a_hurry();
        let ready = self
            .queues
            .iter()
            .filter(|(_, queue)| queue.is_ready(now, hurry));
        ready.map(|(partition, _)| partition.clone()).collect()
    }

    pub(super) fn is_ready(&self, partition: &TopicPartition, now: Instant) -> bool {
        let hurry = self.is_in_a_hurry();
        self.queues
            .get(partition)
            .is_some_and(|queue| queue.is_ready(now, hurry))
    }

    fn is_in_a_hurry(&self) -> bool {
        self.unsettled
            .first_key_value()
            .is_some_and(|(first, _)| *first < self.hurry_below)
    }

    pub(super) fn take(
        &mut self,
        partition: &TopicPartition,
        identity: Option<Identity>,
    ) -> Option<Batch> {
        self.queues.get_mut(partition)?.take(identity)
    }

    pub(super) fn pause(&mut self, partition: &TopicPartition, now: Instant) {
        if let Some(queue) = self.queues.get_mut(partition) {
            queue.pause(now);
        }
    }

    /// Puts an attempt to its end.
    pub(super) fn complete(&mut self, batch: Batch, outcome: Outcome, now: Instant) {
        let Some(queue) = self.queues.get_mut(&batch.partition) else {
            return;
        };
        let id = batch.id;
        let stays = match &outcome {
            Outcome::Written { .. } | Outcome::Failed(_) => 0,
            Outcome::TooLarge { .. } if batch.record_count() < 2 || batch.is_expired => 0,
            Outcome::TooLarge { .. } => 2,
            Outcome::OutOfOrder { .. } | Outcome::Retry { .. } if batch.is_expired => 0,
            Outcome::OutOfOrder { .. } | Outcome::Retry { .. } => 1,
        };
        queue.complete(batch, outcome, now);
        if let Some(count) = self.unsettled.get_mut(&id) {
            *count = (*count + stays).saturating_sub(1);
            if *count == 0 {
                self.unsettled.remove(&id);
            }
        }
        self.publish_settled();
    }

    fn settle(&mut self, ids: &[u64]) {
        for id in ids {
            if let Some(count) = self.unsettled.get_mut(id) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.unsettled.remove(id);
                }
            }
        }
        if !ids.is_empty() {
            self.publish_settled();
        }
    }

    fn publish_settled(&self) {
        let below = self
            .unsettled
            .keys()
            .next()
            .copied()
            .unwrap_or(self.next_batch_id);
        self.settled_below.send_replace(below);
    }

    /// Fails what has waited too long.
    pub(super) fn expire(&mut self, now: Instant) {
        let mut failed = Vec::new();
        for queue in self.queues.values_mut() {
            queue.expire(now, &mut failed);
        }
        self.settle(&failed);
    }

    /// Fails everything that is not under way.
    pub(super) fn fail_all(&mut self, error: impl Fn(&Batch) -> DeliveryError) {
        let mut failed = Vec::new();
        for queue in self.queues.values_mut() {
            queue.fail_all(&error, &mut failed);
        }
        self.settle(&failed);
    }

    /// Fails everything that is not under way, and takes nothing more.
    pub(super) fn close(&mut self, error: impl Fn(&Batch) -> DeliveryError) {
        self.is_closed = true;
        self.fail_all(error);
    }

    pub(super) fn next_wakeup(&self, now: Instant) -> Option<Instant> {
        self.queues
            .values()
            .filter_map(|queue| queue.next_wakeup(now))
            .min()
    }

    /// Whether some partition has used up this identity's epochs.
    pub(super) fn wants_other_than(&self, identity: Identity) -> bool {
        self.queues
            .values()
            .any(|queue| queue.wants_other_than(identity))
    }

    pub(super) fn has_work(&self) -> bool {
        self.queues.values().any(|queue| !queue.is_idle())
    }

    /// From now on everything so far is sent without linger; returns what to wait for.
    pub(super) fn begin_flush(&mut self) -> (u64, watch::Receiver<u64>) {
        self.hurry_below = self.next_batch_id;
        self.publish_settled();
        (self.next_batch_id, self.settled_below.subscribe())
    }
}
