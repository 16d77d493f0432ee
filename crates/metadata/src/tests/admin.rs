//! Topics and partitions on request.

use std::collections::{BTreeMap, BTreeSet};

use ottla_types::{BrokerId, PartitionIndex};

use super::world::{World, ids, new_topic, part, topic_id};
use crate::{
    AlterConfigOp, Command, CommandError, ConfigResource, CreatePartitions, CreateTopic,
    DeleteTopic, Image, Outcome, TopicRef, decode, encode,
};

fn create_one(world: &mut World, topic: CreateTopic) -> Result<(), CommandError> {
    world.create(vec![topic]).pop().unwrap()
}

fn named(number: u128, name: &str) -> CreateTopic {
    CreateTopic {
        name: name.to_owned(),
        ..new_topic(number)
    }
}

fn assigned(number: u128, assignments: &[(i32, &[i32])]) -> CreateTopic {
    let assignments = assignments
        .iter()
        .map(|&(partition, on)| (partition, ids(on)))
        .collect();
    CreateTopic {
        partitions: None,
        replication_factor: None,
        assignments,
        ..new_topic(number)
    }
}

#[test]
fn each_bad_topic_gets_its_own_error() {
    use CommandError as E;
    let mut world = World::with_brokers(3);
    assert_eq!(create_one(&mut world, named(1, "a.b")), Ok(()));
    let mut error = |topic: CreateTopic| create_one(&mut world, topic).unwrap_err();
    assert_eq!(
        error(named(2, "a.b")),
        E::TopicAlreadyExists("a.b".to_owned())
    );
    assert!(matches!(error(named(2, "a_b")), E::InvalidTopic(_)));
    assert!(matches!(error(named(2, "no/path")), E::InvalidTopic(_)));
    assert!(matches!(
        error(named(2, "__cluster_metadata")),
        E::InvalidRequest(_)
    ));
    assert!(matches!(error(named(1, "same-id")), E::InvalidRequest(_)));
    for partitions in [0, -1, i32::MIN] {
        let topic = CreateTopic {
            partitions: Some(partitions),
            ..new_topic(2)
        };
        assert!(matches!(error(topic), E::InvalidPartitions(_)));
    }
    let topic = CreateTopic {
        partitions: Some(10_001),
        ..new_topic(2)
    };
    assert!(matches!(error(topic), E::PolicyViolation(_)));
    for factor in [0, -1, 4] {
        let topic = CreateTopic {
            replication_factor: Some(factor),
            ..new_topic(2)
        };
        assert!(matches!(error(topic), E::InvalidReplicationFactor(_)));
    }
    let both = CreateTopic {
        partitions: Some(1),
        ..assigned(2, &[(0, &[1])])
    };
    assert!(matches!(error(both), E::InvalidRequest(_)));
    let bad: [&[(i32, &[i32])]; 5] = [
        &[(1, &[1])],
        &[(0, &[])],
        &[(0, &[1, 1])],
        &[(0, &[9])],
        &[(0, &[1, 2]), (1, &[1])],
    ];
    for assignments in bad {
        let topic = assigned(2, assignments);
        assert!(
            matches!(error(topic), E::InvalidReplicaAssignment(_)),
            "{assignments:?}"
        );
    }
    for (key, value) in [("min.insync.replicas", "0"), ("min.compaction.lag.ms", "9")] {
        let most = ("max.compaction.lag.ms".to_owned(), "8".to_owned());
        let configs = BTreeMap::from([(key.to_owned(), value.to_owned()), most]);
        let topic = CreateTopic {
            configs,
            ..new_topic(2)
        };
        assert!(matches!(error(topic), E::InvalidConfig(_)));
    }
    assert_eq!(
        world.state.image().topics.len(),
        1,
        "a refusal leaves nothing behind"
    );
}

#[test]
fn a_topic_named_twice_is_refused_each_time_and_others_are_created() {
    let mut world = World::with_brokers(1);
    let answers = world.create(vec![named(1, "a"), named(2, "b"), named(3, "a")]);
    assert!(matches!(answers[0], Err(CommandError::InvalidRequest(_))));
    assert_eq!(answers[1], Ok(()));
    assert!(matches!(answers[2], Err(CommandError::InvalidRequest(_))));
}

#[test]
fn a_check_alone_changes_nothing_and_sees_what_a_request_would_do_to_itself() {
    let mut world = World::with_brokers(1);
    let topics = vec![named(1, "a.b"), named(2, "a_b")];
    let live = world.live.clone();
    let outcome = world.apply(Command::CreateTopics {
        topics,
        validate_only: true,
        live,
    });
    let Outcome::CreatedTopics(answers) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(answers[0].is_ok());
    assert!(matches!(answers[1], Err(CommandError::InvalidTopic(_))));
    assert!(world.state.image().topics.is_empty());
}

#[test]
fn a_new_partition_starts_without_the_broker_that_is_out_of_service() {
    let mut world = World::with_brokers(3);
    world.fence(3);
    let id = world.create_on(1, &[3, 1, 2]);
    let record = world.record(id);
    assert_eq!(
        (record.leader, record.isr),
        (Some(BrokerId(1)), ids(&[1, 2]))
    );
    assert_eq!(record.replicas, ids(&[3, 1, 2]));
    assert_eq!(
        (record.leader_epoch.get(), record.partition_epoch.get()),
        (0, 0)
    );
    // Nor with one that dies just now: unfenced, but its stream is gone.
    world.live.remove(&BrokerId(1));
    let id = world.create_on(2, &[1, 2]);
    assert_eq!(
        (world.record(id).leader, world.record(id).isr),
        (Some(BrokerId(2)), ids(&[2]))
    );
    // Without anybody there is no topic.
    let topic = assigned(3, &[(0, &[3])]);
    let refused = create_one(&mut world, topic).unwrap_err();
    assert!(matches!(refused, CommandError::InvalidReplicaAssignment(_)));
}

#[test]
fn the_number_of_replicas_that_nobody_chose_counts_registered_brokers() {
    for (brokers, expected) in [(1, 1), (2, 2), (3, 3), (5, 3)] {
        let mut world = World::with_brokers(brokers);
        if brokers > 1 {
            world.fence(brokers);
        }
        let topic = CreateTopic {
            replication_factor: None,
            ..new_topic(1)
        };
        assert_eq!(create_one(&mut world, topic), Ok(()));
        assert_eq!(world.record(part(1, 0)).replicas.len(), expected);
    }
}

#[test]
fn a_deleted_topic_takes_its_configs_with_it() {
    let mut world = World::with_brokers(1);
    create_one(&mut world, named(1, "a")).unwrap();
    world.set_topic_config("a", "retention.ms", "5");
    create_one(&mut world, named(2, "b")).unwrap();
    let refs = [
        TopicRef::Id(topic_id(1)),
        TopicRef::Name("nope".to_owned()),
        TopicRef::Id(topic_id(9)),
        TopicRef::Name("b".to_owned()),
        TopicRef::Id(topic_id(2)),
    ];
    let topics = refs.map(|topic| DeleteTopic { topic }).to_vec();
    let Outcome::DeletedTopics(answers) = world.apply(Command::DeleteTopics { topics }) else {
        panic!("not deleted");
    };
    assert_eq!(answers[0], Ok(("a".to_owned(), topic_id(1))));
    assert_eq!(answers[1], Err(CommandError::UnknownTopicOrPartition));
    assert_eq!(answers[2], Err(CommandError::UnknownTopicId));
    assert!(matches!(answers[3], Err(CommandError::InvalidRequest(_))));
    assert!(matches!(answers[4], Err(CommandError::InvalidRequest(_))));
    assert!(world.state.image().configs.is_empty());
    // the name comes back as another topic.
    create_one(&mut world, named(3, "a")).unwrap();
    assert_eq!(
        world.state.image().topic("a").unwrap().topic_id,
        topic_id(3)
    );
}

#[test]
fn a_topic_grows_and_never_shrinks() {
    let mut world = World::with_brokers(3);
    let topic = CreateTopic {
        partitions: Some(2),
        replication_factor: Some(2),
        ..new_topic(1)
    };
    create_one(&mut world, topic).unwrap();
    let mut grow = |name: &str, count, assignments: Vec<Vec<BrokerId>>| {
        let topics = vec![CreatePartitions {
            name: name.to_owned(),
            count,
            assignments,
            seed: 1,
        }];
        let live = world.live.clone();
        let command = Command::CreatePartitions {
            topics,
            validate_only: false,
            live,
        };
        match world.apply(command) {
            Outcome::CreatedPartitions(mut answers) => answers.pop().unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        grow("nope", 3, vec![]),
        Err(CommandError::UnknownTopicOrPartition)
    );
    assert!(matches!(
        grow("t1", 2, vec![]),
        Err(CommandError::InvalidPartitions(_))
    ));
    assert!(matches!(
        grow("t1", -1, vec![]),
        Err(CommandError::InvalidPartitions(_))
    ));
    assert!(matches!(
        grow("t1", 20_000, vec![]),
        Err(CommandError::PolicyViolation(_))
    ));
    for bad in [vec![ids(&[1, 2]); 2], vec![ids(&[1])], vec![ids(&[1, 9])]] {
        let refused = grow("t1", 3, bad);
        assert!(
            matches!(refused, Err(CommandError::InvalidReplicaAssignment(_))),
            "{refused:?}"
        );
    }
    assert_eq!(grow("t1", 3, vec![ids(&[3, 2])]), Ok(()));
    assert_eq!(grow("t1", 8, vec![]), Ok(()));
    assert_eq!(world.record(part(1, 2)).replicas, ids(&[3, 2]));
    let image = world.state.image();
    let topic = image.topic("t1").unwrap();
    assert_eq!(topic.partitions.len(), 8);
    assert!(
        topic
            .partitions
            .values()
            .all(|record| record.replicas.len() == 2)
    );
    assert_eq!(topic.partitions.keys().last(), Some(&PartitionIndex(7)));
}

#[test]
fn a_state_survives_snapshot_and_replay_of_its_own_records() {
    let mut world = World::with_brokers(3);
    let topic = CreateTopic {
        partitions: Some(9),
        replication_factor: Some(3),
        ..new_topic(1)
    };
    create_one(&mut world, topic).unwrap();
    world.set_topic_config("t1", "retention.ms", "5");
    let group = ConfigResource::Group("g".to_owned());
    world
        .alter(group, &[("a", AlterConfigOp::Set("1".into()))])
        .unwrap();
    world.fence(2);
    let broker_epoch = world.epoch(1);
    world.apply(Command::AllocateProducerIds {
        broker_id: BrokerId(1),
        broker_epoch,
    });

    let snapshot: crate::ClusterState = decode(&encode(&world.state)).unwrap();
    assert_eq!(snapshot, world.state);
    assert_eq!(snapshot.state_hash(), world.state.state_hash());
    let mut image = Image::default();
    image.fold(snapshot.image().index, &snapshot.to_records());
    assert_eq!(&image, world.state.image());
}

#[test]
fn partitions_of_one_request_land_on_every_broker() {
    let mut world = World::with_brokers(5);
    let topic = CreateTopic {
        partitions: Some(50),
        replication_factor: Some(3),
        ..new_topic(1)
    };
    create_one(&mut world, topic).unwrap();
    let image = world.state.image();
    for id in 1..=5 {
        assert_eq!(image.partitions_led_by(BrokerId(id)).count(), 10);
        assert_eq!(image.partitions_of(BrokerId(id)).count(), 30);
    }
    let pairs: BTreeSet<_> = image
        .partitions()
        .map(|(_, record)| record.replicas[..2].to_vec())
        .collect();
    assert!(
        pairs.len() > 5,
        "leaders share their load with several followers"
    );
    assert_eq!(image.offline_partitions(), 0);
    assert_eq!(image.under_replicated_partitions(), 0);
    world.fence(1);
    world.fence(2);
    let image = world.state.image();
    assert_eq!(image.fenced_brokers().count(), 2);
    assert!(image.under_replicated_partitions() > 0);
    assert!(image.under_min_isr_partitions() > 0);
}
