//! Shows a cluster: brokers, topics, groups, the controllers' quorum.
//!
//! `cargo run --release -p ottla-client --example admin -- 127.0.0.1:9092`

use anyhow::{Context, Result};
use ottla_client::{Admin, ClientConfig};

#[tokio::main]
async fn main() -> Result<()> {
    let bootstrap = std::env::args().nth(1).context("which brokers?")?;
    let admin = Admin::new(ClientConfig::from_list(&bootstrap))?;
    let cluster = admin.describe_cluster().await?;
    println!("cluster {}", cluster.cluster_id);
    for broker in &cluster.brokers {
        println!("  broker {} at {}", broker.id, broker.address());
        for dir in admin.describe_log_dirs(broker.id).await? {
            let bytes: i64 = dir
                .replicas
                .values()
                .map(|replica| replica.size_bytes)
                .sum();
            println!(
                "    {}: {} replicas, {bytes} bytes",
                dir.path,
                dir.replicas.len()
            );
        }
    }
    for (name, topic) in &admin.describe_topics(None).await?.topics {
        println!("topic {name}: {} partitions", topic.partitions.len());
    }
    for (name, group) in admin.list_groups().await? {
        let description = admin.describe_group(&name).await?;
        println!(
            "group {name} ({}): {} members",
            group.state,
            description.members.len()
        );
    }
    match admin.describe_quorum().await {
        Ok(quorum) => println!(
            "quorum led by {:?}, {} voters",
            quorum.leader,
            quorum.voters.len()
        ),
        Err(error) => println!("quorum: {error}"),
    }
    admin.close().await;
    Ok(())
}
