//! Offsets of a group: committing them and reading them back.

use std::collections::BTreeMap;

use tokio::time::Instant;

use ottla_wire::{
    ErrorCode, StrBytes,
    messages::{
        GroupId, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest,
        OffsetFetchResponse,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::{
            OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
        },
    },
};

use super::{Coordinator, GroupError};
use crate::{
    cluster::Lane,
    error::code,
    leaders::{by_topic, text, wire_name},
    metadata::TopicPartition,
};

/// An offset that a group has committed: the next one that it will read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The offset.
    pub offset: i64,
    /// Leader epoch of the record before it, if known.
    pub leader_epoch: Option<i32>,
    /// The committer's own words.
    pub metadata: String,
}

impl CommittedOffset {
    /// An offset without further words.
    #[must_use]
    pub const fn new(offset: i64) -> CommittedOffset {
        CommittedOffset {
            offset,
            leader_epoch: None,
            metadata: String::new(),
        }
    }
}

/// Who commits: a member in a generation, or nobody in particular.
#[derive(Clone, Debug)]
pub(crate) struct Committer {
    pub(crate) generation_id: i32,
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
}

impl Committer {
    /// Not a member: allowed while the group is empty.
    pub(crate) fn outside() -> Committer {
        Committer {
            generation_id: -1,
            member_id: String::new(),
            instance_id: None,
        }
    }
}

pub(crate) type CommitResults = BTreeMap<TopicPartition, Result<(), ErrorCode>>;

/// Commits; says per partition how it went.
pub(crate) async fn commit(
    coordinator: &Coordinator,
    committer: &Committer,
    offsets: &BTreeMap<TopicPartition, CommittedOffset>,
    deadline: Instant,
) -> Result<CommitResults, GroupError> {
    let build = |version: i16| {
        let topics = by_topic(offsets.iter().map(|(p, o)| (p.clone(), o)));
        let topics = topics.into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|(index, offset)| {
                let mut row = OffsetCommitRequestPartition::default()
                    .with_partition_index(index)
                    .with_committed_offset(offset.offset)
                    .with_committed_metadata(Some(text(&offset.metadata)));
                if version >= 6 {
                    row.committed_leader_epoch = offset.leader_epoch.unwrap_or(-1);
                }
                row
            });
            OffsetCommitRequestTopic::default()
                .with_name(wire_name(&name))
                .with_partitions(partitions.collect())
        });
        let mut request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(coordinator.group())))
            .with_generation_id_or_member_epoch(committer.generation_id)
            .with_member_id(text(&committer.member_id))
            .with_topics(topics.collect());
        if version >= 7 {
            request.group_instance_id = committer.instance_id.as_deref().map(text);
        }
        request
    };
    // Errors of the whole group stand at each partition; one that passes is worth another try.
    let error_of = |response: &OffsetCommitResponse| {
        let rows = response.topics.iter().flat_map(|topic| &topic.partitions);
        let mut codes = rows.map(|row| code(row.error_code));
        codes
            .find(|error| is_of_the_group(*error))
            .unwrap_or(ErrorCode::None)
    };
    let response = coordinator
        .call(Lane::Control, deadline, build, error_of)
        .await?;
    let mut results = BTreeMap::new();
    for topic in response.topics {
        for row in topic.partitions {
            let of = TopicPartition::new(&*topic.name.0, row.partition_index);
            results.insert(of, crate::error::check(row.error_code));
        }
    }
    Ok(results)
}

const fn is_of_the_group(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::NotCoordinator
            | ErrorCode::RequestTimedOut
            | ErrorCode::UnknownMemberId
            | ErrorCode::IllegalGeneration
            | ErrorCode::FencedInstanceId
            | ErrorCode::RebalanceInProgress
            | ErrorCode::InvalidGroupId
            | ErrorCode::GroupAuthorizationFailed
            | ErrorCode::GroupIdNotFound
            | ErrorCode::StaleMemberEpoch
    )
}

/// Committed offsets of these partitions, or of all that have one; those without are left out.
pub(crate) async fn committed(
    coordinator: &Coordinator,
    partitions: Option<&[TopicPartition]>,
    deadline: Instant,
) -> Result<BTreeMap<TopicPartition, CommittedOffset>, GroupError> {
    let build = |version: i16| {
        let topics = partitions.map(|all| by_topic(all.iter().map(|p| (p.clone(), ()))));
        let indexes = |rows: Vec<(i32, ())>| rows.into_iter().map(|(index, ())| index).collect();
        let mut request = OffsetFetchRequest::default();
        if version >= 7 {
            request.require_stable = true;
        }
        if version >= 8 {
            let topics = topics.map(|topics| {
                let rows = topics.into_iter().map(|(name, rows)| {
                    OffsetFetchRequestTopics::default()
                        .with_name(wire_name(&name))
                        .with_partition_indexes(indexes(rows))
                });
                rows.collect()
            });
            let group = OffsetFetchRequestGroup::default()
                .with_group_id(GroupId(text(coordinator.group())))
                .with_topics(topics);
            request.groups = vec![group];
        } else {
            request.group_id = GroupId(text(coordinator.group()));
            request.topics = topics.map(|topics| {
                let rows = topics.into_iter().map(|(name, rows)| {
                    OffsetFetchRequestTopic::default()
                        .with_name(wire_name(&name))
                        .with_partition_indexes(indexes(rows))
                });
                rows.collect()
            });
        }
        request
    };
    let response = coordinator
        .call(Lane::Control, deadline, build, first_error)
        .await?;
    Ok(read_committed(&response))
}

/// An error of the whole, or of the first partition that has one.
fn first_error(response: &OffsetFetchResponse) -> ErrorCode {
    let old = response.topics.iter().flat_map(|topic| &topic.partitions);
    let new = response.groups.iter().flat_map(|group| &group.topics);
    let new = new.flat_map(|topic| &topic.partitions);
    let groups = response.groups.iter().map(|group| group.error_code);
    std::iter::once(response.error_code)
        .chain(groups)
        .chain(old.map(|row| row.error_code))
        .chain(new.map(|row| row.error_code))
        .map(code)
        // A topic that is gone has no offset; that is no reason not to read the others.
        .find(|error| !matches!(error, ErrorCode::None | ErrorCode::UnknownTopicOrPartition))
        .unwrap_or(ErrorCode::None)
}

fn read_committed(response: &OffsetFetchResponse) -> BTreeMap<TopicPartition, CommittedOffset> {
    let mut found = BTreeMap::new();
    let mut add =
        |topic: &str, index: i32, offset: i64, epoch: i32, metadata: Option<&StrBytes>| {
            if offset >= 0 {
                let committed = CommittedOffset {
                    offset,
                    leader_epoch: (epoch >= 0).then_some(epoch),
                    metadata: metadata.map(ToString::to_string).unwrap_or_default(),
                };
                found.insert(TopicPartition::new(topic, index), committed);
            }
        };
    for topic in &response.topics {
        for row in &topic.partitions {
            let epoch = row.committed_leader_epoch;
            add(
                &topic.name.0,
                row.partition_index,
                row.committed_offset,
                epoch,
                row.metadata.as_ref(),
            );
        }
    }
    for topic in response.groups.iter().flat_map(|group| &group.topics) {
        for row in &topic.partitions {
            let epoch = row.committed_leader_epoch;
            add(
                &topic.name.0,
                row.partition_index,
                row.committed_offset,
                epoch,
                row.metadata.as_ref(),
            );
        }
    }
    found
}
