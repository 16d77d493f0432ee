//! One segment as readers see it: a file, its indexes, and how far both are written.
//!
//! # Invariants
//! * End position and end offset are one atomic word: a reader never sees an offset whose bytes it
//!   cannot find, nor a position beyond the offset that goes with it.
//! * They never fall: a truncation puts another handle in this one's place.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ottla_types::Offset;

use crate::files::File;
use crate::index::Indexes;
use crate::scan::{Found, HeadScan, LOOKUP_CHUNK, SCAN_CHUNK, ScanError};

/// Where a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentEnd {
    /// Size of the file.
    pub(crate) position: u64,
    /// Offset after the last record.
    pub(crate) offset: Offset,
}

/// One segment, shared between the writer and the readers.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base_offset: Offset,
    pub(crate) file: Arc<dyn File>,
    pub(crate) indexes: Indexes,
    /// End offset less base offset, then end position, 32 bits each.
    end: AtomicU64,
}

impl Segment {
    pub(crate) fn new(
        base_offset: Offset,
        file: Arc<dyn File>,
        indexes: Indexes,
        end: SegmentEnd,
    ) -> Segment {
        Segment {
            base_offset,
            file,
            indexes,
            end: AtomicU64::new(pack(base_offset, end)),
        }
    }

    /// Publishes bytes that are in the file, and index entries that are in the index.
    pub(crate) fn publish_end(&self, end: SegmentEnd) {
        self.end
            .store(pack(self.base_offset, end), Ordering::Release);
    }

    pub(crate) fn end(&self) -> SegmentEnd {
        let word = self.end.load(Ordering::Acquire);
        let relative = i64::try_from(word >> 32).unwrap_or(i64::MAX);
        SegmentEnd {
            position: word & 0xffff_ffff,
            offset: self.base_offset.plus(relative),
        }
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.end().position
    }

    /// The first batch whose last offset is `offset` or later.
    pub(crate) fn find(&self, offset: Offset) -> Result<Option<Found>, ScanError> {
        let end = self.end();
        let relative = offset.since(self.base_offset);
        let hint = self
            .indexes
            .last_offset_where(|entry| i64::from(entry.relative) <= relative)?
            .filter(|entry| u64::from(entry.position) < end.position);
        if let Some(entry) = hint {
            let position = u64::from(entry.position);
            let mut scan = HeadScan::new(&*self.file, position, end.position, LOOKUP_CHUNK);
            let last_offset = self.base_offset.plus(i64::from(entry.relative));
            match scan.next() {
                Ok(Some(found)) if found.header.last_offset() == last_offset => {
                    return first_reaching(found, &mut scan, offset);
                }
                Ok(_) | Err(ScanError::Bad { .. }) => self.indexes.distrust(),
                Err(error @ ScanError::Io(_)) => return Err(error),
            }
        }
        let mut scan = HeadScan::new(&*self.file, 0, end.position, self.walk_chunk());
        match scan.next()? {
            Some(found) => first_reaching(found, &mut scan, offset),
            None => Ok(None),
        }
    }

    /// The last batch of a run of batches from `first` on that all end at or before `upper` and
    /// before file position `limit`; `first` must be such a batch.
    pub(crate) fn last_within(
        &self,
        first: Found,
        upper: Offset,
        limit: u64,
    ) -> Result<Found, ScanError> {
        let end = self.end();
        let relative = upper.since(self.base_offset);
        let fits = |found: &Found| found.header.next_offset() <= upper && found.end() <= limit;
        let mut below = limit;
        // A second look is needed where the last indexed batch crosses the limit.
        while let Some(entry) = self
            .indexes
            .last_offset_where(|entry| {
                i64::from(entry.relative) < relative && u64::from(entry.position) < below
            })?
            .filter(|entry| u64::from(entry.position) > first.position)
        {
            let position = u64::from(entry.position);
            let last_offset = self.base_offset.plus(i64::from(entry.relative));
            let mut scan = HeadScan::new(&*self.file, position, end.position, LOOKUP_CHUNK);
            match scan.next() {
                Ok(Some(found)) if found.header.last_offset() == last_offset => {
                    if fits(&found) {
                        return last_fitting(found, &mut scan, fits);
                    }
                    below = position;
                }
                Ok(_) | Err(ScanError::Bad { .. }) => self.indexes.distrust(),
                Err(error @ ScanError::Io(_)) => return Err(error),
            }
        }
        let mut scan = HeadScan::new(&*self.file, first.end(), end.position, self.walk_chunk());
        last_fitting(first, &mut scan, fits)
    }

    fn walk_chunk(&self) -> usize {
        if self.indexes.is_distrusted() {
            SCAN_CHUNK
        } else {
            LOOKUP_CHUNK
        }
    }
}

fn first_reaching(
    first: Found,
    scan: &mut HeadScan<'_>,
    offset: Offset,
) -> Result<Option<Found>, ScanError> {
    let mut found = first;
    while found.header.last_offset() < offset {
        match scan.next()? {
            Some(next) => found = next,
            None => return Ok(None),
        }
    }
    Ok(Some(found))
}

fn last_fitting(
    first: Found,
    scan: &mut HeadScan<'_>,
    fits: impl Fn(&Found) -> bool,
) -> Result<Found, ScanError> {
    let mut last = first;
    while let Some(next) = scan.next()? {
        if !fits(&next) {
            break;
        }
        last = next;
    }
    Ok(last)
}

fn pack(base_offset: Offset, end: SegmentEnd) -> u64 {
    // Both fit 32 bits: a segment rolls before either would not.
    let relative = u32::try_from(end.offset.since(base_offset)).unwrap_or(u32::MAX);
    let position = u32::try_from(end.position).unwrap_or(u32::MAX);
    (u64::from(relative) << 32) | u64::from(position)
}
