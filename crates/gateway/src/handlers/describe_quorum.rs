//! DescribeQuorum: the controllers as their leader sees them, for kafka-metadata-quorum.

use ottla_broker::{QuorumDescription, QuorumReplica};
use ottla_types::WallClockMs;
use ottla_wire::{
    ErrorCode,
    messages::{
        BrokerId, DescribeQuorumRequest, DescribeQuorumResponse,
        describe_quorum_request::TopicData as AskedTopic,
        describe_quorum_response::{Node, PartitionData, ReplicaState, TopicData},
    },
};

use super::{CountErrors, count};
use crate::{clock::wall_clock, context::RequestContext, error_code, topic_names::METADATA_TOPIC};

pub(super) async fn handle(
    cx: &RequestContext,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    let quorum = match cx.broker().describe_quorum(cx.default_deadline()).await {
        Ok(quorum) => quorum,
        Err(error) => {
            let code = error_code::controller(&error);
            return DescribeQuorumResponse::default().with_error_code(code.code());
        }
    };
    let (version, now) = (cx.version(), wall_clock());
    let topics = request
        .topics
        .iter()
        .map(|topic| describe(topic, &quorum, version, now));
    let response = DescribeQuorumResponse::default().with_topics(topics.collect());
    if version < 2 {
        return response;
    }
    let members = quorum.voters.iter().chain(&quorum.observers);
    // Controllers speak gRPC: they have no listener of Kafka's protocol to name.
    let nodes = members.map(|member| Node::default().with_node_id(BrokerId(member.node_id.get())));
    response.with_nodes(nodes.collect())
}

fn describe(
    asked: &AskedTopic,
    quorum: &QuorumDescription,
    version: i16,
    now: WallClockMs,
) -> TopicData {
    let rows = asked.partitions.iter().map(|partition| {
        let row = PartitionData::default().with_partition_index(partition.partition_index);
        if asked.topic_name.as_str() != METADATA_TOPIC || partition.partition_index != 0 {
            return row.with_error_code(ErrorCode::UnknownTopicOrPartition.code());
        }
        let states = |replicas: &[QuorumReplica]| {
            replicas
                .iter()
                .map(|replica| state(replica, version, now))
                .collect()
        };
        row.with_leader_id(BrokerId(quorum.leader.get()))
            .with_leader_epoch(i32::try_from(quorum.term).unwrap_or(i32::MAX))
            .with_high_watermark(index(quorum.committed_index))
            .with_current_voters(states(&quorum.voters))
            .with_observers(states(&quorum.observers))
    });
    TopicData::default()
        .with_topic_name(asked.topic_name.clone())
        .with_partitions(rows.collect())
}

fn state(replica: &QuorumReplica, version: i16, now: WallClockMs) -> ReplicaState {
    let answered = replica.last_answer_ms_ago.map_or(-1, |ago| {
        now.0.saturating_sub(i64::try_from(ago).unwrap_or(i64::MAX))
    });
    let row = ReplicaState::default()
        .with_replica_id(BrokerId(replica.node_id.get()))
        .with_log_end_offset(replica.log_end_index.map_or(-1, index))
        .with_last_fetch_timestamp(answered)
        .with_last_caught_up_timestamp(answered);
    if version >= 2 {
        row.with_replica_directory_id(replica.directory_id)
    } else {
        row
    }
}

fn index(index: u64) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

impl CountErrors for DescribeQuorumResponse {
    fn count_errors(&self) -> usize {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        count([self.error_code]) + count(partitions.map(|partition| partition.error_code))
    }
}
