//! OffsetForLeaderEpoch: where an epoch ends in the leader's log (KIP-320).

use ottla_broker::ListOffsetsError;
use ottla_types::{LeaderEpoch, PartitionId, PartitionIndex};
use ottla_wire::{
    ErrorCode,
    messages::{
        OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
        offset_for_leader_epoch_request::OffsetForLeaderPartition,
        offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
    },
};

use super::{CountErrors, count};
use crate::{context::RequestContext, error_code};

pub(super) async fn handle(
    cx: &RequestContext,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut rows = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            rows.push(one(cx, &topic.topic, partition).await);
        }
        let result = OffsetForLeaderTopicResult::default().with_topic(topic.topic);
        topics.push(result.with_partitions(rows));
    }
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}

async fn one(cx: &RequestContext, topic: &str, asked: &OffsetForLeaderPartition) -> EpochEndOffset {
    let row = EpochEndOffset::default()
        .with_partition(asked.partition)
        .with_leader_epoch(-1)
        .with_end_offset(-1);
    let image = cx.image();
    let id = image.topic(topic).and_then(|topic| {
        let partition = PartitionIndex::new(asked.partition)?;
        let id = PartitionId {
            topic_id: topic.topic_id,
            partition,
        };
        topic.partitions.contains_key(&partition).then_some(id)
    });
    let Some(id) = id else {
        return row.with_error_code(ErrorCode::UnknownTopicOrPartition.code());
    };
    // A negative epoch has no end.
    let Some(epoch) = LeaderEpoch::new(asked.leader_epoch) else {
        return row;
    };
    let current = LeaderEpoch::new(asked.current_leader_epoch);
    match cx
        .broker()
        .offset_for_leader_epoch(id, current, epoch)
        .await
    {
        Ok(None) => row,
        Ok(Some((epoch, end))) => row
            .with_leader_epoch(epoch.get())
            .with_end_offset(end.get()),
        // It exists, but not here.
        Err(ListOffsetsError::UnknownPartition) => {
            row.with_error_code(ErrorCode::NotLeaderOrFollower.code())
        }
        Err(error) => row.with_error_code(error_code::list_offsets(&error, i16::MAX).code()),
    }
}

impl CountErrors for OffsetForLeaderEpochResponse {
    fn count_errors(&self) -> usize {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        count(partitions.map(|partition| partition.error_code))
    }
}
