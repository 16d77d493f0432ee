//! What the leader checks on a client's batch before it may be appended.
//!
//! All checks that need no state of the log, in Kafka's order; the first that fails decides the
//! answer, and nothing of the batch is written. Compressed records are opened only where the topic
//! demands it: null keys of a compacted topic, and a lower bound on timestamps.

use ottla_types::WallClockMs;

use crate::batches::check_crc;
use crate::compression::decompress;
use crate::header::{BATCH_OVERHEAD, BatchError, BatchHeader, Codec, TimestampType};
use crate::record::RecordIter;

/// Largest size of a batch's records once decompressed.
pub(crate) const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;

/// The timestamp of a record that has none.
const NO_TIMESTAMP: i64 = -1;

/// What a topic demands of the batches produced to it.
#[derive(Clone, Copy, Debug)]
pub struct ProduceRules {
    /// `max.message.bytes`: the largest batch, as stored.
    pub max_message_bytes: usize,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`; `None` is no limit.
    pub timestamp_before_max_ms: Option<u64>,
    /// `message.timestamp.after.max.ms`; `None` is no limit.
    pub timestamp_after_max_ms: Option<u64>,
    /// The leader's clock.
    pub now: WallClockMs,
    /// Whether the request's version knows zstd (Produce 7 and later).
    pub zstd_allowed: bool,
    /// Whether the topic is compacted, so that every record needs a key.
    pub compacted: bool,
    /// Whether control batches may come this way: from coordinators, never from clients.
    pub allow_control: bool,
}

/// One refused record of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// Its place in the batch.
    pub batch_index: i32,
    /// What is wrong with it.
    pub message: &'static str,
}

/// Why a batch was refused. Nothing of it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBatch {
    /// Not the bytes that the producer wrote: a retry may succeed.
    #[error("corrupt batch: {0}")]
    Corrupt(#[source] BatchError),
    /// A codec that the request's version does not know.
    #[error("zstd needs version 7 of the produce request")]
    UnsupportedCompression,
    /// Larger than the topic allows.
    #[error("batch of {size_bytes} bytes, {max_bytes} are allowed")]
    TooLarge {
        /// Its size.
        size_bytes: usize,
        /// `max.message.bytes`.
        max_bytes: usize,
    },
    /// Against a rule of the format.
    #[error("invalid batch: {0}")]
    Invalid(&'static str),
    /// Some records are against a rule of the topic.
    #[error("{} invalid records", records.len())]
    InvalidRecords {
        /// Those records.
        records: Vec<RecordError>,
    },
    /// Timestamps out of the topic's bounds, or a timestamp type that is not the producer's to set.
    #[error("invalid timestamp: {reason}")]
    InvalidTimestamp {
        /// What is wrong.
        reason: &'static str,
        /// The records concerned, if they were looked at.
        records: Vec<RecordError>,
    },
}

/// What a look at the records found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walked {
    /// The greatest timestamp of a record.
    pub(crate) max_timestamp: i64,
    /// Whether the offset deltas are 0, 1, 2, ….
    pub(crate) dense: bool,
}

/// Checks one batch as a client sent it.
///
/// # Errors
/// The first rule that the batch breaks.
pub fn validate_client_batch(
    batch: &[u8],
    rules: &ProduceRules,
) -> Result<BatchHeader, InvalidBatch> {
    validate_and_walk(batch, rules).map(|(header, _)| header)
}

/// As [`validate_client_batch`], also telling what the records said, if they were looked at.
pub(crate) fn validate_and_walk(
    batch: &[u8],
    rules: &ProduceRules,
) -> Result<(BatchHeader, Option<Walked>), InvalidBatch> {
    if batch.is_empty() {
        return Err(InvalidBatch::Invalid("no batch"));
    }
    let header = match BatchHeader::parse_unchecked_offsets(batch) {
        Ok(header) => header,
        Err(BatchError::Magic(_)) => return Err(InvalidBatch::Invalid("magic is not 2")),
        Err(error) => return Err(InvalidBatch::Corrupt(error)),
    };
    let size_bytes = header.size_bytes();
    if size_bytes < batch.len() {
        return Err(InvalidBatch::Invalid("more than one batch"));
    }
    let codec = header.attributes.codec();
    if codec == Ok(Codec::Zstd) && !rules.zstd_allowed {
        return Err(InvalidBatch::UnsupportedCompression);
    }
    if header.base_offset != 0 {
        return Err(InvalidBatch::Invalid("base offset is not 0"));
    }
    if size_bytes > rules.max_message_bytes {
        return Err(InvalidBatch::TooLarge {
            size_bytes,
            max_bytes: rules.max_message_bytes,
        });
    }
    if size_bytes > batch.len() {
        let error = BatchError::Short {
            needed: size_bytes,
            have: batch.len(),
        };
        return Err(InvalidBatch::Corrupt(error));
    }
    if !check_crc(batch) {
        return Err(InvalidBatch::Corrupt(BatchError::Crc));
    }
    check_head(&header, rules)?;
    let codec = codec.map_err(|_| InvalidBatch::Invalid("unknown compression codec"))?;
    let walked = check_records(batch, &header, codec, rules)?;
    check_header_timestamps(&header, rules)?;
    Ok((header, walked))
}

fn check_head(header: &BatchHeader, rules: &ProduceRules) -> Result<(), InvalidBatch> {
    let count = header.record_count;
    if count <= 0 || header.last_offset_delta.checked_add(1) != Some(count) {
        return Err(InvalidBatch::Invalid(
            "record count does not fit the offsets",
        ));
    }
    if header.attributes.is_control() && !rules.allow_control {
        return Err(InvalidBatch::Invalid(
            "a client cannot write control records",
        ));
    }
    if header.attributes.has_broker_only_bits() {
        return Err(InvalidBatch::Invalid(
            "attribute bits that no producer may set",
        ));
    }
    if header.producer_id >= 0 && !header.attributes.is_control() {
        if header.base_sequence < 0 {
            return Err(InvalidBatch::Invalid("a producer id without a sequence"));
        }
        if header.producer_epoch < 0 {
            return Err(InvalidBatch::Invalid("a producer id without an epoch"));
        }
    }
    if header.attributes.is_transactional() && header.producer_id < 0 {
        return Err(InvalidBatch::Invalid(
            "a transactional batch without a producer id",
        ));
    }
    Ok(())
}

/// Walks the records where they lie, or decompresses them where the topic needs it.
fn check_records(
    batch: &[u8],
    header: &BatchHeader,
    codec: Codec,
    rules: &ProduceRules,
) -> Result<Option<Walked>, InvalidBatch> {
    let body = batch.get(BATCH_OVERHEAD..).unwrap_or_default();
    if codec == Codec::None {
        return walk(body, header, rules).map(Some);
    }
    let bounded_below = rules.timestamp_type == TimestampType::CreateTime
        && rules.timestamp_before_max_ms.is_some();
    if !rules.compacted && !bounded_below {
        return Ok(None);
    }
    match decompress(codec, body, DECOMPRESSED_BYTES_MAX) {
        Ok(records) => walk(&records, header, rules).map(Some),
        Err(BatchError::DecompressedTooLarge { .. }) => Err(InvalidBatch::Invalid(
            "records decompress to more than is allowed",
        )),
        Err(error) => Err(InvalidBatch::Corrupt(error)),
    }
}

fn walk(
    records: &[u8],
    header: &BatchHeader,
    rules: &ProduceRules,
) -> Result<Walked, InvalidBatch> {
    let (oldest, newest) = timestamp_bounds(rules);
    let check_time = rules.timestamp_type == TimestampType::CreateTime;
    let mut walked = Walked {
        max_timestamp: NO_TIMESTAMP,
        dense: true,
    };
    let (mut without_key, mut out_of_time) = (Vec::new(), Vec::new());
    let mut iter = RecordIter::new(header, records);
    while let Some(next) = iter.next_raw() {
        let (index, record) = next.map_err(|error| match error {
            BatchError::Record { reason, .. } => InvalidBatch::Invalid(reason),
            other => InvalidBatch::Corrupt(other),
        })?;
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        if rules.compacted && record.key.is_none() && !header.attributes.is_control() {
            let message = "a record of a compacted topic needs a key";
            without_key.push(RecordError {
                batch_index: index,
                message,
            });
        }
        let timestamp = header.base_timestamp.saturating_add(record.timestamp_delta);
        if check_time && timestamp != NO_TIMESTAMP && (timestamp < oldest || timestamp > newest) {
            let message = "timestamp is out of the topic's bounds";
            out_of_time.push(RecordError {
                batch_index: index,
                message,
            });
        }
        walked.max_timestamp = walked.max_timestamp.max(timestamp);
        walked.dense &= record.offset_delta == index;
    }
    if !without_key.is_empty() {
        return Err(InvalidBatch::InvalidRecords {
            records: without_key,
        });
    }
    if !out_of_time.is_empty() {
        let reason = "out of the topic's bounds";
        return Err(InvalidBatch::InvalidTimestamp {
            reason,
            records: out_of_time,
        });
    }
    Ok(walked)
}

fn check_header_timestamps(header: &BatchHeader, rules: &ProduceRules) -> Result<(), InvalidBatch> {
    let refuse = |reason| {
        Err(InvalidBatch::InvalidTimestamp {
            reason,
            records: Vec::new(),
        })
    };
    if header.attributes.timestamp_type() == TimestampType::LogAppendTime {
        return refuse("a producer cannot choose LogAppendTime");
    }
    let (_, newest) = timestamp_bounds(rules);
    if rules.timestamp_type == TimestampType::CreateTime && header.max_timestamp > newest {
        return refuse("the greatest timestamp is too far in the future");
    }
    Ok(())
}

/// The oldest and the newest timestamp allowed.
fn timestamp_bounds(rules: &ProduceRules) -> (i64, i64) {
    let ms = |limit: u64| i64::try_from(limit).unwrap_or(i64::MAX);
    let oldest = rules
        .timestamp_before_max_ms
        .map_or(i64::MIN, |limit| rules.now.0.saturating_sub(ms(limit)));
    let newest = rules
        .timestamp_after_max_ms
        .map_or(i64::MAX, |limit| rules.now.0.saturating_add(ms(limit)));
    (oldest, newest)
}
