//! One partition's log: the single writer's view of it.
//!
//! # Invariants
//! * `log_start_offset <= flushed_offset <= log_end_offset`, but for a log start that moved past
//!   what is flushed.
//! * The segments are contiguous; only the newest is written.
//! * The generation rises with every truncation, and what was flushed in an older one counts for
//!   nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ottla_records::BatchHeader;
use ottla_types::{LeaderEpoch, MonotonicMs, Offset, PartitionId};

use crate::active::ActiveSegment;
use crate::config::LogConfig;
use crate::derived::{DerivedFiles, PendingEpochs, PendingSnapshot};
use crate::dir_state::{DirState, FlushedMark};
use crate::epoch_cache::EpochCache;
use crate::error::{DiskError, LogError};
use crate::producer_snapshot;
use crate::producers::{ActiveProducer, Producers, SequenceChecks, SequenceVerdict};
use crate::reader::{LogReader, Shared, Snapshot};
use crate::segment::Segment;

mod append;
mod flush;
mod open;
mod rebuild;
mod recover;
mod retention;
mod truncate;

pub use append::Appended;
pub use flush::{FlushDone, FlushJob};
pub use open::Recovery;
pub(crate) use open::{Marks, OpenLog};
pub use retention::DeletedSegment;

/// Snapshots waiting to be written; older ones are dropped, the newest says the most.
const PENDING_SNAPSHOTS_MAX: usize = 4;

/// A snapshot may not be larger than this part of what was appended since the last one.
const SNAPSHOT_SHARE: u64 = 16;

/// One partition's log. It has one owner, who alone changes it; others read through
/// [`Log::reader`].
#[derive(Debug)]
pub struct Log {
    topic: String,
    id: PartitionId,
    dir: PathBuf,
    state: Arc<DirState>,
    config: LogConfig,
    /// Oldest first, without the active one.
    sealed: Vec<Arc<Segment>>,
    active: ActiveSegment,
    log_start_offset: Offset,
    flushed_offset: Offset,
    generation: u64,
    epochs: EpochCache,
    /// Rises with every change of `epochs`.
    epochs_version: u64,
    producers: Producers,
    shared: Arc<Shared>,
    mark: Arc<FlushedMark>,
    derived: Arc<DerivedFiles>,
    /// Sealed segments that are not known to be durable.
    unsynced: Vec<Arc<Segment>>,
    /// Rises when a file was created or removed; what of it is durable.
    dir_changes: u64,
    dir_synced: u64,
    pending_snapshots: Vec<PendingSnapshot>,
    /// Appended since the newest snapshot: what the next start would replay.
    unsnapshotted_bytes: u64,
    /// Offsets with a snapshot on disk, or on its way there.
    snapshots: BTreeSet<Offset>,
    /// The recovery floor is on disk, and may go once a checkpoint later than this one is there.
    floor: Option<u64>,
    /// The segment files are gone and new ones could not be created.
    detached: bool,
}

impl Log {
    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The partition.
    #[must_use]
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// The directory of the log.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Changes the configuration, from the next append on.
    pub fn set_config(&mut self, config: LogConfig) {
        self.mark
            .set_counts_flushed_only(config.counts_flushed_only());
        self.config = config;
    }

    /// First offset that can be read.
    #[must_use]
    pub fn log_start_offset(&self) -> Offset {
        self.log_start_offset
    }

    /// Offset that the next record will get.
    #[must_use]
    pub fn log_end_offset(&self) -> Offset {
        self.active.end().offset
    }

    /// Everything below is durable.
    #[must_use]
    pub fn flushed_offset(&self) -> Offset {
        self.flushed_offset
    }

    /// Rises with every truncation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Size of all segments.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.sealed
            .iter()
            .map(|segment| segment.size_bytes())
            .sum::<u64>()
            + self.active.end().position
    }

    /// Number of segments.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.sealed.len() + 1
    }

    /// The leader epochs.
    #[must_use]
    pub fn epochs(&self) -> &EpochCache {
        &self.epochs
    }

    /// The newest leader epoch.
    #[must_use]
    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.latest()
    }

    /// Where `epoch` ends, as the leader of the newest epoch answers (KIP-101).
    #[must_use]
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.epochs.end_offset(epoch, self.log_end_offset())
    }

    /// Says that `epoch` begins at `start_offset`. In memory: the file is written later.
    pub fn assign_epoch(&mut self, epoch: LeaderEpoch, start_offset: Offset) {
        if self.epochs.assign(epoch, start_offset) {
            self.epochs_version += 1;
        }
    }

    /// Judges one batch of an idempotent producer before it is appended (KIP-98).
    #[must_use]
    pub fn check_sequence(&self, header: &BatchHeader) -> SequenceVerdict {
        self.producers.check(header)
    }

    /// Whether anything is known of this producer: then its sequences are judged.
    #[must_use]
    pub fn knows_producer(&self, producer_id: i64) -> bool {
        self.producers.contains(producer_id)
    }

    /// Judges several batches that will be appended in one call.
    #[must_use]
    pub fn sequence_checks(&self) -> SequenceChecks<'_> {
        SequenceChecks::new(&self.producers, self.log_end_offset())
    }

    /// The idempotent producers known here.
    #[must_use]
    pub fn producers(&self) -> Vec<ActiveProducer> {
        self.producers.describe()
    }

    /// Number of idempotent producers known here.
    #[must_use]
    pub fn producer_count(&self) -> usize {
        self.producers.len()
    }

    /// First offset of the oldest transaction that is open here.
    #[must_use]
    pub fn first_open_transaction(&self) -> Option<Offset> {
        self.producers.first_open_transaction()
    }

    /// Forgets producers that wrote nothing for `producer_id_expiration_ms`; to be called now and
    /// then, because silence counts from the call that finds it.
    pub fn expire_producers(&mut self, now: MonotonicMs) {
        self.producers
            .expire(now, self.config.producer_id_expiration_ms);
    }

    /// A handle for reading.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.shared))
    }

    /// Has the next [`FlushJob`] write the producer state as of now, so that a recovery replays
    /// only what follows.
    pub fn write_producer_snapshot(&mut self) {
        let offset = self.log_end_offset();
        self.unsnapshotted_bytes = 0;
        if !self.snapshots.insert(offset) {
            return;
        }
        if self.pending_snapshots.len() >= PENDING_SNAPSHOTS_MAX {
            let dropped = self.pending_snapshots.remove(0);
            self.snapshots.remove(&dropped.offset);
        }
        self.pending_snapshots.push(self.snapshot());
    }

    /// Damage that recovery found was told to the controller, and the replica is whole again: the
    /// segments that were moved aside go.
    ///
    /// # Errors
    /// The directory cannot be changed.
    pub fn forget_damage(&mut self) -> Result<(), LogError> {
        self.refuse_if_unusable()?;
        for (name, _) in open::damaged_files(&self.state, &self.dir)? {
            self.state.remove_file(&self.dir.join(name))?;
        }
        self.state.sync_dir(&self.dir)?;
        Ok(())
    }

    /// Ends cleanly: everything is durable, and the next start replays nothing.
    ///
    /// # Errors
    /// The directory has failed or fails: the next start recovers.
    pub fn close(mut self) -> Result<(), LogError> {
        self.refuse_if_unusable()?;
        self.active.sync_all()?;
        for segment in std::mem::take(&mut self.unsynced) {
            flush::sync_sealed(&self.state, &self.dir, &segment)?;
        }
        self.epochs_version += 1;
        let epochs = self.pending_epochs();
        self.derived.write_epochs(&epochs)?;
        let snapshot = self.snapshot();
        self.derived.write_snapshot(self.generation, &snapshot)?;
        self.state.sync_dir(&self.dir)?;
        self.mark.set(self.log_end_offset());
        self.mark.set_closed();
        Ok(())
    }

    fn refuse_if_unusable(&self) -> Result<(), DiskError> {
        if self.detached {
            return Err(DiskError::NoSpace);
        }
        self.state.refuse_if_failed()
    }

    fn pending_epochs(&self) -> PendingEpochs {
        PendingEpochs {
            version: self.epochs_version,
            text: self.epochs.encode(),
        }
    }

    fn snapshot(&self) -> PendingSnapshot {
        PendingSnapshot {
            offset: self.log_end_offset(),
            producers: self.producers.clone(),
        }
    }

    /// Whether so much was appended since the newest snapshot that another is worth its bytes.
    fn snapshot_is_due(&self) -> bool {
        let size_bytes = producer_snapshot::size_bytes(&self.producers);
        let worth_it = size_bytes.saturating_mul(SNAPSHOT_SHARE);
        self.unsnapshotted_bytes >= self.config.producer_snapshot_bytes.max(worth_it)
    }

    /// Shows readers the current list of segments.
    fn publish_segments(&self) {
        let active = Arc::clone(&self.active.segment);
        let segments = self.sealed.iter().cloned().chain([active]).collect();
        self.shared.snapshot.store(Arc::new(Snapshot {
            generation: self.generation,
            segments,
        }));
    }

    fn publish_log_start_offset(&self) {
        self.shared
            .log_start_offset
            .store(self.log_start_offset.get(), Ordering::Release);
    }

    /// The oldest offset that the segments hold.
    fn first_base_offset(&self) -> Offset {
        self.sealed
            .first()
            .map_or(self.active.base_offset(), |segment| segment.base_offset)
    }
}
