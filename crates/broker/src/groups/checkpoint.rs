//! The base of one offsets partition on disk, so that a restart replays the tail of the log only.
//!
//! A file of our own beside the partition's segments, replaced as a whole: magic, version, CRC-32C
//! of the rest, whose base it is and how far it has folded, then the records from which it can be
//! built. It is derived (S-3): without it, or where it does not fit the log, everything is replayed.
//!
//! It is written while records keep arriving, a slice at a time, so it may hold some that come after
//! its position. Replaying those again changes nothing in the end: the last record of a key decides,
//! and nothing is served before all of the log is folded (G-6).
//!
//! # Invariant
//! A checkpoint is believed only for the same topic id, within the log, and after the log has
//! confirmed that the epoch of its last record ends no earlier there.

use std::{io, io::IoSlice, path::Path};

use bytes::{Buf, BufMut};

use ottla_coordinator::{CommittedState, Coordinator, Now, OffsetsRecord};
use ottla_storage::{Access, Files};
use ottla_types::{LeaderEpoch, Offset, PartitionId, PartitionIndex, ProducerId, TopicId};

use super::tail::Position;

/// Its name in the partition's directory.
pub(super) const FILE_NAME: &str = "groups.checkpoint";
const TEMPORARY_NAME: &str = "groups.checkpoint.tmp";

const MAGIC: &[u8; 8] = b"OTTLAGRP";
const VERSION: u16 = 1;
/// Magic, version, checksum.
const HEAD_BYTES: usize = 8 + 2 + 4;
/// Topic id, partition, offset, epoch.
const IDENTITY_BYTES: usize = 16 + 4 + 8 + 4;
/// How much is encoded before the owner looks at its inbox again.
const SLICE_BYTES: usize = 128 << 10;
/// Larger bases are not written; they could not be read in one piece.
const FILE_BYTES_MAX: usize = 1 << 30;
/// The producer id of a record outside transactions.
const NO_PRODUCER: i64 = -1;

/// A checkpoint being made.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) offset: Offset,
    bytes: Vec<u8>,
    /// The last group that is in it.
    after: Option<String>,
}

impl Draft {
    /// Begins one at this position; `None` where there is nothing to hold on to.
    pub(super) fn begin(id: PartitionId, position: Position) -> Option<Draft> {
        let epoch = position.epoch?;
        let mut bytes = Vec::with_capacity(SLICE_BYTES);
        bytes.put_slice(MAGIC);
        bytes.put_u16(VERSION);
        bytes.put_u32(0); // The checksum, when the rest is there.
        bytes.put_slice(id.topic_id.uuid().as_bytes());
        bytes.put_i32(id.partition.get());
        bytes.put_i64(position.offset.get());
        bytes.put_i32(epoch.get());
        Some(Draft {
            offset: position.offset,
            bytes,
            after: None,
        })
    }

    /// Adds the next slice. True when all is in it; `None` if it cannot be made.
    pub(super) fn add(&mut self, state: &CommittedState) -> Option<bool> {
        let end = self.bytes.len() + SLICE_BYTES;
        while self.bytes.len() < end {
            let Some((group_id, records)) = state.records_after(self.after.as_deref()) else {
                for (producer, record) in state.open_records() {
                    self.put(producer.get(), record)?;
                }
                return Some(true);
            };
            for record in &records {
                self.put(NO_PRODUCER, record)?;
            }
            self.after = Some(group_id.to_owned());
        }
        (self.bytes.len() <= FILE_BYTES_MAX).then_some(false)
    }

    fn put(&mut self, producer: i64, record: &OffsetsRecord) -> Option<()> {
        let (key, value) = record.encode().ok()?;
        self.bytes.put_i64(producer);
        self.bytes.put_u32(u32::try_from(key.len()).ok()?);
        self.bytes.put_slice(&key);
        let value = value?;
        self.bytes.put_u32(u32::try_from(value.len()).ok()?);
        self.bytes.put_slice(&value);
        Some(())
    }

    /// The whole file.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let checksum = crc32c::crc32c(&self.bytes[HEAD_BYTES..]);
        self.bytes[HEAD_BYTES - 4..HEAD_BYTES].copy_from_slice(&checksum.to_be_bytes());
        self.bytes
    }
}

/// A checkpoint as read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) position: Position,
    records: Vec<(Option<ProducerId>, OffsetsRecord)>,
}

impl Checkpoint {
    /// Reads the file of this partition; `None` if it says nothing that can be believed.
    fn decode(id: PartitionId, bytes: &[u8]) -> Option<Checkpoint> {
        let (head, body) = bytes.split_at_checked(HEAD_BYTES)?;
        let mut head = head.strip_prefix(MAGIC)?;
        if head.get_u16() != VERSION || head.get_u32() != crc32c::crc32c(body) {
            return None;
        }
        let mut body = body;
        if body.len() < IDENTITY_BYTES {
            return None;
        }
        let topic_id = TopicId::new(uuid::Uuid::from_u128(body.get_u128()))?;
        let partition = PartitionIndex::new(body.get_i32())?;
        if (PartitionId {
            topic_id,
            partition,
        }) != id
        {
            return None;
        }
        let offset = Offset::new(body.get_i64())?;
        let epoch = Some(LeaderEpoch::new(body.get_i32())?);
        let mut records = Vec::new();
        while !body.is_empty() {
            let producer = ProducerId::new(body.try_get_i64().ok()?);
            let key = take(&mut body)?;
            let value = take(&mut body)?;
            let record = OffsetsRecord::decode(key, Some(value)).ok()??;
            records.push((producer, record));
        }
        let position = Position { offset, epoch };
        Some(Checkpoint { position, records })
    }

    /// Builds the base.
    pub(super) fn apply(self, now: Now, coordinator: &mut Coordinator) {
        for (producer, record) in self.records {
            match producer {
                Some(producer) => coordinator.apply_transactional(producer, record),
                None => coordinator.apply(now, record),
            }
        }
    }
}

fn take<'a>(body: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(body.try_get_u32().ok()?).ok()?;
    let (taken, rest) = body.split_at_checked(len)?;
    *body = rest;
    Some(taken)
}

/// Reads a partition's checkpoint; waits for the disk.
pub(super) fn read(files: &dyn Files, dir: &Path, id: PartitionId) -> Option<Checkpoint> {
    let file = files.open(&dir.join(FILE_NAME), Access::Read).ok()?;
    let size = usize::try_from(file.size().ok()?).ok()?;
    if size > FILE_BYTES_MAX {
        return None;
    }
    let mut bytes = vec![0; size];
    let mut at = 0;
    while at < size {
        match file.read_at(&mut bytes[at..], u64::try_from(at).ok()?) {
            Ok(0) => return None,
            Ok(read) => at += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    let checkpoint = Checkpoint::decode(id, &bytes);
    if checkpoint.is_none() {
        tracing::warn!(partition = %id, "checkpoint of groups not believed, the log is replayed");
    }
    checkpoint
}

/// Puts a checkpoint in the place of the last one; waits for the disk.
pub(super) fn write(files: &dyn Files, dir: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(TEMPORARY_NAME);
    let file = files.open(&temporary, Access::Replace)?;
    let mut at = 0;
    while at < bytes.len() {
        let position = u64::try_from(at).unwrap_or(u64::MAX);
        match file.write_at(&[IoSlice::new(&bytes[at..])], position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => at += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    file.sync()?;
    files.rename(&temporary, &dir.join(FILE_NAME))?;
    files.sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use ottla_coordinator::OffsetCommitValue;
    use ottla_storage::OsFiles;
    use ottla_types::{MonotonicMs, WallClockMs};
    use uuid::Uuid;

    use super::*;

    const NOW: Now = Now {
        monotonic: MonotonicMs(5),
        wall: WallClockMs(7),
    };

    fn id(topic: u128) -> PartitionId {
        PartitionId {
            topic_id: TopicId::new(Uuid::from_u128(topic)).unwrap(),
            partition: PartitionIndex(3),
        }
    }

    fn record(group: usize, partition: i32) -> OffsetsRecord {
        OffsetsRecord::Offset {
            group_id: format!("group-{group}"),
            topic: "t".to_owned(),
            partition: PartitionIndex(partition),
            value: Some(OffsetCommitValue {
                offset: 9,
                leader_epoch: LeaderEpoch::new(2),
                metadata: "m".repeat(40),
                commit_timestamp: WallClockMs(1),
                expire_timestamp: None,
                topic_id: TopicId::new(Uuid::from_u128(8)),
            }),
        }
    }

    fn state() -> CommittedState {
        let mut state = CommittedState::default();
        for group in 0..2_000 {
            state.apply(NOW.monotonic, record(group, 0));
            state.apply(NOW.monotonic, record(group, 1));
        }
        state.apply_transactional(ProducerId(4), record(1, 1));
        state
    }

    fn encode(state: &CommittedState) -> (Vec<u8>, usize) {
        let position = Position {
            offset: Offset::saturating(4_001),
            epoch: LeaderEpoch::new(6),
        };
        let mut draft = Draft::begin(id(1), position).unwrap();
        let mut slices = 1;
        while !draft.add(state).unwrap() {
            slices += 1;
        }
        (draft.finish(), slices)
    }

    #[test]
    fn a_checkpoint_holds_the_base_and_is_made_in_slices() {
        let state = state();
        let (bytes, slices) = encode(&state);
        assert!(slices > 2, "{slices}");
        let dir = tempfile::tempdir().unwrap();
        write(&OsFiles, dir.path(), b"an older one, to be replaced").unwrap();
        assert_eq!(read(&OsFiles, dir.path(), id(1)), None);
        write(&OsFiles, dir.path(), &bytes).unwrap();
        let checkpoint = read(&OsFiles, dir.path(), id(1)).unwrap();
        assert_eq!(checkpoint.position.offset, Offset::saturating(4_001));
        assert_eq!(checkpoint.position.epoch, LeaderEpoch::new(6));
        let mut coordinator = Coordinator::new(ottla_coordinator::GroupRules::default());
        checkpoint.apply(NOW, &mut coordinator);
        assert_eq!(coordinator.committed(), &state);
        assert_eq!(read(&OsFiles, dir.path(), id(2)), None, "R-18");
    }

    #[test]
    fn s3_a_damaged_checkpoint_says_nothing() {
        let mut small = CommittedState::default();
        small.apply(NOW.monotonic, record(1, 1));
        let (bytes, _) = encode(&small);
        assert!(Checkpoint::decode(id(1), &bytes).is_some());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(Checkpoint::decode(id(1), &damaged), None, "{at}");
            assert_eq!(Checkpoint::decode(id(1), &bytes[..at]), None, "{at}");
        }
    }
}
