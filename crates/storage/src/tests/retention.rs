//! The old end of the log.

use bytes::Bytes;
use ottla_types::WallClockMs;

use super::support::{NOW, Rig, batch_at, config, epoch, offset};
use crate::LogConfig;

/// Batches a second apart.
fn timed(config: LogConfig, count: i64) -> (Rig, Vec<Bytes>) {
    let mut rig = Rig::new(config);
    let all = (0..count)
        .map(|n| {
            let batch = batch_at(NOW.0 + n * 1000, &format!("batch {n}"), 1);
            rig.log
                .append_as_leader(batch, epoch(0), NOW)
                .unwrap()
                .bytes
        })
        .collect();
    (rig, all)
}

#[test]
fn segments_older_than_retention_ms_go() {
    let (mut rig, all) = timed(
        LogConfig {
            retention_ms: Some(20_000),
            ..config()
        },
        60,
    );
    let now = WallClockMs(NOW.0 + 60_000);
    let end = rig.log.log_end_offset();
    let deleted = rig.log.apply_retention(now, end).unwrap();
    let start = rig.log.log_start_offset().get();
    // Whole segments only: none whose newest record is within 20 s.
    assert!((30..=39).contains(&start), "{start}");
    assert_eq!(deleted.first().map(|d| d.base_offset), Some(offset(0)));
    assert_eq!(deleted.last().map(|d| d.end_offset), Some(offset(start)));
    assert_eq!(rig.contents(), all[usize::try_from(start).unwrap()..]);
    assert_eq!(
        rig.log.epochs().first().unwrap().start_offset,
        offset(start)
    );
    // Their files wait, and then go.
    let waiting = |rig: &Rig| {
        let paths = rig.files.paths(&rig.partition_dir());
        paths
            .iter()
            .filter(|p| p.to_string_lossy().ends_with(".deleted"))
            .count()
    };
    assert!(waiting(&rig) >= deleted.len());
    for segment in deleted {
        segment.remove().unwrap();
    }
    assert_eq!(waiting(&rig), 0);
}

#[test]
fn r17_nothing_at_or_above_the_high_watermark_goes() {
    let everything = LogConfig {
        retention_ms: Some(0),
        ..config()
    };
    let (mut rig, _) = timed(everything, 60);
    let now = WallClockMs(NOW.0 + 1_000_000);
    rig.log.apply_retention(now, offset(25)).unwrap();
    let start = rig.log.log_start_offset();
    assert!(start > offset(10) && start <= offset(25), "{start}");
    let end = rig.log.log_end_offset();
    // The active segment goes as well once all of it is below.
    rig.log.apply_retention(now, end).unwrap();
    assert_eq!(rig.log.log_start_offset(), end);
    assert_eq!(rig.log.size_bytes(), 0);
    let rig = rig.restart();
    assert_eq!(
        (rig.log.log_start_offset(), rig.log.log_end_offset()),
        (end, end)
    );
}

#[test]
fn the_oldest_segments_beyond_retention_bytes_go() {
    let limit = LogConfig {
        retention_ms: None,
        retention_bytes: Some(2500),
        ..config()
    };
    let (mut rig, all) = timed(limit, 60);
    let before = rig.log.size_bytes();
    let end = rig.log.log_end_offset();
    rig.log.apply_retention(NOW, end).unwrap();
    let after = rig.log.size_bytes();
    assert!(
        before > 4000 && (2500..3600).contains(&after),
        "{before} {after}"
    );
    let start = usize::try_from(rig.log.log_start_offset().get()).unwrap();
    assert_eq!(rig.contents(), all[start..]);
}

#[test]
fn without_the_delete_policy_only_the_log_start_counts() {
    let kept = LogConfig {
        retention_ms: Some(0),
        cleanup_delete: false,
        ..config()
    };
    let (mut rig, all) = timed(kept, 60);
    let (now, end) = (WallClockMs(NOW.0 + 1_000_000), rig.log.log_end_offset());
    assert!(rig.log.apply_retention(now, end).unwrap().is_empty());
    assert_eq!(rig.contents(), all);
    let deleted = rig.log.set_log_start_offset(offset(33)).unwrap();
    assert!(deleted.len() > 1 && deleted.iter().all(|d| d.end_offset <= offset(33)));
    assert_eq!(rig.log.log_start_offset(), offset(33));
    // It never falls, and never passes the end.
    assert!(rig.log.set_log_start_offset(offset(12)).unwrap().is_empty());
    assert_eq!(rig.log.log_start_offset(), offset(33));
    assert!(rig.log.set_log_start_offset(offset(61)).is_err());
    rig.checkpoint();
    let mut rig = rig.restart();
    assert_eq!(rig.log.log_start_offset(), offset(33));
    assert_eq!(rig.contents()[0], {
        let at = all
            .iter()
            .position(|b| Some(b) == rig.contents().first())
            .unwrap();
        assert_eq!(at, 33);
        all[at].clone()
    });
    rig.append("on", 1);
}

#[test]
fn readers_of_a_deleted_segment_finish() {
    let (mut rig, all) = timed(
        LogConfig {
            retention_ms: Some(0),
            ..config()
        },
        30,
    );
    let reader = rig.log.reader();
    let end = reader.log_end_offset();
    let slice = reader.locate(offset(0), end, 100_000, true).unwrap();
    for segment in rig
        .log
        .apply_retention(WallClockMs(NOW.0 + 1_000_000), end)
        .unwrap()
    {
        segment.remove().unwrap();
    }
    let bytes = slice.read().unwrap();
    assert!(bytes.starts_with(&all[0]));
}

#[test]
fn s9_a_deletion_cut_short_leaves_no_hole() {
    for calls in 0..40 {
        for seed in 0..4 {
            let (mut rig, all) = timed(
                LogConfig {
                    retention_ms: Some(20_000),
                    ..config()
                },
                60,
            );
            rig.flush();
            rig.checkpoint();
            let faults = crate::testing::Faults {
                calls_left: Some(calls),
                ..Default::default()
            };
            rig.files.set_faults(faults);
            let end = rig.log.log_end_offset();
            let _ = rig.log.apply_retention(WallClockMs(NOW.0 + 60_000), end);
            let rig = rig.power_cut(seed);
            let found = rig.contents();
            assert!(!found.is_empty());
            assert_eq!(
                found,
                all[all.len() - found.len()..],
                "calls {calls}, seed {seed}"
            );
        }
    }
}
