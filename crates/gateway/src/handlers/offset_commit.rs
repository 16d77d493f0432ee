//! OffsetCommit: a group stores how far it has read.

use ottla_broker::groups::{
    CommitPartition, CommitRequest, CommitTopic, CommittedTopic, GenerationId, GroupError,
};
use ottla_types::{LeaderEpoch, PartitionIndex};
use ottla_wire::{
    ErrorCode,
    messages::{
        OffsetCommitRequest, OffsetCommitResponse, TopicName,
        offset_commit_request::OffsetCommitRequestTopic,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
    },
};

use super::{CountErrors, count, non_empty};
use crate::{context::RequestContext, error_code};

pub(super) async fn handle(
    cx: &RequestContext,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let generation = request.generation_id_or_member_epoch;
    let own_retention = (2..=4)
        .contains(&cx.version())
        .then_some(request.retention_time_ms);
    let commit = CommitRequest {
        group_id: request.group_id.to_string(),
        generation: (generation >= 0).then_some(GenerationId(generation)),
        member_id: non_empty(&request.member_id),
        group_instance_id: request.group_instance_id.as_ref().map(ToString::to_string),
        retention_ms: own_retention.filter(|ms| *ms >= 0),
        topics: request.topics.iter().map(commit_topic).collect(),
    };
    let topics = match cx.broker().groups().commit_offsets(commit).await {
        Ok(committed) => committed.into_iter().map(committed_topic).collect(),
        Err(error) => {
            let code = group_code(&error, cx.version());
            request
                .topics
                .iter()
                .map(|topic| failed_topic(topic, code))
                .collect()
        }
    };
    OffsetCommitResponse::default().with_topics(topics)
}

/// Up to version 8 clients do not know that a group can be missing.
fn group_code(error: &GroupError, version: i16) -> ErrorCode {
    match error_code::group(error) {
        ErrorCode::GroupIdNotFound if version < 9 => ErrorCode::IllegalGeneration,
        code => code,
    }
}

fn commit_topic(topic: &OffsetCommitRequestTopic) -> CommitTopic {
    let partitions = topic.partitions.iter().map(|partition| CommitPartition {
        partition: PartitionIndex(partition.partition_index),
        offset: partition.committed_offset,
        leader_epoch: LeaderEpoch::new(partition.committed_leader_epoch),
        metadata: partition
            .committed_metadata
            .as_deref()
            .unwrap_or_default()
            .to_owned(),
    });
    CommitTopic {
        name: topic.name.to_string(),
        partitions: partitions.collect(),
    }
}

fn row(partition_index: i32, code: ErrorCode) -> OffsetCommitResponsePartition {
    OffsetCommitResponsePartition::default()
        .with_partition_index(partition_index)
        .with_error_code(code.code())
}

fn committed_topic(topic: CommittedTopic) -> OffsetCommitResponseTopic {
    let rows = topic.partitions.into_iter().map(|(partition, result)| {
        let code = result.map_or_else(|error| error_code::group(&error), |()| ErrorCode::None);
        row(partition.get(), code)
    });
    OffsetCommitResponseTopic::default()
        .with_name(TopicName(topic.name.into()))
        .with_partitions(rows.collect())
}

fn failed_topic(topic: &OffsetCommitRequestTopic, code: ErrorCode) -> OffsetCommitResponseTopic {
    let rows = topic
        .partitions
        .iter()
        .map(|partition| row(partition.partition_index, code));
    OffsetCommitResponseTopic::default()
        .with_name(topic.name.clone())
        .with_partitions(rows.collect())
}

impl CountErrors for OffsetCommitResponse {
    fn count_errors(&self) -> usize {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        count(partitions.map(|partition| partition.error_code))
    }
}
