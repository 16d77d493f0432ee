//! Opening a log: the normal start and the recovery are the same code.
//!
//! # Invariants
//! * Without the clean-shutdown marker every batch from the recovery point on is checked, and the
//!   log ends before the first that is not whole (P-27); later segments go with it.
//! * Below the durable mark nothing is cut silently: what had to go is moved aside and reported,
//!   until the owner says that the controller knows (S-2, P-28).
//! * What was recovered is durable before it is shown.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use arc_swap::ArcSwap;

use ottla_types::{Offset, PartitionId, WallClockMs};

use super::Log;
use super::recover::{Recovered, recover_segments};
use super::truncate::decode_floor;
use crate::active::ActiveSegment;
use crate::config::LogConfig;
use crate::derived::DerivedFiles;
use crate::dir_state::DirState;
use crate::epoch_cache::EpochCache;
use crate::error::{DiskError, LogError};
use crate::files::read_small_file;
use crate::names;
use crate::producers::Producers;
use crate::reader::{Shared, Snapshot};

/// Largest epoch list that is believed.
const EPOCHS_BYTES_MAX: usize = 64 << 20;

/// What opening a log found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// There was no log before.
    pub created: bool,
    /// Bytes cut off the end, or moved aside.
    pub truncated_bytes: u64,
    /// The checkpointed high watermark, within the log.
    pub high_watermark: Offset,
    /// Something that had been durable is not there any more: an unclean restart for this replica
    ///
    pub damaged_below_durable: bool,
    /// A checkpoint spoke of more than the log holds, and was not believed (S-4).
    pub checkpoint_ahead: bool,
    /// Bytes whose CRC was checked.
    pub scanned_bytes: u64,
    /// Bytes after the newest snapshot, whose batches were looked at for their producers.
    pub replayed_bytes: u64,
    /// Segments whose indexes were built anew.
    pub indexes_rebuilt: usize,
}

/// What the checkpoints of the directory say of one log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Marks {
    pub(crate) recovery_point: Option<Offset>,
    pub(crate) log_start_offset: Option<Offset>,
    pub(crate) high_watermark: Option<Offset>,
    /// It was written in mode `ack`, in which what is committed had been flushed here. The topic's
    /// settings may not be known yet.
    pub(crate) high_watermark_is_durable: bool,
    /// The log was truncated since, to here: marks above may speak of what was cut.
    pub(crate) durable_floor: Option<Offset>,
}

/// Everything needed to open a log whose directory exists.
#[derive(Clone, Debug)]
pub(crate) struct OpenLog {
    pub(crate) state: Arc<DirState>,
    pub(crate) topic: String,
    pub(crate) id: PartitionId,
    pub(crate) dir: PathBuf,
    pub(crate) config: LogConfig,
    pub(crate) marks: Marks,
    /// The process ended cleanly before.
    pub(crate) clean: bool,
    pub(crate) created: bool,
    /// Checks every batch, not only those from the recovery point on.
    pub(crate) check_all: bool,
    pub(crate) now: WallClockMs,
}

/// The files of a partition directory.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) logs: BTreeSet<Offset>,
    pub(super) indexed: BTreeSet<Offset>,
    snapshots: BTreeSet<Offset>,
    damaged: bool,
}

impl OpenLog {
    pub(crate) fn open(self) -> Result<(Log, Recovery), LogError> {
        match self.clone().open_once() {
            Err(LogError::Corrupt { offset }) => {
                // Found on the way to something else: the check cuts there and reports it (P-28).
                tracing::error!(dir = %self.dir.display(), %offset, "log is damaged, checking it all");
                let thorough = OpenLog {
                    clean: false,
                    check_all: true,
                    ..self
                };
                thorough.open_once()
            }
            answer => answer,
        }
    }

    fn open_once(mut self) -> Result<(Log, Recovery), LogError> {
        self.state.refuse_if_failed()?;
        self.tidy()?;
        let listing = self.list()?;
        let floor_path = self.dir.join(names::RECOVERY_FLOOR);
        let floor = read_small_file(&*self.state.files, &floor_path, 64);
        let floor = self
            .state
            .read("read", &floor_path, floor)?
            .map(|bytes| decode_floor(&bytes));
        self.marks.durable_floor = floor;
        if let (Some(floor), Some(point)) = (floor, &mut self.marks.recovery_point) {
            *point = floor.min(*point);
        }
        let recovered = recover_segments(&self, &listing)?;
        let recovery = Recovery {
            created: self.created,
            damaged_below_durable: listing.damaged || recovered.damaged,
            truncated_bytes: recovered.truncated_bytes,
            scanned_bytes: recovered.scanned_bytes,
            indexes_rebuilt: recovered.indexes_rebuilt,
            ..Recovery::default()
        };
        self.assemble(recovered, listing.snapshots, floor.is_some(), recovery)
    }

    /// Removes what an unfinished deletion, compaction or write left, and finishes swaps.
    fn tidy(&self) -> Result<(), LogError> {
        let mut changed = false;
        let entries = self
            .state
            .read("list", &self.dir, self.state.files.list(&self.dir))?;
        let cleaned = entries
            .iter()
            .filter(|entry| entry.name.ends_with(names::CLEANED))
            .filter_map(|entry| names::parse_segment_file(&entry.name))
            .map(|(base, _)| base)
            .min();
        for entry in &entries {
            let name = entry.name.as_str();
            let swap_of = name
                .strip_suffix(names::SWAP)
                .and_then(names::parse_segment_file);
            let unfinished_swap =
                swap_of.is_some_and(|(base, _)| cleaned.is_some_and(|cleaned| base >= cleaned));
            let litter = [names::DELETED, names::CLEANED, names::TEMPORARY]
                .iter()
                .any(|suffix| name.ends_with(suffix));
            if litter || unfinished_swap {
                self.state.remove_file(&self.dir.join(name))?;
                changed = true;
            } else if let Some((base, names::LOG)) = swap_of {
                super::recover::finish_swap(self, base)?;
                changed = true;
            }
        }
        if changed {
            self.state.sync_dir(&self.dir)?;
        }
        Ok(())
    }

    fn list(&self) -> Result<Listing, LogError> {
        let entries = self
            .state
            .read("list", &self.dir, self.state.files.list(&self.dir))?;
        let mut listing = Listing::default();
        let (mut offsets, mut times) = (BTreeSet::new(), BTreeSet::new());
        for entry in &entries {
            listing.damaged |= entry.name.ends_with(names::DAMAGED);
            let Some((base, suffix)) = names::parse_segment_file(&entry.name) else {
                continue;
            };
            let _ = match suffix {
                names::LOG => listing.logs.insert(base),
                names::OFFSET_INDEX => offsets.insert(base),
                names::TIME_INDEX => times.insert(base),
                names::SNAPSHOT | names::PRODUCERS => listing.snapshots.insert(base),
                _ => false,
            };
        }
        for base in offsets
            .union(&times)
            .filter(|base| !listing.logs.contains(base))
        {
            for suffix in [names::OFFSET_INDEX, names::TIME_INDEX, names::TXN_INDEX] {
                self.state
                    .remove_file(&self.dir.join(names::segment_file(*base, suffix)))?;
            }
        }
        listing.indexed = offsets.intersection(&times).copied().collect();
        Ok(listing)
    }

    fn assemble(
        self,
        mut recovered: Recovered,
        mut snapshots: BTreeSet<Offset>,
        floor: bool,
        mut recovery: Recovery,
    ) -> Result<(Log, Recovery), LogError> {
        let mark = self.marks.log_start_offset.unwrap_or(Offset::ZERO);
        let mut log_end_offset = recovered.active.end().offset;
        if log_end_offset < mark {
            // All that was left lies below the log start.
            recovery.checkpoint_ahead = true;
            self.drop_all(&mut recovered, mark)?;
            log_end_offset = mark;
        }
        let first = recovered
            .sealed
            .first()
            .map_or(recovered.active.base_offset(), |s| s.base_offset);
        let log_start_offset = mark.max(first);
        let high_watermark = self.marks.high_watermark.unwrap_or(log_start_offset);
        recovery.checkpoint_ahead |= high_watermark > log_end_offset
            || self
                .marks
                .recovery_point
                .is_some_and(|point| point > log_end_offset);
        recovery.high_watermark = high_watermark.clamp(log_start_offset, log_end_offset);
        let later = snapshots.split_off(&log_end_offset.next());
        let derived = DerivedFiles::new(self.dir.clone(), Arc::clone(&self.state));
        derived.set_epochs_version(1);
        for offset in &later {
            derived.remove_snapshot(*offset)?;
        }
        let flushed = self.state.register(
            &self.topic,
            self.id.partition,
            log_end_offset,
            self.config.counts_flushed_only(),
        );
        let segments = recovered.sealed.iter().cloned();
        let segments = segments
            .chain([Arc::clone(&recovered.active.segment)])
            .collect();
        let shared = Shared {
            snapshot: ArcSwap::from_pointee(Snapshot {
                generation: 0,
                segments,
            }),
            log_start_offset: AtomicI64::new(log_start_offset.get()),
            state: Arc::clone(&self.state),
            dir: self.dir.clone(),
        };
        let mut log = Log {
            topic: self.topic,
            id: self.id,
            dir: self.dir,
            state: self.state,
            config: self.config,
            sealed: recovered.sealed,
            active: recovered.active,
            log_start_offset,
            flushed_offset: log_end_offset,
            generation: 0,
            epochs: EpochCache::default(),
            epochs_version: 1,
            producers: Producers::default(),
            shared: Arc::new(shared),
            mark: flushed,
            derived: Arc::new(derived),
            unsynced: Vec::new(),
            dir_changes: 0,
            dir_synced: 0,
            pending_snapshots: Vec::new(),
            unsnapshotted_bytes: 0,
            snapshots,
            floor: None,
            detached: false,
        };
        // A checkpoint of this process is later than any floor found.
        log.floor = floor.then(|| log.state.checkpoints_begun());
        log.restore_derived(self.clean)?;
        recovery.replayed_bytes = log.unsnapshotted_bytes;
        if !self.clean || !later.is_empty() || recovered.changed {
            log.state.sync_dir(&log.dir)?;
        }
        Ok((log, recovery))
    }

    /// Removes every segment, from the newest on, and starts an empty one.
    fn drop_all(&self, recovered: &mut Recovered, start: Offset) -> Result<(), LogError> {
        let sealed = std::mem::take(&mut recovered.sealed);
        let bases = sealed.iter().map(|segment| segment.base_offset);
        let bases: Vec<Offset> = bases.chain([recovered.active.base_offset()]).collect();
        for base in bases.iter().rev() {
            for suffix in [
                names::LOG,
                names::OFFSET_INDEX,
                names::TIME_INDEX,
                names::TXN_INDEX,
            ] {
                self.state
                    .remove_file(&self.dir.join(names::segment_file(*base, suffix)))?;
            }
        }
        recovered.active = ActiveSegment::create(&self.state, &self.dir, start, self.now)?;
        recovered.changed = true;
        Ok(())
    }
}

impl Log {
    /// Brings epochs and producers in line with the batches (S-3).
    fn restore_derived(&mut self, clean: bool) -> Result<(), LogError> {
        let path = self.dir.join(names::EPOCHS);
        let text = match read_small_file(&*self.state.files, &path, EPOCHS_BYTES_MAX) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => None,
            Err(error) => self.state.read("read", &path, Err(error))?,
        };
        let found = text.as_deref().and_then(EpochCache::decode);
        self.epochs = found.clone().unwrap_or_default();
        self.epochs.truncate_from_end(self.log_end_offset());
        self.epochs.truncate_from_start(self.log_start_offset);
        self.rebuild_producers()?;
        // Epochs that began since the list was written were learned on the way.
        if found.is_none() || (!clean && !self.epochs_fit()?) {
            self.rebuild_epochs()?;
        }
        if found.as_ref() != Some(&self.epochs) {
            self.epochs_version += 1;
        }
        Ok(())
    }
}

/// Segments that were moved aside, with their base offsets.
pub(super) fn damaged_files(
    state: &DirState,
    dir: &Path,
) -> Result<Vec<(String, Offset)>, DiskError> {
    let entries = state.read("list", dir, state.files.list(dir))?;
    Ok(entries
        .into_iter()
        .filter(|entry| entry.name.ends_with(names::DAMAGED))
        .filter_map(|entry| {
            let base = names::parse_segment_file(&entry.name)?.0;
            Some((entry.name, base))
        })
        .collect())
}
