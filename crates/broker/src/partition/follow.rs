//! The follower's side of replication: subscribing, appending, cutting, acknowledging.

use bytes::Bytes;
use tracing::{info, warn};

use ottla_replication::{FrameFacts, FrameVerdict, lineage};
use ottla_rpc::replication as rpc;
use ottla_storage::{AppendError, LogError};
use ottla_types::{BrokerId, FlushMode, LeaderEpoch, Offset};

use crate::shard::{env::Env, input::FrameInput};

use super::{Now, Partition, log_marks};

/// How long a follower without room waits before it asks for more.
const NO_SPACE_BACK_OFF_MS: u64 = 1_000;

impl Partition {
    /// Counts this partition on the stream to the leader it follows.
    pub(super) fn follow(&mut self, env: &Env, leader: Option<BrokerId>) {
        if self.following == leader {
            return;
        }
        if let Some(old) = self.following.take() {
            env.fetchers.release(old);
        }
        if let Some(new) = leader {
            env.fetchers.acquire(new);
            let subscribed = self.replica.follower().is_some_and(|f| f.is_subscribed());
            if !subscribed && env.fetchers.is_up(new) {
                self.replica.on_link_up(new, &mut self.effects);
            }
        }
        self.following = leader;
    }

    pub(crate) fn on_link_up(&mut self, env: &Env, now: Now, leader: BrokerId) {
        self.replica.on_link_up(leader, &mut self.effects);
        self.perform(env, now);
    }

    pub(crate) fn on_link_down(&mut self, leader: BrokerId) {
        self.replica.on_link_down(leader);
    }

    pub(super) fn subscribe(
        &mut self,
        env: &Env,
        _now: Now,
        leader: BrokerId,
        leader_epoch: LeaderEpoch,
        subscription: u64,
    ) {
        self.confirm_seen = 0;
        let marks = self.replica.marks();
        let last_epoch =
            lineage::last_record_epoch(&self.epochs, marks.log_start_offset, marks.log_end_offset);
        let message = rpc::Subscribe {
            topic_id: self.topic_id.clone(),
            partition: self.id.partition.get(),
            leader_epoch: leader_epoch.get(),
            subscription,
            log_end_offset: marks.log_end_offset.get(),
            last_epoch: last_epoch.map_or(-1, LeaderEpoch::get),
            flushed_offset: marks.flushed_offset.get(),
            unsubscribe: false,
            no_space: self.no_space || env.space.stalled(),
        };
        env.fetchers.subscribe(leader, message);
    }

    /// A frame from the leader; its credit returns when `input` is dropped.
    pub(crate) fn on_frame(&mut self, env: &Env, now: Now, input: &FrameInput) {
        if self.following != Some(input.leader) {
            env.metrics.replica_frames_dropped.one();
            return;
        }
        let verdict = self
            .replica
            .on_frame(now.at, &input.facts, &self.epochs, &mut self.effects);
        match verdict {
            FrameVerdict::Ignore => env.metrics.replica_frames_dropped.one(),
            FrameVerdict::Append => {
                self.see_confirmation(input.confirm);
                self.append_frame(env, now, &input.facts, &input.records);
            }
            FrameVerdict::Marks => {
                self.see_confirmation(input.confirm);
                self.take_marks(env, now, &input.facts);
            }
            FrameVerdict::Truncate { to } => self.truncate(env, now, to),
            FrameVerdict::RestartAt { offset } => self.restart_at(env, now, offset),
        }
        self.perform(env, now);
    }

    fn append_frame(&mut self, env: &Env, now: Now, facts: &FrameFacts, records: &[Bytes]) {
        if env.space.replication_blocked() {
            self.on_no_space(env, now);
            return;
        }
        for batches in records {
            let Some(log) = self.log.as_mut() else { return };
            match log.append_as_follower(batches.clone(), now.wall) {
                Ok(_) => env.metrics.replication_bytes_in.add_len(batches.len()),
                Err(error) => {
                    self.on_append_failed(env, now, &error);
                    break;
                }
            }
        }
        self.refresh_epochs();
        self.note_unflushed(env, now);
        self.on_log_changed(env, now);
        self.take_marks(env, now, facts);
        if self.flush_mode == FlushMode::Page {
            self.ack_due = true;
        }
    }

    fn on_append_failed(&mut self, env: &Env, now: Now, error: &AppendError) {
        match error {
            AppendError::NoSpace => {
                env.space.deny();
                self.on_no_space(env, now);
            }
            AppendError::TooManyFiles => {
                warn!(topic = %self.topic, partition = %self.id.partition, %error, "append");
                self.replica.back_off(now.at, NO_SPACE_BACK_OFF_MS);
            }
            AppendError::Io(_) => self.fail(env, error),
            AppendError::Corrupt(_)
            | AppendError::BatchTooLarge { .. }
            | AppendError::OutOfOrder { .. }
            | AppendError::EpochRegressed { .. }
            | AppendError::OffsetsExhausted => {
                warn!(topic = %self.topic, partition = %self.id.partition, %error,
                    "frame refused");
                env.metrics.corrupt_batches.one();
                self.replica.back_off(now.at, 0);
            }
        }
    }

    /// The leader proposes that we leave the ISR; we ask again when there is room.
    fn on_no_space(&mut self, env: &Env, now: Now) {
        if !self.no_space {
            warn!(topic = %self.topic, partition = %self.id.partition, "no space to replicate");
        }
        env.metrics.no_space_rejections.one();
        self.no_space = true;
        self.ack_due = true;
        self.replica.back_off(now.at, NO_SPACE_BACK_OFF_MS);
    }

    fn take_marks(&mut self, env: &Env, now: Now, facts: &FrameFacts) {
        let Some(log) = self.log.as_mut() else { return };
        let start = facts.log_start_offset.min(log.log_end_offset());
        if start > log.log_start_offset() {
            match log.set_log_start_offset(start) {
                Ok(deleted) => {
                    self.discard(env, now, deleted);
                    self.on_log_changed(env, now);
                }
                Err(error) => self.on_log_error(env, &error),
            }
        }
        self.replica.on_leader_marks(facts, &mut self.effects);
        self.perform(env, now);
    }

    fn truncate(&mut self, env: &Env, now: Now, to: Offset) {
        let Some(log) = self.log.as_mut() else { return };
        if to <= log.log_start_offset() {
            self.restart_at(env, now, to);
            return;
        }
        self.note_truncation(env, to);
        let Some(log) = self.log.as_mut() else { return };
        let outcome = log.truncate_to(to);
        self.after_truncation(env, now, outcome);
    }

    fn restart_at(&mut self, env: &Env, now: Now, offset: Offset) {
        self.note_truncation(env, offset);
        let Some(log) = self.log.as_mut() else { return };
        let outcome = log.truncate_fully_and_start_at(offset);
        self.after_truncation(env, now, outcome);
    }

    fn note_truncation(&self, env: &Env, to: Offset) {
        let (end, high_watermark) = (
            self.replica.marks().log_end_offset,
            self.replica.high_watermark(),
        );
        info!(topic = %self.topic, partition = %self.id.partition, %to, %end, "truncating log");
        env.metrics.truncations.one();
        if to < high_watermark {
            warn!(topic = %self.topic, partition = %self.id.partition, %to, %high_watermark,
                "truncation below the high watermark");
            env.metrics.truncations_below_high_watermark.one();
        }
    }

    fn after_truncation(&mut self, env: &Env, now: Now, outcome: Result<(), LogError>) {
        if let Err(error) = outcome {
            self.on_log_error(env, &error);
            self.replica.back_off(now.at, NO_SPACE_BACK_OFF_MS);
            return;
        }
        self.unflushed_since = None;
        self.refresh_epochs();
        if let Some(log) = self.log.as_ref() {
            self.replica.on_truncated(log_marks(log), &mut self.effects);
        }
        self.dirty = true;
        self.readable = true;
    }

    /// Tells the leader how far this replica is, once per round.
    pub(super) fn send_ack(&mut self, env: &Env) {
        if !std::mem::take(&mut self.ack_due) {
            return;
        }
        let Some(follower) = self.replica.follower() else {
            return;
        };
        let Some(leader) = self.following else { return };
        if !follower.is_subscribed() && !self.no_space {
            return;
        }
        let marks = self.replica.marks();
        let ack = rpc::Ack {
            topic_id: self.topic_id.clone(),
            partition: self.id.partition.get(),
            leader_epoch: follower.leader_epoch().get(),
            subscription: follower.subscription(),
            log_end_offset: marks.log_end_offset.get(),
            flushed_offset: marks.flushed_offset.get(),
            no_space: self.no_space || env.space.stalled(),
            confirm: self.confirm_seen,
        };
        env.fetchers.ack(leader, self.id, ack);
    }
}
