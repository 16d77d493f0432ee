//! OffsetDelete: single offsets of a group (KIP-496).

use std::collections::BTreeMap;

use ottla_types::PartitionIndex;
use ottla_wire::{
    ErrorCode,
    messages::{
        OffsetDeleteRequest, OffsetDeleteResponse,
        offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
    },
};

use super::{CountErrors, count};
use crate::{context::RequestContext, error_code};

pub(super) async fn handle(
    cx: &RequestContext,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let asked = request.topics.iter().map(|topic| {
        let indexes = topic.partitions.iter();
        let indexes = indexes.map(|partition| PartitionIndex(partition.partition_index));
        (topic.name.to_string(), indexes.collect())
    });
    let asked: Vec<(String, Vec<PartitionIndex>)> = asked.collect();
    let deleted = match cx
        .broker()
        .groups()
        .delete_offsets(&request.group_id, asked)
        .await
    {
        Ok(deleted) => deleted,
        Err(error) => {
            let code = error_code::group(&error);
            return OffsetDeleteResponse::default().with_error_code(code.code());
        }
    };
    let codes: BTreeMap<(String, PartitionIndex), ErrorCode> = deleted
        .into_iter()
        .map(|(topic, partition, result)| {
            let code = result.map_or_else(|error| error_code::group(&error), |()| ErrorCode::None);
            ((topic, partition), code)
        })
        .collect();
    let topics = request.topics.into_iter().map(|topic| {
        let rows = topic.partitions.iter().map(|partition| {
            let key = (
                topic.name.to_string(),
                PartitionIndex(partition.partition_index),
            );
            let code = codes
                .get(&key)
                .copied()
                .unwrap_or(ErrorCode::UnknownTopicOrPartition);
            OffsetDeleteResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code.code())
        });
        let rows = rows.collect();
        OffsetDeleteResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(rows)
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}

impl CountErrors for OffsetDeleteResponse {
    fn count_errors(&self) -> usize {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        count([self.error_code]) + count(partitions.map(|partition| partition.error_code))
    }
}
