//! One connection against a service that echoes.

use std::sync::atomic::AtomicUsize;

use bytes::{BufMut, Bytes};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
};

use super::*;

struct NoFile;

impl FileSlice for NoFile {
    fn send_to(&self, _: std::os::fd::BorrowedFd<'_>, _: usize, _: usize) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Echoes frames; those that begin with `w` wait for the gate, `x` closes, `!` is refused, `n` is
/// not answered, and `a` takes its time to be admitted.
struct Echo {
    gate: Arc<Notify>,
    calls: Arc<AtomicUsize>,
}

impl Service for Echo {
    type File = NoFile;

    #[allow(
        clippy::async_yields_async,
        reason = "the outer future admits, the inner one answers"
    )]
    fn call(&mut self, frame: BytesMut) -> Call<NoFile> {
        self.calls.fetch_add(1, Relaxed);
        let (first, gate) = (frame.first().copied(), Arc::clone(&self.gate));
        let mut answer = BytesMut::new();
        answer.put_u32(u32::try_from(frame.len()).unwrap());
        answer.put(frame);
        let answer = answer.freeze();
        let echo = |answer: Bytes| -> BoxFuture<'static, Answer<NoFile>> {
            Box::pin(async move { Answer::Bytes(answer) })
        };
        match first {
            Some(b'!') => Call::Refused,
            Some(b'x') => Call::Admitted(Box::pin(async { Answer::Close })),
            Some(b'n') => Call::Admitted(Box::pin(async { Answer::Nothing })),
            Some(b'w') => Call::Admitted(Box::pin(async move {
                gate.notified().await;
                Answer::Bytes(answer)
            })),
            Some(b'a') => Call::Admitting(Box::pin(async move {
                gate.notified().await;
                echo(answer)
            })),
            _ => Call::Admitted(echo(answer)),
        }
    }
}

struct Rig {
    client: TcpStream,
    gate: Arc<Notify>,
    calls: Arc<AtomicUsize>,
    shutdown: CancellationToken,
    metrics: Arc<GatewayMetrics>,
    served: tokio::task::JoinHandle<Closed>,
}

fn settings() -> ConnectionSettings {
    ConnectionSettings {
        frame_bytes_max: 1 << 20,
        requests_max: 4,
        bytes_max: 1 << 20,
        unsent_bytes_max: 1 << 20,
        idle_limit: Some(Duration::from_secs(600)),
        stall_limit: Duration::from_secs(60),
        drain_limit: Duration::from_secs(2),
    }
}

async fn rig(settings: ConnectionSettings, budget: Option<Budget>) -> Rig {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let (gate, calls) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let echo = Echo {
        gate: Arc::clone(&gate),
        calls: Arc::clone(&calls),
    };
    let metrics = Arc::new(GatewayMetrics::default());
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let connection = Connection::new(stream, echo, settings, Arc::clone(&metrics), budget, stop);
    let tasks = tokio_util::task::TaskTracker::new();
    let served = tasks.spawn(connection.run());
    Rig {
        client,
        gate,
        calls,
        shutdown,
        metrics,
        served,
    }
}

impl Rig {
    async fn send(&mut self, body: &[u8]) {
        let mut frame = BytesMut::new();
        frame.put_u32(u32::try_from(body.len()).unwrap());
        frame.put(body);
        self.client.write_all(&frame).await.unwrap();
    }

    async fn receive(&mut self) -> Vec<u8> {
        let len = usize::try_from(self.client.read_u32().await.unwrap()).unwrap();
        let mut body = vec![0; len];
        self.client.read_exact(&mut body).await.unwrap();
        body
    }

    async fn calls_reach(&self, count: usize) {
        while self.calls.load(Relaxed) < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn responses_leave_in_request_order_and_later_requests_are_admitted_meanwhile() {
    let mut rig = rig(settings(), None).await;
    for body in [&b"w1"[..], b"2", b"n3", b"4"] {
        rig.send(body).await;
    }
    rig.calls_reach(4).await;
    rig.gate.notify_one();
    for body in [&b"w1"[..], b"2", b"4"] {
        assert_eq!(rig.receive().await, body);
    }
}

#[tokio::test]
async fn at_most_so_many_requests_are_in_flight() {
    let mut rig = rig(settings(), None).await;
    for body in [&b"w1"[..], b"2", b"3", b"4", b"5"] {
        rig.send(body).await;
    }
    rig.calls_reach(4).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(rig.calls.load(Relaxed), 4);
    rig.gate.notify_one();
    for body in [&b"w1"[..], b"2", b"3", b"4", b"5"] {
        assert_eq!(rig.receive().await, body);
    }
}

#[tokio::test]
async fn the_next_request_waits_for_the_admission_of_the_one_before() {
    let mut rig = rig(settings(), None).await;
    rig.send(b"a1").await;
    rig.send(b"2").await;
    rig.calls_reach(1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(rig.calls.load(Relaxed), 1);
    rig.gate.notify_one();
    assert_eq!(rig.receive().await, b"a1");
    assert_eq!(rig.receive().await, b"2");
}

#[tokio::test]
async fn a_spent_budget_stops_the_reading_until_something_is_answered() {
    let budget = Budget::new(1024);
    let mut rig = rig(settings(), Some(budget.clone())).await;
    rig.send(&[b'w'; 1500]).await;
    rig.send(b"2").await;
    rig.calls_reach(1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((rig.calls.load(Relaxed), budget.available_bytes()), (1, 0));
    rig.gate.notify_one();
    assert_eq!(rig.receive().await.len(), 1500);
    assert_eq!(rig.receive().await, b"2");
    assert_eq!(budget.available_bytes(), 2048);
}

/// frames that are still coming in count too, and cannot block each other.
#[tokio::test]
async fn unfinished_frames_are_bounded_by_the_budget_and_finish_one_after_another() {
    const FRAME_BYTES: usize = 900 << 10;
    let budget = Budget::new(1 << 20);
    let mut rigs = Vec::new();
    for _ in 0..4 {
        rigs.push(rig(settings(), Some(budget.clone())).await);
    }
    // All but the last byte of each: more than the budget, so not all of it is read.
    let mut rests = Vec::new();
    for Rig { client, .. } in &mut rigs {
        let mut frame = BytesMut::new();
        frame.put_u32(u32::try_from(FRAME_BYTES).unwrap());
        frame.resize(4 + FRAME_BYTES, b'f');
        let rest = frame.split_off(200 << 10);
        client.write_all(&frame).await.unwrap();
        rests.push(rest);
    }
    let (mut half, deadline) = (0, Instant::now() + Duration::from_secs(5));
    while half < 2 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
        half = (1 << 20) / budget.available_bytes().max(1);
    }
    assert!(
        half >= 2,
        "what has come in counts: {}",
        budget.available_bytes()
    );
    let finish = rigs.iter_mut().zip(rests).map(|(rig, rest)| async move {
        let (mut read, mut write) = rig.client.split();
        let echoed = async {
            let mut body = vec![0; 4 + FRAME_BYTES];
            read.read_exact(&mut body).await.unwrap();
        };
        let (written, ()) = tokio::join!(write.write_all(&rest), echoed);
        written.unwrap();
    });
    let all = futures::future::join_all(finish);
    tokio::time::timeout(Duration::from_secs(10), all)
        .await
        .expect("they do not wait for each other");
    assert_eq!(budget.available_bytes(), (1 << 20) + 1024);
}

#[tokio::test]
async fn large_frames_and_many_small_ones_come_back_whole() {
    let mut rig = rig(settings(), None).await;
    let large: Vec<u8> = (0..900_000u32).map(|i| i.to_le_bytes()[0] | 0x80).collect();
    for _ in 0..3 {
        rig.send(&large).await;
        assert!(rig.receive().await == large);
        for round in 0..100u8 {
            rig.send(&[round | 0x80, 1, 2]).await;
        }
        for round in 0..100u8 {
            assert_eq!(rig.receive().await, [round | 0x80, 1, 2]);
        }
    }
    assert!(rig.metrics.snapshot().bytes_written > 2_700_000);
}

#[tokio::test]
async fn bad_frames_refusals_and_closing_answers_close() {
    for (bytes, expected) in [
        (&b"\x7f\xff\xff\xff"[..], "frame"),
        (b"\xff\xff\xff\xff", "frame"),
        (b"\0\0\0\x01!", "not served"),
        (b"\0\0\0\x01x", "an answer"),
    ] {
        let mut rig = rig(settings(), None).await;
        rig.client.write_all(bytes).await.unwrap();
        let closed = rig.served.await.unwrap().to_string();
        assert!(closed.contains(expected), "{closed}");
        assert_eq!(rig.client.read(&mut [0; 1]).await.unwrap_or(0), 0);
    }
}

#[tokio::test]
async fn what_a_client_asked_before_it_left_is_still_done() {
    let mut rig = rig(settings(), None).await;
    rig.send(b"w1").await;
    rig.calls_reach(1).await;
    let Rig {
        client,
        gate,
        served,
        ..
    } = rig;
    drop(client);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!served.is_finished());
    gate.notify_one();
    assert!(matches!(served.await.unwrap(), Closed::ByPeer));
}

#[tokio::test]
async fn stopping_answers_what_is_in_flight_and_no_more() {
    let mut rig = rig(settings(), None).await;
    rig.send(b"w1").await;
    rig.calls_reach(1).await;
    rig.shutdown.cancel();
    tokio::time::sleep(Duration::from_millis(20)).await;
    rig.send(b"2").await;
    rig.gate.notify_one();
    assert_eq!(rig.receive().await, b"w1");
    assert!(matches!(rig.served.await.unwrap(), Closed::Stopping));
    assert_eq!(rig.calls.load(Relaxed), 1);
}

#[tokio::test]
async fn idle_and_stalled_connections_are_closed() {
    let quick = ConnectionSettings {
        idle_limit: Some(Duration::from_millis(80)),
        stall_limit: Duration::from_millis(160),
        ..settings()
    };
    let idle = rig(quick.clone(), None).await;
    assert!(matches!(idle.served.await.unwrap(), Closed::Idle));
    let no_idle = ConnectionSettings {
        idle_limit: None,
        ..quick
    };
    let mut slow = rig(no_idle.clone(), None).await;
    slow.client.write_all(b"\0\0\0\x09half").await.unwrap();
    assert!(matches!(slow.served.await.unwrap(), Closed::Stalled));
    // A long poll is neither.
    let mut waiting = rig(no_idle, None).await;
    waiting.send(b"w1").await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    waiting.gate.notify_one();
    assert_eq!(waiting.receive().await, b"w1");
}
