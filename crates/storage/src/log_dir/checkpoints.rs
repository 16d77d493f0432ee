//! The checkpoints of a log directory: recovery points, log starts and high watermarks.
//!
//! # Invariants
//! * A checkpoint is the old file or the new one, never a piece of either (S-4).
//! * No mark of a deleted partition is read for a new one of its name.

use std::collections::{BTreeMap, BTreeSet};

use ottla_types::{Offset, PartitionId, PartitionIndex, TopicId};

use super::{LogDir, page_logs};
use crate::checkpoint::{self, Offsets};
use crate::dir_state::{ClampedMarks, DirState};
use crate::error::{DiskError, LogDirError};
use crate::files::read_small_file;

const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
const LOG_STARTS: &str = "log-start-offset-checkpoint";
const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
/// Our own file, see [`page_logs`].
const PAGE_LOGS: &str = "ottla-page-logs";

/// Largest checkpoint that is believed.
const CHECKPOINT_BYTES_MAX: usize = 256 << 20;

/// How far one partition is, for the checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMarks {
    /// The topic's name.
    pub topic: String,
    /// The partition, of the topic that had the name when the marks were collected.
    pub id: PartitionId,
    /// Everything below is durable.
    pub recovery_point: Offset,
    /// First offset that can be read.
    pub log_start_offset: Offset,
    /// The high watermark.
    pub high_watermark: Offset,
}

/// A partition as checkpoints name it.
pub(super) type Key = (String, PartitionIndex);

#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    pub(super) recovery_points: Offsets,
    pub(super) log_starts: Offsets,
    pub(super) high_watermarks: Offsets,
    /// Logs whose high watermark above may be beyond what was flushed.
    pub(super) page_logs: BTreeSet<Key>,
    page_logs_on_disk: BTreeSet<Key>,
    /// Whose logs they are: marks of another topic id were collected before a deletion.
    pub(super) owners: BTreeMap<Key, TopicId>,
    /// Logs that this process opened before: what it did not close, it left unclean.
    pub(super) opened: BTreeSet<Key>,
    /// Deleted partitions whose marks the files on disk may still have: a new partition of that
    /// name must not be opened with them after a crash.
    pub(super) stale_on_disk: BTreeSet<Key>,
}

impl Checkpoints {
    /// What the files say.
    pub(super) fn read(state: &DirState) -> Result<Checkpoints, DiskError> {
        let high_watermarks = read_checkpoint(state, HIGH_WATERMARKS)?;
        let page_logs = match read_derived(state, PAGE_LOGS)? {
            None => BTreeSet::new(),
            Some(bytes) => page_logs::decode(&bytes).unwrap_or_else(|| {
                tracing::warn!(name = PAGE_LOGS, "damaged: no high watermark is relied on");
                high_watermarks.keys().cloned().collect()
            }),
        };
        Ok(Checkpoints {
            owners: BTreeMap::new(),
            opened: BTreeSet::new(),
            stale_on_disk: BTreeSet::new(),
            recovery_points: read_checkpoint(state, RECOVERY_POINTS)?,
            log_starts: read_checkpoint(state, LOG_STARTS)?,
            high_watermarks,
            page_logs_on_disk: page_logs.clone(),
            page_logs,
        })
    }

    /// Takes over the marks of one log, `clamped` to what it knows to be flushed.
    fn put(&mut self, mark: &PartitionMarks, clamped: ClampedMarks) {
        let key = (mark.topic.clone(), mark.id.partition);
        match clamped.counts_flushed_only {
            Some(true) => {
                self.page_logs.remove(&key);
            }
            Some(false) => {
                self.page_logs.insert(key.clone());
            }
            None => {}
        }
        self.recovery_points
            .insert(key.clone(), clamped.recovery_point);
        self.log_starts.insert(key.clone(), mark.log_start_offset);
        self.high_watermarks.insert(key, clamped.high_watermark);
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
            let key = (mark.topic.clone(), mark.id.partition);
            if checkpoints.owners.get(&key) != Some(&mark.id.topic_id) {
                // Collected before the partition was deleted.
                continue;
            }
            let clamped = self.state.clamp_marks(
                &mark.topic,
                mark.id.partition,
                mark.recovery_point,
                mark.high_watermark,
            );
            checkpoints.put(mark, clamped);
        }
        // A log that is open but not named may have been truncated below its old mark.
        for ((topic, partition), point) in &mut checkpoints.recovery_points {
            let clamped = self.state.clamp_marks(topic, *partition, *point, *point);
            *point = clamped.recovery_point;
        }
        self.replace_checkpoints(&mut checkpoints)?;
        self.state.checkpoint_done(serial);
        Ok(())
    }

    pub(super) fn replace_checkpoints(
        &self,
        checkpoints: &mut Checkpoints,
    ) -> Result<(), DiskError> {
        let known = &checkpoints.page_logs_on_disk;
        self.list_page_logs(checkpoints, known | &checkpoints.page_logs)?;
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
        let of_a_log = |key: &Key| checkpoints.high_watermarks.contains_key(key);
        checkpoints.page_logs.retain(of_a_log);
        self.list_page_logs(checkpoints, checkpoints.page_logs.clone())
    }

    /// Brings the list of logs in mode `page` to the disk, where it seldom changes.
    fn list_page_logs(
        &self,
        checkpoints: &mut Checkpoints,
        logs: BTreeSet<Key>,
    ) -> Result<(), DiskError> {
        if logs != checkpoints.page_logs_on_disk {
            let path = self.path().join(PAGE_LOGS);
            self.state.replace_file(&path, &page_logs::encode(&logs))?;
            self.state.sync_dir(self.path())?;
            checkpoints.page_logs_on_disk = logs;
        }
        Ok(())
    }

    pub(super) fn forget(&self, key: &Key) {
        let mut checkpoints = self.checkpoints.lock();
        checkpoints.recovery_points.remove(key);
        checkpoints.log_starts.remove(key);
        checkpoints.high_watermarks.remove(key);
        checkpoints.page_logs.remove(key);
        checkpoints.owners.remove(key);
    }
}

/// A file whose loss changes nothing that is promised.
fn read_derived(state: &DirState, name: &str) -> Result<Option<Vec<u8>>, DiskError> {
    let path = state.path.join(name);
    match read_small_file(&*state.files, &path, CHECKPOINT_BYTES_MAX) {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Ok(None),
        answer => state.read("read", &path, answer),
    }
}

fn read_checkpoint(state: &DirState, name: &str) -> Result<Offsets, DiskError> {
    let Some(bytes) = read_derived(state, name)? else {
        return Ok(Offsets::new());
    };
    Ok(checkpoint::decode(&bytes).unwrap_or_else(|| {
        tracing::warn!(name, "checkpoint is damaged and not used");
        Offsets::new()
    }))
}
