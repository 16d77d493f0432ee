//! Turning records into batches, many requests' records into one: a group commit of group state.

use bytes::BytesMut;
use tracing::error;

use ottla_coordinator::{GroupError, OffsetsRecord, PersistToken};
use ottla_records::{BATCH_OVERHEAD, BatchBuilder, BatchHeader};
use ottla_types::WallClockMs;

use crate::ProduceError;

/// What a record adds to its key and value in a batch, at most.
const RECORD_OVERHEAD_BYTES: usize = 32;

/// A batch ready to be appended, and what it is made of.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) bytes: BytesMut,
    pub(super) header: BatchHeader,
    pub(super) records: Vec<OffsetsRecord>,
    /// Whose records these are; one token's may spread over several batches.
    pub(super) tokens: Vec<PersistToken>,
}

/// Collects records in the order in which they are to stand in the log.
#[derive(Debug)]
pub(super) struct Batcher {
    bytes_max: usize,
    wall: WallClockMs,
    builder: BatchBuilder,
    records: Vec<OffsetsRecord>,
    tokens: Vec<PersistToken>,
    full: Vec<Batch>,
}

impl Batcher {
    pub(super) fn new(bytes_max: usize, wall: WallClockMs) -> Batcher {
        Batcher {
            bytes_max,
            wall,
            builder: BatchBuilder::new(wall.0),
            records: Vec::new(),
            tokens: Vec::new(),
            full: Vec::new(),
        }
    }

    /// Takes all of the token's records, or none.
    pub(super) fn add(
        &mut self,
        token: PersistToken,
        records: Vec<OffsetsRecord>,
    ) -> Result<(), GroupError> {
        let mut encoded = Vec::with_capacity(records.len());
        for record in records {
            let (key, value) = record.encode().map_err(|_| GroupError::RecordTooLarge)?;
            let size = key.len() + value.as_ref().map_or(0, bytes::Bytes::len);
            if size + RECORD_OVERHEAD_BYTES + BATCH_OVERHEAD > self.bytes_max {
                return Err(GroupError::RecordTooLarge);
            }
            encoded.push((record, key, value, size + RECORD_OVERHEAD_BYTES));
        }
        for (record, key, value, size) in encoded {
            if self.builder.size_bytes() + size > self.bytes_max {
                self.close_batch();
            }
            self.builder
                .push(self.wall.0, Some(&key), value.as_deref(), &[]);
            self.records.push(record);
            if self.tokens.last() != Some(&token) {
                self.tokens.push(token);
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Vec<Batch> {
        self.close_batch();
        self.full
    }

    fn close_batch(&mut self) {
        if self.records.is_empty() {
            return;
        }
        let builder = std::mem::replace(&mut self.builder, BatchBuilder::new(self.wall.0));
        let bytes = builder.build();
        let records = std::mem::take(&mut self.records);
        let tokens = std::mem::take(&mut self.tokens);
        let header = BatchHeader::parse(&bytes).expect("a batch just built begins with its head");
        self.full.push(Batch {
            bytes,
            header,
            records,
            tokens,
        });
    }
}

/// What a failed append means to whoever asked.
pub(super) fn group_error(error: &ProduceError) -> GroupError {
    match error {
        // Another broker coordinates, or soon will: ask who.
        ProduceError::NotLeader { .. }
        | ProduceError::UnknownPartition
        | ProduceError::OutcomeUnknown
        | ProduceError::Storage
        | ProduceError::ShuttingDown => GroupError::NotCoordinator,
        // Come again.
        ProduceError::NotEnoughReplicas { .. }
        | ProduceError::NotEnoughReplicasAfterAppend
        | ProduceError::TimedOut
        | ProduceError::NoSpace
        | ProduceError::Throttled => GroupError::CoordinatorNotAvailable,
        ProduceError::BatchTooLargeForSegment => GroupError::RecordTooLarge,
        // Not answers to a batch of ours.
        ProduceError::OutOfOrderSequence
        | ProduceError::InvalidProducerEpoch
        | ProduceError::InvalidTxnState
        | ProduceError::Corrupt => {
            error!(%error, "append to internal topic refused");
            GroupError::CoordinatorNotAvailable
        }
    }
}
