//! Reading by offset and by time.

use bytes::Bytes;
use ottla_records::{BatchBuilder, BatchHeader, Codec};
use ottla_types::Offset;

use super::support::{NOW, Rig, batch, batch_at, config, epoch, offset, segment_path};
use crate::{LogConfig, ReadError};

fn filled() -> (Rig, Vec<Bytes>) {
    let mut rig = Rig::new(config());
    let all = (0..100)
        .map(|n| rig.append(&format!("batch {n}"), 1 + n % 4).bytes)
        .collect();
    (rig, all)
}

fn header(bytes: &[u8]) -> BatchHeader {
    BatchHeader::parse(bytes).unwrap()
}

#[test]
fn a_read_begins_with_the_batch_that_holds_the_offset() {
    let (rig, all) = filled();
    assert!(rig.log.segment_count() > 3);
    let reader = rig.log.reader();
    let end = reader.log_end_offset();
    for wanted in 0..end.get() {
        let (bytes, next) = reader.read(offset(wanted), end, 1, true).unwrap();
        let expected = all
            .iter()
            .find(|b| header(b).last_offset() >= offset(wanted))
            .unwrap();
        assert_eq!(&bytes, expected);
        assert_eq!(next, header(expected).next_offset());
        // Without the promise of one batch, a limit that is too small gives nothing.
        let (none, same) = reader.read(offset(wanted), end, 1, false).unwrap();
        assert!(none.is_empty());
        assert!(same <= offset(wanted));
    }
}

#[test]
fn p41_a_read_never_passes_its_upper_bound_nor_its_size() {
    let (rig, all) = filled();
    let reader = rig.log.reader();
    let ends: Vec<Offset> = all.iter().map(|b| header(b).next_offset()).collect();
    for from in (0..100).step_by(3) {
        for to in from..100 {
            let start = header(&all[from]).first_offset();
            for max_bytes in [100, 500, 100_000] {
                let (bytes, next) = reader.read(start, ends[to], max_bytes, true).unwrap();
                assert!(next <= ends[to] && next > start);
                let count = ends.iter().filter(|e| **e > start && **e <= next).count();
                let expected: Vec<u8> = all[from..from + count].iter().flatten().copied().collect();
                assert_eq!(bytes, expected);
                assert!(bytes.len() <= max_bytes || count == 1);
                // As much as fits, within the segment.
                if let Some(more) = all.get(from + count)
                    && next < ends[to]
                {
                    let new_segment =
                        rig.files
                            .content(&segment_path(&rig.partition_dir(), next.get(), "log"));
                    assert!(bytes.len() + more.len() > max_bytes || new_segment.is_some());
                }
            }
        }
    }
    // A bound inside a batch leaves the batch out.
    let middle = all
        .iter()
        .map(|b| header(b))
        .find(|h| h.last_offset_delta > 1)
        .unwrap();
    let start = middle.first_offset();
    let (bytes, next) = reader.read(start, start.plus(1), 1000, true).unwrap();
    assert!(bytes.is_empty() && next == start);
}

#[test]
fn an_offset_outside_the_log_is_told() {
    let (mut rig, _) = filled();
    let reader = rig.log.reader();
    let end = reader.log_end_offset();
    let (bytes, next) = reader.read(end, end, 1000, true).unwrap();
    assert!(bytes.is_empty() && next == end);
    let past = reader.read(end.next(), end, 1000, true).unwrap_err();
    assert!(matches!(past, ReadError::OutOfRange { .. }));
    rig.log.set_log_start_offset(offset(7)).unwrap();
    let below = reader.read(offset(6), end, 1000, true).unwrap_err();
    assert!(
        matches!(below, ReadError::OutOfRange { log_start_offset, .. }
        if log_start_offset == offset(7))
    );
}

#[test]
fn p28_a_damaged_batch_is_not_served() {
    let (rig, all) = filled();
    let path = segment_path(&rig.partition_dir(), 0, "log");
    let second = all[0].len() + 70;
    rig.files.corrupt(&path, |bytes| bytes[second] ^= 4);
    let reader = rig.log.reader();
    let end = reader.log_end_offset();
    assert_eq!(reader.read(offset(0), end, 1, true).unwrap().0, all[0]);
    let damaged = header(&all[1]).first_offset();
    assert!(matches!(
        reader.read(damaged, end, 1, true),
        Err(ReadError::Corrupt { .. })
    ));
    assert!(matches!(
        reader.scrub(offset(0), 1000),
        Err(ReadError::Corrupt { .. })
    ));
}

#[test]
fn s3_an_index_that_lies_changes_nothing() {
    let (rig, all) = filled();
    let dir = rig.partition_dir();
    for path in rig.files.paths(&dir) {
        let name = path.to_string_lossy().into_owned();
        if name.ends_with(".index") || name.ends_with(".timeindex") {
            rig.files.corrupt(&path, |bytes| {
                for (at, byte) in bytes.iter_mut().enumerate() {
                    *byte = byte
                        .wrapping_mul(31)
                        .wrapping_add(u8::try_from(at % 251).unwrap());
                }
            });
        }
    }
    let reader = rig.log.reader();
    let end = reader.log_end_offset();
    for expected in &all {
        let start = header(expected).first_offset();
        assert_eq!(&reader.read(start, end, 1, true).unwrap().0, expected);
    }
    assert_eq!(rig.contents(), all);
}

/// What ListOffsets must say, straight from the batches.
fn first_since(all: &[Bytes], timestamp: i64, start: i64, upper: Offset) -> Option<(i64, i64)> {
    all.iter()
        .filter(|b| header(b).next_offset() <= upper)
        .flat_map(|b| ottla_records::decode_records(b, 1 << 20).unwrap())
        .find(|record| record.timestamp >= timestamp && record.offset >= start)
        .map(|record| (record.offset, record.timestamp))
}

#[test]
fn timestamps_lead_to_the_first_record_that_is_late_enough() {
    for codec in [Codec::None, Codec::Zstd] {
        let mut rig = Rig::new(config());
        let mut all = Vec::new();
        // Mostly rising, with old ones between.
        for n in 0..120i64 {
            let time = NOW.0 + n * 10 - if n % 9 == 0 { 300 } else { 0 };
            let mut builder = BatchBuilder::new(time).codec(codec);
            for k in 0..3 {
                builder.push(time + k * 3, None, Some(b"some value"), &[]);
            }
            let appended = rig
                .log
                .append_as_leader(builder.build(), epoch(2), NOW)
                .unwrap();
            all.push(appended.bytes);
        }
        assert!(rig.log.segment_count() > 3);
        for round in 0..3 {
            let reader = rig.log.reader();
            let end = reader.log_end_offset();
            for upper in [end, offset(200), offset(9)] {
                let start = rig.log.log_start_offset().get();
                for time in (NOW.0 - 400..NOW.0 + 1300).step_by(7) {
                    let found = reader.offset_for_timestamp(time, upper).unwrap();
                    let expected = first_since(&all, time, start, upper);
                    let got = found.map(|(offset, time, _)| (offset.get(), time));
                    assert_eq!(got, expected, "round {round}, time {time}, upper {upper}");
                    assert!(found.is_none_or(|found| found.2 == Some(epoch(2))));
                }
                let greatest = all
                    .iter()
                    .filter(|b| header(b).next_offset() <= upper)
                    .map(|b| header(b).max_timestamp)
                    .max();
                let expected = greatest.and_then(|time| first_since(&all, time, start, upper));
                let got = reader.max_timestamp(upper).unwrap();
                assert_eq!(got.map(|(o, t, _)| (o.get(), t)), expected, "round {round}");
            }
            // The same after a restart, and with a log start inside a batch.
            rig = match round {
                0 => rig.restart(),
                _ => rig.kill(),
            };
            rig.log.set_log_start_offset(offset(4)).unwrap();
        }
    }
}

#[test]
fn an_empty_log_has_no_timestamps() {
    let rig = Rig::new(config());
    let reader = rig.log.reader();
    assert_eq!(reader.offset_for_timestamp(0, offset(0)).unwrap(), None);
    assert_eq!(reader.max_timestamp(offset(0)).unwrap(), None);
    assert!(
        reader
            .locate(offset(0), offset(0), 100, true)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn readers_and_the_writer_never_disagree() {
    let roomy = LogConfig {
        segment_bytes: 20_000,
        ..config()
    };
    let mut rig = Rig::new(roomy);
    let reader = rig.log.reader();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut at = offset(0);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let end = reader.log_end_offset();
                    if at >= end {
                        // Truncated: begin anew.
                        at = offset(0);
                        continue;
                    }
                    match reader.read(at, end, 4000, true) {
                        Ok((bytes, next)) => {
                            assert!(next <= end);
                            for batch in ottla_records::batches(&bytes) {
                                assert!(batch.unwrap().0.last_offset() < end);
                            }
                            at = next.max(at);
                            if bytes.is_empty() {
                                at = offset(0);
                            }
                        }
                        Err(ReadError::OutOfRange { .. } | ReadError::Truncated) => {
                            at = offset(0);
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        for n in 0..3000 {
            rig.log
                .append_as_leader(batch_at(NOW.0, &format!("{n}"), 2), epoch(n), NOW)
                .unwrap();
            if n % 500 == 499 {
                let to = rig.log.log_end_offset().get() - 700;
                rig.log.truncate_to(offset(to)).unwrap();
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(batch("x", 1).len(), batch("y", 1).len());
}
