//! Kafka's own tools read what we write. Needs `KAFKA_HOME`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use ottla_records::{BatchBuilder, Codec, end_transaction_marker};
use ottla_types::{BrokerEpoch, BrokerId, ProducerEpoch, ProducerId};

use super::support::{NOW, TOPIC, epoch, id, idempotent, offset};
use crate::{Log, LogConfig, LogDir, OsFiles};

fn kafka_home() -> Option<PathBuf> {
    let home = std::env::var_os("KAFKA_HOME").map(PathBuf::from);
    if home.is_none() {
        println!("SKIPPED: set KAFKA_HOME to run Kafka's tools against our files");
    }
    home
}

/// What `kafka-dump-log.sh` says of a file.
fn dump(home: &Path, file: &Path) -> String {
    let output = Command::new(home.join("bin/kafka-dump-log.sh"))
        .arg("--files")
        .arg(file)
        .arg("--print-data-log")
        .arg("--deep-iteration")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{}: {text}\n{errors}",
        file.display()
    );
    assert!(
        !errors.contains("Exception"),
        "{}: {errors}",
        file.display()
    );
    text
}

fn write_some(log: &mut Log) {
    for n in 0..60i64 {
        let codec = [
            Codec::None,
            Codec::Gzip,
            Codec::Snappy,
            Codec::Lz4,
            Codec::Zstd,
        ][usize::try_from(n % 5).unwrap()];
        let mut builder = BatchBuilder::new(NOW.0 + n * 1000).codec(codec);
        for k in 0..5 {
            let value = format!("value {n}/{k} of the batch");
            let header = [("trace", Some(&b"abc"[..])), ("none", None)];
            builder.push(
                NOW.0 + n * 1000 + k,
                Some(b"key"),
                Some(value.as_bytes()),
                &header,
            );
        }
        let leader_epoch = epoch(i32::try_from(n / 20).unwrap());
        log.append_as_leader(builder.build(), leader_epoch, NOW)
            .unwrap();
    }
    for n in 0..7 {
        log.append_as_leader(idempotent(4242, 3, n * 2, 2), epoch(3), NOW)
            .unwrap();
    }
    let (producer, producer_epoch) = (ProducerId(4243), ProducerEpoch::ZERO);
    let mut open = BatchBuilder::new(NOW.0)
        .producer(producer, producer_epoch, 0)
        .transactional();
    open.push(NOW.0, None, Some(b"in a transaction"), &[]);
    log.append_as_leader(open.build(), epoch(3), NOW).unwrap();
    let marker = end_transaction_marker(NOW.0, producer, producer_epoch, true, 11);
    log.append_as_leader(marker, epoch(3), NOW).unwrap();
}

#[test]
fn kafkas_dump_log_reads_our_directory() {
    let Some(home) = kafka_home() else { return };
    let root = tempfile::tempdir().unwrap();
    let config = LogConfig {
        segment_bytes: 6000,
        index_interval_bytes: 500,
        ..LogConfig::default()
    };
    let (dir, _) = LogDir::open(root.path(), BrokerId(1), Arc::new(OsFiles)).unwrap();
    let (mut log, _) = dir.open_log(TOPIC, id(), config.clone(), NOW).unwrap();
    write_some(&mut log);
    let flushed = log.begin_flush().unwrap().run();
    log.on_flushed(flushed).unwrap();
    let (path, end) = (log.path().to_owned(), log.log_end_offset());
    assert!(log.segment_count() > 2);
    log.close().unwrap();
    dir.mark_clean_shutdown(BrokerEpoch::new(1)).unwrap();
    drop(dir);

    let mut names: Vec<String> = std::fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let (mut records, mut entries) = (0, 0);
    for name in &names {
        let text = match name.rsplit_once('.').map(|(_, suffix)| suffix) {
            Some("log" | "index" | "timeindex" | "snapshot") => dump(&home, &path.join(name)),
            _ => continue,
        };
        assert!(!text.contains("Mismatches"), "{name}: {text}");
        assert!(!text.contains("isvalid: false"), "{name}: {text}");
        assert!(!text.contains("Found timestamp mismatch"), "{name}: {text}");
        assert!(!text.contains("Found out of order"), "{name}: {text}");
        records += text
            .lines()
            .filter(|line| line.starts_with("| offset:"))
            .count();
        if name.ends_with("index") {
            entries += text.lines().filter(|line| line.contains("offset:")).count();
        }
    }
    assert_eq!(i64::try_from(records).unwrap(), end.get());
    assert!(entries > 20, "{entries}");
    let snapshot = names
        .iter()
        .rfind(|name| name.ends_with(".snapshot"))
        .unwrap();
    assert!(snapshot.contains(&format!("{:020}", end.get())));
    let text = dump(&home, &path.join(snapshot));
    assert!(text.contains("producerId: 4242 producerEpoch: 3"), "{text}");
    assert!(
        text.contains("lastSequence=13") || text.contains("lastSequence: 13"),
        "{text}"
    );
    assert!(text.contains("producerId: 4243"), "{text}");

    // And we read it ourselves.
    let (dir, opened) = LogDir::open(root.path(), BrokerId(1), Arc::new(OsFiles)).unwrap();
    assert!(opened.clean_shutdown && !opened.boot_id_changed);
    let (log, recovery) = dir.open_log(TOPIC, id(), config, NOW).unwrap();
    assert_eq!(recovery.scanned_bytes, 0);
    assert_eq!(log.log_end_offset(), end);
    assert_eq!(log.log_start_offset(), offset(0));
}
