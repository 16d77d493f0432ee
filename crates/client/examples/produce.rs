//! Sends numbered records and says how long each delivery took at worst.
//!
//! `cargo run --release -p ottla-client --example produce -- 127.0.0.1:9092 topic 100000 [gzip]`

use std::time::Duration;

use anyhow::{Context, Result};
use ottla_client::{ClientConfig, Codec, Producer, ProducerConfig, ProducerRecord};
use tokio::time::Instant;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let bootstrap = arguments.next().context("which brokers?")?;
    let topic = arguments.next().context("which topic?")?;
    let count: u64 = arguments.next().context("how many records?")?.parse()?;
    let mut config = ProducerConfig::new(ClientConfig::from_list(&bootstrap));
    config.compression = match arguments.next().as_deref() {
        None | Some("none") => Codec::None,
        Some("gzip") => Codec::Gzip,
        Some("snappy") => Codec::Snappy,
        Some("lz4") => Codec::Lz4,
        Some("zstd") => Codec::Zstd,
        Some(other) => anyhow::bail!("unknown codec {other}"),
    };
    let producer = Producer::new(config)?;
    let begun = Instant::now();
    let (deliveries, mut delivered) = tokio::sync::mpsc::channel(10_000);
    let counting = async {
        let (mut worst, mut failed) = (Duration::ZERO, 0u64);
        while let Some((sent, delivery)) = delivered.recv().await {
            let (sent, delivery): (Instant, ottla_client::Delivery) = (sent, delivery);
            match delivery.await {
                Ok(_) => worst = worst.max(sent.elapsed()),
                Err(error) => {
                    failed += 1;
                    if failed <= 10 {
                        eprintln!("{error} (may have happened: {})", error.may_have_happened());
                    }
                }
            }
        }
        (worst, failed)
    };
    let sending = async {
        for number in 0..count {
            let record = ProducerRecord::to(topic.as_str()).value(format!("record {number}"));
            let delivery = producer.send(record).await?;
            deliveries.send((Instant::now(), delivery)).await?;
        }
        drop(deliveries);
        anyhow::Ok(())
    };
    let (sent, (worst, failed)) = tokio::join!(sending, counting);
    sent?;
    let took = begun.elapsed();
    println!("{count} records in {took:.1?}, {failed} failed, slowest delivery {worst:.1?}");
    producer.close(Duration::from_secs(10)).await;
    Ok(())
}
