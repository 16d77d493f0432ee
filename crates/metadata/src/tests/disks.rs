//! What becomes of replicas whose disk failed, is full, or lost its tail (P-13, P-23, P-25, R-14).

use ottla_types::{BrokerId, FlushMode};

use super::world::{World, ids};
use crate::{AlterPartitionError, Command, ElectionKind, Outcome, Registration};

#[test]
fn a_failed_directory_costs_leaderships_and_memberships_in_one_command() {
    let mut world = World::with_brokers(3);
    let led = world.create_on(1, &[1, 2, 3]);
    let followed = world.create_on(2, &[2, 3, 1]);
    let eligible = world.create_on(3, &[2, 1, 3]);
    world.set_isr(eligible, &[2]).unwrap();
    assert_eq!(world.record(eligible).elr, ids(&[1, 3]));
    world.fail_directory(1);
    let record = world.record(led);
    assert_eq!(
        (record.leader, record.isr),
        (Some(BrokerId(2)), ids(&[2, 3]))
    );
    assert_eq!(world.record(followed).isr, ids(&[2, 3]));
    assert_eq!(world.record(eligible).elr, ids(&[3]));
    // Still a replica, and the broker still serves clients.
    assert_eq!(world.record(led).replicas, ids(&[1, 2, 3]));
    let broker = world.state.image().broker(BrokerId(1)).unwrap();
    assert!(!broker.fenced && !broker.in_service());
    // It is not let in again before it has registered with the directory healthy.
    let refused = Err(AlterPartitionError::IneligibleReplica(BrokerId(1)));
    assert_eq!(world.set_isr(led, &[1, 2, 3]), refused);
    world.start(1);
    assert_eq!(world.set_isr(led, &[1, 2, 3]).unwrap().isr, ids(&[1, 2, 3]));
}

#[test]
fn the_last_member_leads_again_only_once_its_directory_is_healthy() {
    let mut world = World::with_brokers(2);
    let id = world.create_on(1, &[1]);
    world.fail_directory(1);
    let record = world.record(id);
    assert_eq!((record.leader, record.isr), (None, ids(&[1])));
    // Neither its return nor a request changes that while the directory is not.
    world.unfence(1);
    assert_eq!(world.record(id).leader, None);
    world.elect(ElectionKind::Unclean, Some(&[("t1", 0)]));
    assert_eq!(world.record(id).leader, None);
    let still_failed = Registration {
        offline_directories: world.registration(1).directory_ids,
        ..world.registration(1)
    };
    world.register(still_failed);
    world.unfence(1);
    assert_eq!(world.record(id).leader, None);
    world.start(1);
    let record = world.record(id);
    assert_eq!(
        (record.leader, record.recovering),
        (Some(BrokerId(1)), false)
    );
}

#[test]
fn a_failed_directory_costs_a_page_topic_its_unflushed_tail() {
    // B-18: after a failed fsync the tail may be gone from the page cache too.
    let mut world = World::with_brokers(1);
    let id = world.create_on(1, &[1]);
    world.set_topic_config("t1", "flush.messages", "10000");
    world.fail_directory(1);
    let record = world.record(id);
    assert_eq!((record.isr, record.last_known_elr), (ids(&[]), ids(&[1])));
    world.start(1);
    assert_eq!(world.record(id).leader, None);
    world.report_log(1, id, 0, 7);
    let record = world.record(id);
    assert_eq!(
        (record.leader, record.possible_loss),
        (Some(BrokerId(1)), true)
    );
}

#[test]
fn unknown_directories_and_former_registrations_fail_nothing() {
    let mut world = World::with_brokers(2);
    let id = world.create_on(1, &[1, 2]);
    let before = world.record(id);
    let broker_epoch = world.epoch(1);
    let live = world.live.clone();
    let command = Command::FailDirectories {
        broker_id: BrokerId(1),
        broker_epoch,
        directories: vec![uuid::Uuid::from_u128(12345)],
        live,
    };
    assert_eq!(world.apply(command.clone()), Outcome::Done);
    assert_eq!(world.record(id), before);
    world.start(1);
    assert!(matches!(world.apply(command), Outcome::Refused(_)));
}

#[test]
fn a_leader_without_room_gives_way_to_a_member_with_room() {
    let mut world = World::with_brokers(3);
    let id = world.create_on(1, &[1, 2, 3]);
    world.report_space(2, true);
    assert_eq!(world.record(id).leader, Some(BrokerId(1)));
    world.report_space(1, true);
    let record = world.record(id);
    assert_eq!(record.leader, Some(BrokerId(3)), "2 has no room either");
    assert_eq!(record.isr, ids(&[1, 2, 3]), "room makes nobody leave");
    // Where all are full nothing moves, however often they say so.
    world.report_space(3, true);
    let full = world.record(id);
    assert_eq!(full.leader, Some(BrokerId(3)));
    for broker in [1, 2, 3] {
        world.report_space(broker, true);
    }
    assert_eq!(world.record(id), full);
    // A topic made meanwhile is led by whoever leads; with room again the first one takes over.
    let made = world.create_on(2, &[1, 2, 3]);
    assert_eq!(world.record(made).leader, Some(BrokerId(1)));
    world.report_space(2, false);
    assert_eq!(world.record(id).leader, Some(BrokerId(2)));
    assert_eq!(world.record(made).leader, Some(BrokerId(2)));
    let new = world.create_on(3, &[1, 2, 3]);
    assert_eq!(world.record(new).leader, Some(BrokerId(2)));
}

#[test]
fn elections_prefer_members_with_room_and_a_full_preferred_leader_waits() {
    let mut world = World::with_brokers(3);
    let id = world.create_on(1, &[1, 2, 3]);
    world.report_space(2, true);
    world.fence(1);
    assert_eq!(world.record(id).leader, Some(BrokerId(3)));
    world.start(1);
    world.set_isr(id, &[1, 2, 3]).unwrap();
    world.report_space(1, true);
    let waits = Err(crate::CommandError::PreferredLeaderNotAvailable);
    assert_eq!(world.elect(ElectionKind::Preferred, None), vec![waits]);
    world.report_space(1, false);
    assert_eq!(world.elect(ElectionKind::Preferred, None), vec![Ok(())]);
    assert_eq!(world.record(id).leader, Some(BrokerId(1)));
    // A full member leads where nobody else can.
    world.fence(1);
    world.fence(3);
    assert_eq!(world.record(id).leader, Some(BrokerId(2)));
}

#[test]
fn a_member_with_room_that_joins_relieves_a_full_leader() {
    let mut world = World::with_brokers(2);
    let id = world.create_on(1, &[1, 2]);
    world.set_isr(id, &[1]).unwrap();
    world.report_space(1, true);
    assert_eq!(world.record(id).leader, Some(BrokerId(1)));
    let record = world.set_isr(id, &[1, 2]).unwrap();
    assert_eq!(
        (record.leader, record.isr),
        (Some(BrokerId(2)), ids(&[1, 2]))
    );
    assert_eq!(record.leader_epoch.get(), 1);
}

/// All three lost power in mode `page`; of them 2 and 3 were the last known members.
fn all_lost_power() -> (World, ottla_types::PartitionId) {
    let mut world = World::with_brokers(3);
    let id = world.create_on(1, &[1, 2, 3]);
    world.set_topic_config("t1", "flush.messages", "10000");
    for broker in 1..=3 {
        world.fence(broker);
    }
    for broker in 1..=3 {
        world.restart_after_power_cut(broker, FlushMode::Ack);
    }
    assert_eq!(world.record(id).last_known_elr, ids(&[2, 3]));
    (world, id)
}

#[test]
fn the_longest_log_leads_once_all_that_count_have_spoken() {
    let (mut world, id) = all_lost_power();
    world.report_log(1, id, 9, 900);
    assert!(
        world.record(id).reported_logs.is_empty(),
        "it is not asked: it had left before"
    );
    world.report_log(2, id, 1, 50);
    assert_eq!(world.record(id).leader, None, "3 may have more");
    world.report_log(3, id, 2, 40);
    let record = world.record(id);
    assert_eq!(record.leader, Some(BrokerId(3)), "the later epoch wins");
    assert_eq!((record.isr, record.elr), (ids(&[3]), ids(&[])));
    assert!(record.recovering && record.possible_loss);
    assert!(record.last_known_elr.is_empty() && record.reported_logs.is_empty());
    // The next election is an ordinary one.
    let mut joined = world.proposal(id, &[2, 3]);
    joined.recovered = true;
    world.propose(3, joined).unwrap();
    world.fence(3);
    let record = world.record(id);
    assert_eq!(
        (record.leader, record.possible_loss),
        (Some(BrokerId(2)), false)
    );
}

#[test]
fn a_report_of_a_former_life_counts_no_more_and_the_longest_is_waited_for() {
    let (mut world, id) = all_lost_power();
    world.report_log(2, id, 1, 50);
    world.restart_after_power_cut(2, FlushMode::Ack);
    assert!(world.record(id).reported_logs.is_empty());
    world.report_log(3, id, 1, 40);
    assert_eq!(
        world.record(id).leader,
        None,
        "2 has not spoken in this life"
    );
    world.report_log(2, id, 1, 45);
    assert_eq!(world.record(id).leader, Some(BrokerId(2)));

    // The longest is known, but down: nobody shorter takes its place.
    let (mut world, id) = all_lost_power();
    world.report_log(2, id, 1, 50);
    world.fence(2);
    world.report_log(3, id, 1, 40);
    assert_eq!(world.record(id).leader, None);
    world.unfence(2);
    assert_eq!(world.record(id).leader, Some(BrokerId(2)));
}

#[test]
fn a_topic_that_flushes_before_it_acknowledges_is_left_to_the_operator() {
    let mut world = World::with_brokers(1);
    let id = world.create_on(1, &[1]);
    world.restart_unclean(1);
    world.report_log(1, id, 0, 7);
    let record = world.record(id);
    assert_eq!((record.leader, record.reported_logs.len()), (None, 0));
}
