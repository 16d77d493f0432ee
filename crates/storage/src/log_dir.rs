//! One log directory: whose it is, what it holds, and how it was left.
//!
//! # Invariants
//! * One process at a time (S-10): the lock is held as long as the [`LogDir`] lives.
//! * The clean-shutdown marker is gone, durably, before the first write (S-5).
//! * A checkpoint is the old file or the new one, never a piece of either (S-4).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use uuid::Uuid;

use ottla_types::{BrokerEpoch, BrokerId, Offset, PartitionId, PartitionIndex, WallClockMs};

use crate::checkpoint::{self, Offsets};
use crate::config::LogConfig;
use crate::dir_state::DirState;
use crate::error::{DiskError, LogDirError, LogError};
use crate::files::{Access, DiskSpace, Entry, Files, Lock, read_small_file};
use crate::log::{Log, Marks, OpenLog, Recovery};
use crate::meta::{self, MetaProperties};
use crate::names;

const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
const LOG_STARTS: &str = "log-start-offset-checkpoint";
const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";

/// Largest checkpoint that is believed.
const CHECKPOINT_BYTES_MAX: usize = 256 << 20;
/// Largest of the other small files.
const SMALL_BYTES_MAX: usize = 64 * 1024;

/// What opening a log directory found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedDir {
    /// The directory's own id: a new one means a blank disk (P-30).
    pub directory_id: Uuid,
    /// The cluster that it belongs to, once it does.
    pub cluster_id: Option<String>,
    /// The process ended cleanly before.
    pub clean_shutdown: bool,
    /// The incarnation that ended cleanly.
    pub previous_broker_epoch: Option<BrokerEpoch>,
    /// There was nothing here.
    pub new_directory: bool,
    /// The machine was started anew since, or it cannot be told: what was not synced may be gone.
    pub boot_id_changed: bool,
}

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
struct Checkpoints {
    recovery_points: Offsets,
    log_starts: Offsets,
    high_watermarks: Offsets,
    /// Logs that this process opened before: what it did not close, it left unclean.
    opened: BTreeSet<(String, PartitionIndex)>,
    /// Deleted partitions whose marks the files on disk may still have: a new partition of that
    /// name must not be opened with them after a crash.
    stale_on_disk: BTreeSet<(String, PartitionIndex)>,
}

/// One log directory, locked.
#[derive(Debug)]
pub struct LogDir {
    state: Arc<DirState>,
    clean: bool,
    boot_recorded: AtomicBool,
    meta: Mutex<MetaProperties>,
    checkpoints: Mutex<Checkpoints>,
    _lock: Box<dyn Lock>,
}

impl LogDir {
    /// Opens and locks a log directory, creating it if missing.
    ///
    /// # Errors
    /// It belongs to somebody else, or cannot be read or written.
    pub fn open(
        path: &Path,
        node_id: BrokerId,
        files: Arc<dyn Files>,
    ) -> Result<(LogDir, OpenedDir), LogDirError> {
        let state = Arc::new(DirState::new(files, path.to_owned()));
        state.read("create", path, state.files.create_dir(path))?;
        let lock_path = path.join(meta::LOCK);
        let lock = match state.files.lock(&lock_path) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Err(LogDirError::Locked { path: lock_path });
            }
            answer => state.read("lock", &lock_path, answer)?,
        };
        let (meta, new_directory) = open_meta(&state, node_id)?;
        let marker = take_clean_shutdown(&state)?;
        let boot_id_changed = !new_directory && boot_changed(&state)?;
        // What a cut of the power may have taken is told anew until the controller knows it.
        let boot_recorded = new_directory || marker.is_some() || !boot_id_changed;
        if boot_recorded {
            write_boot(&state)?;
        }
        state.sync_dir(path)?;
        let checkpoints = Checkpoints {
            opened: BTreeSet::new(),
            stale_on_disk: BTreeSet::new(),
            recovery_points: read_checkpoint(&state, RECOVERY_POINTS)?,
            log_starts: read_checkpoint(&state, LOG_STARTS)?,
            high_watermarks: read_checkpoint(&state, HIGH_WATERMARKS)?,
        };
        let opened = OpenedDir {
            directory_id: meta.directory_id,
            cluster_id: meta.cluster_id.clone(),
            clean_shutdown: marker.is_some(),
            previous_broker_epoch: marker.flatten(),
            new_directory,
            boot_id_changed,
        };
        let dir = LogDir {
            state,
            clean: marker.is_some(),
            boot_recorded: AtomicBool::new(boot_recorded),
            meta: Mutex::new(meta),
            checkpoints: Mutex::new(checkpoints),
            _lock: lock,
        };
        Ok((dir, opened))
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.state.path
    }

    /// The directory's own id.
    #[must_use]
    pub fn directory_id(&self) -> Uuid {
        self.meta.lock().directory_id
    }

    /// Whether a write or a sync failed: nothing is written any more (S-6).
    #[must_use]
    pub fn failed(&self) -> bool {
        self.state.failed()
    }

    /// Room in the file system.
    ///
    /// # Errors
    /// The file system does not say.
    pub fn space(&self) -> Result<DiskSpace, LogDirError> {
        let path = self.path();
        Ok(self
            .state
            .read("stat", path, self.state.files.space(path))?)
    }

    /// Bytes that may still be written.
    ///
    /// # Errors
    /// The file system does not say.
    pub fn usable_bytes(&self) -> Result<u64, LogDirError> {
        Ok(self.space()?.usable_bytes)
    }

    /// Says which cluster the directory belongs to, once and for all.
    ///
    /// # Errors
    /// It belongs to another one (S-10), or cannot be written.
    pub fn set_cluster_id(&self, cluster_id: &str) -> Result<(), LogDirError> {
        let mut meta = self.meta.lock();
        match &meta.cluster_id {
            Some(found) if found == cluster_id => return Ok(()),
            Some(found) => {
                let (expected, found) = (cluster_id.to_owned(), found.clone());
                return Err(LogDirError::ClusterId { expected, found });
            }
            None => {}
        }
        let changed = MetaProperties {
            cluster_id: Some(cluster_id.to_owned()),
            ..meta.clone()
        };
        self.state
            .replace_file(&self.path().join(meta::META), &changed.encode())?;
        self.state.sync_dir(self.path())?;
        *meta = changed;
        Ok(())
    }

    /// The partitions that have a directory here. Directories that are none are logged, and stay.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list_partitions(&self) -> Result<Vec<(String, PartitionId)>, LogDirError> {
        let entries = self
            .state
            .read("list", self.path(), self.state.files.list(self.path()))?;
        let mut found = Vec::new();
        for entry in entries.iter().filter(|entry| entry.is_directory) {
            if names::is_set_aside(&entry.name) {
                continue;
            }
            let Some((topic, partition)) = names::parse_partition_dir(&entry.name) else {
                tracing::debug!(name = %entry.name, "not a partition directory, left alone");
                continue;
            };
            let path = self
                .path()
                .join(&entry.name)
                .join(names::PARTITION_METADATA);
            let bytes = read_small_file(&*self.state.files, &path, SMALL_BYTES_MAX);
            let bytes = self.state.read("read", &path, bytes)?;
            match bytes.as_deref().and_then(meta::decode_partition_metadata) {
                Some(topic_id) => {
                    found.push((
                        topic.to_owned(),
                        PartitionId {
                            topic_id,
                            partition,
                        },
                    ));
                }
                None => {
                    tracing::warn!(name = %entry.name, "directory without a topic id, left alone");
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// Opens a partition's log, creating it if missing, and recovers it if need be.
    ///
    /// # Errors
    /// The directory belongs to another topic of that name, or cannot be read or written.
    pub fn open_log(
        &self,
        topic: &str,
        id: PartitionId,
        config: LogConfig,
        now: WallClockMs,
    ) -> Result<(Log, Recovery), LogError> {
        if !names::is_topic_name(topic) {
            return Err(LogError::TopicName(topic.chars().take(256).collect()));
        }
        self.state.refuse_if_failed()?;
        let dir = self.path().join(names::partition_dir(topic, id.partition));
        let key = (topic.to_owned(), id.partition);
        {
            let mut checkpoints = self.checkpoints.lock();
            if checkpoints.stale_on_disk.contains(&key) {
                self.replace_checkpoints(&mut checkpoints)?;
            }
        }
        let created = self.claim_directory(&dir, id)?;
        if created {
            // Marks of an earlier partition of this name say nothing of this one.
            self.forget(&key);
        }
        let (marks, first_time) = {
            let mut checkpoints = self.checkpoints.lock();
            let marks = Marks {
                recovery_point: checkpoints.recovery_points.get(&key).copied(),
                log_start_offset: checkpoints.log_starts.get(&key).copied(),
                high_watermark: checkpoints.high_watermarks.get(&key).copied(),
                durable_floor: None,
            };
            (marks, checkpoints.opened.insert(key))
        };
        OpenLog {
            state: Arc::clone(&self.state),
            topic: topic.to_owned(),
            id,
            dir,
            config,
            marks,
            clean: (self.clean && first_time) || created,
            created,
            now,
        }
        .open()
    }

    /// Makes sure that the directory exists and is of this topic; says whether it was made.
    fn claim_directory(&self, dir: &Path, id: PartitionId) -> Result<bool, LogError> {
        let (state, expected) = (&self.state, id.topic_id);
        let path = dir.join(names::PARTITION_METADATA);
        let bytes = match read_small_file(&*state.files, &path, SMALL_BYTES_MAX) {
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Some(Vec::new()),
            answer => state.read("read", &path, answer)?,
        };
        if let Some(bytes) = bytes {
            let found = meta::decode_partition_metadata(&bytes);
            if found == Some(expected) {
                return Ok(false);
            }
            return Err(LogError::TopicIdMismatch { expected, found });
        }
        state.read("create", dir, state.files.create_dir(dir))?;
        let entries = state.read("list", dir, state.files.list(dir))?;
        let is_log = |entry: &&Entry| {
            names::parse_segment_file(&entry.name).is_some_and(|file| file.1 == names::LOG)
        };
        let mut holds_data = false;
        for entry in entries.iter().filter(is_log) {
            let path = dir.join(&entry.name);
            let size = state
                .files
                .open(&path, Access::Read)
                .and_then(|file| file.size());
            holds_data |= state.read("stat", &path, size)? > 0;
        }
        if holds_data {
            // Whose the data is nobody can say.
            return Err(LogError::TopicIdMismatch {
                expected,
                found: None,
            });
        }
        // The names in the new directory are synced once its first segment is there too.
        state.replace_file(&path, &meta::encode_partition_metadata(expected))?;
        state.sync_dir(self.path())?;
        Ok(true)
    }

    /// Deletes a partition: its directory is renamed, and goes with [`LogDir::purge_deleted`].
    ///
    /// # Errors
    /// The directory cannot be changed.
    pub fn delete_log(&self, log: Log) -> Result<(), LogDirError> {
        let (topic, partition) = (log.topic().to_owned(), log.id().partition);
        drop(log);
        self.delete_partition(&topic, partition)
    }

    /// Deletes a partition that is not open.
    ///
    /// # Errors
    /// The directory cannot be changed.
    pub fn delete_partition(
        &self,
        topic: &str,
        partition: PartitionIndex,
    ) -> Result<(), LogDirError> {
        if !names::is_topic_name(topic) {
            return Err(LogDirError::TopicName(topic.chars().take(256).collect()));
        }
        self.state.refuse_if_failed()?;
        let from = self.path().join(names::partition_dir(topic, partition));
        let unique = Uuid::new_v4().simple().to_string();
        let to = self
            .path()
            .join(names::deleted_dir(topic, partition, &unique));
        self.state
            .written("rename", &from, self.state.files.rename(&from, &to))?;
        self.state.sync_dir(self.path())?;
        self.state.deregister(topic, partition);
        let key = (topic.to_owned(), partition);
        self.forget(&key);
        self.checkpoints.lock().stale_on_disk.insert(key);
        Ok(())
    }

    /// Removes the directories of deleted partitions; on a thread that may block.
    ///
    /// # Errors
    /// The directory cannot be changed.
    pub fn purge_deleted(&self) -> Result<usize, LogDirError> {
        let entries = self
            .state
            .read("list", self.path(), self.state.files.list(self.path()))?;
        let mut purged = 0;
        for entry in entries
            .iter()
            .filter(|e| e.is_directory && names::is_deleted_dir(&e.name))
        {
            let path = self.path().join(&entry.name);
            let removed = match self.state.files.remove_dir_all(&path) {
                // Another caller purges at the same time: gone is what was wanted.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                removed => removed,
            };
            self.state.written("remove", &path, removed)?;
            purged += 1;
        }
        Ok(purged)
    }

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

    fn replace_checkpoints(&self, checkpoints: &mut Checkpoints) -> Result<(), DiskError> {
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

    /// Says that all logs were closed and checkpointed: the next start needs no recovery.
    ///
    /// # Errors
    /// The directory cannot be written: the next start recovers.
    pub fn mark_clean_shutdown(
        &self,
        broker_epoch: Option<BrokerEpoch>,
    ) -> Result<(), LogDirError> {
        let path = self.path().join(meta::CLEAN_SHUTDOWN);
        self.state
            .replace_file(&path, &meta::encode_clean_shutdown(broker_epoch))?;
        Ok(self.state.sync_dir(self.path())?)
    }

    /// The controller has taken a registration that says how the last life ended: from now on a
    /// kill in this boot of the machine loses nothing that was written in it.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn confirm_boot(&self) -> Result<(), LogDirError> {
        if !self.boot_recorded.swap(true, Ordering::SeqCst) {
            write_boot(&self.state)?;
            self.state.sync_dir(self.path())?;
        }
        Ok(())
    }

    fn forget(&self, key: &(String, PartitionIndex)) {
        let mut checkpoints = self.checkpoints.lock();
        checkpoints.recovery_points.remove(key);
        checkpoints.log_starts.remove(key);
        checkpoints.high_watermarks.remove(key);
    }
}

fn open_meta(state: &DirState, node_id: BrokerId) -> Result<(MetaProperties, bool), LogDirError> {
    let path: PathBuf = state.path.join(meta::META);
    let bytes = read_small_file(&*state.files, &path, SMALL_BYTES_MAX);
    let new_id = Uuid::new_v4();
    let Some(bytes) = state.read("read", &path, bytes)? else {
        let meta = MetaProperties {
            cluster_id: None,
            node_id: node_id.get(),
            directory_id: new_id,
        };
        state.replace_file(&path, &meta.encode())?;
        return Ok((meta, true));
    };
    let meta = MetaProperties::decode(&bytes, new_id).map_err(|reason| LogDirError::Meta {
        path: path.clone(),
        reason,
    })?;
    if meta.node_id != node_id.get() {
        return Err(LogDirError::NodeId {
            expected: node_id.get(),
            found: meta.node_id,
        });
    }
    if meta.directory_id == new_id {
        state.replace_file(&path, &meta.encode())?;
    }
    Ok((meta, false))
}

/// Reads the clean-shutdown marker and removes it. The outer option says whether there was one.
fn take_clean_shutdown(state: &DirState) -> Result<Option<Option<BrokerEpoch>>, DiskError> {
    let path = state.path.join(meta::CLEAN_SHUTDOWN);
    let bytes = state.read(
        "read",
        &path,
        read_small_file(&*state.files, &path, SMALL_BYTES_MAX),
    )?;
    state.remove_file(&path)?;
    state.sync_dir(&state.path)?;
    Ok(bytes.as_deref().and_then(meta::decode_clean_shutdown))
}

/// Whether the directory was last opened in another boot of the machine, as far as one can tell.
fn boot_changed(state: &DirState) -> Result<bool, DiskError> {
    let path = state.path.join(meta::BOOT);
    let bytes = state.read(
        "read",
        &path,
        read_small_file(&*state.files, &path, SMALL_BYTES_MAX),
    )?;
    let before = bytes.as_deref().and_then(meta::decode_boot);
    Ok(before.is_none() || before != state.files.boot_id())
}

fn write_boot(state: &DirState) -> Result<(), DiskError> {
    match state.files.boot_id() {
        Some(boot_id) => {
            state.replace_file(&state.path.join(meta::BOOT), &meta::encode_boot(&boot_id))
        }
        None => state.remove_file(&state.path.join(meta::BOOT)),
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
