//! The log against a plain list of batches, under random operations and crashes (S-1).

use bytes::Bytes;
use ottla_records::BatchHeader;
use ottla_types::Offset;
use proptest::prelude::*;

use super::support::{NOW, Rig, batch, config, epoch, idempotent, offset};
use crate::LogConfig;
use crate::testing::Faults;

#[derive(Clone, Debug)]
enum Step {
    Append {
        batches: usize,
        records: usize,
        producer: bool,
    },
    Flush,
    BeginFlush,
    FinishFlush,
    Checkpoint,
    Snapshot,
    Truncate {
        back: i64,
    },
    LogStart {
        forward: i64,
    },
    Retention,
    StartAt {
        forward: i64,
    },
    Full {
        space: u64,
    },
    Restart,
    Kill,
    PowerCut {
        seed: u64,
        calls: Option<u64>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (1usize..6, 1usize..5, any::<bool>())
            .prop_map(|(batches, records, producer)| Step::Append { batches, records, producer }),
        4 => Just(Step::Flush),
        2 => Just(Step::BeginFlush),
        2 => Just(Step::FinishFlush),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Snapshot),
        2 => (0i64..60).prop_map(|back| Step::Truncate { back }),
        1 => (0i64..30).prop_map(|forward| Step::LogStart { forward }),
        1 => Just(Step::Retention),
        1 => (0i64..50).prop_map(|forward| Step::StartAt { forward }),
        1 => (0u64..400).prop_map(|space| Step::Full { space }),
        1 => Just(Step::Restart),
        2 => Just(Step::Kill),
        3 => (any::<u64>(), proptest::option::of(0u64..12))
            .prop_map(|(seed, calls)| Step::PowerCut { seed, calls }),
    ]
}

/// What the log must hold.
struct Model {
    batches: Vec<Bytes>,
    /// Reported durable.
    durable: Offset,
    log_start: Offset,
    epoch: i32,
    sequence: i32,
    tag: u32,
}

fn header(bytes: &[u8]) -> BatchHeader {
    BatchHeader::parse(bytes).unwrap()
}

impl Model {
    fn end(&self) -> Offset {
        self.batches.last().map_or(self.log_start, |b| {
            header(b).next_offset().max(self.log_start)
        })
    }

    fn visible(&self) -> Vec<Bytes> {
        let start = self.log_start;
        self.batches
            .iter()
            .filter(|b| header(b).next_offset() > start)
            .cloned()
            .collect()
    }

    fn new_batch(&mut self, records: usize, producer: bool) -> bytes::BytesMut {
        self.tag += 1;
        if producer {
            let count = i32::try_from(records).unwrap();
            self.sequence += count;
            idempotent(77, 0, self.sequence - count, records)
        } else {
            batch(&format!("batch number {}", self.tag), records)
        }
    }

    fn check(&self, rig: &mut Rig) {
        assert_eq!(rig.log.log_end_offset(), self.end());
        assert_eq!(rig.log.log_start_offset(), self.log_start);
        assert!(rig.log.flushed_offset() <= rig.log.log_end_offset());
        assert_eq!(rig.contents(), self.visible());
        // what is kept in memory is what a scan yields.
        let (epochs, producers) = rig.log.derived_anew();
        let mut kept = rig.log.epochs().clone();
        // One last epoch may have no batches.
        kept.truncate_from_end(rig.log.log_end_offset());
        assert_eq!(epochs, kept, "R-9");
        if self.log_start == Offset::ZERO {
            assert_eq!(producers, rig.log.producers(), "R-16");
        }
    }

    /// After a crash: a prefix with all that was durable.
    fn crashed(&mut self, rig: &mut Rig, power_cut: bool) {
        let end = rig.log.log_end_offset();
        assert!(
            end >= self.durable.max(self.log_start),
            "S-1: lost what was durable"
        );
        if !power_cut {
            assert_eq!(end, self.end(), "P-11: a kill loses nothing");
        }
        self.batches.retain(|b| header(b).next_offset() <= end);
        assert!(!rig.recovery.damaged_below_durable, "S-2");
        // The start comes from the checkpoint, or from the first segment.
        let start = rig.log.log_start_offset();
        assert!(start <= self.log_start, "R-17");
        let first = self
            .batches
            .iter()
            .find(|b| header(b).next_offset() > start);
        if let Some(first) = first {
            assert!(header(first).first_offset() <= start, "a hole at the start");
        }
        rig.log
            .set_log_start_offset(self.log_start.min(end))
            .unwrap();
        self.durable = rig.log.flushed_offset();
        self.check(rig);
    }
}

fn run(steps: Vec<Step>, config: LogConfig) {
    let mut rig = Rig::new(config);
    let mut model = Model {
        batches: Vec::new(),
        durable: Offset::ZERO,
        log_start: Offset::ZERO,
        epoch: 0,
        sequence: 0,
        tag: 0,
    };
    let mut flush = None;
    for step in steps {
        if std::env::var_os("OTTLA_TEST_TRACE").is_some() {
            println!(
                "{:?} {}..{} flushed {} {step:?}",
                rig.log.epochs(),
                rig.log.log_start_offset(),
                rig.log.log_end_offset(),
                rig.log.flushed_offset()
            );
        }
        let _shown = format!("{step:?}");
        match step {
            Step::Append {
                batches,
                records,
                producer,
            } => {
                let new: Vec<_> = (0..batches)
                    .map(|_| model.new_batch(records, producer))
                    .collect();
                let appended = rig
                    .log
                    .append_many_as_leader(new, epoch(model.epoch), NOW)
                    .unwrap();
                model.batches.extend(appended.into_iter().map(|a| a.bytes));
            }
            Step::Flush => {
                rig.flush();
                assert_eq!(rig.log.flushed_offset(), rig.log.log_end_offset());
            }
            Step::BeginFlush => flush = rig.log.begin_flush(),
            Step::FinishFlush => {
                if let Some(job) = flush.take() {
                    rig.log.on_flushed(job.run()).unwrap();
                }
            }
            Step::Checkpoint => rig.checkpoint(),
            Step::Snapshot => rig.log.write_producer_snapshot(),
            Step::Truncate { back } => {
                let to = offset(rig.log.log_end_offset().get() - back).max(model.log_start);
                rig.log.truncate_to(to).unwrap();
                model.batches.retain(|b| header(b).next_offset() <= to);
                model.durable = model.durable.min(rig.log.log_end_offset());
                model.epoch += 1;
            }
            Step::LogStart { forward } => {
                let to = model.log_start.plus(forward).min(rig.log.log_end_offset());
                for segment in rig.log.set_log_start_offset(to).unwrap() {
                    segment.remove().unwrap();
                }
                model.log_start = to;
                // As DeleteRecords does before it answers.
                rig.flush();
                rig.checkpoint();
            }
            Step::Retention => {
                let end = rig.log.flushed_offset();
                let late = ottla_types::WallClockMs(NOW.0 + 1_000_000_000);
                let _ = rig.log.apply_retention(late, end).unwrap();
                model.log_start = rig.log.log_start_offset();
                rig.flush();
                rig.checkpoint();
            }
            Step::StartAt { forward } => {
                let to = rig.log.log_end_offset().plus(forward);
                rig.log.truncate_fully_and_start_at(to).unwrap();
                model.batches.clear();
                (model.log_start, model.durable) = (to, to);
                model.epoch += 1;
                rig.checkpoint();
            }
            Step::Full { space } => {
                rig.files.set_faults(Faults {
                    space_left: Some(space),
                    ..Faults::default()
                });
                let (tag, sequence) = (model.tag, model.sequence);
                let new: Vec<_> = (0..4).map(|_| model.new_batch(3, true)).collect();
                match rig.log.append_many_as_leader(new, epoch(model.epoch), NOW) {
                    Ok(appended) => model.batches.extend(appended.into_iter().map(|a| a.bytes)),
                    Err(error) => {
                        assert!(matches!(error, crate::AppendError::NoSpace), "S-7: {error}");
                        (model.tag, model.sequence) = (tag, sequence);
                    }
                }
                rig.files.set_faults(Faults::default());
            }
            Step::Restart => {
                flush = None;
                rig = rig.restart();
                assert_eq!(rig.recovery.scanned_bytes, 0, "S-5");
                model.crashed(&mut rig, false);
            }
            Step::Kill => {
                flush = None;
                rig = rig.kill();
                model.crashed(&mut rig, false);
            }
            Step::PowerCut { seed, calls } => {
                flush = None;
                if let Some(calls) = calls {
                    // Anywhere in the middle of an append and a flush.
                    let faults = Faults {
                        calls_left: Some(calls),
                        ..Faults::default()
                    };
                    rig.files.set_faults(faults);
                    let new: Vec<_> = (0..4).map(|_| model.new_batch(2, false)).collect();
                    let stamped = predict(&model, &new);
                    let _ = rig.log.append_many_as_leader(new, epoch(model.epoch), NOW);
                    model.batches.extend(stamped);
                    if let Some(job) = rig.log.begin_flush() {
                        let _ = rig.log.on_flushed(job.run());
                    }
                }
                model.durable = rig.log.flushed_offset();
                rig = rig.power_cut(seed);
                model.crashed(&mut rig, true);
                // What was lost was never acknowledged; a producer would go on elsewhere.
                model.epoch += 1;
            }
        }
        // A truncated or crashed producer starts over under a new epoch in real life.
        if rig
            .log
            .check_sequence(&header(&idempotent(77, 0, model.sequence, 1)))
            != crate::SequenceVerdict::New
        {
            model.sequence = rig
                .log
                .producers()
                .first()
                .and_then(|p| p.last_sequence)
                .map_or(0, |last| last + 1);
        }
        model.check(&mut rig);
    }
}

/// The bytes that an append which may be cut short would leave.
fn predict(model: &Model, new: &[bytes::BytesMut]) -> Vec<Bytes> {
    let mut next = model.end();
    new.iter()
        .map(|batch| {
            let mut batch = batch.clone();
            ottla_records::stamp(&mut batch, next, epoch(model.epoch));
            next = header(&batch).next_offset();
            batch.freeze()
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(1000), ..ProptestConfig::default() })]

    #[test]
    fn s1_the_log_is_what_the_model_says(steps in proptest::collection::vec(step(), 1..40)) {
        run(steps, LogConfig { retention_ms: Some(1000), ..config() });
    }
}
