//! Reading the committed records of local replicas and decoding them for the base.
//!
//! Runs beside the owner: reading files and decoding megabytes of a log that is loaded must not
//! keep members waiting.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use tokio::{task::spawn_blocking, time::Instant};
use tracing::{error, warn};

use ottla_coordinator::OffsetsRecord;
use ottla_records::{BatchError, BatchHeader, batches, check_crc, decode_records, end_transaction};
use ottla_types::{LeaderEpoch, Offset, PartitionId, ProducerId};

use crate::{
    FetchError, FetchPartition, FetchRequest, FetchedPartition, FetchedRecords, Isolation, Reader,
};

use super::OffsetsLog;

/// Most bytes of one partition read at a time.
const PARTITION_BYTES_MAX: usize = 1 << 20;
/// Most bytes read at a time (`offsets.load.buffer.size`).
const FETCH_BYTES_MAX: usize = 5 << 20;
/// Bytes that are decoded without leaving the owner's task.
const INLINE_BYTES_MAX: usize = 16 << 10;
/// Most bytes of one decompressed batch.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// How far a partition has been folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// Next offset to fold.
    pub(super) offset: Offset,
    /// Epoch of the last batch folded.
    pub(super) epoch: Option<LeaderEpoch>,
}

/// One thing to fold.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Record(OffsetsRecord),
    Transactional(ProducerId, OffsetsRecord),
    EndTransaction(ProducerId, bool),
}

/// What a batch holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) first: Offset,
    pub(super) next: Offset,
    pub(super) epoch: Option<LeaderEpoch>,
    pub(super) entries: Vec<Entry>,
}

/// What reading one partition gave.
#[derive(Debug)]
pub(super) enum Tailed {
    /// Batches in order; none if there is nothing new.
    Chunks(Vec<Chunk>),
    /// The position is not in the log.
    OutOfRange { log_start: Offset },
    /// What was folded is not this log's history: an unclean election.
    Diverged,
    /// Not now.
    Failed(FetchError),
    /// A batch that cannot be read; the base stops before it.
    Damaged(BatchError),
}

/// Reads on from these positions; waits until the deadline if there is nothing new.
pub(super) async fn tail(
    log: Arc<dyn OffsetsLog>,
    positions: BTreeMap<PartitionId, Position>,
    deadline: Instant,
) -> Vec<(PartitionId, Tailed)> {
    let partitions = positions
        .iter()
        .map(|(id, position)| FetchPartition {
            id: *id,
            offset: position.offset,
            max_bytes: PARTITION_BYTES_MAX,
            current_leader_epoch: None,
            last_fetched_epoch: position.epoch,
        })
        .collect();
    let answers = log
        .fetch(FetchRequest {
            partitions,
            max_bytes: FETCH_BYTES_MAX,
            min_bytes: 1,
            deadline,
            isolation: Isolation::ReadUncommitted,
            reader: Reader::LocalReplica,
        })
        .await;
    let mut tailed = Vec::with_capacity(answers.len());
    for answer in answers {
        let Some(position) = positions.get(&answer.id) else {
            continue;
        };
        let outcome = match answer.result {
            Ok(read) if read.diverging.is_some() => Tailed::Diverged,
            Ok(read) => decode_off_thread(answer.id, read, position.offset).await,
            Err(FetchError::OffsetOutOfRange { log_start, .. }) => Tailed::OutOfRange { log_start },
            Err(error) => Tailed::Failed(error),
        };
        tailed.push((answer.id, outcome));
    }
    tailed
}

async fn decode_off_thread(id: PartitionId, read: FetchedPartition, from: Offset) -> Tailed {
    let end = read.high_watermark;
    match read.records {
        FetchedRecords::Empty => Tailed::Chunks(Vec::new()),
        FetchedRecords::Memory(bytes) if bytes.len() <= INLINE_BYTES_MAX => {
            decode(id, &bytes, from, end)
        }
        records => {
            let decoded = spawn_blocking(move || match bytes_of(records) {
                Ok(bytes) => decode(id, &bytes, from, end),
                Err(error) => Tailed::Failed(error),
            });
            decoded.await.unwrap_or(Tailed::Failed(FetchError::Storage))
        }
    }
}

fn bytes_of(records: FetchedRecords) -> Result<Bytes, FetchError> {
    match records {
        FetchedRecords::Empty => Ok(Bytes::new()),
        FetchedRecords::Memory(bytes) => Ok(bytes),
        FetchedRecords::File(slice) => slice.read().map_err(|error| {
            warn!(%error, "read internal topic");
            FetchError::Storage
        }),
    }
}

/// Decodes the batches between `from` and `end`, the high watermark of the read.
fn decode(id: PartitionId, bytes: &[u8], from: Offset, end: Offset) -> Tailed {
    let mut chunks = Vec::new();
    for batch in batches(bytes) {
        let decoded = batch.and_then(|(header, batch)| {
            if header.next_offset() <= from || header.next_offset() > end {
                return Ok(None); // Known already, or not committed yet.
            }
            decode_batch(id, &header, batch).map(Some)
        });
        match decoded {
            Ok(chunk) => chunks.extend(chunk),
            Err(error) if chunks.is_empty() => return Tailed::Damaged(error),
            Err(_) => break, // What came before is folded first; the next read meets it again.
        }
    }
    Tailed::Chunks(chunks)
}

fn decode_batch(id: PartitionId, header: &BatchHeader, batch: &[u8]) -> Result<Chunk, BatchError> {
    if !check_crc(batch) {
        return Err(BatchError::Crc);
    }
    let mut entries = Vec::new();
    let producer = ProducerId::new(header.producer_id);
    if header.attributes.is_control() {
        if let (Some(end), Some(producer)) = (end_transaction(batch)?, producer) {
            entries.push(Entry::EndTransaction(producer, end.commit));
        }
    } else {
        for record in decode_records(batch, BATCH_BYTES_MAX)? {
            let key = record.key.as_deref().unwrap_or_default();
            match OffsetsRecord::decode(key, record.value.as_deref()) {
                Ok(Some(decoded)) => entries.push(match producer {
                    Some(producer) if header.attributes.is_transactional() => {
                        Entry::Transactional(producer, decoded)
                    }
                    Some(_) | None => Entry::Record(decoded),
                }),
                Ok(None) => {} // Another kind of group, written by a later version.
                Err(error) => {
                    error!(partition = %id, offset = record.offset, %error, "record not understood");
                }
            }
        }
    }
    Ok(Chunk {
        first: header.first_offset(),
        next: header.next_offset(),
        epoch: LeaderEpoch::new(header.partition_leader_epoch),
        entries,
    })
}
