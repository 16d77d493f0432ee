//! A cluster of brokers in memory: one log per offsets partition, an image, and who leads.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, future::BoxFuture};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use ottla_metadata::{
    BrokerRecord, Command, CreateTopic, CreatedTopic, Image, Outcome, PartitionRecord, Record,
};
use ottla_records::{BatchHeader, stamp};
use ottla_types::{
    BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionId, PartitionIndex, TopicId,
};

use crate::{
    Acks, ControllerError, FetchAnswer, FetchError, FetchRequest, FetchedPartition, FetchedRecords,
    ProduceEntry, ProduceError, Produced, ReplicaRole, ReplicaStatus,
    groups::{Groups, GroupsConfig, OffsetsLog},
};

mod fake_log;

use fake_log::FakeLog;

pub(super) const BROKERS: [BrokerId; 2] = [BrokerId(1), BrokerId(2)];
pub(super) const GROUP: &str = "g";

/// What becomes of appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Committed,
    /// Refused before the append.
    Refused,
    /// Appended, not committed until something else is; the appender hears of a time-out.
    Unknown,
}

#[derive(Debug)]
struct Log {
    batches: Vec<(Offset, Offset, Bytes)>,
    end: Offset,
    high_watermark: Offset,
    /// How far each broker knows the high watermark.
    known: BTreeMap<BrokerId, Offset>,
    epoch_start: Offset,
}

#[derive(Debug)]
struct State {
    image: Arc<Image>,
    logs: BTreeMap<PartitionId, Log>,
    fate: Fate,
    /// Followers hear nothing of new high watermarks.
    followers_lag: bool,
    /// A broker that has heard of nothing since then: it believes in this image.
    paused: Option<(BrokerId, Arc<Image>)>,
    produced_batches: usize,
    /// Batches read by standbys and loading coordinators.
    read_batches: usize,
    /// Where each broker's checkpoints go.
    root: tempfile::TempDir,
}

/// The shared world.
#[derive(Debug)]
pub(super) struct Cluster {
    state: Mutex<State>,
    index: watch::Sender<u64>,
    moved: watch::Sender<u64>,
}

fn offsets_partitions(image: &Image) -> Vec<PartitionId> {
    let Some(topic) = image.topic(crate::groups::OFFSETS_TOPIC) else {
        return Vec::new();
    };
    let id = |partition: &PartitionIndex| PartitionId {
        topic_id: topic.topic_id,
        partition: *partition,
    };
    topic.partitions.keys().map(id).collect()
}

impl Cluster {
    pub(super) fn new() -> Arc<Cluster> {
        let cluster = Cluster {
            state: Mutex::new(State {
                image: Arc::default(),
                logs: BTreeMap::new(),
                fate: Fate::Committed,
                followers_lag: false,
                paused: None,
                produced_batches: 0,
                read_batches: 0,
                root: tempfile::tempdir().unwrap(),
            }),
            index: watch::Sender::new(0),
            moved: watch::Sender::new(0),
        };
        let broker = |broker_id: BrokerId| {
            Record::Broker(BrokerRecord {
                broker_id,
                epoch: BrokerEpoch::ZERO,
                incarnation: Uuid::nil(),
                directory_ids: Vec::new(),
                endpoints: Vec::new(),
                replication_address: String::new(),
                rack: None,
                fenced: false,
                in_controlled_shutdown: false,
                offline_directories: Vec::new(),
                no_space: false,
                default_flush_mode: ottla_types::FlushMode::Ack,
            })
        };
        cluster.apply(BROKERS.map(broker).to_vec());
        Arc::new(cluster)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn apply(&self, records: Vec<Record>) -> u64 {
        let mut state = self.lock();
        let mut image = Image::clone(&state.image);
        image.index += 1;
        for record in &records {
            image.apply(record);
        }
        for id in offsets_partitions(&image) {
            state.logs.entry(id).or_insert_with(|| Log {
                batches: Vec::new(),
                end: Offset::ZERO,
                high_watermark: Offset::ZERO,
                known: BROKERS.map(|broker| (broker, Offset::ZERO)).into(),
                epoch_start: Offset::ZERO,
            });
        }
        let index = image.index;
        state.image = Arc::new(image);
        drop(state);
        self.index.send_replace(index);
        self.wake();
        index
    }

    fn wake(&self) {
        self.moved.send_modify(|moves| *moves += 1);
    }

    pub(super) fn create_topic(&self, name: &str, partitions: i32) -> TopicId {
        let topic_id = TopicId::new(Uuid::new_v4()).unwrap();
        let mut records = vec![Record::Topic {
            topic_id,
            name: name.to_owned(),
        }];
        for partition in 0..partitions {
            let leader = BROKERS[usize::try_from(partition).unwrap() % 2];
            records.push(Record::Partition {
                id: PartitionId {
                    topic_id,
                    partition: PartitionIndex(partition),
                },
                state: PartitionRecord {
                    replicas: BROKERS.to_vec(),
                    isr: BROKERS.to_vec(),
                    leader: Some(leader),
                    ..PartitionRecord::default()
                },
            });
        }
        self.apply(records);
        topic_id
    }

    pub(super) fn delete_topic(&self, topic_id: TopicId) {
        self.apply(vec![Record::RemoveTopic { topic_id }]);
    }

    /// Moves every offsets partition to this broker, in a new epoch. What was appended but not
    /// committed is on all replicas here, so it stays.
    pub(super) fn lead(&self, leader: BrokerId) {
        let records = {
            let mut state = self.lock();
            let image = Arc::clone(&state.image);
            let mut records = Vec::new();
            for id in offsets_partitions(&image) {
                let mut record = image.partition(id).unwrap().clone();
                record.leader = Some(leader);
                record.leader_epoch = record.leader_epoch.next();
                record.partition_epoch = record.partition_epoch.next();
                records.push(Record::Partition { id, state: record });
                let lag = state.followers_lag;
                let log = state.logs.get_mut(&id).unwrap();
                log.epoch_start = log.end;
                if !lag {
                    log.commit();
                }
            }
            records
        };
        self.apply(records);
    }

    pub(super) fn set_fate(&self, fate: Fate) {
        self.lock().fate = fate;
    }

    pub(super) fn set_followers_lag(&self, lag: bool) {
        {
            let mut state = self.lock();
            state.followers_lag = lag;
            if !lag {
                state.logs.values_mut().for_each(Log::commit);
            }
        }
        self.wake();
    }

    /// From now on the broker hears of nothing, and nobody of it.
    pub(super) fn pause(&self, broker: BrokerId) {
        let mut state = self.lock();
        state.paused = Some((broker, Arc::clone(&state.image)));
    }

    pub(super) fn resume(&self) {
        self.lock().paused = None;
        let index = *self.index.borrow();
        self.index.send_replace(index);
        self.wake();
    }

    pub(super) fn produced_batches(&self) -> usize {
        self.lock().produced_batches
    }

    /// Gives every record another history: the same offsets in an epoch of their own.
    pub(super) fn rewrite_logs(&self, epoch: LeaderEpoch) {
        for log in self.lock().logs.values_mut() {
            for (base, _, batch) in &mut log.batches {
                let mut bytes = BytesMut::from(&batch[..]);
                stamp(&mut bytes, *base, epoch);
                *batch = bytes.freeze();
            }
        }
    }

    /// How many batches were read since the last call.
    pub(super) fn take_read_batches(&self) -> usize {
        std::mem::take(&mut self.lock().read_batches)
    }

    pub(super) fn host(self: &Arc<Self>, broker_id: BrokerId) -> Groups {
        let config = GroupsConfig {
            initial_rebalance_delay_ms: 0,
            offsets_topic_partitions: 3,
            ..GroupsConfig::default()
        };
        self.host_with(broker_id, config)
    }

    pub(super) fn host_with(self: &Arc<Self>, broker_id: BrokerId, config: GroupsConfig) -> Groups {
        let log = FakeLog {
            cluster: Arc::clone(self),
            broker_id,
        };
        Groups::start(Arc::new(log), config, CancellationToken::new())
    }
}

impl State {
    /// What a broker takes for the truth.
    fn image_of(&self, broker: BrokerId) -> Arc<Image> {
        match &self.paused {
            Some((paused, image)) if *paused == broker => Arc::clone(image),
            Some(_) | None => Arc::clone(&self.image),
        }
    }
}

impl Log {
    /// Everything is on every replica and known to be.
    fn commit(&mut self) {
        self.high_watermark = self.end;
        self.known.values_mut().for_each(|known| *known = self.end);
    }
}
