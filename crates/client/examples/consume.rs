//! Reads a topic as a member of a group until nothing has come for a while.
//!
//! `cargo run --release -p ottla-client --example consume -- 127.0.0.1:9092 topic group [cooperative-sticky]`

use std::time::Duration;

use anyhow::{Context, Result};
use ottla_client::{Assignor, ClientConfig, Consumer, ConsumerConfig, OffsetReset};
use tokio::time::Instant;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let bootstrap = arguments.next().context("which brokers?")?;
    let topic = arguments.next().context("which topic?")?;
    let group = arguments.next().context("which group?")?;
    let mut config = ConsumerConfig::new(ClientConfig::from_list(&bootstrap)).group(group);
    config.offset_reset = OffsetReset::Earliest;
    config.assignors = match arguments.next().as_deref() {
        None => config.assignors,
        Some("range") => vec![Assignor::Range],
        Some("roundrobin") => vec![Assignor::RoundRobin],
        Some("cooperative-sticky") => vec![Assignor::CooperativeSticky],
        Some(other) => anyhow::bail!("unknown assignor {other}"),
    };
    let mut consumer = Consumer::new(config)?;
    consumer.subscribe([topic]).await?;
    let (mut count, mut last) = (0u64, Instant::now());
    while last.elapsed() < Duration::from_secs(10) {
        let polled = match polled(&mut consumer).await {
            Ok(polled) => polled,
            Err(error) => {
                eprintln!("{error:#}");
                continue;
            }
        };
        for event in &polled.events {
            println!("{event:?}");
            last = Instant::now();
        }
        if let Some(record) = polled.records.last() {
            count += u64::try_from(polled.records.len())?;
            last = Instant::now();
            if count % 10_000 < 500 {
                println!("{} at {}: {count} so far", record.partition, record.offset);
            }
        }
    }
    println!("{count} records");
    consumer.commit().await?;
    consumer.close(Duration::from_secs(10)).await;
    Ok(())
}

async fn polled(consumer: &mut Consumer) -> Result<ottla_client::Polled> {
    Ok(consumer.poll(Duration::from_millis(500)).await?)
}
