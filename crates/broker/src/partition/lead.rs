//! The leader's side of replication: subscriptions, pushes, catch-up reads, acknowledgements.

use std::sync::Arc;

use bytes::Bytes;
use tracing::{debug, warn};

use ottla_replication::{FollowerReport, lineage, lineage::Position};
use ottla_rpc::replication as rpc;
use ottla_storage::Appended;
use ottla_types::{BrokerId, Offset};

use crate::{
    replica_stream::Lane,
    shard::{
        env::Env,
        input::{AckInput, ChunkRead, Input, SubscribeInput},
    },
};

use super::{
    Now, Partition,
    session::{CHUNK_BYTES, Session, State},
};

/// What becomes of a subscription.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Subscribed {
    /// It is answered.
    Answered,
    /// Metadata is behind it: try again when that has moved, within its time.
    Park,
}

impl Partition {
    /// A follower asks for everything from its log end on.
    pub(crate) fn on_subscribe(
        &mut self,
        env: &Env,
        now: Now,
        input: &SubscribeInput,
    ) -> Subscribed {
        let known = self.replica.leader_epoch();
        if known.is_none_or(|known| input.leader_epoch > known) {
            return Subscribed::Park;
        }
        let Some(leader) = self.replica.leader() else {
            self.refuse(env, input, rpc::FrameError::NotLeader);
            return Subscribed::Answered;
        };
        if input.leader_epoch != leader.leader_epoch() {
            self.refuse(env, input, rpc::FrameError::FencedLeaderEpoch);
            return Subscribed::Answered;
        }
        if !leader.replicas().contains(&input.follower) {
            self.refuse(env, input, rpc::FrameError::UnknownPartition);
            return Subscribed::Answered;
        }
        let older = self.sessions.get(&input.follower).is_some_and(|session| {
            session.incarnation > input.incarnation
                || (session.incarnation == input.incarnation
                    && session.subscription > input.subscription)
        });
        if older {
            return Subscribed::Answered;
        }
        self.sessions.remove(&input.follower);
        let marks = self.replica.marks();
        let position = lineage::compare(
            &self.epochs,
            marks.log_start_offset,
            marks.log_end_offset,
            input.last_epoch,
            input.log_end_offset,
        );
        match position {
            Position::Matches => self.accept(env, now, input),
            Position::Diverges { epoch, end } => {
                env.metrics.replica_subscriptions_refused.one();
                let frame = rpc::Frame {
                    diverging: true,
                    diverging_epoch: epoch.get(),
                    diverging_end_offset: end.get(),
                    ..self.frame(input.subscription)
                };
                input.lane.push_control(frame);
            }
            Position::OutOfRange => {
                env.metrics.replica_subscriptions_refused.one();
                let frame = rpc::Frame {
                    out_of_range: true,
                    ..self.frame(input.subscription)
                };
                input.lane.push_control(frame);
            }
        }
        Subscribed::Answered
    }

    fn accept(&mut self, env: &Env, now: Now, input: &SubscribeInput) {
        debug!(topic = %self.topic, partition = %self.id.partition, follower = %input.follower,
            offset = %input.log_end_offset, "follower subscribed");
        let session = Session::new(
            input.incarnation,
            input.subscription,
            Arc::clone(&input.lane),
            input.log_end_offset,
        );
        self.sessions.insert(input.follower, session);
        // The marks again on every subscription: what was sent before may have been lost.
        input.lane.push_control(self.frame(input.subscription));
        self.report(
            env,
            now,
            FollowerReport {
                broker_id: input.follower,
                incarnation: input.incarnation,
                leader_epoch: input.leader_epoch,
                log_end_offset: input.log_end_offset,
                flushed_offset: input.flushed_offset,
                no_space: input.no_space,
            },
        );
        self.advance_session(env, input.follower);
    }

    fn refuse(&self, env: &Env, input: &SubscribeInput, error: rpc::FrameError) {
        env.metrics.replica_subscriptions_refused.one();
        let frame = rpc::Frame {
            leader_epoch: input.leader_epoch.get(),
            error: error.into(),
            ..self.frame(input.subscription)
        };
        input.lane.push_control(frame);
    }

    /// A parked subscription's time is over.
    pub(crate) fn refuse_parked(&self, env: &Env, input: &SubscribeInput) {
        self.refuse(env, input, rpc::FrameError::UnknownLeaderEpoch);
    }

    pub(crate) fn on_unsubscribe(&mut self, follower: BrokerId, subscription: u64) {
        if self
            .sessions
            .get(&follower)
            .is_some_and(|s| s.subscription == subscription)
        {
            self.sessions.remove(&follower);
        }
    }

    pub(crate) fn on_ack(&mut self, env: &Env, now: Now, ack: &AckInput) {
        let Some(session) = self.sessions.get_mut(&ack.follower) else {
            return;
        };
        // An acknowledgement of another subscription may speak of another log.
        if session.subscription != ack.subscription || session.incarnation != ack.incarnation {
            return;
        }
        session.acknowledged(ack.log_end_offset);
        self.confirmations.heard(ack.follower, ack.confirm);
        self.report(
            env,
            now,
            FollowerReport {
                broker_id: ack.follower,
                incarnation: ack.incarnation,
                leader_epoch: ack.leader_epoch,
                log_end_offset: ack.log_end_offset,
                flushed_offset: ack.flushed_offset,
                no_space: ack.no_space,
            },
        );
        self.advance_session(env, ack.follower);
    }

    fn report(&mut self, env: &Env, now: Now, report: FollowerReport) {
        if let Err(error) = self.replica.on_report(now.at, report, &mut self.effects) {
            debug!(topic = %self.topic, partition = %self.id.partition,
                follower = %report.broker_id, %error, "report not counted");
        }
        self.dirty = true;
        self.perform(env, now);
    }

    pub(crate) fn on_stream_closed(&mut self, env: &Env, now: Now, follower: BrokerId, lane: u64) {
        if self
            .sessions
            .get(&follower)
            .is_some_and(|session| session.lane.number() == lane)
        {
            self.sessions.remove(&follower);
            self.replica
                .on_follower_disconnected(now.at, follower, &mut self.effects);
            self.perform(env, now);
        }
    }

    /// Sends freshly appended batches, from memory, before they are flushed here.
    pub(super) fn push_appended(&mut self, env: &Env, appended: &[Appended]) {
        if self.sessions.is_empty() || appended.is_empty() {
            return;
        }
        let batches: Vec<Bytes> = appended.iter().map(|one| one.bytes.clone()).collect();
        let first = appended[0].base_offset;
        let next = appended[appended.len() - 1].last_offset.next();
        let followers: Vec<BrokerId> = self.sessions.keys().copied().collect();
        for follower in followers {
            let Some(session) = self.sessions.get_mut(&follower) else {
                continue;
            };
            match session.state {
                State::Live if session.next == first && !session.is_over_share() => {
                    self.send_live(env, follower, &batches, next);
                }
                State::Live => self.fall_behind(follower),
                State::Reading { .. } => session.keep(&batches),
                State::Draining | State::Waiting => {}
            }
        }
    }

    fn send_live(&mut self, env: &Env, follower: BrokerId, batches: &[Bytes], next: Offset) {
        let bytes: usize = batches.iter().map(Bytes::len).sum();
        let Some(session) = self.sessions.get(&follower) else {
            return;
        };
        let frame = rpc::Frame {
            records: batches.to_vec(),
            ..self.frame(session.subscription)
        };
        let lane = Arc::clone(&session.lane);
        let Some(session) = self.sessions.get_mut(&follower) else {
            return;
        };
        if lane.push_data(frame, bytes, self.id) {
            session.sent(next, bytes);
            env.metrics.replication_bytes_out.add_len(bytes);
        } else {
            session.state = State::Waiting;
        }
    }

    fn fall_behind(&mut self, follower: BrokerId) {
        if let Some(session) = self.sessions.get_mut(&follower) {
            // Woken by the next acknowledgement, which also frees its share.
            session.state = State::Waiting;
        }
    }

    pub(crate) fn on_credit(&mut self, env: &Env, follower: BrokerId) {
        self.advance_session(env, follower);
    }

    /// Lets a session that is not live do what it can do now.
    fn advance_session(&mut self, env: &Env, follower: BrokerId) {
        let log_end = self.replica.marks().log_end_offset;
        let Some(session) = self.sessions.get_mut(&follower) else {
            return;
        };
        match session.state {
            State::Live | State::Reading { .. } => return,
            State::Draining if session.catch_up_end.is_some() => return,
            State::Draining | State::Waiting => {}
        }
        if session.next >= log_end && session.catch_up_end.is_none() {
            session.state = State::Live;
            return;
        }
        if session.next >= log_end {
            session.state = State::Draining;
            return;
        }
        if session.is_over_share() {
            session.state = State::Waiting;
            return;
        }
        let Some(reader) = self.log.as_ref().map(ottla_storage::Log::reader) else {
            return;
        };
        session.state = State::Reading {
            until: log_end,
            pending: Vec::new(),
            pending_bytes: 0,
            overflow: false,
        };
        let (id, subscription, from) = (self.id, session.subscription, session.next);
        let mailbox = Arc::clone(&env.mailbox);
        env.io_pool.submit(move || {
            let result = reader.read(from, log_end, CHUNK_BYTES, true);
            let read = ChunkRead {
                id,
                follower,
                subscription,
                from,
                result,
            };
            mailbox.post(Input::ChunkRead(read));
        });
    }

    pub(crate) fn on_chunk_read(&mut self, env: &Env, read: ChunkRead) {
        let follower = read.follower;
        let Some(session) = self.sessions.get_mut(&follower) else {
            return;
        };
        if session.subscription != read.subscription || session.next != read.from {
            return;
        }
        let state = std::mem::replace(&mut session.state, State::Waiting);
        let State::Reading {
            until,
            pending,
            overflow,
            ..
        } = state
        else {
            session.state = state;
            return;
        };
        let (chunk, next) = match read.result {
            Ok(read) => read,
            Err(error) => {
                self.on_chunk_failed(env, follower, &error);
                return;
            }
        };
        let at_tail = next >= until && !overflow && session.catch_up_end.is_none();
        if at_tail {
            let log_end = self.replica.marks().log_end_offset;
            let mut batches = vec![chunk];
            batches.extend(pending);
            if let Some(session) = self.sessions.get_mut(&follower) {
                session.state = State::Live;
            }
            self.send_live(env, follower, &batches, log_end);
            return;
        }
        self.send_catch_up(env, follower, chunk, next);
    }

    fn send_catch_up(&mut self, env: &Env, follower: BrokerId, chunk: Bytes, next: Offset) {
        let Some(session) = self.sessions.get(&follower) else {
            return;
        };
        let live = Arc::clone(&session.lane);
        let lane: Arc<Lane> = env.streams.catch_up_lane(&live).unwrap_or(live);
        let bytes = chunk.len();
        let frame = rpc::Frame {
            records: vec![chunk],
            ..self.frame(session.subscription)
        };
        let separate = lane.number() != session.lane.number();
        if !lane.push_data(frame, bytes, self.id) {
            // The lane tells when it has credit; the chunk is read again then.
            return;
        }
        env.metrics.replication_bytes_out.add_len(bytes);
        if let Some(session) = self.sessions.get_mut(&follower) {
            session.sent(next, bytes);
            if separate {
                session.catch_up_end = Some(next);
            }
        }
        self.advance_session(env, follower);
    }

    /// What cannot be read cannot be sent: the follower starts anew, where it is told to.
    fn on_chunk_failed(&mut self, env: &Env, follower: BrokerId, error: &ottla_storage::ReadError) {
        warn!(topic = %self.topic, partition = %self.id.partition, %follower, %error,
            "read for a follower failed");
        if matches!(error, ottla_storage::ReadError::Corrupt { .. }) {
            env.metrics.corrupt_batches.one();
        }
        let Some(session) = self.sessions.remove(&follower) else {
            return;
        };
        let frame = rpc::Frame {
            error: rpc::FrameError::Storage.into(),
            ..self.frame(session.subscription)
        };
        session.lane.push_control(frame);
    }

    /// Tells every subscribed follower the marks as they are now.
    pub(super) fn send_marks(&self) {
        if self.replica.leader().is_none() {
            return;
        }
        for session in self.sessions.values() {
            session
                .lane
                .push_marks(self.id, self.frame(session.subscription));
        }
    }

    /// A frame without records.
    pub(super) fn frame(&self, subscription: u64) -> rpc::Frame {
        rpc::Frame {
            topic_id: self.topic_id.clone(),
            partition: self.id.partition.get(),
            leader_epoch: self.leader_epoch().get(),
            subscription,
            high_watermark: self.replica.high_watermark().get(),
            log_start_offset: self.replica.marks().log_start_offset.get(),
            confirm: self.confirmations.last_round(),
            ..rpc::Frame::default()
        }
    }
}
