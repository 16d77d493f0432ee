//! The follower's side of replica streams: one link per leader, with a live and a catch-up lane.
//!
//! A link exists from the first partition that follows that leader; it connects while at least one
//! does, and again within 20 to 100 ms when it breaks. Shards put in subscriptions and
//! acknowledgements without waiting; acknowledgements of one partition are coalesced.
//!
//! # Invariants
//! * Every frame received returns its credit once, when its [`CreditGuard`] is dropped, on the
//!   stream it came by; credit of a broken stream is void.
//! * A stream carries one registration of this broker: a new broker epoch means a new stream.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Endpoint;
use tracing::{debug, info};

use ottla_metadata::Image;
use ottla_records::batches;
use ottla_replication::{FrameFacts, FrameKind};
use ottla_rpc::{
    convert,
    replication::{
        Ack, FollowerMessage, Frame, Hello, LeaderMessage, Subscribe,
        replication_client::ReplicationClient,
    },
};
use ottla_types::{BrokerId, LeaderEpoch, Offset, PartitionId};

use crate::shard::{
    env::Router,
    input::{FrameInput, Input},
};

const BACK_OFF_MIN: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_millis(100);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_000);
/// How often a stream checks that it still is what metadata says.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a broken stream makes its leader suspect: by then the controller has decided.
const SUSPECT_FOR: Duration = Duration::from_secs(3);
/// Largest message accepted; frames are about a chunk, but one batch may be larger.
pub(crate) const MESSAGE_BYTES_MAX: usize = 256 << 20;
/// HTTP/2 windows: the streams have their own credit, so these only must not be in the way.
pub(crate) const HTTP2_WINDOW_BYTES: u32 = 64 << 20;

/// What goes out on one stream next.
#[derive(Default)]
struct Outbound {
    hello: Option<Hello>,
    subscribes: Vec<Subscribe>,
    acks: HashMap<PartitionId, Ack>,
    credit: u64,
    closed: bool,
}

/// One stream's way out.
#[derive(Default)]
struct Out {
    outbound: Mutex<Outbound>,
    notify: Notify,
}

impl Out {
    fn with(&self, change: impl FnOnce(&mut Outbound)) {
        change(&mut self.outbound.lock());
        self.notify.notify_one();
    }

    /// The next message; `None` once closed.
    async fn next(&self) -> Option<FollowerMessage> {
        loop {
            {
                let mut outbound = self.outbound.lock();
                if outbound.closed {
                    return None;
                }
                let idle = outbound.hello.is_none()
                    && outbound.subscribes.is_empty()
                    && outbound.acks.is_empty()
                    && outbound.credit == 0;
                if !idle {
                    return Some(FollowerMessage {
                        hello: outbound.hello.take(),
                        subscribe: std::mem::take(&mut outbound.subscribes),
                        acks: outbound.acks.drain().map(|(_, ack)| ack).collect(),
                        credit_bytes: std::mem::take(&mut outbound.credit),
                    });
                }
            }
            self.notify.notified().await;
        }
    }
}

/// Gives a frame's bytes back to the leader when it is dropped.
pub(crate) struct CreditGuard {
    bytes: u64,
    out: Weak<Out>,
}

impl Drop for CreditGuard {
    fn drop(&mut self) {
        if self.bytes > 0
            && let Some(out) = self.out.upgrade()
        {
            out.with(|outbound| outbound.credit += self.bytes);
        }
    }
}

/// The streams to one leader.
struct Link {
    leader: BrokerId,
    /// Partitions that follow it.
    wanted: AtomicUsize,
    wake: Notify,
    up: AtomicBool,
    /// When the live lane's stream was broken from the other side, until it is up again.
    broke: Mutex<Option<Instant>>,
    /// The live lane's way out while it is up.
    live: Mutex<Option<Arc<Out>>>,
}

/// Every link of this broker.
pub(crate) struct Fetchers {
    broker_id: BrokerId,
    /// This broker's registration; negative for none.
    broker_epoch: Arc<AtomicI64>,
    image: Arc<ArcSwap<Image>>,
    router: Arc<Router>,
    runtime: tokio::runtime::Handle,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    links: Mutex<HashMap<BrokerId, Arc<Link>>>,
    /// To hand to tasks.
    this: Weak<Fetchers>,
}

impl Fetchers {
    pub(crate) fn new(
        broker_id: BrokerId,
        broker_epoch: Arc<AtomicI64>,
        image: Arc<ArcSwap<Image>>,
        router: Arc<Router>,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Arc<Fetchers> {
        Arc::new_cyclic(|this| Fetchers {
            broker_id,
            broker_epoch,
            image,
            router,
            runtime: tokio::runtime::Handle::current(),
            tasks,
            shutdown,
            links: Mutex::new(HashMap::new()),
            this: Weak::clone(this),
        })
    }

    /// One more partition follows `leader`.
    pub(crate) fn acquire(&self, leader: BrokerId) {
        let link = self.link(leader);
        link.wanted.fetch_add(1, Ordering::SeqCst);
        link.wake.notify_waiters();
    }

    /// One fewer does.
    pub(crate) fn release(&self, leader: BrokerId) {
        self.link(leader).wanted.fetch_sub(1, Ordering::SeqCst);
    }

    /// A stream to `leader` is up: a subscription may go out.
    pub(crate) fn is_up(&self, leader: BrokerId) -> bool {
        self.link(leader).up.load(Ordering::SeqCst)
    }

    /// Whether the stream from `leader` broke a moment ago and is not up again: it may be dead.
    pub(crate) fn is_suspect(&self, leader: BrokerId) -> bool {
        let links = self.links.lock();
        links.get(&leader).is_some_and(|link| {
            link.wanted.load(Ordering::SeqCst) > 0
                && link
                    .broke
                    .lock()
                    .is_some_and(|at| at.elapsed() < SUSPECT_FOR)
        })
    }

    /// Whether some partition here follows `leader`: only then can it become suspect.
    pub(crate) fn follows(&self, leader: BrokerId) -> bool {
        let links = self.links.lock();
        let link = links.get(&leader);
        link.is_some_and(|link| link.wanted.load(Ordering::SeqCst) > 0)
    }

    /// Sends a subscription; lost if the stream is down, and made anew when it is up.
    pub(crate) fn subscribe(&self, leader: BrokerId, subscribe: Subscribe) {
        self.send(leader, |outbound| outbound.subscribes.push(subscribe));
    }

    /// Sends an acknowledgement; the newest of each partition counts.
    pub(crate) fn ack(&self, leader: BrokerId, id: PartitionId, ack: Ack) {
        self.send(leader, |outbound| {
            outbound.acks.insert(id, ack);
        });
    }

    fn send(&self, leader: BrokerId, change: impl FnOnce(&mut Outbound)) {
        let out = self.link(leader).live.lock().clone();
        if let Some(out) = out {
            out.with(change);
        }
    }

    fn link(&self, leader: BrokerId) -> Arc<Link> {
        let mut links = self.links.lock();
        if let Some(link) = links.get(&leader) {
            return Arc::clone(link);
        }
        let link = Arc::new(Link {
            leader,
            wanted: AtomicUsize::new(0),
            wake: Notify::new(),
            up: AtomicBool::new(false),
            broke: Mutex::new(None),
            live: Mutex::new(None),
        });
        links.insert(leader, Arc::clone(&link));
        drop(links);
        if let Some(this) = self.this.upgrade() {
            for lane in 0..2 {
                let (this, link) = (Arc::clone(&this), Arc::clone(&link));
                self.tasks
                    .spawn_on(async move { this.run(link, lane).await }, &self.runtime);
            }
        }
        link
    }

    /// A lane's life: connects while wanted, again and again.
    async fn run(&self, link: Arc<Link>, lane: u32) {
        let mut back_off = BACK_OFF_MIN;
        while !self.shutdown.is_cancelled() {
            if link.wanted.load(Ordering::SeqCst) == 0 {
                tokio::select! {
                    () = self.shutdown.cancelled() => return,
                    () = link.wake.notified() => {}
                    () = tokio::time::sleep(CHECK_INTERVAL) => {}
                }
                continue;
            }
            let connected = match self.target(link.leader) {
                Some(target) => self.connect_and_serve(&link, lane, &target).await,
                None => false,
            };
            back_off = if connected {
                BACK_OFF_MIN
            } else {
                (back_off * 2).min(BACK_OFF_MAX)
            };
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = tokio::time::sleep(back_off) => {}
            }
        }
    }

    /// Where the leader is, and who we are; `None` while either is unknown.
    fn target(&self, leader: BrokerId) -> Option<Target> {
        let image = self.image.load();
        let broker = image.brokers.get(&leader)?;
        let epoch = self.broker_epoch.load(Ordering::SeqCst);
        (epoch >= 0).then(|| Target {
            address: broker.replication_address.clone(),
            leader_incarnation: broker.incarnation,
            cluster_id: image.cluster_id.clone().unwrap_or_default(),
            broker_epoch: epoch,
        })
    }

    /// True if the stream was up at some time.
    async fn connect_and_serve(&self, link: &Link, lane: u32, target: &Target) -> bool {
        let serve = self.serve(link, lane, target);
        tokio::select! {
            () = self.shutdown.cancelled() => false,
            served = serve => match served {
                Ok(()) => true,
                Err(error) => {
                    debug!(leader = %link.leader, lane, %error, "replica stream");
                    false
                }
            },
        }
    }

    async fn serve(
        &self,
        link: &Link,
        lane: u32,
        target: &Target,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let channel = Endpoint::from_shared(format!("http://{}", target.address))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(2))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(HTTP2_WINDOW_BYTES)
            .initial_connection_window_size(HTTP2_WINDOW_BYTES)
            .connect()
            .await?;
        let out = Arc::new(Out::default());
        out.with(|outbound| {
            outbound.hello = Some(Hello {
                cluster_id: target.cluster_id.clone(),
                follower_id: self.broker_id.get(),
                follower_broker_epoch: target.broker_epoch,
                leader_id: link.leader.get(),
                lane,
            });
        });
        let outbound = futures::stream::unfold(Arc::clone(&out), |out| async move {
            Some((out.next().await?, out))
        });
        let mut client = ReplicationClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let mut inbound = tokio::time::timeout(CONNECT_TIMEOUT, client.replicate(outbound))
            .await??
            .into_inner();
        info!(leader = %link.leader, lane, address = %target.address, "replica stream up");
        let session = self.begin(link, lane, &out);
        loop {
            tokio::select! {
                message = inbound.message() => match message {
                    Ok(Some(message)) => self.receive(link.leader, &out, message),
                    Ok(None) => {
                        session.broke();
                        break;
                    }
                    Err(error) => {
                        debug!(leader = %link.leader, lane, %error, "replica stream broke");
                        session.broke();
                        break;
                    }
                },
                () = tokio::time::sleep(CHECK_INTERVAL) => {
                    let unwanted = link.wanted.load(Ordering::SeqCst) == 0;
                    if unwanted || self.target(link.leader).as_ref() != Some(target) {
                        break;
                    }
                }
            }
        }
        drop(session);
        Ok(())
    }

    fn begin<'a>(&'a self, link: &'a Link, lane: u32, out: &Arc<Out>) -> LinkSession<'a> {
        if lane == 0 {
            *link.live.lock() = Some(Arc::clone(out));
            *link.broke.lock() = None;
            link.up.store(true, Ordering::SeqCst);
            let leader = link.leader;
            self.router.post_all(|| Input::LinkUp { leader });
        }
        LinkSession {
            fetchers: self,
            link,
            lane,
            out: Arc::clone(out),
        }
    }

    fn receive(&self, leader: BrokerId, out: &Arc<Out>, message: LeaderMessage) {
        let mut by_shard: Vec<Vec<FrameInput>> = Vec::new();
        by_shard.resize_with(self.router.all().len(), Vec::new);
        for frame in message.frames {
            let bytes: usize = frame.records.iter().map(Bytes::len).sum();
            let credit = CreditGuard {
                bytes: u64::try_from(bytes).unwrap_or(0),
                out: Arc::downgrade(out),
            };
            let Ok(id) = convert::partition_id(&frame.topic_id, frame.partition) else {
                continue;
            };
            let Some(facts) = frame_facts(&frame) else {
                continue;
            };
            by_shard[self.router.shard_of(id)].push(FrameInput {
                id,
                leader,
                facts,
                records: frame.records,
                confirm: frame.confirm,
                credit,
            });
        }
        for (shard, frames) in by_shard.into_iter().enumerate() {
            if !frames.is_empty() {
                self.router.mailbox(shard).post(Input::Frames(frames));
            }
        }
    }
}

#[derive(PartialEq, Eq)]
struct Target {
    address: String,
    leader_incarnation: uuid::Uuid,
    cluster_id: String,
    broker_epoch: i64,
}

/// Takes a stream down again, however its task ends.
struct LinkSession<'a> {
    fetchers: &'a Fetchers,
    link: &'a Link,
    lane: u32,
    out: Arc<Out>,
}

impl LinkSession<'_> {
    /// The other side ended it.
    fn broke(&self) {
        if self.lane == 0 {
            *self.link.broke.lock() = Some(Instant::now());
        }
    }
}

impl Drop for LinkSession<'_> {
    fn drop(&mut self) {
        self.out.with(|outbound| outbound.closed = true);
        if self.lane == 0 {
            self.link.up.store(false, Ordering::SeqCst);
            *self.link.live.lock() = None;
            let leader = self.link.leader;
            self.fetchers.router.post_all(|| Input::LinkDown { leader });
        }
    }
}

/// A frame without its bytes. Batches that do not parse make it a refusal: the follower asks
/// again. Their content is checked where they are appended.
fn frame_facts(frame: &Frame) -> Option<FrameFacts> {
    let kind = if frame.error != 0 {
        FrameKind::Refused
    } else if frame.diverging {
        FrameKind::Diverging {
            epoch: LeaderEpoch::new(frame.diverging_epoch)?,
            end: Offset::new(frame.diverging_end_offset)?,
        }
    } else if frame.out_of_range {
        FrameKind::OutOfRange
    } else if frame.records.is_empty() {
        FrameKind::Marks
    } else {
        data_kind(&frame.records).unwrap_or(FrameKind::Refused)
    };
    Some(FrameFacts {
        leader_epoch: LeaderEpoch::new(frame.leader_epoch)?,
        subscription: frame.subscription,
        high_watermark: Offset::saturating(frame.high_watermark),
        log_start_offset: Offset::saturating(frame.log_start_offset),
        kind,
    })
}

fn data_kind(records: &[Bytes]) -> Option<FrameKind> {
    let mut first = None;
    let mut next = Offset::ZERO;
    let mut batch_epoch = LeaderEpoch::ZERO;
    for element in records {
        for batch in batches(element) {
            let (header, _) = batch.ok()?;
            first.get_or_insert(header.first_offset());
            next = header.next_offset();
            batch_epoch = batch_epoch.max(header.leader_epoch().unwrap_or_default());
        }
    }
    Some(FrameKind::Data {
        base_offset: first?,
        next_offset: next,
        batch_epoch,
    })
}
