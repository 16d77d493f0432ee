//! Brokers that follow a script: real sockets and real frames, and a log that checks sequences as
//! Kafka's does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use ottla_records::{batches, decode_records};
use ottla_wire::{
    Api, ErrorCode, Frame, ProduceRequest, RequestHeader, StrBytes, TopicKey, decode_request,
    encode_response,
    messages::{
        self, ApiVersionsResponse, InitProducerIdResponse, MetadataResponse, ProduceResponse,
        api_versions_response::ApiVersion,
        metadata_response::{
            MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
        },
        produce_response::{LeaderIdAndEpoch, PartitionProduceResponse, TopicProduceResponse},
    },
    next_frame, take_header,
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::TaskTracker;

/// The one topic.
pub(crate) const TOPIC: &str = "orders";

/// What a broker does with a request.
pub(crate) enum Reply {
    /// Answers with this frame.
    Answer(Bytes),
    /// Closes the connection.
    Close,
    /// Reads on and never answers.
    Hang,
}

/// What happens to the next Produce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection closes, nothing is written.
    CloseBeforeWrite,
    /// Written, and the connection closes without an answer.
    CloseAfterWrite,
    /// The next broker leads from now on; nothing is written.
    MoveLeader,
    /// Written, and then the next broker leads: the answer is the same.
    MoveLeaderAfterWrite,
    /// As `MoveLeader`, and the answer names the new leader.
    MoveLeaderWithHint,
    /// Answered with this code, nothing is written.
    Refuse(ErrorCode),
    /// Never answered.
    Hang,
    /// Never answered, and the next broker leads from now on.
    HangAndMove,
}

/// What all brokers share.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) addresses: Vec<(String, u16)>,
    /// Brokers that metadata does not name: fenced, or gone.
    pub(crate) fenced: Vec<usize>,
    pub(crate) leader: usize,
    pub(crate) leader_epoch: i32,
    /// Taken by one Produce after another.
    pub(crate) faults: VecDeque<Option<Fault>>,
    /// Values, in the order of the log.
    pub(crate) log: Vec<Bytes>,
    pub(crate) produce_requests: usize,
    pub(crate) metadata_requests: usize,
    /// Highest ApiVersions that brokers understand.
    pub(crate) api_versions_max: i16,
    pub(crate) produce_max: i16,
    /// Answers what is not answered here.
    pub(crate) handler: Option<Handler>,
    producers: BTreeMap<i64, Producer>,
}

/// Model, broker, header and body of a request.
pub(crate) type Handler = Box<dyn FnMut(&mut Model, usize, &RequestHeader, Bytes) -> Reply + Send>;

struct Producer {
    epoch: i16,
    next_sequence: i32,
    /// First sequence, count and base offset of the last five.
    last: VecDeque<(i32, i32, i64)>,
}

/// Brokers 1 to n on loopback.
pub(crate) struct FakeCluster {
    pub(crate) model: Arc<Mutex<Model>>,
    tasks: TaskTracker,
}

impl FakeCluster {
    pub(crate) async fn start(brokers: usize) -> FakeCluster {
        let model = Arc::new(Mutex::new(Model {
            leader_epoch: 3,
            api_versions_max: 4,
            produce_max: 13,
            ..Model::default()
        }));
        let tasks = TaskTracker::new();
        for broker in 0..brokers {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            model.lock().addresses.push(("127.0.0.1".to_owned(), port));
            let (model, spawner) = (Arc::clone(&model), tasks.clone());
            tasks.spawn(async move {
                while let Ok((socket, _)) = listener.accept().await {
                    spawner.spawn(serve(socket, broker, Arc::clone(&model)));
                }
            });
        }
        FakeCluster { model, tasks }
    }

    pub(crate) fn bootstrap(&self) -> Vec<String> {
        let model = self.model.lock();
        model
            .addresses
            .iter()
            .map(|(host, port)| format!("{host}:{port}"))
            .collect()
    }

    pub(crate) fn script(&self, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.model.lock().faults.extend(faults);
    }
}

async fn serve(mut socket: TcpStream, broker: usize, model: Arc<Mutex<Model>>) {
    let mut buffer = BytesMut::new();
    loop {
        match next_frame(&mut buffer, 1 << 24).unwrap() {
            Frame::Partial { reserve_bytes } => {
                buffer.reserve(reserve_bytes);
                match socket.read_buf(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
            Frame::Whole(mut frame) => {
                let reply = match take_header(&mut frame) {
                    Ok(header) => model.lock().handle(broker, &header, frame),
                    Err(_) => Reply::Close,
                };
                match reply {
                    Reply::Answer(bytes) => {
                        if socket.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                    Reply::Close => return,
                    Reply::Hang => {
                        // Nothing behind it is served either: one request at a time.
                        let mut rest = [0; 1024];
                        while socket.read(&mut rest).await.is_ok_and(|read| read > 0) {}
                        return;
                    }
                }
            }
        }
    }
}

impl Model {
    fn handle(&mut self, broker: usize, header: &RequestHeader, body: BytesMut) -> Reply {
        match header.api {
            Api::ApiVersions => self.api_versions(header),
            Api::Metadata => {
                self.metadata_requests += 1;
                answer(header, &self.metadata(header, body.freeze()))
            }
            Api::InitProducerId => {
                let mut response = InitProducerIdResponse::default();
                response.producer_id = 7.into();
                answer(header, &response)
            }
            Api::Produce => self.produce(broker, header, body),
            other => {
                let Some(mut handler) = self.handler.take() else {
                    panic!("{other:?} is not expected");
                };
                let reply = handler(self, broker, header, body.freeze());
                self.handler = Some(handler);
                reply
            }
        }
    }

    fn api_versions(&self, header: &RequestHeader) -> Reply {
        let mut response = ApiVersionsResponse::default();
        if header.version > self.api_versions_max {
            response.error_code = ErrorCode::UnsupportedVersion.code();
            response
                .api_keys
                .push(row(Api::ApiVersions, 0, self.api_versions_max));
            let frame = encode_response(Api::ApiVersions, 0, header.correlation_id, &response);
            return Reply::Answer(frame.unwrap());
        }
        for api in Api::ALL {
            let max = match api {
                Api::Produce => self.produce_max,
                Api::ApiVersions => self.api_versions_max,
                _ => api.versions().max,
            };
            response.api_keys.push(row(*api, api.versions().min, max));
        }
        answer(header, &response)
    }

    fn metadata(&self, header: &RequestHeader, body: Bytes) -> MetadataResponse {
        let request: messages::MetadataRequest =
            decode_request(Api::Metadata, header.version, body).unwrap();
        let brokers = self
            .addresses
            .iter()
            .enumerate()
            .filter(|(index, _)| !self.fenced.contains(index))
            .map(|(index, (host, port))| {
                MetadataResponseBroker::default()
                    .with_node_id(node_id(index).into())
                    .with_host(StrBytes::from_string(host.clone()))
                    .with_port((*port).into())
            });
        let wants_it = request.topics.is_none_or(|topics| !topics.is_empty());
        let partition = MetadataResponsePartition::default()
            .with_leader_id(node_id(self.leader).into())
            .with_leader_epoch(self.leader_epoch);
        let topic = MetadataResponseTopic::default()
            .with_name(Some(messages::TopicName(StrBytes::from_static_str(TOPIC))))
            .with_topic_id(uuid::Uuid::from_u128(5))
            .with_partitions(vec![partition]);
        MetadataResponse::default()
            .with_brokers(brokers.collect())
            .with_topics(if wants_it { vec![topic] } else { Vec::new() })
    }

    fn produce(&mut self, broker: usize, header: &RequestHeader, body: BytesMut) -> Reply {
        self.produce_requests += 1;
        let request = ProduceRequest::decode(body, header.version).unwrap();
        let topic = &request.topics[0];
        match &topic.topic {
            TopicKey::Id(id) => assert_eq!(id.as_u128(), 5),
            TopicKey::Name(name) => assert_eq!(&**name, TOPIC),
        }
        let records = topic.partitions[0].records.as_deref().unwrap();
        let mut response = PartitionProduceResponse::default().with_base_offset(-1);
        if broker != self.leader {
            response.error_code = ErrorCode::NotLeaderOrFollower.code();
            return self.produced(header, topic.topic.clone(), response);
        }
        let fault = self.faults.pop_front().flatten();
        let writes = matches!(
            fault,
            None | Some(Fault::CloseAfterWrite | Fault::MoveLeaderAfterWrite)
        );
        if writes {
            match self.append(records) {
                Ok(base_offset) => response.base_offset = base_offset,
                Err(code) => response.error_code = code.code(),
            }
        }
        match fault {
            None => {}
            Some(Fault::CloseBeforeWrite | Fault::CloseAfterWrite) => return Reply::Close,
            Some(Fault::Refuse(code)) => response.error_code = code.code(),
            Some(Fault::Hang) => return Reply::Hang,
            Some(Fault::HangAndMove) => {
                self.move_leader();
                return Reply::Hang;
            }
            Some(Fault::MoveLeader | Fault::MoveLeaderAfterWrite) => {
                self.move_leader();
                response.error_code = ErrorCode::NotLeaderOrFollower.code();
            }
            Some(Fault::MoveLeaderWithHint) => {
                self.move_leader();
                response.error_code = ErrorCode::NotLeaderOrFollower.code();
                response.current_leader = LeaderIdAndEpoch::default()
                    .with_leader_id(node_id(self.leader).into())
                    .with_leader_epoch(self.leader_epoch);
            }
        }
        if request.acks == 0 {
            return Reply::Close;
        }
        self.produced(header, topic.topic.clone(), response)
    }

    pub(crate) fn move_leader(&mut self) {
        self.leader = (self.leader + 1) % self.addresses.len();
        self.leader_epoch += 1;
    }

    fn produced(
        &self,
        header: &RequestHeader,
        topic: TopicKey,
        partition: PartitionProduceResponse,
    ) -> Reply {
        let mut answered =
            TopicProduceResponse::default().with_partition_responses(vec![partition]);
        match topic {
            TopicKey::Id(id) => answered.topic_id = id,
            TopicKey::Name(name) => answered.name = messages::TopicName(name),
        }
        answer(
            header,
            &ProduceResponse::default().with_responses(vec![answered]),
        )
    }

    /// Kafka's rules for sequences (one batch a request).
    fn append(&mut self, records: &[u8]) -> Result<i64, ErrorCode> {
        let (head, batch) = batches(records).next().unwrap().unwrap();
        assert!(ottla_records::check_crc(batch));
        let base_offset = i64::try_from(self.log.len()).unwrap();
        if head.producer_id >= 0 {
            let count = head.record_count;
            let known = self.producers.get_mut(&head.producer_id);
            match known {
                Some(known) if known.epoch == head.producer_epoch => {
                    let repeated = known.last.iter().find(|(first, records, _)| {
                        (*first, *records) == (head.base_sequence, count)
                    });
                    if let Some((_, _, base_offset)) = repeated {
                        return Ok(*base_offset);
                    }
                    if head.base_sequence != known.next_sequence {
                        return Err(ErrorCode::OutOfOrderSequenceNumber);
                    }
                }
                Some(known) if known.epoch > head.producer_epoch => {
                    return Err(ErrorCode::InvalidProducerEpoch);
                }
                Some(_) if head.base_sequence != 0 => {
                    return Err(ErrorCode::OutOfOrderSequenceNumber);
                }
                // A log that does not know the producer takes any sequence.
                Some(_) | None => {}
            }
            let known = self.producers.entry(head.producer_id).or_insert(Producer {
                epoch: head.producer_epoch,
                next_sequence: 0,
                last: VecDeque::new(),
            });
            if known.epoch != head.producer_epoch {
                known.last.clear();
            }
            known.epoch = head.producer_epoch;
            known.next_sequence = head.base_sequence + count;
            known
                .last
                .push_back((head.base_sequence, count, base_offset));
            if known.last.len() > 5 {
                known.last.pop_front();
            }
        }
        for record in decode_records(batch, 1 << 24).unwrap() {
            self.log.push(record.value.unwrap());
        }
        Ok(base_offset)
    }
}

pub(crate) fn node_id(index: usize) -> i32 {
    i32::try_from(index).unwrap() + 1
}

fn row(api: Api, min: i16, max: i16) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(api.key())
        .with_min_version(min)
        .with_max_version(max)
}

pub(crate) fn answer<R: ottla_wire::Encodable>(header: &RequestHeader, response: &R) -> Reply {
    let frame = encode_response(header.api, header.version, header.correlation_id, response);
    Reply::Answer(frame.unwrap())
}
