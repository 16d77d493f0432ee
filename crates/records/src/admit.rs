//! From a client's batch to the bytes that will be stored: validated, and rewritten only where
//! Kafka would rewrite it too.
//!
//! The common batch comes back as the very same memory. A wrong greatest timestamp costs a CRC;
//! sparse offset deltas or another `compression.type` cost a rebuild.

use bytes::{BufMut, BytesMut};

use crate::compression::{compress, decompress};
use crate::header::{Attributes, BATCH_OVERHEAD, BatchError, BatchHeader, Codec, TimestampType};
use crate::record::{RawRecord, RecordIter};
use crate::stamp::{put, stamp_max_timestamp};
use crate::validate::{DECOMPRESSED_BYTES_MAX, InvalidBatch, ProduceRules, validate_and_walk};
use crate::varint;

/// A topic's `compression.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Whatever the producer chose.
    #[default]
    Producer,
    /// This codec ([`Codec::None`] is `uncompressed`).
    Topic(Codec),
}

/// Validates `batch` as [`crate::validate_client_batch`] does and returns what is to be stored,
/// with its head.
///
/// # Errors
/// The first rule that the batch breaks, or its size after recompression.
pub fn admit_client_batch(
    mut batch: BytesMut,
    rules: &ProduceRules,
    compression: Compression,
) -> Result<(BytesMut, BatchHeader), InvalidBatch> {
    let (mut header, walked) = validate_and_walk(&batch, rules)?;
    let stored = header.attributes.codec().map_err(InvalidBatch::Corrupt)?;
    let wanted = match compression {
        Compression::Topic(codec) if !header.attributes.is_control() => codec,
        Compression::Topic(_) | Compression::Producer => stored,
    };
    if wanted != stored || walked.is_some_and(|walked| !walked.dense) {
        batch = rebuild(&batch, &header, stored, wanted)?;
        header = BatchHeader::parse(&batch).map_err(InvalidBatch::Corrupt)?;
        let (size_bytes, max_bytes) = (header.size_bytes(), rules.max_message_bytes);
        if size_bytes > max_bytes {
            return Err(InvalidBatch::TooLarge {
                size_bytes,
                max_bytes,
            });
        }
    }
    if let Some(walked) = walked
        && rules.timestamp_type == TimestampType::CreateTime
        && walked.max_timestamp != header.max_timestamp
    {
        stamp_max_timestamp(&mut batch, walked.max_timestamp);
        header = BatchHeader::parse(&batch).map_err(InvalidBatch::Corrupt)?;
    }
    Ok((batch, header))
}

/// The same records under another codec, with dense offset deltas.
fn rebuild(
    batch: &[u8],
    header: &BatchHeader,
    stored: Codec,
    wanted: Codec,
) -> Result<BytesMut, InvalidBatch> {
    let body = batch.get(BATCH_OVERHEAD..).unwrap_or_default();
    let records =
        decompress(stored, body, DECOMPRESSED_BYTES_MAX).map_err(|error| match error {
            BatchError::DecompressedTooLarge { .. } => {
                InvalidBatch::Invalid("records decompress to more than is allowed")
            }
            other => InvalidBatch::Corrupt(other),
        })?;
    let mut dense = Vec::with_capacity(records.len());
    let (mut iter, mut rest) = (RecordIter::new(header, &records), records.as_slice());
    while let Some(next) = iter.next_raw() {
        let (index, record) = next.map_err(|error| match error {
            BatchError::Record { reason, .. } => InvalidBatch::Invalid(reason),
            other => InvalidBatch::Corrupt(other),
        })?;
        let before = rest;
        let _ = RawRecord::read(&mut rest);
        let encoded = before.get(..before.len() - rest.len()).unwrap_or_default();
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        if record.offset_delta == index {
            dense.extend_from_slice(encoded);
        } else {
            write_with_delta(encoded, &record, index, &mut dense);
        }
    }
    let body = compress(wanted, &dense).map_err(InvalidBatch::Corrupt)?;
    let length = i32::try_from(body.len() + BATCH_OVERHEAD - crate::header::LENGTH_PREFIX)
        .map_err(|_| InvalidBatch::Invalid("records are larger than a batch can be"))?;
    let mut out = BytesMut::with_capacity(BATCH_OVERHEAD + body.len());
    out.extend_from_slice(batch.get(..BATCH_OVERHEAD).unwrap_or_default());
    out.put_slice(&body);
    put(&mut out, 8, length.to_be_bytes());
    let attributes: Attributes = header.attributes.with_codec(wanted);
    put(
        &mut out,
        crate::header::CRC_FROM,
        attributes.0.to_be_bytes(),
    );
    stamp_max_timestamp(&mut out, header.max_timestamp);
    Ok(out)
}

/// Writes the record that `encoded` holds with another offset delta.
fn write_with_delta(encoded: &[u8], record: &RawRecord<'_>, delta: i32, out: &mut Vec<u8>) {
    let mut body = encoded;
    let _ = varint::read_i32(&mut body);
    // Attributes, the timestamp, the old delta; what follows is copied as it is.
    body = body.get(1..).unwrap_or_default();
    let _ = varint::read_i64(&mut body);
    let _ = varint::read_i32(&mut body);
    let size = 1
        + varint::size_i64(record.timestamp_delta)
        + varint::size_i64(i64::from(delta))
        + body.len();
    varint::write_i64(out, i64::try_from(size).unwrap_or(i64::MAX));
    out.push(0);
    varint::write_i64(out, record.timestamp_delta);
    varint::write_i32(out, delta);
    out.extend_from_slice(body);
}
