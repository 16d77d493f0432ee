//! A full disk, a failing disk, and writes that take only a part.

use bytes::Bytes;

use super::support::{NOW, Rig, batch, config, epoch, id, offset};
use crate::testing::Faults;
use crate::{AppendError, LogConfig, LogError};

#[test]
fn s7_a_full_disk_refuses_the_whole_append_and_heals() {
    for space in 0..600 {
        let mut rig = Rig::new(config());
        let mut all: Vec<Bytes> = (0..5)
            .map(|n| rig.append(&format!("{n}"), 2).bytes)
            .collect();
        rig.files.set_faults(Faults {
            space_left: Some(space),
            ..Faults::default()
        });
        let batches: Vec<_> = (0..30).map(|n| batch(&format!("big {n}"), 3)).collect();
        let error = rig
            .log
            .append_many_as_leader(batches, epoch(1), NOW)
            .unwrap_err();
        assert!(
            matches!(error, AppendError::NoSpace),
            "space {space}: {error:?}"
        );
        assert!(!rig.dir.failed());
        assert_eq!(rig.contents(), all, "space {space}");
        assert_eq!(rig.log.log_end_offset(), offset(10));
        assert_eq!(rig.log.producer_count(), 0);
        // Space returns: the same append works, and a restart sees just that.
        rig.files.set_faults(Faults::default());
        let batches: Vec<_> = (0..30).map(|n| batch(&format!("big {n}"), 3)).collect();
        let appended = rig
            .log
            .append_many_as_leader(batches, epoch(1), NOW)
            .unwrap();
        all.extend(appended.into_iter().map(|a| a.bytes));
        assert_eq!(rig.contents(), all);
        rig.flush();
        let rig = rig.power_cut(space);
        assert_eq!(rig.contents(), all, "space {space}");
    }
}

#[test]
fn too_many_open_files_refuse_and_fail_nothing() {
    let mut rig = Rig::new(config());
    let mut all: Vec<Bytes> = (0..5)
        .map(|n| rig.append(&format!("{n}"), 2).bytes)
        .collect();
    let faults = Faults {
        fail_opens: true,
        ..Faults::default()
    };
    rig.files.set_faults(faults.clone());
    let batches = || (0..30).map(|n| batch(&format!("big {n}"), 3)).collect();
    // It has to roll.
    let error = rig
        .log
        .append_many_as_leader(batches(), epoch(1), NOW)
        .unwrap_err();
    assert!(matches!(error, AppendError::TooManyFiles), "{error:?}");
    assert_eq!(rig.contents(), all);
    rig.files.set_faults(Faults::default());
    let appended = rig
        .log
        .append_many_as_leader(batches(), epoch(1), NOW)
        .unwrap();
    all.extend(appended.into_iter().map(|a| a.bytes));
    // A flush that cannot open the directory or an index has synced nothing, and says so.
    rig.files.set_faults(faults);
    let done = rig.log.begin_flush().unwrap().run();
    let error = rig.log.on_flushed(done).unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(rig.log.flushed_offset(), offset(0));
    assert!(!rig.dir.failed());
    rig.files.set_faults(Faults::default());
    rig.flush();
    assert_eq!(rig.log.flushed_offset(), rig.log.log_end_offset());
    assert_eq!(rig.power_cut(7).contents(), all);
}

#[test]
fn p23_reads_go_on_while_the_disk_is_full() {
    let mut rig = Rig::new(config());
    let all: Vec<Bytes> = (0..20)
        .map(|n| rig.append(&format!("{n}"), 2).bytes)
        .collect();
    rig.files.set_faults(Faults {
        space_left: Some(0),
        ..Faults::default()
    });
    assert_eq!(rig.contents(), all);
    // A flush needs no space.
    rig.flush();
    assert_eq!(rig.log.flushed_offset(), offset(40));
    assert_eq!(rig.dir.usable_bytes().unwrap(), 0);
}

#[test]
fn short_writes_are_finished() {
    let mut rig = Rig::new(config());
    rig.files.set_faults(Faults {
        short_writes: true,
        ..Faults::default()
    });
    let batches: Vec<_> = (0..30).map(|n| batch(&format!("{n}"), 3)).collect();
    let appended = rig
        .log
        .append_many_as_leader(batches, epoch(1), NOW)
        .unwrap();
    let all: Vec<Bytes> = appended.into_iter().map(|a| a.bytes).collect();
    assert_eq!(rig.contents(), all);
}

#[test]
fn s6_a_failed_sync_fails_the_directory_for_good() {
    let mut rig = Rig::new(config());
    rig.append("a", 2);
    let job = rig.log.begin_flush().unwrap();
    rig.files.set_faults(Faults {
        fail_syncs: true,
        ..Faults::default()
    });
    let done = job.run();
    assert!(!done.is_ok());
    assert!(rig.log.on_flushed(done).is_err());
    assert_eq!(rig.log.flushed_offset(), offset(0));
    // B-18: the next sync would succeed and lie.
    rig.files.set_faults(Faults::default());
    assert!(rig.dir.failed());
    assert!(rig.log.begin_flush().is_none());
    let error = rig
        .log
        .append_as_leader(batch("b", 1), epoch(0), NOW)
        .unwrap_err();
    assert!(matches!(error, AppendError::Io(_)));
    assert!(rig.log.truncate_to(offset(0)).is_err());
    assert!(rig.dir.write_checkpoints(&[rig.marks(offset(0))]).is_err());
    assert!(rig.dir.mark_clean_shutdown(None).is_err());
    assert!(matches!(
        rig.dir.open_log("other", id(), LogConfig::default(), NOW),
        Err(LogError::Disk(_))
    ));
    assert!(rig.log.close().is_err());
}

#[test]
fn s6_a_flush_already_begun_is_not_believed_after_another_failed() {
    let mut rig = Rig::new(config());
    rig.append("a", 2);
    let first = rig.log.begin_flush().unwrap();
    let second = rig.log.begin_flush().unwrap();
    rig.files.set_faults(Faults {
        fail_syncs: true,
        ..Faults::default()
    });
    let first = first.run();
    rig.files.set_faults(Faults::default());
    let second = second.run();
    assert!(rig.log.on_flushed(first).is_err());
    assert!(rig.log.on_flushed(second).is_err());
    assert_eq!(rig.log.flushed_offset(), offset(0));
}

#[test]
fn p25_a_write_error_fails_the_directory() {
    let mut rig = Rig::new(config());
    rig.append("a", 2);
    rig.files.set_faults(Faults {
        fail_writes: true,
        ..Faults::default()
    });
    let error = rig
        .log
        .append_as_leader(batch("b", 1), epoch(0), NOW)
        .unwrap_err();
    assert!(matches!(error, AppendError::Io(_)));
    assert!(rig.dir.failed());
    // What is there can still be read.
    assert_eq!(rig.contents().len(), 1);
}

#[test]
fn a_device_that_cannot_be_read_fails_the_directory() {
    let mut rig = Rig::new(config());
    rig.append("a", 2);
    rig.files.set_faults(Faults {
        fail_reads: true,
        ..Faults::default()
    });
    assert!(
        rig.log
            .reader()
            .read(offset(0), offset(2), 100, true)
            .is_err()
    );
    assert!(rig.dir.failed());
}

#[test]
fn s7_a_truncation_on_a_full_disk_changes_nothing_or_all() {
    for space in 0..300 {
        let mut rig = Rig::new(config());
        let all: Vec<Bytes> = (0..30)
            .map(|n| rig.append(&format!("{n}"), 2).bytes)
            .collect();
        rig.flush();
        rig.files.set_faults(Faults {
            space_left: Some(space),
            ..Faults::default()
        });
        match rig.log.truncate_to(offset(20)) {
            Ok(()) => assert_eq!(rig.contents(), all[..10]),
            Err(error) => {
                assert!(space < 100, "{error}");
                assert_eq!(rig.contents(), all);
            }
        }
        rig.files.set_faults(Faults::default());
        rig.log.truncate_to(offset(20)).unwrap();
        assert_eq!(rig.contents(), all[..10]);
        assert!(!rig.dir.failed());
    }
}

#[test]
fn a_start_elsewhere_on_a_full_disk_refuses_until_it_is_done() {
    let mut rig = Rig::new(config());
    rig.append("a", 2);
    rig.flush();
    let floor = 18;
    rig.files.set_faults(Faults {
        space_left: Some(floor),
        ..Faults::default()
    });
    assert!(rig.log.truncate_fully_and_start_at(offset(100)).is_err());
    rig.files.set_faults(Faults::default());
    let refused = rig.log.append_as_leader(batch("b", 1), epoch(0), NOW);
    assert!(matches!(refused, Err(AppendError::NoSpace)));
    assert!(rig.log.begin_flush().is_none());
    rig.log.truncate_fully_and_start_at(offset(100)).unwrap();
    let appended = rig
        .log
        .append_as_leader(batch("b", 1), epoch(0), NOW)
        .unwrap();
    assert_eq!(appended.base_offset, offset(100));
    assert_eq!(rig.kill().contents(), [appended.bytes]);
}
