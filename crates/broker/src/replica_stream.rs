//! The leader's side of replica streams: lanes to followers, their credit, and the gRPC service.
//!
//! # Invariants
//! * Bytes on a lane that the follower has not given back never exceed the window, one frame
//!   larger than the window aside.
//! * Frames of one lane leave in the order in which they were pushed; marks alone may be merged.
//! * Credit belongs to the lane: it ends with the stream.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::Stream;
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info};

use ottla_rpc::{
    convert,
    replication::{
        Ack, FollowerMessage, Frame, FrameError, Hello, LeaderMessage, Subscribe,
        replication_server::Replication,
    },
};
use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionId};

use crate::shard::{
    env::Router,
    input::{AckInput, Input, SubscribeInput},
};

/// Records in one message at most, unless a single frame is larger.
const MESSAGE_BYTES_MAX: usize = 2 << 20;
/// Marks of a busy stream are sent this often.
const MARKS_INTERVAL: Duration = Duration::from_millis(5);

#[derive(Default)]
struct LaneState {
    frames: VecDeque<(Frame, usize)>,
    /// Marks without data, the newest of each partition.
    marks: HashMap<PartitionId, Frame>,
    /// Bytes pushed and not given back.
    used: usize,
    /// Partitions that were refused for lack of credit.
    waiting: Vec<PartitionId>,
    last_sent: Option<Instant>,
    closed: bool,
}

/// One stream to one follower.
pub(crate) struct Lane {
    number: u64,
    follower: BrokerId,
    incarnation: BrokerEpoch,
    window: usize,
    state: Mutex<LaneState>,
    notify: Notify,
    router: Arc<Router>,
}

impl Lane {
    /// Distinguishes it from every other lane of this process.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn window_bytes(&self) -> usize {
        self.window
    }

    /// Sends records if there is credit; if not, the partition is told when there is.
    pub(crate) fn push_data(&self, frame: Frame, bytes: usize, id: PartitionId) -> bool {
        let mut state = self.state.lock();
        if state.closed {
            return false;
        }
        if state.used > 0 && state.used.saturating_add(bytes) > self.window {
            if !state.waiting.contains(&id) {
                state.waiting.push(id);
            }
            return false;
        }
        state.used += bytes;
        // The data carries newer marks.
        state.marks.remove(&id);
        state.frames.push_back((frame, bytes));
        drop(state);
        self.notify.notify_one();
        true
    }

    /// Sends an answer to a subscription; always goes.
    pub(crate) fn push_control(&self, frame: Frame) {
        let mut state = self.state.lock();
        if !state.closed {
            state.frames.push_back((frame, 0));
            drop(state);
            self.notify.notify_one();
        }
    }

    /// Sends the marks of a partition, soon.
    pub(crate) fn push_marks(&self, id: PartitionId, frame: Frame) {
        let mut state = self.state.lock();
        if !state.closed {
            state.marks.insert(id, frame);
            drop(state);
            self.notify.notify_one();
        }
    }

    /// Answers a subscription to a partition that is not here.
    pub(crate) fn push_unknown(&self, input: &SubscribeInput) {
        self.push_control(Frame {
            topic_id: convert::uuid_bytes(input.id.topic_id.uuid()),
            partition: input.id.partition.get(),
            leader_epoch: input.leader_epoch.get(),
            subscription: input.subscription,
            error: FrameError::UnknownPartition.into(),
            ..Frame::default()
        });
    }

    fn return_credit(&self, bytes: u64) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let woken = {
            let mut state = self.state.lock();
            state.used = state.used.saturating_sub(bytes);
            // Half a window at once, so that a stalled session does not trickle.
            if state.waiting.is_empty() || state.used > self.window / 2 {
                return;
            }
            std::mem::take(&mut state.waiting)
        };
        for id in woken {
            self.router.of(id).post(Input::Credit {
                id,
                follower: self.follower,
            });
        }
    }

    fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.frames.clear();
        state.marks.clear();
        drop(state);
        self.notify.notify_one();
    }

    /// What is ready to go, or how long to wait for more before looking again.
    fn take(&self, now: Instant) -> Result<Option<LeaderMessage>, Option<Instant>> {
        let mut state = self.state.lock();
        if state.closed {
            return Ok(None);
        }
        if state.frames.is_empty() {
            if state.marks.is_empty() {
                return Err(None);
            }
            // An idle stream sends marks at once, a busy one within the interval.
            let due = state.last_sent.map(|sent| sent + MARKS_INTERVAL);
            if let Some(due) = due.filter(|due| *due > now) {
                return Err(Some(due));
            }
        }
        let mut frames = Vec::new();
        let mut bytes = 0;
        while let Some((_, size)) = state.frames.front() {
            if bytes > 0 && bytes + size > MESSAGE_BYTES_MAX {
                break;
            }
            if let Some((frame, size)) = state.frames.pop_front() {
                bytes += size;
                frames.push(frame);
            }
        }
        frames.extend(state.marks.drain().map(|(_, frame)| frame));
        state.last_sent = Some(now);
        Ok(Some(LeaderMessage { frames }))
    }

    async fn next(&self) -> Option<LeaderMessage> {
        loop {
            match self.take(Instant::now()) {
                Ok(message) => return message,
                Err(None) => self.notify.notified().await,
                Err(Some(due)) => {
                    tokio::select! {
                        () = self.notify.notified() => {}
                        () = tokio::time::sleep_until(due) => {}
                    }
                }
            }
        }
    }
}

/// Ends the lane when the response stream is dropped, because the connection is gone.
struct LaneGuard {
    lane: Arc<Lane>,
    streams: Arc<FollowerStreams>,
    kind: u32,
}

impl Drop for LaneGuard {
    fn drop(&mut self) {
        self.streams.remove(self.kind, &self.lane);
    }
}

/// Every stream that followers have open to this broker.
pub(crate) struct FollowerStreams {
    broker_id: BrokerId,
    router: Arc<Router>,
    live_window: usize,
    catch_up_window: usize,
    lanes: Mutex<HashMap<(BrokerId, u32), Arc<Lane>>>,
    next_number: AtomicU64,
    cluster_id: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl FollowerStreams {
    pub(crate) fn new(
        broker_id: BrokerId,
        router: Arc<Router>,
        live_window: usize,
        catch_up_window: usize,
        cluster_id: Arc<dyn Fn() -> Option<String> + Send + Sync>,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> FollowerStreams {
        FollowerStreams {
            broker_id,
            router,
            live_window,
            catch_up_window,
            lanes: Mutex::new(HashMap::new()),
            next_number: AtomicU64::new(1),
            cluster_id,
            tasks,
            shutdown,
        }
    }

    /// The catch-up lane of the same life of the same follower, if it has one open.
    pub(crate) fn catch_up_lane(&self, live: &Lane) -> Option<Arc<Lane>> {
        let lanes = self.lanes.lock();
        let lane = lanes.get(&(live.follower, 1))?;
        (lane.incarnation == live.incarnation).then(|| Arc::clone(lane))
    }

    fn open(&self, hello: &Hello) -> Result<Arc<Lane>, Status> {
        let refuse = |reason: &str| Status::failed_precondition(reason.to_owned());
        let follower =
            BrokerId::new(hello.follower_id).ok_or_else(|| refuse("negative follower id"))?;
        let incarnation = BrokerEpoch::new(hello.follower_broker_epoch)
            .ok_or_else(|| refuse("negative broker epoch"))?;
        if hello.leader_id != self.broker_id.get() {
            return Err(refuse("this is another broker"));
        }
        if (self.cluster_id)().is_some_and(|ours| ours != hello.cluster_id) {
            return Err(refuse("another cluster"));
        }
        if hello.lane > 1 {
            return Err(refuse("no such lane"));
        }
        let window = if hello.lane == 0 {
            self.live_window
        } else {
            self.catch_up_window
        };
        let lane = Arc::new(Lane {
            number: self.next_number.fetch_add(1, Ordering::Relaxed),
            follower,
            incarnation,
            window,
            state: Mutex::new(LaneState::default()),
            notify: Notify::new(),
            router: Arc::clone(&self.router),
        });
        let mut lanes = self.lanes.lock();
        let slot = (follower, hello.lane);
        if lanes
            .get(&slot)
            .is_some_and(|known| known.incarnation > incarnation)
        {
            return Err(refuse("a newer incarnation is connected"));
        }
        let old = lanes.insert(slot, Arc::clone(&lane));
        drop(lanes);
        if let Some(old) = old {
            self.end(hello.lane, &old);
        }
        Ok(lane)
    }

    fn remove(&self, kind: u32, lane: &Arc<Lane>) {
        let mut lanes = self.lanes.lock();
        let slot = (lane.follower, kind);
        if lanes
            .get(&slot)
            .is_some_and(|known| known.number == lane.number)
        {
            lanes.remove(&slot);
        }
        drop(lanes);
        self.end(kind, lane);
    }

    fn end(&self, kind: u32, lane: &Arc<Lane>) {
        lane.close();
        if kind == 0 {
            let (follower, number) = (lane.follower, lane.number);
            self.router.post_all(|| Input::StreamClosed {
                follower,
                lane: number,
            });
            return;
        }
        // Partitions that were catching up on this lane would wait for its credit for ever: the
        // live lane ends with it, and the follower subscribes everything anew.
        let live = self.lanes.lock().get(&(lane.follower, 0)).cloned();
        if let Some(live) = live.filter(|live| live.number < lane.number) {
            live.close();
        }
    }

    fn receive(&self, lane: &Arc<Lane>, message: FollowerMessage) {
        if message.credit_bytes > 0 {
            lane.return_credit(message.credit_bytes);
        }
        for subscribe in message.subscribe {
            self.receive_subscribe(lane, &subscribe);
        }
        if message.acks.is_empty() {
            return;
        }
        let mut by_shard: Vec<Vec<AckInput>> = vec![Vec::new(); self.router.all().len()];
        for ack in &message.acks {
            if let Some(input) = ack_input(lane, ack) {
                by_shard[self.router.shard_of(input.id)].push(input);
            }
        }
        for (shard, acks) in by_shard.into_iter().enumerate() {
            if !acks.is_empty() {
                self.router.mailbox(shard).post_acks(acks.into_iter());
            }
        }
    }

    fn receive_subscribe(&self, lane: &Arc<Lane>, subscribe: &Subscribe) {
        let id = convert::partition_id(&subscribe.topic_id, subscribe.partition);
        let (Ok(id), Some(leader_epoch)) = (id, LeaderEpoch::new(subscribe.leader_epoch)) else {
            return;
        };
        let (follower, subscription) = (lane.follower, subscribe.subscription);
        let input = if subscribe.unsubscribe {
            Input::Unsubscribe {
                id,
                follower,
                subscription,
            }
        } else {
            Input::Subscribe(SubscribeInput {
                id,
                follower,
                incarnation: lane.incarnation,
                leader_epoch,
                subscription,
                log_end_offset: Offset::saturating(subscribe.log_end_offset),
                last_epoch: LeaderEpoch::new(subscribe.last_epoch),
                flushed_offset: Offset::saturating(subscribe.flushed_offset),
                no_space: subscribe.no_space,
                lane: Arc::clone(lane),
            })
        };
        self.router.of(id).post(input);
    }
}

fn ack_input(lane: &Lane, ack: &Ack) -> Option<AckInput> {
    Some(AckInput {
        id: convert::partition_id(&ack.topic_id, ack.partition).ok()?,
        follower: lane.follower,
        incarnation: lane.incarnation,
        leader_epoch: LeaderEpoch::new(ack.leader_epoch)?,
        subscription: ack.subscription,
        log_end_offset: Offset::new(ack.log_end_offset)?,
        flushed_offset: Offset::new(ack.flushed_offset)?,
        no_space: ack.no_space,
        confirm: ack.confirm,
    })
}

/// The gRPC service that followers call.
#[derive(Clone)]
pub(crate) struct ReplicationService {
    pub(crate) streams: Arc<FollowerStreams>,
}

type LaneStream = Pin<Box<dyn Stream<Item = Result<LeaderMessage, Status>> + Send>>;

#[tonic::async_trait]
impl Replication for ReplicationService {
    type ReplicateStream = LaneStream;

    async fn replicate(
        &self,
        request: Request<Streaming<FollowerMessage>>,
    ) -> Result<Response<LaneStream>, Status> {
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(Duration::from_secs(5), inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello"))??;
        let hello = first
            .and_then(|message| message.hello)
            .ok_or_else(|| Status::invalid_argument("the first message must be a hello"))?;
        let streams = Arc::clone(&self.streams);
        let lane = streams.open(&hello)?;
        info!(follower = %lane.follower, lane = hello.lane, incarnation = %lane.incarnation,
            "follower connected");
        let kind = hello.lane;
        let reader = Arc::clone(&lane);
        let receiving = Arc::clone(&streams);
        let shutdown = self.streams.shutdown.clone();
        self.streams.tasks.spawn(async move {
            loop {
                let message = tokio::select! {
                    () = shutdown.cancelled() => break,
                    message = inbound.message() => message,
                };
                match message {
                    Ok(Some(message)) => receiving.receive(&reader, message),
                    Ok(None) => break,
                    Err(error) => {
                        debug!(follower = %reader.follower, %error, "replica stream broke");
                        break;
                    }
                }
            }
            receiving.remove(kind, &reader);
        });
        let guard = LaneGuard {
            lane: Arc::clone(&lane),
            streams,
            kind,
        };
        let outbound = futures::stream::unfold(guard, |guard| async move {
            let message = guard.lane.next().await?;
            Some((Ok(message), guard))
        });
        Ok(Response::new(Box::pin(outbound)))
    }
}
