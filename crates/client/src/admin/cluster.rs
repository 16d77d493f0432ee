//! The cluster itself: brokers, disks, the controllers' quorum.

use std::collections::BTreeMap;

use ottla_types::BrokerId;
use ottla_wire::{
    ErrorCode,
    messages::{
        DescribeClusterRequest, DescribeLogDirsRequest, DescribeQuorumRequest,
        describe_quorum_request::{PartitionData, TopicData},
        describe_quorum_response::ReplicaState,
    },
};

use super::{
    Admin, AdminError, Refusal, item,
    route::{Repeat, unanswered, whole},
};
use crate::{
    leaders::wire_name,
    metadata::{Node, TopicPartition},
};

/// Brokers and controller.
#[derive(Clone, Debug)]
pub struct ClusterDescription {
    /// The cluster's id.
    pub cluster_id: String,
    /// A broker that stands for the controller.
    pub controller: Option<BrokerId>,
    /// The live brokers.
    pub brokers: Vec<Node>,
}

/// A directory of logs.
#[derive(Clone, Debug)]
pub struct LogDir {
    /// Its path on the broker.
    pub path: String,
    /// Why it is offline.
    pub error: Option<Refusal>,
    /// Size of its disk, if the broker says so.
    pub total_bytes: Option<i64>,
    /// What is left of that.
    pub usable_bytes: Option<i64>,
    /// What is in it.
    pub replicas: BTreeMap<TopicPartition, LogDirReplica>,
}

/// One partition's log in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogDirReplica {
    /// Its size.
    pub size_bytes: i64,
    /// How far it is behind.
    pub offset_lag: i64,
}

/// The controllers' quorum.
#[derive(Clone, Debug)]
pub struct QuorumDescription {
    /// Who leads.
    pub leader: Option<BrokerId>,
    /// Since which epoch.
    pub leader_epoch: i32,
    /// What is committed.
    pub high_watermark: i64,
    /// Who votes.
    pub voters: Vec<QuorumReplica>,
    /// Who only listens.
    pub observers: Vec<QuorumReplica>,
}

/// One node's copy of the metadata log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuorumReplica {
    /// The node.
    pub id: BrokerId,
    /// Where its log ends.
    pub log_end_offset: i64,
}

impl Admin {
    /// Brokers and controller.
    ///
    /// # Errors
    /// The request did not succeed.
    pub async fn describe_cluster(&self) -> Result<ClusterDescription, AdminError> {
        let build = |_version: i16| DescribeClusterRequest::default();
        let response = self
            .to_any(Repeat::Freely, build, |_| ErrorCode::None)
            .await?;
        whole(response.error_code, response.error_message.as_ref())?;
        let brokers = response.brokers.iter().map(|broker| Node {
            id: BrokerId(broker.broker_id.0),
            host: broker.host.to_string(),
            port: broker.port,
            rack: broker.rack.as_ref().map(ToString::to_string),
        });
        Ok(ClusterDescription {
            cluster_id: response.cluster_id.to_string(),
            controller: BrokerId::new(response.controller_id.0),
            brokers: brokers.collect(),
        })
    }

    /// One broker's directories of logs.
    ///
    /// # Errors
    /// The request did not succeed.
    pub async fn describe_log_dirs(&self, broker: BrokerId) -> Result<Vec<LogDir>, AdminError> {
        let build = |_version: i16| DescribeLogDirsRequest::default().with_topics(None);
        let response = self.to_one(broker, build).await?;
        whole(response.error_code, None)?;
        let dirs = response.results.into_iter().map(|dir| {
            let mut replicas = BTreeMap::new();
            for topic in &dir.topics {
                for row in &topic.partitions {
                    let replica = LogDirReplica {
                        size_bytes: row.partition_size,
                        offset_lag: row.offset_lag,
                    };
                    let partition = TopicPartition::new(&*topic.name.0, row.partition_index);
                    replicas.insert(partition, replica);
                }
            }
            LogDir {
                path: dir.log_dir.to_string(),
                error: item(dir.error_code, None).err(),
                total_bytes: (dir.total_bytes >= 0).then_some(dir.total_bytes),
                usable_bytes: (dir.usable_bytes >= 0).then_some(dir.usable_bytes),
                replicas,
            }
        });
        Ok(dirs.collect())
    }

    /// The controllers' quorum.
    ///
    /// # Errors
    /// It was refused, or the request did not succeed.
    pub async fn describe_quorum(&self) -> Result<QuorumDescription, AdminError> {
        let build = |_version: i16| {
            let topic = TopicData::default()
                .with_topic_name(wire_name("__cluster_metadata"))
                .with_partitions(vec![PartitionData::default()]);
            DescribeQuorumRequest::default().with_topics(vec![topic])
        };
        let response = self
            .to_any(Repeat::Freely, build, |_| ErrorCode::None)
            .await?;
        whole(response.error_code, response.error_message.as_ref())?;
        let partition = response
            .topics
            .first()
            .and_then(|topic| topic.partitions.first());
        let partition = partition.ok_or_else(|| unanswered("the quorum"))?;
        whole(partition.error_code, partition.error_message.as_ref())?;
        Ok(QuorumDescription {
            leader: BrokerId::new(partition.leader_id.0),
            leader_epoch: partition.leader_epoch,
            high_watermark: partition.high_watermark,
            voters: partition.current_voters.iter().map(replica).collect(),
            observers: partition.observers.iter().map(replica).collect(),
        })
    }
}

fn replica(state: &ReplicaState) -> QuorumReplica {
    QuorumReplica {
        id: BrokerId(state.replica_id.0),
        log_end_offset: state.log_end_offset,
    }
}
