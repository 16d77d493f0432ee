//! What the log knows of its idempotent producers (KIP-98): enough to recognize a retry.
//!
//! # Invariants
//! * The state is a function of the batches in the log: the leader checks sequences before it
//!   appends, and every replica and every recovery arrives at the same state by [`Producers::apply`]
//!   alone.
//! * Of each producer the last five batches are kept, because that many may be in flight (P-8).
//! * A producer is forgotten by the time since this process last saw it write, never by the
//!   timestamps of its batches: those are the client's to choose (P-8, P-50, P-22).
//! * At most `producer_ids_max` producers are remembered.

use std::collections::{BTreeMap, HashMap};

use ottla_records::{BatchHeader, EndTransaction, next_sequence};
use ottla_types::{MonotonicMs, Offset, ProducerEpoch, ProducerId};

/// How many batches of a producer are recognized when they come again.
pub(crate) const BATCHES_KEPT: usize = 5;

/// Number of sequences before they wrap.
const SEQUENCES: i64 = i32::MAX as i64 + 1;

/// One batch that a producer wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WrittenBatch {
    pub(crate) last_sequence: i32,
    pub(crate) last_offset: i64,
    pub(crate) offset_delta: i32,
    pub(crate) timestamp: i64,
}

impl WrittenBatch {
    fn first_sequence(self) -> i32 {
        let first =
            (i64::from(self.last_sequence) - i64::from(self.offset_delta)).rem_euclid(SEQUENCES);
        i32::try_from(first).unwrap_or(0)
    }

    fn first_offset(self) -> Offset {
        Offset::saturating(
            self.last_offset
                .saturating_sub(i64::from(self.offset_delta)),
        )
    }
}

/// What is known of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) epoch: i16,
    /// Epoch of the coordinator of the last marker; -1 before the first.
    pub(crate) coordinator_epoch: i32,
    /// First offset of the transaction that is open here.
    pub(crate) open_transaction: Option<i64>,
    /// When it last wrote, by the timestamps of its batches: to be shown, not to be judged by.
    pub(crate) last_timestamp: i64,
    /// The first look for silent producers since it wrote or was read from disk; `None` until then.
    silent_since: Option<MonotonicMs>,
    batches: [WrittenBatch; BATCHES_KEPT],
    kept: u8,
}

impl Producer {
    pub(crate) fn new(epoch: i16) -> Producer {
        Producer {
            epoch,
            coordinator_epoch: -1,
            open_transaction: None,
            last_timestamp: -1,
            silent_since: None,
            batches: [WrittenBatch::default(); BATCHES_KEPT],
            kept: 0,
        }
    }

    /// The batches kept, oldest first.
    pub(crate) fn batches(&self) -> &[WrittenBatch] {
        &self.batches[..usize::from(self.kept)]
    }

    pub(crate) fn last(&self) -> Option<WrittenBatch> {
        self.batches().last().copied()
    }

    pub(crate) fn push(&mut self, batch: WrittenBatch) {
        if usize::from(self.kept) == BATCHES_KEPT {
            self.batches.copy_within(1.., 0);
            self.kept -= 1;
        }
        self.batches[usize::from(self.kept)] = batch;
        self.kept += 1;
        self.last_timestamp = batch.timestamp;
    }

    fn enter_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.kept = 0;
        }
    }

    fn apply(&mut self, header: &BatchHeader) {
        self.enter_epoch(header.producer_epoch);
        self.push(WrittenBatch {
            last_sequence: header.last_sequence(),
            last_offset: header.last_offset().get(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        });
        if header.attributes.is_transactional() && self.open_transaction.is_none() {
            self.open_transaction = Some(header.base_offset);
        }
    }

    /// Judges a batch, in Kafka's order: the duplicate first.
    fn check(&self, header: &BatchHeader) -> SequenceVerdict {
        if header.producer_epoch == self.epoch {
            let (first, last) = (header.base_sequence, header.last_sequence());
            let same = |batch: &&WrittenBatch| {
                batch.first_sequence() == first && batch.last_sequence == last
            };
            if let Some(batch) = self.batches().iter().find(same) {
                return SequenceVerdict::Duplicate {
                    base_offset: batch.first_offset(),
                    last_offset: Offset::saturating(batch.last_offset),
                    timestamp: batch.timestamp,
                };
            }
        }
        if header.producer_epoch < self.epoch {
            return SequenceVerdict::FencedEpoch {
                current: ProducerEpoch::saturating(self.epoch),
            };
        }
        let expected = if header.producer_epoch > self.epoch {
            0
        } else {
            // After a marker that brought a new epoch nothing is written yet.
            self.last()
                .map_or(0, |batch| next_sequence(batch.last_sequence))
        };
        if header.base_sequence != expected {
            return SequenceVerdict::OutOfOrder { expected };
        }
        if self.open_transaction.is_some() && !header.attributes.is_transactional() {
            return SequenceVerdict::TransactionOpen;
        }
        SequenceVerdict::New
    }
}

/// What the log says of a batch that an idempotent producer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceVerdict {
    /// Append it.
    New,
    /// Written once already: a success with the place it got then.
    Duplicate {
        /// The offset of its first record.
        base_offset: Offset,
        /// The offset of its last record.
        last_offset: Offset,
        /// Its greatest timestamp (the time of the append, if that is the topic's clock).
        timestamp: i64,
    },
    /// A gap, or a batch older than the five kept.
    OutOfOrder {
        /// The sequence that is next.
        expected: i32,
    },
    /// A later life of the producer has written here.
    FencedEpoch {
        /// The producer's epoch here.
        current: ProducerEpoch,
    },
    /// A batch outside the transaction that the producer has open here.
    TransactionOpen,
}

/// One producer, for DescribeProducers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    /// Its id.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
    /// Sequence of its last record here.
    pub last_sequence: Option<i32>,
    /// When it last wrote.
    pub last_timestamp: i64,
    /// Epoch of the coordinator of the last marker.
    pub coordinator_epoch: Option<i32>,
    /// First offset of its open transaction.
    pub transaction_start_offset: Option<Offset>,
}

/// All producers of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Producers {
    producers: HashMap<i64, Producer>,
    /// Open transactions by their first offset.
    open: BTreeMap<i64, i64>,
}

impl Producers {
    pub(crate) fn len(&self) -> usize {
        self.producers.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.producers.iter().map(|(id, producer)| (*id, producer))
    }

    pub(crate) fn contains(&self, id: i64) -> bool {
        self.producers.contains_key(&id)
    }

    pub(crate) fn insert(&mut self, id: i64, producer: Producer) {
        if let Some(first) = producer.open_transaction {
            self.open.insert(first, id);
        }
        self.producers.insert(id, producer);
    }

    pub(crate) fn check(&self, header: &BatchHeader) -> SequenceVerdict {
        if header.producer_id < 0 || header.attributes.is_control() {
            return SequenceVerdict::New;
        }
        match self.producers.get(&header.producer_id) {
            Some(producer) => producer.check(header),
            // New, expired, or deleted with the head of the log: any sequence begins.
            None => SequenceVerdict::New,
        }
    }

    /// Takes in a batch that is in the log; `marker` is what a control batch says.
    pub(crate) fn apply(&mut self, header: &BatchHeader, marker: Option<EndTransaction>) {
        let id = header.producer_id;
        if id < 0 || (header.attributes.is_control() && marker.is_none()) {
            return;
        }
        let producer = self
            .producers
            .entry(id)
            .or_insert_with(|| Producer::new(header.producer_epoch));
        producer.silent_since = None;
        let was_open = producer.open_transaction;
        if let Some(marker) = marker {
            // A marker fences older epochs even where the transaction wrote nothing.
            producer.enter_epoch(header.producer_epoch);
            producer.coordinator_epoch = marker.coordinator_epoch;
            producer.last_timestamp = header.max_timestamp;
            producer.open_transaction = None;
        } else {
            producer.apply(header);
        }
        match (was_open, producer.open_transaction) {
            (Some(first), None) => {
                self.open.remove(&first);
            }
            (None, Some(first)) => {
                self.open.insert(first, id);
            }
            _ => {}
        }
    }

    /// First offset of the oldest open transaction.
    pub(crate) fn first_open_transaction(&self) -> Option<Offset> {
        self.open
            .keys()
            .next()
            .map(|first| Offset::saturating(*first))
    }

    /// Forgets producers that wrote nothing for `expiration_ms`, unless a transaction is open.
    /// Silence counts from the first call that finds it, so a start counts anew, and a producer is
    /// forgotten late rather than early.
    pub(crate) fn expire(&mut self, now: MonotonicMs, expiration_ms: u64) {
        self.producers.retain(|_, producer| {
            let since = *producer.silent_since.get_or_insert(now);
            producer.open_transaction.is_some() || now.ms_since(since) <= expiration_ms
        });
    }

    /// Forgets the producers whose last batch is the oldest, down to nine tenths of `max`, once
    /// there are more than `max`.
    pub(crate) fn bound(&mut self, max: usize) {
        if self.producers.len() <= max {
            return;
        }
        let mut order: Vec<(i64, i64)> = self
            .producers
            .iter()
            .filter(|(_, producer)| producer.open_transaction.is_none())
            .map(|(id, producer)| (producer.last().map_or(-1, |batch| batch.last_offset), *id))
            .collect();
        order.sort_unstable();
        let surplus = self.producers.len() - max / 10 * 9;
        for (_, id) in order.into_iter().take(surplus) {
            self.producers.remove(&id);
        }
    }

    pub(crate) fn describe(&self) -> Vec<ActiveProducer> {
        let mut all: Vec<ActiveProducer> = self
            .iter()
            .map(|(id, producer)| ActiveProducer {
                producer_id: ProducerId(id),
                producer_epoch: ProducerEpoch::saturating(producer.epoch),
                last_sequence: producer.last().map(|batch| batch.last_sequence),
                last_timestamp: producer.last_timestamp,
                coordinator_epoch: (producer.coordinator_epoch >= 0)
                    .then_some(producer.coordinator_epoch),
                transaction_start_offset: producer.open_transaction.map(Offset::saturating),
            })
            .collect();
        all.sort_unstable_by_key(|producer| producer.producer_id);
        all
    }
}

/// Judges several batches that will be appended together, each as if those before it, judged new,
/// were in the log already.
#[derive(Debug)]
pub struct SequenceChecks<'a> {
    producers: &'a Producers,
    /// The producers concerned, as they will be.
    ahead: Vec<(i64, Producer)>,
    next_offset: Offset,
}

impl<'a> SequenceChecks<'a> {
    pub(crate) fn new(producers: &'a Producers, log_end_offset: Offset) -> SequenceChecks<'a> {
        SequenceChecks {
            producers,
            ahead: Vec::new(),
            next_offset: log_end_offset,
        }
    }

    /// Judges the next batch. Whatever is judged [`SequenceVerdict::New`] must be appended, in
    /// this order and with nothing between.
    pub fn check(&mut self, header: &BatchHeader) -> SequenceVerdict {
        let mut placed = *header;
        placed.base_offset = self.next_offset.get();
        let id = header.producer_id;
        let known = self.ahead.iter().position(|(ahead, _)| *ahead == id);
        let verdict = match known.and_then(|index| self.ahead.get(index)) {
            Some((_, producer)) if !header.attributes.is_control() => producer.check(header),
            _ => self.producers.check(header),
        };
        if verdict != SequenceVerdict::New {
            return verdict;
        }
        self.next_offset = placed.next_offset();
        if id >= 0 && !header.attributes.is_control() {
            let index = known.unwrap_or_else(|| {
                let current = self.producers.producers.get(&id).cloned();
                let producer = current.unwrap_or_else(|| Producer::new(header.producer_epoch));
                self.ahead.push((id, producer));
                self.ahead.len() - 1
            });
            self.ahead[index].1.apply(&placed);
        }
        verdict
    }
}
