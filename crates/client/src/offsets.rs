//! Offsets by time, and where an epoch ends in the leader's log.

use std::collections::BTreeMap;

use tokio::time::Instant;

use ottla_wire::{
    ErrorCode,
    messages::{
        ListOffsetsRequest, OffsetForLeaderEpochRequest,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
    },
};

use crate::{
    cluster::Cluster,
    error::{check, code},
    leaders::{PartitionError, Question, ask_leaders, by_topic, wire_name},
    metadata::TopicPartition,
};

/// Which offset of a partition is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first one that can be read.
    Earliest,
    /// The end: the high watermark, or the last stable offset for readers of committed records.
    Latest,
    /// The record with the greatest timestamp.
    MaxTimestamp,
    /// The first record of this time or later.
    Timestamp(i64),
}

impl OffsetSpec {
    const fn on_the_wire(self) -> i64 {
        match self {
            OffsetSpec::Earliest => -2,
            OffsetSpec::Latest => -1,
            OffsetSpec::MaxTimestamp => -3,
            OffsetSpec::Timestamp(timestamp) => timestamp,
        }
    }
}

/// Which records a reader gets to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IsolationLevel {
    /// All below the high watermark.
    #[default]
    ReadUncommitted,
    /// Those of committed transactions, and those outside of transactions.
    ReadCommitted,
}

impl IsolationLevel {
    pub(crate) const fn on_the_wire(self) -> i8 {
        match self {
            IsolationLevel::ReadUncommitted => 0,
            IsolationLevel::ReadCommitted => 1,
        }
    }
}

/// An offset found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset; `None` if no record is that late.
    pub offset: Option<i64>,
    /// The record's timestamp, if it was looked for by time.
    pub timestamp: Option<i64>,
    /// The leader epoch of the record.
    pub leader_epoch: Option<i32>,
}

type Answers<T> = BTreeMap<TopicPartition, Result<T, PartitionError>>;

pub(crate) async fn list_offsets(
    cluster: &Cluster,
    wanted: BTreeMap<TopicPartition, OffsetSpec>,
    isolation: IsolationLevel,
    deadline: Instant,
) -> Answers<ListedOffset> {
    let build = |questions: &[Question<OffsetSpec>], version: i16| {
        let topics = by_topic(questions.iter().map(|q| (q.partition.clone(), q)));
        let topics = topics.into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|(index, question)| {
                let mut partition = ListOffsetsPartition::default()
                    .with_partition_index(index)
                    .with_timestamp(question.asked.on_the_wire());
                partition.current_leader_epoch = question.leader_epoch.unwrap_or(-1);
                partition
            });
            ListOffsetsTopic::default()
                .with_name(wire_name(&name))
                .with_partitions(partitions.collect())
        });
        let mut request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_topics(topics.collect());
        if version >= 2 {
            request.isolation_level = isolation.on_the_wire();
        }
        request
    };
    let read = |response: ottla_wire::messages::ListOffsetsResponse| {
        let mut read = Vec::new();
        for topic in response.topics {
            for partition in topic.partitions {
                let answer = check(partition.error_code).map(|()| ListedOffset {
                    offset: (partition.offset >= 0).then_some(partition.offset),
                    timestamp: (partition.timestamp >= 0).then_some(partition.timestamp),
                    leader_epoch: (partition.leader_epoch >= 0).then_some(partition.leader_epoch),
                });
                let of = TopicPartition::new(&*topic.name.0, partition.partition_index);
                read.push((of, answer));
            }
        }
        read
    };
    ask_leaders(cluster, wanted, deadline, build, read).await
}

/// The end of an epoch: the greatest epoch up to the one asked for, and the offset after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EpochEnd {
    pub(crate) epoch: i32,
    pub(crate) end_offset: i64,
}

pub(crate) async fn epoch_ends(
    cluster: &Cluster,
    epochs: BTreeMap<TopicPartition, i32>,
    deadline: Instant,
) -> Answers<EpochEnd> {
    let build = |questions: &[Question<i32>], version: i16| {
        let topics = by_topic(questions.iter().map(|q| (q.partition.clone(), q)));
        let topics = topics.into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|(index, question)| {
                OffsetForLeaderPartition::default()
                    .with_partition(index)
                    .with_current_leader_epoch(question.leader_epoch.unwrap_or(-1))
                    .with_leader_epoch(question.asked)
            });
            OffsetForLeaderTopic::default()
                .with_topic(wire_name(&name))
                .with_partitions(partitions.collect())
        });
        let mut request = OffsetForLeaderEpochRequest::default().with_topics(topics.collect());
        if version >= 3 {
            request.replica_id = (-1).into(); // A consumer.
        }
        request
    };
    let read = |response: ottla_wire::messages::OffsetForLeaderEpochResponse| {
        let mut read = Vec::new();
        for topic in response.topics {
            for partition in topic.partitions {
                let answer = match code(partition.error_code) {
                    ErrorCode::None => Ok(EpochEnd {
                        epoch: partition.leader_epoch,
                        end_offset: partition.end_offset,
                    }),
                    error => Err(error),
                };
                let of = TopicPartition::new(&*topic.topic.0, partition.partition);
                read.push((of, answer));
            }
        }
        read
    };
    ask_leaders(cluster, epochs, deadline, build, read).await
}
