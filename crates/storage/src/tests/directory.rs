//! Whose a directory is, and how it was left.

use std::sync::Arc;

use ottla_types::{BrokerEpoch, BrokerId, PartitionId, PartitionIndex, TopicId};
use uuid::Uuid;

use super::support::{NOW, Rig, TOPIC, config, id, offset, root};
use crate::files::{Access, Files};
use crate::testing::{Faults, MemFiles};
use crate::{LogConfig, LogDir, LogDirError, LogError, OpenedDir};

fn open(files: &MemFiles) -> Result<(LogDir, OpenedDir), LogDirError> {
    LogDir::open(&root(), BrokerId(1), Arc::new(files.clone()))
}

#[test]
fn s10_a_directory_belongs_to_one_process_node_and_cluster() {
    let files = MemFiles::new();
    let (dir, opened) = open(&files).unwrap();
    assert!(opened.new_directory && !opened.clean_shutdown && !opened.boot_id_changed);
    assert!(matches!(open(&files), Err(LogDirError::Locked { .. })));
    dir.set_cluster_id("c1").unwrap();
    dir.set_cluster_id("c1").unwrap();
    assert!(matches!(
        dir.set_cluster_id("c2"),
        Err(LogDirError::ClusterId { .. })
    ));
    drop(dir);
    let wrong = LogDir::open(&root(), BrokerId(2), Arc::new(files.clone()));
    assert!(matches!(
        wrong,
        Err(LogDirError::NodeId {
            expected: 2,
            found: 1
        })
    ));
    let (_dir, again) = open(&files).unwrap();
    assert!(!again.new_directory);
    assert_eq!(again.cluster_id.as_deref(), Some("c1"));
    assert_eq!(again.directory_id, opened.directory_id);
}

#[test]
fn s10_a_damaged_meta_file_stops_the_start() {
    let files = MemFiles::new();
    drop(open(&files).unwrap());
    files.corrupt(&root().join("meta.properties"), |bytes| {
        *bytes = b"version=2\n".to_vec()
    });
    assert!(matches!(open(&files), Err(LogDirError::Meta { .. })));
}

#[test]
fn s5_the_clean_marker_is_read_once_and_gone_before_anything_is_written() {
    for seed in 0..20 {
        let files = MemFiles::new();
        let (dir, _) = open(&files).unwrap();
        dir.mark_clean_shutdown(BrokerEpoch::new(42)).unwrap();
        drop(dir);
        let (_dir, opened) = open(&files).unwrap();
        assert!(opened.clean_shutdown);
        assert_eq!(opened.previous_broker_epoch, BrokerEpoch::new(42));
        let (_, opened) = open(&files.after_power_cut(seed)).unwrap();
        assert!(!opened.clean_shutdown, "seed {seed}");
        assert!(opened.boot_id_changed);
    }
}

#[test]
fn s5_no_marker_is_written_over_a_log_that_did_not_end_cleanly() {
    let refused = |dir: &LogDir| {
        let marked = dir.mark_clean_shutdown(BrokerEpoch::new(1));
        matches!(marked, Err(LogDirError::NotClosed { partition, .. }) if partition == id().partition)
    };
    // Left open, or dropped.
    let mut rig = Rig::new(config());
    rig.append("a", 1);
    assert!(refused(&rig.dir));
    drop(rig.log);
    assert!(refused(&rig.dir));
    // Of an unclean life, and not even looked at in this one.
    let files = rig.files.after_kill();
    let (dir, _) = open(&files).unwrap();
    assert!(refused(&dir));
    // Tried to open in vain.
    let segment = root().join("orders-0").join("00000000000000000000.log");
    let bytes = files.content(&segment).unwrap();
    files.lose(&segment);
    files.create_dir(&segment).unwrap();
    assert!(dir.open_log(TOPIC, id(), config(), NOW).is_err());
    assert!(refused(&dir));
    // Opened and closed.
    files.remove_dir_all(&segment).unwrap();
    let file = files.open(&segment, Access::Create).unwrap();
    crate::files::write_bytes_at(&*file, &bytes, 0).unwrap();
    let (log, _) = dir.open_log(TOPIC, id(), config(), NOW).unwrap();
    assert_eq!(log.log_end_offset(), offset(1));
    log.close().unwrap();
    dir.mark_clean_shutdown(BrokerEpoch::new(1)).unwrap();
    drop(dir);
    // Of a clean life, and not looked at in this one.
    let (dir, opened) = open(&files).unwrap();
    assert!(opened.clean_shutdown);
    dir.mark_clean_shutdown(BrokerEpoch::new(1)).unwrap();
    // Deleted: there is nothing to speak for.
    let (log, _) = dir.open_log(TOPIC, id(), config(), NOW).unwrap();
    assert!(refused(&dir));
    dir.delete_log(log).unwrap();
    dir.mark_clean_shutdown(BrokerEpoch::new(1)).unwrap();
}

#[test]
fn r14_a_new_boot_is_told_until_the_controller_knows() {
    let files = MemFiles::new();
    drop(open(&files).unwrap());
    let (_, opened) = open(&files.after_kill()).unwrap();
    assert!(!opened.boot_id_changed, "a kill is not a reboot");
    let files = files.after_power_cut(1);
    let (dir, opened) = open(&files).unwrap();
    assert!(opened.boot_id_changed);
    drop(dir);
    let (dir, opened) = open(&files).unwrap();
    assert!(
        opened.boot_id_changed,
        "the first start may have died before it could tell"
    );
    dir.confirm_boot().unwrap();
    drop(dir);
    assert!(!open(&files).unwrap().1.boot_id_changed);
}

#[test]
fn r18_a_directory_of_another_topic_id_is_not_opened() {
    let mut rig = Rig::new(config());
    rig.append("a", 1);
    let other = PartitionId {
        topic_id: TopicId::new(Uuid::from_u128(8)).unwrap(),
        ..id()
    };
    let files = rig.files.after_kill();
    let (dir, _) = open(&files).unwrap();
    let error = dir.open_log(TOPIC, other, config(), NOW).unwrap_err();
    assert!(
        matches!(error, LogError::TopicIdMismatch { found: Some(found), .. }
        if found == id().topic_id)
    );
    files.lose(&root().join("orders-0").join("partition.metadata"));
    let error = dir.open_log(TOPIC, id(), config(), NOW).unwrap_err();
    assert!(matches!(
        error,
        LogError::TopicIdMismatch { found: None, .. }
    ));
}

#[test]
fn x14_topic_names_are_checked_before_a_path_is_built() {
    let (dir, _) = open(&MemFiles::new()).unwrap();
    for name in ["", ".", "..", "../x", "a/b", "a b", "a\n", &"x".repeat(250)] {
        let error = dir.open_log(name, id(), config(), NOW).unwrap_err();
        assert!(matches!(error, LogError::TopicName(_)), "{name:?}");
        let error = dir.delete_partition(name, PartitionIndex(0)).unwrap_err();
        assert!(matches!(error, LogDirError::TopicName(_)), "{name:?}");
    }
}

#[test]
fn partitions_are_listed_and_odd_directories_left_alone() {
    let mut rig = Rig::new(config());
    rig.append("a", 1);
    for name in [
        "no-partition-x",
        "x-0.0123-delete",
        "y-1-stray",
        "z-7",
        "plain",
    ] {
        rig.files.create_dir(&root().join(name)).unwrap();
    }
    let listed = rig.dir.list_partitions().unwrap();
    assert_eq!(listed, [(TOPIC.to_owned(), id())]);
    assert_eq!(rig.dir.purge_deleted().unwrap(), 1);
    assert!(rig.files.list(&root().join("z-7")).is_ok());
}

#[test]
fn a_deleted_partition_is_gone_and_its_name_is_free() {
    for seed in 0..10 {
        let mut rig = Rig::new(config());
        for n in 0..20 {
            rig.append(&format!("{n}"), 1);
        }
        rig.flush();
        rig.checkpoint();
        rig.dir.delete_log(rig.log).unwrap();
        assert!(rig.dir.list_partitions().unwrap().is_empty());
        let files = rig.files.after_power_cut(seed);
        drop(rig.dir);
        let (dir, _) = open(&files).unwrap();
        assert!(dir.list_partitions().unwrap().is_empty(), "seed {seed}");
        assert_eq!(dir.purge_deleted().unwrap(), 1);
        // The marks of the old one say nothing of the new one.
        let new = PartitionId {
            topic_id: TopicId::new(Uuid::from_u128(9)).unwrap(),
            ..id()
        };
        let (log, recovery) = dir.open_log(TOPIC, new, config(), NOW).unwrap();
        assert!(recovery.created && !recovery.checkpoint_ahead);
        assert_eq!(log.log_end_offset(), offset(0));
    }
}

#[test]
fn s4_checkpoints_are_clamped_to_what_is_flushed() {
    let mut rig = Rig::new(config());
    for n in 0..10 {
        rig.append(&format!("{n}"), 1);
    }
    let mut marks = rig.marks(offset(10));
    marks.recovery_point = offset(10);
    rig.dir.write_checkpoints(&[marks]).unwrap();
    let text = rig
        .files
        .content(&root().join("recovery-point-offset-checkpoint"))
        .unwrap();
    assert_eq!(text, b"0\n1\norders 0 0\n");
    let text = rig
        .files
        .content(&root().join("replication-offset-checkpoint"))
        .unwrap();
    assert_eq!(
        text, b"0\n1\norders 0 0\n",
        "mode ack: the high watermark is flushed too"
    );
    rig.log.set_config(LogConfig {
        flush_messages: 1000,
        ..config()
    });
    rig.dir.write_checkpoints(&[rig.marks(offset(10))]).unwrap();
    let text = rig
        .files
        .content(&root().join("replication-offset-checkpoint"))
        .unwrap();
    assert_eq!(text, b"0\n1\norders 0 10\n");
}

#[test]
fn s4_a_checkpoint_cut_short_is_the_old_one() {
    for calls in 0..20 {
        for seed in 0..5 {
            let mut rig = Rig::new(config());
            rig.append("a", 1);
            rig.flush();
            rig.checkpoint();
            rig.append("b", 1);
            rig.flush();
            rig.files.set_faults(Faults {
                calls_left: Some(calls),
                ..Faults::default()
            });
            let marks = rig.marks(offset(2));
            let done = rig.dir.write_checkpoints(&[marks]).is_ok();
            let files = rig.files.after_power_cut(seed);
            let path = root().join("recovery-point-offset-checkpoint");
            let text = files.content(&path).unwrap();
            let (old, new) = (b"0\n1\norders 0 1\n", b"0\n1\norders 0 2\n");
            assert!(
                text == new || (!done && text == old),
                "calls {calls}, seed {seed}"
            );
        }
    }
}
