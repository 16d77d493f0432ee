//! Idempotent producers that retry while brokers are killed and restarted: every acknowledged
//! record is there once, in order, at the offset that was acknowledged, on every replica (P-1 to
//! P-3, P-8, P-10, R-2, R-16).

#![allow(clippy::disallowed_methods, reason = "tests may spawn and sleep")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]
#![allow(dead_code, reason = "shared with the other tests of this crate")]

mod support {
    pub(crate) mod cluster;
    pub(crate) mod controller;
}

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use ottla_broker::{Acks, BrokerHandle, Reader, ReplicaRole};
use ottla_types::PartitionId;
use support::cluster::{Cluster, entry, partition, read_all};

/// The brokers that live, for producers to find the leader among.
type Live = Arc<Mutex<BTreeMap<i32, BrokerHandle>>>;

fn leader(live: &Live, id: PartitionId) -> Option<BrokerHandle> {
    let live = live.lock();
    let leads = |broker: &&BrokerHandle| {
        broker
            .replica_status(id)
            .is_some_and(|status| status.role == ReplicaRole::Leader)
    };
    let newest =
        |broker: &&BrokerHandle| broker.replica_status(id).map(|status| status.leader_epoch);
    live.values().filter(leads).max_by_key(newest).cloned()
}

/// Sends one sequence after the other, each until it is acknowledged.
async fn produce(live: Live, id: PartitionId, producer: i64, until: Instant) -> Vec<(String, i64)> {
    let mut acknowledged = Vec::new();
    let mut sequence = 0;
    while Instant::now() < until {
        let value = format!("{producer}-{sequence}");
        let produced = loop {
            if let Some(leader) = leader(&live, id) {
                let entries = vec![entry(id, &value, Some((producer, 0, sequence)))];
                let deadline = Instant::now() + Duration::from_secs(2);
                match leader.produce(entries, Acks::All, deadline).await.remove(0) {
                    Ok(produced) => break produced,
                    Err(ottla_broker::ProduceError::OutOfOrderSequence) => {
                        panic!("P-8: {value} is out of order")
                    }
                    Err(_) => {}
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        acknowledged.push((value, produced.base_offset.get()));
        sequence += 1;
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_doubled_or_reordered() {
    let mut cluster = Cluster::start(3).await;
    let topic = cluster
        .create_topic("chaos", 4, 3, &[("segment.bytes", "60000")])
        .await;
    let live: Live = Arc::default();
    for id in 1..=3 {
        live.lock().insert(id, cluster.handle(id));
    }
    let until = Instant::now() + Duration::from_secs(8);
    let mut producers = Vec::new();
    for number in 0..4 {
        for producer in 0..3 {
            let id = partition(topic, number);
            let producer = i64::from(number) * 10 + producer;
            let task = produce(Arc::clone(&live), id, producer, until);
            producers.push((id, tokio::spawn(task)));
        }
    }
    let mut victim = 0;
    let mut kills = 0;
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(250)).await;
        victim = victim % 3 + 1;
        live.lock().remove(&victim);
        if kills % 4 == 3 {
            cluster.stop(victim).await;
        } else {
            cluster.kill(victim).await;
        }
        kills += 1;
        tokio::time::sleep(Duration::from_millis(150)).await;
        cluster.start_broker(victim).await;
        cluster.wait_running(victim).await;
        live.lock().insert(victim, cluster.handle(victim));
    }
    let mut acknowledged: BTreeMap<PartitionId, Vec<(String, i64)>> = BTreeMap::new();
    for (id, producer) in producers {
        acknowledged
            .entry(id)
            .or_default()
            .extend(producer.await.unwrap());
    }
    let total: usize = acknowledged.values().map(Vec::len).sum();
    println!("{kills} kills, {total} acknowledged");
    assert!(total > 500, "only {total} acknowledged in {kills} kills");
    for (id, acknowledged) in acknowledged {
        cluster.wait_in_sync(id, 3).await;
        for broker in 1..=3 {
            let values = read_all(&cluster.handle(broker), id, Reader::LocalReplica).await;
            for (value, offset) in &acknowledged {
                let at = usize::try_from(*offset).unwrap();
                assert_eq!(
                    values.get(at),
                    Some(value),
                    "P-3: broker {broker}, offset {at}"
                );
            }
            let mut unique = values.clone();
            unique.sort_unstable();
            unique.dedup();
            assert_eq!(
                unique.len(),
                values.len(),
                "P-8: a duplicate on broker {broker}"
            );
            assert_eq!(
                values.len(),
                acknowledged.len(),
                "each was sent until acknowledged"
            );
        }
    }
    let lost: u64 = (1..=3)
        .map(|id| {
            cluster
                .handle(id)
                .metrics()
                .truncations_below_high_watermark
                .get()
        })
        .sum();
    assert_eq!(lost, 0, "R-7");
}
