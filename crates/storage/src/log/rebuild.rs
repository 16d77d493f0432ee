//! Rebuilding what is derived from the batches: producer state and the epoch list (S-3).

use std::sync::Arc;

use ottla_records::end_transaction;
use ottla_types::{LeaderEpoch, Offset};

use super::Log;
use crate::epoch_cache::EpochCache;
use crate::error::LogError;
use crate::files::read_small_file;
use crate::names;
use crate::producer_snapshot;
use crate::producers::Producers;
use crate::scan::{Found, HeadScan, SCAN_CHUNK, ScanError, read_batch};
use crate::segment::Segment;

/// A control batch is a handful of bytes.
const CONTROL_BYTES_MAX: usize = 64 * 1024;
/// Largest producer snapshot that is believed.
const SNAPSHOT_BYTES_MAX: usize = 256 << 20;

#[cfg(test)]
impl Log {
    /// Epochs and producers derived from the batches alone, as if every file of them were lost.
    pub(crate) fn derived_anew(&mut self) -> (EpochCache, Vec<crate::ActiveProducer>) {
        let kept = (
            std::mem::take(&mut self.snapshots),
            self.epochs.clone(),
            self.producers.clone(),
            self.epochs_version,
        );
        let unsnapshotted_bytes = self.unsnapshotted_bytes;
        self.rebuild_producers().expect("the log can be read");
        self.rebuild_epochs().expect("the log can be read");
        let anew = (self.epochs.clone(), self.producers());
        (
            self.snapshots,
            self.epochs,
            self.producers,
            self.epochs_version,
        ) = kept;
        self.unsnapshotted_bytes = unsnapshotted_bytes;
        anew
    }
}

impl Log {
    fn all_segments(&self) -> Vec<Arc<Segment>> {
        self.sealed
            .iter()
            .cloned()
            .chain([Arc::clone(&self.active.segment)])
            .collect()
    }

    /// Brings the producer state to the log's end: from the newest usable snapshot, and the
    /// batches after it.
    pub(super) fn rebuild_producers(&mut self) -> Result<(), LogError> {
        let end = self.log_end_offset();
        let mut from = self.first_base_offset();
        let mut producers = Producers::default();
        let mut newest_only = None;
        for offset in self.snapshots.range(..=end).rev().copied() {
            let read = |suffix| {
                let path = self.dir.join(names::segment_file(offset, suffix));
                read_small_file(&*self.state.files, &path, SNAPSHOT_BYTES_MAX)
                    .ok()
                    .flatten()
            };
            if let Some(found) = read(names::PRODUCERS).and_then(|b| producer_snapshot::decode(&b))
            {
                (producers, from) = (found, offset);
                break;
            }
            if newest_only.is_none() {
                newest_only =
                    read(names::SNAPSHOT).and_then(|b| producer_snapshot::decode_kafka(&b));
            }
        }
        self.producers = producers;
        self.unsnapshotted_bytes = 0;
        self.walk(from, |log, segment, found| {
            if let Some(epoch) = found.header.leader_epoch()
                && found.header.last_offset() >= log.log_start_offset
                && log.epochs.latest().is_none_or(|latest| latest < epoch)
            {
                let start = found.header.first_offset().max(log.log_start_offset);
                log.assign_epoch(epoch, start);
            }
            log.replay(segment, found)
        })?;
        // Kafka's snapshot knows one batch of each producer: enough for those silent since.
        for (id, producer) in newest_only.iter().flat_map(Producers::iter) {
            if !self.producers.contains(id) {
                self.producers.insert(id, producer.clone());
            }
        }
        self.producers.bound(self.config.producer_ids_max);
        Ok(())
    }

    fn replay(&mut self, segment: &Segment, found: &Found) -> Result<(), ScanError> {
        let header = &found.header;
        let marker = if header.producer_id >= 0 && header.attributes.is_control() {
            let batch = read_batch(&*segment.file, found, CONTROL_BYTES_MAX)?;
            batch.and_then(|batch| end_transaction(&batch).ok().flatten())
        } else {
            None
        };
        self.producers.apply(header, marker);
        self.unsnapshotted_bytes += header.size_bytes() as u64;
        Ok(())
    }

    /// Gives every batch from the one that holds `from` on to `each`.
    fn walk(
        &mut self,
        from: Offset,
        mut each: impl FnMut(&mut Log, &Segment, &Found) -> Result<(), ScanError>,
    ) -> Result<(), LogError> {
        for segment in self.all_segments() {
            let end = segment.end();
            if end.offset <= from || end.position == 0 {
                continue;
            }
            let first = self.scanned(segment.find(from), from)?;
            let Some(first) = first else { continue };
            let mut scan = HeadScan::new(&*segment.file, first.position, end.position, SCAN_CHUNK);
            while let Some(found) = self.scanned(scan.next(), from)? {
                let answer = each(self, &segment, &found);
                self.scanned(answer, from)?;
            }
        }
        Ok(())
    }

    /// Rebuilds the epoch list from the heads of all batches.
    pub(super) fn rebuild_epochs(&mut self) -> Result<(), LogError> {
        self.epochs.clear();
        self.epochs_version += 1;
        self.walk(self.log_start_offset, |log, _, found| {
            if let Some(epoch) = found.header.leader_epoch() {
                let start = found.header.first_offset().max(log.log_start_offset);
                log.epochs.assign(epoch, start);
            }
            Ok(())
        })
    }

    /// Whether the epoch list is what the batches say. Epochs never fall along the log, so it is
    /// enough to look at both sides of every entry and at both ends.
    pub(super) fn epochs_fit(&self) -> Result<bool, LogError> {
        let (start, end) = (self.log_start_offset, self.log_end_offset());
        if start >= end {
            return Ok(true);
        }
        let at = |offset: Offset| self.batch_epoch(offset);
        let listed = |cache: &EpochCache, offset| cache.epoch_at(offset);
        let mut offsets = vec![start, Offset::saturating(end.get() - 1)];
        for entry in self.epochs.entries() {
            offsets.push(entry.start_offset);
            if entry.start_offset > start {
                offsets.push(Offset::saturating(entry.start_offset.get() - 1));
            }
        }
        for offset in offsets {
            if offset < end && at(offset)? != listed(&self.epochs, offset) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The leader epoch of the batch that holds `offset`.
    fn batch_epoch(&self, offset: Offset) -> Result<Option<LeaderEpoch>, LogError> {
        for segment in self.all_segments() {
            if segment.end().offset > offset
                && let Some(found) = self.scanned(segment.find(offset), offset)?
            {
                return Ok(found.header.leader_epoch());
            }
        }
        Ok(None)
    }
}
