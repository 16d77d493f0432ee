//! One log directory: whose it is, what it holds, and how it was left.
//!
//! # Invariants
//! * One process at a time (S-10): the lock is held as long as the [`LogDir`] lives.
//! * The clean-shutdown marker is gone, durably, before the first write (S-5).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use uuid::Uuid;

use ottla_types::{BrokerEpoch, BrokerId};

use crate::dir_state::DirState;
use crate::error::LogDirError;
use crate::files::{DiskSpace, Files, Lock};
use crate::meta::{self, MetaProperties};

mod checkpoints;
mod identity;
mod page_logs;
mod partitions;

pub use checkpoints::PartitionMarks;

use checkpoints::Checkpoints;
use identity::{boot_changed, open_meta, take_clean_shutdown, write_boot};

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
        let checkpoints = Checkpoints::read(&state)?;
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
}
