//! Committing and fetching offsets.

use ottla_types::{PartitionIndex, WallClockMs};

use crate::{
    CommitPartition, CommitRequest, CommittedGroup, CommittedTopic, FetchOffsetsRequest,
    FetchedOffset, FetchedTopic, GroupError, OffsetCommitValue, OffsetsRecord, Reply, ReplyToken,
    group::{Group, Now},
    outbox::Purpose,
};

use super::{Coordinator, GROUP_ID_BYTES_MAX, Topics};

impl Coordinator {
    /// A member, or a tool, stores offsets: answered when they are committed (G-1).
    pub fn commit_offsets(
        &mut self,
        now: Now,
        request: &CommitRequest,
        topics: &dyn Topics,
        token: ReplyToken,
    ) {
        if let Err(error) = self.check_commit(now, request) {
            self.outbox.reply(token, Reply::Commit(Err(error)));
            return;
        }
        let mut records = Vec::new();
        let mut answer = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let result = self.check_offset(&topic.name, partition, topics);
                if result.is_ok() {
                    let value = offset_value(now, request, &topic.name, partition, topics);
                    records.push(OffsetsRecord::Offset {
                        group_id: request.group_id.clone(),
                        topic: topic.name.clone(),
                        partition: partition.partition,
                        value: Some(value),
                    });
                }
                partitions.push((partition.partition, result));
            }
            answer.push(CommittedTopic {
                name: topic.name.clone(),
                partitions,
            });
        }
        if records.is_empty() {
            self.outbox.reply(token, Reply::Commit(Ok(answer)));
            return;
        }
        let group_id = request.group_id.clone();
        let group = self
            .groups
            .entry(group_id.clone())
            .or_insert_with(|| Group::new(&group_id, now));
        group.add_pending_offsets(&answer);
        let purpose = Purpose::Commit {
            group_id,
            token,
            answer,
        };
        self.outbox.persist(records, purpose);
    }

    fn check_commit(&mut self, now: Now, request: &CommitRequest) -> Result<(), GroupError> {
        // The empty id is allowed here, and names a group like any other.
        if request.group_id.len() > GROUP_ID_BYTES_MAX {
            return Err(GroupError::InvalidGroupId);
        }
        match self.groups.get_mut(&request.group_id) {
            Some(group) => group.check_commit(now, request),
            // Nobody can be in a generation of a group that does not exist.
            None if request.generation.is_some() => Err(GroupError::GroupIdNotFound),
            None => Ok(()),
        }
    }

    fn check_offset(
        &self,
        topic: &str,
        partition: &CommitPartition,
        topics: &dyn Topics,
    ) -> Result<(), GroupError> {
        if !topics.has_partition(topic, partition.partition) {
            return Err(GroupError::UnknownTopicOrPartition);
        }
        if partition.metadata.len() > self.rules.offset_metadata_bytes_max {
            return Err(GroupError::OffsetMetadataTooLarge);
        }
        Ok(())
    }

    /// Stored offsets, from the committed base alone (G-1, P-44).
    #[must_use]
    pub fn fetch_offsets(
        &self,
        request: &FetchOffsetsRequest,
        topics: &dyn Topics,
    ) -> Vec<FetchedTopic> {
        let stored = self.committed.group(&request.group_id);
        let fetch = |topic: &str, partition: PartitionIndex| FetchedOffset {
            partition,
            committed: stored
                .and_then(|group| group.offset(topic, partition))
                // An offset in a topic's former life says nothing about its namesake.
                .filter(|offset| match (offset.topic_id, topics.topic_id(topic)) {
                    (Some(stored), Some(current)) => stored == current,
                    (None, _) | (_, None) => true,
                })
                .cloned(),
            unstable: request.require_stable
                && self
                    .committed
                    .is_unstable(&request.group_id, topic, partition),
        };
        match &request.topics {
            Some(wanted) => wanted
                .iter()
                .map(|(name, partitions)| FetchedTopic {
                    name: name.clone(),
                    partitions: partitions.iter().map(|p| fetch(name, *p)).collect(),
                })
                .collect(),
            None => stored
                .map(|group| fetch_all(group, fetch))
                .unwrap_or_default(),
        }
    }
}

fn fetch_all(
    group: &CommittedGroup,
    fetch: impl Fn(&str, PartitionIndex) -> FetchedOffset,
) -> Vec<FetchedTopic> {
    let topic = |name: &String| {
        let partitions = group.offsets.get(name).into_iter().flatten();
        let partitions: Vec<_> = partitions
            .map(|(partition, _)| fetch(name, *partition))
            .filter(|fetched| fetched.committed.is_some() || fetched.unstable)
            .collect();
        FetchedTopic {
            name: name.clone(),
            partitions,
        }
    };
    group
        .offsets
        .keys()
        .map(topic)
        .filter(|topic| !topic.partitions.is_empty())
        .collect()
}

fn offset_value(
    now: Now,
    request: &CommitRequest,
    topic: &str,
    partition: &CommitPartition,
    topics: &dyn Topics,
) -> OffsetCommitValue {
    OffsetCommitValue {
        offset: partition.offset,
        leader_epoch: partition.leader_epoch,
        metadata: partition.metadata.clone(),
        commit_timestamp: now.wall,
        expire_timestamp: request
            .retention_ms
            .map(|retention| WallClockMs(now.wall.0.saturating_add(retention))),
        topic_id: topics.topic_id(topic),
    }
}
