//! The steps of random histories: what may happen to a cluster, and as which command.

use ottla_types::{BrokerId, FlushMode, Offset};
use proptest::prelude::*;

use super::world::{World, new_topic, topic_id};
use crate::{
    AlterConfigOp, AlterPartition, Command, ConfigAlteration, ConfigResource, CreatePartitions,
    CreateTopic, DeleteTopic, ElectLeaders, ElectionKind, LogReport, TopicRef,
};

const BROKERS: i32 = 4;
const TOPICS: u128 = 4;

/// One random step; numbers are reduced to something that exists when it is taken.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Restart {
        broker: i32,
        how: How,
    },
    Fence {
        broker: i32,
        stale: bool,
    },
    Unfence {
        broker: i32,
    },
    ShutDown {
        broker: i32,
    },
    Unregister {
        broker: i32,
    },
    LoseStream {
        broker: i32,
    },
    Create {
        topic: u128,
        partitions: i32,
        factor: Option<i16>,
        seed: u64,
    },
    Grow {
        topic: u128,
        by: i32,
        seed: u64,
    },
    Delete {
        topic: u128,
    },
    SetMinIsr {
        topic: Option<u128>,
        value: Option<u8>,
    },
    SetUnclean {
        topic: u128,
        on: bool,
    },
    Isr {
        pick: u8,
        members: u8,
        recovered: bool,
        wrong: u8,
    },
    Elect {
        unclean: bool,
        pick: Option<u8>,
    },
    ProducerIds {
        broker: i32,
    },
    FailDirectory {
        broker: i32,
    },
    Space {
        broker: i32,
        no_space: bool,
    },
    ReportLogs {
        broker: i32,
        length: i64,
    },
    Write,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum How {
    Clean,
    Unclean,
    PowerCut(FlushMode),
    NewDisk,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let broker = || 1..=BROKERS;
    let topic = || 0..TOPICS;
    let how = prop_oneof![
        6 => Just(How::Clean),
        2 => Just(How::Unclean),
        1 => Just(How::PowerCut(FlushMode::Page)),
        1 => Just(How::PowerCut(FlushMode::Ack)),
        1 => Just(How::NewDisk),
    ];
    prop_oneof![
        6 => (broker(), how).prop_map(|(broker, how)| Step::Restart { broker, how }),
        6 => (broker(), prop::bool::weighted(0.1))
            .prop_map(|(broker, stale)| Step::Fence { broker, stale }),
        8 => broker().prop_map(|broker| Step::Unfence { broker }),
        2 => broker().prop_map(|broker| Step::ShutDown { broker }),
        1 => broker().prop_map(|broker| Step::Unregister { broker }),
        2 => broker().prop_map(|broker| Step::LoseStream { broker }),
        4 => (topic(), 1..4i32, prop::option::of(1..=3i16), any::<u64>()).prop_map(
            |(topic, partitions, factor, seed)| Step::Create { topic, partitions, factor, seed }
        ),
        1 => (topic(), 0..3i32, any::<u64>())
            .prop_map(|(topic, by, seed)| Step::Grow { topic, by, seed }),
        1 => topic().prop_map(|topic| Step::Delete { topic }),
        2 => (prop::option::of(topic()), prop::option::of(1..=3u8))
            .prop_map(|(topic, value)| Step::SetMinIsr { topic, value }),
        1 => (topic(), any::<bool>()).prop_map(|(topic, on)| Step::SetUnclean { topic, on }),
        12 => (any::<u8>(), any::<u8>(), any::<bool>(), 0..12u8).prop_map(
            |(pick, members, recovered, wrong)| Step::Isr { pick, members, recovered, wrong }
        ),
        2 => (prop::bool::weighted(0.2), prop::option::of(any::<u8>()))
            .prop_map(|(unclean, pick)| Step::Elect { unclean, pick }),
        1 => broker().prop_map(|broker| Step::ProducerIds { broker }),
        2 => broker().prop_map(|broker| Step::FailDirectory { broker }),
        3 => (broker(), any::<bool>())
            .prop_map(|(broker, no_space)| Step::Space { broker, no_space }),
        4 => (broker(), 0..3i64)
            .prop_map(|(broker, length)| Step::ReportLogs { broker, length }),
        8 => Just(Step::Write),
    ]
}

/// Turns a step into a command that makes sense now, most of the time.
pub(super) fn command(world: &mut World, step: &Step) -> Option<Command> {
    let image = world.state.image().clone();
    let epoch_of = |id: i32| image.broker(BrokerId(id)).map(|broker| broker.epoch);
    let live = world.live.clone();
    let pick = |number: u8| {
        let all: Vec<_> = image
            .partitions()
            .map(|(id, record)| (id, record.clone()))
            .collect();
        (!all.is_empty()).then(|| all[usize::from(number) % all.len()].clone())
    };
    Some(match *step {
        Step::Restart { broker, how } => {
            world.live.remove(&BrokerId(broker));
            let mut registration = world.registration(broker);
            match how {
                How::Clean => {}
                How::Unclean => registration.unclean = true,
                How::PowerCut(mode) => {
                    registration.power_cut = Some(mode);
                    registration.default_flush_mode = mode;
                }
                How::NewDisk => registration.directory_ids = vec![registration.incarnation],
            }
            if how != How::NewDisk
                && let Some(former) = image.broker(BrokerId(broker))
            {
                registration.directory_ids.clone_from(&former.directory_ids);
            }
            Command::RegisterBroker(registration)
        }
        Step::Fence { broker, stale } => {
            let broker_epoch = epoch_of(broker)?;
            let stale_epoch = ottla_types::BrokerEpoch::saturating(broker_epoch.get() - 1);
            if stale {
                let broker_id = BrokerId(broker);
                return Some(Command::FenceBroker {
                    broker_id,
                    broker_epoch: stale_epoch,
                    live,
                });
            }
            world.live.remove(&BrokerId(broker));
            let live = world.live.clone();
            Command::FenceBroker {
                broker_id: BrokerId(broker),
                broker_epoch,
                live,
            }
        }
        Step::Unfence { broker } => {
            let broker_epoch = epoch_of(broker)?;
            world.live.insert(BrokerId(broker));
            Command::UnfenceBroker {
                broker_id: BrokerId(broker),
                broker_epoch,
                live,
            }
        }
        Step::ShutDown { broker } => {
            let broker_epoch = epoch_of(broker)?;
            Command::BeginControlledShutdown {
                broker_id: BrokerId(broker),
                broker_epoch,
                live,
            }
        }
        Step::Unregister { broker } => Command::UnregisterBroker {
            broker_id: BrokerId(broker),
        },
        Step::LoseStream { broker } => {
            world.live.remove(&BrokerId(broker));
            return None;
        }
        Step::Create {
            topic,
            partitions,
            factor,
            seed,
        } => {
            // A fresh id for each life of a name.
            let fresh = topic_id(u128::from(image.index) * 16 + topic);
            let topics = vec![CreateTopic {
                topic_id: fresh,
                partitions: Some(partitions),
                replication_factor: factor,
                seed,
                ..new_topic(topic)
            }];
            Command::CreateTopics {
                topics,
                validate_only: seed % 8 == 0,
                live,
            }
        }
        Step::Grow { topic, by, seed } => {
            let name = format!("t{topic}");
            let present = image.topic(&name).map_or(0, |topic| topic.partitions.len());
            let count = i32::try_from(present).unwrap() + by;
            let topics = vec![CreatePartitions {
                name,
                count,
                assignments: vec![],
                seed,
            }];
            Command::CreatePartitions {
                topics,
                validate_only: false,
                live,
            }
        }
        Step::Delete { topic } => {
            let topic = TopicRef::Name(format!("t{topic}"));
            Command::DeleteTopics {
                topics: vec![DeleteTopic { topic }],
            }
        }
        Step::SetMinIsr { topic, value } => {
            let resource = topic.map_or(ConfigResource::ClusterDefault, |topic| {
                ConfigResource::Topic(format!("t{topic}"))
            });
            let op = value.map_or(AlterConfigOp::Delete, |v| AlterConfigOp::Set(v.to_string()));
            let ops = vec![("min.insync.replicas".to_owned(), op)];
            let alterations = vec![ConfigAlteration { resource, ops }];
            Command::AlterConfigs {
                alterations,
                validate_only: false,
            }
        }
        Step::SetUnclean { topic, on } => {
            let resource = ConfigResource::Topic(format!("t{topic}"));
            let op = AlterConfigOp::Set(on.to_string());
            let ops = vec![("unclean.leader.election.enable".to_owned(), op)];
            let alterations = vec![ConfigAlteration { resource, ops }];
            Command::AlterConfigs {
                alterations,
                validate_only: false,
            }
        }
        Step::Isr {
            pick: number,
            members,
            recovered,
            wrong,
        } => {
            let (id, record) = pick(number)?;
            let leader = record.leader?;
            let chosen = record
                .replicas
                .iter()
                .enumerate()
                .filter(|&(bit, replica)| *replica == leader || members & (1 << bit) != 0);
            let isr = chosen
                .map(|(_, &replica)| (replica, epoch_of(replica.get())))
                .collect();
            let mut partition = AlterPartition {
                id,
                leader_epoch: record.leader_epoch,
                partition_epoch: record.partition_epoch,
                isr,
                recovered,
            };
            let mut broker_id = leader;
            match wrong {
                0 => partition.leader_epoch = partition.leader_epoch.next(),
                1 => partition.partition_epoch = partition.partition_epoch.next(),
                2 => broker_id = *record.replicas.last()?,
                _ => {}
            }
            let broker_epoch = epoch_of(broker_id.get())?;
            Command::AlterPartition {
                broker_id,
                broker_epoch,
                partitions: vec![partition],
                live,
            }
        }
        Step::Elect {
            unclean,
            pick: number,
        } => {
            let kind = if unclean {
                ElectionKind::Unclean
            } else {
                ElectionKind::Preferred
            };
            let named = number.and_then(pick).map(|(id, _)| {
                vec![(
                    image.topic_name(id.topic_id).unwrap().to_owned(),
                    id.partition,
                )]
            });
            // Unclean elections of everything would leave little to check.
            if unclean && named.is_none() {
                return None;
            }
            let request = ElectLeaders {
                kind,
                partitions: named,
            };
            Command::ElectLeaders { request, live }
        }
        Step::ProducerIds { broker } => {
            let broker_epoch = epoch_of(broker)?;
            Command::AllocateProducerIds {
                broker_id: BrokerId(broker),
                broker_epoch,
            }
        }
        Step::FailDirectory { broker } => {
            let record = image.broker(BrokerId(broker))?;
            Command::FailDirectories {
                broker_id: BrokerId(broker),
                broker_epoch: record.epoch,
                directories: record.directory_ids.clone(),
                live,
            }
        }
        Step::Space { broker, no_space } => Command::ReportSpace {
            broker_id: BrokerId(broker),
            broker_epoch: epoch_of(broker)?,
            no_space,
            live,
        },
        Step::ReportLogs { broker, length } => {
            let all = image.partitions().map(|(id, _)| LogReport {
                id,
                last_epoch: None,
                log_end_offset: Offset::saturating(length),
            });
            Command::ReportLogs {
                broker_id: BrokerId(broker),
                broker_epoch: epoch_of(broker)?,
                logs: all.collect(),
                live,
            }
        }
        Step::Write => return None,
    })
}
