//! Sessions over their lives: news, errors, evictions.

use std::sync::atomic::{AtomicI32, Ordering};

use ottla_wire::TopicKey;

use super::*;

fn key(partition: i32) -> PartitionKey {
    PartitionKey {
        topic: TopicKey::Name("t".into()),
        partition,
    }
}

fn wanted(fetch_offset: i64) -> Wanted {
    Wanted {
        fetch_offset,
        max_bytes: 100,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
    }
}

fn told(high_watermark: i64) -> Told {
    Told {
        high_watermark,
        log_start_offset: 0,
        has_records: false,
        must_tell: false,
    }
}

fn ids() -> impl FnMut() -> i32 {
    static NEXT: AtomicI32 = AtomicI32::new(1);
    || NEXT.fetch_add(1, Ordering::Relaxed)
}

fn request(session_id: i32, session_epoch: i32) -> SessionRequest {
    SessionRequest {
        session_id,
        session_epoch,
        by_topic_id: false,
    }
}

/// Opens a session over these partitions, all at high watermark 10.
fn open(sessions: &FetchSessions, partitions: i32, now: Instant) -> i32 {
    let wanted = (0..partitions)
        .map(|partition| (key(partition), wanted(0)))
        .collect();
    let begun = sessions.begin(request(0, 0), wanted, &[], now).unwrap();
    let told = vec![told(10); begun.partitions.len()];
    sessions.end(&begun, &told, now, ids()).unwrap().0
}

#[tokio::test]
async fn an_incremental_answer_lists_only_news() {
    let (sessions, now) = (FetchSessions::new(10), Instant::now());
    let id = open(&sessions, 3, now);
    assert_ne!(id, 0);

    let begun = sessions
        .begin(request(id, 1), Vec::new(), &[], now)
        .unwrap();
    assert_eq!(begun.partitions.len(), 3);
    let answers = [
        told(10),
        told(11),
        Told {
            has_records: true,
            ..told(10)
        },
    ];
    let (same, listed) = sessions.end(&begun, &answers, now, ids()).unwrap();
    assert_eq!((same, listed), (id, vec![false, true, true]));

    // The partition that returned data has gone to the end; a changed offset keeps its place.
    let update = vec![(key(0), wanted(7))];
    let begun = sessions
        .begin(request(id, 2), update, &[key(1)], now)
        .unwrap();
    assert_eq!(
        begun.partitions,
        vec![(key(0), wanted(7)), (key(2), wanted(0))]
    );
}

#[tokio::test]
async fn the_success_after_an_error_is_told() {
    let (sessions, now) = (FetchSessions::new(10), Instant::now());
    let id = open(&sessions, 1, now);
    let error = Told {
        must_tell: true,
        log_start_offset: -1,
        ..told(-1)
    };
    for (epoch, answer, listed) in [
        (1, told(10), false),
        (2, error, true),
        (3, told(10), true),
        (4, told(10), false),
    ] {
        let begun = sessions
            .begin(request(id, epoch), Vec::new(), &[], now)
            .unwrap();
        assert_eq!(
            sessions.end(&begun, &[answer], now, ids()).unwrap().1,
            vec![listed],
            "{epoch}"
        );
    }
}

#[tokio::test]
async fn wrong_ids_epochs_and_naming_are_refused() {
    let (sessions, now) = (FetchSessions::new(10), Instant::now());
    let id = open(&sessions, 1, now);
    let begin = |request| {
        sessions
            .begin(request, Vec::new(), &[], now)
            .map(|_| ())
            .unwrap_err()
    };
    assert_eq!(begin(request(id + 1000, 1)), SessionError::NotFound);
    assert_eq!(begin(request(id, 2)), SessionError::InvalidEpoch);
    let by_id = SessionRequest {
        by_topic_id: true,
        ..request(id, 1)
    };
    assert_eq!(begin(by_id), SessionError::TopicIds);
    // None of these used up the epoch.
    assert!(sessions.begin(request(id, 1), Vec::new(), &[], now).is_ok());
}

#[tokio::test]
async fn of_two_requests_at_once_the_first_is_told_that_its_epoch_is_over() {
    let (sessions, now) = (FetchSessions::new(10), Instant::now());
    let id = open(&sessions, 1, now);
    let first = sessions
        .begin(request(id, 1), Vec::new(), &[], now)
        .unwrap();
    let second = sessions
        .begin(request(id, 2), Vec::new(), &[], now)
        .unwrap();
    let error = sessions.end(&first, &[told(10)], now, ids()).unwrap_err();
    assert_eq!(error, SessionError::InvalidEpoch);
    assert!(sessions.end(&second, &[told(10)], now, ids()).is_ok());
}

#[tokio::test]
async fn a_session_ends_when_it_is_closed_or_empty() {
    let (sessions, now) = (FetchSessions::new(10), Instant::now());
    let (a, b, c) = (
        open(&sessions, 1, now),
        open(&sessions, 1, now),
        open(&sessions, 1, now),
    );
    sessions
        .begin(request(a, -1), Vec::new(), &[], now)
        .unwrap();
    sessions
        .begin(request(b, 1), Vec::new(), &[key(0)], now)
        .unwrap();
    assert_eq!(sessions.len(), 1);
    // A new full request replaces the old session.
    sessions
        .begin(request(c, 0), vec![(key(0), wanted(0))], &[], now)
        .unwrap();
    assert_eq!(sessions.len(), 0);
}

#[tokio::test]
async fn a_full_cache_evicts_the_idle_and_the_smaller() {
    let (sessions, now) = (FetchSessions::new(2), Instant::now());
    let (small, large) = (open(&sessions, 1, now), open(&sessions, 5, now));
    assert_eq!(open(&sessions, 1, now), 0, "not smaller than any");
    let medium = open(&sessions, 3, now);
    assert_ne!(medium, 0);
    let gone = sessions
        .begin(request(small, 1), Vec::new(), &[], now)
        .unwrap_err();
    assert_eq!(gone, SessionError::NotFound);
    let later = now + Duration::from_secs(121);
    assert!(
        sessions
            .begin(request(large, 1), Vec::new(), &[], later)
            .is_ok()
    );
    assert_ne!(open(&sessions, 1, later), 0, "the medium one is idle");
    let gone = sessions
        .begin(request(medium, 1), Vec::new(), &[], later)
        .unwrap_err();
    assert_eq!(gone, SessionError::NotFound);
}

#[tokio::test]
async fn the_epoch_wraps_to_one() {
    let mut session = Session::new(false, &[]);
    session.next_epoch = i32::MAX;
    session.advance_epoch();
    assert_eq!(session.next_epoch, 1);
}

#[test]
fn a_session_does_not_grow_without_end() {
    let sessions = FetchSessions::new(1);
    let now = Instant::now();
    let part = |from: i32| -> Vec<(PartitionKey, Wanted)> {
        (from..from + 100_000)
            .map(|p| (key(p), wanted(0)))
            .collect()
    };
    let begun = sessions.begin(request(0, 0), part(0), &[], now).unwrap();
    let news = vec![told(0); begun.partitions.len()];
    let (id, _) = sessions.end(&begun, &news, now, ids()).unwrap();
    assert!(
        sessions
            .begin(request(id, 1), part(100_000), &[], now)
            .is_ok()
    );
    let grown = sessions.begin(request(id, 2), part(200_000), &[], now);
    assert_eq!(grown.unwrap_err(), SessionError::NotFound, "X-12");
    assert_eq!(sessions.len(), 0);
}
