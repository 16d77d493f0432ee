//! The producer against brokers that fail by script: nothing is doubled, lost or reordered.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/fake_broker.rs"]
mod fake_broker;

use std::time::Duration;

use fake_broker::{FakeCluster, Fault, TOPIC};
use ottla_client::{
    Acks, ClientConfig, Codec, DeliveryError, ErrorCode, Producer, ProducerConfig, ProducerRecord,
    SendError,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

fn config(cluster: &FakeCluster) -> ProducerConfig {
    let mut client = ClientConfig::new(cluster.bootstrap());
    client.stall_probe_after = Duration::from_millis(100);
    ProducerConfig::new(client)
}

/// Sends `count` records with small batches, and waits for all.
async fn produce(producer: &Producer, count: usize) -> Vec<Result<Option<i64>, DeliveryError>> {
    let mut deliveries = Vec::new();
    for number in 0..count {
        let record = ProducerRecord::to(TOPIC).value(number.to_string());
        deliveries.push(producer.send(record).await.unwrap());
        if number % 3 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let mut results = Vec::new();
    for delivery in deliveries {
        results.push(delivery.await.map(|written| written.offset));
    }
    results
}

fn log(cluster: &FakeCluster) -> Vec<usize> {
    let model = cluster.model.lock();
    model
        .log
        .iter()
        .map(|value| std::str::from_utf8(value).unwrap().parse().unwrap())
        .collect()
}

/// Batches of a few records, so that many are under way.
fn small_batches(mut config: ProducerConfig) -> ProducerConfig {
    config.batch_bytes = 150;
    config.linger = Duration::ZERO;
    config
}

async fn survives(faults: Vec<Option<Fault>>, records: usize) {
    let cluster = FakeCluster::start(3).await;
    cluster.script(faults.clone());
    let producer = Producer::new(small_batches(config(&cluster))).unwrap();
    let results = produce(&producer, records).await;
    assert_eq!(
        log(&cluster),
        (0..records).collect::<Vec<_>>(),
        "{faults:?}"
    );
    for (number, result) in results.into_iter().enumerate() {
        let offset = result.unwrap();
        assert_eq!(offset, Some(i64::try_from(number).unwrap()), "{faults:?}");
    }
    producer.close(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn every_fault_alone_is_invisible() {
    for fault in [
        Fault::CloseBeforeWrite,
        Fault::CloseAfterWrite,
        Fault::MoveLeader,
        Fault::MoveLeaderAfterWrite,
        Fault::MoveLeaderWithHint,
        Fault::HangAndMove,
        Fault::Refuse(ErrorCode::NotEnoughReplicas),
        Fault::Refuse(ErrorCode::NotLeaderOrFollower),
        Fault::Refuse(ErrorCode::CorruptMessage),
    ] {
        // As the first request, in the middle of several under way, and twice in a row.
        survives(vec![Some(fault)], 20).await;
        survives(vec![None, None, Some(fault)], 40).await;
        survives(
            vec![None, None, Some(fault), Some(fault), None, Some(fault)],
            60,
        )
        .await;
    }
}

#[tokio::test]
async fn random_faults_neither_double_nor_reorder() {
    let seed: u64 =
        std::env::var("SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let rounds = (0..20).map(|_| {
        let faults = (0..30).map(|_| match random.random_range(0..20) {
            0 | 1 => Some(Fault::CloseBeforeWrite),
            2 | 3 => Some(Fault::CloseAfterWrite),
            4 => Some(Fault::MoveLeader),
            5 => Some(Fault::MoveLeaderAfterWrite),
            6 => Some(Fault::MoveLeaderWithHint),
            7 => Some(Fault::Refuse(ErrorCode::NotEnoughReplicas)),
            8 => Some(Fault::Refuse(ErrorCode::LeaderNotAvailable)),
            _ => None,
        });
        survives(faults.collect(), 150)
    });
    futures::future::join_all(rounds).await;
}

#[tokio::test]
async fn a_leader_named_by_the_error_is_used_without_a_pause() {
    let cluster = FakeCluster::start(3).await;
    let producer = Producer::new(config(&cluster)).unwrap();
    produce(&producer, 1).await;
    let before = cluster.model.lock().metadata_requests;
    cluster.script([Some(Fault::MoveLeaderWithHint)]);
    let results = produce(&producer, 1).await;
    assert_eq!(results, [Ok(Some(1))]);
    assert_eq!(cluster.model.lock().metadata_requests, before);
    producer.close(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_refused_record_fails_alone_and_the_rest_goes_on_in_a_new_epoch() {
    let cluster = FakeCluster::start(1).await;
    cluster.script([None, Some(Fault::Refuse(ErrorCode::InvalidRecord))]);
    let producer = Producer::new(small_batches(config(&cluster))).unwrap();
    let results = produce(&producer, 40).await;
    let failed: Vec<usize> = results
        .iter()
        .enumerate()
        .filter_map(|(number, result)| result.is_err().then_some(number))
        .collect();
    assert!((1..=3).contains(&failed.len()), "{failed:?}");
    for number in &failed {
        let error = results[*number].as_ref().unwrap_err();
        assert!(matches!(
            error,
            DeliveryError::Refused {
                code: ErrorCode::InvalidRecord,
                ..
            }
        ));
        assert!(!error.may_have_happened());
    }
    let written: Vec<usize> = (0..40).filter(|number| !failed.contains(number)).collect();
    assert_eq!(log(&cluster), written);
}

#[tokio::test]
async fn an_error_says_whether_the_write_may_have_happened() {
    let cluster = FakeCluster::start(1).await;
    let mut config = small_batches(config(&cluster));
    config.delivery_timeout = Duration::from_millis(300);
    cluster.script(vec![Some(Fault::CloseAfterWrite); 100]);
    let producer = Producer::new(config.clone()).unwrap();
    let results = produce(&producer, 1).await;
    let error = results[0].as_ref().unwrap_err();
    assert!(matches!(error, DeliveryError::TimedOut { .. }) && error.may_have_happened());

    cluster.model.lock().faults.clear();
    cluster.script(vec![Some(Fault::Refuse(ErrorCode::NotEnoughReplicas)); 100]);
    let producer = Producer::new(config).unwrap();
    let results = produce(&producer, 1).await;
    let error = results[0].as_ref().unwrap_err();
    assert!(!error.may_have_happened(), "{error:?}");
}

#[tokio::test]
async fn all_codecs_and_acks_and_old_brokers_work() {
    for codec in [
        Codec::None,
        Codec::Gzip,
        Codec::Snappy,
        Codec::Lz4,
        Codec::Zstd,
    ] {
        for (acks, api_versions_max, produce_max) in [
            (Acks::All, 4, 13),
            (Acks::Leader, 3, 12),
            (Acks::All, 2, 8),
            (Acks::Leader, 0, 7),
        ] {
            let cluster = FakeCluster::start(1).await;
            cluster.model.lock().api_versions_max = api_versions_max;
            cluster.model.lock().produce_max = produce_max;
            let mut config = config(&cluster).acks(acks);
            config.compression = codec;
            let producer = Producer::new(config).unwrap();
            let results = produce(&producer, 50).await;
            assert!(
                results.iter().all(Result::is_ok),
                "{codec} {acks:?}: {results:?}"
            );
            assert_eq!(log(&cluster), (0..50).collect::<Vec<_>>());
            producer.close(Duration::from_secs(5)).await;
        }
    }
}

#[tokio::test]
async fn memory_is_bounded_and_a_full_buffer_is_an_error_in_time() {
    let cluster = FakeCluster::start(1).await;
    let mut config = config(&cluster);
    config.buffer_bytes = 5_000;
    config.block_max = Duration::from_millis(200);
    config.linger = Duration::from_secs(60);
    config.batch_bytes = 100_000;
    let producer = Producer::new(config).unwrap();
    let record = ProducerRecord::to(TOPIC).value(vec![b'1'; 2_000]);
    let _first = producer.send(record.clone()).await.unwrap();
    let _second = producer.send(record.clone()).await.unwrap();
    let begun = tokio::time::Instant::now();
    let error = producer.send(record).await.unwrap_err();
    assert!(
        matches!(error, ottla_client::SendError::BufferFull),
        "{error:?}"
    );
    assert!(begun.elapsed() >= Duration::from_millis(200));
    producer.flush().await;
    assert_eq!(cluster.model.lock().log.len(), 2);
}

#[tokio::test]
async fn a_silent_leader_is_given_up_whenever_another_one_is_elected() {
    let cluster = FakeCluster::start(2).await;
    let mut config = config(&cluster);
    config.client.stall_probe_after = Duration::from_millis(50);
    let producer = Producer::new(config).unwrap();
    produce(&producer, 1).await;
    cluster.script([Some(Fault::Hang)]);
    let sent = ProducerRecord::to(TOPIC).value("1");
    let delivery = producer.send(sent).await.unwrap();
    // The election comes long after the first question about it.
    let asked = |cluster: &FakeCluster| cluster.model.lock().metadata_requests;
    let before = asked(&cluster);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while asked(&cluster) < before + 3 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "metadata is not asked for again"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cluster.model.lock().move_leader();
    let delivered = tokio::time::timeout(Duration::from_secs(5), delivery).await;
    assert_eq!(delivered.unwrap().unwrap().offset, Some(1));
}

#[tokio::test]
async fn a_flush_ends_when_the_producer_is_closed() {
    let cluster = FakeCluster::start(1).await;
    cluster.script([Some(Fault::Hang)]);
    let producer = Producer::new(config(&cluster)).unwrap();
    let record = || ProducerRecord::to(TOPIC).value("kept");
    let delivery = producer.send(record()).await.unwrap();
    let flushed = tokio::time::timeout(Duration::from_secs(5), producer.flush());
    let closed = producer.close(Duration::from_millis(200));
    let (flushed, ()) = tokio::join!(flushed, closed);
    flushed.unwrap();
    let error = delivery.await.unwrap_err();
    let happened = matches!(
        error,
        DeliveryError::Closed {
            may_have_happened: true
        }
    );
    assert!(happened, "{error:?}");
    assert!(!producer.has_undelivered());
    assert!(matches!(
        producer.send(record()).await,
        Err(SendError::Closed)
    ));
    let later = tokio::time::timeout(Duration::from_secs(5), producer.flush()).await;
    later.unwrap();
}
