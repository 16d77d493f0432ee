//! Starting again with less than there was: what is damage, and what a lost tail.

use super::support::{NOW, Rig, config, fill, offset, segment_path};
use crate::LogConfig;

#[test]
fn s2_damage_below_the_durable_mark_is_reported_and_kept_aside() {
    let mut rig = Rig::new(config());
    let all = fill(&mut rig, 50);
    rig.flush();
    let bad = segment_path(&rig.partition_dir(), 0, "log");
    // Mode `ack`: what the high watermark covered had been flushed, whatever the recovery point.
    let mut marks = rig.marks(offset(100));
    marks.recovery_point = offset(0);
    rig.dir.write_checkpoints(&[marks]).unwrap();
    let size = rig.files.content(&bad).unwrap().len();
    rig.files
        .corrupt(&bad, |bytes| bytes[all[0].len() + 80] ^= 1);
    let rig = rig.kill();
    assert!(rig.recovery.damaged_below_durable);
    assert_eq!(rig.contents(), all[..1], "never served");
    let aside: Vec<_> = rig.files.paths(&rig.partition_dir());
    let aside: Vec<_> = aside
        .iter()
        .filter(|p| p.to_string_lossy().ends_with(".damaged"))
        .collect();
    assert!(aside.len() > 3, "{aside:?}");
    let kept = rig.files.content(aside[0]).unwrap();
    assert_eq!(kept.len(), size - all[0].len());
    // A crash before the controller knows must not hide it.
    let mut rig = rig.kill();
    assert!(rig.recovery.damaged_below_durable);
    rig.log.forget_damage().unwrap();
    rig.checkpoint();
    let rig = rig.kill();
    assert!(!rig.recovery.damaged_below_durable);
}

#[test]
fn p28_damage_that_only_a_walk_finds_is_cut_and_reported_too() {
    for clean in [true, false] {
        let mut rig = Rig::new(config());
        let all = fill(&mut rig, 50);
        rig.flush();
        rig.checkpoint();
        let dir = rig.partition_dir();
        let (files, settings) = if clean {
            let config = rig.log.config().clone();
            (rig.restart().files, config)
        } else {
            let config = rig.log.config().clone();
            (rig.files.after_kill(), config)
        };
        // The head of a batch far below the recovery point, and nothing to spare the walk.
        let bad = segment_path(&dir, 0, "log");
        files.corrupt(&bad, |bytes| bytes[all[0].len() + 16] ^= 0xff);
        for path in files.paths(&dir) {
            let name = path.to_string_lossy().into_owned();
            if name.ends_with("snapshot") || name.ends_with("producers") {
                files.lose(&path);
            }
        }
        let mut rig = Rig::open(files, settings);
        assert!(rig.recovery.damaged_below_durable, "clean {clean}");
        assert_eq!(rig.contents(), all[..1], "clean {clean}");
        // It fills up again from the leader.
        rig.log.append_as_follower(all[1].clone(), NOW).unwrap();
        assert_eq!(rig.contents(), all[..2]);
    }
}

#[test]
fn s2_a_log_that_is_shorter_than_what_was_committed_is_damaged() {
    let mut rig = Rig::new(LogConfig {
        segment_bytes: 100_000,
        ..config()
    });
    let all = fill(&mut rig, 10);
    rig.flush();
    rig.checkpoint();
    let path = segment_path(&rig.partition_dir(), 0, "log");
    rig.files
        .corrupt(&path, |bytes| bytes.truncate(bytes.len() - all[9].len()));
    let rig = rig.kill();
    assert!(rig.recovery.damaged_below_durable && rig.recovery.checkpoint_ahead);
    assert_eq!(rig.recovery.high_watermark, offset(18), "S-4: clamped");
}

#[test]
fn p13_in_mode_page_a_lost_tail_is_no_damage() {
    for seed in 0..50 {
        let page = LogConfig {
            flush_messages: u64::MAX,
            ..config()
        };
        let mut rig = Rig::new(page);
        let all = fill(&mut rig, 40);
        // The high watermark was checkpointed without a flush.
        rig.dir.write_checkpoints(&[rig.marks(offset(80))]).unwrap();
        let rig = rig.power_cut(seed);
        let found = rig.contents();
        assert_eq!(found, all[..found.len()], "seed {seed}");
        assert!(!rig.recovery.damaged_below_durable, "seed {seed}");
        assert_eq!(
            rig.recovery.checkpoint_ahead,
            found.len() < 40,
            "S-4, seed {seed}"
        );
    }
}

/// At a start the topic's settings are not known yet: every log is opened as if in mode `ack`.
fn power_cut_before_metadata(rig: Rig, seed: u64) -> Rig {
    Rig::open(rig.files.after_power_cut(seed), config())
}

#[test]
fn p13_the_mode_is_known_before_the_settings_are() {
    let page = LogConfig {
        flush_messages: u64::MAX,
        ..config()
    };
    for seed in 0..50 {
        // Once in mode `page` from the beginning, once switched.
        for begin in [page.clone(), config()] {
            let mut rig = Rig::new(begin);
            rig.checkpoint();
            rig.log.set_config(page.clone());
            fill(&mut rig, 40);
            rig.dir.write_checkpoints(&[rig.marks(offset(80))]).unwrap();
            let rig = power_cut_before_metadata(rig, seed);
            assert!(!rig.recovery.damaged_below_durable, "seed {seed}");
            // Nor does it count before the settings are known again.
            let rig = power_cut_before_metadata(rig, seed);
            assert!(!rig.recovery.damaged_below_durable, "seed {seed}");
        }
    }
}

#[test]
fn s2_a_log_switched_back_to_mode_ack_is_held_to_its_high_watermark() {
    let page = LogConfig {
        flush_messages: u64::MAX,
        segment_bytes: 100_000,
        ..config()
    };
    let mut rig = Rig::new(page);
    let all = fill(&mut rig, 40);
    rig.dir.write_checkpoints(&[rig.marks(offset(80))]).unwrap();
    rig.log.set_config(config());
    rig.flush();
    let mut marks = rig.marks(offset(80));
    marks.recovery_point = offset(0);
    rig.dir.write_checkpoints(&[marks]).unwrap();
    let path = segment_path(&rig.partition_dir(), 0, "log");
    rig.files
        .corrupt(&path, |bytes| bytes.truncate(bytes.len() - all[39].len()));
    let rig = power_cut_before_metadata(rig, 1);
    assert!(rig.recovery.damaged_below_durable);
}

#[test]
fn s2_in_mode_page_too_what_was_flushed_must_be_there() {
    let mut rig = Rig::new(LogConfig {
        flush_messages: u64::MAX,
        segment_bytes: 100_000,
        ..config()
    });
    let all = fill(&mut rig, 10);
    rig.flush();
    rig.checkpoint();
    let path = segment_path(&rig.partition_dir(), 0, "log");
    rig.files
        .corrupt(&path, |bytes| bytes.truncate(bytes.len() - all[9].len()));
    assert!(rig.kill().recovery.damaged_below_durable);
}
