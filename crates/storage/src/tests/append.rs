//! Appending, and what is remembered of producers.

use bytes::Bytes;
use ottla_records::{BatchHeader, TimestampType, check_crc};
use ottla_types::{MonotonicMs, WallClockMs};

use super::support::{
    NOW, Rig, batch, batch_at, config, epoch, id, idempotent, idempotent_at, offset,
};
use crate::testing::Faults;
use crate::{AppendError, LogConfig, SequenceVerdict};

#[test]
fn the_leader_gives_offsets_and_returns_the_bytes_of_the_file() {
    let mut rig = Rig::new(config());
    let original = batch("a", 3);
    let address = original.as_ptr();
    let first = rig.log.append_as_leader(original, epoch(4), NOW).unwrap();
    assert_eq!(
        (first.base_offset, first.last_offset),
        (offset(0), offset(2))
    );
    assert_eq!(first.bytes.as_ptr(), address, "the bytes were copied");
    let second = rig
        .log
        .append_as_leader(batch("b", 2), epoch(4), NOW)
        .unwrap();
    assert_eq!(
        (second.base_offset, second.last_offset),
        (offset(3), offset(4))
    );
    assert_eq!(rig.contents(), [first.bytes, second.bytes]);
    assert_eq!(rig.log.latest_epoch(), Some(epoch(4)));
    assert_eq!(second.log_append_time, None);
}

#[test]
fn log_append_time_is_stamped_by_the_leader() {
    let stamped = LogConfig {
        timestamp_type: TimestampType::LogAppendTime,
        ..config()
    };
    let mut rig = Rig::new(stamped);
    let now = WallClockMs(NOW.0 + 77);
    let appended = rig
        .log
        .append_as_leader(batch("a", 3), epoch(0), now)
        .unwrap();
    assert_eq!(appended.log_append_time, Some(now));
    let header = BatchHeader::parse(&appended.bytes).unwrap();
    assert_eq!(header.max_timestamp, now.0);
    assert!(check_crc(&appended.bytes));
}

#[test]
fn many_batches_are_one_append_over_several_segments() {
    let mut rig = Rig::new(config());
    let batches: Vec<_> = (0..60)
        .map(|n| batch(&format!("batch {n}"), 1 + n % 3))
        .collect();
    let appended = rig
        .log
        .append_many_as_leader(batches, epoch(0), NOW)
        .unwrap();
    assert!(rig.log.segment_count() > 3);
    let bytes: Vec<Bytes> = appended.iter().map(|a| a.bytes.clone()).collect();
    assert_eq!(rig.contents(), bytes);
    for pair in appended.windows(2) {
        assert_eq!(pair[0].last_offset.next(), pair[1].base_offset);
    }
}

#[test]
fn a_batch_larger_than_a_segment_is_refused() {
    let mut rig = Rig::new(config());
    let error = rig
        .log
        .append_as_leader(batch("x", 500), epoch(0), NOW)
        .unwrap_err();
    assert!(
        matches!(
            error,
            AppendError::BatchTooLarge {
                segment_bytes: 1000,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(rig.log.log_end_offset(), offset(0));
}

#[test]
fn r9_an_epoch_never_falls() {
    let mut rig = Rig::new(config());
    rig.log
        .append_as_leader(batch("a", 1), epoch(3), NOW)
        .unwrap();
    let error = rig
        .log
        .append_as_leader(batch("b", 1), epoch(2), NOW)
        .unwrap_err();
    assert!(matches!(error, AppendError::EpochRegressed { .. }));
}

#[test]
fn a_follower_takes_the_leaders_bytes_as_they_are() {
    let (mut leader, mut follower) = (Rig::new(config()), Rig::new(config()));
    let mut stream = Vec::new();
    for n in 0..40 {
        let appended = leader
            .log
            .append_as_leader(batch(&format!("{n}"), 2), epoch(n / 10), NOW)
            .unwrap();
        stream.extend_from_slice(&appended.bytes);
        if n % 7 == 6 {
            let bytes = Bytes::from(std::mem::take(&mut stream));
            let appended = follower.log.append_as_follower(bytes, NOW).unwrap();
            assert_eq!(appended.last_offset.next(), leader.log.log_end_offset());
        }
    }
    follower
        .log
        .append_as_follower(Bytes::from(stream), NOW)
        .unwrap();
    assert_eq!(leader.contents(), follower.contents());
    assert_eq!(leader.log.epochs(), follower.log.epochs());
}

#[test]
fn a_follower_refuses_what_does_not_continue_its_log() {
    let mut leader = Rig::new(config());
    let a = leader.append("a", 2).bytes;
    let b = leader.append("b", 2).bytes;
    let mut follower = Rig::new(config());
    let refused = |follower: &mut Rig, bytes: Bytes| {
        let error = follower.log.append_as_follower(bytes, NOW).unwrap_err();
        assert_eq!(follower.log.log_end_offset(), offset(0));
        error
    };
    assert!(matches!(
        refused(&mut follower, b.clone()),
        AppendError::OutOfOrder { .. }
    ));
    let mut flipped = a.to_vec();
    flipped[70] ^= 1;
    assert!(matches!(
        refused(&mut follower, flipped.into()),
        AppendError::Corrupt(_)
    ));
    let mut short = a.to_vec();
    short.extend_from_slice(&b[..b.len() - 1]);
    assert!(matches!(
        refused(&mut follower, short.into()),
        AppendError::Corrupt(_)
    ));
    assert!(matches!(
        refused(&mut follower, Bytes::new()),
        AppendError::Corrupt(_)
    ));
    follower.log.append_as_follower(a.clone(), NOW).unwrap();
    let again = follower.log.append_as_follower(a, NOW).unwrap_err();
    assert!(matches!(again, AppendError::OutOfOrder { .. }));
}

#[test]
fn a_follower_may_start_inside_a_batch() {
    let mut leader = Rig::new(config());
    leader.append("a", 10);
    let b = leader.append("b", 10);
    let mut follower = Rig::new(config());
    follower
        .log
        .truncate_fully_and_start_at(offset(15))
        .unwrap();
    follower
        .log
        .append_as_follower(b.bytes.clone(), NOW)
        .unwrap();
    assert_eq!(follower.log.log_start_offset(), offset(15));
    assert_eq!(follower.log.log_end_offset(), offset(20));
    assert_eq!(follower.contents(), [b.bytes]);
}

#[test]
fn s7_a_start_inside_a_batch_that_does_not_fit_changes_nothing() {
    let mut leader = Rig::new(config());
    leader.append("a", 10);
    let first = leader.append("b", 10).bytes;
    let more: Vec<Bytes> = (0..8)
        .map(|n| leader.append(&format!("{n}"), 9).bytes)
        .collect();
    let all: Bytes = [std::slice::from_ref(&first), &more[..]]
        .concat()
        .concat()
        .into();
    for space in 0..2500 {
        let mut follower = Rig::new(config());
        follower
            .log
            .truncate_fully_and_start_at(offset(15))
            .unwrap();
        follower.files.set_faults(Faults {
            space_left: Some(space),
            ..Faults::default()
        });
        let before = follower.log.generation();
        let answer = follower.log.append_as_follower(all.clone(), NOW);
        follower.files.set_faults(Faults::default());
        if let Err(error) = answer {
            assert!(matches!(error, AppendError::NoSpace), "{space}: {error}");
            assert_eq!(follower.log.log_end_offset(), offset(15), "{space}");
            assert_eq!(follower.log.log_start_offset(), offset(15), "{space}");
            assert!(follower.contents().is_empty() && !follower.dir.failed());
            follower.log.append_as_follower(all.clone(), NOW).unwrap();
        }
        assert!(follower.log.generation() > before, "R-3");
        assert!(follower.log.flushed_offset() <= offset(10));
        let expected: Vec<Bytes> = [first.clone()].into_iter().chain(more.clone()).collect();
        assert_eq!(follower.contents(), expected, "{space}");
        assert_eq!(follower.log.log_start_offset(), offset(15));
        follower.flush();
        let end = follower.log.log_end_offset();
        follower.checkpoint();
        let follower = follower.power_cut(space);
        assert_eq!(follower.contents(), expected, "{space}");
        assert_eq!(follower.log.log_end_offset(), end);
        assert!(!follower.recovery.damaged_below_durable, "{space}");
    }
}

#[test]
fn segments_roll_by_age_and_by_index_size() {
    let by_age = LogConfig {
        segment_ms: 1000,
        ..config()
    };
    let mut rig = Rig::new(by_age);
    rig.log
        .append_as_leader(batch_at(NOW.0, "a", 1), epoch(0), NOW)
        .unwrap();
    rig.log
        .append_as_leader(batch_at(NOW.0 + 1000, "b", 1), epoch(0), NOW)
        .unwrap();
    assert_eq!(rig.log.segment_count(), 1);
    rig.log
        .append_as_leader(batch_at(NOW.0 + 1001, "c", 1), epoch(0), NOW)
        .unwrap();
    assert_eq!(rig.log.segment_count(), 2);
    assert!(!rig.log.maybe_roll(WallClockMs(NOW.0 + 2001)).unwrap());
    assert!(rig.log.maybe_roll(WallClockMs(NOW.0 + 2002)).unwrap());

    let small_index = LogConfig {
        segment_index_bytes: 24,
        index_interval_bytes: 0,
        ..config()
    };
    let mut rig = Rig::new(small_index);
    for n in 0..20 {
        rig.append(&format!("{n}"), 1);
    }
    assert!(rig.log.segment_count() > 4, "{}", rig.log.segment_count());
}

fn verdict(rig: &Rig, id: i64, epoch: i16, sequence: i32, count: usize) -> SequenceVerdict {
    let header = BatchHeader::parse(&idempotent(id, epoch, sequence, count)).unwrap();
    rig.log.check_sequence(&header)
}

fn write(rig: &mut Rig, id: i64, producer_epoch: i16, sequence: i32, count: usize) {
    assert_eq!(
        verdict(rig, id, producer_epoch, sequence, count),
        SequenceVerdict::New
    );
    let batch = idempotent(id, producer_epoch, sequence, count);
    rig.log.append_as_leader(batch, epoch(0), NOW).unwrap();
}

#[test]
fn p8_a_retry_is_recognized_and_a_gap_refused() {
    let mut rig = Rig::new(config());
    // Unknown producers may begin anywhere.
    write(&mut rig, 9, 0, 100, 5);
    for n in 0..7 {
        write(&mut rig, 9, 0, 105 + n * 5, 5);
    }
    // The last five are known, with their places; the one before is not.
    for n in 0..5i32 {
        let (sequence, place) = (115 + n * 5, i64::from(15 + n * 5));
        let expected = SequenceVerdict::Duplicate {
            base_offset: offset(place),
            last_offset: offset(place + 4),
            timestamp: NOW.0,
        };
        assert_eq!(verdict(&rig, 9, 0, sequence, 5), expected);
    }
    let out_of_order = SequenceVerdict::OutOfOrder { expected: 140 };
    assert_eq!(verdict(&rig, 9, 0, 110, 5), out_of_order);
    assert_eq!(verdict(&rig, 9, 0, 141, 5), out_of_order);
    // The same first sequence with another last one is no duplicate.
    assert_eq!(verdict(&rig, 9, 0, 135, 4), out_of_order);
}

#[test]
fn p50_epochs_of_a_producer_fence() {
    let mut rig = Rig::new(config());
    write(&mut rig, 9, 3, 0, 5);
    assert!(matches!(
        verdict(&rig, 9, 2, 5, 1),
        SequenceVerdict::FencedEpoch { .. }
    ));
    // Sequences of an older epoch are no duplicates either.
    assert!(matches!(
        verdict(&rig, 9, 2, 0, 5),
        SequenceVerdict::FencedEpoch { .. }
    ));
    assert_eq!(
        verdict(&rig, 9, 4, 5, 1),
        SequenceVerdict::OutOfOrder { expected: 0 }
    );
    write(&mut rig, 9, 4, 0, 5);
    assert!(matches!(
        verdict(&rig, 9, 3, 0, 5),
        SequenceVerdict::FencedEpoch { .. }
    ));
}

#[test]
fn sequences_wrap_after_the_largest() {
    let mut rig = Rig::new(config());
    write(&mut rig, 9, 0, i32::MAX - 2, 2);
    // MAX, 0, 1.
    write(&mut rig, 9, 0, i32::MAX, 3);
    assert!(matches!(
        verdict(&rig, 9, 0, i32::MAX, 3),
        SequenceVerdict::Duplicate { .. }
    ));
    write(&mut rig, 9, 0, 2, 1);
    assert_eq!(
        verdict(&rig, 9, 0, i32::MAX, 1),
        SequenceVerdict::OutOfOrder { expected: 3 }
    );
}

#[test]
fn batches_of_one_append_are_judged_together() {
    let mut rig = Rig::new(config());
    write(&mut rig, 1, 0, 0, 5);
    let batches: Vec<_> = [(1, 5), (2, 0), (1, 10), (2, 5)]
        .iter()
        .map(|(id, sequence)| idempotent(*id, 0, *sequence, 5))
        .collect();
    let mut checks = rig.log.sequence_checks();
    for batch in &batches {
        let header = BatchHeader::parse(batch).unwrap();
        assert_eq!(checks.check(&header), SequenceVerdict::New);
    }
    // A retry within the same append gets the place that the first will have.
    let retry = BatchHeader::parse(&batches[2]).unwrap();
    let expected = SequenceVerdict::Duplicate {
        base_offset: offset(15),
        last_offset: offset(19),
        timestamp: NOW.0,
    };
    assert_eq!(checks.check(&retry), expected);
    let gap = BatchHeader::parse(&idempotent(1, 0, 20, 5)).unwrap();
    assert_eq!(
        checks.check(&gap),
        SequenceVerdict::OutOfOrder { expected: 15 }
    );
    rig.log
        .append_many_as_leader(batches, epoch(0), NOW)
        .unwrap();
    assert_eq!(rig.log.check_sequence(&retry), expected);
}

#[test]
fn x17_producers_are_bounded_and_expire() {
    let bounded = LogConfig {
        producer_ids_max: 100,
        ..config()
    };
    let mut rig = Rig::new(bounded);
    for id in 0..1000 {
        write(&mut rig, id, 0, 0, 1);
        assert!(rig.log.producer_count() <= 100);
    }
    // The newest are kept.
    assert!(matches!(
        verdict(&rig, 999, 0, 0, 1),
        SequenceVerdict::Duplicate { .. }
    ));
    let day = 24 * 60 * 60 * 1000;
    let found_silent = 5_000;
    rig.log.expire_producers(MonotonicMs(found_silent));
    rig.log.expire_producers(MonotonicMs(found_silent + day));
    assert!(rig.log.producer_count() > 0);
    write(&mut rig, 5000, 0, 0, 1);
    rig.log
        .expire_producers(MonotonicMs(found_silent + day + 1));
    assert_eq!(rig.log.producer_count(), 1, "the one that wrote meanwhile");
    assert_eq!(rig.log.id(), id());
}

#[test]
fn p8_p50_a_producer_is_remembered_whatever_its_timestamps_say() {
    let day_ms = 24 * 60 * 60 * 1000;
    for timestamp in [-1, 0, NOW.0 - 2 * day_ms, NOW.0 + 2 * day_ms] {
        for restart in [false, true] {
            let mut rig = Rig::new(config());
            for n in 0..6 {
                let batch = idempotent_at(timestamp, 9, 0, n * 2, 2);
                rig.log.append_as_leader(batch, epoch(0), NOW).unwrap();
            }
            rig.log.expire_producers(MonotonicMs(1));
            rig.log.expire_producers(MonotonicMs(60_000));
            if restart {
                rig = rig.restart();
                rig.log.expire_producers(MonotonicMs(1));
            }
            for n in 1..6i32 {
                let found = verdict(&rig, 9, 0, n * 2, 2);
                let known = matches!(found, SequenceVerdict::Duplicate { .. });
                assert!(known, "{timestamp}, restart {restart}: {found:?}");
            }
        }
    }
}
