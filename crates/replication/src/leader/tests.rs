//! The leader's rules one by one; their interplay under faults is in `tests/model.rs`.

use super::*;

const ME: BrokerId = BrokerId(1);
const B2: BrokerId = BrokerId(2);
const B3: BrokerId = BrokerId(3);

fn o(offset: i64) -> Offset {
    Offset::saturating(offset)
}

fn settings(flush_mode: FlushMode) -> Settings {
    Settings {
        flush_mode,
        min_insync_replicas: 2,
        replica_lag_time_ms_max: 1_000,
    }
}

fn assignment(partition_epoch: i32, isr: &[BrokerId]) -> Assignment {
    let registered = Registered {
        epoch: BrokerEpoch::saturating(7),
        eligible: true,
    };
    Assignment {
        replicas: vec![ME, B2, B3],
        isr: isr.to_vec(),
        leader: Some(ME),
        leader_epoch: LeaderEpoch::saturating(4),
        partition_epoch: PartitionEpoch::saturating(partition_epoch),
        recovering: false,
        registered: [ME, B2, B3]
            .into_iter()
            .map(|broker| (broker, registered))
            .collect(),
    }
}

fn marks(flushed: i64, end: i64) -> LogMarks {
    LogMarks {
        log_start_offset: o(0),
        flushed_offset: o(flushed),
        log_end_offset: o(end),
    }
}

fn report(broker_id: BrokerId, end: i64, flushed: i64) -> FollowerReport {
    FollowerReport {
        broker_id,
        incarnation: BrokerEpoch::saturating(7),
        leader_epoch: LeaderEpoch::saturating(4),
        log_end_offset: o(end),
        flushed_offset: o(flushed),
        no_space: false,
    }
}

struct Fixture {
    leader: Leader,
    now: u64,
}

impl Fixture {
    fn new(mode: FlushMode, isr: &[BrokerId]) -> Fixture {
        let now = MonotonicMs(10_000);
        let assignment = assignment(1, isr);
        let leader = Leader::new(now, ME, &assignment, settings(mode), marks(0, 0), o(0));
        Fixture { leader, now: now.0 }
    }

    fn run(
        &mut self,
        step: impl FnOnce(&mut Leader, MonotonicMs, &mut Vec<Effect>),
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        step(&mut self.leader, MonotonicMs(self.now), &mut effects);
        effects
    }

    fn log(&mut self, flushed: i64, end: i64) -> Vec<Effect> {
        self.run(|leader, now, effects| leader.on_log(now, marks(flushed, end), effects))
    }

    fn report(&mut self, report: FollowerReport) -> Vec<Effect> {
        self.run(|leader, now, effects| leader.on_report(now, report, effects).expect("counted"))
    }

    fn tick(&mut self, ms: u64) -> Vec<Effect> {
        self.now += ms;
        self.run(|leader, now, effects| leader.on_tick(now, effects))
    }
}

fn proposed(effects: &[Effect]) -> Option<Vec<BrokerId>> {
    effects.iter().find_map(|effect| match effect {
        Effect::ProposeIsr(proposal) => Some(proposal.isr.iter().map(|(b, _)| *b).collect()),
        Effect::BecameLeader { .. }
        | Effect::LeadershipEnded
        | Effect::BecameFollower { .. }
        | Effect::HighWatermark(_)
        | Effect::IsrChanged { .. }
        | Effect::Subscribe { .. } => None,
    })
}

#[test]
fn high_watermark_waits_for_the_slowest_in_sync_follower() {
    let mut f = Fixture::new(FlushMode::Ack, &[ME, B2, B3]);
    f.log(10, 10);
    f.report(report(B2, 10, 10));
    assert_eq!(f.leader.high_watermark(), o(0));
    assert_eq!(f.report(report(B3, 8, 6)), [Effect::HighWatermark(o(6))]);
}

#[test]
fn in_mode_ack_only_flushed_offsets_count_and_in_mode_page_the_log_end_does() {
    let mut ack = Fixture::new(FlushMode::Ack, &[ME, B2]);
    ack.log(3, 10);
    ack.report(report(B2, 10, 10));
    assert_eq!(ack.leader.high_watermark(), o(3), "R-3");
    let mut page = Fixture::new(FlushMode::Page, &[ME, B2]);
    page.log(0, 10);
    page.report(report(B2, 9, 0));
    assert_eq!(page.leader.high_watermark(), o(9));
}

#[test]
fn a_topic_switched_to_ack_counts_as_such_once_the_isr_has_flushed() {
    let mut f = Fixture::new(FlushMode::Page, &[ME, B2]);
    f.log(0, 10);
    f.report(report(B2, 10, 0));
    assert_eq!(f.leader.high_watermark(), o(10));
    f.run(|leader, now, effects| leader.on_settings(now, settings(FlushMode::Ack), effects));
    assert_eq!(f.leader.flush_mode(), FlushMode::Page);
    f.log(10, 12);
    f.report(report(B2, 12, 10));
    assert_eq!(f.leader.flush_mode(), FlushMode::Ack);
    assert_eq!(
        f.leader.high_watermark(),
        o(10),
        "12 is not flushed anywhere"
    );
}

#[test]
fn below_min_isr_the_high_watermark_stands_still() {
    let mut f = Fixture::new(FlushMode::Ack, &[ME]);
    assert!(!f.leader.has_min_isr());
    f.log(10, 10);
    assert_eq!(f.leader.high_watermark(), o(0), "P-5");
}

#[test]
fn a_follower_with_an_unconfirmed_offset_older_than_the_limit_leaves() {
    let mut f = Fixture::new(FlushMode::Ack, &[ME, B2, B3]);
    f.report(report(B3, 0, 0));
    f.tick(5_000);
    f.log(10, 10);
    f.report(report(B2, 10, 10));
    assert_eq!(
        proposed(&f.tick(900)),
        None,
        "the age is that of the record, not of the silence"
    );
    assert_eq!(proposed(&f.tick(200)), Some(vec![ME, B2]));
    assert_eq!(
        f.leader.high_watermark(),
        o(0),
        "R-12: a removal counts when committed"
    );
    let effects =
        f.run(|leader, now, effects| leader.on_assignment(now, &assignment(2, &[ME, B2]), effects));
    assert!(effects.contains(&Effect::HighWatermark(o(10))));
}

#[test]
fn under_steady_load_a_follower_that_is_never_at_the_end_stays() {
    let mut f = Fixture::new(FlushMode::Ack, &[ME, B2]);
    for step in 1..500 {
        f.log(step * 10, step * 10);
        f.report(report(B2, step * 10 - 5, step * 10 - 5));
        assert_eq!(proposed(&f.tick(20)), None);
    }
}

#[test]
fn a_follower_with_a_full_disk_leaves_at_once() {
    let mut f = Fixture::new(FlushMode::Ack, &[ME, B2, B3]);
    f.log(1, 1);
    let full = FollowerReport {
        no_space: true,
        ..report(B3, 0, 0)
    };
    assert_eq!(proposed(&f.report(full)), Some(vec![ME, B2]));
}

#[test]
fn an_addition_binds_at_once_and_an_unknown_outcome_keeps_it() {
    let mut f = Fixture::new(FlushMode::Ack, &[ME, B2]);
    f.log(10, 10);
    f.report(report(B2, 10, 10));
    assert_eq!(
        proposed(&f.report(report(B3, 10, 10))),
        Some(vec![ME, B2, B3]),
        "R-13"
    );
    f.log(20, 20);
    f.report(report(B2, 20, 20));
    assert_eq!(f.leader.high_watermark(), o(10), "R-12: the addition binds");
    f.run(|leader, now, effects| leader.on_isr_answer(now, &IsrAnswer::Unknown, effects));
    assert_eq!(f.leader.high_watermark(), o(10));
    assert_eq!(proposed(&f.tick(150)), Some(vec![ME, B2, B3]), "sent again");
    f.run(|leader, now, effects| leader.on_isr_answer(now, &IsrAnswer::Refused, effects));
    assert_eq!(
        f.leader.high_watermark(),
        o(10),
        "the first attempt may still be decided"
    );
    assert_eq!(
        proposed(&f.tick(150)),
        Some(vec![ME, B2]),
        "the committed one settles it"
    );
    f.tick(600);
    f.run(|leader, now, effects| leader.on_assignment(now, &assignment(2, &[ME, B2]), effects));
    assert_eq!(f.leader.high_watermark(), o(20));
}

#[test]
fn another_incarnation_starts_from_nothing_and_joins_only_as_registered() {
    let mut f = Fixture::new(FlushMode::Ack, &[ME, B2]);
    f.log(10, 10);
    f.report(report(B2, 10, 10));
    // B-3: a newer life of broker 3 reports, but committed metadata still names the older one.
    let newer = FollowerReport {
        incarnation: BrokerEpoch::saturating(9),
        ..report(B3, 10, 10)
    };
    assert_eq!(proposed(&f.report(newer)), None);
    let late = f
        .leader
        .clone()
        .on_report(MonotonicMs(0), report(B3, 10, 10), &mut Vec::new());
    assert_eq!(late, Err(ReportRejected::StaleIncarnation));
    let other_epoch = FollowerReport {
        leader_epoch: LeaderEpoch::saturating(3),
        ..newer
    };
    let late = f
        .leader
        .clone()
        .on_report(MonotonicMs(0), other_epoch, &mut Vec::new());
    assert_eq!(late, Err(ReportRejected::WrongEpoch), "R-11");
}

fn behind_by_little() -> Fixture {
    let mut f = Fixture::new(FlushMode::Ack, &[ME, B2]);
    f.log(10, 10);
    f.report(report(B2, 10, 10));
    f.log(20, 20);
    assert_eq!(
        proposed(&f.report(report(B3, 8, 8))),
        None,
        "R-13: below the high watermark"
    );
    f.report(report(B2, 20, 20));
    assert_eq!(
        f.leader.high_watermark(),
        o(10),
        "broker 3 can reach it and join"
    );
    f
}

#[test]
fn a_follower_that_is_almost_there_is_waited_for_and_joins() {
    let mut f = behind_by_little();
    assert_eq!(
        proposed(&f.report(report(B3, 12, 12))),
        Some(vec![ME, B2, B3])
    );
}

#[test]
fn a_follower_that_is_stuck_almost_there_is_not_waited_for_long() {
    let mut f = behind_by_little();
    assert!(f.tick(400).contains(&Effect::HighWatermark(o(20))));
}
