//! Appending: as the leader, who gives the batches their place, or as a follower, who takes the
//! leader's bytes as they are.
//!
//! # Invariants
//! * A call's batches are all in the log or none is; what was written for nothing is cut off (S-7).
//! * The bytes given back are those in the file: what goes to the followers is what was appended.

use bytes::{Bytes, BytesMut};

use ottla_records::{
    BatchError, BatchHeader, EndTransaction, TimestampType, batches, check_crc, end_transaction,
    stamp, stamp_log_append_time,
};
use ottla_types::{LeaderEpoch, Offset, WallClockMs};

use super::Log;
use crate::active::ActiveSegment;
use crate::error::{AppendError, DiskError, LogError};

/// Batches that are in the log now.
#[derive(Clone, Debug)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Offset of the last record.
    pub last_offset: Offset,
    /// The time of the append, if that is the topic's clock.
    pub log_append_time: Option<WallClockMs>,
    /// The bytes as they stand in the file.
    pub bytes: Bytes,
}

/// One batch about to be written.
struct Placed {
    header: BatchHeader,
    bytes: Bytes,
    marker: Option<EndTransaction>,
}

impl Log {
    /// Appends one validated batch as the leader of `leader_epoch`.
    ///
    /// # Errors
    /// Nothing was appended.
    pub fn append_as_leader(
        &mut self,
        batch: BytesMut,
        leader_epoch: LeaderEpoch,
        now: WallClockMs,
    ) -> Result<Appended, AppendError> {
        let mut appended = self.append_many_as_leader(vec![batch], leader_epoch, now)?;
        // One batch went in, so one comes out.
        appended
            .pop()
            .ok_or(AppendError::Corrupt(BatchError::Length(0)))
    }

    /// Appends validated batches as the leader of `leader_epoch`, with one write where they fit
    /// one segment.
    ///
    /// # Errors
    /// None of them was appended.
    pub fn append_many_as_leader(
        &mut self,
        batches: Vec<BytesMut>,
        leader_epoch: LeaderEpoch,
        now: WallClockMs,
    ) -> Result<Vec<Appended>, AppendError> {
        self.refuse_if_unusable()?;
        let latest = self.epochs.latest();
        if let Some(latest) = latest.filter(|latest| leader_epoch < *latest) {
            return Err(AppendError::EpochRegressed {
                latest,
                found: leader_epoch,
            });
        }
        let own_clock = self.config.timestamp_type == TimestampType::LogAppendTime;
        let mut placed = Vec::with_capacity(batches.len());
        let mut next = self.log_end_offset();
        for mut batch in batches {
            stamp(&mut batch, next, leader_epoch);
            if own_clock {
                stamp_log_append_time(&mut batch, now);
            }
            let header = BatchHeader::parse(&batch).map_err(|error| match error {
                BatchError::Offsets {
                    last_offset_delta, ..
                } if last_offset_delta >= 0 => AppendError::OffsetsExhausted,
                error => AppendError::Corrupt(error),
            })?;
            let size_bytes = header.size_bytes();
            if size_bytes != batch.len() {
                let error = BatchError::Short {
                    needed: size_bytes,
                    have: batch.len(),
                };
                return Err(AppendError::Corrupt(error));
            }
            let segment_bytes = self.config.segment_bytes_max();
            if size_bytes as u64 > segment_bytes {
                return Err(AppendError::BatchTooLarge {
                    size_bytes,
                    segment_bytes,
                });
            }
            next = header.next_offset();
            placed.push(place(header, batch.freeze())?);
        }
        self.append_placed(&placed, now)?;
        Ok(placed
            .into_iter()
            .map(|placed| Appended {
                base_offset: placed.header.first_offset(),
                last_offset: placed.header.last_offset(),
                log_append_time: own_clock.then_some(now),
                bytes: placed.bytes,
            })
            .collect())
    }

    /// Appends whole batches that the leader sent, byte for byte.
    ///
    /// # Errors
    /// None of them was appended.
    pub fn append_as_follower(
        &mut self,
        bytes: Bytes,
        now: WallClockMs,
    ) -> Result<Appended, AppendError> {
        self.refuse_if_unusable()?;
        let mut placed = Vec::new();
        let mut expected = self.log_end_offset();
        let mut latest = self.epochs.latest();
        for batch in batches(&bytes) {
            let (header, batch) = batch.map_err(AppendError::Corrupt)?;
            if !check_crc(batch) {
                return Err(AppendError::Corrupt(BatchError::Crc));
            }
            if !ActiveSegment::fits_any(batch.len()) {
                return Err(AppendError::Corrupt(BatchError::Length(
                    header.batch_length,
                )));
            }
            let found = header.first_offset();
            if found != expected && !(placed.is_empty() && self.begins_with(&header)) {
                return Err(AppendError::OutOfOrder { expected, found });
            }
            if let (Some(latest), Some(found)) = (latest, header.leader_epoch())
                && found < latest
            {
                return Err(AppendError::EpochRegressed { latest, found });
            }
            latest = header.leader_epoch().or(latest);
            expected = header.next_offset();
            placed.push(place(header, bytes.slice_ref(batch))?);
        }
        let (Some(first), Some(last)) = (placed.first(), placed.last()) else {
            return Err(AppendError::Corrupt(BatchError::Short {
                needed: 1,
                have: 0,
            }));
        };
        let (base_offset, last_offset) = (first.header.first_offset(), last.header.last_offset());
        if base_offset < self.log_end_offset() {
            self.append_below(base_offset, &placed, now)?;
        } else {
            self.append_placed(&placed, now)?;
        }
        Ok(Appended {
            base_offset,
            last_offset,
            log_append_time: None,
            bytes,
        })
    }

    /// Whether the log has no batch and its start lies inside this one: DeleteRecords may have
    /// moved the leader's log start there.
    fn begins_with(&self, header: &BatchHeader) -> bool {
        let start = self.log_start_offset;
        self.sealed.is_empty()
            && self.active.end().position == 0
            && start == self.log_end_offset()
            && header.first_offset() < start
            && header.last_offset() >= start
    }

    /// Appends to a new first segment that begins below the log start, which stays. The empty
    /// segment goes once the batches are in: if they do not fit, the log is what it was.
    fn append_below(
        &mut self,
        base_offset: Offset,
        placed: &[Placed],
        now: WallClockMs,
    ) -> Result<(), AppendError> {
        self.write_floor(base_offset).map_err(append_error)?;
        let below = ActiveSegment::create(&self.state, &self.dir, base_offset, now)?;
        self.dir_changes += 1;
        let empty = std::mem::replace(&mut self.active, below);
        // No flush that began before speaks of what is written now.
        self.enter_new_generation();
        let (start, flushed) = (self.log_start_offset, self.flushed_offset);
        self.flushed_offset = base_offset;
        let appended = self.append_placed(placed, now);
        self.log_start_offset = start;
        let unused = if appended.is_ok() {
            self.mark.set(base_offset);
            empty.base_offset()
        } else {
            self.flushed_offset = flushed;
            self.active = empty;
            self.detached = false;
            base_offset
        };
        self.publish_segments();
        self.publish_log_start_offset();
        self.remove_segment(unused)?;
        appended
    }

    /// Writes batches whose places are fixed, rolling where they need it.
    fn append_placed(&mut self, placed: &[Placed], now: WallClockMs) -> Result<(), AppendError> {
        let start = self.log_end_offset();
        let bytes: Vec<Bytes> = placed.iter().map(|placed| placed.bytes.clone()).collect();
        let (mut from, mut pending_bytes) = (0, 0);
        for (at, batch) in placed.iter().enumerate() {
            if self
                .active
                .must_roll(&self.config, &batch.header, pending_bytes, now)
            {
                let written = self
                    .write_run(&placed[from..at], &bytes[from..at])
                    .and_then(|()| self.roll(now));
                written.map_err(|error| self.undo(start, error))?;
                (from, pending_bytes) = (at, 0);
            }
            pending_bytes += batch.header.size_bytes() as u64;
        }
        let written = self.write_run(&placed[from..], &bytes[from..]);
        written.map_err(|error| self.undo(start, error))?;
        self.producers.bound(self.config.producer_ids_max);
        self.active.publish();
        Ok(())
    }

    /// Writes batches to the active segment and takes them in.
    fn write_run(&mut self, placed: &[Placed], bytes: &[Bytes]) -> Result<(), DiskError> {
        if placed.is_empty() {
            return Ok(());
        }
        self.active.write(bytes)?;
        for Placed { header, marker, .. } in placed {
            if let Some(epoch) = header.leader_epoch() {
                self.assign_epoch(epoch, header.first_offset());
            }
            self.producers.apply(header, *marker);
            self.unsnapshotted_bytes += header.size_bytes() as u64;
            self.active.note(header, self.config.index_interval_bytes);
        }
        Ok(())
    }

    /// Takes back the runs of a call that were written before one failed.
    fn undo(&mut self, start: Offset, error: DiskError) -> AppendError {
        if self.log_end_offset() > start
            && let Err(undone) = self.truncate_to(start)
        {
            return append_error(undone);
        }
        error.into()
    }

    /// Seals the active segment and starts a new one at the log's end.
    ///
    /// # Errors
    /// The new segment cannot be created; the log goes on with the old one.
    pub(super) fn roll(&mut self, now: WallClockMs) -> Result<(), DiskError> {
        if self.active.end().position == 0 {
            return Ok(());
        }
        let log_end_offset = self.log_end_offset();
        let next = ActiveSegment::create(&self.state, &self.dir, log_end_offset, now)?;
        self.dir_changes += 1;
        let sealed = self.active.seal();
        self.active = next;
        self.unsynced.push(std::sync::Arc::clone(&sealed));
        self.sealed.push(sealed);
        self.publish_segments();
        self.write_producer_snapshot();
        Ok(())
    }

    /// Rolls if the active segment is older than `segment.ms`; says whether it did.
    ///
    /// # Errors
    /// The new segment cannot be created; the log goes on with the old one.
    pub fn maybe_roll(&mut self, now: WallClockMs) -> Result<bool, LogError> {
        self.refuse_if_unusable()?;
        if !self.active.is_old(&self.config, now.0, now) {
            return Ok(false);
        }
        self.roll(now)?;
        Ok(true)
    }
}

fn place(header: BatchHeader, bytes: Bytes) -> Result<Placed, AppendError> {
    let marker = if header.attributes.is_control() {
        end_transaction(&bytes).map_err(AppendError::Corrupt)?
    } else {
        None
    };
    Ok(Placed {
        header,
        bytes,
        marker,
    })
}

fn append_error(error: LogError) -> AppendError {
    match error {
        LogError::Disk(error) => error.into(),
        other => {
            let source = std::io::Error::other(other.to_string());
            let path = std::path::PathBuf::new();
            AppendError::Io(DiskError::Io {
                operation: "append",
                path,
                source,
            })
        }
    }
}
