//! Idempotent batches that were refused because this broker did not lead yet (P-8, P-50).
//!
//! A client learns of a new leader before that broker does. Of several batches in flight the first
//! may then be refused and a later one arrive once the broker leads. A log that knows nothing of
//! the producer would take the later one as its beginning, and a client that gets a success for it
//! counts those before it as stored. So the later one must wait for the refused one to come again.
//!
//! # Invariants
//! * Only a producer of whom the log knows nothing is judged by this; else the log's word counts.
//! * What was refused long ago forbids nothing: the client went elsewhere.

use std::collections::{BTreeMap, HashMap};

use ottla_records::BatchHeader;
use ottla_types::{MonotonicMs, PartitionId};

/// A client tries again long before.
const REMEMBERED_MS: u64 = 60_000;
/// Producers remembered at most.
const PRODUCERS_MAX: usize = 1_024;
/// Partitions that are not here and of which that is remembered, at most.
const PARTITIONS_MAX: usize = 1_024;

#[derive(Clone, Copy, Debug)]
struct Refused {
    epoch: i16,
    base_sequence: i32,
    at: MonotonicMs,
}

/// The first refused batch of each producer.
#[derive(Debug, Default)]
pub(crate) struct RefusedBatches {
    first: BTreeMap<i64, Refused>,
}

impl RefusedBatches {
    /// A batch was refused, and may come again.
    pub(crate) fn note(&mut self, now: MonotonicMs, header: &BatchHeader) {
        if header.producer_id < 0 {
            return;
        }
        let refused = Refused {
            epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            at: now,
        };
        let earlier = self.first.get(&header.producer_id).is_some_and(|known| {
            known.epoch == refused.epoch
                && known.base_sequence < refused.base_sequence
                && now.ms_since(known.at) < REMEMBERED_MS
        });
        if earlier {
            return;
        }
        self.first.insert(header.producer_id, refused);
        if self.first.len() > PRODUCERS_MAX {
            self.first
                .retain(|_, known| now.ms_since(known.at) < REMEMBERED_MS);
            // Ids rise: the smallest is the oldest.
            while self.first.len() > PRODUCERS_MAX {
                self.first.pop_first();
            }
        }
    }

    /// Whether an earlier batch than this was refused and has not come again.
    pub(crate) fn forbids(&self, now: MonotonicMs, header: &BatchHeader) -> bool {
        self.first.get(&header.producer_id).is_some_and(|refused| {
            refused.epoch == header.producer_epoch
                && refused.base_sequence < header.base_sequence
                && now.ms_since(refused.at) < REMEMBERED_MS
        })
    }

    /// The log knows the producer from now on.
    pub(crate) fn accepted(&mut self, producer_id: i64) {
        self.first.remove(&producer_id);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }
}

/// What was sent to partitions that were not here yet.
#[derive(Debug, Default)]
pub(crate) struct EarlyBatches {
    refused: HashMap<PartitionId, RefusedBatches>,
}

impl EarlyBatches {
    /// A batch was refused, because its partition is not here.
    pub(crate) fn note(&mut self, now: MonotonicMs, id: PartitionId, header: &BatchHeader) {
        if self.refused.len() >= PARTITIONS_MAX {
            self.refused.clear();
        }
        self.refused.entry(id).or_default().note(now, header);
    }

    /// The partition is here.
    pub(crate) fn take(&mut self, id: PartitionId) -> RefusedBatches {
        self.refused.remove(&id).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use ottla_records::BatchBuilder;
    use ottla_types::{ProducerEpoch, ProducerId};

    use super::*;

    fn batch(id: i64, epoch: i16, base_sequence: i32) -> BatchHeader {
        let (id, epoch) = (ProducerId(id), ProducerEpoch::saturating(epoch));
        let mut builder = BatchBuilder::new(1).producer(id, epoch, base_sequence);
        builder.push(1, None, Some(b"x"), &[]);
        BatchHeader::parse(&builder.build()).unwrap()
    }

    #[test]
    fn p8_a_later_batch_waits_for_the_refused_one() {
        let now = MonotonicMs(1_000);
        let mut refused = RefusedBatches::default();
        for sequence in [3, 0, 1, 2] {
            refused.note(now, &batch(7, 0, sequence));
        }
        assert!(refused.forbids(now, &batch(7, 0, 3)));
        assert!(refused.forbids(now, &batch(7, 0, 1)));
        assert!(!refused.forbids(now, &batch(7, 0, 0)));
        assert!(!refused.forbids(now, &batch(8, 0, 3)), "another producer");
        assert!(!refused.forbids(now, &batch(7, 1, 3)), "another epoch");
        refused.accepted(7);
        assert!(!refused.forbids(now, &batch(7, 0, 3)));
    }

    #[test]
    fn what_was_refused_long_ago_forbids_nothing() {
        let mut refused = RefusedBatches::default();
        refused.note(MonotonicMs(0), &batch(7, 0, 0));
        let later = MonotonicMs(REMEMBERED_MS);
        assert!(!refused.forbids(later, &batch(7, 0, 3)));
        refused.note(later, &batch(7, 0, 5));
        assert!(!refused.forbids(later, &batch(7, 0, 5)));
        assert!(refused.forbids(later, &batch(7, 0, 6)));
    }

    #[test]
    fn x17_the_producers_remembered_are_bounded() {
        let now = MonotonicMs(1_000);
        let mut refused = RefusedBatches::default();
        for id in 0..3_000 {
            refused.note(now, &batch(id, 0, 0));
        }
        assert_eq!(refused.first.len(), PRODUCERS_MAX);
        assert!(refused.forbids(now, &batch(2_999, 0, 1)));
    }
}
