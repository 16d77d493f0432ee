//! ISR, ELR and elections of one partition (R-12 to R-15, B-3, B-4).

use ottla_types::{BrokerId, FlushMode, PartitionEpoch};
use uuid::Uuid;

use super::world::{World, ids, part};
use crate::{AlterPartitionError, CommandError, ElectionKind, PartitionRecord, Registration};

#[test]
fn the_last_replica_standing_is_not_led_by_after_it_lost_its_tail() {
    // B-4: the ISR shrinks to one, which then loses its unflushed tail in a power cut.
    let mut world = World::with_brokers(3);
    let id = world.create_on(1, &[1, 2, 3]);
    world.set_topic_config("t1", "flush.messages", "10000");
    world.fence(3);
    world.fence(2);
    let record = world.record(id);
    assert_eq!((record.isr, record.elr), (ids(&[1]), ids(&[2])));
    world.fence(1);
    world.restart_after_power_cut(1, FlushMode::Ack);
    let record = world.record(id);
    assert_eq!(
        (record.leader, record.isr, record.elr),
        (None, ids(&[]), ids(&[2]))
    );
    // 3 left while there was a quorum: it may lack records. 2 cannot.
    world.start(3);
    assert_eq!(world.record(id).leader, None);
    world.start(2);
    let record = world.record(id);
    assert_eq!((record.leader, record.isr), (Some(BrokerId(2)), ids(&[2])));
    assert!(!record.recovering, "R-15: this was a clean election");
    assert!(record.last_known_elr.is_empty());
}

#[test]
fn r14_a_damaged_replica_counts_for_nothing_and_the_others_of_its_broker_do() {
    let mut world = World::with_brokers(3);
    let (bad, good) = (
        world.create_on(1, &[1, 2, 3]),
        world.create_on(2, &[1, 2, 3]),
    );
    for broker in [3, 2, 1] {
        world.fence(broker);
    }
    assert_eq!(world.record(bad).isr, ids(&[1]));
    world.restart_damaged(1, bad);
    let record = world.record(bad);
    assert_eq!((record.leader, record.isr), (None, ids(&[])));
    assert_eq!(record.last_known_elr, ids(&[1]));
    assert_eq!(world.record(good).leader, Some(BrokerId(1)));
    // Told once: its next life is judged by itself.
    world.start(2);
    assert_eq!(world.record(bad).leader, Some(BrokerId(2)));
}

#[test]
fn a_power_cut_costs_topics_that_flush_before_acknowledging_nothing() {
    // P-13 in mode `ack`: everything went down at once, and everything is led again.
    let mut world = World::with_brokers(3);
    let id = world.create_on(1, &[1, 2, 3]);
    for broker in 1..=3 {
        world.fence(broker);
    }
    for broker in 1..=3 {
        world.restart_after_power_cut(broker, FlushMode::Ack);
    }
    let record = world.record(id);
    assert!(record.leader.is_some() && !record.recovering);
}

#[test]
fn an_operator_need_not_wait_for_the_logs_of_a_page_topic() {
    let mut world = World::with_brokers(3);
    let id = world.create_on(1, &[1, 2, 3]);
    for broker in 1..=3 {
        world.fence(broker);
    }
    for broker in 1..=3 {
        world.restart_after_power_cut(broker, FlushMode::Page);
    }
    let record = world.record(id);
    assert_eq!(
        (record.leader, record.isr, record.elr),
        (None, ids(&[]), ids(&[]))
    );
    assert_eq!(record.last_known_elr, ids(&[2, 3]));
    let not_preferred = Err(CommandError::PreferredLeaderNotAvailable);
    assert_eq!(
        world.elect(ElectionKind::Preferred, None),
        vec![not_preferred]
    );
    assert_eq!(
        world.elect(ElectionKind::Unclean, Some(&[("t1", 0)])),
        vec![Ok(())]
    );
    let record = world.record(id);
    assert_eq!((record.leader, record.isr), (Some(BrokerId(2)), ids(&[2])));
    assert!(record.recovering);
}

#[test]
fn the_only_replica_with_a_new_disk_is_not_elected() {
    // P-14, P-15.
    let mut world = World::with_brokers(1);
    let id = world.create_on(1, &[1]);
    world.fence(1);
    let blank = Registration {
        directory_ids: vec![Uuid::from_u128(7)],
        ..world.registration(1)
    };
    world.register(blank);
    world.unfence(1);
    let record = world.record(id);
    assert_eq!((record.leader, record.last_known_elr), (None, ids(&[1])));
}

#[test]
fn the_only_in_sync_replica_is_kept_and_leads_again_in_a_new_epoch() {
    let mut world = World::with_brokers(1);
    let id = world.create_on(1, &[1]);
    world.fence(1);
    let record = world.record(id);
    assert_eq!(
        (record.leader, record.isr, record.leader_epoch.get()),
        (None, ids(&[1]), 1)
    );
    world.start(1);
    let record = world.record(id);
    assert_eq!(
        (record.leader, record.leader_epoch.get()),
        (Some(BrokerId(1)), 2)
    );
}

#[test]
fn a_join_that_raced_with_a_wipe_is_refused() {
    // B-3: the leader saw broker 3 caught up; then 3 lost its disk and registered anew.
    let mut world = World::with_brokers(3);
    let id = world.create_on(1, &[1, 2, 3]);
    world.fence(3);
    world.start(3);
    let join = world.proposal(id, &[1, 2, 3]);
    world.fence(3);
    let blank = Registration {
        directory_ids: vec![Uuid::from_u128(7)],
        ..world.registration(3)
    };
    world.register(blank);
    world.unfence(3);
    let refused = Err(AlterPartitionError::IneligibleReplica(BrokerId(3)));
    assert_eq!(world.propose(1, join.clone()), refused);
    // Nor may a join leave open whom it means.
    let mut unnamed = join;
    unnamed.isr[2].1 = None;
    assert_eq!(world.propose(1, unnamed), refused);
    assert_eq!(world.set_isr(id, &[1, 2, 3]).unwrap().isr, ids(&[1, 2, 3]));
}

#[test]
fn each_stale_or_broken_isr_change_gets_its_own_answer() {
    let mut world = World::with_brokers(4);
    let id = world.create_on(1, &[1, 2, 3]);
    world.fence(1);
    world.start(1);
    let good = world.proposal(id, &[2, 3]);
    let mut case = |change: &dyn Fn(&mut crate::AlterPartition)| {
        let mut proposal = good.clone();
        change(&mut proposal);
        world.propose(2, proposal).unwrap_err()
    };
    let (leader_epoch, partition_epoch) = (good.leader_epoch, good.partition_epoch);
    let epoch = |world: &World, id| Some(world.epoch(id));
    assert_eq!(
        case(&|p| p.id = part(9, 0)),
        AlterPartitionError::UnknownPartition
    );
    assert_eq!(
        case(&|p| p.id = part(1, 1)),
        AlterPartitionError::UnknownPartition
    );
    assert_eq!(
        case(&|p| p.leader_epoch = leader_epoch.next()),
        AlterPartitionError::ControllerBehind
    );
    assert_eq!(
        case(&|p| p.leader_epoch = ottla_types::LeaderEpoch::ZERO),
        AlterPartitionError::FencedLeaderEpoch {
            current: leader_epoch
        }
    );
    assert_eq!(
        case(&|p| p.partition_epoch = PartitionEpoch::ZERO),
        AlterPartitionError::InvalidUpdateVersion {
            current: partition_epoch
        }
    );
    assert_eq!(
        case(&|p| p.partition_epoch = partition_epoch.next()),
        AlterPartitionError::ControllerBehind
    );
    for broken in [
        vec![],
        vec![(BrokerId(3), None)],
        vec![(BrokerId(2), None); 2],
    ] {
        assert!(matches!(
            case(&|p| p.isr.clone_from(&broken)),
            AlterPartitionError::Invalid(_)
        ));
    }
    assert!(matches!(
        case(&|p| p.isr.push((BrokerId(4), None))),
        AlterPartitionError::Invalid(_)
    ));
    // A deposed leader, and one that never led.
    let proposal = good.clone();
    assert!(matches!(
        world.propose(3, proposal),
        Err(AlterPartitionError::Invalid(_))
    ));
    // Members out of service.
    let mut joining = world.proposal(id, &[1, 2, 3]);
    joining.isr[0].1 = epoch(&world, 1);
    world.shut_down(1);
    let refused = Err(AlterPartitionError::IneligibleReplica(BrokerId(1)));
    assert_eq!(world.propose(2, joining), refused);
    assert_eq!(world.propose(2, good).unwrap().isr, ids(&[2, 3]));
}

#[test]
fn proposing_the_committed_isr_settles_what_was_proposed_before() {
    let mut world = World::with_brokers(3);
    let id = world.create_on(1, &[1, 2, 3]);
    let before = world.record(id);
    let unknown = world.proposal(id, &[1, 2]);
    let settled = world.set_isr(id, &[3, 2, 1]).unwrap();
    assert_eq!(settled.partition_epoch, before.partition_epoch.next());
    assert_eq!(
        PartitionRecord {
            partition_epoch: before.partition_epoch,
            ..settled.clone()
        },
        before
    );
    assert_eq!(
        world.propose(1, unknown),
        Err(AlterPartitionError::InvalidUpdateVersion {
            current: settled.partition_epoch
        }),
        "R-12: of the two only one can win"
    );
}

#[test]
fn a_leader_that_shrinks_below_min_isr_leaves_eligible_replicas_behind() {
    let mut world = World::with_brokers(3);
    let id = world.create_on(1, &[1, 2, 3]);
    let record = world.set_isr(id, &[1]).unwrap();
    assert_eq!(
        (record.leader_epoch.get(), record.partition_epoch.get()),
        (0, 1)
    );
    assert_eq!(record.elr, ids(&[2, 3]));
    // An eligible replica takes over at once where the last in-sync one dies.
    world.fence(1);
    let record = world.record(id);
    assert_eq!((record.leader, record.isr), (Some(BrokerId(2)), ids(&[2])));
    assert_eq!(record.elr, ids(&[1, 3]));
    // Enough members: nobody else is needed.
    let record = world.set_isr(id, &[2, 3]).unwrap();
    assert!(record.elr.is_empty());
}

#[test]
fn a_lower_min_isr_ends_the_eligibility_that_rested_on_it() {
    let mut world = World::with_brokers(3);
    let id = world.create_on(1, &[1, 2, 3]);
    world.set_isr(id, &[1]).unwrap();
    world.set_topic_config("t1", "min.insync.replicas", "1");
    assert!(world.record(id).elr.is_empty());
    // Records were acknowledged by 1 alone since: nobody else may lead.
    world.fence(1);
    assert_eq!(world.record(id).leader, None);
}

#[test]
fn an_unclean_election_happens_only_where_the_topic_allows_it() {
    let mut world = World::with_brokers(2);
    let careful = world.create_on(1, &[1, 2]);
    let careless = world.create_on(2, &[1, 2]);
    world.set_topic_config("t2", "unclean.leader.election.enable", "true");
    world.fence(2);
    world.fence(1);
    world.start(2);
    assert_eq!(world.record(careful).leader, None);
    let record = world.record(careless);
    assert_eq!((record.leader, record.isr), (Some(BrokerId(2)), ids(&[2])));
    assert!(record.recovering);
    // Nobody joins before the leader has said that its log is whole.
    world.start(1);
    let join = world.proposal(careless, &[1, 2]);
    assert!(matches!(
        world.propose(2, join.clone()),
        Err(AlterPartitionError::Invalid(_))
    ));
    let recovered = crate::AlterPartition {
        recovered: true,
        ..join
    };
    let record = world.propose(2, recovered).unwrap();
    assert_eq!((record.recovering, record.isr), (false, ids(&[1, 2])));
}

#[test]
fn elections_on_request_answer_as_kafka_does() {
    let mut world = World::with_brokers(3);
    let id = world.create_on(1, &[1, 2, 3]);
    let named: &[(&str, i32)] = &[("t1", 0), ("t1", 1), ("t9", 0)];
    let unknown = Err(CommandError::UnknownTopicOrPartition);
    let not_needed = Err(CommandError::ElectionNotNeeded);
    assert_eq!(
        world.elect(ElectionKind::Preferred, Some(named)),
        vec![not_needed.clone(), unknown.clone(), unknown]
    );
    assert_eq!(world.elect(ElectionKind::Preferred, None), vec![]);
    world.fence(1);
    let missing = Err(CommandError::PreferredLeaderNotAvailable);
    assert_eq!(
        world.elect(ElectionKind::Preferred, None),
        vec![missing.clone()]
    );
    world.start(1);
    assert_eq!(world.elect(ElectionKind::Preferred, None), vec![missing]);
    world.set_isr(id, &[1, 2, 3]).unwrap();
    assert_eq!(world.elect(ElectionKind::Preferred, None), vec![Ok(())]);
    let record = world.record(id);
    assert_eq!(
        (record.leader, record.leader_epoch.get()),
        (Some(BrokerId(1)), 2)
    );
    let first: &[(&str, i32)] = &[("t1", 0)];
    assert_eq!(
        world.elect(ElectionKind::Unclean, Some(first)),
        vec![not_needed]
    );
    for broker in 1..=3 {
        world.fence(broker);
    }
    let nobody = Err(CommandError::EligibleLeadersNotAvailable);
    assert_eq!(
        world.elect(ElectionKind::Unclean, Some(first)),
        vec![nobody]
    );
}

#[test]
fn an_unclean_restart_leaves_isr_and_elr_before_it_is_in_service_again() {
    // R-14, while another member leads on.
    let mut world = World::with_brokers(3);
    let id = world.create_on(1, &[1, 2, 3]);
    world.restart_unclean(3);
    let record = world.record(id);
    assert_eq!(
        (record.leader, record.isr, record.elr),
        (Some(BrokerId(1)), ids(&[1, 2]), ids(&[]))
    );
    world.set_isr(id, &[1]).unwrap();
    assert_eq!(world.record(id).elr, ids(&[2]));
    world.restart_unclean(2);
    let record = world.record(id);
    assert_eq!((record.isr, record.elr), (ids(&[1]), ids(&[])));
    assert!(record.last_known_elr.is_empty());
}
