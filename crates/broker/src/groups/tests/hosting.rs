//! One broker: rounds, commits, appends that fail, topics that go.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use ottla_types::PartitionIndex;

use super::{client::*, cluster::*};
use crate::groups::{
    CommitPartition, GroupError, GroupState, Groups, GroupsConfig, GroupsHandle, HeartbeatRequest,
    JoinRequest, Joined, LeaveRequest, LeavingMember, Protocol, SyncRequest,
};

pub(super) fn join_request(member_id: Option<String>) -> JoinRequest {
    JoinRequest {
        group_id: GROUP.to_owned(),
        member_id,
        group_instance_id: None,
        client_id: "c".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: Some(10_000),
        protocol_type: "consumer".to_owned(),
        protocols: vec![Protocol {
            name: "range".to_owned(),
            metadata: Bytes::from_static(&[0, 0, 0, 0, 0, 0]),
        }],
        member_id_required: true,
        skip_assignment_supported: true,
    }
}

pub(super) async fn join(handle: &GroupsHandle) -> Joined {
    let given = handle.join(join_request(None)).await;
    let Err(GroupError::MemberIdRequired { member_id }) = given else {
        panic!("{given:?}")
    };
    handle.join(join_request(Some(member_id))).await.unwrap()
}

pub(super) fn sync_request(joined: &Joined) -> SyncRequest {
    let assign = |id: &String| (id.clone(), Bytes::from(format!("for {id}")));
    SyncRequest {
        group_id: GROUP.to_owned(),
        generation: Some(joined.generation),
        member_id: joined.member_id.clone(),
        group_instance_id: None,
        protocol_type: None,
        protocol: None,
        assignments: joined
            .members
            .iter()
            .map(|member| assign(&member.member_id))
            .collect(),
    }
}

pub(super) fn heartbeat_request(joined: &Joined) -> HeartbeatRequest {
    HeartbeatRequest {
        group_id: GROUP.to_owned(),
        generation: Some(joined.generation),
        member_id: joined.member_id.clone(),
        group_instance_id: None,
    }
}

/// A cluster whose offsets partitions one broker leads.
async fn alone() -> (std::sync::Arc<Cluster>, Groups, GroupsHandle) {
    let cluster = Cluster::new();
    cluster.create_topic("t", 10);
    let groups = cluster.host(BROKERS[0]);
    let handle = groups.handle();
    let deadline = Instant::now() + Duration::from_secs(5);
    eventually(|| handle.find_coordinator(GROUP, deadline)).await;
    cluster.lead(BROKERS[0]);
    eventually(|| handle.list()).await;
    eventually(|| fetch(&handle, "t", 0)).await;
    (cluster, groups, handle)
}

#[tokio::test]
async fn looking_for_a_coordinator_creates_the_internal_topic() {
    let cluster = Cluster::new();
    let groups = cluster.host(BROKERS[0]);
    let handle = groups.handle();
    assert_eq!(handle.list().await, Ok(Vec::new()));
    assert_eq!(
        handle.describe(GROUP).await,
        Err(GroupError::NotCoordinator)
    );
    let deadline = Instant::now() + Duration::from_secs(5);
    // "polygenelubricants" hashes to partition 0 of any number, which the first broker leads.
    let found = eventually(|| handle.find_coordinator("polygenelubricants", deadline)).await;
    assert_eq!(found, BROKERS[0]);
    groups.stop().await;
}

#[tokio::test]
async fn a_member_joins_syncs_commits_and_leaves() {
    let (_cluster, groups, handle) = alone().await;
    let joined = join(&handle).await;
    assert_eq!(joined.leader, joined.member_id);
    let synced = handle.sync(sync_request(&joined)).await.unwrap();
    assert_eq!(synced.assignment, format!("for {}", joined.member_id));
    assert_eq!(handle.heartbeat(heartbeat_request(&joined)).await, Ok(()));
    let mut request = commit_request("t", 3, 42);
    request.generation = Some(joined.generation);
    request.member_id = Some(joined.member_id.clone());
    assert!(handle.commit_offsets(request).await.is_ok());
    assert_eq!(fetch(&handle, "t", 3).await, Ok(Some(42)));
    let described = handle.describe(GROUP).await.unwrap();
    assert_eq!(
        (described.state, described.members.len()),
        (GroupState::Stable, 1)
    );
    let give_up = Instant::now() + Duration::from_secs(10);
    while handle.numbers().stable != 1 || handle.numbers().offsets != 1 {
        assert!(Instant::now() < give_up, "{:?}", handle.numbers());
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(handle.numbers().groups, 1);
    let leaving = LeavingMember {
        member_id: Some(joined.member_id.clone()),
        group_instance_id: None,
    };
    let request = LeaveRequest {
        group_id: GROUP.to_owned(),
        members: vec![leaving],
    };
    assert_eq!(handle.leave(request).await, Ok(vec![Ok(())]));
    let wanted = vec![("t".to_owned(), vec![PartitionIndex(3)])];
    let deleted = handle.delete_offsets(GROUP, wanted).await.unwrap();
    assert_eq!(deleted, [("t".to_owned(), PartitionIndex(3), Ok(()))]);
    assert_eq!(fetch(&handle, "t", 3).await, Ok(None));
    let deleted = handle
        .delete_groups(vec![GROUP.to_owned(), "none".to_owned()])
        .await;
    assert_eq!(deleted[0], (GROUP.to_owned(), Ok(())));
    assert_eq!(
        deleted[1],
        ("none".to_owned(), Err(GroupError::GroupIdNotFound))
    );
    assert_eq!(
        handle.describe(GROUP).await,
        Err(GroupError::GroupIdNotFound)
    );
    groups.stop().await;
}

#[tokio::test]
async fn commits_of_many_clients_share_appends() {
    let (cluster, groups, handle) = alone().await;
    let before = cluster.produced_batches();
    let commits = (0..400).map(|offset| {
        let handle = handle.clone();
        async move { commit(&handle, "t", offset % 10, i64::from(offset)).await }
    });
    for result in futures::future::join_all(commits).await {
        assert_eq!(result, Ok(()));
    }
    let batches = cluster.produced_batches() - before;
    assert!(batches < 40, "{batches} appends for 400 commits");
    for partition in 0..10 {
        let last = fetch(&handle, "t", partition).await.unwrap();
        assert!(
            last.is_some_and(|offset| offset % 10 == i64::from(partition)),
            "{last:?}"
        );
    }
    groups.stop().await;
}

#[tokio::test]
async fn a_large_commit_spreads_over_batches_and_an_impossible_one_is_refused() {
    let cluster = Cluster::new();
    cluster.create_topic("t", 500);
    let config = GroupsConfig {
        offsets_batch_bytes_max: 2_000,
        offset_metadata_bytes_max: 10_000,
        offsets_topic_partitions: 1,
        ..GroupsConfig::default()
    };
    let groups = cluster.host_with(BROKERS[0], config);
    let handle = groups.handle();
    let deadline = Instant::now() + Duration::from_secs(5);
    eventually(|| handle.find_coordinator(GROUP, deadline)).await;
    eventually(|| fetch(&handle, "t", 0)).await;
    let mut request = commit_request("t", 0, 0);
    request.topics[0].partitions = (0..500)
        .map(|partition| CommitPartition {
            partition: PartitionIndex(partition),
            offset: i64::from(partition),
            leader_epoch: None,
            metadata: String::new(),
        })
        .collect();
    assert!(handle.commit_offsets(request.clone()).await.is_ok());
    assert_eq!(fetch(&handle, "t", 499).await, Ok(Some(499)));
    request.topics[0].partitions[7].metadata = "x".repeat(3_000);
    request.topics[0].partitions[7].offset = 1_000;
    assert_eq!(
        handle.commit_offsets(request).await,
        Err(GroupError::RecordTooLarge)
    );
    assert_eq!(fetch(&handle, "t", 7).await, Ok(Some(7)));
    groups.stop().await;
}

#[tokio::test]
async fn a_failed_append_is_told_and_an_unknown_one_comes_back_through_the_log() {
    let (cluster, groups, handle) = alone().await;
    assert_eq!(commit(&handle, "t", 0, 1).await, Ok(()));
    cluster.set_fate(Fate::Refused);
    assert_eq!(
        commit(&handle, "t", 0, 2).await,
        Err(GroupError::CoordinatorNotAvailable)
    );
    assert_eq!(fetch(&handle, "t", 0).await, Ok(Some(1)));
    cluster.set_fate(Fate::Unknown);
    assert_eq!(
        commit(&handle, "t", 1, 3).await,
        Err(GroupError::CoordinatorNotAvailable)
    );
    assert_eq!(fetch(&handle, "t", 1).await, Ok(None));
    cluster.set_fate(Fate::Committed);
    // The next append commits it too; both are folded in the order of the log.
    assert_eq!(commit(&handle, "t", 0, 4).await, Ok(()));
    assert_eq!(fetch(&handle, "t", 1).await, Ok(Some(3)));
    assert_eq!(fetch(&handle, "t", 0).await, Ok(Some(4)));
    groups.stop().await;
}

#[tokio::test]
async fn offsets_go_with_their_topic() {
    let (cluster, groups, handle) = alone().await;
    let doomed = cluster.create_topic("doomed", 1);
    eventually(|| async {
        match commit(&handle, "doomed", 0, 5).await {
            Err(GroupError::UnknownTopicOrPartition) => Err(GroupError::NotCoordinator),
            result => result,
        }
    })
    .await;
    assert_eq!(commit(&handle, "t", 0, 6).await, Ok(()));
    cluster.delete_topic(doomed);
    let give_up = Instant::now() + Duration::from_secs(5);
    while fetch(&handle, "doomed", 0).await != Ok(None) {
        assert!(Instant::now() < give_up);
        sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(fetch(&handle, "t", 0).await, Ok(Some(6)));
    groups.stop().await;
}

#[tokio::test]
async fn stopping_answers_everybody_who_waits() {
    let (cluster, groups, handle) = alone().await;
    cluster.set_fate(Fate::Refused);
    let joined = handle.join(join_request(None)).await;
    let Err(GroupError::MemberIdRequired { member_id }) = joined else {
        panic!("{joined:?}")
    };
    let slow = JoinRequest {
        group_id: "slow".to_owned(),
        ..join_request(None)
    };
    let second = handle.join(slow).await;
    assert!(matches!(second, Err(GroupError::MemberIdRequired { .. })));
    // The round's generation cannot be stored, so this one is told, and waits no longer.
    let refused = handle.join(join_request(Some(member_id))).await;
    assert_eq!(refused, Err(GroupError::CoordinatorNotAvailable));
    groups.stop().await;
    assert_eq!(
        handle.list().await,
        Err(GroupError::CoordinatorNotAvailable)
    );
}
