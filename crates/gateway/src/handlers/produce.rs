//! Produce: validate each batch, fix its place in the log, answer when the acks are there.
//!
//! [`admit`] runs before the connection looks at its next request: when it returns, every batch
//! stands in the queue of its partition. The answer comes later. Only batches that must be
//! decompressed are validated elsewhere, and then the connection waits for their admission.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use futures::future::BoxFuture;

use ottla_broker::{Acks, ProduceEntry, ProduceError, Produced};
use ottla_metadata::{Image, TopicImage};
use ottla_records::{BatchHeader, InvalidBatch, RecordError, admit_client_batch};
use ottla_types::{PartitionId, PartitionIndex, TopicId};
use ottla_wire::{
    ErrorCode, NodeEndpoint, ProduceDecodeError, ProducePartition, ProduceRequest, TopicKey,
    messages::{
        BrokerId, ProduceResponse, TopicName,
        produce_response::{
            self, BatchIndexAndErrorMessage, LeaderIdAndEpoch, PartitionProduceResponse,
            TopicProduceResponse,
        },
    },
};

use super::{CountErrors, File, count};
use crate::{
    clock::wall_clock,
    connection::{Answer, Call},
    context::RequestContext,
    error_code,
    leader_hint::{current_leader, node_endpoints},
    topic_names,
    topic_rules::TopicRules,
};

/// Only this client may write to internal topics, as in Kafka.
const ADMIN_CLIENT: &str = "__admin_client";
/// How long a request waits for metadata that its client already has.
const LEADERSHIP_WAIT: Duration = Duration::from_millis(500);
/// How often it looks.
const LEADERSHIP_POLL: Duration = Duration::from_millis(5);

/// Decodes a produce request and puts its batches into their partitions' queues.
#[allow(
    clippy::async_yields_async,
    reason = "the outer future admits, the inner one answers"
)]
pub(super) fn admit(cx: RequestContext, body: BytesMut) -> Result<Call<File>, ProduceDecodeError> {
    let request = ProduceRequest::decode(body, cx.version())?;
    if !may_be_admitted(&cx, &request) {
        return Ok(Call::Admitting(Box::pin(async move {
            wait_for_metadata(&cx, &request).await;
            let plan = Plan::new(&cx, request);
            validate_and_enqueue(cx, plan).await
        })));
    }
    let plan = Plan::new(&cx, request);
    if !plan.is_heavy() {
        return Ok(Call::Admitted(plan.validate().enqueue(cx)));
    }
    Ok(Call::Admitting(validate_and_enqueue(cx, plan)))
}

/// Whether the request can be judged by the metadata that this broker has. A topic that it does
/// not know may be so new that the client has heard of it elsewhere: were its first batches refused
/// and a later one in flight taken, that would look like the producer's beginning (P-8). With
/// acks=0 there is no answer that would make the client try again, so it must lead, too.
fn may_be_admitted(cx: &RequestContext, request: &ProduceRequest) -> bool {
    if request.acks == 0 {
        return all_led_here(cx, request);
    }
    let image = cx.image();
    let known = |topic| find_topic(&image, topic).is_ok();
    request.topics.iter().all(|topic| known(&topic.topic))
}

/// Whether every partition of the request is known and led by this broker.
fn all_led_here(cx: &RequestContext, request: &ProduceRequest) -> bool {
    let image = cx.image();
    request.topics.iter().all(|topic| {
        let Ok(found) = find_topic(&image, &topic.topic) else {
            return false;
        };
        topic.partitions.iter().all(|partition| {
            PartitionIndex::new(partition.index).is_some_and(|partition| {
                cx.broker().leads(PartitionId {
                    topic_id: found.topic_id,
                    partition,
                })
            })
        })
    })
}

/// Waits a moment until this broker has learned what the client has learned elsewhere.
async fn wait_for_metadata(cx: &RequestContext, request: &ProduceRequest) {
    let led = async {
        let mut pause = tokio::time::interval(LEADERSHIP_POLL);
        while !may_be_admitted(cx, request) {
            pause.tick().await;
        }
    };
    let _ = tokio::time::timeout(LEADERSHIP_WAIT, led).await;
}

/// Validates on a thread that serves no sockets, because batches may have to be decompressed.
#[allow(
    clippy::async_yields_async,
    reason = "the outer future admits, the inner one answers"
)]
fn validate_and_enqueue(
    cx: RequestContext,
    plan: Plan,
) -> BoxFuture<'static, BoxFuture<'static, Answer<File>>> {
    let tasks = cx.shared.tasks.clone();
    Box::pin(async move {
        match tasks.spawn_blocking(move || plan.validate()).await {
            Ok(valid) => valid.enqueue(cx),
            Err(error) => {
                tracing::error!(%error, "validate batches");
                Box::pin(std::future::ready(Answer::Close)) as BoxFuture<'static, Answer<File>>
            }
        }
    })
}

/// A request whose partitions are known but whose batches have not been looked at.
struct Plan {
    version: i16,
    /// `None` for a number that is not 0, 1 or -1.
    acks: Option<Acks>,
    timeout_ms: i32,
    topics: Vec<TopicKey>,
    slots: Vec<Slot>,
}

/// One partition of the request.
struct Slot {
    /// Its topic's place in the request.
    topic: usize,
    index: i32,
    target: Result<Target, Refusal>,
}

/// A partition that exists, and what came for it.
struct Target {
    id: PartitionId,
    rules: Arc<TopicRules>,
    records: BytesMut,
}

/// Why a partition's batch was not taken.
struct Refusal {
    code: ErrorCode,
    message: Option<String>,
    records: Vec<RecordError>,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Refusal {
        Refusal {
            code,
            message: None,
            records: Vec::new(),
        }
    }
}

impl Refusal {
    fn invalid(error: InvalidBatch) -> Refusal {
        let code = error_code::invalid_batch(&error);
        let message = Some(error.to_string());
        let records = match error {
            InvalidBatch::InvalidRecords { records }
            | InvalidBatch::InvalidTimestamp { records, .. } => records,
            InvalidBatch::Corrupt(_)
            | InvalidBatch::UnsupportedCompression
            | InvalidBatch::TooLarge { .. }
            | InvalidBatch::Invalid(_) => Vec::new(),
        };
        Refusal {
            code,
            message,
            records,
        }
    }
}

impl Plan {
    fn new(cx: &RequestContext, request: ProduceRequest) -> Plan {
        let image = cx.image();
        let acks = match request.acks {
            0 => Some(Acks::None),
            1 => Some(Acks::Leader),
            -1 => Some(Acks::All),
            _ => None,
        };
        let mut topics = Vec::with_capacity(request.topics.len());
        let mut slots =
            Vec::with_capacity(request.topics.first().map_or(0, |t| t.partitions.len()));
        for topic in request.topics {
            let found = find_topic(&image, &topic.topic);
            let found = found.and_then(|found| check_topic(cx, found)).map(|found| {
                let server = &cx.config().server;
                let rules = cx
                    .shared
                    .rules
                    .get(&image, cx.broker().broker_id(), server, found);
                (found, rules)
            });
            for partition in topic.partitions {
                let index = partition.index;
                let target = match &found {
                    _ if acks.is_none() => Err(ErrorCode::InvalidRequiredAcks.into()),
                    Ok((topic, rules)) => target(topic, rules, partition),
                    Err(code) => Err((*code).into()),
                };
                slots.push(Slot {
                    topic: topics.len(),
                    index,
                    target,
                });
            }
            topics.push(topic.topic);
        }
        Plan {
            version: cx.version(),
            acks,
            timeout_ms: request.timeout_ms,
            topics,
            slots,
        }
    }

    /// Whether some batch must be decompressed: too long for a thread that serves sockets.
    fn is_heavy(&self) -> bool {
        self.slots.iter().any(|slot| {
            slot.target.as_ref().is_ok_and(|target| {
                target.rules.may_need_decompression() && {
                    let header = BatchHeader::parse(&target.records);
                    let codec = header
                        .ok()
                        .and_then(|header| header.attributes.codec().ok());
                    codec.is_some_and(|codec| target.rules.needs_decompression(codec))
                }
            })
        })
    }

    fn validate(self) -> Valid {
        let now = wall_clock();
        let mut entries = Vec::with_capacity(self.slots.len());
        let slots = self.slots.into_iter().map(|slot| {
            let state = slot.target.and_then(|target| {
                let Target { id, rules, records } = target;
                let produce_rules = rules.at(now, self.version);
                let (batch, header) =
                    admit_client_batch(records, &produce_rules, rules.compression)
                        .map_err(Refusal::invalid)?;
                if header.attributes.is_transactional() {
                    let message = "transactions are not served by this broker yet";
                    return Err(Refusal {
                        message: Some(message.to_owned()),
                        ..ErrorCode::InvalidRecord.into()
                    });
                }
                entries.push(ProduceEntry { id, batch, header });
                Ok(id)
            });
            (slot.topic, slot.index, state)
        });
        let slots = slots.collect();
        let acks = self.acks.unwrap_or(Acks::None);
        let wants_answer = self.acks != Some(Acks::None);
        Valid {
            acks,
            wants_answer,
            timeout_ms: self.timeout_ms,
            topics: self.topics,
            slots,
            entries,
        }
    }
}

fn find_topic<'a>(image: &'a Image, key: &TopicKey) -> Result<&'a Arc<TopicImage>, ErrorCode> {
    match key {
        TopicKey::Name(name) => image.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition),
        TopicKey::Id(id) => TopicId::new(*id)
            .and_then(|id| image.topics.get(&id))
            .ok_or(ErrorCode::UnknownTopicId),
    }
}

fn check_topic<'a>(
    cx: &RequestContext,
    topic: &'a Arc<TopicImage>,
) -> Result<&'a Arc<TopicImage>, ErrorCode> {
    if topic_names::is_internal(&topic.name) && cx.client_id() != ADMIN_CLIENT {
        return Err(ErrorCode::InvalidTopicException);
    }
    Ok(topic)
}

fn target(
    topic: &TopicImage,
    rules: &Arc<TopicRules>,
    partition: ProducePartition,
) -> Result<Target, Refusal> {
    let index = PartitionIndex::new(partition.index);
    let index = index.filter(|index| topic.partitions.contains_key(index));
    let index = index.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    Ok(Target {
        id: PartitionId {
            topic_id: topic.topic_id,
            partition: index,
        },
        rules: Arc::clone(rules),
        records: partition.records.unwrap_or_default(),
    })
}

/// A request whose good batches may be appended.
struct Valid {
    acks: Acks,
    wants_answer: bool,
    timeout_ms: i32,
    topics: Vec<TopicKey>,
    /// Topic's place, partition, and what is appended there: the next of `entries`.
    slots: Vec<(usize, i32, Result<PartitionId, Refusal>)>,
    entries: Vec<ProduceEntry>,
}

impl Valid {
    /// Fixes the place of every batch; the future only waits.
    fn enqueue(mut self, cx: RequestContext) -> BoxFuture<'static, Answer<File>> {
        let entries = std::mem::take(&mut self.entries);
        if entries.is_empty() {
            return Box::pin(async move { self.answer(&cx, Vec::new()) });
        }
        let produced = cx
            .broker()
            .produce(entries, self.acks, cx.deadline(self.timeout_ms));
        Box::pin(async move {
            let results = produced.await;
            self.answer(&cx, results)
        })
    }

    fn answer(
        self,
        cx: &RequestContext,
        results: Vec<Result<Produced, ProduceError>>,
    ) -> Answer<File> {
        let image = cx.image();
        let mut results = results.into_iter();
        let mut leaders = Vec::new();
        let mut topics: Vec<TopicProduceResponse> = Vec::with_capacity(self.topics.len());
        for topic in self.topics {
            topics.push(match topic {
                TopicKey::Name(name) => TopicProduceResponse::default().with_name(TopicName(name)),
                TopicKey::Id(id) => TopicProduceResponse::default().with_topic_id(id),
            });
        }
        for (topic, index, state) in self.slots {
            let row = match state {
                Err(refusal) => refused(index, refusal),
                Ok(id) => match results.next() {
                    Some(Ok(produced)) => acknowledged(index, &produced),
                    Some(Err(error)) => failed(&image, cx.version(), index, id, &error),
                    None => failed(
                        &image,
                        cx.version(),
                        index,
                        id,
                        &ProduceError::OutcomeUnknown,
                    ),
                },
            };
            if row.current_leader.leader_id.0 >= 0 {
                leaders.push(row.current_leader.leader_id.0);
            }
            if let Some(topic) = topics.get_mut(topic) {
                topic.partition_responses.push(row);
            }
        }
        let mut response = ProduceResponse::default().with_responses(topics);
        if !leaders.is_empty() && cx.version() >= 10 {
            let endpoints = node_endpoints(&image, &cx.peer.listener, leaders);
            response.node_endpoints = endpoints.into_iter().map(node_endpoint).collect();
        }
        if self.wants_answer {
            return cx.answer(&response);
        }
        // acks=0: the client learns of an error by the closed connection only.
        let errors = response.count_errors();
        cx.count(errors);
        if errors > 0 {
            Answer::Close
        } else {
            Answer::Nothing
        }
    }
}

fn acknowledged(index: i32, produced: &Produced) -> PartitionProduceResponse {
    PartitionProduceResponse::default()
        .with_index(index)
        .with_base_offset(produced.base_offset.get())
        .with_log_append_time_ms(produced.log_append_time.map_or(-1, |time| time.0))
        .with_log_start_offset(produced.log_start_offset.get())
}

fn refused(index: i32, refusal: Refusal) -> PartitionProduceResponse {
    let records = refusal.records.into_iter().map(|record| {
        BatchIndexAndErrorMessage::default()
            .with_batch_index(record.batch_index)
            .with_batch_index_error_message(Some(record.message.into()))
    });
    PartitionProduceResponse::default()
        .with_index(index)
        .with_error_code(refusal.code.code())
        .with_base_offset(-1)
        .with_log_append_time_ms(-1)
        .with_log_start_offset(-1)
        .with_record_errors(records.collect())
        .with_error_message(refusal.message.map(Into::into))
}

fn failed(
    image: &Image,
    version: i16,
    index: i32,
    id: PartitionId,
    error: &ProduceError,
) -> PartitionProduceResponse {
    let mut code = error_code::produce(error);
    if *error == ProduceError::UnknownPartition && image.partition(id).is_some() {
        code = ErrorCode::NotLeaderOrFollower; // It exists, but not here.
    }
    let mut row = refused(
        index,
        Refusal {
            message: Some(error.to_string()),
            ..code.into()
        },
    );
    if version >= 10
        && code == ErrorCode::NotLeaderOrFollower
        && let Some(leader) = current_leader(image, id, error_code::produce_hint(error))
    {
        row.current_leader = LeaderIdAndEpoch::default()
            .with_leader_id(BrokerId(leader.leader_id))
            .with_leader_epoch(leader.leader_epoch);
    }
    row
}

fn node_endpoint(endpoint: NodeEndpoint) -> produce_response::NodeEndpoint {
    produce_response::NodeEndpoint::default()
        .with_node_id(BrokerId(endpoint.node_id))
        .with_host(endpoint.host)
        .with_port(endpoint.port)
        .with_rack(endpoint.rack)
}

impl CountErrors for ProduceResponse {
    fn count_errors(&self) -> usize {
        let partitions = self
            .responses
            .iter()
            .flat_map(|topic| &topic.partition_responses);
        count(partitions.map(|partition| partition.error_code))
    }
}
