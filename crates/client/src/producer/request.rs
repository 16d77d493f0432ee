//! One Produce request: several partitions' batches to one broker, and what the answer means.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use ottla_records::Codec;
use ottla_types::BrokerId;
use ottla_wire::{
    ErrorCode, ProduceRequestData, ProduceTopicData, StrBytes, TopicKey, decode_response,
    messages::{
        ProduceRequest,
        produce_response::{PartitionProduceResponse, ProduceResponse},
    },
};

use super::{batch::Batch, config::Acks, queue::Outcome, record::DeliveryError};
use crate::{
    cluster::Cluster,
    connection::{Answer, Connection},
    error::{RequestError, code},
    metadata::{Metadata, Node, TopicPartition},
};

/// The last version that names topics by name.
const LAST_BY_NAME: i16 = 12;

/// A request that has been handed to the socket.
pub(super) struct Sent {
    pub(super) answer: Answer,
    pub(super) version: i16,
    /// How each topic was named, to find it in the answer.
    pub(super) keys: BTreeMap<std::sync::Arc<str>, TopicKey>,
}

/// Encodes the batches and hands them to the connection.
pub(super) fn send(
    connection: &Connection,
    metadata: &Metadata,
    batches: &mut [Batch],
    acks: Acks,
    codec: Codec,
    request_timeout: Duration,
) -> Result<Sent, RequestError> {
    let id_of = |batch: &Batch| metadata.topic(&batch.partition.topic)?.id;
    let all_have_ids = batches.iter().all(|batch| id_of(batch).is_some());
    let cap = if all_have_ids { i16::MAX } else { LAST_BY_NAME };
    let version = connection.version_of::<ProduceRequest>(cap)?;
    let mut keys = BTreeMap::new();
    let mut topics: BTreeMap<std::sync::Arc<str>, Vec<(i32, Bytes)>> = BTreeMap::new();
    for batch in batches {
        let name = batch.partition.topic.clone();
        let key = match id_of(batch) {
            Some(id) if version > LAST_BY_NAME => TopicKey::Id(id.uuid()),
            Some(_) | None => TopicKey::Name(StrBytes::from_string(name.to_string())),
        };
        keys.insert(name.clone(), key);
        let records = batch.encoded(codec);
        topics
            .entry(name.clone())
            .or_default()
            .push((batch.partition.partition, records));
    }
    let topics = topics.into_iter().filter_map(|(name, partitions)| {
        let topic = keys.get(&name)?.clone();
        Some(ProduceTopicData { topic, partitions })
    });
    let data = ProduceRequestData {
        acks: acks.on_the_wire(),
        timeout_ms: i32::try_from(request_timeout.as_millis()).unwrap_or(i32::MAX),
        topics: topics.collect(),
    };
    let frame = data.encode(version, connection.client_id())?;
    let answer = connection.start(frame, acks != Acks::None, Instant::now() + request_timeout)?;
    Ok(Sent {
        answer,
        version,
        keys,
    })
}

/// What the answer says of each partition, in the order asked for.
pub(super) struct Verdicts {
    outcomes: BTreeMap<TopicPartition, Outcome>,
    missing: Outcome,
    /// Some partition's leader has to be looked up.
    pub(super) is_metadata_stale: bool,
}

impl Verdicts {
    /// The same for all.
    pub(super) fn all(outcome: Outcome, is_metadata_stale: bool) -> Verdicts {
        Verdicts {
            outcomes: BTreeMap::new(),
            missing: outcome,
            is_metadata_stale,
        }
    }

    /// An attempt without an answer.
    pub(super) fn failed(error: &RequestError) -> Verdicts {
        let outcome = if error.is_retriable() || matches!(error, RequestError::NotSentInTime) {
            Outcome::Retry {
                reason: error.to_string(),
                may_have_happened: error.may_have_happened(),
                at_once: false,
            }
        } else if error.may_have_happened() {
            Outcome::Retry {
                reason: error.to_string(),
                may_have_happened: true,
                at_once: false,
            }
        } else {
            Outcome::Failed(DeliveryError::Unsupported(error.to_string()))
        };
        Verdicts::all(outcome, true)
    }

    pub(super) fn take(&mut self, partition: &TopicPartition) -> Outcome {
        self.outcomes
            .remove(partition)
            .unwrap_or_else(|| self.missing.clone())
    }
}

/// Reads an answer; leaders that it names are learnt at once (KIP-951).
pub(super) fn judge(
    cluster: &Cluster,
    version: i16,
    keys: &BTreeMap<std::sync::Arc<str>, TopicKey>,
    bytes: Bytes,
) -> Verdicts {
    let response = match decode_response::<ProduceRequest>(version, bytes) {
        Ok(response) => response,
        Err(error) => return Verdicts::failed(&RequestError::Codec(error)),
    };
    let mut verdicts = Verdicts::all(
        Outcome::Retry {
            reason: "the answer does not mention the partition".to_owned(),
            may_have_happened: true,
            at_once: false,
        },
        false,
    );
    for (name, key) in keys {
        let found = response.responses.iter().find(|topic| match key {
            TopicKey::Id(id) => topic.topic_id == *id,
            TopicKey::Name(name) => topic.name.0 == *name,
        });
        for answer in found.iter().flat_map(|topic| &topic.partition_responses) {
            let partition = TopicPartition::new(name.clone(), answer.index);
            let has_learnt = learn_leader(cluster, &partition, answer, &response);
            let error = code(answer.error_code);
            verdicts.is_metadata_stale |= crate::error::is_stale_metadata(error) && !has_learnt;
            let outcome = outcome(error, answer, has_learnt);
            verdicts.outcomes.insert(partition, outcome);
        }
    }
    verdicts
}

fn learn_leader(
    cluster: &Cluster,
    partition: &TopicPartition,
    answer: &PartitionProduceResponse,
    response: &ProduceResponse,
) -> bool {
    let hint = &answer.current_leader;
    let Some(leader) = BrokerId::new(hint.leader_id.0) else {
        return false;
    };
    let endpoint = response
        .node_endpoints
        .iter()
        .find(|node| node.node_id == hint.leader_id);
    let endpoint = endpoint.map(|node| Node {
        id: leader,
        host: node.host.to_string(),
        port: node.port,
        rack: node.rack.as_ref().map(ToString::to_string),
    });
    cluster.learn_leader(partition, leader, hint.leader_epoch, endpoint)
}

fn outcome(error: ErrorCode, answer: &PartitionProduceResponse, has_learnt: bool) -> Outcome {
    match error {
        ErrorCode::None => Outcome::Written {
            base_offset: (answer.base_offset >= 0).then_some(answer.base_offset),
            log_append_time: (answer.log_append_time_ms >= 0).then_some(answer.log_append_time_ms),
        },
        // Written by an earlier attempt, no longer known where.
        ErrorCode::DuplicateSequenceNumber => Outcome::Written {
            base_offset: None,
            log_append_time: None,
        },
        ErrorCode::OutOfOrderSequenceNumber | ErrorCode::UnknownProducerId => {
            Outcome::OutOfOrder { code: error }
        }
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge => {
            Outcome::TooLarge { code: error }
        }
        _ if error.is_retriable() => Outcome::Retry {
            reason: error.to_string(),
            may_have_happened: may_be_written(error),
            at_once: has_learnt,
        },
        _ => Outcome::Failed(DeliveryError::Refused {
            code: error,
            message: answer.error_message.as_ref().map(ToString::to_string),
            may_have_happened: may_be_written(error),
        }),
    }
}

/// Errors that brokers answer after an append as well as before one.
const fn may_be_written(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::NotLeaderOrFollower
            | ErrorCode::RequestTimedOut
            | ErrorCode::NotEnoughReplicasAfterAppend
            | ErrorCode::KafkaStorageError
            | ErrorCode::NetworkException
            | ErrorCode::UnknownServerError
    )
}
