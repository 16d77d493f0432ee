//! The old end of the log: its start moves up, and segments that hold nothing more go.
//!
//! # Invariants
//! * The log start never falls, and never passes the log's end.
//! * Segments go from the oldest on, so that after a crash the rest has no hole (S-9).
//! * Never a segment that holds anything at or above the high watermark.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use ottla_types::{Offset, WallClockMs};

use super::Log;
use crate::dir_state::DirState;
use crate::error::{DiskError, LogError};
use crate::names;
use crate::segment::Segment;

/// A segment that left the log. Its files are renamed; they go with [`DeletedSegment::remove`],
/// which the owner calls after `file.delete.delay.ms`, on a thread that may block.
#[derive(Debug)]
pub struct DeletedSegment {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset after its last record.
    pub end_offset: Offset,
    /// Its size.
    pub size_bytes: u64,
    state: Arc<DirState>,
    dir: PathBuf,
}

/// The files of a segment, the batches first: without them the rest is litter that a start removes.
const SUFFIXES: [&str; 4] = [
    names::LOG,
    names::OFFSET_INDEX,
    names::TIME_INDEX,
    names::TXN_INDEX,
];

impl DeletedSegment {
    /// Removes the files for good.
    ///
    /// # Errors
    /// The directory cannot be changed; the next start removes them.
    pub fn remove(self) -> Result<(), DiskError> {
        for suffix in SUFFIXES {
            let name = names::segment_file(self.base_offset, suffix);
            let path = self.dir.join(format!("{name}{}", names::DELETED));
            match self.state.files.remove_file(&path) {
                Ok(()) => {}
                // The partition may have been deleted meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return self.state.written("remove", &path, Err(error)),
            }
        }
        Ok(())
    }
}

impl Log {
    /// Moves the log start up to `offset`, and drops segments wholly below it.
    ///
    /// # Errors
    /// The offset is beyond the log's end, or the directory cannot be changed.
    pub fn set_log_start_offset(
        &mut self,
        offset: Offset,
    ) -> Result<Vec<DeletedSegment>, LogError> {
        let log_end_offset = self.log_end_offset();
        if offset > log_end_offset {
            return Err(LogError::OffsetOutOfRange {
                offset,
                log_end_offset,
            });
        }
        if offset > self.log_start_offset {
            self.log_start_offset = offset;
            self.publish_log_start_offset();
            if self.epochs.truncate_from_start(offset) {
                self.epochs_version += 1;
            }
        }
        self.delete_below_start()
    }

    /// Deletes what `retention.ms`, `retention.bytes` and the log start say, up to
    /// `high_watermark`.
    ///
    /// # Errors
    /// The directory cannot be changed.
    pub fn apply_retention(
        &mut self,
        now: WallClockMs,
        high_watermark: Offset,
    ) -> Result<Vec<DeletedSegment>, LogError> {
        self.refuse_if_unusable()?;
        if !self.config.cleanup_delete {
            return self.delete_below_start();
        }
        let mut expired = 0;
        if let Some(retention_ms) = self.config.retention_ms {
            let limit = i64::try_from(retention_ms).unwrap_or(i64::MAX);
            while self.may_delete(expired, high_watermark)
                && now.0.saturating_sub(self.newest_timestamp(expired)?) > limit
            {
                expired += 1;
            }
        }
        if let Some(retention_bytes) = self.config.retention_bytes {
            let mut size = self.size_bytes() - self.sizes().take(expired).sum::<u64>();
            while self.may_delete(expired, high_watermark) {
                let oldest = self.sizes().nth(expired).unwrap_or(0);
                if size.saturating_sub(oldest) < retention_bytes {
                    break;
                }
                size -= oldest;
                expired += 1;
            }
        }
        if expired > self.sealed.len() {
            // The active segment goes too: a new one takes its place first.
            self.roll(now)?;
        }
        let Some(last) = expired.checked_sub(1).and_then(|at| self.sealed.get(at)) else {
            return self.delete_below_start();
        };
        let start = last.end().offset.max(self.log_start_offset);
        self.set_log_start_offset(start)
    }

    fn sizes(&self) -> impl Iterator<Item = u64> {
        let active = self.active.end().position;
        self.sealed
            .iter()
            .map(|segment| segment.size_bytes())
            .chain([active])
    }

    /// Whether the segment `at` this place may go: there, not empty, below the high watermark.
    fn may_delete(&self, at: usize, high_watermark: Offset) -> bool {
        let end = match self.sealed.get(at) {
            Some(segment) => segment.end(),
            None if at == self.sealed.len() => self.active.end(),
            None => return false,
        };
        end.position > 0 && end.offset <= high_watermark
    }

    /// The greatest timestamp of the segment at this place, or when its file was last written.
    fn newest_timestamp(&self, at: usize) -> Result<i64, LogError> {
        let segment = self.sealed.get(at).unwrap_or(&self.active.segment);
        let known = match self.sealed.get(at) {
            Some(segment) => {
                let last = segment.indexes.last_time_where(|_| true);
                self.state
                    .read("read", &self.dir, last)?
                    .map(|entry| entry.timestamp)
            }
            None => self.active.newest_timestamp(),
        };
        match known.filter(|timestamp| *timestamp >= 0) {
            Some(timestamp) => Ok(timestamp),
            None => Ok(self
                .state
                .read("stat", &self.dir, segment.file.modified_ms())?),
        }
    }

    /// Drops sealed segments wholly below the log start.
    fn delete_below_start(&mut self) -> Result<Vec<DeletedSegment>, LogError> {
        let start = self.log_start_offset;
        let below = self
            .sealed
            .partition_point(|segment| segment.end().offset <= start);
        if below == 0 {
            return Ok(Vec::new());
        }
        self.refuse_if_unusable()?;
        let gone: Vec<Arc<Segment>> = self.sealed.drain(..below).collect();
        self.unsynced.retain(|segment| segment.end().offset > start);
        self.publish_segments();
        let mut deleted = Vec::with_capacity(gone.len());
        for segment in gone {
            self.set_aside(&segment)?;
            deleted.push(DeletedSegment {
                base_offset: segment.base_offset,
                end_offset: segment.end().offset,
                size_bytes: segment.size_bytes(),
                state: Arc::clone(&self.state),
                dir: self.dir.clone(),
            });
        }
        self.dir_changes += 1;
        let first = self.first_base_offset();
        for offset in self.snapshots.range(..first).copied().collect::<Vec<_>>() {
            // The newest snapshot stays: it may be all that is known of silent producers.
            if self.snapshots.len() > 1 {
                self.snapshots.remove(&offset);
                self.derived.remove_snapshot(offset)?;
            }
        }
        Ok(deleted)
    }

    /// Renames a segment's files, so that readers go on and a start removes them.
    fn set_aside(&self, segment: &Segment) -> Result<(), DiskError> {
        for suffix in SUFFIXES {
            let name = names::segment_file(segment.base_offset, suffix);
            let (from, to) = (self.dir.join(&name), format!("{name}{}", names::DELETED));
            match self.state.files.rename(&from, &self.dir.join(to)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                answer => self.state.written("rename", &from, answer)?,
            }
        }
        Ok(())
    }
}
