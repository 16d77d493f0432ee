//! Walking a segment file batch by batch.
//!
//! [`HeadScan`] reads the heads only; [`check_body`] adds the CRC of one batch, in pieces, so that
//! a length that lies costs time but no memory.

use std::io;

use ottla_records::{BatchError, BatchHeader};

use crate::files::{File, read_full_at};

/// Bytes read at a time where a few batches are looked for.
pub(crate) const LOOKUP_CHUNK: usize = 8 * 1024;
/// Bytes read at a time where a whole segment is walked.
pub(crate) const SCAN_CHUNK: usize = 256 * 1024;

/// Where the bytes begin that a batch's CRC covers.
const CRC_FROM: u64 = 21;

/// Why a walk ended early.
#[derive(Debug)]
pub(crate) enum ScanError {
    /// The file cannot be read.
    Io(io::Error),
    /// What stands at `position` is not a batch.
    Bad { position: u64, error: BatchError },
}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> ScanError {
        ScanError::Io(error)
    }
}

/// A batch found by a walk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
}

impl Found {
    /// Where the next batch begins.
    pub(crate) fn end(&self) -> u64 {
        self.position + self.header.size_bytes() as u64
    }
}

/// Walks the heads of the batches between two positions of a file.
#[derive(Debug)]
pub(crate) struct HeadScan<'a> {
    file: &'a dyn File,
    position: u64,
    end: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
    filled: usize,
}

impl<'a> HeadScan<'a> {
    pub(crate) fn new(file: &'a dyn File, position: u64, end: u64, chunk: usize) -> HeadScan<'a> {
        let room = usize::try_from(end.saturating_sub(position))
            .unwrap_or(chunk)
            .min(chunk);
        let buffer = vec![0; room.max(ottla_records::BATCH_OVERHEAD)];
        HeadScan {
            file,
            position,
            end,
            buffer,
            buffer_at: 0,
            filled: 0,
        }
    }

    /// The bytes of a head at the current position, fewer at the end of the range.
    fn head(&mut self) -> io::Result<&[u8]> {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let wanted = left.min(ottla_records::BATCH_OVERHEAD);
        let buffered = self.position.checked_sub(self.buffer_at).and_then(|skip| {
            let skip = usize::try_from(skip).ok()?;
            (skip + wanted <= self.filled).then_some(skip)
        });
        let skip = if let Some(skip) = buffered {
            skip
        } else {
            let room = self.buffer.len().min(left);
            self.filled = read_full_at(self.file, &mut self.buffer[..room], self.position)?;
            self.buffer_at = self.position;
            0
        };
        Ok(&self.buffer[skip..self.filled.min(skip + wanted)])
    }

    /// The next batch, or the end of the range.
    pub(crate) fn next(&mut self) -> Result<Option<Found>, ScanError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let (position, end) = (self.position, self.end);
        let bad = |error| ScanError::Bad { position, error };
        let header = BatchHeader::parse(self.head()?).map_err(bad)?;
        let found = Found { position, header };
        if found.end() > end {
            let have = usize::try_from(end - position).unwrap_or(usize::MAX);
            return Err(bad(BatchError::Short {
                needed: header.size_bytes(),
                have,
            }));
        }
        self.position = found.end();
        Ok(Some(found))
    }
}

/// Whether the bytes of the batch have its CRC; `buffer` is working space.
pub(crate) fn check_body(file: &dyn File, found: &Found, buffer: &mut Vec<u8>) -> io::Result<bool> {
    buffer.resize(SCAN_CHUNK, 0);
    let (mut position, end) = (found.position + CRC_FROM, found.end());
    let mut crc = 0;
    while position < end {
        let room = usize::try_from(end - position)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = read_full_at(file, &mut buffer[..room], position)?;
        if read == 0 {
            return Ok(false);
        }
        crc = crc32c::crc32c_append(crc, &buffer[..read]);
        position += read as u64;
    }
    Ok(crc == found.header.crc)
}

/// The bytes of one batch, if it is not larger than `bytes_max`.
pub(crate) fn read_batch(
    file: &dyn File,
    found: &Found,
    bytes_max: usize,
) -> io::Result<Option<Vec<u8>>> {
    let size = found.header.size_bytes();
    if size > bytes_max {
        return Ok(None);
    }
    let mut bytes = vec![0; size];
    let read = read_full_at(file, &mut bytes, found.position)?;
    Ok((read == size).then_some(bytes))
}
