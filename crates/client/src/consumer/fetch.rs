//! One Fetch request to one broker, and what its answer says of each partition.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use tokio::time::Instant;

use ottla_types::{BrokerId, TopicId};
use ottla_wire::{
    ErrorCode,
    messages::{
        FetchRequest, FetchResponse,
        fetch_request::{FetchPartition, FetchTopic},
        fetch_response::PartitionData,
    },
};

use super::{config::ConsumerConfig, partition::Position};
use crate::{
    cluster::{Cluster, Lane},
    error::{RequestError, code},
    leaders::{by_topic, text, wire_name},
    metadata::{Metadata, Node, TopicPartition},
};

/// The last version that names topics by name.
const LAST_BY_NAME: i16 = 12;

/// What is asked of one partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) position: Position,
    pub(super) generation: u64,
    pub(super) leader_epoch: Option<i32>,
}

pub(super) type WantedPartitions = BTreeMap<TopicPartition, Wanted>;

/// What came of it.
pub(super) struct Fetched {
    pub(super) broker: BrokerId,
    pub(super) wanted: WantedPartitions,
    pub(super) result: Result<Vec<(TopicPartition, Data)>, RequestError>,
}

/// One partition's part of an answer.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) error: ErrorCode,
    pub(super) high_watermark: Option<i64>,
    pub(super) last_stable_offset: Option<i64>,
    pub(super) log_start_offset: Option<i64>,
    pub(super) aborted: Vec<(i64, i64)>,
    pub(super) preferred: Option<BrokerId>,
    pub(super) records: Bytes,
    pub(super) has_learnt_leader: bool,
}

/// Asks one broker for all partitions that it leads.
pub(super) async fn fetch(
    cluster: &Cluster,
    config: &ConsumerConfig,
    broker: BrokerId,
    wanted: WantedPartitions,
) -> Fetched {
    let metadata = cluster.metadata();
    let ids: BTreeMap<Arc<str>, TopicId> = wanted
        .keys()
        .filter_map(|partition| {
            let id = metadata.topic(&partition.topic)?.id?;
            Some((Arc::clone(&partition.topic), id))
        })
        .collect();
    let has_all_ids = wanted
        .keys()
        .all(|partition| ids.contains_key(&partition.topic));
    let cap = if has_all_ids { i16::MAX } else { LAST_BY_NAME };
    let deadline = Instant::now() + config.client.request_timeout;
    let build = |version: i16| request(config, &wanted, &ids, version);
    let result = cluster
        .call_capped(broker, Lane::Data, cap, deadline, build)
        .await;
    let result = result.and_then(|response| match code(response.error_code) {
        ErrorCode::None => Ok(read(cluster, &metadata, &ids, response)),
        error => Err(RequestError::Disconnected {
            address: broker.to_string(),
            reason: error.to_string(),
        }),
    });
    Fetched {
        broker,
        wanted,
        result,
    }
}

fn request(
    config: &ConsumerConfig,
    wanted: &WantedPartitions,
    ids: &BTreeMap<Arc<str>, TopicId>,
    version: i16,
) -> FetchRequest {
    let topics = by_topic(
        wanted
            .iter()
            .map(|(partition, wanted)| (partition.clone(), wanted)),
    );
    let topics = topics.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(index, wanted)| {
            let mut row = FetchPartition::default()
                .with_partition(index)
                .with_fetch_offset(wanted.position.offset)
                .with_partition_max_bytes(config.partition_bytes_max);
            row.log_start_offset = -1;
            row.last_fetched_epoch = -1;
            row.current_leader_epoch = wanted.leader_epoch.unwrap_or(-1);
            row
        });
        let mut topic = FetchTopic::default().with_partitions(partitions.collect());
        if version > LAST_BY_NAME {
            topic.topic_id = ids.get(&name).map(|id| id.uuid()).unwrap_or_default();
        } else {
            topic.topic = wire_name(&name);
        }
        topic
    });
    let wait_ms = config.fetch_wait_max.as_millis();
    let mut request = FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(i32::try_from(wait_ms).unwrap_or(i32::MAX))
        .with_min_bytes(config.fetch_bytes_min)
        .with_max_bytes(config.fetch_bytes_max)
        .with_isolation_level(config.isolation.on_the_wire())
        .with_topics(topics.collect());
    // No session: the request names all partitions each time.
    request.session_id = 0;
    request.session_epoch = -1;
    if version >= 11
        && let Some(rack) = &config.rack
    {
        request.rack_id = text(rack);
    }
    request
}

fn read(
    cluster: &Cluster,
    metadata: &Metadata,
    ids: &BTreeMap<Arc<str>, TopicId>,
    response: FetchResponse,
) -> Vec<(TopicPartition, Data)> {
    let endpoints: BTreeMap<i32, Node> = response
        .node_endpoints
        .iter()
        .map(|node| {
            let known = Node {
                id: BrokerId(node.node_id.0),
                host: node.host.to_string(),
                port: node.port,
                rack: node.rack.as_ref().map(ToString::to_string),
            };
            (node.node_id.0, known)
        })
        .collect();
    let mut read = Vec::new();
    for topic in response.responses {
        let by_id = TopicId::new(topic.topic_id).and_then(|id| {
            let asked = ids.iter().find(|(_, known)| **known == id);
            asked
                .map(|(name, _)| name)
                .or_else(|| metadata.topic_name(id))
        });
        let name: Arc<str> = match by_id {
            Some(name) => Arc::clone(name),
            None => (&*topic.topic.0).into(),
        };
        for row in topic.partitions {
            let partition = TopicPartition::new(Arc::clone(&name), row.partition_index);
            let endpoint = endpoints.get(&row.current_leader.leader_id.0).cloned();
            let has_learnt_leader =
                BrokerId::new(row.current_leader.leader_id.0).is_some_and(|leader| {
                    cluster.learn_leader(
                        &partition,
                        leader,
                        row.current_leader.leader_epoch,
                        endpoint,
                    )
                });
            read.push((partition, data(row, has_learnt_leader)));
        }
    }
    read
}

fn data(row: PartitionData, has_learnt_leader: bool) -> Data {
    let known = |offset: i64| (offset >= 0).then_some(offset);
    let aborted = row.aborted_transactions.unwrap_or_default();
    Data {
        error: code(row.error_code),
        high_watermark: known(row.high_watermark),
        last_stable_offset: known(row.last_stable_offset),
        log_start_offset: known(row.log_start_offset),
        aborted: aborted
            .iter()
            .map(|one| (one.producer_id.0, one.first_offset))
            .collect(),
        preferred: BrokerId::new(row.preferred_read_replica.0),
        records: row.records.unwrap_or_default(),
        has_learnt_leader,
    }
}
