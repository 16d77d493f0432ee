//! Cutting the end off, and what must not outlive it.

use bytes::Bytes;
use ottla_records::BatchHeader;

use super::support::{NOW, Rig, batch, config, epoch, idempotent, offset};
use crate::{LogConfig, ReadError, SequenceVerdict};

fn next_offset(bytes: &[u8]) -> i64 {
    BatchHeader::parse(bytes).unwrap().next_offset().get()
}

#[test]
fn a_cut_removes_the_batch_that_holds_the_offset_and_all_after() {
    for to in 0..100 {
        let mut rig = Rig::new(config());
        let all: Vec<Bytes> = (0..50)
            .map(|n| rig.append(&format!("{n}"), 2).bytes)
            .collect();
        rig.flush();
        rig.log.truncate_to(offset(to)).unwrap();
        let kept: Vec<Bytes> = all
            .iter()
            .filter(|batch| next_offset(batch) <= to)
            .cloned()
            .collect();
        assert_eq!(rig.contents(), kept);
        assert_eq!(rig.log.log_end_offset().get(), to / 2 * 2);
        assert_eq!(rig.log.generation(), 1);
        // And the log goes on from there, across restarts of either kind.
        let mut expected = kept;
        for n in 0..30 {
            let batch = batch(&format!("new {n}"), 3);
            expected.push(
                rig.log
                    .append_as_leader(batch, epoch(1), NOW)
                    .unwrap()
                    .bytes,
            );
        }
        assert_eq!(rig.contents(), expected);
        rig = if to % 2 == 0 {
            rig.restart()
        } else {
            rig.kill()
        };
        assert_eq!(rig.contents(), expected, "to {to}");
        assert!(!rig.recovery.damaged_below_durable);
        let anew = rig.log.derived_anew().0;
        assert_eq!(&anew, rig.log.epochs(), "R-9, to {to}");
    }
}

#[test]
fn truncating_beyond_the_end_changes_nothing() {
    let mut rig = Rig::new(config());
    rig.append("a", 2);
    rig.log.truncate_to(offset(2)).unwrap();
    assert_eq!(
        (rig.log.generation(), rig.log.log_end_offset()),
        (0, offset(2))
    );
}

#[test]
fn s1_bytes_written_after_a_truncation_are_not_taken_for_durable_ones() {
    let mut holes = 0;
    for seed in 0..300 {
        let mut rig = Rig::new(LogConfig {
            segment_bytes: 100_000,
            ..config()
        });
        for n in 0..30 {
            rig.append(&format!("old {n}"), 2);
        }
        rig.flush();
        // The recovery point on disk is 60; only 20 of it was committed.
        rig.dir.write_checkpoints(&[rig.marks(offset(20))]).unwrap();
        rig.log.truncate_to(offset(20)).unwrap();
        let mut all = rig.contents();
        for n in 0..40 {
            let batch = batch(&format!("new and longer {n}"), 2);
            all.push(
                rig.log
                    .append_as_leader(batch, epoch(1), NOW)
                    .unwrap()
                    .bytes,
            );
        }
        // Nothing of the new is flushed. What survives the cut must be a whole prefix.
        let rig = rig.power_cut(seed);
        let found = rig.contents();
        assert!(found.len() >= 10, "seed {seed}");
        assert_eq!(found, all[..found.len()], "seed {seed}");
        assert!(!rig.recovery.damaged_below_durable, "seed {seed}");
        holes += u32::from(found.len() > 10 && found.len() < all.len());
    }
    assert!(holes > 10, "the power cuts were too kind: {holes}");
}

#[test]
fn the_recovery_floor_goes_once_a_checkpoint_is_later() {
    let mut rig = Rig::new(config());
    for n in 0..10 {
        rig.append(&format!("{n}"), 2);
    }
    rig.flush();
    rig.checkpoint();
    rig.log.truncate_to(offset(10)).unwrap();
    let floor = rig.partition_dir().join(crate::names::RECOVERY_FLOOR);
    rig.append("x", 1);
    rig.flush();
    assert!(
        rig.files.content(&floor).is_some(),
        "no checkpoint was written since"
    );
    rig.checkpoint();
    rig.append("y", 1);
    rig.flush();
    assert!(rig.files.content(&floor).is_none());
}

#[test]
fn r16_producer_state_is_that_of_the_batches_left() {
    let mut rig = Rig::new(config());
    for n in 0..20 {
        rig.log
            .append_as_leader(idempotent(5, 0, n * 2, 2), epoch(0), NOW)
            .unwrap();
    }
    rig.flush();
    rig.log.truncate_to(offset(20)).unwrap();
    let header = |sequence| BatchHeader::parse(&idempotent(5, 0, sequence, 2)).unwrap();
    assert_eq!(rig.log.check_sequence(&header(20)), SequenceVerdict::New);
    assert!(matches!(
        rig.log.check_sequence(&header(10)),
        SequenceVerdict::Duplicate { base_offset, .. } if base_offset == offset(10)
    ));
    // A snapshot of before the cut must not come back either.
    for n in 0..20 {
        rig.log
            .append_as_leader(idempotent(6, 0, n * 2, 2), epoch(0), NOW)
            .unwrap();
    }
    rig.flush();
    let before = rig.log.producers();
    let rig = rig.kill();
    assert_eq!(rig.log.producers(), before);
    assert_eq!(rig.log.check_sequence(&header(20)), SequenceVerdict::New);
}

#[test]
fn a_follower_can_start_elsewhere() {
    for to in [0, 7, 20, 5000] {
        let mut rig = Rig::new(config());
        for n in 0..20 {
            rig.append(&format!("{n}"), 2);
        }
        rig.flush();
        rig.checkpoint();
        let reader = rig.log.reader();
        rig.log.truncate_fully_and_start_at(offset(to)).unwrap();
        assert_eq!(rig.log.log_start_offset(), offset(to));
        assert_eq!(rig.log.log_end_offset(), offset(to));
        assert_eq!(rig.log.latest_epoch(), None);
        assert!(matches!(
            reader.read(offset(to + 1), offset(99), 1, true),
            Err(ReadError::OutOfRange { .. })
        ));
        let batch = rig
            .log
            .append_as_leader(batch("n", 2), epoch(9), NOW)
            .unwrap()
            .bytes;
        rig.flush();
        let rig = rig.kill();
        assert_eq!(rig.contents(), [batch], "to {to}");
        assert_eq!(rig.log.log_start_offset(), offset(to));
    }
}

#[test]
fn s9_a_truncation_cut_short_leaves_a_prefix() {
    // The power goes off after every single call that changes something.
    for calls in 0..60 {
        for seed in 0..6 {
            let mut rig = Rig::new(config());
            let all: Vec<Bytes> = (0..50)
                .map(|n| rig.append(&format!("{n}"), 2).bytes)
                .collect();
            rig.flush();
            rig.checkpoint();
            let faults = crate::testing::Faults {
                calls_left: Some(calls),
                ..Default::default()
            };
            rig.files.set_faults(faults);
            let done = rig.log.truncate_to(offset(31)).is_ok();
            let rig = rig.power_cut(seed);
            let found = rig.contents();
            assert!(
                found.len() >= 15,
                "calls {calls}, seed {seed}: {}",
                found.len()
            );
            assert_eq!(found, all[..found.len()], "calls {calls}, seed {seed}");
            assert!(!done || found.len() == 15, "a cut that returned is durable");
        }
    }
}
