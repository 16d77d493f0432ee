//! Brokers in this process, around a fake controller, each with a directory of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpListener, time::Instant};
use tokio_util::sync::CancellationToken;

use ottla_broker::{
    Acks, Broker, BrokerConfig, BrokerHandle, BrokerState, FetchPartition, FetchRequest,
    FetchedRecords, Isolation, LogConfig, ProduceEntry, ProduceError, Produced, Reader,
    ReplicaRole, TopicSettings,
};
use ottla_metadata::{Command, ConfigResource, CreateTopic, DeleteTopic, Outcome, TopicRef};
use ottla_records::{BatchBuilder, BatchHeader, decode_records};
use ottla_storage::testing::MemFiles;
use ottla_types::{
    BrokerId, FlushMode, Offset, PartitionId, PartitionIndex, ProducerEpoch, ProducerId, TopicId,
};

use crate::support::controller::FakeController;

pub(crate) struct Cluster {
    pub(crate) controller: FakeController,
    pub(crate) brokers: BTreeMap<i32, Broker>,
    /// Brokers that find their disk full when they start.
    pub(crate) full: BTreeSet<i32>,
    /// Brokers that find too little room for producers' records when they start.
    pub(crate) nearly_full: BTreeSet<i32>,
    /// Disks in memory, of brokers that have one.
    pub(crate) memory: BTreeMap<i32, MemFiles>,
    dirs: BTreeMap<i32, PathBuf>,
    _root: tempfile::TempDir,
}

impl Cluster {
    pub(crate) async fn start(count: i32) -> Cluster {
        Cluster::start_on(count, BTreeMap::new()).await
    }

    /// Every broker on a disk in memory.
    pub(crate) async fn start_in_memory(count: i32) -> Cluster {
        let memory = (1..=count).map(|id| (id, MemFiles::new())).collect();
        Cluster::start_on(count, memory).await
    }

    async fn start_on(count: i32, memory: BTreeMap<i32, MemFiles>) -> Cluster {
        let root = tempfile::tempdir().unwrap();
        let mut cluster = Cluster {
            controller: FakeController::start().await,
            brokers: BTreeMap::new(),
            full: BTreeSet::new(),
            nearly_full: BTreeSet::new(),
            memory,
            dirs: BTreeMap::new(),
            _root: root,
        };
        for id in 1..=count {
            let dir = cluster._root.path().join(format!("broker-{id}"));
            cluster.dirs.insert(id, dir);
            cluster.start_broker(id).await;
        }
        for id in 1..=count {
            cluster.wait_running(id).await;
        }
        cluster
    }

    pub(crate) async fn start_broker(&mut self, id: i32) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let controllers = vec![(BrokerId(100), self.controller.address.clone())];
        let mut config =
            BrokerConfig::new(BrokerId(id), self.dirs[&id].clone(), controllers, address);
        if let Some(files) = self.memory.get(&id) {
            config.files = Arc::new(files.clone());
        }
        config.shards = 2;
        config.flush_threads = 4;
        config.io_threads = 2;
        config.replica_lag_time_ms_max = 2_000;
        let least = |matters: bool| if matters { u64::MAX } else { 0 };
        config.produce_free_bytes_min = least(self.nearly_full.contains(&id));
        config.replication_free_bytes_min = least(self.full.contains(&id));
        config.high_watermark_checkpoint_interval_ms = 200;
        config.topic_settings = Arc::new(|image, topic| {
            let resource = ConfigResource::Topic(topic.to_owned());
            let configs = image.configs_of(&resource);
            let value = |key: &str| configs.and_then(|configs| configs.get(key).cloned());
            let page = value("flush.messages").is_some_and(|value| value != "1");
            let mut log = LogConfig::default();
            if page {
                log.flush_messages = u64::MAX;
            }
            if let Some(bytes) = value("segment.bytes").and_then(|value| value.parse().ok()) {
                log.segment_bytes = bytes;
            }
            let flush_mode = if page {
                FlushMode::Page
            } else {
                FlushMode::Ack
            };
            TopicSettings { log, flush_mode }
        });
        let broker = Broker::start(config, listener, CancellationToken::new())
            .await
            .unwrap();
        self.brokers.insert(id, broker);
    }

    pub(crate) async fn wait_running(&self, id: i32) {
        let handle = self.handle(id);
        wait_for("the broker to run", || {
            handle.state() == BrokerState::Running
        })
        .await;
    }

    /// The broker's log directory.
    pub(crate) fn dir(&self, id: i32) -> &Path {
        &self.dirs[&id]
    }

    pub(crate) fn handle(&self, id: i32) -> BrokerHandle {
        self.brokers[&id].handle()
    }

    pub(crate) async fn kill(&mut self, id: i32) {
        self.brokers.remove(&id).unwrap().kill().await;
    }

    pub(crate) async fn stop(&mut self, id: i32) {
        let broker = self.brokers.remove(&id).unwrap();
        broker.controlled_shutdown().await;
        broker.stop().await;
    }

    pub(crate) fn any(&self) -> BrokerHandle {
        self.brokers.values().next().unwrap().handle()
    }

    pub(crate) async fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        replicas: i16,
        configs: &[(&str, &str)],
    ) -> TopicId {
        let topic_id = TopicId::new(uuid::Uuid::new_v4()).unwrap();
        let topic = CreateTopic {
            name: name.to_owned(),
            topic_id,
            partitions: Some(partitions),
            replication_factor: Some(replicas),
            assignments: BTreeMap::new(),
            configs: configs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            seed: 0,
        };
        let command = Command::CreateTopics {
            topics: vec![topic],
            validate_only: false,
            live: Default::default(),
        };
        let (index, outcome) = self.any().execute(command, soon()).await.unwrap();
        let Outcome::CreatedTopics(created) = outcome else {
            panic!("{outcome:?}")
        };
        created[0].as_ref().unwrap();
        for broker in self.brokers.values() {
            assert!(broker.handle().wait_for_image(index, soon()).await);
        }
        topic_id
    }

    pub(crate) async fn delete_topic(&self, topic_id: TopicId) {
        let topics = vec![DeleteTopic {
            topic: TopicRef::Id(topic_id),
        }];
        let (_, outcome) = self
            .any()
            .execute(Command::DeleteTopics { topics }, soon())
            .await
            .unwrap();
        assert!(matches!(outcome, Outcome::DeletedTopics(_)));
    }

    /// The broker that leads, once one does.
    pub(crate) async fn leader(&self, id: PartitionId) -> BrokerHandle {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            for broker in self.brokers.values() {
                let handle = broker.handle();
                let newest = self
                    .controller
                    .image()
                    .partition(id)
                    .map(|p| p.leader_epoch);
                let status = handle.replica_status(id);
                if status.is_some_and(|status| {
                    status.role == ReplicaRole::Leader && Some(status.leader_epoch) == newest
                }) {
                    return handle;
                }
            }
            assert!(Instant::now() < deadline, "nobody leads {id}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Produces until it is acknowledged, as a client does: at whoever leads.
    pub(crate) async fn produce_all(&self, id: PartitionId, value: &str) -> Produced {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let leader = self.leader(id).await;
            match produce(&leader, id, value, Acks::All).await {
                Ok(produced) => return produced,
                Err(error) => assert!(Instant::now() < deadline, "{value}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until all replicas of the partition hold the same log up to the same high watermark.
    pub(crate) async fn wait_in_sync(&self, id: PartitionId, isr: usize) {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let leader = self.leader(id).await.replica_status(id).unwrap();
            let record = self.controller.image().partition(id).cloned().unwrap();
            let same = record
                .replicas
                .iter()
                .filter(|b| record.isr.contains(b))
                .all(|b| {
                    let status = self
                        .brokers
                        .get(&b.get())
                        .and_then(|b| b.handle().replica_status(id));
                    status.is_some_and(|status| {
                        status.log_end_offset == leader.log_end_offset
                            && status.high_watermark == leader.log_end_offset
                    })
                });
            if same && record.isr.len() == isr {
                return;
            }
            if Instant::now() >= deadline {
                let all: Vec<_> = self
                    .brokers
                    .values()
                    .map(|b| b.handle().replica_status(id))
                    .collect();
                panic!("not in sync: {record:?} {all:#?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub(crate) fn partition(topic_id: TopicId, partition: i32) -> PartitionId {
    PartitionId {
        topic_id,
        partition: PartitionIndex(partition),
    }
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

pub(crate) fn entry(
    id: PartitionId,
    value: &str,
    producer: Option<(i64, i16, i32)>,
) -> ProduceEntry {
    let mut builder = BatchBuilder::new(1);
    if let Some((producer_id, epoch, sequence)) = producer {
        let epoch = ProducerEpoch::new(epoch).unwrap();
        builder = builder.producer(ProducerId(producer_id), epoch, sequence);
    }
    builder.push(1, None, Some(value.as_bytes()), &[]);
    let batch = builder.build();
    let header = BatchHeader::parse(&batch).unwrap();
    ProduceEntry { id, batch, header }
}

pub(crate) async fn produce(
    broker: &BrokerHandle,
    id: PartitionId,
    value: &str,
    acks: Acks,
) -> Result<Produced, ProduceError> {
    let deadline = Instant::now() + Duration::from_secs(5);
    broker
        .produce(vec![entry(id, value, None)], acks, deadline)
        .await
        .remove(0)
}

/// Every value from the start, as one reader sees it.
pub(crate) async fn read_all(
    broker: &BrokerHandle,
    id: PartitionId,
    reader: Reader,
) -> Vec<String> {
    let mut offset = Offset::ZERO;
    let mut values = Vec::new();
    loop {
        let request = FetchRequest {
            partitions: vec![FetchPartition {
                id,
                offset,
                max_bytes: 1 << 20,
                current_leader_epoch: None,
                last_fetched_epoch: None,
            }],
            max_bytes: 1 << 20,
            min_bytes: 0,
            deadline: soon(),
            isolation: Isolation::ReadUncommitted,
            reader: reader.clone(),
        };
        let fetched = broker.fetch(request).await.remove(0).result.unwrap();
        let bytes = match fetched.records {
            FetchedRecords::Empty => return values,
            FetchedRecords::Memory(bytes) => bytes,
            FetchedRecords::File(slice) => slice.read().unwrap(),
        };
        for batch in ottla_records::batches(&bytes) {
            let (header, batch) = batch.unwrap();
            assert_eq!(header.first_offset(), offset, "no gap (P-40)");
            for record in decode_records(batch, 1 << 20).unwrap() {
                values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
            }
            offset = header.next_offset();
        }
    }
}

pub(crate) async fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !holds() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
