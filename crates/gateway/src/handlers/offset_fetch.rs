//! OffsetFetch: how far groups have read.

use ottla_broker::groups::{FetchOffsetsRequest, FetchedOffset, FetchedTopic, GroupError};
use ottla_types::{LeaderEpoch, PartitionIndex};
use ottla_wire::{
    ErrorCode, StrBytes,
    messages::{
        OffsetFetchRequest, OffsetFetchResponse, TopicName,
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic},
        offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
            OffsetFetchResponseTopic, OffsetFetchResponseTopics,
        },
    },
};

use super::{CountErrors, count};
use crate::{context::RequestContext, error_code};

pub(super) async fn handle(
    cx: &RequestContext,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    if cx.version() >= 8 {
        many_groups(cx, request).await
    } else {
        one_group(cx, request).await
    }
}

async fn many_groups(cx: &RequestContext, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let require_stable = request.require_stable;
    let asked = request.groups.iter().map(|group| FetchOffsetsRequest {
        group_id: group.group_id.to_string(),
        member: member(group),
        topics: group.topics.as_ref().map(|topics| {
            let topics = topics.iter();
            topics
                .map(|topic| (topic.name.to_string(), indexes(&topic.partition_indexes)))
                .collect()
        }),
        require_stable,
    });
    let fetched = cx.broker().groups().fetch_offsets(asked.collect()).await;
    let groups = request
        .groups
        .into_iter()
        .zip(fetched)
        .map(|(group, result)| {
            let row = OffsetFetchResponseGroup::default().with_group_id(group.group_id);
            match result {
                Ok(topics) => row.with_topics(topics.into_iter().map(new_topic).collect()),
                Err(error) => row.with_error_code(group_code(&error).code()),
            }
        });
    OffsetFetchResponse::default().with_groups(groups.collect())
}

async fn one_group(cx: &RequestContext, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let topics = request.topics.as_ref().map(|topics| {
        let topics = topics.iter();
        topics
            .map(|topic| (topic.name.to_string(), indexes(&topic.partition_indexes)))
            .collect()
    });
    let asked = FetchOffsetsRequest {
        group_id: request.group_id.to_string(),
        member: None,
        topics,
        require_stable: request.require_stable,
    };
    let fetched = cx
        .broker()
        .groups()
        .fetch_offsets(vec![asked])
        .await
        .into_iter()
        .next();
    let response = OffsetFetchResponse::default();
    match fetched.unwrap_or(Err(GroupError::CoordinatorNotAvailable)) {
        Ok(topics) => response.with_topics(topics.into_iter().map(old_topic).collect()),
        Err(error) => {
            let code = group_code(&error);
            if cx.version() >= 2 {
                return response.with_error_code(code.code());
            }
            // Version 1 has no place for an error but the partitions.
            let asked = request.topics.unwrap_or_default();
            response.with_topics(
                asked
                    .iter()
                    .map(|topic| failed_topic(topic, code))
                    .collect(),
            )
        }
    }
}

/// Consumers give up at most codes of this answer; this one makes them look for the coordinator and
/// ask again, which is also right where one that was cut off cannot tell what it knows.
fn group_code(error: &GroupError) -> ErrorCode {
    match error_code::group(error) {
        ErrorCode::CoordinatorNotAvailable => ErrorCode::NotCoordinator,
        code => code,
    }
}

fn member(group: &OffsetFetchRequestGroup) -> Option<(String, i32)> {
    let member_id = group.member_id.as_ref()?;
    (group.member_epoch >= 0).then(|| (member_id.to_string(), group.member_epoch))
}

fn indexes(indexes: &[i32]) -> Vec<PartitionIndex> {
    indexes.iter().map(|index| PartitionIndex(*index)).collect()
}

/// One partition's answer, in the words of both versions of the response.
struct Stored {
    partition_index: i32,
    offset: i64,
    leader_epoch: i32,
    metadata: StrBytes,
    error: ErrorCode,
}

fn stored(fetched: FetchedOffset) -> Stored {
    let none = Stored {
        partition_index: fetched.partition.get(),
        offset: -1,
        leader_epoch: -1,
        metadata: StrBytes::new(),
        error: ErrorCode::None,
    };
    match fetched.committed {
        _ if fetched.unstable => Stored {
            error: ErrorCode::UnstableOffsetCommit,
            ..none
        },
        None => none,
        Some(committed) => Stored {
            offset: committed.offset,
            leader_epoch: committed.leader_epoch.map_or(-1, LeaderEpoch::get),
            metadata: committed.metadata.into(),
            ..none
        },
    }
}

fn new_topic(topic: FetchedTopic) -> OffsetFetchResponseTopics {
    let rows = topic.partitions.into_iter().map(stored).map(|stored| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(stored.partition_index)
            .with_committed_offset(stored.offset)
            .with_committed_leader_epoch(stored.leader_epoch)
            .with_metadata(Some(stored.metadata))
            .with_error_code(stored.error.code())
    });
    OffsetFetchResponseTopics::default()
        .with_name(TopicName(topic.name.into()))
        .with_partitions(rows.collect())
}

fn old_topic(topic: FetchedTopic) -> OffsetFetchResponseTopic {
    let rows = topic.partitions.into_iter().map(stored).map(old_row);
    OffsetFetchResponseTopic::default()
        .with_name(TopicName(topic.name.into()))
        .with_partitions(rows.collect())
}

fn old_row(stored: Stored) -> OffsetFetchResponsePartition {
    OffsetFetchResponsePartition::default()
        .with_partition_index(stored.partition_index)
        .with_committed_offset(stored.offset)
        .with_committed_leader_epoch(stored.leader_epoch)
        .with_metadata(Some(stored.metadata))
        .with_error_code(stored.error.code())
}

fn failed_topic(topic: &OffsetFetchRequestTopic, error: ErrorCode) -> OffsetFetchResponseTopic {
    let rows = topic.partition_indexes.iter().map(|index| {
        let partition = PartitionIndex(*index);
        let none = stored(FetchedOffset {
            partition,
            committed: None,
            unstable: false,
        });
        old_row(Stored { error, ..none })
    });
    OffsetFetchResponseTopic::default()
        .with_name(topic.name.clone())
        .with_partitions(rows.collect())
}

impl CountErrors for OffsetFetchResponse {
    fn count_errors(&self) -> usize {
        let old = self.topics.iter().flat_map(|topic| &topic.partitions);
        let new = self.groups.iter().flat_map(|group| &group.topics);
        let new = new.flat_map(|topic| &topic.partitions);
        count([self.error_code])
            + count(self.groups.iter().map(|group| group.error_code))
            + count(old.map(|partition| partition.error_code))
            + count(new.map(|partition| partition.error_code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coordinator_that_is_not_there_is_looked_for_again() {
        let code = group_code(&GroupError::CoordinatorNotAvailable);
        assert_eq!(code, ErrorCode::NotCoordinator);
        let loading = group_code(&GroupError::CoordinatorLoadInProgress);
        assert_eq!(loading, ErrorCode::CoordinatorLoadInProgress);
    }
}
