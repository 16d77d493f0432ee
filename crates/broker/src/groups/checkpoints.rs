//! When checkpoints of the bases are read and written, and on which threads.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use tokio::{task::spawn_blocking, time::Instant};
use tracing::{info, warn};

use ottla_storage::OsFiles;
use ottla_types::{Offset, PartitionId};

use super::{
    checkpoint::{self, Checkpoint},
    owner::Owner,
};

/// How often a partition is looked for whose checkpoint is due.
pub(super) const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(30);
/// So few records are replayed in no time.
const RECORDS_MIN: i64 = 1_000;

/// A disk job is done.
pub(super) enum DiskJob {
    Read(PartitionId, Option<Checkpoint>),
    Written(PartitionId, Offset, std::io::Result<()>),
}

impl Owner {
    /// Looks for the partition's checkpoint, away from the owner's thread.
    pub(super) fn read_checkpoint(&mut self, id: PartitionId) {
        let dir = self.log.partition_dir(id);
        let read = async move {
            let read = move || checkpoint::read(&OsFiles, &dir?, id);
            DiskJob::Read(id, spawn_blocking(read).await.unwrap_or(None))
        };
        self.disk_jobs.push(read.boxed());
    }

    pub(super) fn on_disk_job(&mut self, job: DiskJob) {
        match job {
            DiskJob::Read(id, checkpoint) => self.on_checkpoint_read(id, checkpoint),
            DiskJob::Written(id, offset, written) => {
                self.is_writing = false;
                match written {
                    Ok(()) => info!(partition = %id, %offset, "wrote checkpoint of groups"),
                    Err(error) => warn!(partition = %id, %error, "write checkpoint of groups"),
                }
            }
        }
    }

    fn on_checkpoint_read(&mut self, id: PartitionId, checkpoint: Option<Checkpoint>) {
        let now = self.clock.now();
        let status = self.log.replica_status(id);
        let hosted = self.partitions.get_mut(&id.partition);
        let Some(hosted) = hosted.filter(|h| h.id == id && h.is_reading) else {
            return;
        };
        let Some(status) = status else {
            hosted.is_reading = false; // The replica is gone again.
            return;
        };
        let (start, end) = (status.log_start_offset, status.log_end_offset);
        hosted.restore(now, start, end, checkpoint);
        self.check_tail = true;
        self.refresh_role(id.partition);
    }

    /// Encodes the next slice of the checkpoint that is being made, or begins one that is due.
    pub(super) fn advance_checkpoint(&mut self) {
        if !self.is_drafting {
            let now = Instant::now();
            if self.is_writing || now < self.next_checkpoint {
                return;
            }
            let due = self
                .partitions
                .values_mut()
                .filter(|hosted| hosted.since_checkpoint() >= RECORDS_MIN)
                .max_by_key(|hosted| hosted.since_checkpoint());
            self.is_drafting = due.is_some_and(|hosted| hosted.begin_checkpoint());
            if !self.is_drafting {
                self.next_checkpoint = now + CHECKPOINT_INTERVAL;
                return;
            }
        }
        let drafting = self.partitions.values_mut().find(|h| h.draft.is_some());
        let Some(hosted) = drafting else {
            self.is_drafting = false; // Its partition is gone, or began anew.
            return;
        };
        let id = hosted.id;
        let Some(mut draft) = hosted.draft.take() else {
            return;
        };
        match draft.add(hosted.coordinator.committed()) {
            Some(false) => hosted.draft = Some(draft),
            Some(true) => {
                (self.is_drafting, self.is_writing) = (false, true);
                let (dir, offset) = (self.log.partition_dir(id), draft.offset);
                let write = async move {
                    let write = move || match dir {
                        Some(dir) => checkpoint::write(&OsFiles, &dir, &draft.finish()),
                        None => Ok(()),
                    };
                    let written = spawn_blocking(write).await;
                    let written = written.unwrap_or_else(|error| Err(error.into()));
                    DiskJob::Written(id, offset, written)
                };
                self.disk_jobs.push(write.boxed());
            }
            None => {
                self.is_drafting = false;
                warn!(partition = %id, "checkpoint of groups cannot be made");
            }
        }
    }

    /// Writes what is due before the end.
    pub(super) async fn write_last_checkpoints(&mut self) {
        self.next_checkpoint = Instant::now();
        loop {
            self.advance_checkpoint();
            if self.is_writing {
                match self.disk_jobs.next().await {
                    Some(DiskJob::Read(..)) => {} // Nobody needs it any more.
                    Some(job) => self.on_disk_job(job),
                    None => return,
                }
            } else if !self.is_drafting && self.next_checkpoint > Instant::now() {
                return;
            }
        }
    }
}
