//! Building a batch: for coordinators, for our own client, for tests.

use bytes::{BufMut, BytesMut};

use ottla_types::{ProducerEpoch, ProducerId};

use crate::compression::compress;
use crate::header::{Attributes, BATCH_OVERHEAD, Codec, LENGTH_PREFIX, TimestampType};
use crate::stamp::stamp_max_timestamp;
use crate::varint;

/// Records beyond this size are not taken: the length field is an `i32`.
const RECORDS_BYTES_MAX: usize = 1 << 30;

/// Collects records and builds one batch with base offset 0, no leader epoch and a right CRC.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    attributes: Attributes,
    codec: Codec,
    base_timestamp: i64,
    max_timestamp: i64,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    record_count: i32,
    records: Vec<u8>,
}

impl BatchBuilder {
    /// Starts an empty batch; `base_timestamp` is the first record's, in milliseconds.
    #[must_use]
    pub fn new(base_timestamp: i64) -> BatchBuilder {
        BatchBuilder {
            attributes: Attributes::default(),
            codec: Codec::None,
            base_timestamp,
            max_timestamp: -1,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: 0,
            records: Vec::new(),
        }
    }

    /// Compresses the records with `codec`.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> BatchBuilder {
        self.codec = codec;
        self
    }

    /// Names the idempotent producer and the sequence of the first record.
    #[must_use]
    pub fn producer(
        mut self,
        id: ProducerId,
        epoch: ProducerEpoch,
        base_sequence: i32,
    ) -> BatchBuilder {
        self.producer_id = id.get();
        self.producer_epoch = epoch.get();
        self.base_sequence = base_sequence;
        self
    }

    /// Makes the batch part of a transaction.
    #[must_use]
    pub fn transactional(mut self) -> BatchBuilder {
        self.attributes = self.attributes.transactional();
        self
    }

    /// Makes the batch a control batch.
    #[must_use]
    pub fn control(mut self) -> BatchBuilder {
        self.attributes = self.attributes.control();
        self
    }

    /// Sets whose clock the timestamps are.
    #[must_use]
    pub fn timestamp_type(mut self, timestamp_type: TimestampType) -> BatchBuilder {
        self.attributes = self.attributes.with_timestamp_type(timestamp_type);
        self
    }

    /// Adds one record; returns false, and adds nothing, if the batch would become larger than its
    /// length field can tell.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> bool {
        let timestamp_delta = timestamp.saturating_sub(self.base_timestamp);
        let mut size = 1
            + varint::size_i64(timestamp_delta)
            + varint::size_i64(i64::from(self.record_count))
            + field_size(key)
            + field_size(value)
            + varint::size_i64(signed(headers.len()));
        for (key, value) in headers {
            size += field_size(Some(key.as_bytes())) + field_size(*value);
        }
        if self.records.len().saturating_add(size) > RECORDS_BYTES_MAX
            || self.record_count == i32::MAX
        {
            return false;
        }
        let out = &mut self.records;
        varint::write_i64(out, signed(size));
        out.push(0);
        varint::write_i64(out, timestamp_delta);
        varint::write_i32(out, self.record_count);
        write_field(out, key);
        write_field(out, value);
        varint::write_i64(out, signed(headers.len()));
        for (key, value) in headers {
            write_field(out, Some(key.as_bytes()));
            write_field(out, *value);
        }
        self.record_count += 1;
        self.max_timestamp = self.max_timestamp.max(timestamp);
        true
    }

    /// Number of records so far.
    #[must_use]
    pub fn record_count(&self) -> i32 {
        self.record_count
    }

    /// Size of the batch so far, before compression.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        BATCH_OVERHEAD + self.records.len()
    }

    /// The batch. Without records it is a head alone, as compaction leaves behind.
    #[must_use]
    pub fn build(self) -> BytesMut {
        // Compression in memory does not fail; if it ever did, the plain records are as good.
        let (codec, body) = match compress(self.codec, &self.records) {
            Ok(body) => (self.codec, body),
            Err(_) => (Codec::None, self.records),
        };
        let length = i32::try_from(body.len() + BATCH_OVERHEAD - LENGTH_PREFIX);
        let mut out = BytesMut::with_capacity(BATCH_OVERHEAD + body.len());
        out.put_i64(0);
        out.put_i32(length.unwrap_or(i32::MAX));
        out.put_i32(-1);
        out.put_i8(2);
        out.put_u32(0);
        out.put_u16(self.attributes.with_codec(codec).0);
        out.put_i32(self.record_count.saturating_sub(1).max(0));
        out.put_i64(self.base_timestamp);
        out.put_i64(self.max_timestamp);
        out.put_i64(self.producer_id);
        out.put_i16(self.producer_epoch);
        out.put_i32(self.base_sequence);
        out.put_i32(self.record_count);
        out.put_slice(&body);
        stamp_max_timestamp(&mut out, self.max_timestamp);
        out
    }
}

fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

fn field_size(field: Option<&[u8]>) -> usize {
    field.map_or(1, |bytes| {
        varint::size_i64(signed(bytes.len())).saturating_add(bytes.len())
    })
}

fn write_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => varint::write_i32(out, -1),
        Some(bytes) => {
            varint::write_i64(out, signed(bytes.len()));
            out.extend_from_slice(bytes);
        }
    }
}
