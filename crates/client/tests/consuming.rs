//! The consumer against brokers that fail by script: nothing is skipped or returned twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]

#[path = "support/fake_broker.rs"]
mod fake_broker;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use fake_broker::{FakeCluster, Handler, Model, Reply, TOPIC, answer, node_id};
use ottla_client::{
    ClientConfig, CommittedOffset, Consumer, ConsumerConfig, ConsumerError, ErrorCode, OffsetReset,
    TopicPartition,
};
use ottla_records::{BatchBuilder, stamp};
use ottla_types::{LeaderEpoch, Offset};
use ottla_wire::{
    Api, RequestHeader, StrBytes, decode_request,
    messages::{
        FetchRequest, FetchResponse, FindCoordinatorResponse, OffsetCommitRequest,
        OffsetCommitResponse, OffsetFetchResponse, OffsetForLeaderEpochRequest,
        OffsetForLeaderEpochResponse,
        fetch_response::{FetchableTopicResponse, LeaderIdAndEpoch, PartitionData},
        find_coordinator_response::Coordinator,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
        offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
    },
};
use parking_lot::Mutex;
use tokio::time::Instant;

/// What the next fetch meets.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Close,
    /// Never answered: the broker is fenced, and the next one leads.
    HangAndFence,
    NotLeader,
    NotLeaderWithHint,
    Refuse(ErrorCode),
}

/// A log of one record a batch, whose offsets are its values.
#[derive(Default)]
struct Log {
    end: i64,
    faults: Vec<Fault>,
    epoch_end: Option<(i32, i64)>,
    fetched_from: Vec<i64>,
    coordinator: usize,
    committed: Vec<i64>,
    /// Commits that are refused first, for the time being.
    refused_commits: usize,
}

fn partition() -> TopicPartition {
    TopicPartition::new(TOPIC, 0)
}

async fn start(log: Log) -> (FakeCluster, Arc<Mutex<Log>>) {
    let cluster = FakeCluster::start(3).await;
    let log = Arc::new(Mutex::new(log));
    let served = Arc::clone(&log);
    let handler: Handler = Box::new(move |model, broker, header, body| {
        let mut log = served.lock();
        match header.api {
            Api::Fetch => log.fetch(model, broker, header, body),
            Api::OffsetForLeaderEpoch => log.epoch_end(model, header, body),
            Api::FindCoordinator => log.find_coordinator(model, header),
            Api::OffsetFetch => answer(header, &OffsetFetchResponse::default()),
            Api::OffsetCommit => log.commit(model, broker, header, body),
            other => panic!("{other:?} is not expected"),
        }
    });
    cluster.model.lock().handler = Some(handler);
    (cluster, log)
}

impl Log {
    fn fetch(
        &mut self,
        model: &mut Model,
        broker: usize,
        header: &RequestHeader,
        body: Bytes,
    ) -> Reply {
        let request: FetchRequest = decode_request(Api::Fetch, header.version, body).unwrap();
        let asked = &request.topics[0].partitions[0];
        let mut data = PartitionData::default().with_high_watermark(self.end);
        data.preferred_read_replica = (-1).into();
        let fault = (broker == model.leader)
            .then(|| self.faults.pop())
            .flatten();
        match fault {
            Some(Fault::Close) => return Reply::Close,
            Some(Fault::HangAndFence) => {
                model.move_leader();
                model.fenced.push(broker);
                return Reply::Hang;
            }
            Some(Fault::NotLeader | Fault::NotLeaderWithHint) => model.move_leader(),
            Some(Fault::Refuse(code)) => data.error_code = code.code(),
            None => {}
        }
        if let Some(Fault::NotLeaderWithHint) = fault {
            data.current_leader = LeaderIdAndEpoch::default()
                .with_leader_id(node_id(model.leader).into())
                .with_leader_epoch(model.leader_epoch);
        }
        if broker != model.leader {
            data.error_code = ErrorCode::NotLeaderOrFollower.code();
        } else if asked.current_leader_epoch != model.leader_epoch {
            data.error_code = ErrorCode::FencedLeaderEpoch.code();
        } else if asked.fetch_offset > self.end {
            data.error_code = ErrorCode::OffsetOutOfRange.code();
        } else if data.error_code == 0 {
            self.fetched_from.push(asked.fetch_offset);
            let last = self.end.min(asked.fetch_offset + 3);
            let batches =
                (asked.fetch_offset..last).map(|offset| batch(offset, model.leader_epoch));
            data.records = Some(Bytes::from(batches.collect::<Vec<_>>().concat()));
        }
        let topic = FetchableTopicResponse::default()
            .with_topic_id(request.topics[0].topic_id)
            .with_topic(request.topics[0].topic.clone())
            .with_partitions(vec![data]);
        answer(
            header,
            &FetchResponse::default().with_responses(vec![topic]),
        )
    }

    fn epoch_end(&self, model: &Model, header: &RequestHeader, body: Bytes) -> Reply {
        let request: OffsetForLeaderEpochRequest =
            decode_request(Api::OffsetForLeaderEpoch, header.version, body).unwrap();
        let asked = request.topics[0].partitions[0].leader_epoch;
        let old = self.epoch_end.filter(|_| asked < model.leader_epoch);
        let (epoch, end_offset) = old.unwrap_or((asked, self.end));
        let row = EpochEndOffset::default()
            .with_leader_epoch(epoch)
            .with_end_offset(end_offset);
        let mut topic = OffsetForLeaderTopicResult::default().with_partitions(vec![row]);
        topic.topic.0 = StrBytes::from_static_str(TOPIC);
        answer(
            header,
            &OffsetForLeaderEpochResponse::default().with_topics(vec![topic]),
        )
    }

    fn find_coordinator(&self, model: &Model, header: &RequestHeader) -> Reply {
        let (host, port) = &model.addresses[self.coordinator];
        let row = Coordinator::default()
            .with_node_id(node_id(self.coordinator).into())
            .with_host(StrBytes::from_string(host.clone()))
            .with_port((*port).into());
        answer(
            header,
            &FindCoordinatorResponse::default().with_coordinators(vec![row]),
        )
    }

    fn commit(
        &mut self,
        model: &Model,
        broker: usize,
        header: &RequestHeader,
        body: Bytes,
    ) -> Reply {
        let request: OffsetCommitRequest =
            decode_request(Api::OffsetCommit, header.version, body).unwrap();
        let mut row = OffsetCommitResponsePartition::default();
        if self.refused_commits > 0 {
            self.refused_commits -= 1;
            row.error_code = ErrorCode::CoordinatorLoadInProgress.code();
        } else if broker == self.coordinator {
            self.committed
                .push(request.topics[0].partitions[0].committed_offset);
        } else {
            row.error_code = ErrorCode::NotCoordinator.code();
        }
        assert!(model.addresses.len() > self.coordinator);
        let mut topic = OffsetCommitResponseTopic::default().with_partitions(vec![row]);
        topic.name.0 = StrBytes::from_static_str(TOPIC);
        answer(
            header,
            &OffsetCommitResponse::default().with_topics(vec![topic]),
        )
    }
}

fn batch(offset: i64, epoch: i32) -> Vec<u8> {
    let mut builder = BatchBuilder::new(0);
    builder.push(0, None, Some(offset.to_string().as_bytes()), &[]);
    let mut batch = builder.build();
    stamp(
        &mut batch,
        Offset::saturating(offset),
        LeaderEpoch::saturating(epoch),
    );
    batch.to_vec()
}

fn config(cluster: &FakeCluster) -> ConsumerConfig {
    let mut config = ConsumerConfig::new(ClientConfig::new(cluster.bootstrap()));
    config.offset_reset = OffsetReset::Earliest;
    config
}

/// Reads up to the record of this offset.
async fn read_to(consumer: &mut Consumer, last: i64) -> Result<Vec<i64>, ConsumerError> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut offsets: Vec<i64> = Vec::new();
    while offsets.last() != Some(&last) {
        assert!(Instant::now() < deadline, "{offsets:?}");
        for record in consumer.poll(Duration::from_millis(50)).await?.records {
            let value = record.value.unwrap();
            assert_eq!(
                std::str::from_utf8(&value).unwrap(),
                record.offset.to_string()
            );
            offsets.push(record.offset);
        }
    }
    Ok(offsets)
}

#[tokio::test]
async fn leaders_that_move_and_connections_that_break_cost_no_record() {
    let faults = vec![
        Fault::Refuse(ErrorCode::UnknownLeaderEpoch),
        Fault::Close,
        Fault::NotLeaderWithHint,
        Fault::Close,
        Fault::NotLeader,
        Fault::Refuse(ErrorCode::KafkaStorageError),
        Fault::NotLeader,
    ];
    let (cluster, log) = start(Log {
        end: 30,
        faults,
        ..Log::default()
    })
    .await;
    let mut consumer = Consumer::new(config(&cluster)).unwrap();
    consumer.assign([partition()]).await;
    consumer.seek(&partition(), 0).unwrap();
    let offsets = read_to(&mut consumer, 29).await.unwrap();
    assert_eq!(offsets, (0..30).collect::<Vec<_>>());
    assert!(log.lock().faults.is_empty());
    consumer.close(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_silent_leader_that_was_fenced_is_given_up() {
    let (cluster, log) = start(Log {
        end: 30,
        faults: vec![Fault::HangAndFence],
        ..Log::default()
    })
    .await;
    let mut config = config(&cluster);
    config.client.stall_probe_after = Duration::from_millis(100);
    // Long before the request itself would run out of time.
    assert!(config.client.request_timeout > Duration::from_secs(20));
    let mut consumer = Consumer::new(config).unwrap();
    consumer.assign([partition()]).await;
    consumer.seek(&partition(), 0).unwrap();
    let offsets = read_to(&mut consumer, 29).await.unwrap();
    assert_eq!(offsets, (0..30).collect::<Vec<_>>());
    assert!(log.lock().faults.is_empty());
    consumer.close(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_log_that_was_cut_below_the_position_is_noticed() {
    for rule in [OffsetReset::Earliest, OffsetReset::None] {
        let (cluster, log) = start(Log {
            end: 8,
            ..Log::default()
        })
        .await;
        let mut config = config(&cluster);
        config.offset_reset = rule;
        let mut consumer = Consumer::new(config).unwrap();
        consumer.assign([partition()]).await;
        consumer.seek(&partition(), 0).unwrap();
        read_to(&mut consumer, 7).await.unwrap();
        // The new leader has only five records of the old epoch, and has gone on from there.
        log.lock().epoch_end = Some((3, 5));
        log.lock().end = 20;
        log.lock().faults = vec![Fault::NotLeader];
        let result = read_to(&mut consumer, 19).await;
        match rule {
            OffsetReset::None => {
                let error = result.unwrap_err();
                let expected = matches!(
                    error,
                    ConsumerError::Truncated {
                        offset: 8,
                        end_offset: 5,
                        ..
                    }
                );
                assert!(expected, "{error:?}");
                // Where to go on is the user's to say.
                consumer.seek(&partition(), 5).unwrap();
                assert_eq!(read_to(&mut consumer, 19).await.unwrap()[0], 5);
            }
            OffsetReset::Earliest | OffsetReset::Latest => {
                assert_eq!(result.unwrap(), (5..20).collect::<Vec<_>>());
            }
        }
        consumer.close(Duration::from_secs(5)).await;
    }
}

#[tokio::test]
async fn a_cut_does_not_lead_past_records_held_by_a_pause() {
    let (cluster, log) = start(Log {
        end: 3,
        ..Log::default()
    })
    .await;
    let mut config = config(&cluster);
    config.poll_records_max = 1;
    config.client.metadata_max_age = Duration::from_millis(50);
    let mut consumer = Consumer::new(config).unwrap();
    consumer.assign([partition()]).await;
    consumer.seek(&partition(), 0).unwrap();
    read_to(&mut consumer, 0).await.unwrap();
    // Records 1 and 2 are held; the new leader has only the first two of the old epoch.
    consumer.pause(&partition()).unwrap();
    log.lock().epoch_end = Some((3, 2));
    log.lock().end = 20;
    let asked = cluster.model.lock().metadata_requests;
    cluster.model.lock().move_leader();
    let deadline = Instant::now() + Duration::from_secs(10);
    while cluster.model.lock().metadata_requests < asked + 3 {
        assert!(Instant::now() < deadline);
        let polled = consumer.poll(Duration::from_millis(20)).await.unwrap();
        assert!(polled.records.is_empty());
    }
    consumer.resume(&partition()).unwrap();
    let offsets = read_to(&mut consumer, 19).await.unwrap();
    assert_eq!(offsets[0], 1, "{offsets:?}");
    consumer.close(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_seek_makes_what_is_under_way_count_for_nothing() {
    let (cluster, _log) = start(Log {
        end: 100,
        ..Log::default()
    })
    .await;
    let mut consumer = Consumer::new(config(&cluster)).unwrap();
    consumer.assign([partition()]).await;
    consumer.seek(&partition(), 0).unwrap();
    read_to(&mut consumer, 2).await.unwrap();
    for target in [50, 10, 90] {
        // The fetch of what follows is under way by now.
        consumer.seek(&partition(), target).unwrap();
        let polled = loop {
            let polled = consumer.poll(Duration::from_millis(50)).await.unwrap();
            if !polled.records.is_empty() {
                break polled;
            }
        };
        assert_eq!(polled.records[0].offset, target);
        assert_eq!(consumer.position(&partition()), Some(target + 3));
    }
    consumer.close(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_partition_taken_again_makes_what_is_under_way_count_for_nothing() {
    let (cluster, _log) = start(Log {
        end: 100,
        ..Log::default()
    })
    .await;
    let mut consumer = Consumer::new(config(&cluster)).unwrap();
    for target in [0, 50, 10, 90] {
        // The fetch of what follows the last records is under way by now.
        consumer.assign([partition()]).await;
        consumer.seek(&partition(), target).unwrap();
        let offsets = read_to(&mut consumer, target + 2).await.unwrap();
        assert_eq!(offsets, [target, target + 1, target + 2]);
    }
    consumer.close(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn who_has_not_joined_yet_commits_nothing() {
    let (cluster, log) = start(Log::default()).await;
    let mut consumer = Consumer::new(config(&cluster).group("g")).unwrap();
    consumer.subscribe([TOPIC]).await.unwrap();
    let offsets = BTreeMap::from([(partition(), CommittedOffset::new(7))]);
    let refused = consumer.commit_offsets(&offsets).await.unwrap_err();
    assert!(matches!(refused, ConsumerError::NotAMember), "{refused:?}");
    assert_eq!(log.lock().committed, [0; 0]);
    // Without a membership it is the group's administrator who speaks.
    consumer.assign([partition()]).await;
    consumer.commit_offsets(&offsets).await.unwrap();
    assert_eq!(log.lock().committed, [7]);
    consumer.close(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn an_automatic_commit_that_is_retried_does_not_come_after_a_newer_one() {
    let (cluster, log) = start(Log {
        end: 3,
        refused_commits: usize::MAX,
        ..Log::default()
    })
    .await;
    let mut config = config(&cluster).group("g");
    config.auto_commit = Some(Duration::from_secs(2));
    let mut consumer = Consumer::new(config).unwrap();
    consumer.assign([partition()]).await;
    consumer.seek(&partition(), 0).unwrap();
    read_to(&mut consumer, 2).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while log.lock().refused_commits == usize::MAX {
        assert!(Instant::now() < deadline);
        consumer.poll(Duration::from_millis(20)).await.unwrap();
    }
    // The next automatic one is seconds away; the one under way is tried again all the time.
    log.lock().refused_commits = 0;
    let offsets = BTreeMap::from([(partition(), CommittedOffset::new(2))]);
    consumer.commit_offsets(&offsets).await.unwrap();
    let until = Instant::now() + Duration::from_millis(500);
    while Instant::now() < until {
        consumer.poll(Duration::from_millis(20)).await.unwrap();
    }
    assert_eq!(log.lock().committed.last(), Some(&2));
    drop(consumer);
}

#[tokio::test]
async fn a_commit_follows_its_coordinator() {
    let (cluster, log) = start(Log {
        end: 5,
        ..Log::default()
    })
    .await;
    let mut config = config(&cluster).group("g");
    config.auto_commit = None;
    let mut consumer = Consumer::new(config).unwrap();
    consumer.assign([partition()]).await;
    consumer.seek(&partition(), 0).unwrap();
    read_to(&mut consumer, 4).await.unwrap();
    consumer.commit().await.unwrap();
    log.lock().coordinator = 2;
    consumer.commit().await.unwrap();
    assert_eq!(log.lock().committed, [5, 5]);
    consumer.close(Duration::from_secs(5)).await;
}
