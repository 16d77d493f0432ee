//! Brokers whose disks are full, fail, or lost their tail (P-13, P-23, P-25, R-14).

#![allow(clippy::disallowed_methods, reason = "tests may spawn and sleep")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]
#![allow(dead_code, reason = "shared with the other tests of this crate")]

mod support {
    pub(crate) mod cluster;
    pub(crate) mod controller;
}

use std::time::Duration;

use tokio::time::Instant;

use ottla_broker::{Acks, ProduceError, Reader};
use ottla_types::BrokerId;
use support::cluster::{Cluster, partition, produce, read_all, wait_for};

const CONSUMER: Reader = Reader::Consumer { rack: None };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_without_room_stays_out_of_the_isr_until_it_has_some() {
    let mut cluster = Cluster::start(3).await;
    let topic = cluster.create_topic("full", 1, 3, &[]).await;
    let id = partition(topic, 0);
    cluster.produce_all(id, "one").await;
    let leader = cluster.leader(id).await;
    let full = *cluster
        .brokers
        .keys()
        .find(|b| **b != leader.broker_id().get())
        .unwrap();
    cluster.kill(full).await;
    cluster.full.insert(full);
    cluster.produce_all(id, "two").await;
    cluster.start_broker(full).await;
    cluster.wait_running(full).await;
    for value in 0..50 {
        cluster.produce_all(id, &format!("more{value}")).await;
    }
    assert_eq!(
        cluster.controller.image().partition(id).unwrap().isr.len(),
        2
    );
    cluster.kill(full).await;
    cluster.full.clear();
    cluster.start_broker(full).await;
    cluster.wait_in_sync(id, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_without_room_does_not_come_and_go() {
    let mut cluster = Cluster::start(3).await;
    // The high watermark stands still while anybody is missing.
    let configs = [("min.insync.replicas", "3")];
    let topic = cluster.create_topic("full", 1, 3, &configs).await;
    let id = partition(topic, 0);
    cluster.produce_all(id, "one").await;
    let leader = cluster.leader(id).await;
    let me = leader.broker_id().get();
    let full = *cluster.brokers.keys().find(|b| **b != me).unwrap();
    cluster.kill(full).await;
    cluster.full.insert(full);
    cluster.start_broker(full).await;
    cluster.wait_running(full).await;
    let isr = || cluster.controller.image().partition(id).unwrap().isr.len();
    wait_for("the follower to join while nothing is written", || {
        isr() == 3
    })
    .await;
    produce(&leader, id, "two", Acks::Leader).await.unwrap();
    wait_for("the follower to leave", || isr() == 2).await;
    // More than one back-off: nothing may happen in it.
    let settled = cluster.controller.image().partition(id).cloned();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(cluster.controller.image().partition(id).cloned(), settled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_without_room_for_producers_leads_nothing_that_another_can_lead() {
    let mut cluster = Cluster::start(3).await;
    cluster.kill(1).await;
    cluster.nearly_full.insert(1);
    cluster.start_broker(1).await;
    cluster.wait_running(1).await;
    let broker = |cluster: &Cluster| {
        let image = cluster.controller.image();
        image.broker(BrokerId(1)).unwrap().clone()
    };
    wait_for("the controller to know", || broker(&cluster).no_space).await;
    let topic = cluster.create_topic("narrow", 6, 3, &[]).await;
    for number in 0..6 {
        let id = partition(topic, number);
        cluster.produce_all(id, "kept").await;
        cluster.wait_in_sync(id, 3).await;
    }
    // It leads where nobody else can, and then says why it takes nothing.
    cluster.kill(2).await;
    cluster.kill(3).await;
    let leader = cluster.leader(partition(topic, 0)).await;
    let refused = produce(&leader, partition(topic, 0), "lost", Acks::Leader).await;
    assert_eq!(refused, Err(ProduceError::NoSpace));
    cluster.start_broker(2).await;
    let image = || cluster.controller.image();
    wait_for("the other to take over", || {
        let other = Some(BrokerId(2));
        image()
            .partitions()
            .all(|(_, record)| record.leader == other)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_directory_moves_what_its_broker_led_and_keeps_it_out_until_it_is_mended() {
    let mut cluster = Cluster::start(3).await;
    let topic = cluster.create_topic("moved", 3, 3, &[]).await;
    let ids: Vec<_> = (0..3).map(|number| partition(topic, number)).collect();
    for id in &ids {
        cluster.produce_all(*id, "before").await;
    }
    // A directory in its place: the next checkpoint cannot be renamed there.
    let checkpoint = cluster.dir(1).join("replication-offset-checkpoint");
    let _ = std::fs::remove_file(&checkpoint);
    std::fs::create_dir_all(checkpoint.join("in-the-way")).unwrap();
    let begun = Instant::now();
    let one = BrokerId(1);
    let records = |cluster: &Cluster| {
        let image = cluster.controller.image();
        ids.iter()
            .map(|id| image.partition(*id).unwrap().clone())
            .collect::<Vec<_>>()
    };
    // Something new to checkpoint.
    for id in &ids {
        cluster.produce_all(*id, "during").await;
    }
    wait_for("its partitions to move", || {
        let mut records = records(&cluster).into_iter();
        records.all(|record| record.leader != Some(one) && !record.isr.contains(&one))
    })
    .await;
    println!("moved within {:?}", begun.elapsed());
    for id in &ids {
        cluster.produce_all(*id, "after").await;
    }
    let image = cluster.controller.image();
    assert!(!image.broker(one).unwrap().fenced, "it serves metadata on");
    assert!(image.is_replica_offline(one));
    assert!(
        records(&cluster)
            .iter()
            .all(|record| record.replicas.contains(&one))
    );
    // Mended and started anew, it catches up and counts again.
    cluster.kill(1).await;
    std::fs::remove_dir_all(&checkpoint).unwrap();
    cluster.start_broker(1).await;
    for id in &ids {
        cluster.wait_in_sync(*id, 3).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_power_was_lost_everywhere_the_longest_log_of_a_page_topic_leads() {
    let mut cluster = Cluster::start(3).await;
    let configs = [("flush.messages", "10000")];
    let topic = cluster.create_topic("page", 1, 3, &configs).await;
    let id = partition(topic, 0);
    for number in 0..10 {
        cluster.produce_all(id, &format!("v{number}")).await;
    }
    cluster.wait_in_sync(id, 3).await;
    for broker in 1..=3 {
        cluster.kill(broker).await;
    }
    let fenced = |cluster: &Cluster| cluster.controller.image().fenced_brokers().count();
    wait_for("all to be fenced", || fenced(&cluster) == 3).await;
    let record = cluster.controller.image().partition(id).unwrap().clone();
    assert_eq!((record.leader, record.isr.len()), (None, 1));
    // Another boot of each machine; and the last one in sync has lost everything.
    for broker in 1..=3 {
        std::fs::remove_file(cluster.dir(broker).join("ottla-boot")).unwrap();
    }
    let last = record.isr[0].get();
    std::fs::remove_dir_all(cluster.dir(last).join("page-0")).unwrap();
    for broker in 1..=3 {
        cluster.start_broker(broker).await;
    }
    let leader = cluster.leader(id).await;
    let record = cluster.controller.image().partition(id).unwrap().clone();
    assert_ne!(leader.broker_id().get(), last);
    assert!(record.possible_loss, "{record:?}");
    cluster.produce_all(id, "after").await;
    cluster.wait_in_sync(id, 3).await;
    let values = read_all(&cluster.leader(id).await, id, CONSUMER).await;
    assert_eq!(values.len(), 11, "{values:?}");
}
