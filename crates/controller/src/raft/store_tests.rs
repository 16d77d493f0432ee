//! openraft's own storage suite on our stores, and claims that it does not make.

use std::sync::{Arc, OnceLock};

use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{CommittedLeaderId, EntryPayload, RaftLogReader, RaftSnapshotBuilder};
use tempfile::TempDir;

use ottla_metadata::Command;
use ottla_types::BrokerId;
use std::collections::BTreeMap;

use super::disk::Disk;
use super::log_store::LogStore;
use super::state_machine::StateMachine;
use super::store::StoreError;
use super::types::{
    Entry, LogId, Proposal, ReplicaKey, StorageError, StorageIoError, TypeConfig, Vote,
};
use crate::cluster::Cluster;

const NODE: BrokerId = BrokerId(0);

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError> {
        let directory = tempfile::tempdir().unwrap();
        let failed = |error: StoreError| StorageIoError::write(openraft::AnyError::new(&error));
        let opened = open(&directory).await.map_err(failed)?;
        Ok((directory, opened.log, opened.machine))
    }
}

struct Opened {
    disk: Disk,
    log: LogStore,
    machine: StateMachine,
    cluster: Arc<Cluster>,
}

async fn open(directory: &TempDir) -> Result<Opened, StoreError> {
    let disk = Disk::open(&directory.path().join("store"), NODE).await?;
    let cluster = Arc::new(Cluster::new(Arc::new(OnceLock::new())));
    let machine = StateMachine::open(disk.clone(), cluster.clone()).await?;
    Ok(Opened {
        log: LogStore::new(disk.clone()),
        disk,
        machine,
        cluster,
    })
}

fn id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(1, ReplicaKey::from(0)), index)
}

fn entry(index: u64) -> Entry {
    let command = Command::Bootstrap {
        cluster_id: format!("cluster-{index}"),
        features: BTreeMap::from([("metadata.version".to_owned(), 27)]),
    };
    Entry {
        log_id: id(index),
        payload: EntryPayload::Normal(Proposal::Command(command)),
    }
}

#[test]
fn the_stores_pass_openrafts_suite() {
    Suite::test_all(Builder).unwrap();
}

#[tokio::test]
async fn what_was_claimed_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let vote = Vote::new_committed(3, ReplicaKey::from(1));
    let identity = {
        let mut opened = open(&directory).await.unwrap();
        opened.log.save_vote(&vote).await.unwrap();
        opened
            .log
            .blocking_append((1..=4).map(entry))
            .await
            .unwrap();
        opened.log.truncate(id(4)).await.unwrap();
        opened.log.save_committed(Some(id(2))).await.unwrap();
        opened.disk.close().await;
        opened.disk.identity()
    };
    let mut opened = open(&directory).await.unwrap();
    assert_eq!(opened.disk.identity(), identity);
    assert_eq!(opened.log.read_vote().await.unwrap(), Some(vote));
    assert_eq!(opened.log.read_committed().await.unwrap(), Some(id(2)));
    let state = opened.log.get_log_state().await.unwrap();
    assert_eq!(
        (state.last_purged_log_id, state.last_log_id),
        (None, Some(id(3)))
    );
    assert!(!opened.disk.run(|store| store.is_blank()).await.unwrap());
    opened.disk.close().await;
    let other = Disk::open(&directory.path().join("store"), BrokerId(9)).await;
    assert!(matches!(other, Err(StoreError::OtherNode { .. })));
}

#[tokio::test]
async fn a_snapshot_and_the_tail_give_the_state_that_the_whole_log_gives() {
    let directory = tempfile::tempdir().unwrap();
    let hash = {
        let mut opened = open(&directory).await.unwrap();
        opened
            .log
            .blocking_append((1..=3).map(entry))
            .await
            .unwrap();
        opened.machine.apply((1..=2).map(entry)).await.unwrap();
        opened
            .machine
            .get_snapshot_builder()
            .await
            .build_snapshot()
            .await
            .unwrap();
        opened.log.purge(id(2)).await.unwrap();
        opened.machine.apply([entry(3)]).await.unwrap();
        opened.disk.close().await;
        opened.cluster.state().0.state_hash()
    };
    let mut opened = open(&directory).await.unwrap();
    assert_eq!(opened.machine.applied_state().await.unwrap().0, Some(id(2)));
    let tail = opened.log.try_get_log_entries(3..).await.unwrap();
    opened.machine.apply(tail).await.unwrap();
    assert_eq!(opened.cluster.state().0.state_hash(), hash);
    assert_eq!(opened.cluster.index(), 3);
    opened.disk.close().await;
}

/// openraft purges the log as soon as it has received a snapshot, before that is installed.
#[tokio::test]
async fn a_crash_between_purge_and_installation_leaves_the_old_log() {
    let source = tempfile::tempdir().unwrap();
    let mut leader = open(&source).await.unwrap();
    leader.machine.apply((1..=9).map(entry)).await.unwrap();
    let snapshot = leader
        .machine
        .get_snapshot_builder()
        .await
        .build_snapshot()
        .await
        .unwrap();
    leader.disk.close().await;

    let directory = tempfile::tempdir().unwrap();
    let mut follower = open(&directory).await.unwrap();
    follower
        .log
        .blocking_append((1..=2).map(entry))
        .await
        .unwrap();
    follower.log.purge(id(9)).await.unwrap();
    let state = follower.log.get_log_state().await.unwrap();
    assert_eq!(
        state.last_purged_log_id,
        Some(id(9)),
        "as openraft was told"
    );
    follower.disk.close().await; // A crash here.

    let mut follower = open(&directory).await.unwrap();
    let state = follower.log.get_log_state().await.unwrap();
    assert_eq!(
        (state.last_purged_log_id, state.last_log_id),
        (None, Some(id(2)))
    );
    follower.log.purge(id(9)).await.unwrap();
    follower
        .machine
        .install_snapshot(&snapshot.meta, snapshot.snapshot)
        .await
        .unwrap();
    follower.disk.close().await;

    let mut follower = open(&directory).await.unwrap();
    let state = follower.log.get_log_state().await.unwrap();
    assert_eq!(
        (state.last_purged_log_id, state.last_log_id),
        (Some(id(9)), Some(id(9)))
    );
    assert_eq!(
        follower.machine.applied_state().await.unwrap().0,
        Some(id(9))
    );
    assert!(
        follower
            .log
            .try_get_log_entries(0..)
            .await
            .unwrap()
            .is_empty()
    );
    follower.disk.close().await;
}

#[tokio::test]
async fn a_metadata_version_from_the_future_stops_the_state_machine() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open(&directory).await.unwrap();
    let command = Command::Bootstrap {
        cluster_id: "c".to_owned(),
        features: BTreeMap::from([("metadata.version".to_owned(), 28)]),
    };
    let entry = Entry {
        log_id: id(1),
        payload: EntryPayload::Normal(Proposal::Command(command)),
    };
    let error = opened.machine.apply([entry]).await.unwrap_err();
    assert!(error.to_string().contains("metadata.version 28"), "{error}");
    opened.disk.close().await;
}

#[tokio::test]
async fn reads_for_an_append_call_are_bounded_in_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let mut opened = open(&directory).await.unwrap();
    let big = |index| {
        let command = Command::Bootstrap {
            cluster_id: "c".repeat(700 << 10),
            features: BTreeMap::new(),
        };
        Entry {
            log_id: id(index),
            payload: EntryPayload::Normal(Proposal::Command(command)),
        }
    };
    opened.log.blocking_append((1..=4).map(big)).await.unwrap();
    assert_eq!(
        opened
            .log
            .limited_get_log_entries(1, 5)
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(opened.log.try_get_log_entries(1..5).await.unwrap().len(), 4);
    opened.disk.close().await;
}
