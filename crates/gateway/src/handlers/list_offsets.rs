//! ListOffsets: offsets by time, and the ends of a log.

use std::collections::BTreeSet;

use futures::future::join_all;

use ottla_broker::{Isolation, ListOffsetsError, OffsetQuery};
use ottla_metadata::Image;
use ottla_types::{LeaderEpoch, PartitionId, PartitionIndex};
use ottla_wire::{
    ErrorCode,
    messages::{
        ListOffsetsRequest, ListOffsetsResponse,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
    },
};

use super::{CountErrors, count};
use crate::{context::RequestContext, error_code};

/// How many lookups of one request run at once.
const LOOKUPS_MAX: usize = 64;

pub(super) async fn handle(
    cx: &RequestContext,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let image = cx.image();
    let isolation = match request.isolation_level {
        1 => Isolation::ReadCommitted,
        _ => Isolation::ReadUncommitted,
    };
    let duplicates = duplicates(&request);
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut rows = Vec::with_capacity(topic.partitions.len());
        for some in topic.partitions.chunks(LOOKUPS_MAX) {
            let lookups = some.iter().map(|partition| async {
                if duplicates.contains(&(topic.name.to_string(), partition.partition_index)) {
                    return error_row(cx.version(), partition, ErrorCode::InvalidRequest);
                }
                one(cx, &image, &topic, partition, isolation).await
            });
            rows.extend(join_all(lookups).await);
        }
        let row = ListOffsetsTopicResponse::default().with_name(topic.name);
        topics.push(row.with_partitions(rows));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

/// Partitions that the request names twice.
fn duplicates(request: &ListOffsetsRequest) -> BTreeSet<(String, i32)> {
    let mut seen = BTreeSet::new();
    let mut twice = BTreeSet::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            if !seen.insert((topic.name.as_str(), partition.partition_index)) {
                twice.insert((topic.name.to_string(), partition.partition_index));
            }
        }
    }
    twice
}

async fn one(
    cx: &RequestContext,
    image: &Image,
    topic: &ListOffsetsTopic,
    partition: &ListOffsetsPartition,
    isolation: Isolation,
) -> ListOffsetsPartitionResponse {
    let version = cx.version();
    let row = ListOffsetsPartitionResponse::default()
        .with_partition_index(partition.partition_index)
        .with_offset(-1)
        .with_timestamp(-1);
    let Some(id) = find(image, &topic.name, partition.partition_index) else {
        return error_row(version, partition, ErrorCode::UnknownTopicOrPartition);
    };
    let query = match query(partition.timestamp, version) {
        Ok(Some(query)) => query,
        Ok(None) => return row,
        Err(code) => return error_row(version, partition, code),
    };
    let epoch = LeaderEpoch::new(partition.current_leader_epoch);
    match cx.broker().list_offset(id, epoch, query, isolation).await {
        Ok(None) => row,
        Ok(Some(found)) => {
            let row = row
                .with_offset(found.offset.get())
                .with_timestamp(found.timestamp.unwrap_or(-1));
            let epoch = found.leader_epoch.map_or(-1, LeaderEpoch::get);
            if version >= 4 {
                row.with_leader_epoch(epoch)
            } else {
                row
            }
        }
        // It exists, but not here.
        Err(ListOffsetsError::UnknownPartition) => {
            error_row(version, partition, ErrorCode::NotLeaderOrFollower)
        }
        Err(error) => error_row(
            version,
            partition,
            error_code::list_offsets(&error, version),
        ),
    }
}

fn find(image: &Image, topic: &str, partition: i32) -> Option<PartitionId> {
    let topic = image.topic(topic)?;
    let partition = PartitionIndex::new(partition)?;
    let id = PartitionId {
        topic_id: topic.topic_id,
        partition,
    };
    topic.partitions.contains_key(&partition).then_some(id)
}

/// What a timestamp asks for; `None` for the end of tiered data, of which there is none.
fn query(timestamp: i64, version: i16) -> Result<Option<OffsetQuery>, ErrorCode> {
    match timestamp {
        -1 => Ok(Some(OffsetQuery::Latest)),
        -2 => Ok(Some(OffsetQuery::Earliest)),
        -3 if version >= 7 => Ok(Some(OffsetQuery::MaxTimestamp)),
        // Without tiering the local log is the log.
        -4 if version >= 8 => Ok(Some(OffsetQuery::Earliest)),
        -5 if version >= 9 => Ok(None),
        time if time < 0 => Err(ErrorCode::UnsupportedVersion),
        time => Ok(Some(OffsetQuery::Timestamp(time))),
    }
}

fn error_row(
    version: i16,
    partition: &ListOffsetsPartition,
    code: ErrorCode,
) -> ListOffsetsPartitionResponse {
    let row = ListOffsetsPartitionResponse::default()
        .with_partition_index(partition.partition_index)
        .with_error_code(code.code())
        .with_offset(-1)
        .with_timestamp(-1);
    if version >= 4 {
        row.with_leader_epoch(-1)
    } else {
        row
    }
}

impl CountErrors for ListOffsetsResponse {
    fn count_errors(&self) -> usize {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        count(partitions.map(|partition| partition.error_code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_timestamps_depend_on_the_version() {
        assert_eq!(query(-1, 1), Ok(Some(OffsetQuery::Latest)));
        assert_eq!(query(-3, 6), Err(ErrorCode::UnsupportedVersion));
        assert_eq!(query(-3, 7), Ok(Some(OffsetQuery::MaxTimestamp)));
        assert_eq!(query(-4, 8), Ok(Some(OffsetQuery::Earliest)));
        assert_eq!(query(-5, 9), Ok(None));
        assert_eq!(query(-6, 10), Err(ErrorCode::UnsupportedVersion));
        assert_eq!(query(0, 1), Ok(Some(OffsetQuery::Timestamp(0))));
    }
}
