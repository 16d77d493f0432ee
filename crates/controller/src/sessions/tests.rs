//! Claims about who is fenced, and when.

use std::sync::Arc;

use super::*;

const LIMITS: Limits = Limits {
    session: Duration::from_millis(2_000),
    grace: Duration::from_millis(250),
    dead: Duration::from_millis(40),
    refused: Duration::from_millis(250),
};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn broker(id: i32, epoch: i64, fenced: bool) -> BrokerRecord {
    BrokerRecord {
        broker_id: BrokerId(id),
        epoch: BrokerEpoch::saturating(epoch),
        incarnation: Uuid::from_u128(u128::try_from(epoch).unwrap()),
        directory_ids: vec![Uuid::from_u128(1)],
        endpoints: Vec::new(),
        replication_address: format!("127.0.0.1:{id}"),
        rack: None,
        fenced,
        in_controlled_shutdown: false,
        offline_directories: Vec::new(),
        no_space: false,
        default_flush_mode: ottla_types::FlushMode::Ack,
    }
}

fn probe(answer: Dial, began: Instant) -> Probe {
    Probe {
        answer,
        began,
        node_lost: false,
    }
}

fn refuses(sessions: &mut Sessions, id: i32, of: i64, now: Instant) {
    sessions.probed(BrokerId(id), epoch(of), probe(Dial::Refused, now), now);
}

fn accepts(sessions: &mut Sessions, id: i32, of: i64, now: Instant) {
    sessions.probed(BrokerId(id), epoch(of), probe(Dial::Accepted, now), now);
}

fn image(brokers: impl IntoIterator<Item = BrokerRecord>) -> Image {
    let mut image = Image::default();
    for broker in brokers {
        image.brokers.insert(broker.broker_id, Arc::new(broker));
    }
    image
}

fn epoch(epoch: i64) -> BrokerEpoch {
    BrokerEpoch::saturating(epoch)
}

fn beat(metadata_index: u64, ready: bool, want_shutdown: bool) -> Beat {
    Beat {
        metadata_index,
        ready,
        want_shutdown,
        offline_directories: Vec::new(),
        no_space: false,
    }
}

/// Two unfenced brokers, both with a stream.
fn two(now: Instant) -> Sessions {
    let mut sessions = Sessions::new(LIMITS, now);
    sessions.sync(&image([broker(1, 5, false), broker(2, 6, false)]), 10, now);
    sessions.opened(BrokerId(1), epoch(5), false, now);
    sessions.opened(BrokerId(2), epoch(6), false, now);
    sessions
}

fn fences(due: &[Due]) -> Vec<(BrokerId, Gone)> {
    let gone = due.iter().filter_map(|due| match due.action {
        Action::Fence(gone) => Some((due.broker_id, gone)),
        Action::Unfence
        | Action::BeginShutdown
        | Action::FailDirectories
        | Action::ReportSpace { .. } => None,
    });
    gone.collect()
}

#[tokio::test]
async fn a_broken_stream_fences_after_the_grace_unless_another_opens() {
    let now = Instant::now();
    let mut sessions = two(now);
    sessions.closed(BrokerId(1), epoch(5), now);
    assert!(fences(&sessions.due(now + ms(249))).is_empty());
    assert_eq!(sessions.live(), BTreeSet::from([BrokerId(2)]));
    sessions.opened(BrokerId(1), epoch(5), false, now + ms(100));
    assert!(fences(&sessions.due(now + ms(400))).is_empty());
    sessions.closed(BrokerId(1), epoch(5), now + ms(500));
    let due = sessions.due(now + ms(750));
    assert_eq!(fences(&due), [(BrokerId(1), Gone::StreamBroke)]);
    assert!(
        sessions.due(now + ms(751)).is_empty(),
        "one proposal at a time"
    );
    sessions.proposed(due[0], false, now + ms(800));
    assert_eq!(
        fences(&sessions.due(now + ms(1_200))).len(),
        1,
        "not decided: again"
    );
}

#[tokio::test]
async fn a_broken_stream_and_a_refusing_address_are_a_dead_process() {
    let now = Instant::now();
    let mut sessions = two(now);
    sessions.closed(BrokerId(1), epoch(5), now);
    refuses(&mut sessions, 1, 5, now + ms(5));
    accepts(&mut sessions, 1, 5, now + ms(25));
    assert!(
        fences(&sessions.due(now + ms(60))).is_empty(),
        "it listens: only its stream was reset"
    );
    refuses(&mut sessions, 1, 5, now + ms(65));
    assert!(fences(&sessions.due(now + ms(104))).is_empty());
    assert_eq!(
        fences(&sessions.due(now + ms(105))),
        [(BrokerId(1), Gone::Refused)]
    );
}

#[tokio::test]
async fn silence_fences_only_after_a_session_under_this_controller() {
    let now = Instant::now();
    let mut sessions = Sessions::new(LIMITS, now);
    sessions.sync(&image([broker(1, 5, false)]), 10, now);
    assert!(fences(&sessions.due(now + ms(1_999))).is_empty());
    assert_eq!(
        fences(&sessions.due(now + ms(2_000))),
        [(BrokerId(1), Gone::Silent)]
    );
    let mut sessions = two(now);
    sessions.beat(
        BrokerId(1),
        epoch(5),
        beat(10, true, false),
        now + ms(1_000),
    );
    let gone = fences(&sessions.due(now + ms(2_500)));
    assert_eq!(
        gone,
        [(BrokerId(2), Gone::Silent)],
        "an open but silent stream is silence"
    );
}

#[tokio::test]
async fn an_address_that_refuses_for_the_whole_grace_is_a_broken_stream() {
    let now = Instant::now();
    let mut sessions = Sessions::new(LIMITS, now);
    sessions.sync(&image([broker(1, 5, false), broker(2, 6, false)]), 10, now);
    assert_eq!(sessions.to_probe().len(), 2);
    refuses(&mut sessions, 1, 5, now + ms(10));
    accepts(&mut sessions, 1, 5, now + ms(100));
    refuses(&mut sessions, 1, 5, now + ms(200));
    assert!(fences(&sessions.due(now + ms(300))).is_empty());
    // Broker 2 has not come yet: fencing now would elect nobody.
    assert!(fences(&sessions.due(now + ms(460))).is_empty());
    sessions.opened(BrokerId(2), epoch(6), false, now + ms(470));
    assert_eq!(
        fences(&sessions.due(now + ms(480))),
        [(BrokerId(1), Gone::Refused)]
    );
    assert_eq!(sessions.live(), BTreeSet::from([BrokerId(2)]));
}

#[tokio::test]
async fn a_ready_broker_is_unfenced_once_its_image_holds_its_registration() {
    let now = Instant::now();
    let mut sessions = Sessions::new(LIMITS, now);
    sessions.sync(&image([broker(1, 50, true)]), 50, now);
    sessions.opened(BrokerId(1), epoch(50), false, now);
    sessions.beat(BrokerId(1), epoch(50), beat(49, true, false), now);
    assert!(sessions.due(now).is_empty());
    sessions.beat(BrokerId(1), epoch(50), beat(50, false, false), now);
    assert!(sessions.due(now).is_empty());
    sessions.beat(BrokerId(1), epoch(50), beat(50, true, false), now);
    assert_eq!(sessions.due(now)[0].action, Action::Unfence);
    // Fenced at 60, it must know that before it serves again.
    sessions.sync(&image([broker(1, 50, false)]), 55, now);
    sessions.sync(&image([broker(1, 50, true)]), 60, now);
    let due = Due {
        broker_id: BrokerId(1),
        broker_epoch: epoch(50),
        action: Action::Unfence,
    };
    sessions.proposed(due, true, now);
    assert!(sessions.due(now + ms(1)).is_empty());
    sessions.beat(BrokerId(1), epoch(50), beat(60, true, false), now);
    assert_eq!(sessions.due(now + ms(2))[0].action, Action::Unfence);
}

#[tokio::test]
async fn messages_of_an_earlier_incarnation_count_for_nothing() {
    let now = Instant::now();
    let mut sessions = two(now);
    sessions.sync(&image([broker(1, 9, true), broker(2, 6, false)]), 20, now);
    assert!(!sessions.is_current(BrokerId(1), epoch(5), Uuid::from_u128(5)));
    assert!(!sessions.is_current(BrokerId(1), epoch(9), Uuid::from_u128(5)));
    assert!(sessions.is_current(BrokerId(1), epoch(9), Uuid::from_u128(9)));
    sessions.beat(BrokerId(1), epoch(5), beat(99, true, false), now);
    sessions.closed(BrokerId(1), epoch(5), now);
    assert!(sessions.due(now + ms(300)).is_empty());
}

#[tokio::test]
async fn a_stopping_broker_goes_once_it_leads_nothing_and_the_others_know() {
    let now = Instant::now();
    let mut sessions = two(now);
    let id = BrokerId(1);
    sessions.beat(BrokerId(2), epoch(6), beat(10, true, false), now);
    sessions.beat(id, epoch(5), beat(10, true, true), now);
    assert!(!sessions.may_shut_down(id, epoch(5), 3, 10));
    let due = sessions.due(now);
    assert_eq!(due[0].action, Action::BeginShutdown);
    let mut stopping = broker(1, 5, false);
    stopping.in_controlled_shutdown = true;
    sessions.sync(&image([stopping, broker(2, 6, false)]), 12, now);
    sessions.proposed(due[0], true, now);
    assert!(
        !sessions.may_shut_down(id, epoch(5), 1, 12),
        "it still leads one"
    );
    assert_eq!(
        sessions.due(now + ms(400))[0].action,
        Action::BeginShutdown,
        "tried again"
    );
    assert!(
        !sessions.may_shut_down(id, epoch(5), 0, 14),
        "broker 2 is at 10"
    );
    sessions.beat(BrokerId(2), epoch(6), beat(14, true, false), now);
    assert!(sessions.may_shut_down(id, epoch(5), 0, 15));
}

#[tokio::test]
async fn a_returning_stream_asks_for_an_election_when_partitions_have_no_leader() {
    let now = Instant::now();
    let mut sessions = two(now);
    sessions.closed(BrokerId(1), epoch(5), now);
    sessions.opened(BrokerId(1), epoch(5), true, now + ms(10));
    assert_eq!(sessions.due(now + ms(11))[0].action, Action::Unfence);
    assert!(sessions.next_deadline(now) > now);
}

#[tokio::test]
async fn a_broker_whose_node_was_lost_is_fenced_once_its_address_accepts_nothing_for_the_grace() {
    let now = Instant::now();
    let mut sessions = Sessions::new(LIMITS, now);
    sessions.sync(&image([broker(1, 5, false), broker(2, 6, false)]), 10, now);
    sessions.opened(BrokerId(2), epoch(6), false, now);
    let unknown = |node_lost, began| Probe {
        answer: Dial::Unknown,
        began,
        node_lost,
    };
    let id = BrokerId(1);
    // An address that does not answer is silence (C-9), unless its node is known to be lost.
    sessions.probed(id, epoch(5), unknown(false, now), now + ms(200));
    assert!(fences(&sessions.due(now + ms(800))).is_empty());
    sessions.probed(id, epoch(5), unknown(true, now + ms(800)), now + ms(1_000));
    accepts(&mut sessions, 1, 5, now + ms(1_010));
    sessions.probed(
        id,
        epoch(5),
        unknown(true, now + ms(1_020)),
        now + ms(1_220),
    );
    assert!(fences(&sessions.due(now + ms(1_269))).is_empty());
    assert_eq!(sessions.next_deadline(now + ms(1_269)), now + ms(1_270));
    assert_eq!(
        fences(&sessions.due(now + ms(1_270))),
        [(id, Gone::Vanished)]
    );
}

#[tokio::test]
async fn a_failed_directory_is_proposed_once_and_before_anything_else() {
    let now = Instant::now();
    let mut sessions = two(now);
    let id = BrokerId(1);
    let failed = |directory| Beat {
        offline_directories: vec![Uuid::from_u128(directory)],
        ..beat(10, true, true)
    };
    sessions.beat(id, epoch(5), failed(77), now);
    assert_eq!(
        sessions.due(now + ms(500))[0].action,
        Action::BeginShutdown,
        "a directory that is not its own says nothing"
    );
    let mut sessions = two(now);
    sessions.beat(id, epoch(5), failed(1), now);
    let due = sessions.due(now + ms(500));
    assert_eq!(due[0].action, Action::FailDirectories);
    assert_eq!(sessions.failed_directories(id), [Uuid::from_u128(1)]);
    let mut record = broker(1, 5, false);
    record.offline_directories = vec![Uuid::from_u128(1)];
    sessions.sync(&image([record, broker(2, 6, false)]), 11, now);
    sessions.proposed(due[0], true, now);
    assert!(sessions.failed_directories(id).is_empty());
    assert_eq!(sessions.due(now + ms(500))[0].action, Action::BeginShutdown);
}

#[tokio::test]
async fn a_fenced_broker_with_a_failed_directory_is_not_unfenced_first() {
    let now = Instant::now();
    let mut sessions = Sessions::new(LIMITS, now);
    sessions.sync(&image([broker(1, 50, true)]), 50, now);
    sessions.opened(BrokerId(1), epoch(50), false, now);
    let failed = Beat {
        offline_directories: vec![Uuid::from_u128(1)],
        ..beat(50, true, false)
    };
    sessions.beat(BrokerId(1), epoch(50), failed, now);
    assert_eq!(sessions.due(now)[0].action, Action::FailDirectories);
}

#[tokio::test]
async fn a_change_of_space_is_proposed_when_it_changes() {
    let now = Instant::now();
    let mut sessions = two(now);
    let full = Beat {
        no_space: true,
        ..beat(10, true, false)
    };
    sessions.beat(BrokerId(1), epoch(5), full.clone(), now);
    let due = sessions.due(now + ms(500));
    assert_eq!(due[0].action, Action::ReportSpace { no_space: true });
    let mut record = broker(1, 5, false);
    record.no_space = true;
    sessions.sync(&image([record, broker(2, 6, false)]), 11, now);
    sessions.proposed(due[0], true, now);
    sessions.beat(BrokerId(1), epoch(5), full, now + ms(501));
    assert!(sessions.due(now + ms(502)).is_empty());
    sessions.beat(BrokerId(1), epoch(5), beat(10, true, false), now + ms(503));
    assert_eq!(
        sessions.due(now + ms(504))[0].action,
        Action::ReportSpace { no_space: false }
    );
}

#[tokio::test]
async fn a_stream_that_came_while_an_election_was_under_way_asks_for_another() {
    let now = Instant::now();
    let mut sessions = two(now);
    sessions.passed_over(&BTreeSet::from([BrokerId(1), BrokerId(2)]));
    assert!(sessions.due(now + ms(1)).is_empty());
    sessions.passed_over(&BTreeSet::from([BrokerId(1)]));
    let due = sessions.due(now + ms(2));
    assert_eq!(
        (due[0].broker_id, due[0].action),
        (BrokerId(2), Action::Unfence)
    );
    sessions.proposed(due[0], true, now + ms(3));
    assert!(sessions.due(now + ms(4)).is_empty());
}
