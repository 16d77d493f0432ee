//! The committed base: the fold of an offsets partition's records below its high watermark.
//!
//! Every replica keeps it, so that the next leader starts with it (G-6). It is a function of the
//! records alone, but for the instants at which they were first seen here: those bound how early
//! an offset may expire, without asking the wall clock (G-8, P-22).

use std::{collections::BTreeMap, ops::Bound};

use ottla_types::{LeaderEpoch, MonotonicMs, PartitionIndex, ProducerId, TopicId, WallClockMs};

use crate::record::{GroupMetadataValue, OffsetCommitValue, OffsetsRecord};

/// The stored offset of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The offset of the next record to read.
    pub offset: i64,
    /// The epoch of the last record read.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The client's own words.
    pub metadata: String,
    /// When it was committed.
    pub commit_timestamp: WallClockMs,
    /// When it lapses, if the client said so.
    pub expire_timestamp: Option<WallClockMs>,
    /// Which topic of that name, where known.
    pub topic_id: Option<TopicId>,
    /// When this process first saw it.
    pub seen_at: MonotonicMs,
}

impl CommittedOffset {
    fn new(now: MonotonicMs, value: OffsetCommitValue) -> CommittedOffset {
        CommittedOffset {
            offset: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: value.metadata,
            commit_timestamp: value.commit_timestamp,
            expire_timestamp: value.expire_timestamp,
            topic_id: value.topic_id,
            seen_at: now,
        }
    }

    fn value(&self) -> OffsetCommitValue {
        OffsetCommitValue {
            offset: self.offset,
            leader_epoch: self.leader_epoch,
            metadata: self.metadata.clone(),
            commit_timestamp: self.commit_timestamp,
            expire_timestamp: self.expire_timestamp,
            topic_id: self.topic_id,
        }
    }

    /// How long it is kept after it began to age.
    pub(crate) fn retention_ms(&self, default_ms: u64) -> u64 {
        match self.expire_timestamp {
            Some(expire) => {
                u64::try_from(expire.0.saturating_sub(self.commit_timestamp.0)).unwrap_or(0)
            }
            None => default_ms,
        }
    }
}

/// What is stored of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommittedGroup {
    /// Its last stored generation, and when this process first saw it.
    pub metadata: Option<(MonotonicMs, GroupMetadataValue)>,
    /// Its offsets by topic.
    pub offsets: BTreeMap<String, BTreeMap<PartitionIndex, CommittedOffset>>,
}

impl CommittedGroup {
    /// The offset of one partition.
    #[must_use]
    pub fn offset(&self, topic: &str, partition: PartitionIndex) -> Option<&CommittedOffset> {
        self.offsets.get(topic)?.get(&partition)
    }

    fn is_empty(&self) -> bool {
        self.metadata.is_none() && self.offsets.is_empty()
    }

    /// True if there was one.
    fn remove_offset(&mut self, topic: &str, partition: PartitionIndex) -> bool {
        let Some(partitions) = self.offsets.get_mut(topic) else {
            return false;
        };
        let removed = partitions.remove(&partition).is_some();
        if partitions.is_empty() {
            self.offsets.remove(topic);
        }
        removed
    }
}

/// Everything stored in one offsets partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommittedState {
    groups: BTreeMap<String, CommittedGroup>,
    /// How many offsets they have stored.
    offset_count: usize,
    /// Offsets of open transactions, in the order in which they were written (G-7).
    open: BTreeMap<ProducerId, Vec<OffsetsRecord>>,
}

impl CommittedState {
    /// Folds in one record.
    pub fn apply(&mut self, now: MonotonicMs, record: OffsetsRecord) {
        match record {
            OffsetsRecord::Offset {
                group_id,
                topic,
                partition,
                value: Some(value),
            } => {
                let group = self.groups.entry(group_id).or_default();
                let partitions = group.offsets.entry(topic).or_default();
                let replaced = partitions.insert(partition, CommittedOffset::new(now, value));
                self.offset_count += usize::from(replaced.is_none());
            }
            OffsetsRecord::Offset {
                group_id,
                topic,
                partition,
                value: None,
            } => {
                let mut removed = false;
                self.change(&group_id, |group| {
                    removed = group.remove_offset(&topic, partition);
                });
                self.offset_count -= usize::from(removed);
            }
            OffsetsRecord::Group {
                group_id,
                value: Some(value),
            } => {
                self.groups.entry(group_id).or_default().metadata = Some((now, value));
            }
            OffsetsRecord::Group {
                group_id,
                value: None,
            } => {
                self.change(&group_id, |group| group.metadata = None);
            }
        }
    }

    fn change(&mut self, group_id: &str, change: impl FnOnce(&mut CommittedGroup)) {
        if let Some(group) = self.groups.get_mut(group_id) {
            change(group);
            if group.is_empty() {
                self.groups.remove(group_id);
            }
        }
    }

    /// Keeps a record of a transaction until its outcome is known.
    pub fn apply_transactional(&mut self, producer_id: ProducerId, record: OffsetsRecord) {
        self.open.entry(producer_id).or_default().push(record);
    }

    /// A transaction's marker: its records count from here, or never did.
    pub fn end_transaction(&mut self, now: MonotonicMs, producer_id: ProducerId, commit: bool) {
        for record in self.open.remove(&producer_id).unwrap_or_default() {
            if commit {
                self.apply(now, record);
            }
        }
    }

    /// Whether an open transaction would move the group's offset of this partition.
    #[must_use]
    pub fn is_unstable(&self, group_id: &str, topic: &str, partition: PartitionIndex) -> bool {
        self.open.values().flatten().any(|record| match record {
            OffsetsRecord::Offset {
                group_id: g,
                topic: t,
                partition: p,
                ..
            } => g == group_id && t == topic && *p == partition,
            OffsetsRecord::Group { .. } => false,
        })
    }

    /// Whether an open transaction would move any offset of the group.
    #[must_use]
    pub fn has_open_transaction(&self, group_id: &str) -> bool {
        self.open.values().flatten().any(|record| match record {
            OffsetsRecord::Offset { group_id: g, .. } => g == group_id,
            OffsetsRecord::Group { .. } => false,
        })
    }

    /// What is stored of one group.
    #[must_use]
    pub fn group(&self, group_id: &str) -> Option<&CommittedGroup> {
        self.groups.get(group_id)
    }

    /// What is stored of the first group after `after`, or of the first of all, as the records from
    /// which another base can be built; with the group's id.
    #[must_use]
    pub fn records_after(&self, after: Option<&str>) -> Option<(&str, Vec<OffsetsRecord>)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = (from, Bound::Unbounded);
        let (group_id, group) = self.groups.range::<str, _>(range).next()?;
        let offsets = group.offsets.iter().flat_map(|(topic, partitions)| {
            partitions
                .iter()
                .map(move |(partition, offset)| OffsetsRecord::Offset {
                    group_id: group_id.clone(),
                    topic: topic.clone(),
                    partition: *partition,
                    value: Some(offset.value()),
                })
        });
        let metadata = group.metadata.as_ref();
        let metadata = metadata.map(|(_, value)| OffsetsRecord::Group {
            group_id: group_id.clone(),
            value: Some(value.clone()),
        });
        Some((group_id, metadata.into_iter().chain(offsets).collect()))
    }

    /// Records of transactions that are still open, in the order in which they were written.
    pub fn open_records(&self) -> impl Iterator<Item = (ProducerId, &OffsetsRecord)> {
        self.open
            .iter()
            .flat_map(|(producer_id, records)| records.iter().map(|record| (*producer_id, record)))
    }

    /// How many offsets are stored.
    #[must_use]
    pub fn offset_count(&self) -> usize {
        self.offset_count
    }

    /// Every stored group.
    pub fn groups(&self) -> impl Iterator<Item = (&String, &CommittedGroup)> {
        self.groups.iter()
    }
}
