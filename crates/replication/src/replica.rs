//! One replica of a partition: the marks of its log, and a role with what that role needs.
//!
//! # Invariants
//! * log start ≤ high watermark ≤ log end.
//! * A role belongs to one leader epoch; metadata of an older epoch changes nothing.

use std::collections::BTreeSet;

use ottla_types::{BrokerId, LeaderEpoch, MonotonicMs, Offset};

use crate::{
    Assignment, Effect, Follower, FollowerReport, FrameFacts, FrameVerdict, IsrAnswer, Leader,
    LogMarks, ReportRejected, Settings, lineage::EpochStart,
};

/// What a replica is at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing yet, or nothing any more: its log failed or it is no longer assigned.
    Offline,
    /// Leads.
    Leader(Box<Leader>),
    /// Follows.
    Follower(Follower),
}

/// One replica of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    local: BrokerId,
    settings: Settings,
    marks: LogMarks,
    high_watermark: Offset,
    role: Role,
    leader_epoch: Option<LeaderEpoch>,
    /// The last subscription used: rises over all roles, so that no late frame ever fits.
    subscription: u64,
    failed: bool,
    /// Streams that are up, by the broker they lead to.
    links: BTreeSet<BrokerId>,
}

impl Replica {
    /// A replica as recovered from disk, without a role. `first_subscription` differs between
    /// lives of the process.
    #[must_use]
    pub fn new(
        local: BrokerId,
        settings: Settings,
        marks: LogMarks,
        high_watermark: Offset,
        first_subscription: u64,
    ) -> Replica {
        Replica {
            local,
            settings,
            marks,
            high_watermark: high_watermark
                .min(marks.log_end_offset)
                .max(marks.log_start_offset),
            role: Role::Offline,
            leader_epoch: None,
            subscription: first_subscription,
            failed: false,
            links: BTreeSet::new(),
        }
    }

    /// Its role.
    #[must_use]
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// The leader, if this replica leads.
    #[must_use]
    pub fn leader(&self) -> Option<&Leader> {
        match &self.role {
            Role::Leader(leader) => Some(leader),
            Role::Offline | Role::Follower(_) => None,
        }
    }

    /// The follower, if this replica follows.
    #[must_use]
    pub fn follower(&self) -> Option<&Follower> {
        match &self.role {
            Role::Follower(follower) => Some(follower),
            Role::Offline | Role::Leader(_) => None,
        }
    }

    /// The newest epoch it has a role in.
    #[must_use]
    pub fn leader_epoch(&self) -> Option<LeaderEpoch> {
        self.leader_epoch
    }

    /// First offset not known to be committed.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Its log, as last told.
    #[must_use]
    pub fn marks(&self) -> LogMarks {
        self.marks
    }

    /// Committed metadata of this partition has changed, or a replica's registration.
    pub fn on_assignment(
        &mut self,
        now: MonotonicMs,
        assignment: &Assignment,
        effects: &mut Vec<Effect>,
    ) {
        if self.failed
            || self
                .leader_epoch
                .is_some_and(|known| assignment.leader_epoch < known)
        {
            return;
        }
        let newer = self
            .leader_epoch
            .is_none_or(|known| assignment.leader_epoch > known);
        if !assignment.replicas.contains(&self.local) {
            self.end_leadership(effects);
            self.role = Role::Offline;
            self.leader_epoch = Some(assignment.leader_epoch);
            return;
        }
        if newer || matches!(self.role, Role::Offline) {
            self.take_role(now, assignment, effects);
        } else if let Role::Leader(leader) = &mut self.role {
            leader.on_assignment(now, assignment, effects);
        }
        self.sync_high_watermark();
    }

    fn take_role(&mut self, now: MonotonicMs, assignment: &Assignment, effects: &mut Vec<Effect>) {
        self.end_leadership(effects);
        self.leader_epoch = Some(assignment.leader_epoch);
        let leader_epoch = assignment.leader_epoch;
        if assignment.leader == Some(self.local) {
            effects.push(Effect::BecameLeader {
                leader_epoch,
                start: self.marks.log_end_offset,
            });
            let mut leader = Leader::new(
                now,
                self.local,
                assignment,
                self.settings,
                self.marks,
                self.high_watermark,
            );
            // A single replica has nobody to wait for.
            leader.on_log(now, self.marks, effects);
            self.role = Role::Leader(Box::new(leader));
            return;
        }
        effects.push(Effect::BecameFollower {
            leader: assignment.leader,
            leader_epoch,
        });
        let mut follower = Follower::new(assignment.leader, leader_epoch, self.subscription);
        if let Some(leader) = assignment.leader
            && self.links.contains(&leader)
        {
            follower.on_link_up(leader, effects);
        }
        self.subscription = follower.subscription();
        self.role = Role::Follower(follower);
    }

    fn end_leadership(&mut self, effects: &mut Vec<Effect>) {
        if matches!(self.role, Role::Leader(_)) {
            effects.push(Effect::LeadershipEnded);
        }
    }

    /// The topic's or broker's settings have changed.
    pub fn on_settings(&mut self, now: MonotonicMs, settings: Settings, effects: &mut Vec<Effect>) {
        self.settings = settings;
        if let Role::Leader(leader) = &mut self.role {
            leader.on_settings(now, settings, effects);
        }
        self.sync_high_watermark();
    }

    /// The log grew, was flushed, or lost old segments. Never for a truncation.
    pub fn on_log(&mut self, now: MonotonicMs, marks: LogMarks, effects: &mut Vec<Effect>) {
        assert!(
            marks.log_end_offset >= self.marks.log_end_offset,
            "log end fell from {} to {} without a truncation",
            self.marks.log_end_offset,
            marks.log_end_offset
        );
        self.marks = marks;
        self.high_watermark = self.high_watermark.max(marks.log_start_offset);
        if let Role::Leader(leader) = &mut self.role {
            leader.on_log(now, marks, effects);
        }
        self.sync_high_watermark();
    }

    /// The log was cut, or dropped and restarted, as a verdict said. Durable before this call.
    ///
    /// The high watermark falls with it only if it must: in a cluster without unclean elections a
    /// replica never cuts below what it knew as committed.
    pub fn on_truncated(&mut self, marks: LogMarks, effects: &mut Vec<Effect>) {
        assert!(self.leader().is_none(), "a leader never truncates its log");
        self.marks = marks;
        self.high_watermark = self
            .high_watermark
            .min(marks.log_end_offset)
            .max(marks.log_start_offset);
        if let Role::Follower(follower) = &mut self.role {
            follower.on_truncated(effects);
            self.subscription = follower.subscription();
        }
    }

    /// A follower's report; counts only on a leader.
    ///
    /// # Errors
    /// A report that is late or not for this epoch changes nothing.
    pub fn on_report(
        &mut self,
        now: MonotonicMs,
        report: FollowerReport,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReportRejected> {
        let Role::Leader(leader) = &mut self.role else {
            return Err(ReportRejected::WrongEpoch);
        };
        let outcome = leader.on_report(now, report, effects);
        self.sync_high_watermark();
        outcome
    }

    /// A follower's stream to us ended.
    pub fn on_follower_disconnected(
        &mut self,
        now: MonotonicMs,
        broker: BrokerId,
        effects: &mut Vec<Effect>,
    ) {
        if let Role::Leader(leader) = &mut self.role {
            leader.on_disconnected(now, broker, effects);
        }
        self.sync_high_watermark();
    }

    /// What became of the proposal made in `leader_epoch`.
    pub fn on_isr_answer(
        &mut self,
        now: MonotonicMs,
        leader_epoch: LeaderEpoch,
        answer: &IsrAnswer,
        effects: &mut Vec<Effect>,
    ) {
        if let Role::Leader(leader) = &mut self.role
            && leader.leader_epoch() == leader_epoch
        {
            leader.on_isr_answer(now, answer, effects);
        }
        self.sync_high_watermark();
    }

    /// A stream to `leader` is up.
    pub fn on_link_up(&mut self, leader: BrokerId, effects: &mut Vec<Effect>) {
        self.links.insert(leader);
        if let Role::Follower(follower) = &mut self.role {
            follower.on_link_up(leader, effects);
            self.subscription = follower.subscription();
        }
    }

    /// The stream to `leader` broke.
    pub fn on_link_down(&mut self, leader: BrokerId) {
        self.links.remove(&leader);
        if let Role::Follower(follower) = &mut self.role {
            follower.on_link_down(leader);
        }
    }

    /// A frame from a leader: what to do with it. `epochs` is the log's epoch list.
    pub fn on_frame(
        &mut self,
        now: MonotonicMs,
        frame: &FrameFacts,
        epochs: &[EpochStart],
        effects: &mut Vec<Effect>,
    ) -> FrameVerdict {
        let Role::Follower(follower) = &mut self.role else {
            return FrameVerdict::Ignore;
        };
        let verdict = follower.on_frame(now, frame, self.marks, epochs, effects);
        self.subscription = follower.subscription();
        verdict
    }

    /// Takes over the leader's high watermark, as far as our log reaches; after the append of the
    /// frame that carried it.
    pub fn on_leader_marks(&mut self, frame: &FrameFacts, effects: &mut Vec<Effect>) {
        let reached = frame.high_watermark.min(self.marks.log_end_offset);
        if reached > self.high_watermark {
            self.high_watermark = reached;
            effects.push(Effect::HighWatermark(reached));
        }
    }

    /// The runtime could not use a frame; ask the leader again after `ms`.
    pub fn back_off(&mut self, now: MonotonicMs, ms: u64) {
        if let Role::Follower(follower) = &mut self.role {
            follower.back_off(now, ms);
        }
    }

    /// Its log directory failed: it has no role until the process starts anew.
    pub fn on_log_failed(&mut self, effects: &mut Vec<Effect>) {
        self.end_leadership(effects);
        self.role = Role::Offline;
        self.failed = true;
    }

    /// Time has passed.
    pub fn on_tick(&mut self, now: MonotonicMs, effects: &mut Vec<Effect>) {
        match &mut self.role {
            Role::Offline => {}
            Role::Leader(leader) => leader.on_tick(now, effects),
            Role::Follower(follower) => {
                follower.on_tick(now, effects);
                self.subscription = follower.subscription();
            }
        }
        self.sync_high_watermark();
    }

    /// When `on_tick` has something to do that cannot wait for its regular turn.
    #[must_use]
    pub fn next_deadline(&self, now: MonotonicMs) -> Option<MonotonicMs> {
        match &self.role {
            Role::Offline => None,
            Role::Leader(leader) => leader.next_deadline(now),
            Role::Follower(follower) => follower.next_deadline(),
        }
    }

    fn sync_high_watermark(&mut self) {
        if let Role::Leader(leader) = &self.role {
            self.high_watermark = leader.high_watermark().max(self.marks.log_start_offset);
        }
        assert!(
            self.high_watermark <= self.marks.log_end_offset,
            "high watermark {} is beyond the log end {}",
            self.high_watermark,
            self.marks.log_end_offset
        );
    }
}
