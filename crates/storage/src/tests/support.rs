//! A log directory in memory and batches to put there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ottla_records::{BatchBuilder, batches};
use ottla_types::{
    BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionId, PartitionIndex, ProducerEpoch,
    ProducerId, TopicId, WallClockMs,
};
use uuid::Uuid;

use crate::testing::MemFiles;
use crate::{Appended, Log, LogConfig, LogDir, PartitionMarks, ReadError, Recovery};

pub(super) const NOW: WallClockMs = WallClockMs(1_700_000_000_000);
pub(super) const TOPIC: &str = "orders";

pub(super) fn id() -> PartitionId {
    let topic_id = TopicId::new(Uuid::from_u128(7)).unwrap();
    PartitionId {
        topic_id,
        partition: PartitionIndex(0),
    }
}

pub(super) fn offset(n: i64) -> Offset {
    Offset::saturating(n)
}

pub(super) fn epoch(n: i32) -> LeaderEpoch {
    LeaderEpoch::saturating(n)
}

/// A config with small segments and an index entry for every few batches.
pub(super) fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 1000,
        index_interval_bytes: 200,
        ..LogConfig::default()
    }
}

/// A batch of `count` records whose values say `tag`.
pub(super) fn batch(tag: &str, count: usize) -> BytesMut {
    batch_at(NOW.0, tag, count)
}

pub(super) fn batch_at(timestamp: i64, tag: &str, count: usize) -> BytesMut {
    let mut builder = BatchBuilder::new(timestamp);
    for n in 0..count {
        let value = format!("{tag}/{n}");
        builder.push(
            timestamp + i64::try_from(n).unwrap(),
            None,
            Some(value.as_bytes()),
            &[],
        );
    }
    builder.build()
}

pub(super) fn idempotent(id: i64, epoch: i16, sequence: i32, count: usize) -> BytesMut {
    idempotent_at(NOW.0, id, epoch, sequence, count)
}

pub(super) fn idempotent_at(
    timestamp: i64,
    id: i64,
    epoch: i16,
    sequence: i32,
    count: usize,
) -> BytesMut {
    let mut builder = BatchBuilder::new(timestamp).producer(
        ProducerId(id),
        ProducerEpoch::saturating(epoch),
        sequence,
    );
    for n in 0..count {
        builder.push(
            timestamp,
            None,
            Some(format!("{id}/{sequence}+{n}").as_bytes()),
            &[],
        );
    }
    builder.build()
}

/// A log directory, its file system, and one log.
pub(super) struct Rig {
    pub(super) files: MemFiles,
    pub(super) dir: LogDir,
    pub(super) log: Log,
    pub(super) recovery: Recovery,
}

pub(super) fn root() -> PathBuf {
    PathBuf::from("/data")
}

impl Rig {
    pub(super) fn new(config: LogConfig) -> Rig {
        Rig::open(MemFiles::new(), config)
    }

    pub(super) fn open(files: MemFiles, config: LogConfig) -> Rig {
        let (dir, _) = LogDir::open(&root(), BrokerId(1), Arc::new(files.clone())).unwrap();
        let (log, recovery) = dir.open_log(TOPIC, id(), config, NOW).unwrap();
        Rig {
            files,
            dir,
            log,
            recovery,
        }
    }

    pub(super) fn partition_dir(&self) -> PathBuf {
        self.log.path().to_owned()
    }

    pub(super) fn append(&mut self, tag: &str, count: usize) -> Appended {
        let leader_epoch = self.log.latest_epoch().unwrap_or(epoch(0));
        self.log
            .append_as_leader(batch(tag, count), leader_epoch, NOW)
            .unwrap()
    }

    pub(super) fn flush(&mut self) {
        if let Some(job) = self.log.begin_flush() {
            self.log.on_flushed(job.run()).unwrap();
        }
    }

    pub(super) fn marks(&self, high_watermark: Offset) -> PartitionMarks {
        PartitionMarks {
            topic: TOPIC.to_owned(),
            id: id(),
            recovery_point: self.log.flushed_offset(),
            log_start_offset: self.log.log_start_offset(),
            high_watermark,
        }
    }

    pub(super) fn checkpoint(&self) {
        self.dir
            .write_checkpoints(&[self.marks(self.log.flushed_offset())])
            .unwrap();
    }

    /// Ends cleanly and starts again.
    pub(super) fn restart(self) -> Rig {
        let config = self.log.config().clone();
        let (log_end, log_start) = (self.log.log_end_offset(), self.log.log_start_offset());
        self.log.close().unwrap();
        let marks = PartitionMarks {
            topic: TOPIC.to_owned(),
            id: id(),
            recovery_point: log_end,
            log_start_offset: log_start,
            high_watermark: log_end,
        };
        self.dir.write_checkpoints(&[marks]).unwrap();
        self.dir.mark_clean_shutdown(BrokerEpoch::new(5)).unwrap();
        Rig::open(self.files.after_kill(), config)
    }

    /// Dies and starts again.
    pub(super) fn kill(self) -> Rig {
        let config = self.log.config().clone();
        Rig::open(self.files.after_kill(), config)
    }

    /// Loses power and starts again.
    pub(super) fn power_cut(self, seed: u64) -> Rig {
        let config = self.log.config().clone();
        Rig::open(self.files.after_power_cut(seed), config)
    }

    /// Everything that can be read.
    pub(super) fn contents(&self) -> Vec<Bytes> {
        read_all(&self.log).unwrap()
    }
}

/// Every batch that can be read, in order.
pub(super) fn read_all(log: &Log) -> Result<Vec<Bytes>, ReadError> {
    let reader = log.reader();
    let (mut at, end, mut all) = (
        reader.log_start_offset(),
        reader.log_end_offset(),
        Vec::new(),
    );
    while at < end {
        let (bytes, next) = reader.read(at, end, 700, true)?;
        assert!(next > at, "no progress at {at} of {end}");
        all.extend(batches(&bytes).map(|batch| bytes.slice_ref(batch.unwrap().1)));
        at = next;
    }
    Ok(all)
}

pub(super) fn segment_path(dir: &Path, base: i64, suffix: &str) -> PathBuf {
    dir.join(crate::names::segment_file(offset(base), suffix))
}

/// Appends `count` batches, a new epoch every eight.
pub(super) fn fill(rig: &mut Rig, count: i32) -> Vec<Bytes> {
    (0..count)
        .map(|n| {
            let batch = batch(&format!("batch {n}"), 2);
            rig.log
                .append_as_leader(batch, epoch(n / 8), NOW)
                .unwrap()
                .bytes
        })
        .collect()
}
