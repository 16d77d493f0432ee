//! Writing the files that are derived from a log, from whichever thread: the epoch list and the
//! producer snapshots.
//!
//! # Invariants
//! * An older epoch list never replaces a newer one, whatever order the writers run in.
//! * A snapshot of before a truncation is never written after it: the generation is checked under
//!   the lock that the truncation takes.
//! * A snapshot is written only after the epochs below it are: recovery learns later epochs from
//!   the batches that it walks from there.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use ottla_types::Offset;

use crate::dir_state::DirState;
use crate::error::DiskError;
use crate::names;
use crate::producer_snapshot;
use crate::producers::Producers;

/// Producer state at an offset, waiting to be encoded and written.
#[derive(Clone, Debug)]
pub(crate) struct PendingSnapshot {
    pub(crate) offset: Offset,
    pub(crate) producers: Producers,
}

/// An epoch list, encoded, waiting to be written.
#[derive(Clone, Debug)]
pub(crate) struct PendingEpochs {
    pub(crate) version: u64,
    pub(crate) text: Vec<u8>,
}

#[derive(Debug, Default)]
struct Written {
    generation: u64,
    epochs_version: u64,
}

/// The derived files of one log.
#[derive(Debug)]
pub(crate) struct DerivedFiles {
    dir: PathBuf,
    state: Arc<DirState>,
    written: Mutex<Written>,
}

impl DerivedFiles {
    pub(crate) fn new(dir: PathBuf, state: Arc<DirState>) -> DerivedFiles {
        DerivedFiles {
            dir,
            state,
            written: Mutex::new(Written::default()),
        }
    }

    /// Sets the version that the list found on disk has.
    pub(crate) fn set_epochs_version(&self, version: u64) {
        self.written.lock().epochs_version = version;
    }

    /// From now on only snapshots of `generation` are written.
    pub(crate) fn enter_generation(&self, generation: u64) {
        self.written.lock().generation = generation;
    }

    pub(crate) fn write_epochs(&self, epochs: &PendingEpochs) -> Result<(), DiskError> {
        let mut written = self.written.lock();
        if epochs.version > written.epochs_version {
            self.state
                .replace_file(&self.dir.join(names::EPOCHS), &epochs.text)?;
            written.epochs_version = epochs.version;
        }
        Ok(())
    }

    pub(crate) fn write_snapshot(
        &self,
        generation: u64,
        snapshot: &PendingSnapshot,
    ) -> Result<(), DiskError> {
        let kafka = producer_snapshot::encode_kafka(&snapshot.producers);
        let ours = producer_snapshot::encode(&snapshot.producers);
        let written = self.written.lock();
        if written.generation != generation {
            return Ok(());
        }
        let path = |suffix| self.dir.join(names::segment_file(snapshot.offset, suffix));
        // Not synced: acknowledgements wait for this, and one that is torn fails its checksum.
        self.state.replace_derived(&path(names::PRODUCERS), &ours)?;
        self.state.replace_derived(&path(names::SNAPSHOT), &kafka)
    }

    /// Removes the snapshot of an offset.
    pub(crate) fn remove_snapshot(&self, offset: Offset) -> Result<(), DiskError> {
        let path = |suffix| self.dir.join(names::segment_file(offset, suffix));
        self.state.remove_file(&path(names::SNAPSHOT))?;
        self.state.remove_file(&path(names::PRODUCERS))
    }
}
