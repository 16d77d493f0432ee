//! Members with a `group.instance.id` (KIP-345, KIP-814).

use super::world::*;
use crate::{
    GenerationId, GroupError, HeartbeatRequest, JoinRequest, Joined, LeaveRequest, LeavingMember,
};

fn static_join(instance: &str) -> JoinRequest {
    JoinRequest {
        group_instance_id: Some(instance.to_owned()),
        ..join_request(instance)
    }
}

fn static_group(world: &mut World, instances: &[&str]) -> Vec<Joined> {
    let tokens: Vec<_> = instances
        .iter()
        .map(|id| world.join(&static_join(id)))
        .collect();
    world.advance(2 * DELAY_MS);
    let joined: Vec<_> = tokens
        .iter()
        .map(|token| world.joined(*token).unwrap())
        .collect();
    world.sync_all(&joined);
    joined
}

#[test]
fn a_restarted_follower_takes_its_place_without_a_round() {
    let mut world = World::new();
    let joined = static_group(&mut world, &["i1", "i2"]);
    world.prompt = false;
    let token = world.join(&static_join("i2"));
    assert!(
        !world.replies.contains_key(&token),
        "the new id is stored first"
    );
    world.finish_append(Fate::Committed);
    world.settle();
    let again = world.joined(token).unwrap();
    assert_eq!(again.generation, GenerationId(1));
    assert_ne!(again.member_id, joined[1].member_id);
    assert_eq!(again.leader, joined[0].member_id);
    // Its assignment waits for it under the new id.
    let synced = world.sync(&sync_request(&again));
    let assignment = world.synced(synced).unwrap().assignment;
    assert_eq!(
        assignment,
        assignment_of(GenerationId(1), &joined[1].member_id)
    );
    let fenced = HeartbeatRequest {
        group_id: GROUP.to_owned(),
        generation: Some(GenerationId(1)),
        member_id: joined[1].member_id.clone(),
        group_instance_id: Some("i2".to_owned()),
    };
    let result = world.coordinator.heartbeat(world.now, &fenced);
    assert_eq!(result, Err(GroupError::FencedInstanceId));
    // G-2: nor can the former holder move offsets.
    let mut stale = commit_request(Some(&joined[1]), "t", 1);
    stale.group_instance_id = Some("i2".to_owned());
    let token = world.commit(&stale);
    assert_eq!(world.committed(token), Err(GroupError::FencedInstanceId));
}

#[test]
fn a_restarted_leader_may_skip_the_assignment() {
    let mut world = World::new();
    let joined = static_group(&mut world, &["i1", "i2"]);
    let token = world.join(&static_join("i1"));
    let again = world.joined(token).unwrap();
    assert!(again.skip_assignment);
    assert_eq!(again.leader, again.member_id);
    assert_eq!(again.members.len(), 2);
    // An older client is told that its former self leads, so that it does not assign.
    let old = JoinRequest {
        skip_assignment_supported: false,
        ..static_join("i1")
    };
    let token = world.join(&old);
    let older = world.joined(token).unwrap();
    assert!(!older.skip_assignment && older.members.is_empty());
    assert_eq!(older.leader, again.member_id);
    assert_eq!(world.heartbeat(&joined[1]), Ok(()));
}

#[test]
fn other_topics_after_a_restart_start_a_round() {
    let mut world = World::new();
    let joined = static_group(&mut world, &["i1", "i2"]);
    let changed = JoinRequest {
        protocols: vec![protocol("range", &["t", "u"])],
        ..static_join("i2")
    };
    let token = world.join(&changed);
    assert!(!world.replies.contains_key(&token));
    assert_eq!(
        world.heartbeat(&joined[0]),
        Err(GroupError::RebalanceInProgress)
    );
}

#[test]
fn a_static_member_is_kept_through_a_round_it_sleeps_through() {
    let mut world = World::new();
    let joined = static_group(&mut world, &["i1", "i2"]);
    let (_, c) = world.new_member("c");
    let first = JoinRequest {
        member_id: Some(joined[0].member_id.clone()),
        session_timeout_ms: 120_000,
        ..static_join("i1")
    };
    let a = world.join(&first);
    for _ in 0..REBALANCE_MS / 5_000 {
        let _ = world.heartbeat(&joined[1]);
        world.advance(5_000);
    }
    let (a, c) = (world.joined(a).unwrap(), world.joined(c).unwrap());
    assert_eq!(a.members.len() + c.members.len(), 3);
}

#[test]
fn an_administrator_removes_a_static_member_by_its_instance() {
    let mut world = World::new();
    let joined = static_group(&mut world, &["i1", "i2"]);
    let request = LeaveRequest {
        group_id: GROUP.to_owned(),
        members: vec![
            LeavingMember {
                member_id: None,
                group_instance_id: Some("i2".to_owned()),
            },
            LeavingMember {
                member_id: None,
                group_instance_id: Some("i3".to_owned()),
            },
            LeavingMember {
                member_id: Some("other".to_owned()),
                group_instance_id: Some("i1".to_owned()),
            },
        ],
    };
    let answer = world.coordinator.leave(world.now, &request).unwrap();
    assert_eq!(
        answer,
        [
            Ok(()),
            Err(GroupError::UnknownMemberId),
            Err(GroupError::FencedInstanceId)
        ]
    );
    world.settle();
    assert_eq!(
        world.heartbeat(&joined[1]),
        Err(GroupError::UnknownMemberId)
    );
}

#[test]
fn a_restart_during_a_round_replaces_the_waiting_member() {
    let mut world = World::new();
    let first = world.join(&static_join("i1"));
    let second = world.join(&static_join("i1"));
    assert_eq!(world.joined(first), Err(GroupError::FencedInstanceId));
    world.advance(2 * DELAY_MS);
    let joined = world.joined(second).unwrap();
    assert_eq!(joined.members.len(), 1);
}
