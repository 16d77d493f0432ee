//! Reading a log while it is written, from any thread.
//!
//! # Invariants
//! * A read never waits for the writer nor the writer for a read: the list of segments is an
//!   immutable snapshot, replaced when a segment comes or goes, and how far the newest segment
//!   reaches is one atomic word.
//! * Only whole batches are served, and none whose bytes are not those that were written (P-28).
//! * After a truncation what was read under the old list is read again.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;

use ottla_records::{BatchError, batches, check_crc};
use ottla_types::Offset;

use crate::dir_state::DirState;
use crate::error::ReadError;
use crate::files::{File, read_full_at};
use crate::scan::{Found, ScanError};
use crate::segment::Segment;

mod timestamps;

/// How often a read begins anew because the log was truncated under it.
const ATTEMPTS: usize = 4;

/// The segments at one moment, oldest first; never empty.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Rises with every truncation.
    pub(crate) generation: u64,
    pub(crate) segments: Box<[Arc<Segment>]>,
}

impl Snapshot {
    fn log_end_offset(&self) -> Offset {
        self.segments
            .last()
            .map_or(Offset::ZERO, |segment| segment.end().offset)
    }

    /// Where in the list the segment stands that holds `offset`.
    fn index_of(&self, offset: Offset) -> usize {
        self.segments
            .partition_point(|segment| segment.base_offset <= offset)
            .saturating_sub(1)
    }
}

/// What a log shares with its readers.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) log_start_offset: AtomicI64,
    pub(crate) state: Arc<DirState>,
    pub(crate) dir: PathBuf,
}

/// A cheap handle for reading one log.
#[derive(Clone, Debug)]
pub struct LogReader {
    shared: Arc<Shared>,
}

/// Whole batches that lie side by side in one segment file; maybe none.
#[derive(Clone, Debug)]
pub struct LogSlice {
    file: Arc<dyn File>,
    /// Where in the file they begin.
    pub position: u64,
    /// Their size in bytes.
    pub len: usize,
    /// Offset of the first record.
    pub first_offset: Offset,
    /// Offset after the last record: where the next read begins.
    pub next_offset: Offset,
}

impl LogSlice {
    /// Whether there is nothing to read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The file's descriptor, for `sendfile`; `None` if there is no real file behind.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.file.descriptor()
    }

    /// Reads part of the slice, from `at` on; fewer bytes at its end.
    ///
    /// # Errors
    /// The file cannot be read, or has become shorter.
    pub fn read_at(&self, at: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len().min(self.len.saturating_sub(at));
        let read = read_full_at(&*self.file, &mut buffer[..room], self.position + at as u64)?;
        if read < room {
            Err(io::ErrorKind::UnexpectedEof.into())
        } else {
            Ok(read)
        }
    }

    /// Reads the whole slice. Nothing is checked: see [`LogReader::read`].
    ///
    /// # Errors
    /// The file cannot be read, or has become shorter.
    pub fn read(&self) -> io::Result<Bytes> {
        let mut bytes = vec![0; self.len];
        self.read_at(0, &mut bytes)?;
        Ok(Bytes::from(bytes))
    }
}

impl LogReader {
    pub(crate) fn new(shared: Arc<Shared>) -> LogReader {
        LogReader { shared }
    }

    /// First offset that can be read.
    #[must_use]
    pub fn log_start_offset(&self) -> Offset {
        Offset::saturating(self.shared.log_start_offset.load(Ordering::Acquire))
    }

    /// Offset that the next record will get.
    #[must_use]
    pub fn log_end_offset(&self) -> Offset {
        self.shared.snapshot.load().log_end_offset()
    }

    /// Size of all segments.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.shared
            .snapshot
            .load()
            .segments
            .iter()
            .map(|segment| segment.size_bytes())
            .sum()
    }

    /// Rises with every truncation of the log.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.snapshot.load().generation
    }

    /// Finds whole batches from the one that holds `offset` on (which may begin below it), ending
    /// at or before `upper` and within one segment: as many as `max_bytes` hold, and with
    /// `at_least_one` the first one even if it is larger.
    ///
    /// # Errors
    /// The offset is outside the log, or the log cannot be read there.
    pub fn locate(
        &self,
        offset: Offset,
        upper: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<LogSlice, ReadError> {
        self.attempt(offset, |snapshot| {
            self.locate_in(snapshot, offset, upper, max_bytes, at_least_one)
        })
    }

    /// Reads what [`LogReader::locate`] finds, checks every batch's CRC, and says where to go on.
    ///
    /// # Errors
    /// The offset is outside the log, or the log cannot be read or is damaged there.
    pub fn read(
        &self,
        offset: Offset,
        upper: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<(Bytes, Offset), ReadError> {
        self.attempt(offset, |snapshot| {
            let slice = self.locate_in(snapshot, offset, upper, max_bytes, at_least_one)?;
            let bytes = slice.read().map_err(ScanError::Io)?;
            verify(&bytes, slice.position)?;
            Ok((bytes, slice.next_offset))
        })
    }

    /// Reads and checks some of the log without keeping it, and says where to go on: called in
    /// turns, it covers every byte of the log (P-28).
    ///
    /// # Errors
    /// As [`LogReader::read`].
    pub fn scrub(&self, from: Offset, max_bytes: usize) -> Result<Offset, ReadError> {
        let from = from.max(self.log_start_offset());
        self.read(from, self.log_end_offset(), max_bytes, true)
            .map(|(_, next)| next)
    }

    /// Runs `read` on the current snapshot, again if a truncation came between.
    fn attempt<T>(
        &self,
        offset: Offset,
        read: impl Fn(&Snapshot) -> Result<T, Interrupted>,
    ) -> Result<T, ReadError> {
        for _ in 0..ATTEMPTS {
            let snapshot = self.shared.snapshot.load_full();
            let answer = read(&snapshot);
            if self.generation() != snapshot.generation {
                continue;
            }
            return answer.map_err(|interrupted| match interrupted {
                Interrupted::Done(error) => error,
                Interrupted::Scan(ScanError::Bad { position, error }) => {
                    let dir = self.shared.dir.display();
                    tracing::error!(%dir, %offset, position, %error, "log is damaged");
                    ReadError::Corrupt { offset }
                }
                Interrupted::Scan(ScanError::Io(error)) => {
                    self.shared.state.note_read_error(&self.shared.dir, &error);
                    ReadError::Io(error)
                }
            });
        }
        Err(ReadError::Truncated)
    }

    fn locate_in(
        &self,
        snapshot: &Snapshot,
        offset: Offset,
        upper: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<LogSlice, Interrupted> {
        let log_end_offset = snapshot.log_end_offset();
        let log_start_offset = self.log_start_offset();
        if offset < log_start_offset || offset > log_end_offset {
            let error = ReadError::OutOfRange {
                offset,
                log_start_offset,
                log_end_offset,
            };
            return Err(Interrupted::Done(error));
        }
        let upper = upper.min(log_end_offset);
        let mut last = None;
        for segment in snapshot.segments.iter().skip(snapshot.index_of(offset)) {
            last = Some(segment);
            if segment.base_offset >= upper {
                break;
            }
            let Some(first) = segment.find(offset)? else {
                continue;
            };
            if first.header.next_offset() > upper {
                break;
            }
            return slice(segment, first, upper, max_bytes, at_least_one);
        }
        // A snapshot is never without segments.
        let segment = last.or(snapshot.segments.last());
        let file = segment.map(|segment| Arc::clone(&segment.file));
        file.map(|file| empty(file, offset))
            .ok_or(Interrupted::Done(ReadError::Truncated))
    }
}

/// Why a read came to nothing under one snapshot.
enum Interrupted {
    Done(ReadError),
    Scan(ScanError),
}

impl From<ScanError> for Interrupted {
    fn from(error: ScanError) -> Interrupted {
        Interrupted::Scan(error)
    }
}

impl From<io::Error> for Interrupted {
    fn from(error: io::Error) -> Interrupted {
        Interrupted::Scan(ScanError::Io(error))
    }
}

fn empty(file: Arc<dyn File>, offset: Offset) -> LogSlice {
    LogSlice {
        file,
        position: 0,
        len: 0,
        first_offset: offset,
        next_offset: offset,
    }
}

fn slice(
    segment: &Arc<Segment>,
    first: Found,
    upper: Offset,
    max_bytes: usize,
    at_least_one: bool,
) -> Result<LogSlice, Interrupted> {
    let file = Arc::clone(&segment.file);
    let first_offset = first.header.first_offset();
    if first.header.size_bytes() > max_bytes && !at_least_one {
        return Ok(empty(file, first_offset));
    }
    let limit = first
        .position
        .saturating_add(max_bytes as u64)
        .max(first.end());
    let end = segment.end();
    let (end_position, next_offset) = if end.offset <= upper && end.position <= limit {
        (end.position, end.offset)
    } else {
        let last = segment.last_within(first, upper, limit)?;
        (last.end(), last.header.next_offset())
    };
    let len = usize::try_from(end_position - first.position).unwrap_or(usize::MAX);
    Ok(LogSlice {
        file,
        position: first.position,
        len,
        first_offset,
        next_offset,
    })
}

/// Checks that `bytes`, read at `position`, are batches as they were written.
fn verify(bytes: &[u8], mut position: u64) -> Result<(), ScanError> {
    for batch in batches(bytes) {
        let bad = |error| ScanError::Bad { position, error };
        let (_, batch) = batch.map_err(bad)?;
        if !check_crc(batch) {
            return Err(bad(BatchError::Crc));
        }
        position += batch.len() as u64;
    }
    Ok(())
}
