//! Coordinators move between two brokers that share a log (G-6, P-44).

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use ottla_types::LeaderEpoch;

use super::{client::*, cluster::*, hosting::*};
use crate::groups::{GroupError, GroupState, Groups, GroupsHandle};

struct Two {
    cluster: Arc<Cluster>,
    groups: [Groups; 2],
    handles: [GroupsHandle; 2],
}

async fn two() -> Two {
    let cluster = Cluster::new();
    cluster.create_topic("t", 10);
    let groups = BROKERS.map(|broker| cluster.host(broker));
    let handles = [groups[0].handle(), groups[1].handle()];
    let deadline = Instant::now() + Duration::from_secs(5);
    eventually(|| handles[0].find_coordinator(GROUP, deadline)).await;
    cluster.lead(BROKERS[0]);
    eventually(|| fetch(&handles[0], "t", 0)).await;
    Two {
        cluster,
        groups,
        handles,
    }
}

#[tokio::test]
async fn a_member_goes_on_with_another_coordinator() {
    let Two {
        cluster,
        groups,
        handles: [first, second],
    } = two().await;
    let joined = join(&first).await;
    first.sync(sync_request(&joined)).await.unwrap();
    let mut request = commit_request("t", 0, 77);
    request.generation = Some(joined.generation);
    request.member_id = Some(joined.member_id.clone());
    first.commit_offsets(request.clone()).await.unwrap();
    assert_eq!(
        fetch(&second, "t", 0).await,
        Err(GroupError::NotCoordinator)
    );
    cluster.lead(BROKERS[1]);
    let stored = eventually(|| fetch(&second, "t", 0)).await;
    assert_eq!(stored, Some(77), "P-44");
    assert_eq!(second.heartbeat(heartbeat_request(&joined)).await, Ok(()));
    assert_eq!(
        second.describe(GROUP).await.unwrap().state,
        GroupState::Stable
    );
    request.topics[0].partitions[0].offset = 78;
    second.commit_offsets(request.clone()).await.unwrap();
    // The former coordinator says so.
    let give_up = Instant::now() + Duration::from_secs(5);
    while first.heartbeat(heartbeat_request(&joined)).await != Err(GroupError::NotCoordinator) {
        assert!(Instant::now() < give_up);
        sleep(Duration::from_millis(2)).await;
    }
    // Back again: what the other one stored is here.
    cluster.lead(BROKERS[0]);
    assert_eq!(eventually(|| fetch(&first, "t", 0)).await, Some(78));
    for groups in groups {
        groups.stop().await;
    }
}

#[tokio::test]
async fn a_parked_join_is_answered_when_the_coordinator_moves() {
    let Two {
        cluster,
        groups,
        handles: [first, _],
    } = two().await;
    let joined = join(&first).await;
    first.sync(sync_request(&joined)).await.unwrap();
    let waiting = {
        let first = first.clone();
        tokio::task::JoinSet::from_iter([async move {
            let given = first.join(join_request(None)).await;
            let Err(GroupError::MemberIdRequired { member_id }) = given else {
                panic!()
            };
            first.join(join_request(Some(member_id))).await
        }])
    };
    let give_up = Instant::now() + Duration::from_secs(5);
    while first.describe(GROUP).await.unwrap().state != GroupState::PreparingRebalance {
        assert!(Instant::now() < give_up);
        sleep(Duration::from_millis(2)).await;
    }
    cluster.lead(BROKERS[1]);
    let answers = timeout(Duration::from_secs(5), waiting.join_all())
        .await
        .unwrap();
    assert_eq!(answers, [Err(GroupError::NotCoordinator)]);
    for groups in groups {
        groups.stop().await;
    }
}

#[tokio::test]
async fn a_new_coordinator_says_nothing_before_it_knows_everything() {
    let Two {
        cluster,
        groups,
        handles: [first, second],
    } = two().await;
    let joined = join(&first).await;
    first.sync(sync_request(&joined)).await.unwrap();
    cluster.set_followers_lag(true);
    let mut request = commit_request("t", 0, 5);
    request.generation = Some(joined.generation);
    request.member_id = Some(joined.member_id.clone());
    first.commit_offsets(request).await.unwrap();
    cluster.lead(BROKERS[1]);
    for _ in 0..20 {
        let early = fetch(&second, "t", 0).await;
        let refused = [
            Err(GroupError::CoordinatorLoadInProgress),
            Err(GroupError::NotCoordinator),
        ];
        assert!(refused.contains(&early), "G-6: {early:?}");
        sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(
        second.list().await,
        Err(GroupError::CoordinatorLoadInProgress)
    );
    assert_eq!(
        second.heartbeat(heartbeat_request(&joined)).await,
        Ok(()),
        "it may be alive"
    );
    cluster.set_followers_lag(false);
    let asked = Instant::now();
    assert_eq!(eventually(|| fetch(&second, "t", 0)).await, Some(5));
    assert!(asked.elapsed() < Duration::from_secs(1), "one round trip");
    for groups in groups {
        groups.stop().await;
    }
}

/// A coordinator that was paused while another took over: whatever it says of now is not said.
#[tokio::test]
async fn a_paused_coordinator_grants_nothing() {
    let Two {
        cluster,
        groups,
        handles: [first, second],
    } = two().await;
    let joined = join(&first).await;
    first.sync(sync_request(&joined)).await.unwrap();
    let mut request = commit_request("t", 0, 5);
    request.generation = Some(joined.generation);
    request.member_id = Some(joined.member_id.clone());
    first.commit_offsets(request.clone()).await.unwrap();
    cluster.pause(BROKERS[0]);
    cluster.lead(BROKERS[1]);
    assert_eq!(eventually(|| fetch(&second, "t", 0)).await, Some(5));
    request.topics[0].partitions[0].offset = 6;
    second.commit_offsets(request).await.unwrap();
    let ask = || async {
        tokio::join!(
            fetch(&first, "t", 0),
            first.heartbeat(heartbeat_request(&joined)),
            first.sync(sync_request(&joined)),
        )
    };
    let fetched = timeout(Duration::from_millis(100), fetch(&first, "t", 0)).await;
    assert!(fetched.is_err(), "P-29, P-44: {fetched:?}");
    let early = timeout(Duration::from_millis(100), ask()).await;
    assert!(early.is_err(), "P-29, G-3: {early:?}");
    let resumed = async { tokio::join!(ask(), async { cluster.resume() }).0 };
    let (fetched, alive, synced) = timeout(Duration::from_secs(5), resumed).await.unwrap();
    assert_eq!(fetched, Err(GroupError::NotCoordinator));
    assert_eq!(alive, Err(GroupError::NotCoordinator));
    assert_eq!(synced, Err(GroupError::NotCoordinator));
    assert_eq!(fetch(&second, "t", 0).await, Ok(Some(6)));
    for groups in groups {
        groups.stop().await;
    }
}

#[tokio::test]
async fn a_restarted_broker_replays_the_tail_only_if_its_checkpoint_fits_the_log() {
    let Two {
        cluster,
        groups: [one, two],
        handles: [first, _],
    } = two().await;
    for offset in 0..150 {
        let commits = (0..10).map(|partition| commit(&first, "t", partition, offset));
        futures::future::join_all(commits).await;
    }
    let batches = cluster.produced_batches();
    one.stop().await;
    two.stop().await;
    for rewritten in [false, true] {
        if rewritten {
            cluster.rewrite_logs(LeaderEpoch::saturating(77));
        }
        cluster.take_read_batches();
        let restarted = cluster.host(BROKERS[0]);
        let handle = restarted.handle();
        assert_eq!(eventually(|| fetch(&handle, "t", 9)).await, Some(149));
        let read = cluster.take_read_batches();
        let expected = if rewritten { batches } else { 0 };
        assert_eq!(
            read, expected,
            "of {batches} batches, rewritten: {rewritten}"
        );
        restarted.stop().await;
    }
}

#[tokio::test]
async fn a_restarted_broker_reads_everything_again() {
    let Two {
        cluster,
        groups: [one, two],
        handles: [first, _],
    } = two().await;
    for offset in 0..2_000 {
        let commits = (0..10).map(|partition| commit(&first, "t", partition, offset));
        if offset % 100 == 0 {
            futures::future::join_all(commits).await;
        }
    }
    one.stop().await;
    two.stop().await;
    let restarted = cluster.host(BROKERS[0]);
    let handle = restarted.handle();
    assert_eq!(eventually(|| fetch(&handle, "t", 9)).await, Some(1_900));
    restarted.stop().await;
}

/// Clients commit rising offsets while coordinators move and appends fail: an acknowledged one
/// never goes back.
#[tokio::test]
async fn acknowledged_offsets_survive_any_number_of_moves() {
    let Two {
        cluster,
        groups,
        handles,
    } = two().await;
    let end = Instant::now() + Duration::from_secs(3);
    let client = |partition: i32| {
        let handles = handles.clone();
        async move {
            let (mut acked, mut acks, mut offset) = (0, 0u32, 0);
            while Instant::now() < end {
                offset += 1;
                for handle in &handles {
                    if commit(handle, "t", partition, offset).await.is_ok() {
                        (acked, acks) = (offset, acks + 1);
                        break;
                    }
                }
                for handle in &handles {
                    if let Ok(stored) = fetch(handle, "t", partition).await {
                        let stored = stored.unwrap_or(0);
                        assert!(stored >= acked, "P-44: {stored} after an ack of {acked}");
                    }
                }
            }
            acks
        }
    };
    let mover = async {
        let mut turn = 0usize;
        while Instant::now() < end {
            let fate = [
                Fate::Committed,
                Fate::Unknown,
                Fate::Committed,
                Fate::Refused,
            ][turn % 4];
            cluster.set_fate(fate);
            if turn.is_multiple_of(3) {
                cluster.lead(BROKERS[turn / 3 % 2]);
            }
            turn += 1;
            sleep(Duration::from_millis(7)).await;
        }
        cluster.set_fate(Fate::Committed);
    };
    let clients = futures::future::join_all((0..8).map(client));
    let (acks, ()) = futures::join!(clients, mover);
    assert!(acks.iter().all(|acks| *acks > 50), "{acks:?}");
    for groups in groups {
        groups.stop().await;
    }
}
