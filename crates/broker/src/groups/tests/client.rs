//! What the tests ask of a broker.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use ottla_types::PartitionIndex;

use super::cluster::GROUP;
use crate::groups::{
    CommitPartition, CommitRequest, CommitTopic, FetchOffsetsRequest, GroupError, GroupsHandle,
};

pub(super) fn commit_request(topic: &str, partition: i32, offset: i64) -> CommitRequest {
    CommitRequest {
        group_id: GROUP.to_owned(),
        generation: None,
        member_id: None,
        group_instance_id: None,
        retention_ms: None,
        topics: vec![CommitTopic {
            name: topic.to_owned(),
            partitions: vec![CommitPartition {
                partition: PartitionIndex(partition),
                offset,
                leader_epoch: None,
                metadata: String::new(),
            }],
        }],
    }
}

/// Commits one offset of the group that has no members.
pub(super) async fn commit(
    handle: &GroupsHandle,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Result<(), GroupError> {
    let answer = handle
        .commit_offsets(commit_request(topic, partition, offset))
        .await?;
    answer[0].partitions[0].1.clone()
}

/// The stored offset, if the broker may say.
pub(super) async fn fetch(
    handle: &GroupsHandle,
    topic: &str,
    partition: i32,
) -> Result<Option<i64>, GroupError> {
    let request = FetchOffsetsRequest {
        group_id: GROUP.to_owned(),
        member: None,
        topics: Some(vec![(topic.to_owned(), vec![PartitionIndex(partition)])]),
        require_stable: true,
    };
    let answer = handle.fetch_offsets(vec![request]).await.remove(0)?;
    Ok(answer[0].partitions[0]
        .committed
        .as_ref()
        .map(|committed| committed.offset))
}

/// Repeats while another broker coordinates or is about to.
pub(super) async fn eventually<T, F: Future<Output = Result<T, GroupError>>>(
    mut ask: impl FnMut() -> F,
) -> T {
    let give_up = Instant::now() + Duration::from_secs(10);
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(
                error @ (GroupError::NotCoordinator
                | GroupError::CoordinatorLoadInProgress
                | GroupError::CoordinatorNotAvailable),
            ) => assert!(Instant::now() < give_up, "still {error}"),
            Err(error) => panic!("{error}"),
        }
        sleep(Duration::from_millis(2)).await;
    }
}
