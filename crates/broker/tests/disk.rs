//! Brokers in one process whose disks are damaged, full or broken.

#![allow(clippy::disallowed_methods, reason = "tests may spawn and sleep")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]
#![allow(dead_code, reason = "shared with the other tests of this crate")]

mod support {
    pub(crate) mod cluster;
    pub(crate) mod controller;
}

use std::path::PathBuf;

use ottla_broker::{Acks, ProduceError, Reader};
use ottla_storage::testing::Faults;
use ottla_types::{BrokerId, PartitionId};
use support::cluster::{Cluster, partition, produce, read_all, wait_for};

/// Where a broker's partition keeps its first segment.
fn first_segment(cluster: &Cluster, broker: i32, name: &str) -> PathBuf {
    let dir = cluster.dir(broker).join(format!("{name}-0"));
    dir.join("00000000000000000000.log")
}

/// Puts something in the segment's place that cannot be opened as one.
fn make_unreadable(segment: &PathBuf) {
    std::fs::remove_file(segment).unwrap();
    std::fs::create_dir(segment).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s5_a_log_that_could_not_be_opened_leaves_no_clean_marker() {
    let mut cluster = Cluster::start(1).await;
    let topics = [
        cluster.create_topic("good", 1, 1, &[]).await,
        cluster.create_topic("bad", 1, 1, &[]).await,
    ];
    for topic in topics {
        cluster.produce_all(partition(topic, 0), "v").await;
    }
    cluster.stop(1).await;
    let marker = cluster.dir(1).join(".kafka_cleanshutdown");
    assert!(marker.exists(), "every log was closed");
    make_unreadable(&first_segment(&cluster, 1, "bad"));
    cluster.start_broker(1).await;
    cluster.wait_running(1).await;
    // the damage of one replica is not that of the others.
    cluster.produce_all(partition(topics[0], 0), "w").await;
    cluster.stop(1).await;
    assert!(!marker.exists(), "one log was not");
}

/// Leaves one broker alone in the ISR, and then the cluster without any.
async fn last_in_sync(cluster: &mut Cluster, id: PartitionId) -> i32 {
    cluster.wait_in_sync(id, 3).await;
    let last = cluster.leader(id).await.broker_id().get();
    for other in [1, 2, 3].into_iter().filter(|other| *other != last) {
        cluster.kill(other).await;
    }
    let controller = cluster.controller.clone();
    wait_for("the isr to shrink to one", || {
        controller
            .image()
            .partition(id)
            .is_some_and(|record| record.isr == [BrokerId(last)])
    })
    .await;
    cluster.produce_all(id, "only here").await;
    cluster.kill(last).await;
    last
}

/// What makes a log impossible to open.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// The segment is none.
    Segment,
    /// Nobody can say which topic the directory belongs to.
    TopicId,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r14_a_replica_whose_log_cannot_be_opened_is_not_elected() {
    for damage in [Damage::Segment, Damage::TopicId] {
        let mut cluster = Cluster::start(3).await;
        let alone = [("min.insync.replicas", "1")];
        let topic = cluster.create_topic("bad", 1, 3, &alone).await;
        let id = partition(topic, 0);
        cluster.produce_all(id, "everywhere").await;
        let last = last_in_sync(&mut cluster, id).await;
        let segment = first_segment(&cluster, last, "bad");
        match damage {
            Damage::Segment => make_unreadable(&segment),
            Damage::TopicId => {
                let metadata = segment.with_file_name("partition.metadata");
                std::fs::write(metadata, "scrambled").unwrap();
            }
        }
        cluster.start_broker(last).await;
        cluster.wait_running(last).await;
        // The other two lack an acknowledged record; this one cannot give it.
        let controller = cluster.controller.clone();
        wait_for("the damage to be told", || {
            let image = controller.image();
            let record = image.partition(id).unwrap();
            record.isr.is_empty() && record.elr.is_empty() && record.leader.is_none()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_a_broker_whose_disk_fails_leads_nothing_and_nothing_acknowledged_is_lost() {
    let (syncs, writes) = (
        Faults {
            fail_syncs: true,
            ..Faults::default()
        },
        Faults {
            fail_writes: true,
            ..Faults::default()
        },
    );
    for faults in [syncs, writes] {
        let mut cluster = Cluster::start_in_memory(3).await;
        let topic = cluster.create_topic("eio", 1, 3, &[]).await;
        let id = partition(topic, 0);
        let mut acknowledged = Vec::new();
        for n in 0..10 {
            cluster.produce_all(id, &format!("before {n}")).await;
            acknowledged.push(format!("before {n}"));
        }
        cluster.wait_in_sync(id, 3).await;
        let leader = cluster.leader(id).await;
        let failed = leader.broker_id().get();
        cluster.memory[&failed].set_faults(faults);
        let refused = produce(&leader, id, "in vain", Acks::All)
            .await
            .unwrap_err();
        assert!(
            matches!(
                refused,
                ProduceError::Storage | ProduceError::OutcomeUnknown
            ),
            "{refused}"
        );
        for n in 0..10 {
            cluster.produce_all(id, &format!("after {n}")).await;
            acknowledged.push(format!("after {n}"));
        }
        let record = cluster.controller.image().partition(id).cloned().unwrap();
        assert!(!record.isr.contains(&BrokerId(failed)), "{record:?}");
        // It lives on, and sends its clients where the leader is.
        wait_for("the failed broker to hear of the new leader", || {
            leader.image().partition(id).unwrap().leader == record.leader
        })
        .await;
        let sent_on = produce(&leader, id, "elsewhere", Acks::All).await;
        let hint = matches!(sent_on, Err(ProduceError::NotLeader { leader: Some((to, _)) })
            if Some(to) == record.leader);
        assert!(hint, "{sent_on:?}");
        drop(leader);
        // A new disk controller later: what it has of the log is still good.
        cluster.kill(failed).await;
        let survived = cluster.memory[&failed].after_kill();
        cluster.memory.insert(failed, survived);
        cluster.start_broker(failed).await;
        cluster.wait_running(failed).await;
        cluster.wait_in_sync(id, 3).await;
        for broker in cluster.brokers.values() {
            let mut values = read_all(&broker.handle(), id, Reader::LocalReplica).await;
            // Its outcome was unknown.
            values.retain(|value| value != "in vain");
            assert_eq!(values, acknowledged, "P-2");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_a_follower_whose_disk_fails_leaves_the_isr() {
    let cluster = Cluster::start_in_memory(3).await;
    let topic = cluster.create_topic("eio", 1, 3, &[]).await;
    let id = partition(topic, 0);
    cluster.produce_all(id, "one").await;
    cluster.wait_in_sync(id, 3).await;
    let leader = cluster.leader(id).await;
    let failed = (1..=3).find(|b| *b != leader.broker_id().get()).unwrap();
    cluster.memory[&failed].set_faults(Faults {
        fail_syncs: true,
        ..Faults::default()
    });
    produce(&leader, id, "two", Acks::All).await.unwrap();
    let isr = cluster
        .controller
        .image()
        .partition(id)
        .unwrap()
        .isr
        .clone();
    assert!(
        isr.len() == 2 && !isr.contains(&BrokerId(failed)),
        "{isr:?}"
    );
}
