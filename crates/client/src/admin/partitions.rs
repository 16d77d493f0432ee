//! Partitions: offsets, deleting records, elections, reassignments, producers.

use std::collections::BTreeMap;

use ottla_types::{BrokerId, ProducerId};
use ottla_wire::{
    ErrorCode,
    messages::{
        AlterPartitionReassignmentsRequest, DeleteRecordsRequest, DeleteRecordsResponse,
        DescribeProducersRequest, DescribeProducersResponse, ElectLeadersRequest,
        ListPartitionReassignmentsRequest,
        alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic},
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        describe_producers_request::TopicRequest,
        elect_leaders_request::TopicPartitions,
    },
};

use super::{
    Admin, AdminError, Refusal, item,
    route::{Repeat, whole},
};
use crate::{
    error::{check, code},
    leaders::{Question, ask_leaders, by_topic, wire_name},
    metadata::TopicPartition,
    offsets::{self, IsolationLevel, ListedOffset, OffsetSpec},
};

/// Who may become leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectionType {
    /// The first assigned replica, if it is in sync.
    Preferred,
    /// Any replica: records may be lost.
    Unclean,
}

/// A partition on the move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassignment {
    /// All its replicas at the moment.
    pub replicas: Vec<BrokerId>,
    /// Those on the way in.
    pub adding: Vec<BrokerId>,
    /// Those on the way out.
    pub removing: Vec<BrokerId>,
}

/// What a leader remembers of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// The producer.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: i32,
    /// Its last sequence; `None` after a marker.
    pub last_sequence: Option<i32>,
    /// When it last wrote.
    pub last_timestamp: i64,
    /// First offset of its open transaction.
    pub transaction_start_offset: Option<i64>,
}

type PerPartition<T> = BTreeMap<TopicPartition, Result<T, AdminError>>;

impl Admin {
    /// Offsets by time, or of beginnings and ends.
    pub async fn list_offsets(
        &self,
        wanted: BTreeMap<TopicPartition, OffsetSpec>,
        isolation: IsolationLevel,
    ) -> PerPartition<ListedOffset> {
        let answers = offsets::list_offsets(&self.cluster, wanted, isolation, self.deadline());
        translate(answers.await)
    }

    /// Deletes records below these offsets (`None`: all there are now); tells where each log
    /// begins then.
    pub async fn delete_records(
        &self,
        before: BTreeMap<TopicPartition, Option<i64>>,
    ) -> PerPartition<i64> {
        let timeout_ms = self.timeout_ms();
        let build = |questions: &[Question<Option<i64>>], _version: i16| {
            let rows = questions.iter().map(|q| (q.partition.clone(), q.asked));
            let topics = by_topic(rows).into_iter().map(|(name, rows)| {
                let rows = rows.into_iter().map(|(index, offset)| {
                    DeleteRecordsPartition::default()
                        .with_partition_index(index)
                        .with_offset(offset.unwrap_or(-1))
                });
                DeleteRecordsTopic::default()
                    .with_name(wire_name(&name))
                    .with_partitions(rows.collect())
            });
            DeleteRecordsRequest::default()
                .with_topics(topics.collect())
                .with_timeout_ms(timeout_ms)
        };
        let read = |response: DeleteRecordsResponse| {
            let mut read = Vec::new();
            for topic in response.topics {
                for row in topic.partitions {
                    let partition = TopicPartition::new(&*topic.name.0, row.partition_index);
                    let answer = check(row.error_code).map(|()| row.low_watermark);
                    read.push((partition, answer));
                }
            }
            read
        };
        translate(ask_leaders(&self.cluster, before, self.deadline(), build, read).await)
    }

    /// What the leaders remember of producers.
    pub async fn describe_producers(
        &self,
        partitions: &[TopicPartition],
    ) -> PerPartition<Vec<ProducerState>> {
        let build = |questions: &[Question<()>], _version: i16| {
            let rows = questions.iter().map(|q| (q.partition.clone(), ()));
            let topics = by_topic(rows).into_iter().map(|(name, rows)| {
                TopicRequest::default()
                    .with_name(wire_name(&name))
                    .with_partition_indexes(rows.into_iter().map(|(index, ())| index).collect())
            });
            DescribeProducersRequest::default().with_topics(topics.collect())
        };
        let wanted = partitions
            .iter()
            .map(|partition| (partition.clone(), ()))
            .collect();
        translate(ask_leaders(&self.cluster, wanted, self.deadline(), build, producers).await)
    }

    /// Elects leaders of these partitions, or of all that need it. Partitions that have the leader
    /// already answer `ELECTION_NOT_NEEDED`, or are left out if all were asked for.
    ///
    /// # Errors
    /// The request as a whole.
    pub async fn elect_leaders(
        &self,
        election: ElectionType,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<BTreeMap<TopicPartition, Result<(), Refusal>>, AdminError> {
        let build = |version: i16| {
            let topics = partitions.map(|all| {
                let topics = by_topic(all.iter().map(|partition| (partition.clone(), ())));
                let rows = topics.into_iter().map(|(name, rows)| {
                    TopicPartitions::default()
                        .with_topic(wire_name(&name))
                        .with_partitions(rows.into_iter().map(|(index, ())| index).collect())
                });
                rows.collect()
            });
            let mut request = ElectLeadersRequest::default()
                .with_topic_partitions(topics)
                .with_timeout_ms(self.timeout_ms());
            if version >= 1 {
                request.election_type = match election {
                    ElectionType::Preferred => 0,
                    ElectionType::Unclean => 1,
                };
            }
            request
        };
        let error_of =
            |response: &ottla_wire::messages::ElectLeadersResponse| code(response.error_code);
        let response = self.to_any(Repeat::Freely, build, error_of).await?;
        let mut results = BTreeMap::new();
        for topic in &response.replica_election_results {
            for row in &topic.partition_result {
                let partition = TopicPartition::new(&*topic.topic.0, row.partition_id);
                results.insert(partition, item(row.error_code, row.error_message.as_ref()));
            }
        }
        Ok(results)
    }

    /// Moves partitions to these replicas; `None` calls a move off.
    ///
    /// # Errors
    /// The request as a whole.
    pub async fn alter_reassignments(
        &self,
        moves: &BTreeMap<TopicPartition, Option<Vec<BrokerId>>>,
    ) -> Result<BTreeMap<TopicPartition, Result<(), Refusal>>, AdminError> {
        let build = |_version: i16| {
            let topics = by_topic(moves.iter().map(|(partition, to)| (partition.clone(), to)));
            let topics = topics.into_iter().map(|(name, rows)| {
                let rows = rows.into_iter().map(|(index, replicas)| {
                    let replicas = replicas.as_ref().map(|replicas| {
                        replicas.iter().map(|broker| broker.get().into()).collect()
                    });
                    ReassignablePartition::default()
                        .with_partition_index(index)
                        .with_replicas(replicas)
                });
                ReassignableTopic::default()
                    .with_name(wire_name(&name))
                    .with_partitions(rows.collect())
            });
            AlterPartitionReassignmentsRequest::default()
                .with_timeout_ms(self.timeout_ms())
                .with_topics(topics.collect())
        };
        let error_of = |response: &ottla_wire::messages::AlterPartitionReassignmentsResponse| {
            match code(response.error_code) {
                ErrorCode::NotController => ErrorCode::NotController,
                _ => ErrorCode::None, // Told below, with its message.
            }
        };
        let response = self.to_any(Repeat::Freely, build, error_of).await?;
        whole(response.error_code, response.error_message.as_ref())?;
        let mut results = BTreeMap::new();
        for topic in &response.responses {
            for row in &topic.partitions {
                let partition = TopicPartition::new(&*topic.name.0, row.partition_index);
                results.insert(partition, item(row.error_code, row.error_message.as_ref()));
            }
        }
        Ok(results)
    }

    /// All partitions on the move.
    ///
    /// # Errors
    /// The request did not succeed.
    pub async fn list_reassignments(
        &self,
    ) -> Result<BTreeMap<TopicPartition, Reassignment>, AdminError> {
        let build = |_version: i16| {
            ListPartitionReassignmentsRequest::default()
                .with_timeout_ms(self.timeout_ms())
                .with_topics(None)
        };
        let response = self
            .to_any(Repeat::Freely, build, |_| ErrorCode::None)
            .await?;
        whole(response.error_code, response.error_message.as_ref())?;
        let ids = |nodes: &[ottla_wire::messages::BrokerId]| -> Vec<BrokerId> {
            nodes.iter().map(|node| BrokerId(node.0)).collect()
        };
        let mut moving = BTreeMap::new();
        for topic in &response.topics {
            for row in &topic.partitions {
                let reassignment = Reassignment {
                    replicas: ids(&row.replicas),
                    adding: ids(&row.adding_replicas),
                    removing: ids(&row.removing_replicas),
                };
                let partition = TopicPartition::new(&*topic.name.0, row.partition_index);
                moving.insert(partition, reassignment);
            }
        }
        Ok(moving)
    }
}

fn producers(
    response: DescribeProducersResponse,
) -> Vec<(TopicPartition, Result<Vec<ProducerState>, ErrorCode>)> {
    let mut read = Vec::new();
    for topic in response.topics {
        for row in topic.partitions {
            let partition = TopicPartition::new(&*topic.name.0, row.partition_index);
            let states = row.active_producers.iter().map(|state| ProducerState {
                producer_id: ProducerId(state.producer_id.0),
                producer_epoch: state.producer_epoch,
                last_sequence: (state.last_sequence >= 0).then_some(state.last_sequence),
                last_timestamp: state.last_timestamp,
                transaction_start_offset: (state.current_txn_start_offset >= 0)
                    .then_some(state.current_txn_start_offset),
            });
            read.push((partition, check(row.error_code).map(|()| states.collect())));
        }
    }
    read
}

fn translate<T>(
    answers: BTreeMap<TopicPartition, Result<T, crate::leaders::PartitionError>>,
) -> PerPartition<T> {
    let rows = answers
        .into_iter()
        .map(|(partition, answer)| (partition, answer.map_err(AdminError::from)));
    rows.collect()
}
