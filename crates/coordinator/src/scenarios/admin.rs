//! Listing, describing and deleting.

use ottla_types::PartitionIndex;

use super::world::*;
use crate::{GroupError, GroupState, Reply, ReplyToken};

fn delete(world: &mut World) -> ReplyToken {
    let token = world.token();
    world.coordinator.delete_group(world.now, GROUP, token);
    world.settle();
    token
}

fn delete_offset(world: &mut World, topic: &str) -> Result<Result<(), GroupError>, GroupError> {
    let token = world.token();
    let wanted = [(topic.to_owned(), vec![PartitionIndex(0)])];
    world
        .coordinator
        .delete_offsets(GROUP, &wanted, &world.topics, token);
    world.settle();
    match world.replies.remove(&token) {
        Some(Reply::DeleteOffsets(result)) => result.map(|mut answer| answer.remove(0).2),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stable_group_shows_subscriptions_and_assignments() {
    let mut world = World::new();
    let joined = world.stable(&["a"]);
    let described = world.coordinator.describe(GROUP).unwrap();
    assert_eq!(described.state.as_str(), "Stable");
    assert_eq!(
        (
            described.protocol_type.as_str(),
            described.protocol.as_str()
        ),
        ("consumer", "range")
    );
    let member = &described.members[0];
    assert_eq!(member.metadata, subscription(&["t"]));
    assert_eq!(
        member.assignment,
        assignment_of(joined[0].generation, &joined[0].member_id)
    );
    world.new_member("b");
    let described = world.coordinator.describe(GROUP).unwrap();
    assert_eq!(described.state, GroupState::PreparingRebalance);
    assert!(described.protocol.is_empty() && described.members[0].metadata.is_empty());
    let listed: Vec<_> = world
        .coordinator
        .list()
        .map(|listing| listing.group_id)
        .collect();
    assert_eq!(listed, [GROUP]);
    assert_eq!(
        world.coordinator.describe("other"),
        Err(GroupError::GroupIdNotFound)
    );
}

#[test]
fn only_an_empty_group_is_deleted_with_all_its_offsets() {
    let mut world = World::new();
    let missing = delete(&mut world);
    assert_eq!(
        world.replies[&missing],
        Reply::DeleteGroup(Err(GroupError::GroupIdNotFound))
    );
    let joined = world.stable(&["a"]);
    world.commit(&commit_request(Some(&joined[0]), "t", 1));
    let busy = delete(&mut world);
    assert_eq!(
        world.replies[&busy],
        Reply::DeleteGroup(Err(GroupError::NonEmptyGroup))
    );
    world.advance(2 * SESSION_MS + REBALANCE_MS);
    world.prompt = false;
    let failed = delete(&mut world);
    let late = world.commit(&commit_request(None, "t", 2));
    assert_eq!(
        world.committed(late),
        Err(GroupError::CoordinatorNotAvailable),
        "it is going"
    );
    world.finish_append(Fate::Refused);
    world.settle();
    let unavailable = Reply::DeleteGroup(Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(world.replies[&failed], unavailable);
    assert_eq!(world.offset("t"), Some(1));
    // A commit on its way into the log is deleted too.
    let racing = world.commit(&commit_request(None, "u", 9));
    let done = delete(&mut world);
    world.prompt = true;
    world.settle();
    assert!(world.committed(racing).is_ok());
    assert_eq!(world.replies[&done], Reply::DeleteGroup(Ok(())));
    assert!(world.coordinator.committed().group(GROUP).is_none());
    world.fail_over();
    assert_eq!(
        world.coordinator.describe(GROUP),
        Err(GroupError::GroupIdNotFound)
    );
}

#[test]
fn offsets_that_no_member_needs_can_be_deleted() {
    let mut world = World::new();
    assert_eq!(
        delete_offset(&mut world, "t"),
        Err(GroupError::GroupIdNotFound)
    );
    let joined = world.stable(&["a"]);
    for topic in ["t", "u"] {
        world.commit(&commit_request(Some(&joined[0]), topic, 1));
    }
    assert_eq!(
        delete_offset(&mut world, "t"),
        Ok(Err(GroupError::GroupSubscribedToTopic))
    );
    assert_eq!(delete_offset(&mut world, "u"), Ok(Ok(())));
    assert_eq!(
        delete_offset(&mut world, "none"),
        Ok(Err(GroupError::UnknownTopicOrPartition))
    );
    assert_eq!((world.offset("t"), world.offset("u")), (Some(1), None));
    world.advance(2 * SESSION_MS + REBALANCE_MS);
    assert_eq!(delete_offset(&mut world, "t"), Ok(Ok(())));
    assert_eq!(world.offset("t"), None);
}
