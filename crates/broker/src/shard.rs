//! A shard: one OS thread that owns a set of partitions outright.
//!
//! It only appends and decides. It drains its mailbox whole, so that many small appends become one
//! write, one flush request and one round of answers. No partition state is behind a lock, and
//! nothing here waits for anything but its mailbox and the appends themselves.

pub(crate) mod env;
pub(crate) mod input;
pub(crate) mod mailbox;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use ottla_metadata::Image;
use ottla_storage::{LogError, PartitionMarks};
use ottla_types::{MonotonicMs, PartitionId};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::{
    api::ProduceError,
    partition::{Now, Partition, refused::EarlyBatches, view::PartitionHandle},
};

use env::{Env, shard_of};
use input::{Changed, FrameInput, Input, ProduceInput, RecoveredLog, SubscribeInput};
use mailbox::Batch;

/// The regular turn of every partition.
const TICK_MS: u64 = 200;
/// How long a subscription waits for metadata that its follower already has.
const PARK_MS: u64 = 1_000;
/// Parked subscriptions at most; beyond, the oldest is refused.
const PARKED_MAX: usize = 65_536;

/// How a shard's thread ends.
enum End {
    Close(oneshot::Sender<Vec<PartitionMarks>>),
    Kill,
}

/// A shard's state, on its thread.
pub(crate) struct Shard {
    number: usize,
    shards: usize,
    env: Env,
    partitions: HashMap<PartitionId, Partition>,
    /// Partitions with something to settle at the end of the round.
    touched: HashSet<PartitionId>,
    parked: Vec<(SubscribeInput, MonotonicMs)>,
    image: Arc<Image>,
    /// What producers sent to partitions that were not here yet.
    early: EarlyBatches,
    /// Assigned, but their log could not be opened yet.
    missing: BTreeSet<PartitionId>,
    added: Vec<Arc<PartitionHandle>>,
    removed: Vec<PartitionId>,
    next_tick: MonotonicMs,
    next_maintenance: MonotonicMs,
}

impl Shard {
    pub(crate) fn new(number: usize, shards: usize, env: Env) -> Shard {
        let now = env.clock.now();
        Shard {
            number,
            shards,
            next_tick: now,
            next_maintenance: now.plus_ms(env.config.retention_check_interval_ms),
            env,
            partitions: HashMap::new(),
            touched: HashSet::new(),
            parked: Vec::new(),
            image: Arc::new(Image::default()),
            early: EarlyBatches::default(),
            missing: BTreeSet::new(),
            added: Vec::new(),
            removed: Vec::new(),
        }
    }

    /// The thread's life.
    pub(crate) fn run(mut self) {
        loop {
            let batch = self
                .env
                .mailbox
                .next_batch(self.env.clock.until(self.next_tick));
            let now = self.now();
            if let Some(end) = self.round(now, batch) {
                match end {
                    End::Close(done) => self.close(done),
                    End::Kill => self.kill(),
                }
                return;
            }
            if now.at >= self.next_tick {
                self.tick(now);
            }
            self.settle(now);
        }
    }

    fn now(&self) -> Now {
        Now {
            at: self.env.clock.now(),
            wall: self.env.clock.wall(),
        }
    }

    fn round(&mut self, now: Now, batch: Batch) -> Option<End> {
        for input in batch.inputs {
            match input {
                Input::Close { done } => {
                    refuse_all(batch.produces, &ProduceError::ShuttingDown);
                    return Some(End::Close(done));
                }
                Input::Kill => {
                    refuse_all(batch.produces, &ProduceError::OutcomeUnknown);
                    return Some(End::Kill);
                }
                input => self.handle(now, input),
            }
        }
        for ack in batch.acks.into_values() {
            self.with(ack.id, |partition, env| partition.on_ack(env, now, &ack));
        }
        for produce in batch.produces {
            match self.partitions.get_mut(&produce.id) {
                Some(partition) => {
                    self.touched.insert(produce.id);
                    partition.queue(produce);
                }
                None => {
                    self.early.note(now.at, produce.id, &produce.header);
                    produce
                        .completion
                        .answer(produce.slot, Err(ProduceError::UnknownPartition));
                }
            }
        }
        for id in &self.touched {
            if let Some(partition) = self.partitions.get_mut(id)
                && partition.has_queued()
            {
                partition.append_queued(&self.env, now);
            }
        }
        None
    }

    /// Lets one partition, if it is here, handle something, and settles it at the round's end.
    fn with(&mut self, id: PartitionId, handle: impl FnOnce(&mut Partition, &Env)) {
        if let Some(partition) = self.partitions.get_mut(&id) {
            handle(partition, &self.env);
            self.touched.insert(id);
        }
    }

    fn with_all(&mut self, mut handle: impl FnMut(&mut Partition, &Env)) {
        for (id, partition) in &mut self.partitions {
            handle(partition, &self.env);
            self.touched.insert(*id);
        }
    }

    fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::Adopt(logs) => self.adopt(logs),
            Input::Image { image, changed } => self.on_image(now, image, &changed),
            Input::Frames(frames) => self.on_frames(now, frames),
            Input::Subscribe(input) => self.on_subscribe(now, input, None),
            Input::Unsubscribe {
                id,
                follower,
                subscription,
            } => {
                self.with(id, |partition, _| {
                    partition.on_unsubscribe(follower, subscription)
                });
            }
            Input::StreamClosed { follower, lane } => {
                self.parked.retain(|(input, _)| input.lane.number() != lane);
                self.with_all(|partition, env| {
                    partition.on_stream_closed(env, now, follower, lane);
                });
            }
            Input::Credit { id, follower } => {
                self.with(id, |partition, env| partition.on_credit(env, follower));
            }
            Input::ChunkRead(read) => {
                self.with(read.id, |partition, env| partition.on_chunk_read(env, read));
            }
            Input::LinkUp { leader } => {
                self.with_all(|partition, env| partition.on_link_up(env, now, leader));
            }
            Input::LinkDown { leader } => {
                self.with_all(|partition, _| partition.on_link_down(leader));
            }
            Input::Flushed { id, done, micros } => {
                self.with(id, |partition, env| {
                    partition.on_flushed(env, now, done, micros)
                });
            }
            Input::IsrAnswered {
                id,
                leader_epoch,
                answer,
            } => self.with(id, |partition, env| {
                partition.on_isr_answer(env, now, leader_epoch, &answer);
            }),
            Input::Confirm {
                id,
                leader_epoch,
                reply,
            } => self.with(id, |partition, _| {
                partition.on_confirm(leader_epoch, reply);
            }),
            Input::SpaceChanged => self.with_all(|partition, env| partition.on_tick(env, now)),
            Input::DirectoryFailed => self.with_all(|partition, env| {
                partition.fail(env, &ottla_storage::DiskError::DirectoryFailed);
            }),
            Input::Close { .. } | Input::Kill => {}
        }
    }

    fn adopt(&mut self, logs: Vec<RecoveredLog>) {
        for RecoveredLog {
            id,
            topic,
            log,
            high_watermark,
            damaged,
        } in logs
        {
            let settings = (self.env.config.topic_settings)(&self.image, &topic);
            let mut partition = Partition::new(&self.env, id, topic, log, high_watermark, settings);
            partition.set_damaged(damaged);
            partition.set_refused(self.early.take(id));
            self.added.push(Arc::clone(partition.handle()));
            self.partitions.insert(id, partition);
        }
        self.publish_registry();
    }

    fn on_frames(&mut self, now: Now, frames: Vec<FrameInput>) {
        for frame in frames {
            self.with(frame.id, |partition, env| {
                partition.on_frame(env, now, &frame)
            });
        }
    }

    fn on_subscribe(&mut self, now: Now, input: SubscribeInput, until: Option<MonotonicMs>) {
        use crate::partition::Subscribed;
        let answered = self.partitions.get_mut(&input.id).map(|partition| {
            self.touched.insert(input.id);
            partition.on_subscribe(&self.env, now, &input)
        });
        if answered == Some(Subscribed::Answered) {
            return;
        }
        let until = until.unwrap_or(now.at.plus_ms(PARK_MS));
        if now.at >= until || self.parked.len() >= PARKED_MAX {
            self.refuse_parked(&input);
        } else {
            self.parked.push((input, until));
            self.next_tick = self.next_tick.min(until);
        }
    }

    fn refuse_parked(&self, input: &SubscribeInput) {
        if let Some(partition) = self.partitions.get(&input.id) {
            partition.refuse_parked(&self.env, input);
        } else {
            input.lane.push_unknown(input);
        }
    }

    fn retry_parked(&mut self, now: Now) {
        for (input, until) in std::mem::take(&mut self.parked) {
            self.on_subscribe(now, input, Some(until));
        }
    }

    fn owns(&self, id: PartitionId) -> bool {
        shard_of(id, self.shards) == self.number
    }

    fn on_image(&mut self, now: Now, image: Arc<Image>, changed: &Changed) {
        self.image = image;
        let image = Arc::clone(&self.image);
        let mut ids: BTreeSet<PartitionId> = BTreeSet::new();
        if changed.all || changed.configs {
            let assigned = image
                .partitions()
                .filter(|(_, record)| record.replicas.contains(&self.env.broker_id));
            ids.extend(assigned.map(|(id, _)| id).filter(|id| self.owns(*id)));
            ids.extend(self.partitions.keys());
        } else {
            ids.extend(
                changed
                    .partitions
                    .iter()
                    .copied()
                    .filter(|id| self.owns(*id)),
            );
            if changed.brokers || !changed.removed_topics.is_empty() {
                let gone = |id: &&PartitionId| {
                    changed.brokers || changed.removed_topics.contains(&id.topic_id)
                };
                ids.extend(self.partitions.keys().filter(gone));
            }
        }
        // What is gone first: a topic re-created under its name needs the directory's name.
        let (stay, go): (Vec<_>, Vec<_>) = ids
            .into_iter()
            .partition(|id| image.partition(*id).is_some());
        for id in go.into_iter().chain(stay) {
            self.assign(now, &image, id, changed.all || changed.configs);
        }
        self.publish_registry();
        self.retry_parked(now);
    }

    /// Brings one partition in line with the image.
    fn assign(&mut self, now: Now, image: &Image, id: PartitionId, configs: bool) {
        let assigned = image
            .partition(id)
            .is_some_and(|record| record.replicas.contains(&self.env.broker_id));
        if !assigned {
            self.missing.remove(&id);
            self.delete(id);
            return;
        }
        let created = !self.partitions.contains_key(&id) && self.create(now, image, id);
        self.with(id, |partition, env| {
            partition.on_image(env, now, image, configs || created);
        });
    }

    fn create(&mut self, now: Now, image: &Image, id: PartitionId) -> bool {
        let Some(topic) = image.topics.get(&id.topic_id) else {
            return false;
        };
        let settings = (self.env.config.topic_settings)(image, &topic.name);
        let opened = self
            .env
            .log_dir
            .open_log(&topic.name, id, settings.log.clone(), now.wall);
        match opened {
            Ok((log, recovery)) => {
                self.missing.remove(&id);
                let topic = Arc::from(topic.name.as_str());
                let high_watermark = recovery.high_watermark;
                let mut partition =
                    Partition::new(&self.env, id, topic, log, high_watermark, settings);
                // It could not be opened before: that was told.
                partition.set_damaged(recovery.damaged_below_durable);
                partition.set_refused(self.early.take(id));
                self.added.push(Arc::clone(partition.handle()));
                self.partitions.insert(id, partition);
                true
            }
            Err(error) => {
                self.not_opened(&topic.name, id, &error);
                false
            }
        }
    }

    /// Tried again at every tick. Of a log that it knew as this partition's and could not open,
    /// recovery has told the controller; of records that nobody knows whose they are, not yet.
    fn not_opened(&mut self, topic: &str, id: PartitionId, error: &LogError) {
        if self.env.log_dir.failed() {
            self.env.on_directory_failed();
        }
        if self.missing.insert(id) {
            warn!(%topic, partition = %id.partition, %error, "open log");
            if matches!(error, LogError::TopicIdMismatch { found: None, .. }) {
                self.env.link.report_damage(&[id]);
            }
        }
    }

    /// The topic is gone, or this broker is no replica of it any more.
    fn delete(&mut self, id: PartitionId) {
        let Some(mut partition) = self.partitions.remove(&id) else {
            return;
        };
        self.touched.remove(&id);
        self.removed.push(id);
        let Some(log) = partition.end(&self.env, &ProduceError::UnknownPartition) else {
            return;
        };
        info!(topic = %partition.handle().topic, partition = %id.partition, "deleting partition");
        if let Err(error) = self.env.log_dir.delete_log(log) {
            warn!(topic = %partition.handle().topic, partition = %id.partition, %error,
                "delete log");
        }
        let log_dir = Arc::clone(&self.env.log_dir);
        self.env.io_pool.submit(move || {
            if let Err(error) = log_dir.purge_deleted() {
                warn!(%error, "purge deleted logs");
            }
        });
    }

    fn publish_registry(&mut self) {
        let added = std::mem::take(&mut self.added);
        let removed = std::mem::take(&mut self.removed);
        self.env.registry.change(&added, &removed);
    }

    fn tick(&mut self, now: Now) {
        self.next_tick = now.at.plus_ms(TICK_MS);
        self.with_all(|partition, env| partition.on_tick(env, now));
        if now.at >= self.next_maintenance {
            self.next_maintenance = now
                .at
                .plus_ms(self.env.config.retention_check_interval_ms.max(1_000));
            self.with_all(|partition, env| partition.maintain(env, now));
        }
        let image = Arc::clone(&self.image);
        for id in self.missing.clone() {
            self.assign(now, &image, id, true);
        }
        self.publish_registry();
        if self.parked.iter().any(|(_, until)| now.at >= *until) {
            self.retry_parked(now);
        }
    }

    fn settle(&mut self, now: Now) {
        for id in self.touched.drain() {
            if let Some(partition) = self.partitions.get_mut(&id) {
                partition.settle(&self.env);
                if let Some(deadline) = partition.next_deadline(now.at) {
                    self.next_tick = self.next_tick.min(deadline);
                }
            }
        }
    }

    /// Answers everybody, flushes and closes every log; gives the marks of those closed cleanly.
    ///
    /// The flush pool closes them, so that thousands wait for the disk side by side.
    fn close(mut self, done: oneshot::Sender<Vec<PartitionMarks>>) {
        self.refuse_queue(&ProduceError::ShuttingDown);
        let (closed, all_closed) = std::sync::mpsc::channel();
        for (id, mut partition) in self.partitions.drain() {
            let mark = partition.marks();
            let Some(log) = partition.end(&self.env, &ProduceError::ShuttingDown) else {
                continue;
            };
            let closed = closed.clone();
            self.env.flush_pool.submit(move || {
                let end = log.log_end_offset();
                match log.close() {
                    Ok(()) => {
                        let _ = closed.send(mark.map(|mark| PartitionMarks {
                            recovery_point: end,
                            ..mark
                        }));
                    }
                    Err(error) => warn!(%id, %error, "close log"),
                }
            });
        }
        drop(closed);
        // Ends when the last job has, with its sender.
        let marks = all_closed.iter().flatten().collect();
        let _ = done.send(marks);
    }

    /// Ends as a killed process would: nothing is flushed, nobody is answered in kind.
    fn kill(mut self) {
        self.refuse_queue(&ProduceError::OutcomeUnknown);
        for partition in self.partitions.values_mut() {
            drop(partition.end(&self.env, &ProduceError::OutcomeUnknown));
        }
    }

    fn refuse_queue(&self, why: &ProduceError) {
        refuse_all(self.env.mailbox.close().produces, why);
    }
}

/// Answers what has not been appended.
fn refuse_all(produces: impl IntoIterator<Item = ProduceInput>, why: &ProduceError) {
    for produce in produces {
        produce.completion.answer(produce.slot, Err(why.clone()));
    }
}
