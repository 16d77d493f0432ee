//! The sparse indexes of a segment: from offset to position, from timestamp to offset.
//!
//! An index is a hint and nothing more (S-3): whoever follows an entry checks that the batch there
//! is the one the entry speaks of, and walks from the start of the segment if it is not. The
//! active segment's indexes live in memory and are written behind; a sealed segment's are read
//! from their files, entry by entry, so that a thousand segments cost no memory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use ottla_types::Offset;

use crate::files::{Access, File, Files, read_full_at, read_small_file};
use crate::memory_index::MemoryIndex;
use crate::names;
use crate::scan::{HeadScan, LOOKUP_CHUNK, ScanError};

/// Size of an entry of `.index`.
pub(crate) const OFFSET_ENTRY: usize = 8;
/// Size of an entry of `.timeindex`.
pub(crate) const TIME_ENTRY: usize = 12;

/// Largest index file that is read whole: one entry for every batch of the smallest size.
const INDEX_BYTES_MAX: usize = 512 << 20;

/// The batch that ends with offset base + `relative` begins at `position`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    pub(crate) relative: u32,
    pub(crate) position: u32,
}

/// Up to the batch that ends with offset base + `relative`, no timestamp is above `timestamp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    pub(crate) timestamp: i64,
    pub(crate) relative: u32,
}

impl OffsetEntry {
    pub(crate) fn encode(self) -> [u8; OFFSET_ENTRY] {
        ((u64::from(self.relative) << 32) | u64::from(self.position)).to_be_bytes()
    }

    pub(crate) fn decode(bytes: [u8; OFFSET_ENTRY]) -> OffsetEntry {
        OffsetEntry::from_word(u64::from_be_bytes(bytes))
    }

    fn word(self) -> u64 {
        u64::from_be_bytes(self.encode())
    }

    fn from_word(word: u64) -> OffsetEntry {
        let [a, b, c, d, e, f, g, h] = word.to_be_bytes();
        OffsetEntry {
            relative: u32::from_be_bytes([a, b, c, d]),
            position: u32::from_be_bytes([e, f, g, h]),
        }
    }
}

impl TimeEntry {
    pub(crate) fn encode(self) -> [u8; TIME_ENTRY] {
        let mut bytes = [0; TIME_ENTRY];
        bytes[..8].copy_from_slice(&self.timestamp.to_be_bytes());
        bytes[8..].copy_from_slice(&self.relative.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: [u8; TIME_ENTRY]) -> TimeEntry {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        TimeEntry {
            timestamp: i64::from_be_bytes([a, b, c, d, e, f, g, h]),
            relative: u32::from_be_bytes([i, j, k, l]),
        }
    }
}

/// The indexes of the active segment.
#[derive(Debug)]
pub(crate) struct MemoryIndexes {
    offsets: MemoryIndex<1>,
    times: MemoryIndex<2>,
}

impl MemoryIndexes {
    pub(crate) fn new() -> MemoryIndexes {
        MemoryIndexes {
            offsets: MemoryIndex::new(),
            times: MemoryIndex::new(),
        }
    }

    pub(crate) fn push_offset(&self, entry: OffsetEntry) -> bool {
        self.offsets.push([entry.word()])
    }

    pub(crate) fn push_time(&self, entry: TimeEntry) -> bool {
        self.times
            .push([entry.timestamp.cast_unsigned(), u64::from(entry.relative)])
    }

    pub(crate) fn offset_count(&self) -> usize {
        self.offsets.len()
    }

    pub(crate) fn time_count(&self) -> usize {
        self.times.len()
    }

    pub(crate) fn offset(&self, index: usize) -> Option<OffsetEntry> {
        self.offsets
            .get(index)
            .map(|[word]| OffsetEntry::from_word(word))
    }

    pub(crate) fn time(&self, index: usize) -> Option<TimeEntry> {
        self.times
            .get(index)
            .map(|[timestamp, relative]| TimeEntry {
                timestamp: timestamp.cast_signed(),
                relative: u32::try_from(relative).unwrap_or(u32::MAX),
            })
    }
}

/// The index files of a sealed segment, opened when first asked.
#[derive(Debug)]
pub(crate) struct IndexFiles {
    files: Arc<dyn Files>,
    dir: PathBuf,
    base_offset: Offset,
    offsets: OnceLock<Option<OpenIndex>>,
    times: OnceLock<Option<OpenIndex>>,
}

#[derive(Debug)]
struct OpenIndex {
    file: Arc<dyn File>,
    count: usize,
}

impl OpenIndex {
    fn entry<const SIZE: usize>(&self, index: usize) -> io::Result<Option<[u8; SIZE]>> {
        if index >= self.count {
            return Ok(None);
        }
        let mut bytes = [0; SIZE];
        let read = read_full_at(&*self.file, &mut bytes, (index * SIZE) as u64)?;
        Ok((read == SIZE).then_some(bytes))
    }
}

impl IndexFiles {
    pub(crate) fn new(files: Arc<dyn Files>, dir: PathBuf, base_offset: Offset) -> IndexFiles {
        let (offsets, times) = (OnceLock::new(), OnceLock::new());
        IndexFiles {
            files,
            dir,
            base_offset,
            offsets,
            times,
        }
    }

    fn open(&self, suffix: &str, entry: usize) -> Option<OpenIndex> {
        let path = self.dir.join(names::segment_file(self.base_offset, suffix));
        // A missing index is an empty hint.
        let file = self.files.open(&path, Access::Read).ok()?;
        let count = usize::try_from(file.size().ok()?).ok()? / entry;
        Some(OpenIndex { file, count })
    }

    fn offsets(&self) -> Option<&OpenIndex> {
        self.offsets
            .get_or_init(|| self.open(names::OFFSET_INDEX, OFFSET_ENTRY))
            .as_ref()
    }

    fn times(&self) -> Option<&OpenIndex> {
        self.times
            .get_or_init(|| self.open(names::TIME_INDEX, TIME_ENTRY))
            .as_ref()
    }
}

/// Index entries found in files, as far as they rise as they must.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KnownEntries {
    pub(crate) offsets: Vec<OffsetEntry>,
    pub(crate) times: Vec<TimeEntry>,
}

impl KnownEntries {
    /// Reads both index files of a segment; what is missing or does not rise is left out. (Kafka
    /// fills the files of an active segment with zeros.)
    pub(crate) fn read(files: &dyn Files, dir: &Path, base_offset: Offset) -> KnownEntries {
        let read = |suffix| {
            let path = dir.join(names::segment_file(base_offset, suffix));
            read_small_file(files, &path, INDEX_BYTES_MAX)
                .ok()
                .flatten()
                .unwrap_or_default()
        };
        let mut known = KnownEntries::default();
        for bytes in read(names::OFFSET_INDEX).as_chunks::<OFFSET_ENTRY>().0 {
            let entry = OffsetEntry::decode(*bytes);
            let rises = known.offsets.last().is_none_or(|last| {
                entry.relative > last.relative && entry.position > last.position
            });
            if !rises {
                break;
            }
            known.offsets.push(entry);
        }
        for bytes in read(names::TIME_INDEX).as_chunks::<TIME_ENTRY>().0 {
            let entry = TimeEntry::decode(*bytes);
            let rises = known.times.last().is_none_or(|last| {
                entry.timestamp > last.timestamp && entry.relative > last.relative
            });
            if !rises {
                break;
            }
            known.times.push(entry);
        }
        known
    }

    /// The entries of batches that begin below `size`, if the last of them fits the file: else
    /// none, and the segment is walked from its start.
    pub(crate) fn checked_below(
        &self,
        file: &dyn File,
        base_offset: Offset,
        size: u64,
    ) -> Result<KnownEntries, ScanError> {
        let below = self
            .offsets
            .partition_point(|entry| u64::from(entry.position) < size);
        let Some(last) = below.checked_sub(1).map(|at| self.offsets[at]) else {
            return Ok(KnownEntries::default());
        };
        let position = u64::from(last.position);
        let found = match HeadScan::new(file, position, size, LOOKUP_CHUNK).next() {
            Ok(found) => found,
            Err(ScanError::Bad { .. }) => None,
            Err(error @ ScanError::Io(_)) => return Err(error),
        };
        let last_offset = base_offset.plus(i64::from(last.relative));
        if found.is_none_or(|found| found.header.last_offset() != last_offset) {
            return Ok(KnownEntries::default());
        }
        let times = self
            .times
            .iter()
            .take_while(|entry| entry.relative <= last.relative);
        Ok(KnownEntries {
            offsets: self.offsets[..below].to_vec(),
            times: times.copied().collect(),
        })
    }
}

/// The indexes of one segment, wherever they are.
#[derive(Debug)]
pub(crate) struct Indexes {
    source: Source,
    /// An entry was found to lie: the index is not asked again.
    distrusted: AtomicBool,
}

#[derive(Debug)]
enum Source {
    Memory(Arc<MemoryIndexes>),
    Files(IndexFiles),
}

impl Indexes {
    pub(crate) fn in_memory(indexes: Arc<MemoryIndexes>) -> Indexes {
        Indexes {
            source: Source::Memory(indexes),
            distrusted: AtomicBool::new(false),
        }
    }

    pub(crate) fn in_files(files: IndexFiles) -> Indexes {
        Indexes {
            source: Source::Files(files),
            distrusted: AtomicBool::new(false),
        }
    }

    /// Stops using the index.
    pub(crate) fn distrust(&self) {
        if !self.distrusted.swap(true, Ordering::Relaxed) {
            tracing::warn!("an index does not fit its segment and is not used");
        }
    }

    pub(crate) fn is_distrusted(&self) -> bool {
        self.distrusted.load(Ordering::Relaxed)
    }

    fn offset_count(&self) -> usize {
        match &self.source {
            _ if self.is_distrusted() => 0,
            Source::Memory(indexes) => indexes.offset_count(),
            Source::Files(files) => files.offsets().map_or(0, |index| index.count),
        }
    }

    fn offset_entry(&self, index: usize) -> io::Result<Option<OffsetEntry>> {
        match &self.source {
            Source::Memory(indexes) => Ok(indexes.offset(index)),
            Source::Files(files) => match files.offsets() {
                Some(open) => Ok(open.entry(index)?.map(OffsetEntry::decode)),
                None => Ok(None),
            },
        }
    }

    fn time_count(&self) -> usize {
        match &self.source {
            _ if self.is_distrusted() => 0,
            Source::Memory(indexes) => indexes.time_count(),
            Source::Files(files) => files.times().map_or(0, |index| index.count),
        }
    }

    fn time_entry(&self, index: usize) -> io::Result<Option<TimeEntry>> {
        match &self.source {
            Source::Memory(indexes) => Ok(indexes.time(index)),
            Source::Files(files) => match files.times() {
                Some(open) => Ok(open.entry(index)?.map(TimeEntry::decode)),
                None => Ok(None),
            },
        }
    }

    /// The last entry for which `holds`, which must hold for a head of the list.
    pub(crate) fn last_offset_where(
        &self,
        holds: impl Fn(OffsetEntry) -> bool,
    ) -> io::Result<Option<OffsetEntry>> {
        last_where(self.offset_count(), |index| self.offset_entry(index), holds)
    }

    /// The last entry for which `holds`, which must hold for a head of the list.
    pub(crate) fn last_time_where(
        &self,
        holds: impl Fn(TimeEntry) -> bool,
    ) -> io::Result<Option<TimeEntry>> {
        last_where(self.time_count(), |index| self.time_entry(index), holds)
    }
}

fn last_where<E: Copy>(
    count: usize,
    get: impl Fn(usize) -> io::Result<Option<E>>,
    holds: impl Fn(E) -> bool,
) -> io::Result<Option<E>> {
    let (mut low, mut high, mut found) = (0, count, None);
    while low < high {
        let middle = low + (high - low) / 2;
        match get(middle)? {
            Some(entry) if holds(entry) => {
                found = Some(entry);
                low = middle + 1;
            }
            Some(_) | None => high = middle,
        }
    }
    Ok(found)
}
