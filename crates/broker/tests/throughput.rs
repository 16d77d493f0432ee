//! How fast three brokers in one process replicate; prints figures, asserts nothing but success.

#![allow(clippy::disallowed_methods, reason = "tests may spawn and sleep")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]
#![allow(dead_code, reason = "shared with the other test of this crate")]

mod support {
    pub(crate) mod cluster;
    pub(crate) mod controller;
}

use std::time::Duration;

use tokio::time::Instant;

use ottla_broker::Acks;
use support::cluster::{Cluster, entry, partition};

async fn run(
    cluster: &Cluster,
    name: &str,
    configs: &[(&str, &str)],
    batch: usize,
    inflight: usize,
) {
    let topic = cluster.create_topic(name, 12, 3, configs).await;
    let mut tasks = Vec::new();
    let until = Instant::now() + Duration::from_secs(4);
    for number in 0..12 {
        let id = partition(topic, number);
        let leader = cluster.leader(id).await;
        let value = "x".repeat(batch);
        for _ in 0..inflight {
            let (leader, value) = (leader.clone(), value.clone());
            tasks.push(tokio::spawn(async move {
                let mut latencies = Vec::new();
                while Instant::now() < until {
                    let begun = Instant::now();
                    let deadline = begun + Duration::from_secs(10);
                    let entries = vec![entry(id, &value, None)];
                    leader
                        .produce(entries, Acks::All, deadline)
                        .await
                        .remove(0)
                        .unwrap();
                    latencies.push(begun.elapsed().as_micros());
                }
                latencies
            }));
        }
    }
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    latencies.sort_unstable();
    let at = |part: usize| latencies[(latencies.len() - 1) * part / 1000];
    let seconds = 4.0;
    let count = latencies.len();
    println!(
        "{name}: {:.0} batches/s, {:.1} MiB/s, p50 {} us, p99 {} us, p99.9 {} us",
        count as f64 / seconds,
        (count * batch) as f64 / seconds / 1048576.0,
        at(500),
        at(990),
        at(999)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn throughput() {
    let cluster = Cluster::start(3).await;
    run(&cluster, "one-small", &[], 1_000, 1).await;
    run(&cluster, "ack-16k-x4", &[], 16_000, 4).await;
    run(
        &cluster,
        "page-16k-x4",
        &[("flush.messages", "1000000")],
        16_000,
        4,
    )
    .await;
    run(&cluster, "ack-1k-x16", &[], 1_000, 16).await;
}
