//! The producer: records in, acknowledgements out, each record once and in order.
//!
//! A record goes from [`Producer::send`] into its partition's queue, from there in a batch to the
//! partition's leader, and the [`Delivery`] resolves when the leader has acknowledged it. What
//! happens between (a leader that dies, an answer that is lost) is retried inside, with the same
//! sequence numbers, so that brokers tell a repetition from a new record.

mod accumulator;
mod batch;
mod config;
mod identity;
mod partitioner;
mod queue;
mod record;
mod request;
mod sender;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, timeout_at},
};

pub use config::{Acks, ConfigError, ProducerConfig};
pub use partitioner::partition_for_key;
pub use record::{Delivery, DeliveryError, ProducerRecord, RecordMetadata, SendError};

use self::{
    accumulator::{Accumulator, Closed},
    partitioner::Partitioner,
    queue::QueueRules,
};
use crate::{
    clock::wall_clock_ms,
    cluster::Cluster,
    metadata::{Metadata, TopicPartition},
};

/// A producer; cheap to clone, shared by any number of tasks.
///
/// Records of one task to one partition keep their order. Call [`Producer::close`] at the end:
/// without it, what has not been delivered when the last clone is dropped is given up.
#[derive(Clone)]
pub struct Producer {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    cluster: Cluster,
    room: Arc<Semaphore>,
    partitioner: Mutex<Partitioner>,
}

/// What `send` and the sender's task share. The lock guards memory only.
struct Shared {
    config: ProducerConfig,
    accumulator: Mutex<Accumulator>,
    wake: Notify,
}

impl Producer {
    /// Starts a producer; nothing is asked of the cluster before the first record.
    ///
    /// # Errors
    /// Settings that contradict each other.
    pub fn new(config: ProducerConfig) -> Result<Producer, ConfigError> {
        config.check()?;
        let cluster = Cluster::new(config.client.clone());
        cluster.want(|wanted| wanted.create_missing = config.create_missing_topics);
        let rules = QueueRules {
            idempotent: config.idempotent,
            in_flight_max: config.in_flight_max,
            linger: config.linger,
            batch_bytes: config.batch_bytes,
            retry_backoff: config.client.retry_backoff,
            retry_backoff_max: config.client.retry_backoff_max,
        };
        let room = Arc::new(Semaphore::new(config.buffer_bytes));
        let shared = Arc::new(Shared {
            accumulator: Mutex::new(Accumulator::new(rules)),
            wake: Notify::new(),
            config,
        });
        let sender = sender::Sender::new(Arc::clone(&shared), cluster.clone());
        cluster.tasks().spawn(sender.run());
        Ok(Producer {
            handle: Arc::new(Handle {
                shared,
                cluster,
                room,
                partitioner: Mutex::default(),
            }),
        })
    }

    /// Takes a record, waiting for room and for the topic's metadata if need be; the returned
    /// [`Delivery`] resolves when it is acknowledged.
    ///
    /// # Errors
    /// The record was not taken, and will not be written.
    pub async fn send(&self, mut record: ProducerRecord) -> Result<Delivery, SendError> {
        let handle = &*self.handle;
        let config = &handle.shared.config;
        let now = Instant::now();
        let block_until = now + config.block_max;
        let bytes = record.size_bytes();
        let limit_bytes = config.request_bytes_max.min(config.buffer_bytes);
        if bytes > limit_bytes {
            return Err(SendError::TooLarge { bytes, limit_bytes });
        }
        let metadata = handle.metadata(&record, block_until).await?;
        let partition = handle.partition(&record, &metadata, bytes)?;
        let permit = handle.room_for(bytes, block_until).await?;
        let timestamp = record.timestamp.unwrap_or_else(wall_clock_ms);
        record.partition = Some(partition.partition);
        let (waiter, receiver) = oneshot::channel();
        let times = (now, now + config.delivery_timeout);
        let mut accumulator = handle.shared.accumulator.lock();
        match accumulator.append(partition, record, timestamp, permit, times, waiter) {
            Ok(true) => handle.shared.wake.notify_one(),
            Ok(false) => {}
            Err(Closed) => return Err(SendError::Closed),
        }
        Ok(Delivery { receiver })
    }

    /// Sends what has been taken so far without waiting for batches to fill, and waits until all
    /// of it is delivered or has failed.
    pub async fn flush(&self) {
        let shared = &self.handle.shared;
        let (mark, mut settled) = shared.accumulator.lock().begin_flush();
        shared.wake.notify_one();
        // The sender, which publishes, lives as long as the handle.
        let _ = settled.wait_for(|below| *below >= mark).await;
    }

    /// Delivers what has been taken, for at most `patience`, then ends; what is left fails.
    pub async fn close(&self, patience: Duration) {
        let _ = tokio::time::timeout(patience, self.flush()).await;
        self.handle.room.close();
        self.handle.cluster.close().await;
    }

    /// What is known of the cluster at the moment.
    #[must_use]
    pub fn metadata(&self) -> Arc<Metadata> {
        self.handle.cluster.metadata()
    }

    /// Whether records are taken that are not settled yet.
    #[must_use]
    pub fn has_undelivered(&self) -> bool {
        self.handle.shared.accumulator.lock().has_work()
    }
}

impl Handle {
    async fn metadata(
        &self,
        record: &ProducerRecord,
        deadline: Instant,
    ) -> Result<Arc<Metadata>, SendError> {
        let topic = self.cluster.topic(&record.topic, deadline).await;
        topic.map_err(|error| match error {
            crate::TopicError::Unreachable(crate::RequestError::Closed) => SendError::Closed,
            error => SendError::Topic {
                topic: Arc::clone(&record.topic),
                error,
            },
        })
    }

    fn partition(
        &self,
        record: &ProducerRecord,
        metadata: &Metadata,
        bytes: usize,
    ) -> Result<TopicPartition, SendError> {
        let of = |number: i32| TopicPartition::new(Arc::clone(&record.topic), number);
        let Some(topic) = metadata.topic(&record.topic) else {
            return Err(SendError::NoSuchPartition(of(record
                .partition
                .unwrap_or(-1))));
        };
        if let Some(number) = record.partition {
            let exists = topic.partitions.contains_key(&number);
            return exists
                .then(|| of(number))
                .ok_or_else(|| SendError::NoSuchPartition(of(number)));
        }
        let stretch = self.shared.config.batch_bytes;
        let mut partitioner = self.partitioner.lock();
        partitioner
            .choose(&record.topic, topic, record.key.as_deref(), bytes, stretch)
            .map(of)
            .ok_or_else(|| SendError::NoSuchPartition(of(-1)))
    }

    async fn room_for(
        &self,
        bytes: usize,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, SendError> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let waiting = Arc::clone(&self.room).acquire_many_owned(permits);
        match timeout_at(deadline, waiting).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(SendError::Closed),
            Err(_) => Err(SendError::BufferFull),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.cluster.end();
    }
}
