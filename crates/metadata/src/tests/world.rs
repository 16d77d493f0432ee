//! A controller's state with shorthands for commands; each step is checked against the
//! invariants, and an image folded from the records is kept beside it.

use std::collections::{BTreeMap, BTreeSet};

use ottla_types::{
    BrokerEpoch, BrokerId, FlushMode, LeaderEpoch, Offset, PartitionId, PartitionIndex, TopicId,
};
use uuid::Uuid;

use crate::{
    AlterConfigOp, AlterPartition, AlterPartitionError, Applied, ClusterState, Command,
    CommandError, ConfigAlteration, ConfigResource, CreateTopic, ElectLeaders, ElectionKind, Image,
    LogReport, Outcome, PartitionRecord, Registration, violations_between,
};

#[derive(Clone, Default)]
pub(super) struct World {
    pub(super) state: ClusterState,
    /// Folded from the records alone, as a broker's.
    pub(super) folded: Image,
    pub(super) live: BTreeSet<BrokerId>,
    incarnations: u128,
}

pub(super) fn ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

pub(super) fn topic_id(number: u128) -> TopicId {
    TopicId::new(Uuid::from_u128(0x1000 + number)).unwrap()
}

pub(super) fn part(topic: u128, partition: i32) -> PartitionId {
    PartitionId {
        topic_id: topic_id(topic),
        partition: PartitionIndex(partition),
    }
}

impl World {
    /// Brokers 1 to `count`, unfenced and live.
    pub(super) fn with_brokers(count: i32) -> World {
        let mut world = World::default();
        world.apply(Command::Bootstrap {
            cluster_id: "c".to_owned(),
            features: BTreeMap::new(),
        });
        for id in 1..=count {
            world.start(id);
        }
        world
    }

    pub(super) fn apply(&mut self, command: Command) -> Outcome {
        let before = self.state.image().clone();
        let index = before.index + 1;
        let Applied { outcome, records } = self.state.apply(index, &command);
        self.folded.fold(index, &records);
        let after = self.state.image();
        assert_eq!(&self.folded, after, "the fold of the records is the state");
        assert_eq!(
            after.violations(),
            Vec::<String>::new(),
            "after {command:?}"
        );
        assert_eq!(
            violations_between(&before, after),
            Vec::<String>::new(),
            "after {command:?}"
        );
        if matches!(outcome, Outcome::Refused(_)) {
            assert!(records.is_empty());
        }
        outcome
    }

    pub(super) fn registration(&mut self, id: i32) -> Registration {
        self.incarnations += 1;
        Registration {
            broker_id: BrokerId(id),
            cluster_id: Some("c".to_owned()),
            incarnation: Uuid::from_u128(self.incarnations),
            directory_ids: vec![Uuid::from_u128(0xd000 + u128::from(id.unsigned_abs()))],
            endpoints: Vec::new(),
            replication_address: format!("broker-{id}:9094"),
            rack: None,
            unclean: false,
            damaged: BTreeSet::new(),
            power_cut: None,
            default_flush_mode: FlushMode::Ack,
            offline_directories: Vec::new(),
            live: self.live.clone(),
        }
    }

    pub(super) fn register(&mut self, registration: Registration) -> BrokerEpoch {
        match self.apply(Command::RegisterBroker(registration)) {
            Outcome::Registered { broker_epoch } => broker_epoch,
            other => panic!("not registered: {other:?}"),
        }
    }

    /// A clean restart, or the first start.
    pub(super) fn start(&mut self, id: i32) {
        let registration = self.registration(id);
        self.register(registration);
        self.unfence(id);
    }

    pub(super) fn epoch(&self, id: i32) -> BrokerEpoch {
        self.state.image().broker(BrokerId(id)).unwrap().epoch
    }

    pub(super) fn unfence(&mut self, id: i32) {
        self.live.insert(BrokerId(id));
        let (broker_id, broker_epoch) = (BrokerId(id), self.epoch(id));
        let live = self.live.clone();
        let outcome = self.apply(Command::UnfenceBroker {
            broker_id,
            broker_epoch,
            live,
        });
        assert_eq!(outcome, Outcome::Done);
    }

    /// The broker dies: its stream breaks and it is fenced.
    pub(super) fn fence(&mut self, id: i32) {
        self.live.remove(&BrokerId(id));
        let (broker_id, broker_epoch) = (BrokerId(id), self.epoch(id));
        let live = self.live.clone();
        let outcome = self.apply(Command::FenceBroker {
            broker_id,
            broker_epoch,
            live,
        });
        assert_eq!(outcome, Outcome::Done);
    }

    pub(super) fn shut_down(&mut self, id: i32) -> Outcome {
        let (broker_id, broker_epoch) = (BrokerId(id), self.epoch(id));
        let live = self.live.clone();
        self.apply(Command::BeginControlledShutdown {
            broker_id,
            broker_epoch,
            live,
        })
    }

    pub(super) fn restart_unclean(&mut self, id: i32) {
        let registration = Registration {
            unclean: true,
            ..self.registration(id)
        };
        self.register(registration);
        self.unfence(id);
    }

    pub(super) fn restart_damaged(&mut self, id: i32, partition: PartitionId) {
        let registration = Registration {
            damaged: BTreeSet::from([partition]),
            ..self.registration(id)
        };
        self.register(registration);
        self.unfence(id);
    }

    pub(super) fn restart_after_power_cut(&mut self, id: i32, unset: FlushMode) {
        let registration = Registration {
            power_cut: Some(unset),
            ..self.registration(id)
        };
        self.register(registration);
        self.unfence(id);
    }

    /// The broker's one log directory fails.
    pub(super) fn fail_directory(&mut self, id: i32) {
        let broker = self.state.image().broker(BrokerId(id)).unwrap();
        let (broker_epoch, directories) = (broker.epoch, broker.directory_ids.clone());
        let live = self.live.clone();
        let outcome = self.apply(Command::FailDirectories {
            broker_id: BrokerId(id),
            broker_epoch,
            directories,
            live,
        });
        assert_eq!(outcome, Outcome::Done);
    }

    pub(super) fn report_space(&mut self, id: i32, no_space: bool) {
        let (broker_id, broker_epoch) = (BrokerId(id), self.epoch(id));
        let live = self.live.clone();
        let outcome = self.apply(Command::ReportSpace {
            broker_id,
            broker_epoch,
            no_space,
            live,
        });
        assert_eq!(outcome, Outcome::Done);
    }

    /// The broker says that its log ends at `end`, with a last record of epoch `last_epoch`.
    pub(super) fn report_log(&mut self, id: i32, of: PartitionId, last_epoch: i32, end: i64) {
        let (broker_id, broker_epoch) = (BrokerId(id), self.epoch(id));
        let logs = vec![LogReport {
            id: of,
            last_epoch: LeaderEpoch::new(last_epoch),
            log_end_offset: Offset::saturating(end),
        }];
        let live = self.live.clone();
        let outcome = self.apply(Command::ReportLogs {
            broker_id,
            broker_epoch,
            logs,
            live,
        });
        assert_eq!(outcome, Outcome::Done);
    }

    pub(super) fn create(&mut self, topics: Vec<CreateTopic>) -> Vec<Result<(), CommandError>> {
        let live = self.live.clone();
        match self.apply(Command::CreateTopics {
            topics,
            validate_only: false,
            live,
        }) {
            Outcome::CreatedTopics(answers) => answers
                .into_iter()
                .map(|answer| answer.map(|_| ()))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Topic number `number`, named `t<number>`, one partition on these brokers.
    pub(super) fn create_on(&mut self, number: u128, replicas: &[i32]) -> PartitionId {
        let topic = CreateTopic {
            partitions: None,
            replication_factor: None,
            assignments: BTreeMap::from([(0, ids(replicas))]),
            ..new_topic(number)
        };
        assert_eq!(self.create(vec![topic]), vec![Ok(())]);
        part(number, 0)
    }

    pub(super) fn record(&self, id: PartitionId) -> PartitionRecord {
        self.state.image().partition(id).unwrap().clone()
    }

    /// The current leader proposes an ISR.
    pub(super) fn set_isr(
        &mut self,
        id: PartitionId,
        isr: &[i32],
    ) -> Result<PartitionRecord, AlterPartitionError> {
        let proposal = self.proposal(id, isr);
        let leader = self.record(id).leader.unwrap();
        self.propose(leader.get(), proposal)
    }

    pub(super) fn proposal(&self, id: PartitionId, isr: &[i32]) -> AlterPartition {
        let record = self.record(id);
        AlterPartition {
            id,
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
            isr: isr
                .iter()
                .map(|&id| (BrokerId(id), Some(self.epoch(id))))
                .collect(),
            recovered: false,
        }
    }

    pub(super) fn propose(
        &mut self,
        sender: i32,
        proposal: AlterPartition,
    ) -> Result<PartitionRecord, AlterPartitionError> {
        let (broker_id, broker_epoch) = (BrokerId(sender), self.epoch(sender));
        let live = self.live.clone();
        let partitions = vec![proposal];
        let command = Command::AlterPartition {
            broker_id,
            broker_epoch,
            partitions,
            live,
        };
        match self.apply(command) {
            Outcome::AlteredPartitions(mut answers) => answers.pop().unwrap().1,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn elect(
        &mut self,
        kind: ElectionKind,
        named: Option<&[(&str, i32)]>,
    ) -> Vec<Result<(), CommandError>> {
        let partitions = named.map(|named| {
            let named = named
                .iter()
                .map(|&(name, number)| (name.to_owned(), PartitionIndex(number)));
            named.collect()
        });
        let live = self.live.clone();
        let request = ElectLeaders { kind, partitions };
        match self.apply(Command::ElectLeaders { request, live }) {
            Outcome::Elections(answers) => answers.into_iter().map(|answer| answer.2).collect(),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn alter(
        &mut self,
        resource: ConfigResource,
        ops: &[(&str, AlterConfigOp)],
    ) -> Result<(), CommandError> {
        let ops = ops
            .iter()
            .map(|(key, op)| ((*key).to_owned(), op.clone()))
            .collect();
        let alterations = vec![ConfigAlteration { resource, ops }];
        match self.apply(Command::AlterConfigs {
            alterations,
            validate_only: false,
        }) {
            Outcome::AlteredConfigs(mut answers) => answers.pop().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn set_topic_config(&mut self, topic: &str, key: &str, value: &str) {
        let resource = ConfigResource::Topic(topic.to_owned());
        let op = AlterConfigOp::Set(value.to_owned());
        assert_eq!(self.alter(resource, &[(key, op)]), Ok(()));
    }
}

/// Topic number `number` with one partition and one replica.
pub(super) fn new_topic(number: u128) -> CreateTopic {
    CreateTopic {
        name: format!("t{number}"),
        topic_id: topic_id(number),
        partitions: Some(1),
        replication_factor: Some(1),
        assignments: BTreeMap::new(),
        configs: BTreeMap::new(),
        seed: 0,
    }
}
