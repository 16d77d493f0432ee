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
    BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionEpoch, PartitionId, PartitionIndex,
    TopicId,
};

use crate::{
    Acks, ControllerError, FetchAnswer, FetchError, FetchRequest, FetchedPartition, FetchedRecords,
    ProduceEntry, ProduceError, Produced, ReplicaRole, ReplicaStatus,
    groups::{Groups, GroupsConfig, OffsetsLog},
};

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

/// The cluster as one broker sees it.
struct FakeLog {
    cluster: Arc<Cluster>,
    broker_id: BrokerId,
}

impl FakeLog {
    fn append(&self, mut entry: ProduceEntry) -> Result<Produced, ProduceError> {
        let mut state = self.cluster.lock();
        let (fate, lag) = (state.fate, state.followers_lag);
        let record = state.image.partition(entry.id).cloned();
        let record = record.ok_or(ProduceError::UnknownPartition)?;
        if record.leader != Some(self.broker_id) {
            let leader = record.leader.map(|leader| (leader, record.leader_epoch));
            return Err(ProduceError::NotLeader { leader });
        }
        if fate == Fate::Refused {
            return Err(ProduceError::NotEnoughReplicas {
                in_sync: 1,
                required: 2,
            });
        }
        state.produced_batches += 1;
        let log = state
            .logs
            .get_mut(&entry.id)
            .ok_or(ProduceError::UnknownPartition)?;
        let base_offset = log.end;
        stamp(&mut entry.batch, base_offset, record.leader_epoch);
        log.end = base_offset.plus(i64::from(entry.header.record_count));
        log.batches
            .push((base_offset, log.end, entry.batch.freeze()));
        if fate == Fate::Unknown {
            return Err(ProduceError::TimedOut);
        }
        log.high_watermark = log.end;
        for (broker, known) in &mut log.known {
            if *broker == self.broker_id || !lag {
                *known = log.end;
            }
        }
        Ok(Produced {
            base_offset,
            log_append_time: None,
            log_start_offset: Offset::ZERO,
        })
    }

    fn read(&self, request: &FetchRequest) -> (Vec<FetchAnswer>, bool) {
        let mut state = self.cluster.lock();
        let mut read = 0;
        let mut any = false;
        let mut answers = Vec::new();
        for partition in &request.partitions {
            let result = match state.logs.get(&partition.id) {
                None => Err(FetchError::UnknownPartition),
                Some(log) => {
                    let high_watermark = log.known[&self.broker_id];
                    let mut bytes = Vec::new();
                    // As the lineage of a real log: the epoch of the last record must be the same.
                    let ends_here = log.batches.iter().find(|b| b.1 == partition.offset);
                    let epoch = ends_here.and_then(|(_, _, batch)| {
                        BatchHeader::parse(batch).unwrap().leader_epoch()
                    });
                    let foreign = partition
                        .last_fetched_epoch
                        .is_some_and(|asked| epoch != Some(asked));
                    for (_, next, batch) in &log.batches {
                        if *next > partition.offset && *next <= high_watermark {
                            bytes.extend_from_slice(batch);
                            read += 1;
                        }
                    }
                    any |= !bytes.is_empty() || foreign;
                    let records = match bytes.is_empty() {
                        true => FetchedRecords::Empty,
                        false => FetchedRecords::Memory(bytes.into()),
                    };
                    Ok(FetchedPartition {
                        high_watermark,
                        last_stable_offset: high_watermark,
                        log_start_offset: Offset::ZERO,
                        records,
                        diverging: foreign.then_some((LeaderEpoch::ZERO, Offset::ZERO)),
                        aborted: Vec::new(),
                    })
                }
            };
            any |= result.is_err();
            answers.push(FetchAnswer {
                id: partition.id,
                result,
            });
        }
        state.read_batches += read;
        (answers, any)
    }
}

impl OffsetsLog for FakeLog {
    fn broker_id(&self) -> BrokerId {
        self.broker_id
    }

    fn image(&self) -> Arc<Image> {
        self.cluster.lock().image_of(self.broker_id)
    }

    fn image_changes(&self) -> watch::Receiver<u64> {
        self.cluster.index.subscribe()
    }

    fn replica_status(&self, id: PartitionId) -> Option<ReplicaStatus> {
        let state = self.cluster.lock();
        let log = state.logs.get(&id)?;
        let image = state.image_of(self.broker_id);
        let record = image.partition(id)?;
        let leads = record.leader == Some(self.broker_id);
        Some(ReplicaStatus {
            role: if leads {
                ReplicaRole::Leader
            } else {
                ReplicaRole::Follower
            },
            leader_epoch: record.leader_epoch,
            epoch_start_offset: leads.then_some(log.epoch_start),
            log_start_offset: Offset::ZERO,
            high_watermark: log.known[&self.broker_id],
            log_end_offset: log.end,
            flushed_offset: log.end,
            size_bytes: 0,
            isr: BROKERS.to_vec(),
        })
    }

    fn partition_dir(&self, id: PartitionId) -> Option<PathBuf> {
        let root = self.cluster.lock().root.path().to_owned();
        let dir = root.join(format!("{}-{}", self.broker_id, id.partition));
        std::fs::create_dir_all(&dir).unwrap();
        Some(dir)
    }

    fn produce(
        &self,
        entries: Vec<ProduceEntry>,
        acks: Acks,
        _deadline: Instant,
    ) -> BoxFuture<'static, Vec<Result<Produced, ProduceError>>> {
        assert_eq!(acks, Acks::All);
        let results: Vec<_> = entries
            .into_iter()
            .map(|entry| self.append(entry))
            .collect();
        let cluster = Arc::clone(&self.cluster);
        async move {
            sleep(Duration::from_micros(200)).await;
            cluster.wake();
            results
        }
        .boxed()
    }

    fn fetch(&self, request: FetchRequest) -> BoxFuture<'static, Vec<FetchAnswer>> {
        let mut moved = self.cluster.moved.subscribe();
        let log = FakeLog {
            cluster: Arc::clone(&self.cluster),
            broker_id: self.broker_id,
        };
        async move {
            loop {
                let (answers, any) = log.read(&request);
                if any || timeout_at(request.deadline, moved.changed()).await.is_err() {
                    return answers;
                }
            }
        }
        .boxed()
    }

    fn confirm_leadership(
        &self,
        id: PartitionId,
        leader_epoch: LeaderEpoch,
        deadline: Instant,
    ) -> BoxFuture<'static, bool> {
        let cluster = Arc::clone(&self.cluster);
        let broker = self.broker_id;
        async move {
            loop {
                let mut moved = cluster.moved.subscribe();
                {
                    let state = cluster.lock();
                    let paused = state.paused.as_ref().is_some_and(|(id, _)| *id == broker);
                    let record = state.image.partition(id);
                    let leads = record.is_some_and(|record| {
                        record.leader == Some(broker) && record.leader_epoch == leader_epoch
                    });
                    if leads || !paused {
                        return leads;
                    }
                }
                if timeout_at(deadline, moved.changed()).await.is_err() {
                    return false;
                }
            }
        }
        .boxed()
    }

    fn execute(
        &self,
        command: Command,
        _deadline: Instant,
    ) -> BoxFuture<'static, Result<(u64, Outcome), ControllerError>> {
        let Command::CreateTopics { topics, live, .. } = command else {
            return async { Err(ControllerError::TimedOut) }.boxed();
        };
        assert_eq!(live, BTreeSet::new());
        let CreateTopic {
            name,
            partitions,
            configs,
            ..
        } = topics.into_iter().next().unwrap();
        assert_eq!(configs["cleanup.policy"], "compact");
        let partitions = partitions.unwrap();
        let topic_id = self.cluster.create_topic(&name, partitions);
        let created = CreatedTopic {
            topic_id,
            partitions,
            replication_factor: 2,
        };
        let index = self.cluster.lock().image.index;
        async move { Ok((index, Outcome::CreatedTopics(vec![Ok(created)]))) }.boxed()
    }

    fn wait_for_image(&self, _index: u64, _deadline: Instant) -> BoxFuture<'static, bool> {
        async { true }.boxed()
    }
}
