//! Joining, syncing, living and leaving.

use super::world::*;
use crate::{
    GenerationId, GroupError, GroupRules, GroupState, JoinRequest, LeaveRequest, LeavingMember,
};

fn state(world: &World) -> GroupState {
    world.coordinator.describe(GROUP).unwrap().state
}

#[test]
fn two_new_members_form_the_first_generation_after_the_initial_delay() {
    let mut world = World::new();
    let (first, a) = world.new_member("a");
    let (_, b) = world.new_member("b");
    assert!(!world.replies.contains_key(&a));
    assert_eq!(state(&world), GroupState::PreparingRebalance);
    world.advance(DELAY_MS);
    assert!(
        !world.replies.contains_key(&a),
        "the second member prolonged the delay"
    );
    world.advance(DELAY_MS);
    let (a, b) = (world.joined(a).unwrap(), world.joined(b).unwrap());
    assert_eq!(
        (a.generation, b.generation),
        (GenerationId(1), GenerationId(1))
    );
    assert_eq!((&a.leader, &b.leader), (&first, &first));
    assert_eq!((a.members.len(), b.members.len()), (2, 0));
    assert_eq!(a.protocol, "range");
    world.sync_all(&[a.clone(), b.clone()]);
    assert_eq!(state(&world), GroupState::Stable);
    assert_eq!(world.heartbeat(&a), Ok(()));
    assert_eq!(world.heartbeat(&b), Ok(()));
}

#[test]
fn the_initial_delay_ends_with_the_rebalance_timeout_however_many_come() {
    let mut world = World::new();
    let (_, first) = world.new_member("m0");
    for at in 1..30 {
        world.advance(DELAY_MS - 100);
        world.new_member(&format!("m{at}"));
    }
    assert!(world.joined(first).is_ok(), "{REBALANCE_MS} ms are over");
}

#[test]
fn an_id_given_out_lapses_after_the_session_timeout() {
    let mut world = World::new();
    let token = world.join(&join_request("a"));
    let Err(GroupError::MemberIdRequired { member_id }) = world.joined(token) else {
        panic!()
    };
    world.advance(SESSION_MS);
    let late = world.rejoin(&member_id);
    assert_eq!(world.joined(late), Err(GroupError::UnknownMemberId));
    assert!(
        world.coordinator.live_group(GROUP).is_none(),
        "nothing is left of the group"
    );
}

#[test]
fn clients_before_version_4_are_admitted_at_once() {
    let mut world = World::new();
    let request = JoinRequest {
        member_id_required: false,
        ..join_request("old")
    };
    let token = world.join(&request);
    world.advance(DELAY_MS);
    assert_eq!(world.joined(token).unwrap().member_id, "old-id1");
}

#[test]
fn joins_that_cannot_be_are_refused() {
    let mut world = World::with_rules(GroupRules {
        group_size_max: 1,
        ..GroupRules::default()
    });
    let refused = |world: &mut World, request: JoinRequest| {
        let token = world.join(&request);
        world.joined(token).unwrap_err()
    };
    let request = || join_request("x");
    let bad = JoinRequest {
        session_timeout_ms: 1,
        ..request()
    };
    assert_eq!(refused(&mut world, bad), GroupError::InvalidSessionTimeout);
    let bad = JoinRequest {
        group_id: String::new(),
        ..request()
    };
    assert_eq!(refused(&mut world, bad), GroupError::InvalidGroupId);
    let bad = JoinRequest {
        member_id: Some("stranger".to_owned()),
        ..request()
    };
    assert_eq!(
        refused(&mut world, bad.clone()),
        GroupError::UnknownMemberId
    );
    let empty = JoinRequest {
        protocols: Vec::new(),
        ..request()
    };
    assert_eq!(
        refused(&mut world, empty),
        GroupError::InconsistentGroupProtocol
    );
    let joined = world.stable(&["a"]);
    assert_eq!(refused(&mut world, bad), GroupError::GroupMaxSizeReached);
    world.rules.group_size_max = 2;
    world.fail_over();
    let other = JoinRequest {
        protocol_type: "connect".to_owned(),
        ..request()
    };
    assert_eq!(
        refused(&mut world, other),
        GroupError::InconsistentGroupProtocol
    );
    let other = JoinRequest {
        protocols: vec![protocol("sticky", &["t"])],
        ..request()
    };
    assert_eq!(
        refused(&mut world, other),
        GroupError::InconsistentGroupProtocol
    );
    assert_eq!(world.heartbeat(&joined[0]), Ok(()), "nobody was disturbed");
}

#[test]
fn the_protocol_most_prefer_among_the_common_ones_wins() {
    let mut world = World::new();
    let offer = |names: [&str; 3]| names.map(|name| protocol(name, &["t"])).to_vec();
    let mut tokens = Vec::new();
    for names in [["p", "q", "r"], ["q", "r", "s"], ["s", "q", "r"]] {
        let request = JoinRequest {
            protocols: offer(names),
            member_id_required: false,
            ..join_request("m")
        };
        tokens.push(world.join(&request));
    }
    world.advance(3 * DELAY_MS);
    assert_eq!(world.joined(tokens[0]).unwrap().protocol, "q");
}

#[test]
fn a_newcomer_starts_a_round_that_ends_when_everybody_rejoined() {
    let mut world = World::new();
    let old = world.stable(&["a", "b"]);
    let (_, c) = world.new_member("c");
    assert_eq!(
        world.heartbeat(&old[0]),
        Err(GroupError::RebalanceInProgress)
    );
    let a = world.rejoin(&old[0].member_id);
    assert!(!world.replies.contains_key(&a));
    let b = world.rejoin(&old[1].member_id);
    let joined: Vec<_> = [a, b, c].map(|token| world.joined(token).unwrap()).into();
    assert!(
        joined
            .iter()
            .all(|joined| joined.generation == GenerationId(2))
    );
    assert_eq!(joined[0].leader, old[0].member_id, "the leader stays");
    // G-2: the old generation is over.
    assert_eq!(world.heartbeat(&old[0]), Err(GroupError::IllegalGeneration));
    let late = world.sync(&sync_request(&old[1]));
    assert_eq!(world.synced(late), Err(GroupError::IllegalGeneration));
    world.sync_all(&joined);
}

#[test]
fn a_member_that_does_not_rejoin_in_time_is_left_behind() {
    let mut world = World::new();
    let old = world.stable(&["a", "b"]);
    let (_, c) = world.new_member("c");
    let b = world.rejoin(&old[1].member_id);
    for _ in 0..REBALANCE_MS / 5_000 {
        assert!(!world.replies.contains_key(&c));
        // It is alive, it just does not rejoin.
        assert_eq!(
            world.heartbeat(&old[0]),
            Err(GroupError::RebalanceInProgress)
        );
        world.advance(5_000);
    }
    let joined = [b, c].map(|token| world.joined(token).unwrap());
    assert_eq!(joined[0].members.len() + joined[1].members.len(), 2);
    assert_eq!(
        joined[0].leader, joined[0].member_id,
        "the first that rejoined leads"
    );
    assert_eq!(world.heartbeat(&old[0]), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_silent_member_is_removed_and_the_others_start_a_round() {
    let mut world = World::new();
    let joined = world.stable(&["a", "b"]);
    world.advance(SESSION_MS / 2);
    assert_eq!(world.heartbeat(&joined[0]), Ok(()));
    world.advance(SESSION_MS / 2);
    assert_eq!(
        world.heartbeat(&joined[0]),
        Err(GroupError::RebalanceInProgress)
    );
    assert_eq!(
        world.heartbeat(&joined[1]),
        Err(GroupError::UnknownMemberId)
    );
    let a = world.rejoin(&joined[0].member_id);
    assert_eq!(world.joined(a).unwrap().members.len(), 1);
}

#[test]
fn members_that_never_sync_are_removed() {
    let mut world = World::new();
    let tokens = ["a", "b"].map(|id| world.new_member(id).1);
    world.advance(2 * DELAY_MS);
    let joined = tokens.map(|token| world.joined(token).unwrap());
    let leader = world.sync(&sync_request(&joined[0]));
    assert!(world.synced(leader).is_ok());
    for _ in 0..REBALANCE_MS / 5_000 {
        world.advance(5_000);
        let _ = (world.heartbeat(&joined[0]), world.heartbeat(&joined[1]));
    }
    assert_eq!(
        world.heartbeat(&joined[0]),
        Err(GroupError::RebalanceInProgress)
    );
    assert_eq!(
        world.heartbeat(&joined[1]),
        Err(GroupError::UnknownMemberId)
    );
}

#[test]
fn nobody_hears_of_a_generation_before_it_is_stored() {
    let mut world = World::new();
    world.prompt = false;
    let (_, a) = world.new_member("a");
    world.advance(DELAY_MS);
    assert_eq!(world.appends.len(), 1);
    assert!(!world.replies.contains_key(&a), "G-4");
    world.finish_append(Fate::Unknown);
    world.settle();
    assert_eq!(world.joined(a), Err(GroupError::CoordinatorNotAvailable));
    // The number may be in the log: the next round has a higher one.
    let member_id = world.coordinator.describe(GROUP).unwrap().members[0]
        .member_id
        .clone();
    let again = world.rejoin(&member_id);
    world.finish_append(Fate::Committed);
    world.settle();
    assert_eq!(world.joined(again).unwrap().generation, GenerationId(2));
}

#[test]
fn nobody_gets_an_assignment_before_it_is_stored() {
    let mut world = World::new();
    let (_, a) = world.new_member("a");
    world.advance(DELAY_MS);
    let joined = world.joined(a).unwrap();
    world.prompt = false;
    let first = world.sync(&sync_request(&joined));
    assert!(!world.replies.contains_key(&first));
    let again = world.sync(&sync_request(&joined));
    assert_eq!(
        world.synced(first),
        Err(GroupError::RebalanceInProgress),
        "given up"
    );
    assert_eq!(world.appends.len(), 1, "one generation, one assignment");
    world.finish_append(Fate::Refused);
    world.settle();
    assert_eq!(
        world.synced(again),
        Err(GroupError::CoordinatorNotAvailable)
    );
    assert_eq!(
        world.heartbeat(&joined),
        Err(GroupError::RebalanceInProgress)
    );
}

#[test]
fn a_join_during_the_store_waits_for_the_next_generation() {
    let mut world = World::new();
    world.prompt = false;
    let (_, a) = world.new_member("a");
    world.advance(DELAY_MS);
    let (_, b) = world.new_member("b");
    world.finish_append(Fate::Committed); // Of generation 1, which nobody will see.
    world.settle();
    assert!(!world.replies.contains_key(&a));
    world.prompt = true;
    world.settle();
    assert_eq!(world.joined(a).unwrap().generation, GenerationId(2));
    assert_eq!(world.joined(b).unwrap().generation, GenerationId(2));
}

#[test]
fn an_unchanged_follower_gets_the_current_generation_the_leader_a_new_round() {
    let mut world = World::new();
    let joined = world.stable(&["a", "b"]);
    let follower = world.rejoin(&joined[1].member_id);
    assert_eq!(world.joined(follower).unwrap().generation, GenerationId(1));
    assert_eq!(state(&world), GroupState::Stable);
    let leader = world.rejoin(&joined[0].member_id);
    assert!(!world.replies.contains_key(&leader));
    assert_eq!(state(&world), GroupState::PreparingRebalance);
}

#[test]
fn leaving_members_are_answered_one_by_one() {
    let mut world = World::new();
    let joined = world.stable(&["a", "b"]);
    let leaving = |id: &str| LeavingMember {
        member_id: Some(id.to_owned()),
        group_instance_id: None,
    };
    let request = LeaveRequest {
        group_id: GROUP.to_owned(),
        members: vec![leaving(&joined[1].member_id), leaving("stranger")],
    };
    let answer = world.coordinator.leave(world.now, &request);
    assert_eq!(answer, Ok(vec![Ok(()), Err(GroupError::UnknownMemberId)]));
    assert_eq!(
        world.heartbeat(&joined[0]),
        Err(GroupError::RebalanceInProgress)
    );
    let last = LeaveRequest {
        group_id: GROUP.to_owned(),
        members: vec![leaving(&joined[0].member_id)],
    };
    assert_eq!(world.coordinator.leave(world.now, &last), Ok(vec![Ok(())]));
    world.settle();
    assert_eq!(state(&world), GroupState::Empty);
}

#[test]
fn members_go_on_under_another_coordinator() {
    let mut world = World::new();
    let joined = world.stable(&["a", "b"]);
    world.fail_over();
    assert_eq!(state(&world), GroupState::Stable);
    world.advance(SESSION_MS - 1);
    assert_eq!(world.heartbeat(&joined[0]), Ok(()));
    assert_eq!(
        world.heartbeat(&joined[1]),
        Ok(()),
        "sessions start with the new coordinator"
    );
    let again = world.sync(&sync_request(&joined[1]));
    let assignment = world.synced(again).unwrap().assignment;
    assert_eq!(
        assignment,
        assignment_of(GenerationId(1), &joined[1].member_id)
    );
}

#[test]
fn a_generation_without_assignment_begins_anew_under_another_coordinator() {
    let mut world = World::new();
    let (_, a) = world.new_member("a");
    world.advance(DELAY_MS);
    let joined = world.joined(a).unwrap();
    world.fail_over();
    let late = world.sync(&sync_request(&joined));
    assert_eq!(world.synced(late), Err(GroupError::RebalanceInProgress));
    let again = world.rejoin(&joined.member_id);
    assert_eq!(world.joined(again).unwrap().generation, GenerationId(2));
}

#[test]
fn losing_the_leadership_answers_everybody() {
    let mut world = World::new();
    let joined = world.stable(&["a", "b"]);
    let (_, waiting) = world.new_member("c");
    world.prompt = false;
    let commit = world.commit(&commit_request(Some(&joined[0]), "t", 5));
    world.fail_over();
    assert_eq!(world.joined(waiting), Err(GroupError::NotCoordinator));
    assert_eq!(world.committed(commit), Err(GroupError::NotCoordinator));
    assert_eq!(world.offset("t"), None);
}

#[test]
fn a_stall_of_the_process_ends_no_session() {
    let mut world = World::new();
    let joined = world.stable(&["a"]);
    world.now.monotonic = world.now.monotonic.plus_ms(5 * SESSION_MS);
    world.coordinator.extend_sessions(5 * SESSION_MS);
    world.coordinator.on_time(world.now);
    assert_eq!(world.heartbeat(&joined[0]), Ok(()));
}

#[test]
fn an_id_that_leaves_unused_disturbs_nobody() {
    let mut world = World::new();
    let joined = world.stable(&["a"]);
    let token = world.join(&join_request("b"));
    let Err(GroupError::MemberIdRequired { member_id }) = world.joined(token) else {
        panic!()
    };
    let request = LeaveRequest {
        group_id: GROUP.to_owned(),
        members: vec![LeavingMember {
            member_id: Some(member_id),
            group_instance_id: None,
        }],
    };
    let answer = world.coordinator.leave(world.now, &request);
    assert_eq!(answer, Ok(vec![Ok(())]));
    assert_eq!(state(&world), GroupState::Stable);
    assert_eq!(world.heartbeat(&joined[0]), Ok(()));
}
