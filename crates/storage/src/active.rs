//! The newest segment, as its writer sees it.
//!
//! Bytes go to the file, then entries to the indexes in memory, then the end is published; the
//! index files are written behind, in pieces, because they can be rebuilt.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use ottla_records::BatchHeader;
use ottla_types::{Offset, WallClockMs};

use crate::config::{LogConfig, SEGMENT_BYTES_MAX};
use crate::dir_state::DirState;
use crate::error::DiskError;
use crate::files::{Access, File, write_all_at, write_bytes_at};
use crate::index::{
    IndexFiles, Indexes, KnownEntries, MemoryIndexes, OFFSET_ENTRY, OffsetEntry, TIME_ENTRY,
    TimeEntry,
};
use crate::names;
use crate::scan::{HeadScan, LOOKUP_CHUNK, SCAN_CHUNK, ScanError};
use crate::segment::{Segment, SegmentEnd};

/// Index entries are written to their files so many at a time.
const ENTRIES_BEHIND: usize = 64;

/// Greatest timestamp so far and the end of its batch.
#[derive(Clone, Copy, Debug)]
struct Latest {
    timestamp: i64,
    offset: Offset,
}

/// A segment file found on disk, good up to `size`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FoundSegment<'a> {
    pub(crate) base_offset: Offset,
    pub(crate) file: &'a Arc<dyn File>,
    pub(crate) size: u64,
}

/// The writer's half of the newest segment.
#[derive(Debug)]
pub(crate) struct ActiveSegment {
    pub(crate) segment: Arc<Segment>,
    state: Arc<DirState>,
    dir: PathBuf,
    indexes: Arc<MemoryIndexes>,
    end: SegmentEnd,
    created: WallClockMs,
    /// Greatest timestamp of the first batch.
    first_timestamp: Option<i64>,
    latest: Option<Latest>,
    /// Bytes appended since the last index entry.
    unindexed_bytes: u64,
    offsets_written: usize,
    times_written: usize,
    index_files: [Option<Arc<dyn File>>; 2],
}

impl ActiveSegment {
    /// Creates an empty segment. The caller syncs the directory.
    pub(crate) fn create(
        state: &Arc<DirState>,
        dir: &Path,
        base_offset: Offset,
        now: WallClockMs,
    ) -> Result<ActiveSegment, DiskError> {
        state.refuse_if_failed()?;
        for suffix in [names::OFFSET_INDEX, names::TIME_INDEX, names::TXN_INDEX] {
            state.remove_file(&dir.join(names::segment_file(base_offset, suffix)))?;
        }
        let path = dir.join(names::segment_file(base_offset, names::LOG));
        let file = state.read("create", &path, state.files.open(&path, Access::Replace))?;
        let end = SegmentEnd {
            position: 0,
            offset: base_offset,
        };
        Ok(ActiveSegment::new(state, dir, base_offset, file, end, now))
    }

    /// A segment whose batches are taken in one by one with [`ActiveSegment::note`].
    pub(crate) fn new(
        state: &Arc<DirState>,
        dir: &Path,
        base_offset: Offset,
        file: Arc<dyn File>,
        end: SegmentEnd,
        created: WallClockMs,
    ) -> ActiveSegment {
        let indexes = Arc::new(MemoryIndexes::new());
        let in_memory = Indexes::in_memory(Arc::clone(&indexes));
        ActiveSegment {
            segment: Arc::new(Segment::new(base_offset, file, in_memory, end)),
            state: Arc::clone(state),
            dir: dir.to_owned(),
            indexes,
            end,
            created,
            first_timestamp: None,
            latest: None,
            unindexed_bytes: 0,
            offsets_written: 0,
            times_written: 0,
            index_files: [None, None],
        }
    }

    pub(crate) fn base_offset(&self) -> Offset {
        self.segment.base_offset
    }

    pub(crate) fn end(&self) -> SegmentEnd {
        self.end
    }

    /// Whether the segment must be sealed before a batch of `size_bytes` that ends at
    /// `last_offset` comes in.
    pub(crate) fn must_roll(
        &self,
        config: &LogConfig,
        header: &BatchHeader,
        pending_bytes: u64,
        now: WallClockMs,
    ) -> bool {
        let size_bytes = header.size_bytes() as u64;
        let filled = self.end.position + pending_bytes;
        if filled == 0 {
            return false;
        }
        filled + size_bytes > config.segment_bytes_max()
            || self.indexes_full(config)
            || header.last_offset().since(self.base_offset()) >= i64::from(i32::MAX)
            || (pending_bytes == 0 && self.is_old(config, header.max_timestamp, now))
    }

    /// Whether a segment could take a batch of this size at all.
    pub(crate) fn fits_any(size_bytes: usize) -> bool {
        size_bytes as u64 <= SEGMENT_BYTES_MAX
    }

    fn indexes_full(&self, config: &LogConfig) -> bool {
        let bytes = config.segment_index_bytes as usize;
        // One slot stays free for the entry that sealing adds.
        self.indexes.offset_count() >= (bytes / OFFSET_ENTRY).max(1)
            || self.indexes.time_count() + 1 >= (bytes / TIME_ENTRY).max(2)
    }

    /// Whether the first batch is older than `segment.ms`, by the timestamps of the batches, or
    /// where it has none by the clock.
    pub(crate) fn is_old(&self, config: &LogConfig, timestamp: i64, now: WallClockMs) -> bool {
        let age = match self.first_timestamp.filter(|first| *first >= 0) {
            Some(first) if timestamp >= 0 => timestamp.saturating_sub(first),
            _ => now.0.saturating_sub(self.created.0),
        };
        let limit = config.segment_ms.saturating_sub(self.jitter_ms(config));
        self.end.position > 0 && age > i64::try_from(limit).unwrap_or(i64::MAX)
    }

    /// A share of the jitter that depends on the segment alone.
    fn jitter_ms(&self, config: &LogConfig) -> u64 {
        let jitter = config.segment_jitter_ms.min(config.segment_ms);
        if jitter == 0 {
            return 0;
        }
        let name = self.dir.as_os_str().as_encoded_bytes();
        let seed = crc32c::crc32c_append(
            crc32c::crc32c(name),
            &self.base_offset().get().to_be_bytes(),
        );
        u64::from(seed) % jitter
    }

    /// Writes whole batches at the end of the file in one call. Whatever happens, the segment
    /// still ends where it did: the batches count when they are noted.
    pub(crate) fn write(&self, batches: &[Bytes]) -> Result<(), DiskError> {
        let file = &*self.segment.file;
        let written = match batches {
            [one] => write_bytes_at(file, one, self.end.position),
            many => {
                let mut slices: Vec<IoSlice<'_>> = many.iter().map(|b| IoSlice::new(b)).collect();
                write_all_at(file, &mut slices, self.end.position)
            }
        };
        let Err(error) = written else { return Ok(()) };
        let path = self.path(names::LOG);
        let judged = self.state.written("append", &path, Err(error));
        if matches!(judged, Err(DiskError::NoSpace)) {
            // S-7: the log ends at its last whole batch, on disk too.
            self.state
                .written("truncate", &path, file.set_size(self.end.position))?;
        }
        judged
    }

    /// Takes in a batch that is in the file: index entries by Kafka's rule.
    pub(crate) fn note(&mut self, header: &BatchHeader, interval_bytes: u32) {
        let last_offset = header.last_offset();
        if self.first_timestamp.is_none() {
            self.first_timestamp = Some(header.max_timestamp);
        }
        if self
            .latest
            .is_none_or(|latest| header.max_timestamp > latest.timestamp)
        {
            self.latest = Some(Latest {
                timestamp: header.max_timestamp,
                offset: last_offset,
            });
        }
        if self.unindexed_bytes > u64::from(interval_bytes) {
            let (relative, position) = (self.relative(last_offset), self.end.position);
            if let (Some(relative), Ok(position)) = (relative, u32::try_from(position)) {
                self.indexes.push_offset(OffsetEntry { relative, position });
                self.push_latest_time();
            }
            self.unindexed_bytes = 0;
        }
        let size_bytes = header.size_bytes() as u64;
        self.unindexed_bytes += size_bytes;
        self.end.position += size_bytes;
        self.end.offset = header.next_offset();
    }

    /// The greatest timestamp so far.
    pub(crate) fn newest_timestamp(&self) -> Option<i64> {
        self.latest.map(|latest| latest.timestamp)
    }

    fn relative(&self, offset: Offset) -> Option<u32> {
        u32::try_from(offset.since(self.base_offset())).ok()
    }

    fn push_latest_time(&self) {
        let Some(latest) = self.latest else { return };
        let Some(relative) = self.relative(latest.offset) else {
            return;
        };
        let last = self
            .indexes
            .time_count()
            .checked_sub(1)
            .and_then(|at| self.indexes.time(at));
        // Strictly growing in both.
        let grows =
            last.is_none_or(|last| latest.timestamp > last.timestamp && relative > last.relative);
        if grows {
            self.indexes.push_time(TimeEntry {
                timestamp: latest.timestamp,
                relative,
            });
        }
    }

    /// Publishes what was noted, and writes index entries behind. A full disk only delays those.
    pub(crate) fn publish(&mut self) {
        self.segment.publish_end(self.end);
        if self.indexes.offset_count() - self.offsets_written >= ENTRIES_BEHIND {
            // The index is a hint that can be rebuilt; a write error has failed the directory.
            let _ = self.write_indexes();
        }
    }

    /// Opens a segment file that ends with a whole batch at `size`, with what is known of its
    /// indexes; every batch that the entries do not cover is walked, and given to `each`.
    pub(crate) fn reopen(
        state: &Arc<DirState>,
        dir: &Path,
        found: FoundSegment<'_>,
        known: &KnownEntries,
        interval_bytes: u32,
        created: WallClockMs,
    ) -> Result<ActiveSegment, ScanError> {
        let FoundSegment {
            base_offset,
            file,
            size,
        } = found;
        let start = SegmentEnd {
            position: 0,
            offset: base_offset,
        };
        let mut active =
            ActiveSegment::new(state, dir, base_offset, Arc::clone(file), start, created);
        if size > 0 {
            let mut scan = HeadScan::new(&**file, 0, size, LOOKUP_CHUNK);
            active.first_timestamp = scan.next()?.map(|found| found.header.max_timestamp);
        }
        let kept = known.checked_below(&**file, base_offset, size)?;
        if let Some(last) = kept.offsets.last() {
            active.restore(&kept);
            active.end.position = u64::from(last.position);
        }
        let mut scan = HeadScan::new(&**file, active.end.position, size, SCAN_CHUNK);
        while let Some(found) = scan.next()? {
            active.note(&found.header, interval_bytes);
        }
        active.segment.publish_end(active.end);
        Ok(active)
    }

    /// Takes over index entries that are in the files already.
    fn restore(&mut self, kept: &KnownEntries) {
        for entry in &kept.offsets {
            self.indexes.push_offset(*entry);
        }
        for entry in &kept.times {
            self.indexes.push_time(*entry);
        }
        self.offsets_written = kept.offsets.len();
        self.times_written = kept.times.len();
        self.latest = kept.times.last().map(|entry| Latest {
            timestamp: entry.timestamp,
            offset: self.base_offset().plus(i64::from(entry.relative)),
        });
    }

    /// Cuts entries off the index files that are not in memory.
    pub(crate) fn cut_index_files(&mut self) -> Result<(), DiskError> {
        let sizes = [
            self.offsets_written * OFFSET_ENTRY,
            self.times_written * TIME_ENTRY,
        ];
        for (which, suffix) in [(0, names::OFFSET_INDEX), (1, names::TIME_INDEX)] {
            let path = self.path(suffix);
            if sizes[which] == 0 {
                self.index_files[which] = None;
                self.state.remove_file(&path)?;
            } else {
                let file = self.index_file(which, suffix)?;
                self.state
                    .written("truncate", &path, file.set_size(sizes[which] as u64))?;
            }
        }
        Ok(())
    }

    /// The entries so far.
    pub(crate) fn known_entries(&self) -> KnownEntries {
        let offsets = self.indexes.offset_count().min(self.offsets_written);
        let times = self.indexes.time_count().min(self.times_written);
        KnownEntries {
            offsets: (0..offsets)
                .filter_map(|at| self.indexes.offset(at))
                .collect(),
            times: (0..times).filter_map(|at| self.indexes.time(at)).collect(),
        }
    }

    /// When the segment was created.
    pub(crate) fn created(&self) -> WallClockMs {
        self.created
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.dir
            .join(names::segment_file(self.base_offset(), suffix))
    }

    fn index_file(&mut self, which: usize, suffix: &str) -> Result<Arc<dyn File>, DiskError> {
        if let Some(file) = &self.index_files[which] {
            return Ok(Arc::clone(file));
        }
        let path = self.path(suffix);
        let file = self.state.read(
            "create",
            &path,
            self.state.files.open(&path, Access::Create),
        )?;
        self.index_files[which] = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Writes the index entries that are not in the files yet, and cuts off whatever follows them.
    pub(crate) fn write_indexes(&mut self) -> Result<(), DiskError> {
        let (offsets, times) = (self.indexes.offset_count(), self.indexes.time_count());
        if offsets > self.offsets_written {
            let bytes: Vec<u8> = (self.offsets_written..offsets)
                .filter_map(|at| self.indexes.offset(at))
                .flat_map(OffsetEntry::encode)
                .collect();
            self.append_entries(
                0,
                names::OFFSET_INDEX,
                &bytes,
                self.offsets_written * OFFSET_ENTRY,
            )?;
            self.offsets_written = offsets;
        }
        if times > self.times_written {
            let bytes: Vec<u8> = (self.times_written..times)
                .filter_map(|at| self.indexes.time(at))
                .flat_map(TimeEntry::encode)
                .collect();
            self.append_entries(
                1,
                names::TIME_INDEX,
                &bytes,
                self.times_written * TIME_ENTRY,
            )?;
            self.times_written = times;
        }
        Ok(())
    }

    fn append_entries(
        &mut self,
        which: usize,
        suffix: &str,
        bytes: &[u8],
        position: usize,
    ) -> Result<(), DiskError> {
        let file = self.index_file(which, suffix)?;
        let written = write_bytes_at(&*file, bytes, position as u64);
        self.state.written("write", &self.path(suffix), written)
    }

    /// Adds the last time entry, writes the index files, and gives the segment as it will be read
    /// from now on. If the index files cannot be written the entries stay in memory, and the files
    /// go, so that the next start rebuilds them.
    pub(crate) fn seal(&mut self) -> Arc<Segment> {
        self.push_latest_time();
        if self.end.position == 0 {
            return Arc::clone(&self.segment);
        }
        let written = self
            .ensure_index_files()
            .and_then(|()| self.write_indexes());
        if written.is_err() {
            let _ = self.state.remove_file(&self.path(names::OFFSET_INDEX));
            let _ = self.state.remove_file(&self.path(names::TIME_INDEX));
            return Arc::clone(&self.segment);
        }
        let files = IndexFiles::new(
            Arc::clone(&self.state.files),
            self.dir.clone(),
            self.base_offset(),
        );
        let (file, indexes) = (Arc::clone(&self.segment.file), Indexes::in_files(files));
        Arc::new(Segment::new(self.base_offset(), file, indexes, self.end))
    }

    /// A sealed segment has both files, however short: a missing one means "rebuild".
    fn ensure_index_files(&mut self) -> Result<(), DiskError> {
        self.index_file(0, names::OFFSET_INDEX)?;
        self.index_file(1, names::TIME_INDEX).map(|_| ())
    }

    /// Writes the indexes out and makes them and the batches durable, at a clean end.
    pub(crate) fn sync_all(&mut self) -> Result<(), DiskError> {
        self.push_latest_time();
        self.ensure_index_files()?;
        self.write_indexes()?;
        let log = self.path(names::LOG);
        self.state.synced("sync", &log, self.segment.file.sync())?;
        for (which, suffix) in [(0, names::OFFSET_INDEX), (1, names::TIME_INDEX)] {
            if let Some(file) = &self.index_files[which] {
                self.state.synced("sync", &self.path(suffix), file.sync())?;
            }
        }
        Ok(())
    }
}
