//! The task that owns every hosted group of this broker.
//!
//! It drains its inbox in batches, so that what many requests want stored becomes one append.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{
    StreamExt,
    future::{BoxFuture, FutureExt, pending},
    stream::FuturesUnordered,
};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use ottla_coordinator::{Effect, GroupError, ReplyToken};
use ottla_metadata::Image;
use ottla_types::{BrokerId, LeaderEpoch, Offset, PartitionId, PartitionIndex};

use crate::{Acks, ProduceEntry};

use super::{
    GroupNumbers, GroupsConfig, OffsetsLog,
    checkpoints::{CHECKPOINT_INTERVAL, DiskJob},
    clock::Clock,
    handle::Request,
    hosted::{Hosted, Role},
    serve::Waiter,
    tail::{Position, Tailed, tail},
    topics::ImageTopics,
    write::{Batcher, group_error},
};

/// Requests taken from the inbox at a time.
const DRAIN_MAX: usize = 512;
/// How often roles are compared with the published state of the replicas...
const POLL_IDLE: Duration = Duration::from_millis(200);
/// ...and how often while some partition is loading.
const POLL_LOADING: Duration = Duration::from_millis(5);
/// How often groups are counted for the metrics.
const COUNT_INTERVAL: Duration = Duration::from_secs(2);
/// How long a read waits for something new...
const TAIL_WAIT: Duration = Duration::from_millis(500);
/// ...and how long while some partition is loading.
const TAIL_WAIT_LOADING: Duration = Duration::from_millis(20);
/// A replica that could not be read is left alone for this long.
const TAIL_BACKOFF: Duration = Duration::from_millis(100);
/// Being woken so much too late means that nobody could be heard meanwhile.
const STALL_MS: u64 = 1_000;

/// A read under way.
struct Tail {
    positions: BTreeMap<PartitionId, Position>,
    /// It may wait long for news.
    patient: bool,
    answers: BoxFuture<'static, Vec<(PartitionId, Tailed)>>,
}

/// Whether this broker still led the partition in this epoch.
pub(super) type Confirmation = (PartitionId, LeaderEpoch, bool);

type Append = BoxFuture<'static, (PartitionId, u64, Result<Offset, GroupError>)>;

/// Everything about hosted groups, in one place and behind no lock.
pub(super) struct Owner {
    pub(super) log: Arc<dyn OffsetsLog>,
    pub(super) broker_id: BrokerId,
    pub(super) config: GroupsConfig,
    pub(super) clock: Clock,
    pub(super) image: Arc<Image>,
    pub(super) partitions: BTreeMap<PartitionIndex, Hosted>,
    /// Partitions whose coordinators may have effects to perform.
    pub(super) touched: BTreeSet<PartitionIndex>,
    /// Those whose answers come later, and the turn in which they asked.
    pub(super) waiters: HashMap<ReplyToken, (u64, Waiter)>,
    /// Counts the loop's rounds.
    pub(super) turn: u64,
    pub(super) next_token: u64,
    inbox: mpsc::Receiver<Request>,
    image_changes: watch::Receiver<u64>,
    appends: FuturesUnordered<Append>,
    pub(super) confirmations: FuturesUnordered<BoxFuture<'static, Confirmation>>,
    pub(super) disk_jobs: FuturesUnordered<BoxFuture<'static, DiskJob>>,
    /// Some partition's checkpoint is being made.
    pub(super) is_drafting: bool,
    /// One is being written.
    pub(super) is_writing: bool,
    pub(super) next_checkpoint: Instant,
    tail: Option<Tail>,
    /// Something happened that may call for another read.
    pub(super) check_tail: bool,
    next_expiry: Instant,
    next_poll: Instant,
    /// What others are shown of it, and when to count again.
    pub(super) numbers: Arc<Mutex<GroupNumbers>>,
    next_count: Instant,
}

enum Event {
    Stop,
    Image,
    Appended((PartitionId, u64, Result<Offset, GroupError>)),
    Confirmed(Confirmation),
    Disk(DiskJob),
    Tailed(Vec<(PartitionId, Tailed)>),
    Requests(usize),
    Time,
}

impl Owner {
    pub(super) fn new(
        log: Arc<dyn OffsetsLog>,
        config: GroupsConfig,
        inbox: mpsc::Receiver<Request>,
        numbers: Arc<Mutex<GroupNumbers>>,
    ) -> Owner {
        let mut image_changes = log.image_changes();
        image_changes.mark_changed(); // The first image is news too.
        let now = Instant::now();
        let check = Duration::from_millis(config.offsets_retention_check_interval_ms.max(1));
        Owner {
            broker_id: log.broker_id(),
            image: Arc::default(),
            log,
            config,
            clock: Clock::new(),
            partitions: BTreeMap::new(),
            touched: BTreeSet::new(),
            waiters: HashMap::new(),
            turn: 0,
            next_token: 0,
            inbox,
            image_changes,
            appends: FuturesUnordered::new(),
            confirmations: FuturesUnordered::new(),
            disk_jobs: FuturesUnordered::new(),
            is_drafting: false,
            is_writing: false,
            next_checkpoint: now + CHECKPOINT_INTERVAL,
            tail: None,
            check_tail: true,
            next_expiry: now + check,
            next_poll: now,
            numbers,
            next_count: now,
        }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut requests = Vec::with_capacity(DRAIN_MAX);
        loop {
            self.turn += 1;
            let wake = self.next_wake();
            match self.next_event(wake, &stop, &mut requests).await {
                Event::Stop | Event::Requests(0) => break,
                Event::Image => {
                    self.on_image();
                    self.check_tail = true;
                }
                Event::Appended(appended) => self.on_appended(appended),
                Event::Disk(job) => self.on_disk_job(job),
                Event::Confirmed(confirmation) => self.on_confirmed(confirmation),
                Event::Tailed(answers) => {
                    self.tail = None;
                    self.on_tailed(answers);
                }
                Event::Requests(_) => {
                    for request in requests.drain(..) {
                        self.serve(request);
                    }
                }
                Event::Time => {}
            }
            self.on_time(wake);
            self.perform_effects();
            self.advance_checkpoint();
            if std::mem::take(&mut self.check_tail) {
                self.restart_tail();
            }
        }
        self.shut_down();
        self.write_last_checkpoints().await;
    }

    async fn next_event(
        &mut self,
        wake: Instant,
        stop: &CancellationToken,
        requests: &mut Vec<Request>,
    ) -> Event {
        let Owner {
            tail,
            image_changes,
            appends,
            confirmations,
            disk_jobs,
            inbox,
            ..
        } = self;
        let tailed = async {
            match tail {
                Some(tail) => (&mut tail.answers).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Event::Stop,
            changed = image_changes.changed() => match changed {
                Ok(()) => Event::Image,
                Err(_) => Event::Stop,
            },
            Some(appended) = appends.next() => Event::Appended(appended),
            Some(confirmation) = confirmations.next() => Event::Confirmed(confirmation),
            Some(job) = disk_jobs.next() => Event::Disk(job),
            answers = tailed => Event::Tailed(answers),
            count = inbox.recv_many(requests, DRAIN_MAX) => Event::Requests(count),
            () = sleep_until(wake) => Event::Time,
        }
    }

    fn next_wake(&self) -> Instant {
        if self.is_drafting {
            return Instant::now();
        }
        let groups = self
            .partitions
            .values()
            .filter_map(|h| h.coordinator.next_deadline())
            .min();
        let groups = groups.map(|at| self.clock.instant(at));
        let mut first = self.next_poll.min(self.next_expiry);
        if !self.is_writing {
            first = first.min(self.next_checkpoint);
        }
        groups.map_or(first, |at| at.min(first))
    }

    fn on_time(&mut self, planned: Instant) {
        let instant = Instant::now();
        let now = self.clock.now();
        let late = now.monotonic.ms_since(self.clock.monotonic(planned));
        if late > STALL_MS {
            warn!(
                late_ms = late,
                "hosted groups were not scheduled, sessions are extended"
            );
            for hosted in self.partitions.values_mut() {
                hosted.coordinator.extend_sessions(late);
            }
        }
        for (index, hosted) in &mut self.partitions {
            if hosted
                .coordinator
                .next_deadline()
                .is_some_and(|at| at <= now.monotonic)
            {
                hosted.coordinator.on_time(now);
                self.touched.insert(*index);
            }
        }
        if self.next_expiry <= instant {
            let interval = self.config.offsets_retention_check_interval_ms.max(1);
            self.next_expiry = instant + Duration::from_millis(interval);
            for (index, hosted) in &mut self.partitions {
                if matches!(hosted.role, Role::Active(_)) {
                    hosted.coordinator.expire(now, &ImageTopics(&self.image));
                    self.touched.insert(*index);
                }
            }
        }
        let poll = if self.is_loading() {
            POLL_LOADING
        } else {
            POLL_IDLE
        };
        if self.next_poll <= instant {
            self.refresh_roles();
            self.check_tail = true;
            self.next_poll = instant + poll;
            if self.next_count <= instant {
                self.next_count = instant + COUNT_INTERVAL;
                self.count_groups();
            }
        }
        self.next_poll = self.next_poll.min(instant + poll);
    }

    fn is_loading(&self) -> bool {
        self.partitions
            .values()
            .any(|hosted| matches!(hosted.role, Role::Loading(_)))
    }

    fn on_appended(
        &mut self,
        (id, number, result): (PartitionId, u64, Result<Offset, GroupError>),
    ) {
        let now = self.clock.now();
        let failed = result.is_err();
        if let Some(hosted) = self
            .partitions
            .get_mut(&id.partition)
            .filter(|h| h.id == id)
        {
            hosted.on_written(now, number, result);
            self.check_tail |= hosted.has_gap();
            self.touched.insert(id.partition);
        }
        if failed {
            self.refresh_roles();
        }
    }

    fn on_tailed(&mut self, answers: Vec<(PartitionId, Tailed)>) {
        let now = self.clock.now();
        let backoff = Instant::now() + TAIL_BACKOFF;
        for (id, tailed) in answers {
            let index = id.partition;
            let Some(hosted) = self.partitions.get_mut(&index).filter(|h| h.id == id) else {
                continue;
            };
            hosted.tail_after = None;
            match tailed {
                Tailed::Chunks(chunks) => {
                    // Without anything new the next read can wait for the next poll.
                    self.check_tail |= !chunks.is_empty();
                    hosted.fold(now, chunks);
                    self.touched.insert(index);
                }
                Tailed::OutOfRange { log_start } => {
                    hosted.tail_after = Some(backoff);
                    self.on_out_of_range(index, log_start);
                }
                Tailed::Diverged => {
                    hosted.tail_after = Some(backoff);
                    self.on_diverged(index);
                }
                Tailed::Failed(error) => {
                    debug!(partition = %id, %error, "read of internal topic failed");
                    hosted.tail_after = Some(backoff);
                }
                Tailed::Damaged(error) => {
                    error!(partition = %id, %error, "internal topic is damaged");
                    hosted.tail_after = Some(backoff + 10 * TAIL_BACKOFF);
                }
            }
        }
        if self.is_loading() {
            self.refresh_roles();
        }
    }

    /// Keeps one read under way over all partitions that want one.
    fn restart_tail(&mut self) {
        let now = Instant::now();
        let mut wanted = BTreeMap::new();
        let mut ready = false;
        for hosted in self.partitions.values() {
            if hosted.tail_after.is_some_and(|at| at > now) {
                continue;
            }
            let high_watermark = self
                .log
                .replica_status(hosted.id)
                .map(|status| status.high_watermark);
            if let Some(position) = hosted.wants_tail(high_watermark) {
                ready |= high_watermark.is_some_and(|hw| hw > position.offset);
                wanted.insert(hosted.id, position);
            }
        }
        // A read that waits for news is given up for one that finds some: for a partition that was
        // not asked about, or for a failover that should not wait.
        let patient = !self.is_loading();
        let keep = self.tail.as_ref().is_some_and(|running| {
            let asked = wanted.keys().all(|id| running.positions.contains_key(id));
            (asked || !ready) && (patient || !running.patient)
        });
        if keep {
            return;
        }
        let wait = if patient {
            TAIL_WAIT
        } else {
            TAIL_WAIT_LOADING
        };
        self.tail = (!wanted.is_empty()).then(|| Tail {
            answers: tail(self.log.clone(), wanted.clone(), Instant::now() + wait).boxed(),
            positions: wanted,
            patient,
        });
    }

    /// Appends and answers, until nothing is left to do.
    fn perform_effects(&mut self) {
        for index in std::mem::take(&mut self.touched) {
            self.perform_effects_of(index);
            self.begin_confirmation(index);
        }
    }

    fn perform_effects_of(&mut self, index: PartitionIndex) {
        let now = self.clock.now();
        let mut batcher = Batcher::new(self.config.offsets_batch_bytes_max, now.wall);
        loop {
            let Some(hosted) = self.partitions.get_mut(&index) else {
                return;
            };
            let effects = hosted.coordinator.take_effects();
            if effects.is_empty() {
                break;
            }
            let mut rejected = Vec::new();
            for effect in effects {
                match effect {
                    Effect::Reply(token, reply) => self.deliver_confirmed(index, token, reply),
                    Effect::Persist(token, records) => {
                        if let Err(error) = batcher.add(token, records) {
                            rejected.push((token, error));
                        }
                    }
                }
            }
            let Some(hosted) = self.partitions.get_mut(&index) else {
                return;
            };
            for (token, error) in rejected {
                hosted.coordinator.on_persisted(now, token, Err(error));
            }
        }
        let Some(hosted) = self.partitions.get_mut(&index) else {
            return;
        };
        let Role::Active(_) = hosted.role else { return };
        let timeout = Duration::from_millis(self.config.offsets_commit_timeout_ms);
        for mut batch in batcher.finish() {
            let id = hosted.id;
            let entry = ProduceEntry {
                id,
                batch: std::mem::take(&mut batch.bytes),
                header: batch.header,
            };
            let number = hosted.add_write(batch);
            let produced = self
                .log
                .produce(vec![entry], Acks::All, Instant::now() + timeout);
            let append = produced.map(move |results| {
                let result = match results.into_iter().next() {
                    Some(Ok(produced)) => Ok(produced.base_offset),
                    Some(Err(error)) => Err(group_error(&error)),
                    None => Err(GroupError::CoordinatorNotAvailable),
                };
                (id, number, result)
            });
            self.appends.push(append.boxed());
        }
    }

    /// Answers what a partition that was given up still owes.
    pub(super) fn flush_replies(&mut self, index: PartitionIndex) {
        if let Some(mut hosted) = self.partitions.remove(&index) {
            self.deliver_replies(&mut hosted);
            self.partitions.insert(index, hosted);
        }
    }

    fn shut_down(&mut self) {
        self.inbox.close();
        while self.inbox.try_recv().is_ok() {} // Nobody who asks is left waiting.
        let mut partitions = std::mem::take(&mut self.partitions);
        for hosted in partitions.values_mut() {
            hosted.deactivate();
            self.deliver_replies(hosted);
        }
        self.partitions = partitions;
    }
}
