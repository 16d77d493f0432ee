//! Whose a log directory is and how it was left: the small files at its top.
//!
//! # Invariants
//! * The clean-shutdown marker is taken, durably, before anything else is written (S-5).
//! * A new boot of the machine is told until the controller knows of it.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use uuid::Uuid;

use ottla_types::{BrokerEpoch, BrokerId};

use super::{LogDir, SMALL_BYTES_MAX};
use crate::dir_state::DirState;
use crate::error::{DiskError, LogDirError};
use crate::files::read_small_file;
use crate::meta::{self, MetaProperties};

impl LogDir {
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

    /// Says that all logs were closed and checkpointed: the next start needs no recovery.
    ///
    /// # Errors
    /// A log was left open, or could not be opened, or the directory cannot be written: the next
    /// start recovers.
    pub fn mark_clean_shutdown(
        &self,
        broker_epoch: Option<BrokerEpoch>,
    ) -> Result<(), LogDirError> {
        self.refuse_if_any_unclean()?;
        let path = self.path().join(meta::CLEAN_SHUTDOWN);
        self.state
            .replace_file(&path, &meta::encode_clean_shutdown(broker_epoch))?;
        Ok(self.state.sync_dir(self.path())?)
    }

    /// The marker speaks for every log: for one that this process did not close, it could only
    /// repeat what the marker before it said, and that only if nobody tried to open the log.
    fn refuse_if_any_unclean(&self) -> Result<(), LogDirError> {
        for (topic, id) in self.list_partitions()? {
            let key = (topic, id.partition);
            let untouched = || self.clean && !self.checkpoints.lock().opened.contains(&key);
            if !self.state.is_closed(&key.0, key.1) && !untouched() {
                let (topic, partition) = key;
                return Err(LogDirError::NotClosed { topic, partition });
            }
        }
        Ok(())
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
}

pub(super) fn open_meta(
    state: &DirState,
    node_id: BrokerId,
) -> Result<(MetaProperties, bool), LogDirError> {
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
pub(super) fn take_clean_shutdown(
    state: &DirState,
) -> Result<Option<Option<BrokerEpoch>>, DiskError> {
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
pub(super) fn boot_changed(state: &DirState) -> Result<bool, DiskError> {
    let path = state.path.join(meta::BOOT);
    let bytes = state.read(
        "read",
        &path,
        read_small_file(&*state.files, &path, SMALL_BYTES_MAX),
    )?;
    let before = bytes.as_deref().and_then(meta::decode_boot);
    Ok(before.is_none() || before != state.files.boot_id())
}

pub(super) fn write_boot(state: &DirState) -> Result<(), DiskError> {
    match state.files.boot_id() {
        Some(boot_id) => {
            state.replace_file(&state.path.join(meta::BOOT), &meta::encode_boot(&boot_id))
        }
        None => state.remove_file(&state.path.join(meta::BOOT)),
    }
}
