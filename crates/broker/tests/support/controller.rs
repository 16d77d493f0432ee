//! A controller in memory: the real state machine behind the real service, without raft.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::Stream;
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use ottla_metadata::{BrokerRecord, ClusterState, Command, Image, Outcome, Record, decode, encode};
use ottla_rpc::controller::{
    Applied, DescribeQuorumReply, DescribeQuorumRequest, ExecuteReply, ExecuteRequest, Heartbeat,
    HeartbeatAccepted, HeartbeatReply, MetadataUpdate, SubscribeRequest,
    controller_server::{Controller, ControllerServer},
    execute_reply, heartbeat_reply,
};
use ottla_types::{BrokerEpoch, BrokerId};

#[derive(Default)]
struct State {
    cluster: ClusterState,
    index: u64,
    log: Vec<(u64, Vec<Record>)>,
    /// Live streams, by broker: the number of the newest.
    streams: BTreeMap<BrokerId, u64>,
    next_stream: u64,
    /// Hears nothing of metadata.
    muted: Option<BrokerId>,
}

/// A handle on the fake controller.
#[derive(Clone)]
pub(crate) struct FakeController {
    state: Arc<Mutex<State>>,
    index: watch::Sender<u64>,
    pub(crate) address: String,
    stop: CancellationToken,
}

impl FakeController {
    pub(crate) async fn start() -> FakeController {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let controller = FakeController {
            state: Arc::default(),
            index: watch::Sender::new(0),
            address: listener.local_addr().unwrap().to_string(),
            stop: CancellationToken::new(),
        };
        controller.apply(Command::Bootstrap {
            cluster_id: "test-cluster-0123456789".to_owned(),
            features: BTreeMap::new(),
        });
        let service = ControllerServer::new(controller.clone());
        let stop = controller.stop.clone();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            let _ = server
                .serve_with_incoming_shutdown(incoming, stop.cancelled())
                .await;
        });
        controller
    }

    pub(crate) fn image(&self) -> Image {
        self.state.lock().cluster.image().clone()
    }

    /// Decides a command as the leader of a quorum would.
    pub(crate) fn apply(&self, mut command: Command) -> (u64, Outcome) {
        let mut state = self.state.lock();
        let alive: BTreeSet<BrokerId> = state.streams.keys().copied().collect();
        match &mut command {
            Command::RegisterBroker(registration) => registration.live = alive,
            Command::FenceBroker { live, .. }
            | Command::UnfenceBroker { live, .. }
            | Command::BeginControlledShutdown { live, .. }
            | Command::FailDirectories { live, .. }
            | Command::ReportSpace { live, .. }
            | Command::ReportLogs { live, .. }
            | Command::CreateTopics { live, .. }
            | Command::CreatePartitions { live, .. }
            | Command::AlterPartition { live, .. }
            | Command::ElectLeaders { live, .. } => *live = alive,
            Command::Bootstrap { .. }
            | Command::UnregisterBroker { .. }
            | Command::DeleteTopics { .. }
            | Command::AlterConfigs { .. }
            | Command::AllocateProducerIds { .. } => {}
        }
        state.index += 1;
        let index = state.index;
        let applied = state.cluster.apply(index, &command);
        let violations = state.cluster.image().violations();
        assert!(violations.is_empty(), "{violations:?}");
        state.log.push((index, applied.records));
        drop(state);
        self.index.send_replace(index);
        (index, applied.outcome)
    }

    /// Tells this broker nothing more of metadata, or everything again.
    pub(crate) fn mute(&self, broker: Option<BrokerId>) {
        self.state.lock().muted = broker;
        self.index.send_modify(|_| {});
    }

    fn is_muted(&self, broker: BrokerId) -> bool {
        self.state.lock().muted == Some(broker)
    }

    fn heartbeat(&self, beat: &Heartbeat) -> HeartbeatReply {
        let id = BrokerId(beat.broker_id);
        let epoch = BrokerEpoch::saturating(beat.broker_epoch);
        let known = self.image().broker(id).cloned();
        let Some(broker) = known.filter(|broker| broker.epoch == epoch) else {
            let result = Some(heartbeat_reply::Result::Stale("not registered".to_owned()));
            return HeartbeatReply { result };
        };
        self.hear_of_disks(beat, &broker);
        let mut may_shut_down = false;
        if beat.want_shutdown {
            if !broker.in_controlled_shutdown {
                self.apply(Command::BeginControlledShutdown {
                    broker_id: id,
                    broker_epoch: epoch,
                    live: BTreeSet::new(),
                });
            }
            may_shut_down = self.image().partitions_led_by(id).next().is_none();
        } else if broker.fenced
            && beat.ready
            && beat.metadata_index >= beat.broker_epoch.unsigned_abs()
        {
            self.apply(Command::UnfenceBroker {
                broker_id: id,
                broker_epoch: epoch,
                live: BTreeSet::new(),
            });
        }
        let fenced = self.image().broker(id).is_none_or(|broker| broker.fenced);
        let accepted = HeartbeatAccepted {
            fenced,
            may_shut_down,
            controller_term: 1,
        };
        HeartbeatReply {
            result: Some(heartbeat_reply::Result::Accepted(accepted)),
        }
    }

    /// Takes down what a heartbeat says of the broker's disks.
    fn hear_of_disks(&self, beat: &Heartbeat, broker: &BrokerRecord) {
        let (broker_id, broker_epoch) = (broker.broker_id, broker.epoch);
        let directories: Vec<_> = beat
            .offline_directories
            .iter()
            .map(|id| uuid::Uuid::from_slice(id).unwrap())
            .collect();
        if directories
            .iter()
            .any(|id| !broker.offline_directories.contains(id))
        {
            self.apply(Command::FailDirectories {
                broker_id,
                broker_epoch,
                directories,
                live: BTreeSet::new(),
            });
        }
        if beat.no_space != broker.no_space {
            self.apply(Command::ReportSpace {
                broker_id,
                broker_epoch,
                no_space: beat.no_space,
                live: BTreeSet::new(),
            });
        }
    }

    /// A stream broke: fenced after a short grace without a new one.
    async fn stream_broke(self, id: BrokerId, epoch: BrokerEpoch, number: u64) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        {
            let mut state = self.state.lock();
            if state.streams.get(&id) != Some(&number) {
                return;
            }
            state.streams.remove(&id);
        }
        let live = BTreeSet::new();
        self.apply(Command::FenceBroker {
            broker_id: id,
            broker_epoch: epoch,
            live,
        });
    }
}

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Controller for FakeController {
    type SessionStream = BoxStream<HeartbeatReply>;
    type SubscribeStream = BoxStream<MetadataUpdate>;

    async fn execute(
        &self,
        request: Request<ExecuteRequest>,
    ) -> Result<Response<ExecuteReply>, Status> {
        let command: Command = decode(&request.into_inner().command)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let (index, outcome) = self.apply(command);
        let applied = Applied {
            index,
            outcome: Bytes::from(encode(&outcome)),
        };
        let result = Some(execute_reply::Result::Applied(applied));
        Ok(Response::new(ExecuteReply { result }))
    }

    async fn session(
        &self,
        request: Request<Streaming<Heartbeat>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut beats = request.into_inner();
        let (send, receive) = tokio::sync::mpsc::channel(16);
        let controller = self.clone();
        tokio::spawn(async move {
            let mut from = None;
            while let Ok(Some(beat)) = beats.message().await {
                let id = BrokerId(beat.broker_id);
                if from.is_none() {
                    let mut state = controller.state.lock();
                    state.next_stream += 1;
                    let number = state.next_stream;
                    state.streams.insert(id, number);
                    from = Some((id, BrokerEpoch::saturating(beat.broker_epoch), number));
                }
                if send.send(Ok(controller.heartbeat(&beat))).await.is_err() {
                    break;
                }
            }
            if let Some((id, epoch, number)) = from {
                controller.stream_broke(id, epoch, number).await;
            }
        });
        let replies = tokio_stream::wrappers::ReceiverStream::new(receive);
        Ok(Response::new(Box::pin(replies)))
    }

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let request = request.into_inner();
        let (from, broker) = (request.from_index, BrokerId(request.broker_id));
        let controller = self.clone();
        let indexes = self.index.subscribe();
        let updates = futures::stream::unfold(
            (controller, indexes, from),
            move |(controller, mut indexes, from)| async move {
                let told = |index: &u64| *index > from && !controller.is_muted(broker);
                indexes.wait_for(told).await.ok()?;
                let (update, index) = {
                    let state = controller.state.lock();
                    let image = (from == 0).then(|| Bytes::from(encode(state.cluster.image())));
                    let records: Vec<Record> = state
                        .log
                        .iter()
                        .filter(|(index, _)| from > 0 && *index > from)
                        .flat_map(|(_, records)| records.clone())
                        .collect();
                    let update = MetadataUpdate {
                        index: state.index,
                        image,
                        records: Bytes::from(encode(&records)),
                        applied_index: state.index,
                        active_controller_id: 100,
                    };
                    (update, state.index)
                };
                Some((Ok(update), (controller, indexes, index)))
            },
        );
        Ok(Response::new(Box::pin(updates)))
    }

    async fn describe_quorum(
        &self,
        _: Request<DescribeQuorumRequest>,
    ) -> Result<Response<DescribeQuorumReply>, Status> {
        Err(Status::unimplemented("not in the fake"))
    }
}
