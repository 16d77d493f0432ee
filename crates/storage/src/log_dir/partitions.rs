//! The partitions of a log directory: found, opened, deleted.
//!
//! # Invariants
//! * A directory is opened only as the topic id that it was made for.
//! * Names are checked before a path is built from them.

use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use ottla_types::{PartitionId, PartitionIndex, WallClockMs};

use super::{LogDir, SMALL_BYTES_MAX};
use crate::config::LogConfig;
use crate::error::{LogDirError, LogError};
use crate::files::{Access, Entry, read_small_file};
use crate::log::{Log, Marks, OpenLog, Recovery};
use crate::meta;
use crate::names;

impl LogDir {
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
                high_watermark_is_durable: !checkpoints.page_logs.contains(&key),
                durable_floor: None,
            };
            checkpoints.owners.insert(key.clone(), id.topic_id);
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
            check_all: false,
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
        if self.holds_data(dir)? {
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

    fn holds_data(&self, dir: &Path) -> Result<bool, LogError> {
        let state = &self.state;
        let entries = match state.files.list(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            answer => state.read("list", dir, answer)?,
        };
        let is_log = |entry: &&Entry| {
            names::parse_segment_file(&entry.name).is_some_and(|file| file.1 == names::LOG)
        };
        for entry in entries.iter().filter(is_log) {
            let path = dir.join(&entry.name);
            let size = state
                .files
                .open(&path, Access::Read)
                .and_then(|file| file.size());
            if state.read("stat", &path, size)? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
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
}
