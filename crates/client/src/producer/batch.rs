//! The records of one batch, who waits for them, and its place in the producer's sequence.

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};

use ottla_records::{BatchBuilder, Codec};
use ottla_types::{ProducerEpoch, ProducerId};

use super::record::{DeliveryError, ProducerRecord, RecordMetadata};
use crate::metadata::TopicPartition;

/// A producer id in one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: ProducerId,
    pub(super) epoch: ProducerEpoch,
}

/// A batch's place in its partition: the order of first sending, and within a batch that was split
/// the index of its first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Order(pub(super) u64, pub(super) usize);

struct Entry {
    record: ProducerRecord,
    timestamp: i64,
    waiter: Option<oneshot::Sender<Result<RecordMetadata, DeliveryError>>>,
}

pub(super) struct Batch {
    pub(super) partition: TopicPartition,
    /// For flushes: ids rise with creation; the halves of a split batch share one.
    pub(super) id: u64,
    pub(super) created: Instant,
    pub(super) deadline: Instant,
    pub(super) order: Option<Order>,
    /// Identity and sequence of the first record, fixed at the first sending.
    pub(super) stamp: Option<(Identity, i32)>,
    pub(super) may_have_happened: bool,
    pub(super) last_error: Option<String>,
    pub(super) is_expired: bool,
    size_bytes: usize,
    entries: Vec<Entry>,
    encoded: Option<Bytes>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Batch {
    pub(super) fn new(
        partition: TopicPartition,
        id: u64,
        created: Instant,
        deadline: Instant,
    ) -> Batch {
        Batch {
            partition,
            id,
            created,
            deadline,
            order: None,
            stamp: None,
            may_have_happened: false,
            last_error: None,
            is_expired: false,
            size_bytes: ottla_records::BATCH_OVERHEAD,
            entries: Vec::new(),
            encoded: None,
            permit: None,
        }
    }

    pub(super) fn push(
        &mut self,
        record: ProducerRecord,
        timestamp: i64,
        waiter: oneshot::Sender<Result<RecordMetadata, DeliveryError>>,
        permit: OwnedSemaphorePermit,
    ) {
        self.size_bytes += record.size_bytes();
        self.entries.push(Entry {
            record,
            timestamp,
            waiter: Some(waiter),
        });
        match &mut self.permit {
            Some(held) => held.merge(permit),
            None => self.permit = Some(permit),
        }
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    pub(super) fn record_count(&self) -> usize {
        self.entries.len()
    }

    /// The sequence that follows this batch, which begins at `base`.
    pub(super) fn sequence_after(&self, base: i32) -> i32 {
        /// The number after 2147483647 is 0.
        const NUMBERS: i64 = 1 << 31;
        let count = i64::try_from(self.entries.len()).unwrap_or(0);
        i32::try_from((i64::from(base) + count) % NUMBERS).unwrap_or(0)
    }

    /// Takes a new place in the sequence; what was encoded before no longer holds.
    pub(super) fn restamp(&mut self, stamp: Option<(Identity, i32)>) {
        self.stamp = stamp;
        self.encoded = None;
    }

    /// The bytes to send; the same at every attempt.
    pub(super) fn encoded(&mut self, codec: Codec) -> Bytes {
        if let Some(encoded) = &self.encoded {
            return encoded.clone();
        }
        let base = self.entries.first().map_or(0, |entry| entry.timestamp);
        let mut builder = BatchBuilder::new(base).codec(codec);
        if let Some((identity, sequence)) = self.stamp {
            builder = builder.producer(identity.id, identity.epoch, sequence);
        }
        for Entry {
            record, timestamp, ..
        } in &self.entries
        {
            let headers: Vec<(&str, Option<&[u8]>)> = record
                .headers
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_deref()))
                .collect();
            // The batch is far below the size at which a record would not be taken.
            builder.push(
                *timestamp,
                record.key.as_deref(),
                record.value.as_deref(),
                &headers,
            );
        }
        let encoded = builder.build().freeze();
        self.encoded = Some(encoded.clone());
        encoded
    }

    /// Tells every waiter where its record is.
    pub(super) fn succeed(&mut self, base_offset: Option<i64>, log_append_time: Option<i64>) {
        for (index, entry) in self.entries.iter_mut().enumerate() {
            let Some(waiter) = entry.waiter.take() else {
                continue;
            };
            let index = i64::try_from(index).unwrap_or(i64::MAX);
            // Whoever dropped the delivery does not want to know.
            let _ = waiter.send(Ok(RecordMetadata {
                partition: self.partition.clone(),
                offset: base_offset.map(|base| base.saturating_add(index)),
                timestamp: log_append_time.unwrap_or(entry.timestamp),
            }));
        }
        self.permit = None;
    }

    /// Tells every waiter why its record was not delivered.
    pub(super) fn fail(&mut self, error: &DeliveryError) {
        for entry in &mut self.entries {
            if let Some(waiter) = entry.waiter.take() {
                let _ = waiter.send(Err(error.clone()));
            }
        }
        self.permit = None;
    }

    /// Fails a batch whose time is over; `is_under_way` if it is with a broker at the moment.
    pub(super) fn expire(&mut self, is_under_way: bool) {
        self.is_expired = true;
        let error = DeliveryError::TimedOut {
            last_error: self.last_error.clone(),
            may_have_happened: self.may_have_happened || is_under_way,
        };
        self.fail(&error);
    }

    /// Two halves in the same places of the sequence; `None` for a single record.
    pub(super) fn split(mut self) -> Result<(Batch, Batch), Box<Batch>> {
        if self.entries.len() < 2 {
            return Err(Box::new(self));
        }
        let at = self.entries.len() / 2;
        let rest = self.entries.split_off(at);
        let size = |entries: &[Entry]| {
            let records = entries.iter().map(|entry| entry.record.size_bytes());
            ottla_records::BATCH_OVERHEAD + records.sum::<usize>()
        };
        let second_stamp = self
            .stamp
            .map(|(identity, base)| (identity, self.sequence_after(base)));
        let rest_permits: usize = rest.iter().map(|entry| entry.record.size_bytes()).sum();
        let second = Batch {
            partition: self.partition.clone(),
            id: self.id,
            created: self.created,
            deadline: self.deadline,
            order: self.order.map(|Order(sent, index)| Order(sent, index + at)),
            stamp: second_stamp,
            may_have_happened: self.may_have_happened,
            last_error: self.last_error.clone(),
            is_expired: self.is_expired,
            size_bytes: size(&rest),
            entries: rest,
            encoded: None,
            permit: self
                .permit
                .as_mut()
                .and_then(|held| held.split(rest_permits)),
        };
        self.size_bytes = size(&self.entries);
        self.encoded = None;
        Ok((self, second))
    }
}
