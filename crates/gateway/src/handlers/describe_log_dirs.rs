//! DescribeLogDirs: the log directory of this broker, and what lies in it.

use std::collections::{BTreeMap, BTreeSet};

use ottla_broker::{ReplicaRole, ReplicaStatus};
use ottla_metadata::Image;
use ottla_types::{PartitionId, PartitionIndex};
use ottla_wire::{
    ErrorCode,
    messages::{
        DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName,
        describe_log_dirs_response::{
            DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
        },
    },
};

use super::{CountErrors, count};
use crate::context::RequestContext;

pub(super) async fn handle(
    cx: &RequestContext,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let (image, dir) = (cx.image(), cx.broker().log_dir_info());
    let bytes = |bytes: Option<u64>| bytes.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX));
    let row = DescribeLogDirsResult::default()
        .with_log_dir(dir.path.display().to_string().into())
        .with_total_bytes(bytes(dir.total_bytes))
        .with_usable_bytes(bytes(dir.usable_bytes));
    let row = if dir.failed {
        row.with_error_code(ErrorCode::KafkaStorageError.code())
    } else {
        row.with_topics(topics(cx, &image, &request))
    };
    DescribeLogDirsResponse::default().with_results(vec![row])
}

fn topics(
    cx: &RequestContext,
    image: &Image,
    request: &DescribeLogDirsRequest,
) -> Vec<DescribeLogDirsTopic> {
    let wanted: Option<BTreeSet<PartitionId>> = request.topics.as_ref().map(|topics| {
        let ids = topics.iter().filter_map(|topic| {
            let topic_id = image.topic(&topic.topic)?.topic_id;
            let ids = topic.partitions.iter().map(move |partition| PartitionId {
                topic_id,
                partition: PartitionIndex(*partition),
            });
            Some(ids)
        });
        ids.flatten().collect()
    });
    let mut by_topic: BTreeMap<&str, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    let local = cx.broker().local_partitions().into_iter();
    for id in local.filter(|id| wanted.as_ref().is_none_or(|wanted| wanted.contains(id))) {
        // A topic that has just been deleted has no name any more.
        if let (Some(name), Some(status)) = (
            image.topic_name(id.topic_id),
            cx.broker().replica_status(id),
        ) {
            by_topic
                .entry(name)
                .or_default()
                .push(partition(id.partition, &status));
        }
    }
    let rows = by_topic.into_iter().map(|(name, partitions)| {
        DescribeLogDirsTopic::default()
            .with_name(TopicName(name.to_owned().into()))
            .with_partitions(partitions)
    });
    rows.collect()
}

fn partition(index: PartitionIndex, status: &ReplicaStatus) -> DescribeLogDirsPartition {
    // How far a follower is behind what it knows to be committed.
    let behind = match status.role {
        ReplicaRole::Leader => 0,
        ReplicaRole::Follower | ReplicaRole::Offline => {
            status.high_watermark.since(status.log_end_offset).max(0)
        }
    };
    DescribeLogDirsPartition::default()
        .with_partition_index(index.get())
        .with_partition_size(i64::try_from(status.size_bytes).unwrap_or(i64::MAX))
        .with_offset_lag(behind)
}

impl CountErrors for DescribeLogDirsResponse {
    fn count_errors(&self) -> usize {
        count([self.error_code]) + count(self.results.iter().map(|result| result.error_code))
    }
}
