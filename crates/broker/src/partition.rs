//! One replica with everything its shard owns of it: log, replication machine, waiters, sessions.
//!
//! # Invariants
//! * One flush in flight per log; its completion starts the next (group commit).
//! * Whatever changes is published once per round, before anybody is answered or woken.

mod confirm;
mod flush;
mod follow;
mod lead;
mod produce;
mod publish;
pub(crate) mod refused;
mod session;
pub(crate) mod view;

pub(crate) use {confirm::Confirmation, lead::Subscribed};

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;

use ottla_metadata::Image;
use ottla_replication::{
    Assignment, Effect, IsrAnswer, LogMarks, Registered, Replica, Settings, lineage::EpochStart,
};
use ottla_storage::Log;
use ottla_types::{
    BrokerId, FlushMode, LeaderEpoch, MonotonicMs, Offset, PartitionId, WallClockMs,
};
use tracing::{error, info, warn};

use crate::{
    api::{LeaderHint, ProduceError, Produced, ReplicaRole},
    config::TopicSettings,
    shard::env::Env,
};

use confirm::Confirmations;
use produce::{QueuedProduce, Ticket, WaitingProduce};
use publish::epoch_starts;
use refused::RefusedBatches;
use session::Session;
use view::{PartitionHandle, View};

/// The moment of a round, on both clocks.
#[derive(Clone, Copy)]
pub(crate) struct Now {
    pub(crate) at: MonotonicMs,
    pub(crate) wall: WallClockMs,
}

/// A replica hosted here.
pub(crate) struct Partition {
    id: PartitionId,
    /// The topic id as frames carry it.
    topic_id: Bytes,
    topic: Arc<str>,
    /// `None` once its directory failed.
    log: Option<Log>,
    replica: Replica,
    settings: TopicSettings,
    handle: Arc<PartitionHandle>,
    epochs: Arc<[EpochStart]>,
    leader_hint: LeaderHint,
    flush_mode: FlushMode,
    /// Appends of this round, in order of arrival.
    queued: Vec<QueuedProduce>,
    /// Appended, to be answered once that is published.
    ready: Vec<(Ticket, Produced)>,
    /// Appended, waiting for the high watermark; in order of offsets.
    waiting: VecDeque<WaitingProduce>,
    /// Batches that came before this broker led.
    refused: RefusedBatches,
    sessions: BTreeMap<BrokerId, Session>,
    /// Who must know whether this replica still leads.
    confirmations: Confirmations,
    /// Some replica outside the ISR may be elected (KIP-966).
    has_eligible_outside_isr: bool,
    /// As follower: the leader's newest round of confirmation seen on this subscription.
    confirm_seen: u64,
    flushing: bool,
    /// When the oldest unflushed byte was written, in mode `page`.
    unflushed_since: Option<MonotonicMs>,
    /// Whose stream it is counted on, as follower.
    following: Option<BrokerId>,
    ack_due: bool,
    no_space: bool,
    /// The disk had stalled when that was last looked at.
    stalled: bool,
    /// Recovery found damage; forgotten once the replica is back in the ISR.
    damaged: bool,
    /// Something that the view shows has changed.
    dirty: bool,
    /// What can be read has changed.
    readable: bool,
    /// Followers have to hear of new marks.
    marks_due: bool,
    effects: Vec<Effect>,
}

impl Partition {
    pub(crate) fn new(
        env: &Env,
        id: PartitionId,
        topic: Arc<str>,
        log: Log,
        high_watermark: Offset,
        settings: TopicSettings,
    ) -> Partition {
        let marks = log_marks(&log);
        let replication = Settings {
            flush_mode: settings.flush_mode,
            min_insync_replicas: 1,
            replica_lag_time_ms_max: env.config.replica_lag_time_ms_max,
        };
        let replica = Replica::new(
            env.broker_id,
            replication,
            marks,
            high_watermark,
            env.first_subscription,
        );
        let epochs = epoch_starts(&log);
        let view = View {
            role: ReplicaRole::Offline,
            failed: false,
            leader: None,
            leader_epoch: LeaderEpoch::ZERO,
            epoch_start_offset: None,
            log_start_offset: marks.log_start_offset,
            high_watermark: replica.high_watermark(),
            log_end_offset: marks.log_end_offset,
            flushed_offset: marks.flushed_offset,
            size_bytes: log.size_bytes(),
            epochs: Arc::clone(&epochs),
            isr: Arc::from([]),
            replica_count: 0,
            min_isr: 1,
            reader: Some(log.reader()),
        };
        Partition {
            id,
            topic_id: ottla_rpc::convert::uuid_bytes(id.topic_id.uuid()),
            handle: Arc::new(PartitionHandle::new(id, Arc::clone(&topic), view)),
            topic,
            log: Some(log),
            replica,
            flush_mode: settings.flush_mode,
            settings,
            epochs,
            leader_hint: None,
            queued: Vec::new(),
            ready: Vec::new(),
            waiting: VecDeque::new(),
            refused: RefusedBatches::default(),
            sessions: BTreeMap::new(),
            confirmations: Confirmations::default(),
            has_eligible_outside_isr: false,
            confirm_seen: 0,
            flushing: false,
            unflushed_since: None,
            following: None,
            ack_due: false,
            no_space: false,
            stalled: false,
            damaged: false,
            dirty: true,
            readable: false,
            marks_due: false,
            effects: Vec::new(),
        }
    }

    pub(crate) fn set_damaged(&mut self, damaged: bool) {
        self.damaged = damaged;
    }

    /// What was refused before it was here.
    pub(crate) fn set_refused(&mut self, refused: RefusedBatches) {
        self.refused = refused;
    }

    pub(crate) fn handle(&self) -> &Arc<PartitionHandle> {
        &self.handle
    }

    /// Metadata says what this replica is; settings before roles, because the configs of an update
    /// bind the leaders it names.
    pub(crate) fn on_image(&mut self, env: &Env, now: Now, image: &Image, configs: bool) {
        let Some(record) = image.partition(self.id) else {
            return;
        };
        let registered = record.replicas.iter().filter_map(|id| {
            let broker = image.brokers.get(id)?;
            let eligible = broker.in_service();
            Some((
                *id,
                Registered {
                    epoch: broker.epoch,
                    eligible,
                },
            ))
        });
        let assignment = Assignment {
            replicas: record.replicas.clone(),
            isr: record.isr.clone(),
            leader: record.leader,
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
            recovering: record.recovering,
            registered: registered.collect(),
        };
        if configs {
            self.on_settings(env, now, image, record.replicas.len());
        }
        if self.damaged && record.isr.contains(&env.broker_id) {
            self.forget_damage(env);
        }
        self.leader_hint = record.leader.map(|leader| (leader, record.leader_epoch));
        self.has_eligible_outside_isr = !record.elr.is_empty();
        self.sessions
            .retain(|follower, _| record.replicas.contains(follower));
        self.replica
            .on_assignment(now.at, &assignment, &mut self.effects);
        self.dirty = true;
        self.perform(env, now);
        self.report_log(env, image, record);
    }

    /// The controller was told, took this replica out of the ISR, and has let it in again whole.
    fn forget_damage(&mut self, env: &Env) {
        self.damaged = false;
        if let Some(Err(error)) = self.log.as_mut().map(Log::forget_damage) {
            self.on_log_error(env, &error);
        }
    }

    fn on_settings(&mut self, env: &Env, now: Now, image: &Image, replicas: usize) {
        let settings = (env.config.topic_settings)(image, &self.topic);
        let replication = Settings {
            flush_mode: settings.flush_mode,
            min_insync_replicas: image.min_insync_replicas(&self.topic, replicas),
            replica_lag_time_ms_max: env.config.replica_lag_time_ms_max,
        };
        if let Some(log) = self.log.as_mut() {
            log.set_config(settings.log.clone());
        }
        self.flush_mode = settings.flush_mode;
        self.settings = settings;
        self.replica
            .on_settings(now.at, replication, &mut self.effects);
    }

    pub(crate) fn on_isr_answer(
        &mut self,
        env: &Env,
        now: Now,
        leader_epoch: LeaderEpoch,
        answer: &IsrAnswer,
    ) {
        if !matches!(answer, IsrAnswer::Committed { .. }) {
            env.metrics.failed_isr_updates.one();
        }
        self.replica
            .on_isr_answer(now.at, leader_epoch, answer, &mut self.effects);
        self.perform(env, now);
    }

    /// The log's marks have moved: the machine judges what follows from it.
    fn on_log_changed(&mut self, env: &Env, now: Now) {
        let Some(log) = self.log.as_ref() else { return };
        self.replica
            .on_log(now.at, log_marks(log), &mut self.effects);
        self.dirty = true;
        self.perform(env, now);
    }

    pub(crate) fn on_tick(&mut self, env: &Env, now: Now) {
        self.waiting.retain(|waiting| !waiting.is_abandoned());
        if self.no_space && !env.space.replication_blocked() {
            self.no_space = false;
            self.ack_due = true;
        }
        if self.stalled != env.space.stalled() {
            self.stalled = env.space.stalled();
            self.ack_due = true;
        }
        // Without room it would only ask for what it cannot keep.
        if !self.no_space {
            self.replica.on_tick(now.at, &mut self.effects);
        }
        self.perform(env, now);
        let wait_ms = self.settings.log.flush_ms;
        if self
            .unflushed_since
            .is_some_and(|since| now.at.ms_since(since) >= wait_ms)
        {
            self.start_flush(env);
        }
    }

    /// When this partition wants `on_tick` before its regular turn.
    pub(crate) fn next_deadline(&self, now: MonotonicMs) -> Option<MonotonicMs> {
        if self.no_space {
            return None;
        }
        self.replica.next_deadline(now)
    }

    pub(crate) fn maintain(&mut self, env: &Env, now: Now) {
        let high_watermark = self.replica.high_watermark();
        let Some(log) = self.log.as_mut() else { return };
        log.expire_producers(now.at);
        let outcome = log
            .maybe_roll(now.wall)
            .and_then(|_| log.apply_retention(now.wall, high_watermark));
        match outcome {
            Ok(deleted) => {
                self.discard(env, now, deleted);
                self.on_log_changed(env, now);
            }
            Err(error) => self.on_log_error(env, &error),
        }
        self.refresh_epochs();
        self.settle(env);
    }

    /// Files of deleted segments stay for a while: readers may still hold them.
    fn discard(&self, env: &Env, now: Now, deleted: Vec<ottla_storage::DeletedSegment>) {
        let due = now.at.plus_ms(self.settings.log.file_delete_delay_ms);
        env.trash.put(deleted, due);
    }

    /// Performs what the machine asked for.
    fn perform(&mut self, env: &Env, now: Now) {
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                self.perform_one(env, now, effect);
            }
        }
    }

    fn perform_one(&mut self, env: &Env, now: Now, effect: Effect) {
        match effect {
            Effect::BecameLeader {
                leader_epoch,
                start,
            } => {
                self.follow(env, None);
                self.sessions.clear();
                self.confirmations.refuse();
                self.no_space = false;
                if let Some(log) = self.log.as_mut() {
                    log.assign_epoch(leader_epoch, start);
                }
                self.refresh_epochs();
                env.metrics.became_leader.one();
                info!(topic = %self.topic, partition = %self.id.partition, %leader_epoch, %start,
                    "became leader");
                // Whatever is not flushed yet counts only once it is.
                self.start_flush_in_mode_ack(env);
                self.readable = true;
            }
            Effect::LeadershipEnded => {
                for queued in self.queued.drain(..) {
                    self.refused.note(now.at, queued.header());
                    queued.refuse(ProduceError::NotLeader {
                        leader: self.leader_hint,
                    });
                }
                self.answer_ready();
                for waiting in self.waiting.drain(..) {
                    waiting.refuse(ProduceError::OutcomeUnknown);
                }
                self.sessions.clear();
                self.confirmations.refuse();
                self.readable = true;
            }
            Effect::BecameFollower {
                leader,
                leader_epoch,
            } => {
                info!(topic = %self.topic, partition = %self.id.partition, %leader_epoch, ?leader,
                    "became follower");
                self.drop_empty_epochs(env);
                self.start_flush_in_mode_ack(env);
                self.follow(env, leader.filter(|leader| *leader != env.broker_id));
                self.readable = true;
            }
            Effect::HighWatermark(_) => {
                self.dirty = true;
                self.readable = true;
                self.marks_due = true;
            }
            Effect::ProposeIsr(proposal) => env.proposer.propose(self.id, proposal),
            Effect::IsrChanged { joined, left } => {
                env.metrics.isr_expands.add_len(joined.len());
                env.metrics.isr_shrinks.add_len(left.len());
                info!(topic = %self.topic, partition = %self.id.partition, ?joined, ?left,
                    "isr changed");
                self.dirty = true;
            }
            Effect::Subscribe {
                leader,
                leader_epoch,
                subscription,
            } => {
                self.subscribe(env, now, leader, leader_epoch, subscription);
            }
        }
    }

    /// Ends the round for this partition: flush, frames, answers, publication, wake-ups.
    pub(crate) fn settle(&mut self, env: &Env) {
        self.start_flush_in_mode_ack(env);
        if std::mem::take(&mut self.marks_due) {
            self.send_marks();
        }
        self.send_ack(env);
        // Whoever has an answer may read what it speaks of: publication first.
        if std::mem::take(&mut self.dirty) {
            self.publish();
        }
        self.answer_waiting();
        self.settle_confirmations(env);
        if std::mem::take(&mut self.readable) {
            self.handle.wake();
        }
    }

    /// An operation failed: if the disk is to blame, the replica is gone until the next start.
    fn on_log_error(&mut self, env: &Env, error: &ottla_storage::LogError) {
        if env.log_dir.failed() {
            self.fail(env, error);
        } else {
            warn!(topic = %self.topic, partition = %self.id.partition, %error, "log operation");
        }
    }

    /// The log directory failed (S-6): nothing is served or acknowledged from here any more.
    pub(crate) fn fail(&mut self, env: &Env, error: &dyn std::error::Error) {
        if self.log.is_none() {
            return;
        }
        error!(topic = %self.topic, partition = %self.id.partition, %error, "log failed");
        for queued in self.queued.drain(..) {
            queued.refuse(ProduceError::Storage);
        }
        self.answer_ready();
        for waiting in self.waiting.drain(..) {
            waiting.refuse(ProduceError::Storage);
        }
        self.follow(env, None);
        self.replica.on_log_failed(&mut self.effects);
        self.effects.clear();
        self.sessions.clear();
        self.confirmations.refuse();
        self.log = None;
        self.dirty = true;
        self.readable = true;
        env.on_directory_failed();
    }

    /// Ends all business and gives the log up, to be closed or deleted.
    pub(crate) fn end(&mut self, env: &Env, why: &ProduceError) -> Option<Log> {
        for queued in self.queued.drain(..) {
            queued.refuse(why.clone());
        }
        self.answer_ready();
        for waiting in self.waiting.drain(..) {
            waiting.refuse(ProduceError::OutcomeUnknown);
        }
        self.follow(env, None);
        self.sessions.clear();
        self.confirmations.refuse();
        let log = self.log.take();
        self.replica.on_log_failed(&mut self.effects);
        self.effects.clear();
        self.leader_hint = None;
        self.publish();
        self.handle.wake();
        log
    }
}

pub(crate) fn log_marks(log: &Log) -> LogMarks {
    LogMarks {
        log_start_offset: log.log_start_offset(),
        flushed_offset: log.flushed_offset(),
        log_end_offset: log.log_end_offset(),
    }
}
