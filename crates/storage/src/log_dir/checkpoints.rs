//! The checkpoints of a log directory: recovery points, log starts and high watermarks.
//!
//! # Invariants
//! * A checkpoint is the old file or the new one, never a piece of either (S-4).
//! * No mark of a deleted partition is read for a new one of its name.

use std::collections::BTreeSet;

use ottla_types::{Offset, PartitionIndex};

use super::LogDir;
use crate::checkpoint::{self, Offsets};
use crate::dir_state::DirState;
use crate::error::{DiskError, LogDirError};
use crate::files::read_small_file;

const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
const LOG_STARTS: &str = "log-start-offset-checkpoint";
const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";

/// Largest checkpoint that is believed.
const CHECKPOINT_BYTES_MAX: usize = 256 << 20;

/// How far one partition is, for the checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMarks {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// Everything below is durable.
    pub recovery_point: Offset,
    /// First offset that can be read.
    pub log_start_offset: Offset,
    /// The high watermark.
    pub high_watermark: Offset,
}

#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    pub(super) recovery_points: Offsets,
    pub(super) log_starts: Offsets,
    pub(super) high_watermarks: Offsets,
    /// Logs that this process opened before: what it did not close, it left unclean.
    pub(super) opened: BTreeSet<(String, PartitionIndex)>,
    /// Deleted partitions whose marks the files on disk may still have: a new partition of that
    /// name must not be opened with them after a crash.
    pub(super) stale_on_disk: BTreeSet<(String, PartitionIndex)>,
}

impl Checkpoints {
    /// What the files say.
    pub(super) fn read(state: &DirState) -> Result<Checkpoints, DiskError> {
        Ok(Checkpoints {
            opened: BTreeSet::new(),
            stale_on_disk: BTreeSet::new(),
            recovery_points: read_checkpoint(state, RECOVERY_POINTS)?,
            log_starts: read_checkpoint(state, LOG_STARTS)?,
            high_watermarks: read_checkpoint(state, HIGH_WATERMARKS)?,
        })
    }
}

impl LogDir {
    /// Writes the checkpoints. Partitions not named keep their marks. No mark is written above
    /// what its log knows to be flushed at this moment.
    ///
    /// # Errors
    /// The directory cannot be written; the old checkpoints stand.
    pub fn write_checkpoints(&self, marks: &[PartitionMarks]) -> Result<(), LogDirError> {
        let mut checkpoints = self.checkpoints.lock();
        let serial = self.state.checkpoint_begins();
        for mark in marks {
            let (recovery_point, high_watermark) = self.state.clamp_marks(
                &mark.topic,
                mark.partition,
                mark.recovery_point,
                mark.high_watermark,
            );
            let key = (mark.topic.clone(), mark.partition);
            if checkpoints.stale_on_disk.contains(&key) {
                // Collected before the partition was deleted.
                continue;
            }
            checkpoints
                .recovery_points
                .insert(key.clone(), recovery_point);
            checkpoints
                .log_starts
                .insert(key.clone(), mark.log_start_offset);
            checkpoints.high_watermarks.insert(key, high_watermark);
        }
        // A log that is open but not named may have been truncated below its old mark.
        for ((topic, partition), point) in &mut checkpoints.recovery_points {
            *point = self.state.clamp_marks(topic, *partition, *point, *point).0;
        }
        self.replace_checkpoints(&mut checkpoints)?;
        self.state.checkpoint_done(serial);
        Ok(())
    }

    pub(super) fn replace_checkpoints(
        &self,
        checkpoints: &mut Checkpoints,
    ) -> Result<(), DiskError> {
        for (name, offsets) in [
            (RECOVERY_POINTS, &checkpoints.recovery_points),
            (LOG_STARTS, &checkpoints.log_starts),
            (HIGH_WATERMARKS, &checkpoints.high_watermarks),
        ] {
            self.state
                .replace_file(&self.path().join(name), &checkpoint::encode(offsets))?;
        }
        self.state.sync_dir(self.path())?;
        checkpoints.stale_on_disk.clear();
        Ok(())
    }

    pub(super) fn forget(&self, key: &(String, PartitionIndex)) {
        let mut checkpoints = self.checkpoints.lock();
        checkpoints.recovery_points.remove(key);
        checkpoints.log_starts.remove(key);
        checkpoints.high_watermarks.remove(key);
    }
}

fn read_checkpoint(state: &DirState, name: &str) -> Result<Offsets, DiskError> {
    let path = state.path.join(name);
    let bytes = match read_small_file(&*state.files, &path, CHECKPOINT_BYTES_MAX) {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => None,
        answer => state.read("read", &path, answer)?,
    };
    let Some(bytes) = bytes else {
        return Ok(Offsets::new());
    };
    Ok(checkpoint::decode(&bytes).unwrap_or_else(|| {
        tracing::warn!(name, "checkpoint is damaged and not used");
        Offsets::new()
    }))
}
