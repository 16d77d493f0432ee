//! What counts as durable.

use super::support::{NOW, Rig, batch, config, epoch, offset};

#[test]
fn flushing_covers_what_was_appended_before_it_began() {
    let mut rig = Rig::new(config());
    rig.append("a", 2);
    let job = rig.log.begin_flush().unwrap();
    rig.append("b", 2);
    assert_eq!(rig.log.flushed_offset(), offset(0));
    rig.log.on_flushed(job.run()).unwrap();
    assert_eq!(rig.log.flushed_offset(), offset(2));
    rig.flush();
    assert_eq!(rig.log.flushed_offset(), offset(4));
    assert!(rig.log.begin_flush().is_none());
}

#[test]
fn r3_a_flush_from_before_a_truncation_counts_for_nothing() {
    let mut rig = Rig::new(config());
    for n in 0..5 {
        rig.append(&format!("{n}"), 2);
    }
    let job = rig.log.begin_flush().unwrap();
    let done = job.run();
    rig.log.truncate_to(offset(4)).unwrap();
    for _ in 0..5 {
        rig.log
            .append_as_leader(batch("other", 2), epoch(1), NOW)
            .unwrap();
    }
    rig.log.on_flushed(done).unwrap();
    assert!(
        rig.log.flushed_offset() <= offset(4),
        "{}",
        rig.log.flushed_offset()
    );
}

#[test]
fn s8_a_rolled_segment_and_its_name_are_durable_before_the_next_offset_counts() {
    for seed in 0..200 {
        let mut rig = Rig::new(config());
        let mut expected = Vec::new();
        for n in 0..40 {
            expected.push(rig.append(&format!("batch {n}"), 2).bytes);
        }
        assert!(rig.log.segment_count() > 2);
        rig.flush();
        assert_eq!(rig.log.flushed_offset(), rig.log.log_end_offset());
        // Not even a checkpoint was written.
        let rig = rig.power_cut(seed);
        assert_eq!(rig.contents(), expected, "seed {seed}");
        assert!(!rig.recovery.damaged_below_durable);
    }
}

#[test]
fn two_flushes_at_once_do_not_count_for_each_other() {
    for seed in 0..100 {
        let mut rig = Rig::new(config());
        let mut expected = Vec::new();
        for n in 0..20 {
            expected.push(rig.append(&format!("batch {n}"), 2).bytes);
        }
        let first = rig.log.begin_flush().unwrap();
        for n in 20..40 {
            expected.push(rig.append(&format!("batch {n}"), 2).bytes);
        }
        // The second is done, the first never runs: all of it counts nevertheless.
        let second = rig.log.begin_flush().unwrap();
        rig.log.on_flushed(second.run()).unwrap();
        drop(first);
        assert_eq!(rig.log.flushed_offset(), rig.log.log_end_offset());
        let rig = rig.power_cut(seed);
        assert_eq!(rig.contents(), expected, "seed {seed}");
    }
}

#[test]
fn nothing_to_flush_is_no_sync() {
    let mut rig = Rig::new(config());
    rig.append("a", 1);
    rig.flush();
    let before = rig.files.syncs();
    rig.append("b", 1);
    rig.flush();
    // One file, one sync: the budget of an acknowledged produce.
    assert_eq!(rig.files.syncs() - before, 1);
    rig.flush();
    assert_eq!(rig.files.syncs() - before, 1);
}
