//! Control batches: one marker that ends a transaction, skipped by consumers.

use bytes::BytesMut;

use ottla_types::{ProducerEpoch, ProducerId};

use crate::builder::BatchBuilder;
use crate::decode::decode_records;
use crate::header::{BatchError, BatchHeader};

/// A control record is a handful of bytes.
const CONTROL_BYTES_MAX: usize = 64 * 1024;

/// What a control batch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlType {
    /// The producer's transaction was aborted.
    Abort,
    /// The producer's transaction was committed.
    Commit,
    /// A type that has no meaning in a data partition, by number; skipped.
    Other(i16),
}

/// Reads the type of a control batch; `None` if the batch is not one.
///
/// # Errors
/// The batch is malformed.
pub fn control_type(batch: &[u8]) -> Result<Option<ControlType>, BatchError> {
    if !BatchHeader::parse(batch)?.attributes.is_control() {
        return Ok(None);
    }
    let malformed = || BatchError::Record {
        index: 0,
        reason: "not a control record",
    };
    let records = decode_records(batch, CONTROL_BYTES_MAX)?;
    let key = records
        .first()
        .and_then(|record| record.key.as_ref())
        .ok_or_else(malformed)?;
    let kind = key
        .get(2..4)
        .and_then(|bytes| bytes.first_chunk())
        .ok_or_else(malformed)?;
    Ok(Some(match i16::from_be_bytes(*kind) {
        0 => ControlType::Abort,
        1 => ControlType::Commit,
        other => ControlType::Other(other),
    }))
}

/// The end of a transaction, as its marker says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTransaction {
    /// Committed, or aborted.
    pub commit: bool,
    /// Epoch of the coordinator that decided.
    pub coordinator_epoch: i32,
}

/// Reads a marker; `None` if the batch is not one, or not one that ends a transaction.
///
/// # Errors
/// The batch is malformed.
pub fn end_transaction(batch: &[u8]) -> Result<Option<EndTransaction>, BatchError> {
    let commit = match control_type(batch)? {
        Some(ControlType::Commit) => true,
        Some(ControlType::Abort) => false,
        Some(ControlType::Other(_)) | None => return Ok(None),
    };
    let records = decode_records(batch, CONTROL_BYTES_MAX)?;
    let epoch = records
        .first()
        .and_then(|record| record.value.as_ref()?.get(2..6)?.first_chunk().copied())
        .ok_or(BatchError::Record {
            index: 0,
            reason: "not an end of a transaction",
        })?;
    Ok(Some(EndTransaction {
        commit,
        coordinator_epoch: i32::from_be_bytes(epoch),
    }))
}

/// Builds the marker that ends a transaction.
#[must_use]
pub fn end_transaction_marker(
    timestamp: i64,
    producer_id: ProducerId,
    producer_epoch: ProducerEpoch,
    commit: bool,
    coordinator_epoch: i32,
) -> BytesMut {
    let kind = i16::from(commit).to_be_bytes();
    let key = [0, 0, kind[0], kind[1]];
    let epoch = coordinator_epoch.to_be_bytes();
    let value = [0, 0, epoch[0], epoch[1], epoch[2], epoch[3]];
    let mut builder = BatchBuilder::new(timestamp)
        .producer(producer_id, producer_epoch, -1)
        .transactional()
        .control();
    builder.push(timestamp, Some(&key), Some(&value), &[]);
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_say_how_the_transaction_ended() {
        for (commit, expected) in [(false, ControlType::Abort), (true, ControlType::Commit)] {
            let marker = end_transaction_marker(9, ProducerId(5), ProducerEpoch::ZERO, commit, 3);
            assert_eq!(control_type(&marker), Ok(Some(expected)));
            let end = EndTransaction {
                commit,
                coordinator_epoch: 3,
            };
            assert_eq!(end_transaction(&marker), Ok(Some(end)));
        }
        let mut plain = BatchBuilder::new(0);
        plain.push(0, None, None, &[]);
        assert_eq!(control_type(&plain.build()), Ok(None));
    }
}
