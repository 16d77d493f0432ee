//! Making what was appended durable, on another thread.
//!
//! The owner of the log begins a flush, a thread of the flush pool runs it, the owner is told. A
//! flush covers everything appended before it began, so one sync answers all that came during the
//! last one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ottla_types::Offset;

use super::Log;
use crate::derived::{DerivedFiles, PendingEpochs, PendingSnapshot};
use crate::dir_state::DirState;
use crate::error::{DiskError, LogError};
use crate::files::{Access, File};
use crate::names;
use crate::segment::Segment;

/// What must be synced for everything appended so far to be durable.
#[derive(Debug)]
pub struct FlushJob {
    state: Arc<DirState>,
    dir: PathBuf,
    generation: u64,
    up_to: Offset,
    sealed: Vec<Arc<Segment>>,
    active: Option<Arc<dyn File>>,
    dir_changes: u64,
    sync_dir: bool,
    derived: Arc<DerivedFiles>,
    epochs: Option<PendingEpochs>,
    snapshots: Vec<PendingSnapshot>,
}

/// What a flush achieved.
#[derive(Debug)]
pub struct FlushDone {
    generation: u64,
    up_to: Offset,
    dir_changes: u64,
    result: Result<(), DiskError>,
}

impl FlushDone {
    /// Everything below this is durable, if [`FlushDone::is_ok`] and within the generation.
    #[must_use]
    pub fn flushed_offset(&self) -> Offset {
        self.up_to
    }

    /// The generation of the log that was flushed.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether the flush succeeded.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.result.is_ok()
    }
}

impl FlushJob {
    /// Syncs: sealed segments first, then the names, then the active segment (S-8).
    #[must_use]
    pub fn run(self) -> FlushDone {
        let result = self.sync();
        let FlushJob {
            generation,
            up_to,
            dir_changes,
            ..
        } = self;
        FlushDone {
            generation,
            up_to,
            dir_changes,
            result,
        }
    }

    fn sync(&self) -> Result<(), DiskError> {
        // S-6: nothing is believed once a sync has failed.
        self.state.refuse_if_failed()?;
        for segment in &self.sealed {
            sync_sealed(&self.state, &self.dir, segment)?;
        }
        if self.sync_dir {
            self.state.sync_dir(&self.dir)?;
        }
        if let Some(file) = &self.active {
            self.state.synced("sync", &self.dir, file.sync())?;
        }
        match self.write_derived() {
            // Derived files can wait.
            Err(error) if error.is_transient() => Ok(()),
            answer => answer,
        }
    }

    fn write_derived(&self) -> Result<(), DiskError> {
        let Some(epochs) = &self.epochs else {
            return Ok(());
        };
        self.derived.write_epochs(epochs)?;
        for snapshot in &self.snapshots {
            self.derived.write_snapshot(self.generation, snapshot)?;
        }
        self.state.sync_dir(&self.dir)
    }
}

/// Makes a sealed segment durable, its indexes too: after this nobody looks whether they are whole.
pub(super) fn sync_sealed(
    state: &DirState,
    dir: &Path,
    segment: &Segment,
) -> Result<(), DiskError> {
    let path = |suffix| dir.join(names::segment_file(segment.base_offset, suffix));
    state.synced("sync", &path(names::LOG), segment.file.sync())?;
    for suffix in [names::OFFSET_INDEX, names::TIME_INDEX] {
        match state.files.open(&path(suffix), Access::ReadWrite) {
            // Gone if retention was faster, or if it could not be written.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => {
                let file = state.read("open", &path(suffix), opened)?;
                state.synced("sync", &path(suffix), file.sync())?;
            }
        }
    }
    Ok(())
}

impl Log {
    /// Whether something is not durable yet.
    #[must_use]
    pub fn needs_flush(&self) -> bool {
        self.flushed_offset < self.log_end_offset()
            || !self.unsynced.is_empty()
            || self.dir_synced < self.dir_changes
            || !self.pending_snapshots.is_empty()
    }

    /// Whether a segment was sealed and is not durable yet: such a flush is due in mode `page`
    /// too.
    #[must_use]
    pub fn has_unflushed_segment(&self) -> bool {
        !self.unsynced.is_empty()
    }

    /// Begins a flush of everything appended so far; `None` if all of it is durable.
    #[must_use]
    pub fn begin_flush(&mut self) -> Option<FlushJob> {
        if !self.needs_flush() || self.detached || self.state.failed() {
            return None;
        }
        if self.snapshot_is_due() {
            self.write_producer_snapshot();
        }
        let snapshots = std::mem::take(&mut self.pending_snapshots);
        let epochs = (!snapshots.is_empty()).then(|| self.pending_epochs());
        let (up_to, end) = (self.log_end_offset(), self.active.end());
        let active = (self.flushed_offset < up_to && end.position > 0)
            .then(|| Arc::clone(&self.active.segment.file));
        Some(FlushJob {
            state: Arc::clone(&self.state),
            dir: self.dir.clone(),
            generation: self.generation,
            up_to,
            sealed: self.unsynced.clone(),
            active,
            dir_changes: self.dir_changes,
            sync_dir: self.dir_synced < self.dir_changes,
            derived: Arc::clone(&self.derived),
            epochs,
            snapshots,
        })
    }

    /// Takes in a finished flush. One that began before a truncation counts for nothing.
    ///
    /// # Errors
    /// The flush failed, and with it the directory (S-6).
    pub fn on_flushed(&mut self, done: FlushDone) -> Result<(), LogError> {
        done.result?;
        if done.generation != self.generation {
            return Ok(());
        }
        self.unsynced
            .retain(|segment| segment.end().offset > done.up_to);
        self.dir_synced = self.dir_synced.max(done.dir_changes);
        self.flushed_offset = self.flushed_offset.max(done.up_to);
        self.mark.set(self.flushed_offset);
        self.remove_outlived()
    }

    /// Removes the recovery floor once a checkpoint made it needless, and snapshots that newer
    /// ones replaced.
    fn remove_outlived(&mut self) -> Result<(), LogError> {
        if self
            .floor
            .is_some_and(|serial| self.state.checkpoints_done() > serial)
        {
            self.state
                .remove_file(&self.dir.join(names::RECOVERY_FLOOR))?;
            self.floor = None;
        }
        // Those at the start of a segment stay with it, the two newest in any case.
        while self.snapshots.len() > 2 {
            let surplus = self.snapshots.iter().rev().skip(2).copied().find(|offset| {
                *offset != self.active.base_offset()
                    && self
                        .sealed
                        .binary_search_by_key(offset, |s| s.base_offset)
                        .is_err()
            });
            let Some(offset) = surplus else { break };
            self.snapshots.remove(&offset);
            self.derived.remove_snapshot(offset)?;
        }
        Ok(())
    }
}
