//! From time to offset: ListOffsets by timestamp, and the greatest timestamp.
//!
//! The time index says where to begin; the batches themselves say what is true.

use std::sync::Arc;

use ottla_records::{BatchError, decode_records};
use ottla_types::{LeaderEpoch, Offset};

use super::{Interrupted, LogReader, Snapshot};
use crate::error::ReadError;
use crate::index::TimeEntry;
use crate::scan::{Found, HeadScan, SCAN_CHUNK, ScanError, read_batch};
use crate::segment::Segment;

/// Largest batch, and largest decompressed batch, that is opened to look for a timestamp.
const BATCH_BYTES_MAX: usize = 256 << 20;

/// A record found by its timestamp: its offset, the timestamp, its leader epoch.
type Timestamped = (Offset, i64, Option<LeaderEpoch>);

impl LogReader {
    /// The first record below `upper` whose timestamp is `timestamp` or later.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn offset_for_timestamp(
        &self,
        timestamp: i64,
        upper: Offset,
    ) -> Result<Option<Timestamped>, ReadError> {
        let start = self.log_start_offset();
        self.attempt(start, |snapshot| {
            for segment in segments_within(snapshot, start, upper) {
                if let Some(found) = first_since(segment, timestamp, start, upper)? {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        })
    }

    /// The first of the records below `upper` that have the greatest timestamp.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn max_timestamp(&self, upper: Offset) -> Result<Option<Timestamped>, ReadError> {
        let start = self.log_start_offset();
        self.attempt(start, |snapshot| {
            let mut best: Option<(&Arc<Segment>, Found)> = None;
            for segment in segments_within(snapshot, start, upper) {
                let sealed = snapshot
                    .segments
                    .last()
                    .is_some_and(|last| !Arc::ptr_eq(last, segment));
                let Some(found) = greatest(segment, sealed, start, upper)? else {
                    continue;
                };
                let newer = best.as_ref().is_none_or(|(_, known)| {
                    found.header.max_timestamp > known.header.max_timestamp
                });
                if newer {
                    best = Some((segment, found));
                }
            }
            let Some((segment, found)) = best else {
                return Ok(None);
            };
            first_record(segment, &found, found.header.max_timestamp, start)
        })
    }
}

/// The segments that hold offsets from `start` up to `upper`.
fn segments_within(
    snapshot: &Snapshot,
    start: Offset,
    upper: Offset,
) -> impl Iterator<Item = &Arc<Segment>> {
    let from = snapshot.index_of(start);
    snapshot
        .segments
        .iter()
        .skip(from)
        .take_while(move |segment| segment.base_offset < upper)
}

/// The first record of the segment since `timestamp`.
fn first_since(
    segment: &Segment,
    timestamp: i64,
    start: Offset,
    upper: Offset,
) -> Result<Option<Timestamped>, Interrupted> {
    let mut from = segment.base_offset;
    let before = segment
        .indexes
        .last_time_where(|entry| entry.timestamp < timestamp)?;
    if let Some(entry) = before
        && checked(segment, entry)?.is_some()
    {
        // No batch up to and with this one is late enough.
        from = segment.base_offset.plus(i64::from(entry.relative)).next();
    }
    let Some(first) = segment.find(from)? else {
        return Ok(None);
    };
    let end = segment.end().position;
    let mut scan = HeadScan::new(&*segment.file, first.position, end, SCAN_CHUNK);
    while let Some(found) = scan.next()? {
        if found.header.next_offset() > upper {
            break;
        }
        if found.header.max_timestamp >= timestamp
            && found.header.next_offset() > start
            && let Some(record) = first_record(segment, &found, timestamp, start)?
        {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// The first batch with the greatest timestamp of the segment, between `start` and `upper`.
fn greatest(
    segment: &Segment,
    sealed: bool,
    start: Offset,
    upper: Offset,
) -> Result<Option<Found>, Interrupted> {
    let end = segment.end();
    let whole = end.offset <= upper && segment.base_offset >= start;
    if sealed && whole {
        // The last entry was added when the segment was sealed and speaks for all of it.
        let last = segment.indexes.last_time_where(|_| true)?;
        if let Some(entry) = last
            && let Some(found) = checked(segment, entry)?
        {
            return Ok(Some(found));
        }
    }
    let relative = upper.since(segment.base_offset);
    let (mut best, mut from) = (None, segment.base_offset.max(start));
    if segment.base_offset >= start
        && let Some(indexed) = segment
            .indexes
            .last_offset_where(|entry| i64::from(entry.relative) < relative)?
    {
        let known = segment
            .indexes
            .last_time_where(|entry| entry.relative <= indexed.relative)?;
        if let Some(entry) = known
            && let Some(found) = checked(segment, entry)?
        {
            best = Some(found);
            from = segment.base_offset.plus(i64::from(indexed.relative));
        }
    }
    let Some(first) = segment.find(from)? else {
        return Ok(best);
    };
    let mut scan = HeadScan::new(&*segment.file, first.position, end.position, SCAN_CHUNK);
    while let Some(found) = scan.next()? {
        if found.header.next_offset() > upper {
            break;
        }
        let later = best.is_none_or(|best| found.header.max_timestamp > best.header.max_timestamp);
        if later && found.header.record_count > 0 {
            best = Some(found);
        }
    }
    Ok(best)
}

/// The batch that a time index entry speaks of, if it is what the entry says.
fn checked(segment: &Segment, entry: TimeEntry) -> Result<Option<Found>, ScanError> {
    let offset = segment.base_offset.plus(i64::from(entry.relative));
    let found = segment.find(offset)?;
    let right = found.filter(|found| {
        found.header.first_offset() <= offset && found.header.max_timestamp == entry.timestamp
    });
    if right.is_none() {
        segment.indexes.distrust();
    }
    Ok(right)
}

/// The first record of the batch since `timestamp` and from `start` on.
fn first_record(
    segment: &Segment,
    found: &Found,
    timestamp: i64,
    start: Offset,
) -> Result<Option<Timestamped>, Interrupted> {
    let bad = |error| {
        Interrupted::Scan(ScanError::Bad {
            position: found.position,
            error,
        })
    };
    let batch = read_batch(&*segment.file, found, BATCH_BYTES_MAX)?;
    let batch = batch.ok_or_else(|| bad(BatchError::Length(found.header.batch_length)))?;
    if !ottla_records::check_crc(&batch) {
        return Err(bad(BatchError::Crc));
    }
    let records = decode_records(&batch, BATCH_BYTES_MAX).map_err(bad)?;
    let record = records
        .iter()
        .find(|record| record.timestamp >= timestamp && record.offset >= start.get());
    Ok(record.map(|record| {
        (
            Offset::saturating(record.offset),
            record.timestamp,
            found.header.leader_epoch(),
        )
    }))
}
