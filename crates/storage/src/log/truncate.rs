//! Cutting the new end of the log off: a follower that diverged, or one that must start elsewhere.
//!
//! # Invariants
//! * What was cut is gone from the disk before the call returns, and the generation has risen, so
//!   that no flush begun before counts.
//! * A crash in the middle leaves a longer or a shorter prefix, never a hole (S-9): segments go
//!   from the newest on.
//! * Recovery must not take bytes written after a truncation for the durable ones that were there
//!   before: the recovery floor says so until a later checkpoint does.

use std::sync::Arc;

use bytes::BufMut;

use ottla_types::Offset;

use super::Log;
use crate::active::{ActiveSegment, FoundSegment};
use crate::error::{DiskError, LogError};
use crate::index::KnownEntries;
use crate::names;
use crate::scan::ScanError;
use crate::segment::Segment;

/// Magic of the recovery floor: "OTRF".
const FLOOR_MAGIC: u32 = 0x4f54_5246;
/// Version of the recovery floor.
const FLOOR_VERSION: u16 = 1;

/// The bytes of the recovery floor.
pub(super) fn encode_floor(offset: Offset) -> Vec<u8> {
    let body = offset.get().to_be_bytes();
    let mut out = Vec::with_capacity(18);
    out.put_u32(FLOOR_MAGIC);
    out.put_u16(FLOOR_VERSION);
    out.put_u32(crc32c::crc32c(&body));
    out.put_slice(&body);
    out
}

/// Reads the recovery floor; one that cannot be read says that nothing is known to be durable.
pub(super) fn decode_floor(bytes: &[u8]) -> Offset {
    let read = || {
        let (head, body) = bytes.split_first_chunk::<10>()?;
        let body: &[u8; 8] = body.try_into().ok()?;
        let expected = encode_floor(Offset::new(i64::from_be_bytes(*body))?);
        (expected.get(..10)? == head).then(|| Offset::saturating(i64::from_be_bytes(*body)))
    };
    read().unwrap_or(Offset::ZERO)
}

impl Log {
    /// Cuts off every batch that holds `offset` or anything later. The cut is durable when this
    /// returns.
    ///
    /// # Errors
    /// After [`DiskError::NoSpace`] nothing was cut; after another error the directory is failed.
    pub fn truncate_to(&mut self, offset: Offset) -> Result<(), LogError> {
        self.refuse_if_unusable()?;
        if offset >= self.log_end_offset() {
            // An epoch led without a record leaves an entry at the end: batches of an older epoch,
            // which the next leader may still have, would look like a step back.
            if self.epochs.truncate_from_end(self.log_end_offset()) {
                self.epochs_version += 1;
            }
            return Ok(());
        }
        if offset < self.first_base_offset() {
            return self.truncate_fully_and_start_at(offset);
        }
        let at = self
            .sealed
            .partition_point(|segment| segment.base_offset <= offset);
        // The active segment stands after the sealed ones.
        let at = if self.active.base_offset() <= offset {
            self.sealed.len()
        } else {
            at - 1
        };
        let segment = Arc::clone(self.sealed.get(at).unwrap_or(&self.active.segment));
        let found = self.scanned(segment.find(offset), offset)?;
        let position = found.map_or(segment.size_bytes(), |found| found.position);
        // The whole batch goes that holds the offset.
        let asked = offset;
        let offset = found.map_or(offset, |found| found.header.first_offset().min(offset));
        if offset < self.log_start_offset {
            // Nothing readable is left. The log start stays, if the caller did not ask for less.
            return self.truncate_fully_and_start_at(asked.min(self.log_start_offset));
        }
        self.write_floor(offset)?;
        let cut = self.reopen_cut(at, &segment, position, offset)?;
        let later: Vec<Arc<Segment>> = self.sealed.drain(at..).skip(1).collect();
        let old_active = std::mem::replace(&mut self.active, cut);
        self.enter_new_generation();
        self.publish_segments();
        if old_active.base_offset() != segment.base_offset {
            self.remove_segment(old_active.base_offset())?;
        }
        for segment in later.iter().rev() {
            self.remove_segment(segment.base_offset)?;
        }
        let path = self
            .dir
            .join(names::segment_file(segment.base_offset, names::LOG));
        self.state
            .written("truncate", &path, segment.file.set_size(position))?;
        self.state.synced("sync", &path, segment.file.sync())?;
        self.active.cut_index_files()?;
        self.forget_from(self.log_end_offset())?;
        self.rebuild_producers()
    }

    /// Drops everything and begins at `offset`: a follower whose log ended before its leader's
    /// begins.
    ///
    /// # Errors
    /// After [`DiskError::NoSpace`] the log may be empty and refuse everything but this call.
    pub fn truncate_fully_and_start_at(&mut self, offset: Offset) -> Result<(), LogError> {
        self.state.refuse_if_failed()?;
        self.write_floor(offset.min(self.log_start_offset))?;
        self.detached = true;
        self.enter_new_generation();
        self.remove_segment(self.active.base_offset())?;
        for segment in std::mem::take(&mut self.sealed).iter().rev() {
            self.remove_segment(segment.base_offset)?;
        }
        let created = self.active.created();
        self.active = ActiveSegment::create(&self.state, &self.dir, offset, created)?;
        self.detached = false;
        self.log_start_offset = offset;
        self.flushed_offset = offset;
        self.mark.set(offset);
        self.publish_segments();
        self.publish_log_start_offset();
        self.producers = crate::producers::Producers::default();
        self.forget_from(Offset::ZERO)
    }

    /// The segment as the active one, ending at `position`.
    fn reopen_cut(
        &self,
        at: usize,
        segment: &Arc<Segment>,
        position: u64,
        offset: Offset,
    ) -> Result<ActiveSegment, LogError> {
        let known = if at == self.sealed.len() {
            self.active.known_entries()
        } else {
            KnownEntries::read(&*self.state.files, &self.dir, segment.base_offset)
        };
        let reopened = ActiveSegment::reopen(
            &self.state,
            &self.dir,
            FoundSegment {
                base_offset: segment.base_offset,
                file: &segment.file,
                size: position,
            },
            &known,
            self.config.index_interval_bytes,
            self.active.created(),
        );
        self.scanned(reopened, offset)
    }

    /// From now on nothing that was begun before counts.
    pub(super) fn enter_new_generation(&mut self) {
        self.generation += 1;
        self.derived.enter_generation(self.generation);
        for dropped in self.pending_snapshots.drain(..) {
            self.snapshots.remove(&dropped.offset);
        }
    }

    pub(super) fn remove_segment(&self, base_offset: Offset) -> Result<(), DiskError> {
        for suffix in [
            names::LOG,
            names::OFFSET_INDEX,
            names::TIME_INDEX,
            names::TXN_INDEX,
        ] {
            self.state
                .remove_file(&self.dir.join(names::segment_file(base_offset, suffix)))?;
        }
        Ok(())
    }

    /// Forgets epochs and snapshots that speak of offsets from `end` on, on disk too.
    fn forget_from(&mut self, end: Offset) -> Result<(), LogError> {
        self.flushed_offset = self.flushed_offset.min(self.log_end_offset());
        self.mark.set(self.flushed_offset);
        self.unsynced.retain(|segment| segment.end().offset <= end);
        self.unsynced
            .retain(|kept| self.sealed.iter().any(|s| Arc::ptr_eq(s, kept)));
        for offset in self.snapshots.iter().rev().copied().collect::<Vec<_>>() {
            if offset > end || end == Offset::ZERO {
                self.snapshots.remove(&offset);
                self.derived.remove_snapshot(offset)?;
            }
        }
        self.epochs.truncate_from_end(end);
        self.epochs_version += 1;
        match self.derived.write_epochs(&self.pending_epochs()) {
            // Recovery compares the list with the batches; a later flush writes it.
            Err(error) if !error.is_transient() => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        self.state.sync_dir(&self.dir)?;
        self.dir_changes += 1;
        self.dir_synced = self.dir_changes;
        Ok(())
    }

    /// Says on disk that from `offset` on nothing is known to be durable, if a checkpoint may say
    /// otherwise.
    pub(super) fn write_floor(&mut self, offset: Offset) -> Result<(), LogError> {
        if self.flushed_offset <= offset {
            // No checkpoint says more than what was flushed. This is the way out of a full disk.
            return Ok(());
        }
        // Checkpoints that begin from here on see the lower mark.
        self.mark.set(self.flushed_offset.min(offset));
        let path = self.dir.join(names::RECOVERY_FLOOR);
        let lower = if self.floor.is_some() {
            let known = crate::files::read_small_file(&*self.state.files, &path, 64);
            let known = self.state.read("read", &path, known)?;
            known.map_or(offset, |bytes| decode_floor(&bytes).min(offset))
        } else {
            offset
        };
        let serial = self.state.checkpoints_begun();
        self.state.replace_file(&path, &encode_floor(lower))?;
        self.state.sync_dir(&self.dir)?;
        self.floor = Some(serial);
        Ok(())
    }

    /// What a walk of a segment found, as this log's error.
    pub(super) fn scanned<T>(
        &self,
        answer: Result<T, ScanError>,
        offset: Offset,
    ) -> Result<T, LogError> {
        answer.map_err(|error| match error {
            ScanError::Io(error) => match self.state.read::<T>("read", &self.dir, Err(error)) {
                Err(error) => error.into(),
                Ok(_) => LogError::Corrupt { offset },
            },
            ScanError::Bad { position, error } => {
                tracing::error!(dir = %self.dir.display(), position, %error, "log is damaged");
                LogError::Corrupt { offset }
            }
        })
    }
}
