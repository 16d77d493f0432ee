//! Brokers in one process whose disks are damaged, full or broken.

#![allow(clippy::disallowed_methods, reason = "tests may spawn and sleep")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]
#![allow(dead_code, reason = "shared with the other tests of this crate")]

mod support {
    pub(crate) mod cluster;
    pub(crate) mod controller;
}

use std::path::PathBuf;

use support::cluster::{Cluster, partition};

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
    cluster.produce_all(partition(topics[0], 0), "w").await;
    cluster.stop(1).await;
    assert!(!marker.exists(), "one log was not");
}
