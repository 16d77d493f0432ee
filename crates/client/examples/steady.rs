//! Writes and reads at a steady rate for a while, for faults to be made meanwhile; then says what
//! was lost, doubled or reordered, and how long the slowest delivery and the longest silence took.
//!
//! `cargo run --release -p ottla-client --example steady -- 127.0.0.1:9092 topic 30`

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use ottla_client::{
    Admin, ClientConfig, Consumer, ConsumerConfig, NewTopic, OffsetReset, Producer, ProducerConfig,
    ProducerRecord, TopicPartition,
};
use tokio::time::Instant;

const PARTITIONS: i32 = 6;
const RECORDS_PER_SECOND: u64 = 2_000;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let bootstrap = arguments.next().context("which brokers?")?;
    let topic = arguments.next().context("which topic?")?;
    let seconds: u64 = arguments.next().context("for how many seconds?")?.parse()?;
    let client = ClientConfig::from_list(&bootstrap);
    let admin = Admin::new(client.clone())?;
    let new = NewTopic::new(&topic)
        .partitions(PARTITIONS)
        .replication_factor(3);
    admin
        .create_topic(new.config("min.insync.replicas", "2"))
        .await?;
    admin.wait_for_leaders(&topic).await?;
    println!("begun");
    let written = Arc::new(AtomicU64::new(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let reading = read(
        client.clone(),
        topic.clone(),
        Arc::clone(&written),
        Arc::clone(&is_over),
    );
    let writing = write(client, topic, seconds, written, is_over);
    let ((), ()) = tokio::try_join!(writing, reading)?;
    admin.close().await;
    Ok(())
}

async fn write(
    client: ClientConfig,
    topic: String,
    seconds: u64,
    written: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
) -> Result<()> {
    let producer = Producer::new(ProducerConfig::new(client))?;
    let (deliveries, mut delivered) = tokio::sync::mpsc::channel(100_000);
    let sending = async {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        let until = Instant::now() + Duration::from_secs(seconds);
        let mut number = 0u64;
        while Instant::now() < until {
            tick.tick().await;
            for _ in 0..RECORDS_PER_SECOND / 100 {
                let partition = i32::try_from(number % PARTITIONS.unsigned_abs() as u64)?;
                let record = ProducerRecord::to(topic.as_str())
                    .partition(partition)
                    .value(number.to_string());
                let begun = Instant::now();
                let delivery = producer.send(record).await?;
                deliveries.send((begun, delivery)).await?;
                number += 1;
            }
        }
        drop(deliveries);
        anyhow::Ok(number)
    };
    let counting = async {
        let (mut slowest, mut failed) = (Duration::ZERO, 0u64);
        while let Some((begun, delivery)) = delivered.recv().await {
            let (begun, delivery): (Instant, ottla_client::Delivery) = (begun, delivery);
            match delivery.await {
                Ok(_) => slowest = slowest.max(begun.elapsed()),
                Err(error) => {
                    failed += 1;
                    eprintln!("{error}");
                }
            }
        }
        (slowest, failed)
    };
    let (sent, (slowest, failed)) = tokio::join!(sending, counting);
    written.store(sent?, Ordering::SeqCst);
    is_over.store(true, Ordering::SeqCst);
    println!(
        "{} written, {failed} failed, slowest delivery {slowest:.1?}",
        written.load(Ordering::SeqCst)
    );
    producer.close(Duration::from_secs(10)).await;
    ensure!(failed == 0, "{failed} deliveries failed");
    Ok(())
}

async fn read(
    client: ClientConfig,
    topic: String,
    written: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
) -> Result<()> {
    let mut config = ConsumerConfig::new(client).group(format!("{topic}-readers"));
    config.offset_reset = OffsetReset::Earliest;
    config.auto_commit = Some(Duration::from_millis(500));
    let mut consumer = Consumer::new(config)?;
    consumer.subscribe([topic.as_str()]).await?;
    let mut next: BTreeMap<TopicPartition, u64> = BTreeMap::new();
    let (mut read, mut silence, mut last) = (0u64, Duration::ZERO, None::<Instant>);
    let mut patience = Instant::now() + Duration::from_secs(600);
    while !is_over.load(Ordering::SeqCst) || read < written.load(Ordering::SeqCst) {
        if is_over.load(Ordering::SeqCst) {
            patience = patience.min(Instant::now() + Duration::from_secs(30));
        }
        ensure!(
            Instant::now() < patience,
            "{read} of {} read",
            written.load(Ordering::SeqCst)
        );
        let polled = match consumer.poll(Duration::from_millis(100)).await {
            Ok(polled) => polled,
            Err(error) => {
                eprintln!("poll: {error}");
                continue;
            }
        };
        for event in &polled.events {
            println!("{event:?}");
        }
        if !polled.records.is_empty() {
            silence = silence.max(last.map_or(Duration::ZERO, |last| last.elapsed()));
            last = Some(Instant::now());
        }
        for record in polled.records {
            let value = record.value.as_deref().context("a value")?;
            let number: u64 = std::str::from_utf8(value)?.parse()?;
            let first = u64::try_from(record.partition.partition)?;
            let expected = next.entry(record.partition.clone()).or_insert(first);
            ensure!(
                number == *expected,
                "{} at {}: {number} instead of {expected}",
                record.partition,
                record.offset
            );
            *expected += PARTITIONS.unsigned_abs() as u64;
            read += 1;
        }
    }
    println!("{read} read in order, none lost or doubled, longest silence {silence:.1?}");
    consumer.close(Duration::from_secs(10)).await;
    Ok(())
}
