//! Committing, fetching and keeping offsets.

use ottla_types::{PartitionIndex, ProducerId};

use super::world::*;
use crate::{
    CommitPartition, CommitRequest, FetchOffsetsRequest, GenerationId, GroupError, OffsetsRecord,
};

fn fails(world: &mut World, request: &CommitRequest) -> GroupError {
    let token = world.commit(request);
    world.committed(token).unwrap_err()
}

#[test]
fn a_commit_is_answered_and_seen_when_it_is_committed() {
    let mut world = World::new();
    world.prompt = false;
    let token = world.commit(&commit_request(None, "t", 7));
    assert!(!world.replies.contains_key(&token), "G-1");
    assert_eq!(world.offset("t"), None);
    world.finish_append(Fate::Committed);
    world.settle();
    assert!(world.committed(token).is_ok());
    assert_eq!(world.offset("t"), Some(7));
    let refused = world.commit(&commit_request(None, "t", 8));
    world.finish_append(Fate::Refused);
    world.settle();
    assert_eq!(
        world.committed(refused),
        Err(GroupError::CoordinatorNotAvailable)
    );
    assert_eq!(world.offset("t"), Some(7));
    world.fail_over();
    assert_eq!(world.offset("t"), Some(7), "P-44");
}

#[test]
fn who_may_commit() {
    let mut world = World::new();
    let stranger = CommitRequest {
        generation: Some(GenerationId(1)),
        member_id: Some("m".to_owned()),
        ..commit_request(None, "t", 1)
    };
    assert_eq!(fails(&mut world, &stranger), GroupError::GroupIdNotFound);
    let joined = world.stable(&["a", "b"]);
    assert_eq!(fails(&mut world, &stranger), GroupError::UnknownMemberId);
    assert_eq!(
        fails(&mut world, &commit_request(None, "t", 1)),
        GroupError::UnknownMemberId
    );
    let mut old = commit_request(Some(&joined[0]), "t", 1);
    old.generation = Some(GenerationId(0));
    assert_eq!(fails(&mut world, &old), GroupError::IllegalGeneration);
    old.generation = None;
    assert_eq!(fails(&mut world, &old), GroupError::IllegalGeneration);
    let token = world.commit(&commit_request(Some(&joined[0]), "t", 3));
    assert!(world.committed(token).is_ok());
    assert_eq!(world.offset("t"), Some(3));
    // While a round is prepared members may still commit; it keeps them alive.
    let (_, c) = world.new_member("c");
    let token = world.commit(&commit_request(Some(&joined[0]), "t", 4));
    assert!(world.committed(token).is_ok());
    let a = world.rejoin(&joined[0].member_id);
    let b = world.rejoin(&joined[1].member_id);
    let joined: Vec<_> = [a, b, c].map(|token| world.joined(token).unwrap()).into();
    let early = commit_request(Some(&joined[0]), "t", 5);
    assert_eq!(fails(&mut world, &early), GroupError::RebalanceInProgress);
    world.sync_all(&joined);
    let token = world.commit(&early);
    assert!(world.committed(token).is_ok());
}

#[test]
fn each_partition_of_a_commit_has_its_own_fate() {
    let mut world = World::new();
    let mut request = commit_request(None, "t", 1);
    let partition = |partition, metadata: String| CommitPartition {
        partition: PartitionIndex(partition),
        offset: 9,
        leader_epoch: None,
        metadata,
    };
    request.topics[0]
        .partitions
        .push(partition(1, "x".repeat(5_000)));
    request.topics[0]
        .partitions
        .push(partition(99, String::new()));
    let token = world.commit(&request);
    let answer = world.committed(token).unwrap();
    let results: Vec<_> = answer[0]
        .partitions
        .iter()
        .map(|(_, result)| result.clone())
        .collect();
    assert_eq!(
        results,
        [
            Ok(()),
            Err(GroupError::OffsetMetadataTooLarge),
            Err(GroupError::UnknownTopicOrPartition)
        ]
    );
    assert_eq!(world.log.len(), 1);
}

#[test]
fn all_offsets_of_a_group_are_fetched_and_none_of_an_unknown_one() {
    let mut world = World::new();
    world.commit(&commit_request(None, "t", 1));
    world.commit(&commit_request(None, "u", 2));
    let mut request = FetchOffsetsRequest {
        group_id: GROUP.to_owned(),
        member: None,
        topics: None,
        require_stable: true,
    };
    let all = world.coordinator.fetch_offsets(&request, &world.topics);
    let names: Vec<_> = all.iter().map(|topic| topic.name.as_str()).collect();
    assert_eq!(names, ["t", "u"]);
    request.group_id = "other".to_owned();
    assert!(
        world
            .coordinator
            .fetch_offsets(&request, &world.topics)
            .is_empty()
    );
}

#[test]
fn a_recreated_topic_does_not_inherit_offsets() {
    let mut world = World::new();
    world.commit(&commit_request(None, "t", 1));
    world.commit(&commit_request(None, "u", 2));
    world.topics.create("t");
    assert_eq!(world.offset("t"), None, "R-18");
    let (coordinator, topics) = (&mut world.coordinator, &world.topics);
    coordinator.on_topics_changed(topics);
    world.settle();
    assert!(
        !world
            .coordinator
            .committed()
            .group(GROUP)
            .unwrap()
            .offsets
            .contains_key("t")
    );
    assert_eq!(world.offset("u"), Some(2));
}

#[test]
fn offsets_expire_when_the_group_was_empty_for_the_retention() {
    let mut world = World::new();
    let retention = world.rules.offsets_retention_ms;
    let joined = world.stable(&["a"]);
    world.commit(&commit_request(Some(&joined[0]), "t", 1));
    world.commit(&commit_request(Some(&joined[0]), "u", 1));
    for _ in 0..(retention / (SESSION_MS - 1) + 1) {
        world.advance(SESSION_MS - 1);
        assert_eq!(world.heartbeat(&joined[0]), Ok(()));
    }
    world.coordinator.expire(world.now, &world.topics);
    world.settle();
    assert_eq!(world.offset("t"), Some(1), "it is subscribed to");
    assert_eq!(world.offset("u"), None, "nobody subscribes to it");
    world.advance(SESSION_MS + REBALANCE_MS);
    // A wall clock that jumps expires nothing (G-8).
    world.now.wall.0 += i64::try_from(2 * retention).unwrap();
    world.coordinator.expire(world.now, &world.topics);
    world.settle();
    assert_eq!(world.offset("t"), Some(1));
    world.advance(retention);
    world.coordinator.expire(world.now, &world.topics);
    world.settle();
    assert_eq!(world.offset("t"), None);
    assert!(
        world.coordinator.committed().group(GROUP).is_none(),
        "the group went with them"
    );
    assert!(world.coordinator.live_group(GROUP).is_none());
}

#[test]
fn a_commit_with_a_retention_of_its_own_keeps_it() {
    let mut world = World::new();
    let mut request = commit_request(None, "t", 1);
    request.retention_ms = Some(1_000);
    world.commit(&request);
    world.commit(&commit_request(None, "u", 1));
    world.advance(1_000);
    world.coordinator.expire(world.now, &world.topics);
    world.settle();
    assert_eq!((world.offset("t"), world.offset("u")), (None, Some(1)));
}

#[test]
fn offsets_of_a_transaction_count_from_its_end() {
    let mut world = World::new();
    world.commit(&commit_request(None, "t", 1));
    let stored = world.log[0].clone();
    let OffsetsRecord::Offset {
        value: Some(mut value),
        group_id,
        topic,
        partition,
    } = stored
    else {
        panic!("{stored:?}")
    };
    value.offset = 50;
    let record = OffsetsRecord::Offset {
        value: Some(value),
        group_id,
        topic,
        partition,
    };
    let fetch = |world: &World| {
        let request = FetchOffsetsRequest {
            group_id: GROUP.to_owned(),
            member: None,
            topics: None,
            require_stable: true,
        };
        world.coordinator.fetch_offsets(&request, &world.topics)[0].partitions[0].clone()
    };
    world
        .coordinator
        .apply_transactional(ProducerId(1), record.clone());
    assert!(fetch(&world).unstable, "G-7");
    world
        .coordinator
        .end_transaction(world.now, ProducerId(1), false);
    assert_eq!(
        (fetch(&world).unstable, world.offset("t")),
        (false, Some(1))
    );
    world.coordinator.apply_transactional(ProducerId(1), record);
    world
        .coordinator
        .end_transaction(world.now, ProducerId(1), true);
    assert_eq!(world.offset("t"), Some(50));
}
