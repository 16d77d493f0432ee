//! Registration, fencing and shutdown (C-8, R-1).

use ottla_types::{BrokerId, LeaderEpoch};
use uuid::Uuid;

use super::world::{World, ids};
use crate::{Command, CommandError, Outcome, Registration};

#[test]
fn a_process_with_the_same_directory_supersedes_the_former_at_once() {
    let mut world = World::with_brokers(3);
    let id = world.create_on(1, &[1, 2, 3]);
    let former = world.epoch(1);
    let registration = world.registration(1);
    let epoch = world.register(registration);
    assert!(epoch > former);
    let record = world.record(id);
    assert_eq!(record.leader, Some(BrokerId(2)));
    assert_eq!(record.leader_epoch, LeaderEpoch::saturating(1));
    assert_eq!(record.isr, ids(&[2, 3]));
    assert!(world.state.image().broker(BrokerId(1)).unwrap().fenced);
}

#[test]
fn a_process_with_another_directory_waits_until_the_former_is_fenced() {
    let mut world = World::with_brokers(3);
    let stranger = Registration {
        directory_ids: vec![Uuid::from_u128(99)],
        ..world.registration(1)
    };
    let outcome = world.apply(Command::RegisterBroker(stranger.clone()));
    assert_eq!(
        outcome,
        Outcome::Refused(CommandError::DuplicateBroker(BrokerId(1)))
    );
    world.fence(1);
    world.register(stranger);
}

#[test]
fn a_registration_repeated_by_the_same_process_is_answered_as_done() {
    let mut world = World::with_brokers(2);
    let id = world.create_on(1, &[1, 2]);
    let registration = world.registration(1);
    let epoch = world.register(registration.clone());
    world.unfence(1);
    let record = world.record(id);
    assert_eq!(world.register(registration), epoch);
    assert_eq!(world.record(id), record);
}

#[test]
fn a_broker_of_another_cluster_is_refused() {
    let mut world = World::with_brokers(1);
    let stranger = Registration {
        cluster_id: Some("other".to_owned()),
        ..world.registration(2)
    };
    let expected = "c".to_owned();
    let refused = Outcome::Refused(CommandError::InconsistentClusterId { expected });
    assert_eq!(world.apply(Command::RegisterBroker(stranger)), refused);
}

#[test]
fn fencing_moves_every_leadership_in_the_same_command() {
    let mut world = World::with_brokers(3);
    let led: Vec<_> = (0..9)
        .map(|number| world.create_on(number, &[1, 2, 3]))
        .collect();
    world.fence(1);
    for id in led {
        let record = world.record(id);
        assert_eq!(
            (record.leader, record.isr),
            (Some(BrokerId(2)), ids(&[2, 3]))
        );
        assert_eq!(
            (record.leader_epoch.get(), record.partition_epoch.get()),
            (1, 1)
        );
    }
    assert_eq!(
        world.state.image().partitions_led_by(BrokerId(1)).count(),
        0
    );
}

#[test]
fn fencing_a_former_registration_changes_nothing() {
    let mut world = World::with_brokers(2);
    let stale = world.epoch(1);
    world.start(1);
    let id = world.create_on(1, &[1, 2]);
    let live = world.live.clone();
    let command = Command::FenceBroker {
        broker_id: BrokerId(1),
        broker_epoch: stale,
        live,
    };
    assert_eq!(world.apply(command), Outcome::Done);
    assert_eq!(world.record(id).leader, Some(BrokerId(1)));
}

#[test]
fn a_broker_without_a_live_stream_is_not_elected() {
    let mut world = World::with_brokers(3);
    let id = world.create_on(1, &[1, 2, 3]);
    world.live.remove(&BrokerId(2));
    world.fence(1);
    let record = world.record(id);
    assert_eq!(
        (record.leader, record.isr),
        (Some(BrokerId(3)), ids(&[2, 3]))
    );
    // With nobody in sync on a live stream there is no leader until one comes back.
    world.fence(3);
    let record = world.record(id);
    assert_eq!((record.leader, record.isr), (None, ids(&[2])));
    world.unfence(2);
    assert_eq!(world.record(id).leader, Some(BrokerId(2)));
}

#[test]
fn a_controlled_shutdown_moves_what_it_can_and_clears_the_rest() {
    let mut world = World::with_brokers(2);
    let shared = world.create_on(1, &[1, 2]);
    let alone = world.create_on(2, &[1]);
    assert_eq!(world.shut_down(1), Outcome::Done);
    assert_eq!(
        (world.record(shared).leader, world.record(shared).isr),
        (Some(BrokerId(2)), ids(&[2]))
    );
    assert_eq!(
        (world.record(alone).leader, world.record(alone).isr),
        (None, ids(&[1]))
    );
    assert_eq!(world.shut_down(1), Outcome::Done);
    world.fence(1);
    world.start(1);
    let record = world.record(alone);
    assert_eq!(
        (record.leader, record.leader_epoch.get()),
        (Some(BrokerId(1)), 2)
    );
}

#[test]
fn a_broker_is_forgotten_only_once_it_is_stopped_and_empty() {
    let mut world = World::with_brokers(2);
    world.create_on(1, &[1, 2]);
    let forget = |world: &mut World, id| {
        world.apply(Command::UnregisterBroker {
            broker_id: BrokerId(id),
        })
    };
    let invalid = |outcome| matches!(outcome, Outcome::Refused(CommandError::InvalidRequest(_)));
    assert!(invalid(forget(&mut world, 2)));
    world.fence(2);
    assert!(invalid(forget(&mut world, 2)));
    let topic = crate::TopicRef::Name("t1".to_owned());
    world.apply(Command::DeleteTopics {
        topics: vec![crate::DeleteTopic { topic }],
    });
    assert_eq!(forget(&mut world, 2), Outcome::Done);
    let unknown = Outcome::Refused(CommandError::BrokerNotRegistered(BrokerId(2)));
    assert_eq!(forget(&mut world, 2), unknown);
}

#[test]
fn producer_ids_come_in_blocks_that_never_overlap() {
    let mut world = World::with_brokers(2);
    let ask = |world: &mut World, id| {
        let broker_epoch = world.epoch(id);
        world.apply(Command::AllocateProducerIds {
            broker_id: BrokerId(id),
            broker_epoch,
        })
    };
    for block in 0..4i64 {
        let first = ottla_types::ProducerId(block * 1000);
        let outcome = ask(&mut world, 1 + i32::from(block % 2 == 0));
        assert_eq!(outcome, Outcome::ProducerIds { first, count: 1000 });
    }
    let stale = world.epoch(1);
    world.start(1);
    let broker_id = BrokerId(1);
    let outcome = world.apply(Command::AllocateProducerIds {
        broker_id,
        broker_epoch: stale,
    });
    assert_eq!(outcome, Outcome::Refused(CommandError::StaleBrokerEpoch));
}
