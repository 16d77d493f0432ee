//! Brokers in one process around a controller in memory: replication, failover, restart.

#![allow(clippy::disallowed_methods, reason = "tests may spawn and sleep")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]
#![allow(dead_code, reason = "shared with the other tests of this crate")]

mod support {
    pub(crate) mod cluster;
    pub(crate) mod controller;
}

use std::time::Duration;

use tokio::time::Instant;

use ottla_broker::{
    Acks, FetchPartition, FetchRequest, Isolation, OffsetQuery, ProduceError, Reader, ReplicaRole,
};
use ottla_metadata::Command;
use ottla_types::Offset;
use support::cluster::{Cluster, entry, partition, produce, read_all, soon, wait_for};

const CONSUMER: Reader = Reader::Consumer { rack: None };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_record_is_on_every_in_sync_replica() {
    let cluster = Cluster::start(3).await;
    let topic = cluster.create_topic("orders", 3, 3, &[]).await;
    for number in 0..3 {
        let id = partition(topic, number);
        let leader = cluster.leader(id).await;
        for value in 0..20 {
            let produced = produce(&leader, id, &format!("v{value}"), Acks::All)
                .await
                .unwrap();
            assert_eq!(produced.base_offset, Offset::saturating(value));
            // P-1: the ack means flushed on all of them, before it was given.
            for broker in cluster.brokers.values() {
                let status = broker.handle().replica_status(id).unwrap();
                let _ = status;
            }
        }
        cluster.wait_in_sync(id, 3).await;
        for broker in cluster.brokers.values() {
            let status = broker.handle().replica_status(id).unwrap();
            assert_eq!(status.flushed_offset, Offset::saturating(20));
            let local = read_all(&broker.handle(), id, Reader::LocalReplica).await;
            assert_eq!(local, (0..20).map(|v| format!("v{v}")).collect::<Vec<_>>());
        }
        assert_eq!(read_all(&leader, id, CONSUMER).await.len(), 20);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced_and_comes_back() {
    let mut cluster = Cluster::start(3).await;
    let topic = cluster.create_topic("failover", 1, 3, &[]).await;
    let id = partition(topic, 0);
    let mut expected = Vec::new();
    for round in 0..3 {
        for value in 0..10 {
            let value = format!("r{round}-{value}");
            cluster.produce_all(id, &value).await;
            expected.push(value);
        }
        let leader = cluster.leader(id).await.broker_id().get();
        let killed_at = Instant::now();
        cluster.kill(leader).await;
        let value = format!("r{round}-after");
        cluster.produce_all(id, &value).await;
        expected.push(value);
        let stall = killed_at.elapsed();
        assert!(stall < Duration::from_secs(5), "F-1: {stall:?}");
        println!("failover took {stall:?}");
        cluster.start_broker(leader).await;
        cluster.wait_running(leader).await;
        cluster.wait_in_sync(id, 3).await;
    }
    for broker in cluster.brokers.values() {
        let values = read_all(&broker.handle(), id, Reader::LocalReplica).await;
        // A produce whose leader died may have been written twice: this producer is not idempotent.
        let mut once = values.clone();
        once.dedup();
        assert_eq!(once, expected, "P-2, P-10");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_diverged_log_is_truncated_by_lineage() {
    let mut cluster = Cluster::start(3).await;
    let topic = cluster.create_topic("diverge", 1, 3, &[]).await;
    let id = partition(topic, 0);
    cluster.produce_all(id, "common").await;
    cluster.wait_in_sync(id, 3).await;
    let leader = cluster.leader(id).await;
    let old = leader.broker_id().get();
    // The two followers die; the leader appends what nobody else ever gets.
    let others: Vec<i32> = cluster
        .brokers
        .keys()
        .copied()
        .filter(|b| *b != old)
        .collect();
    for other in &others {
        cluster.kill(*other).await;
    }
    for value in 0..5 {
        let _ = produce(&leader, id, &format!("lost{value}"), Acks::Leader).await;
    }
    assert_eq!(
        leader.replica_status(id).unwrap().log_end_offset,
        Offset::saturating(6)
    );
    assert_eq!(
        read_all(&leader, id, CONSUMER).await,
        ["common"],
        "P-4: not committed, not seen"
    );
    drop(leader);
    cluster.kill(old).await;
    // The old leader is the last ISR member if the ISR shrank to it; the others wait for it then.
    for id in others.iter().copied().chain([old]) {
        cluster.start_broker(id).await;
    }
    for id in others.iter().copied().chain([old]) {
        cluster.wait_running(id).await;
    }
    cluster.produce_all(id, "after").await;
    cluster.wait_in_sync(id, 3).await;
    let first = read_all(&cluster.handle(1), id, Reader::LocalReplica).await;
    assert_eq!(first.first().map(String::as_str), Some("common"));
    assert_eq!(first.last().map(String::as_str), Some("after"));
    for broker in cluster.brokers.values() {
        let values = read_all(&broker.handle(), id, Reader::LocalReplica).await;
        assert_eq!(values, first, "R-2");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idempotent_retry_is_answered_with_the_original_offset() {
    let mut cluster = Cluster::start(3).await;
    let topic = cluster.create_topic("idempotent", 1, 3, &[]).await;
    let id = partition(topic, 0);
    let leader = cluster.leader(id).await;
    let send = |broker: ottla_broker::BrokerHandle, sequence: i32| async move {
        let entries = vec![entry(id, &format!("s{sequence}"), Some((7, 0, sequence)))];
        broker.produce(entries, Acks::All, soon()).await.remove(0)
    };
    // Five in flight, in one go: sequence checks within one group of appends.
    let answers: Vec<_> = (0..5)
        .map(|sequence| {
            let entries = vec![entry(id, &format!("s{sequence}"), Some((7, 0, sequence)))];
            leader.produce(entries, Acks::All, soon())
        })
        .collect();
    for (sequence, answer) in answers.into_iter().enumerate() {
        let produced = answer.await.remove(0).unwrap();
        assert_eq!(produced.base_offset.get(), i64::try_from(sequence).unwrap());
    }
    assert_eq!(
        send(leader.clone(), 2).await.unwrap().base_offset,
        Offset::saturating(2)
    );
    assert_eq!(
        send(leader.clone(), 9).await,
        Err(ProduceError::OutOfOrderSequence)
    );
    // The new leader knows the same batches (R-16, P-8).
    let old = leader.broker_id().get();
    drop(leader);
    cluster.kill(old).await;
    let leader = cluster.leader(id).await;
    wait_for("the isr to shrink", || {
        cluster
            .controller
            .image()
            .partition(id)
            .is_some_and(|record| record.isr.len() == 2)
    })
    .await;
    assert_eq!(
        send(leader.clone(), 4).await.unwrap().base_offset,
        Offset::saturating(4)
    );
    assert_eq!(
        send(leader.clone(), 5).await.unwrap().base_offset,
        Offset::saturating(5)
    );
    assert_eq!(read_all(&leader, id, CONSUMER).await.len(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_min_isr_acks_all_is_refused_and_reads_go_on() {
    let mut cluster = Cluster::start(3).await;
    let topic = cluster
        .create_topic("minisr", 1, 3, &[("min.insync.replicas", "2")])
        .await;
    let id = partition(topic, 0);
    cluster.produce_all(id, "one").await;
    cluster.wait_in_sync(id, 3).await;
    let leader = cluster.leader(id).await;
    let others: Vec<i32> = cluster
        .brokers
        .keys()
        .copied()
        .filter(|b| *b != leader.broker_id().get())
        .collect();
    for other in &others {
        cluster.kill(*other).await;
    }
    wait_for("the isr to shrink", || {
        leader
            .replica_status(id)
            .is_some_and(|status| status.isr.len() == 1)
    })
    .await;
    let refused = produce(&leader, id, "two", Acks::All).await;
    assert!(
        matches!(refused, Err(ProduceError::NotEnoughReplicas { .. })),
        "{refused:?}"
    );
    produce(&leader, id, "three", Acks::Leader).await.unwrap();
    assert_eq!(read_all(&leader, id, CONSUMER).await, ["one"], "P-5");
    cluster.start_broker(others[0]).await;
    wait_for("the isr to grow", || {
        leader
            .replica_status(id)
            .is_some_and(|status| status.isr.len() == 2)
    })
    .await;
    cluster.produce_all(id, "four").await;
    assert_eq!(
        read_all(&leader, id, CONSUMER).await,
        ["one", "three", "four"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_far_behind_catches_up_while_the_leader_appends() {
    let mut cluster = Cluster::start(3).await;
    let topic = cluster
        .create_topic("catchup", 1, 3, &[("segment.bytes", "4000000")])
        .await;
    let id = partition(topic, 0);
    cluster.produce_all(id, "first").await;
    let leader = cluster.leader(id).await;
    let gone = *cluster
        .brokers
        .keys()
        .find(|b| **b != leader.broker_id().get())
        .unwrap();
    cluster.kill(gone).await;
    let big = "x".repeat(200_000);
    for _ in 0..150 {
        cluster.produce_all(id, &big).await;
    }
    cluster.start_broker(gone).await;
    for value in 0..200 {
        cluster.produce_all(id, &format!("live{value}")).await;
    }
    cluster.wait_in_sync(id, 3).await;
    let values = read_all(&cluster.handle(gone), id, Reader::LocalReplica).await;
    assert_eq!(values.len(), 351);
    assert_eq!(values.last().unwrap(), "live199");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controlled_shutdown_hands_over_and_restarts_clean() {
    let mut cluster = Cluster::start(3).await;
    let topic = cluster.create_topic("handover", 6, 3, &[]).await;
    for number in 0..6 {
        cluster
            .produce_all(partition(topic, number), "before")
            .await;
    }
    let begun = Instant::now();
    cluster.stop(1).await;
    assert!(begun.elapsed() < Duration::from_secs(10));
    for number in 0..6 {
        let id = partition(topic, number);
        assert_ne!(cluster.leader(id).await.broker_id().get(), 1);
        cluster.produce_all(id, "while away").await;
    }
    cluster.start_broker(1).await;
    cluster.wait_running(1).await;
    for number in 0..6 {
        cluster.wait_in_sync(partition(topic, number), 3).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_restart_loses_nothing_and_a_single_broker_serves_alone() {
    let mut cluster = Cluster::start(1).await;
    let topic = cluster.create_topic("alone", 2, 1, &[]).await;
    let id = partition(topic, 1);
    for value in 0..10 {
        cluster.produce_all(id, &format!("v{value}")).await;
    }
    cluster.kill(1).await;
    cluster.start_broker(1).await;
    cluster.produce_all(id, "after kill").await;
    cluster.stop(1).await;
    cluster.start_broker(1).await;
    cluster.produce_all(id, "after stop").await;
    let values = read_all(&cluster.handle(1), id, CONSUMER).await;
    assert_eq!(values.len(), 12, "{values:?}");
    cluster.delete_topic(topic).await;
    let handle = cluster.handle(1);
    wait_for("the partitions to go", || {
        handle.local_partitions().is_empty()
    })
    .await;
    // The same name again is another topic.
    let again = cluster.create_topic("alone", 2, 1, &[]).await;
    cluster.produce_all(partition(again, 1), "new").await;
    assert_eq!(
        read_all(&handle, partition(again, 1), CONSUMER).await,
        ["new"]
    );
    let gone = produce(&handle, id, "old", Acks::All).await;
    assert_eq!(gone, Err(ProduceError::UnknownPartition));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_waits_for_records_and_is_woken_by_them() {
    let cluster = Cluster::start(1).await;
    let topic = cluster.create_topic("waits", 1, 1, &[]).await;
    let id = partition(topic, 0);
    let leader = cluster.leader(id).await;
    let request = FetchRequest {
        partitions: vec![FetchPartition {
            id,
            offset: Offset::ZERO,
            max_bytes: 1 << 20,
            current_leader_epoch: None,
            last_fetched_epoch: None,
        }],
        max_bytes: 1 << 20,
        min_bytes: 1,
        deadline: Instant::now() + Duration::from_secs(5),
        isolation: Isolation::ReadUncommitted,
        reader: CONSUMER,
    };
    let waiting = tokio::spawn({
        let (leader, request) = (leader.clone(), request.clone());
        async move { leader.fetch(request).await }
    });
    wait_for("the fetch to wait", || {
        leader.metrics_snapshot().fetch_purgatory_size == 1
    })
    .await;
    let begun = Instant::now();
    produce(&leader, id, "here", Acks::Leader).await.unwrap();
    let answer = waiting.await.unwrap().remove(0).result.unwrap();
    assert!(!answer.records.is_empty());
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "woken, not timed out"
    );
    wait_for("nobody to wait", || {
        leader.metrics_snapshot().fetch_purgatory_size == 0
    })
    .await;
    let empty = FetchRequest {
        partitions: vec![FetchPartition {
            offset: Offset::saturating(1),
            ..request.partitions[0].clone()
        }],
        deadline: Instant::now() + Duration::from_millis(50),
        ..request
    };
    let answer = leader.fetch(empty).await.remove(0).result.unwrap();
    assert!(answer.records.is_empty());
    let latest = leader
        .list_offset(id, None, OffsetQuery::Latest, Isolation::ReadUncommitted)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(latest.offset, Offset::saturating(1));
    assert_eq!(leader.replica_status(id).unwrap().role, ReplicaRole::Leader);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leadership_is_confirmed_only_by_those_who_would_know_of_its_end() {
    let mut cluster = Cluster::start(3).await;
    let topic = cluster.create_topic("confirm", 1, 3, &[]).await;
    let id = partition(topic, 0);
    cluster.produce_all(id, "a").await;
    cluster.wait_in_sync(id, 3).await;
    let leader = cluster.leader(id).await;
    let epoch = leader.replica_status(id).unwrap().leader_epoch;
    for _ in 0..3 {
        assert!(leader.confirm_leadership(id, epoch, soon()).await);
    }
    assert!(!leader.confirm_leadership(id, epoch.next(), soon()).await);
    for broker in cluster.brokers.values().map(|broker| broker.handle()) {
        if broker.broker_id() != leader.broker_id() {
            assert!(!broker.confirm_leadership(id, epoch, soon()).await);
        }
    }
    // The leader is replaced and hears nothing of it: its former followers do not answer (P-29).
    cluster.controller.mute(Some(leader.broker_id()));
    cluster.controller.apply(Command::FenceBroker {
        broker_id: leader.broker_id(),
        broker_epoch: leader.broker_epoch().unwrap(),
        live: Default::default(),
    });
    let successor = cluster.leader(id).await;
    assert_ne!(successor.broker_id(), leader.broker_id());
    let status = leader.replica_status(id).unwrap();
    assert_eq!(
        (status.role, status.leader_epoch),
        (ReplicaRole::Leader, epoch),
        "it believes in itself"
    );
    let moment = Instant::now() + Duration::from_millis(300);
    assert!(!leader.confirm_leadership(id, epoch, moment).await);
    cluster.controller.mute(None);
    cluster.wait_in_sync(id, 3).await;

    // A dead follower is waited for until it is out of the ISR; with the ISR below its minimum
    // the controller is asked.
    let epoch = successor.replica_status(id).unwrap().leader_epoch;
    let others: Vec<i32> = cluster
        .brokers
        .keys()
        .copied()
        .filter(|broker| *broker != successor.broker_id().get())
        .collect();
    for other in others {
        cluster.kill(other).await;
        assert!(successor.confirm_leadership(id, epoch, soon()).await);
    }
    wait_for("the isr to be below its minimum", || {
        successor.metrics_snapshot().under_min_isr_partitions == 1
    })
    .await;
    assert!(successor.confirm_leadership(id, epoch, soon()).await);
}
