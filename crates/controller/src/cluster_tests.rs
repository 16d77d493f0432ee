//! Whole quorums in one process, on loopback ports and temporary directories.

mod brokers;
mod harness;

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

use ottla_metadata::Outcome;
use ottla_types::BrokerId;

use harness::{LIMIT, Net, create_topic};

/// F-3 in CI.
const FAILOVER_LIMIT: Duration = Duration::from_secs(6);

#[tokio::test]
async fn a_single_voter_forms_alone() {
    let mut net = Net::new(1);
    net.start_all().await;
    let id = net.handle(1).wait_formed().await.unwrap();
    assert_eq!(id.len(), 22);
    let (_, outcome) = net.execute(create_topic("alone", 1)).await;
    assert!(matches!(outcome, Outcome::CreatedTopics(_)));
    net.stop_all().await;
}

#[tokio::test]
async fn three_voters_form_one_quorum_and_survive_the_loss_of_its_leader() {
    let mut net = Net::new(3);
    net.start_all().await;
    let first = net.active().await;
    let cluster_id = net.handle(first).wait_formed().await.unwrap();
    for id in 1..=3 {
        assert_eq!(net.handle(id).wait_formed().await, Some(cluster_id.clone()));
    }
    let terms: Vec<u64> = (1..=3).filter_map(|id| net.active_term(id)).collect();
    let distinct: BTreeSet<u64> = terms.iter().copied().collect();
    assert_eq!(
        distinct.len(),
        terms.len(),
        "one active controller per term (C-1)"
    );

    let lost = Instant::now();
    net.kill(first).await;
    let second = net.active().await;
    net.execute(create_topic("after", 1)).await;
    println!("controller failover took {:?}", lost.elapsed());
    assert!(lost.elapsed() < FAILOVER_LIMIT, "{:?}", lost.elapsed());
    assert_ne!(first, second);

    net.start(first).await;
    net.converge(&[1, 2, 3]).await;
    net.stop_all().await;
}

#[tokio::test]
async fn a_leader_that_stops_hands_over() {
    let mut net = Net::new(3);
    net.start_all().await;
    let first = net.active().await;
    let began = Instant::now();
    net.stop(first).await;
    let stopped = began.elapsed();
    net.active().await;
    println!(
        "handed over in {:?}, stopped in {stopped:?}",
        began.elapsed()
    );
    assert!(began.elapsed() < FAILOVER_LIMIT);
    net.stop_all().await;
}

#[tokio::test]
async fn everything_is_still_there_after_all_were_killed() {
    let mut net = Net::new(3);
    net.start_all().await;
    net.active().await;
    let cluster_id = net.handle(1).wait_formed().await.unwrap();
    let (index, _) = net.execute(create_topic("kept", 3)).await;
    for id in 1..=3 {
        net.kill(id).await;
    }
    net.start_all().await;
    let active = net.active().await;
    let handle = net.handle(active);
    assert_eq!(handle.cluster_id(), Some(cluster_id));
    assert!(handle.cluster.index() >= index);
    net.converge(&[1, 2, 3]).await;
    net.stop_all().await;
}

#[tokio::test]
async fn a_voter_with_a_blank_disk_is_replaced_and_then_counts() {
    let mut net = Net::new(3);
    net.start_all().await;
    let active = net.active().await;
    net.execute(create_topic("before", 1)).await;
    let wiped = net.followers(active)[0];
    let old = net.handle(wiped).directory_id();
    net.kill(wiped).await;
    net.wipe(wiped);
    net.start(wiped).await;
    let new = net.handle(wiped).directory_id();
    assert_ne!(old, new);
    net.quorum_becomes(active, |state| {
        let voters = state.all_voters();
        state.voters.len() == 1
            && voters.len() == 3
            && voters.iter().any(|key| key.directory_id == new)
            && !voters.iter().any(|key| key.directory_id == old)
    })
    .await;
    // Two of three are a majority only if the new one counts.
    let other = net
        .followers(active)
        .into_iter()
        .find(|id| *id != wiped)
        .unwrap();
    net.kill(other).await;
    net.execute(create_topic("with the new one", 1)).await;
    net.converge(&[active, wiped]).await;
    net.stop_all().await;
}

/// C-13: also when nothing is written after the purge.
#[tokio::test]
async fn a_follower_behind_a_purged_log_converges_by_snapshot() {
    let mut net = Net::new(3);
    net.start_all().await;
    let active = net.active().await;
    let behind = net.followers(active)[0];
    net.kill(behind).await;
    for number in 0..40 {
        net.execute(create_topic(&format!("topic-{number}"), 10))
            .await;
    }
    for id in [active, net.followers(active)[0]] {
        net.handle(id).quorum.snapshot_and_purge().await;
    }
    net.start(behind).await;
    net.converge(&[1, 2, 3]).await;
    assert!(net.handle(behind).metrics().snapshot_index > 0);
    // And it restarts from what it was sent.
    net.kill(behind).await;
    net.start(behind).await;
    net.converge(&[1, 2, 3]).await;
    net.stop_all().await;
}

/// B-10, P-17: without a majority nobody is active, and nothing is decided.
#[tokio::test]
async fn without_a_majority_nobody_is_active() {
    let mut net = Net::new(3);
    net.start_all().await;
    let active = net.active().await;
    let handle = net.handle(active);
    for id in net.followers(active) {
        net.kill(id).await;
    }
    let mut watch = handle.active.clone();
    let ended = watch.wait_for(Option::is_none);
    tokio::time::timeout(LIMIT, ended).await.unwrap().unwrap();
    let metrics = handle.metrics();
    assert!(!metrics.active);
    assert_eq!(metrics.voters, 3);
    net.stop_all().await;
}

#[tokio::test]
async fn a_configured_cluster_id_is_used_and_then_checked() {
    let mut net = Net::new(1);
    net.configure(|config| config.cluster_id = Some("ours".to_owned()));
    net.start_all().await;
    assert_eq!(net.handle(1).wait_formed().await.as_deref(), Some("ours"));
    net.stop_all().await;
    net.configure(|config| config.cluster_id = Some("theirs".to_owned()));
    let error = net.try_start(1).await.err().unwrap();
    assert!(
        matches!(error, crate::StartError::OtherCluster { .. }),
        "{error}"
    );
    net.configure(|config| {
        config.cluster_id = None;
        config.node_id = BrokerId(7);
        config.voters[0].node_id = BrokerId(7);
    });
    assert!(matches!(
        net.try_start(1).await.err().unwrap(),
        crate::StartError::Store(_)
    ));
}
