//! The queue against every kind of answer, without a network.

use tokio::sync::{Semaphore, oneshot};

use ottla_types::{ProducerEpoch, ProducerId};

use super::*;
use crate::{
    metadata::TopicPartition,
    producer::{RecordMetadata, record::ProducerRecord},
};

type Waiter = oneshot::Receiver<Result<RecordMetadata, DeliveryError>>;

const NAMED: Identity = Identity {
    id: ProducerId(7),
    epoch: ProducerEpoch::ZERO,
};

fn queue() -> Queue {
    Queue::new(QueueRules {
        idempotent: true,
        in_flight_max: 5,
        linger: Duration::from_millis(5),
        batch_bytes: 1000,
        retry_backoff: Duration::from_millis(20),
        retry_backoff_max: Duration::from_millis(100),
    })
}

/// A batch of `records` records, with the last one's waiter.
fn batch(now: Instant, id: u64, records: usize) -> (Batch, Waiter) {
    let deadline = now + Duration::from_secs(10);
    let mut batch = Batch::new(TopicPartition::new("t", 0), id, now, deadline);
    let room = std::sync::Arc::new(Semaphore::new(10_000));
    let mut last = None;
    for _ in 0..records {
        let (waiter, receiver) = oneshot::channel();
        let record = ProducerRecord::to("t").value("v");
        let permit = std::sync::Arc::clone(&room)
            .try_acquire_many_owned(37)
            .unwrap();
        batch.push(record, 0, waiter, permit);
        last = Some(receiver);
    }
    (batch, last.unwrap())
}

fn written(base: i64) -> Outcome {
    Outcome::Written {
        base_offset: Some(base),
        log_append_time: None,
    }
}

fn retry() -> Outcome {
    Outcome::Retry {
        reason: "x".to_owned(),
        may_have_happened: true,
        at_once: true,
    }
}

fn out_of_order() -> Outcome {
    Outcome::OutOfOrder {
        code: ErrorCode::OutOfOrderSequenceNumber,
    }
}

/// A queue whose identity is known to the log, with `count` single-record batches waiting.
fn proven(now: Instant, count: u64) -> (Queue, Vec<Waiter>) {
    let mut queue = queue();
    let (first, _) = batch(now, 1000, 1);
    queue.push(first);
    let first = queue.take(Some(NAMED)).unwrap();
    queue.complete(first, written(0), now);
    let mut waiters = Vec::new();
    for id in 0..count {
        let (batch, waiter) = batch(now, id, 1);
        queue.push(batch);
        waiters.push(waiter);
    }
    (queue, waiters)
}

fn take_all(queue: &mut Queue, now: Instant) -> Vec<Batch> {
    let mut taken = Vec::new();
    while queue.is_ready(now, true) {
        taken.push(queue.take(Some(NAMED)).unwrap());
    }
    taken
}

fn sequences(batches: &[Batch]) -> Vec<(i16, i32)> {
    let stamps = batches.iter().map(|batch| batch.stamp.unwrap());
    stamps
        .map(|(identity, sequence)| (identity.epoch.get(), sequence))
        .collect()
}

#[test]
fn one_batch_is_under_way_until_the_log_knows_the_producer_then_five() {
    let now = Instant::now();
    let mut queue = queue();
    for id in 0..9 {
        queue.push(batch(now, id, 2).0);
    }
    let mut first = take_all(&mut queue, now);
    assert_eq!(sequences(&first), [(0, 0)]);
    queue.complete(first.remove(0), written(0), now);
    let more = take_all(&mut queue, now);
    assert_eq!(sequences(&more), [(0, 2), (0, 4), (0, 6), (0, 8), (0, 10)]);
}

#[test]
fn failed_batches_go_again_in_order_once_all_are_answered() {
    let now = Instant::now();
    let (mut queue, _waiters) = proven(now, 6);
    let mut sent = take_all(&mut queue, now);
    assert_eq!(sequences(&sent), [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)]);
    // The connection broke: answers come back in any order, one of them was a success.
    queue.complete(sent.remove(3), retry(), now);
    assert!(!queue.is_ready(now, true));
    queue.complete(sent.remove(2), retry(), now);
    queue.complete(sent.remove(0), written(1), now);
    queue.complete(sent.remove(1), retry(), now);
    assert!(!queue.is_ready(now, true), "one is still under way");
    queue.complete(sent.remove(0), retry(), now);
    assert_eq!(
        sequences(&take_all(&mut queue, now)),
        [(0, 2), (0, 3), (0, 4), (0, 5), (0, 6)]
    );
}

#[test]
fn a_gap_behind_an_unsettled_batch_is_only_retried() {
    let now = Instant::now();
    let (mut queue, _waiters) = proven(now, 2);
    let mut sent = take_all(&mut queue, now);
    queue.complete(sent.remove(0), retry(), now);
    queue.complete(sent.remove(0), out_of_order(), now);
    let later = now + Duration::from_secs(1);
    assert_eq!(sequences(&take_all(&mut queue, later)), [(0, 1), (0, 2)]);
}

#[test]
fn a_gap_that_cannot_close_begins_a_new_epoch() {
    let now = Instant::now();
    let (mut queue, mut waiters) = proven(now, 3);
    let mut sent = take_all(&mut queue, now);
    let refused = refused(ErrorCode::InvalidRecord, false);
    queue.complete(sent.remove(0), Outcome::Failed(refused.clone()), now);
    queue.complete(sent.remove(0), out_of_order(), now);
    queue.complete(sent.remove(0), out_of_order(), now);
    assert_eq!(waiters[0].try_recv().unwrap(), Err(refused));
    let later = now + Duration::from_secs(1);
    // Unproven again: one at a time.
    let mut sent = take_all(&mut queue, later);
    assert_eq!(sequences(&sent), [(1, 0)]);
    queue.complete(sent.remove(0), written(5), later);
    assert_eq!(sequences(&take_all(&mut queue, later)), [(1, 1)]);
    assert_eq!(waiters[1].try_recv().unwrap().unwrap().offset, Some(5));
}

#[test]
fn a_batch_of_unknown_outcome_keeps_its_sequence_after_an_earlier_one_expired() {
    let now = Instant::now();
    let (mut queue, mut waiters) = proven(now, 2);
    let mut sent = take_all(&mut queue, now);
    sent[0].expire(true);
    queue.complete(sent.remove(0), retry(), now);
    queue.complete(sent.remove(0), retry(), now);
    let Err(error) = waiters[0].try_recv().unwrap() else {
        panic!("delivered")
    };
    assert!(error.may_have_happened());
    // The second may be in the log: only the broker's word frees it from its sequence.
    let mut sent = take_all(&mut queue, now);
    assert_eq!(sequences(&sent), [(0, 2)]);
    queue.complete(sent.remove(0), out_of_order(), now);
    let later = now + Duration::from_secs(1);
    assert_eq!(sequences(&take_all(&mut queue, later)), [(1, 0)]);
}

#[test]
fn a_batch_that_is_too_large_is_split_in_its_place() {
    let now = Instant::now();
    let (mut queue, _waiters) = proven(now, 0);
    let (large, mut waiter) = batch(now, 1, 5);
    queue.push(large);
    queue.push(batch(now, 2, 1).0);
    let mut sent = take_all(&mut queue, now);
    assert_eq!(sequences(&sent), [(0, 1), (0, 6)]);
    let too_large = Outcome::TooLarge {
        code: ErrorCode::MessageTooLarge,
    };
    queue.complete(sent.remove(0), too_large.clone(), now);
    queue.complete(sent.remove(0), out_of_order(), now);
    let later = now + Duration::from_secs(1);
    let mut sent = take_all(&mut queue, later);
    assert_eq!(sequences(&sent), [(0, 1), (0, 3), (0, 6)]);
    // The second half is still too large, and is split behind the first.
    queue.complete(sent.remove(0), written(1), later);
    queue.complete(sent.remove(0), too_large, later);
    queue.complete(sent.remove(0), out_of_order(), later);
    let later = later + Duration::from_secs(1);
    let mut sent = take_all(&mut queue, later);
    assert_eq!(sequences(&sent), [(0, 3), (0, 4), (0, 6)]);
    queue.complete(sent.remove(0), written(3), later);
    queue.complete(sent.remove(0), written(4), later);
    assert_eq!(waiter.try_recv().unwrap().unwrap().offset, Some(5));
}

#[test]
fn what_was_never_sent_expires_as_not_having_happened() {
    let now = Instant::now();
    let mut queue = queue();
    let (waiting, mut waiter) = batch(now, 1, 1);
    queue.push(waiting);
    let mut failed = Vec::new();
    queue.expire(now + Duration::from_secs(10), &mut failed);
    assert_eq!(failed, [1]);
    let error = waiter.try_recv().unwrap().unwrap_err();
    assert!(!error.may_have_happened());
    assert!(queue.is_idle());
}

#[test]
fn sequences_wrap_after_the_largest() {
    let now = Instant::now();
    let (mut queue, _waiters) = proven(now, 0);
    queue.next_sequence = i32::MAX;
    queue.push(batch(now, 1, 3).0);
    queue.push(batch(now, 2, 1).0);
    assert_eq!(
        sequences(&take_all(&mut queue, now)),
        [(0, i32::MAX), (0, 2)]
    );
}

#[test]
fn nothing_is_sent_that_would_push_an_unsettled_batch_out_of_the_brokers_memory() {
    let now = Instant::now();
    let (mut queue, _waiters) = proven(now, 9);
    let mut sent = take_all(&mut queue, now);
    assert_eq!(sent.len(), 5);
    // The first is refused again and again while those behind it are taken: it may be in the log.
    queue.complete(sent.remove(0), retry(), now);
    for batch in sent {
        queue.complete(batch, written(2), now);
    }
    for _ in 0..3 {
        let mut again = take_all(&mut queue, now);
        assert_eq!(sequences(&again), [(0, 1)]);
        queue.complete(again.remove(0), retry(), now);
    }
    let mut again = take_all(&mut queue, now);
    queue.complete(again.remove(0), written(1), now);
    assert_eq!(
        sequences(&take_all(&mut queue, now)),
        [(0, 6), (0, 7), (0, 8), (0, 9)]
    );
}

#[test]
fn a_queue_that_waits_for_an_answer_does_not_ask_to_be_looked_at_before() {
    let now = Instant::now();
    let (mut queue, _waiters) = proven(now, 9);
    let linger = now + Duration::from_millis(5);
    assert_eq!(queue.next_wakeup(now), Some(linger));
    let _sent = take_all(&mut queue, now);
    // The linger of those that are left is over, and the window is full.
    let later = now + Duration::from_millis(50);
    assert_eq!(
        queue.next_wakeup(later),
        Some(now + Duration::from_secs(10))
    );
}
