//! Starting again after whatever happened.

use std::sync::Arc;

use ottla_records::BatchHeader;
use ottla_types::{BrokerId, PartitionId, TopicId};
use uuid::Uuid;

use super::support::{
    NOW, Rig, TOPIC, batch, config, epoch, fill, id, idempotent, offset, root, segment_path,
};
use crate::{LogConfig, LogDir, SequenceVerdict};

#[test]
fn s5_a_clean_end_needs_no_scan() {
    let mut rig = Rig::new(config());
    let all = fill(&mut rig, 40);
    let epochs = rig.log.epochs().clone();
    let rig = rig.restart();
    assert_eq!(rig.recovery.scanned_bytes, 0);
    assert_eq!(rig.recovery.indexes_rebuilt, 0);
    assert!(!rig.recovery.damaged_below_durable && !rig.recovery.checkpoint_ahead);
    assert_eq!(rig.recovery.high_watermark, offset(80));
    assert_eq!(rig.contents(), all);
    assert_eq!(rig.log.epochs(), &epochs);
    assert_eq!(rig.log.flushed_offset(), offset(80));
}

#[test]
fn s5_the_marker_of_one_end_does_not_speak_for_the_next() {
    let mut rig = Rig::new(config());
    fill(&mut rig, 10);
    let rig = rig.restart().kill();
    assert!(rig.recovery.scanned_bytes > 0 || rig.log.log_end_offset() == offset(20));
    let files = rig.files.paths(&super::support::root());
    assert!(
        !files
            .iter()
            .any(|path| path.ends_with(crate::meta::CLEAN_SHUTDOWN))
    );
}

#[test]
fn p11_a_kill_loses_nothing_that_was_written() {
    let mut rig = Rig::new(config());
    let all = fill(&mut rig, 40);
    let mut rig = rig.kill();
    assert_eq!(rig.contents(), all);
    assert_eq!(rig.recovery.truncated_bytes, 0);
    // What recovery showed is durable.
    assert_eq!(rig.log.flushed_offset(), offset(80));
    let rig2 = rig.append("more", 1).bytes;
    let rig = rig.kill();
    assert_eq!(rig.contents().last(), Some(&rig2));
}

#[test]
fn p27_a_torn_tail_is_cut_at_the_last_whole_batch() {
    for cut in 1..120 {
        let mut rig = Rig::new(LogConfig {
            segment_bytes: 100_000,
            ..config()
        });
        let all = fill(&mut rig, 10);
        let path = segment_path(&rig.partition_dir(), 0, "log");
        rig.files
            .corrupt(&path, |bytes| bytes.truncate(bytes.len() - cut));
        let rig = rig.kill();
        let found = rig.contents();
        let lost = all.iter().rev().scan(0, |sum, batch| {
            let before = *sum;
            *sum += batch.len();
            Some(before)
        });
        let lost = lost.take_while(|before| *before < cut).count();
        assert_eq!(found, all[..10 - lost], "cut {cut}");
        assert!(!rig.recovery.damaged_below_durable);
    }
}

#[test]
fn p27_a_torn_batch_takes_later_segments_with_it() {
    let mut rig = Rig::new(config());
    let all = fill(&mut rig, 50);
    let segments = rig.log.segment_count();
    let path = segment_path(&rig.partition_dir(), 0, "log");
    // Nothing was flushed, so the first segment may be torn anywhere.
    rig.files
        .corrupt(&path, |bytes| bytes[all[0].len() * 2 + 90] ^= 1);
    let mut rig = rig.kill();
    let found = rig.contents();
    assert!(found.len() < 4 && segments > 3);
    assert_eq!(found, all[..found.len()]);
    assert!(rig.recovery.truncated_bytes > 3000);
    assert_eq!(rig.log.segment_count(), 1);
    rig.append("on", 1);
    assert_eq!(rig.restart().contents().len(), found.len() + 1);
}

#[test]
fn s12_the_scan_begins_at_the_recovery_point() {
    let mut rig = Rig::new(LogConfig {
        segment_bytes: 1 << 20,
        ..config()
    });
    fill(&mut rig, 2000);
    rig.flush();
    rig.log.write_producer_snapshot();
    rig.flush();
    rig.checkpoint();
    let tail = fill_more(&mut rig, 10);
    // The index is written behind; without it the whole segment would be checked.
    let rig = rig.kill();
    let limit = tail + 200 + 64 * 300;
    assert!(
        rig.recovery.scanned_bytes < limit as u64,
        "{}",
        rig.recovery.scanned_bytes
    );
    assert!(rig.recovery.scanned_bytes >= tail as u64);
}

#[test]
fn s12_a_start_replays_no_more_than_was_appended_since_a_snapshot() {
    let snapshots_of = |rig: &Rig| {
        let paths = rig.files.paths(&rig.partition_dir());
        let ends_with = |suffix: &str| {
            let named = |path: &&std::path::PathBuf| path.to_string_lossy().ends_with(suffix);
            paths.iter().filter(named).count()
        };
        assert_eq!(ends_with(".snapshot"), ends_with(".producers"));
        ends_with(".snapshot")
    };
    let mut rig = Rig::new(LogConfig {
        segment_bytes: 1 << 20,
        producer_snapshot_bytes: 5_000,
        ..config()
    });
    let mut last = 0;
    for round in 0..6 {
        for n in 0..100i32 {
            let sequence = round * 200 + n * 2;
            let batch = idempotent(3, 1, sequence, 2);
            last = batch.len() as u64;
            rig.log.append_as_leader(batch, epoch(0), NOW).unwrap();
            rig.flush();
            // Those that newer ones replaced go.
            assert!(snapshots_of(&rig) <= 3);
        }
        assert!(rig.log.size_bytes() > 5_000 && rig.log.segment_count() == 1);
        let producers = rig.log.producers();
        rig = if round % 2 == 0 {
            rig.kill()
        } else {
            rig.power_cut(u64::from(round.unsigned_abs()))
        };
        assert_eq!(rig.log.producers(), producers, "R-16");
        if round % 2 == 0 {
            let replayed = rig.recovery.replayed_bytes;
            assert!(replayed < 5_000 + last, "{replayed}");
        }
    }
    let rig = rig.restart();
    assert_eq!(rig.recovery.replayed_bytes, 0, "a clean end writes one");
}

fn fill_more(rig: &mut Rig, count: i32) -> usize {
    (0..count)
        .map(|n| {
            let batch = batch(&format!("more {n}"), 2);
            rig.log
                .append_as_leader(batch, epoch(300), NOW)
                .unwrap()
                .bytes
                .len()
        })
        .sum()
}

#[test]
fn s3_whatever_is_derived_may_be_lost_or_scrambled() {
    for kind in [
        "index",
        "timeindex",
        "snapshot",
        "producers",
        "leader-epoch-checkpoint",
    ] {
        for scramble in [false, true] {
            let mut rig = Rig::new(config());
            fill(&mut rig, 30);
            for n in 0..7 {
                let batch = idempotent(3, 1, n * 2, 2);
                rig.log.append_as_leader(batch, epoch(9), NOW).unwrap();
            }
            rig.flush();
            rig.checkpoint();
            let (all, epochs) = (rig.contents(), rig.log.epochs().clone());
            let producers = rig.log.producers();
            let dir = rig.partition_dir();
            for clean in [false, true] {
                for path in rig.files.paths(&dir) {
                    if !path.to_string_lossy().ends_with(kind) {
                        continue;
                    }
                    if scramble {
                        rig.files.corrupt(&path, |bytes| {
                            bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
                        });
                    } else {
                        rig.files.lose(&path);
                    }
                }
                let context = format!("{kind}, scrambled {scramble}, clean {clean}");
                rig = if clean { rig.restart() } else { rig.kill() };
                assert_eq!(rig.contents(), all, "{context}");
                assert_eq!(rig.log.epochs(), &epochs, "{context}");
                assert_eq!(rig.log.producers(), producers, "{context}");
                for n in 2..7i32 {
                    let header = BatchHeader::parse(&idempotent(3, 1, n * 2, 2)).unwrap();
                    let verdict = rig.log.check_sequence(&header);
                    let found = matches!(verdict, SequenceVerdict::Duplicate { .. });
                    assert!(found, "{context}: {verdict:?}");
                }
            }
        }
    }
}

#[test]
fn r9_a_plausible_but_wrong_epoch_list_is_found_out() {
    let mut rig = Rig::new(config());
    fill(&mut rig, 40);
    rig.flush();
    rig.checkpoint();
    let truth = rig.log.epochs().clone();
    assert_eq!(truth.entries().len(), 5);
    for wrong in [
        "0\n0\n",
        "0\n1\n0 0\n",
        "0\n2\n0 0\n4 64\n",
        "0\n4\n1 16\n2 32\n3 48\n4 64\n",
        "0\n5\n0 0\n1 18\n2 32\n3 48\n4 64\n",
        "0\n5\n0 0\n1 16\n2 32\n3 48\n5 64\n",
        "0\n4\n0 0\n1 16\n3 48\n4 64\n",
    ] {
        let path = rig.partition_dir().join(crate::names::EPOCHS);
        if rig.files.content(&path).is_none() {
            rig = rig.restart();
        }
        rig.files
            .corrupt(&path, |bytes| *bytes = wrong.as_bytes().to_vec());
        rig = rig.kill();
        assert_eq!(rig.log.epochs(), &truth, "{wrong:?}");
    }
}

#[test]
fn p8_the_last_five_batches_survive_a_restart_of_either_kind() {
    for clean in [true, false] {
        let mut rig = Rig::new(config());
        for n in 0..9 {
            rig.log
                .append_as_leader(idempotent(3, 1, n * 2, 2), epoch(9), NOW)
                .unwrap();
        }
        let rig = if clean { rig.restart() } else { rig.kill() };
        for n in 0..9i32 {
            let header = BatchHeader::parse(&idempotent(3, 1, n * 2, 2)).unwrap();
            let verdict = rig.log.check_sequence(&header);
            let known = matches!(verdict, SequenceVerdict::Duplicate { .. });
            assert_eq!(known, n >= 4, "batch {n}, clean {clean}: {verdict:?}");
        }
    }
}

#[test]
fn litter_of_deletions_and_writes_is_removed() {
    let mut rig = Rig::new(config());
    let all = fill(&mut rig, 10);
    rig.flush();
    let dir = rig.partition_dir();
    let put = |name: &str| {
        use crate::files::{Access, Files, write_bytes_at};
        let file = rig.files.open(&dir.join(name), Access::Create).unwrap();
        write_bytes_at(&*file, b"junk", 0).unwrap();
    };
    let litter = [
        "00000000000000000000.log.deleted",
        "00000000000000000777.log.cleaned",
        "00000000000000000777.log.swap",
        "leader-epoch-checkpoint.3.tmp",
        "00000000000000000777.index",
    ];
    litter.iter().for_each(|name| put(name));
    let rig = rig.kill();
    assert_eq!(rig.contents(), all);
    for name in litter {
        assert!(rig.files.content(&dir.join(name)).is_none(), "{name}");
    }
}

#[test]
fn an_unfinished_swap_is_finished() {
    let mut rig = Rig::new(config());
    let all = fill(&mut rig, 30);
    rig.flush();
    let dir = rig.partition_dir();
    // A "compacted" first segment: the bytes of it and of the next together.
    let first = rig.files.content(&segment_path(&dir, 0, "log")).unwrap();
    let next = BatchHeader::parse(&all[0]).unwrap();
    assert_eq!(next.base_offset, 0);
    use crate::files::{Access, Files, write_bytes_at};
    let swap = dir.join("00000000000000000000.log.swap");
    let file = rig.files.open(&swap, Access::Create).unwrap();
    write_bytes_at(&*file, &first, 0).unwrap();
    let rig = rig.kill();
    assert_eq!(rig.contents(), all);
    assert!(rig.files.content(&swap).is_none());
}

#[test]
fn a_log_below_its_log_start_begins_anew() {
    let mut rig = Rig::new(config());
    fill(&mut rig, 5);
    let mut marks = rig.marks(offset(10));
    marks.log_start_offset = offset(500);
    rig.dir.write_checkpoints(&[marks]).unwrap();
    let rig = rig.kill();
    assert_eq!(rig.log.log_start_offset(), offset(500));
    assert_eq!(rig.log.log_end_offset(), offset(500));
    assert!(rig.contents().is_empty() && rig.recovery.checkpoint_ahead);
}

#[test]
fn a_partition_created_anew_has_no_marks_of_the_deleted_one_after_a_crash() {
    let mut rig = Rig::new(config());
    fill(&mut rig, 5);
    let mut marks = rig.marks(offset(10));
    marks.log_start_offset = offset(5);
    rig.dir.write_checkpoints(&[marks]).unwrap();
    let config = rig.log.config().clone();
    rig.dir.delete_log(rig.log).unwrap();
    drop(rig.dir.open_log(TOPIC, id(), config.clone(), NOW).unwrap());
    let rig = Rig::open(rig.files.after_kill(), config);
    assert_eq!(rig.log.log_start_offset(), offset(0));
    assert!(!rig.recovery.damaged_below_durable && !rig.recovery.checkpoint_ahead);
}

#[test]
fn r18_marks_collected_before_a_deletion_are_not_those_of_the_new_topic() {
    let mut rig = Rig::new(config());
    fill(&mut rig, 5);
    rig.flush();
    let mut late = rig.marks(offset(10));
    late.log_start_offset = offset(5);
    let config = rig.log.config().clone();
    rig.dir.delete_log(rig.log).unwrap();
    // Another checkpoint in between: nothing of the old partition is on disk any more.
    rig.dir.write_checkpoints(&[]).unwrap();
    let again = PartitionId {
        topic_id: TopicId::new(Uuid::from_u128(8)).unwrap(),
        ..id()
    };
    rig.dir.write_checkpoints(&[late.clone()]).unwrap();
    let (log, _) = rig.dir.open_log(TOPIC, again, config.clone(), NOW).unwrap();
    rig.dir.write_checkpoints(&[late]).unwrap();
    drop((log, rig.dir));
    let (dir, _) = LogDir::open(&root(), BrokerId(1), Arc::new(rig.files.after_kill())).unwrap();
    let (log, recovery) = dir.open_log(TOPIC, again, config, NOW).unwrap();
    assert_eq!(log.log_start_offset(), offset(0));
    assert!(!recovery.damaged_below_durable && !recovery.checkpoint_ahead);
}

#[test]
fn an_epoch_without_records_is_forgotten_when_the_log_is_cut_at_its_end() {
    let mut rig = Rig::new(config());
    rig.append("a", 3);
    let before = rig.log.latest_epoch();
    let end = rig.log.log_end_offset();
    rig.log.assign_epoch(epoch(7), end);
    rig.log.truncate_to(end).unwrap();
    assert_eq!(rig.log.latest_epoch(), before);
}
