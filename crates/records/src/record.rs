//! Records, borrowed from the decompressed bytes of a batch.
//!
//! The walk checks every length against the bytes at hand and every record against the length it
//! gives itself, so that a batch whose walk succeeds holds exactly the records it says.

use crate::header::{BatchError, BatchHeader, TimestampType};
use crate::varint::{read_i32, read_i64};

/// One header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Its key, UTF-8 by convention.
    pub key: &'a [u8],
    /// Its value.
    pub value: Option<&'a [u8]>,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its offset in the log.
    pub offset: i64,
    /// Its timestamp, by the rule of the batch's timestamp type.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone in a compacted topic.
    pub value: Option<&'a [u8]>,
    /// Its headers, in order.
    pub headers: Vec<Header<'a>>,
}

/// A record's fields as they are encoded.
pub(crate) struct RawRecord<'a> {
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: i32,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    header_count: usize,
    header_bytes: &'a [u8],
}

impl<'a> RawRecord<'a> {
    /// Takes one record off the front of `bytes`.
    pub(crate) fn read(bytes: &mut &'a [u8]) -> Result<RawRecord<'a>, &'static str> {
        let length = read_i32(bytes).ok_or("length is not a number")?;
        let length = usize::try_from(length).map_err(|_| "length is negative")?;
        let (mut body, rest) = bytes
            .split_at_checked(length)
            .ok_or("length is beyond the end of the batch")?;
        *bytes = rest;
        let body = &mut body;
        let (attributes, after) = body.split_first().ok_or("no attributes")?;
        *body = after;
        if *attributes != 0 {
            return Err("attributes are not zero");
        }
        let timestamp_delta = read_i64(body).ok_or("timestamp is not a number")?;
        let offset_delta = read_i32(body).ok_or("offset is not a number")?;
        let key = read_nullable(body).ok_or("key is out of bounds")?;
        let value = read_nullable(body).ok_or("value is out of bounds")?;
        let header_count = read_i32(body).ok_or("header count is not a number")?;
        let header_count = usize::try_from(header_count).map_err(|_| "header count is negative")?;
        let header_bytes = *body;
        for _ in 0..header_count {
            read_header(body).ok_or("a header is out of bounds")?;
        }
        if !body.is_empty() {
            return Err("bytes are left over");
        }
        Ok(RawRecord {
            timestamp_delta,
            offset_delta,
            key,
            value,
            header_count,
            header_bytes,
        })
    }

    /// The headers; they were walked when the record was read.
    fn headers(&self) -> Vec<Header<'a>> {
        let mut rest = self.header_bytes;
        (0..self.header_count)
            .map_while(|_| read_header(&mut rest))
            .collect()
    }
}

fn read_nullable<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = read_i32(bytes)?;
    if length == -1 {
        return Some(None);
    }
    let (field, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(Some(field))
}

fn read_header<'a>(bytes: &mut &'a [u8]) -> Option<Header<'a>> {
    let key = read_nullable(bytes)??;
    let value = read_nullable(bytes)?;
    Some(Header { key, value })
}

/// The records of a batch, from its decompressed bytes.
#[derive(Clone, Debug)]
pub struct RecordIter<'a> {
    header: BatchHeader,
    rest: &'a [u8],
    index: usize,
    count: usize,
}

impl<'a> RecordIter<'a> {
    /// Walks `records`: what follows the head of the batch, decompressed.
    #[must_use]
    pub fn new(header: &BatchHeader, records: &'a [u8]) -> RecordIter<'a> {
        let count = usize::try_from(header.record_count).unwrap_or(0);
        RecordIter {
            header: *header,
            rest: records,
            index: 0,
            count,
        }
    }

    /// The next record with its place in the batch; an error ends the walk.
    pub(crate) fn next_raw(&mut self) -> Option<Result<(usize, RawRecord<'a>), BatchError>> {
        if self.index >= self.count {
            let left_over = !self.rest.is_empty();
            self.rest = &[];
            return left_over.then_some(Err(BatchError::Record {
                index: self.index,
                reason: "bytes are left over after the last record",
            }));
        }
        let index = self.index;
        self.index += 1;
        match RawRecord::read(&mut self.rest) {
            Ok(record) => Some(Ok((index, record))),
            Err(reason) => {
                self.rest = &[];
                self.index = self.count;
                Some(Err(BatchError::Record { index, reason }))
            }
        }
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let raw = match self.next_raw()? {
            Ok((_, raw)) => raw,
            Err(error) => return Some(Err(error)),
        };
        let timestamp = match self.header.attributes.timestamp_type() {
            TimestampType::CreateTime => self
                .header
                .base_timestamp
                .saturating_add(raw.timestamp_delta),
            TimestampType::LogAppendTime => self.header.max_timestamp,
        };
        Some(Ok(Record {
            offset: self
                .header
                .base_offset
                .saturating_add(i64::from(raw.offset_delta)),
            timestamp,
            key: raw.key,
            value: raw.value,
            headers: raw.headers(),
        }))
    }
}
