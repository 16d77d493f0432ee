//! The leader's half of one partition: follower progress, the ISR and the high watermark.
//!
//! Pure. Inputs carry the time they happened; consequences are returned as effects.
//!
//! # Invariants
//! * `high_watermark` never falls within a leader epoch and never passes the log end.
//! * Every member of the maximal ISR stores every record below `high_watermark`.
//! * Below `min.insync.replicas` the high watermark stands still (P-5).

use std::collections::{BTreeMap, BTreeSet};

use ottla_types::{
    BrokerEpoch, BrokerId, FlushMode, LeaderEpoch, MonotonicMs, Offset, PartitionEpoch,
};

use crate::{
    Assignment, Effect, FollowerReport, IsrAnswer, IsrProposal, LogMarks, Registered,
    ReportRejected, Settings,
    age::AppendTimes,
    isr::{Isr, IsrDelta},
};

/// A follower outside the ISR holds the high watermark back only while it is this close behind,
/// so that it can reach it and join, and a stuck one costs no more than this.
const NEARLY_CAUGHT_UP_MS: u64 = 300;

/// What a leader knows of one follower.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Follower {
    /// The registration under which it last reported.
    incarnation: Option<BrokerEpoch>,
    /// What it stores, in this leader epoch and under that registration.
    stored: Option<Stored>,
    /// It has a live stream.
    connected: bool,
    /// Its disk is full.
    no_space: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stored {
    log_end_offset: Offset,
    flushed_offset: Offset,
}

/// A partition's leader, for one leader epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    local: BrokerId,
    leader_epoch: LeaderEpoch,
    epoch_start_offset: Offset,
    settings: Settings,
    /// The mode in force: `Page` until the ISR has flushed what counted before a switch to `Ack`.
    flush_mode: FlushMode,
    replicas: Vec<BrokerId>,
    registered: BTreeMap<BrokerId, Registered>,
    isr: Isr,
    followers: BTreeMap<BrokerId, Follower>,
    marks: LogMarks,
    high_watermark: Offset,
    append_times: AppendTimes,
    /// The controller has yet to hear that an unclean leader's log is recovered.
    recovering: bool,
}

impl Leader {
    pub(crate) fn new(
        now: MonotonicMs,
        local: BrokerId,
        assignment: &Assignment,
        settings: Settings,
        marks: LogMarks,
        high_watermark: Offset,
    ) -> Leader {
        let mut leader = Leader {
            local,
            leader_epoch: assignment.leader_epoch,
            epoch_start_offset: marks.log_end_offset,
            settings,
            flush_mode: settings.flush_mode,
            replicas: Vec::new(),
            registered: BTreeMap::new(),
            isr: Isr::new(&assignment.isr, assignment.partition_epoch),
            followers: BTreeMap::new(),
            marks,
            high_watermark: high_watermark.min(marks.log_end_offset),
            append_times: AppendTimes::new(now),
            recovering: assignment.recovering,
        };
        leader.set_replicas(assignment);
        leader
    }

    /// The epoch in which it leads.
    #[must_use]
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// Where its epoch begins in the log.
    #[must_use]
    pub fn epoch_start_offset(&self) -> Offset {
        self.epoch_start_offset
    }

    /// First offset not known to be committed.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Committed in-sync replicas.
    #[must_use]
    pub fn isr(&self) -> Vec<BrokerId> {
        self.isr.committed().iter().copied().collect()
    }

    /// Committed in-sync replicas and those that a proposal in flight may add.
    #[must_use]
    pub fn maximal_isr(&self) -> BTreeSet<BrokerId> {
        self.isr.maximal().collect()
    }

    /// Assigned replicas.
    #[must_use]
    pub fn replicas(&self) -> &[BrokerId] {
        &self.replicas
    }

    /// The partition record this leader builds on.
    #[must_use]
    pub fn partition_epoch(&self) -> PartitionEpoch {
        self.isr.partition_epoch()
    }

    /// When an offset counts as stored.
    #[must_use]
    pub fn flush_mode(&self) -> FlushMode {
        self.flush_mode
    }

    /// `min.insync.replicas`, capped by the number of assigned replicas.
    #[must_use]
    pub fn min_isr(&self) -> usize {
        self.settings
            .min_insync_replicas
            .min(self.replicas.len())
            .max(1)
    }

    /// True if the committed ISR has as many members as acks=all needs (P-5).
    #[must_use]
    pub fn has_min_isr(&self) -> bool {
        self.isr.committed().len() >= self.min_isr()
    }

    /// The follower's registration as committed metadata has it.
    #[must_use]
    pub fn registered(&self, broker: BrokerId) -> Option<Registered> {
        self.registered.get(&broker).copied()
    }

    /// The controller has committed a record of this epoch, or a registration changed.
    pub(crate) fn on_assignment(
        &mut self,
        now: MonotonicMs,
        assignment: &Assignment,
        effects: &mut Vec<Effect>,
    ) {
        let delta = self
            .isr
            .on_committed(assignment.partition_epoch, &assignment.isr);
        self.recovering &= assignment.recovering;
        self.set_replicas(assignment);
        self.on_isr_changed(now, delta, effects);
    }

    pub(crate) fn on_settings(
        &mut self,
        now: MonotonicMs,
        settings: Settings,
        effects: &mut Vec<Effect>,
    ) {
        self.settings = settings;
        if settings.flush_mode == FlushMode::Page {
            self.flush_mode = FlushMode::Page;
        }
        self.advance(now, effects);
    }

    fn set_replicas(&mut self, assignment: &Assignment) {
        self.replicas.clone_from(&assignment.replicas);
        self.registered.clone_from(&assignment.registered);
        let replicas = &self.replicas;
        self.followers.retain(|broker, _| replicas.contains(broker));
    }

    /// The log grew, was flushed or lost old segments.
    pub(crate) fn on_log(&mut self, now: MonotonicMs, marks: LogMarks, effects: &mut Vec<Effect>) {
        if marks.log_end_offset > self.marks.log_end_offset {
            self.append_times.appended(now, self.marks.log_end_offset);
        }
        self.marks = marks;
        self.advance(now, effects);
    }

    /// A follower tells how far its log is a copy of ours.
    ///
    /// # Errors
    /// A report that is late or not for this epoch changes nothing.
    pub(crate) fn on_report(
        &mut self,
        now: MonotonicMs,
        report: FollowerReport,
        effects: &mut Vec<Effect>,
    ) -> Result<(), ReportRejected> {
        if report.leader_epoch != self.leader_epoch {
            return Err(ReportRejected::WrongEpoch);
        }
        if !self.replicas.contains(&report.broker_id) || report.broker_id == self.local {
            return Err(ReportRejected::NotAReplica);
        }
        if report.log_end_offset > self.marks.log_end_offset {
            return Err(ReportRejected::BeyondLogEnd);
        }
        let follower = self.followers.entry(report.broker_id).or_default();
        match follower.incarnation {
            Some(known) if report.incarnation < known => {
                return Err(ReportRejected::StaleIncarnation);
            }
            Some(known) if report.incarnation == known => {}
            Some(_) | None => {
                // Another life of that broker: what the former one stored counts no more (B-3).
                follower.incarnation = Some(report.incarnation);
                follower.stored = None;
            }
        }
        follower.connected = true;
        follower.no_space = report.no_space;
        // A report delivered late within one incarnation and epoch says less, never more.
        let known = follower.stored.unwrap_or(Stored {
            log_end_offset: Offset::ZERO,
            flushed_offset: Offset::ZERO,
        });
        follower.stored = Some(Stored {
            log_end_offset: known.log_end_offset.max(report.log_end_offset),
            flushed_offset: known
                .flushed_offset
                .max(report.flushed_offset.min(report.log_end_offset)),
        });
        self.advance(now, effects);
        Ok(())
    }

    /// The follower's stream ended.
    pub(crate) fn on_disconnected(
        &mut self,
        now: MonotonicMs,
        broker: BrokerId,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(follower) = self.followers.get_mut(&broker) {
            follower.connected = false;
            self.advance(now, effects);
        }
    }

    pub(crate) fn on_isr_answer(
        &mut self,
        now: MonotonicMs,
        answer: &IsrAnswer,
        effects: &mut Vec<Effect>,
    ) {
        match answer {
            IsrAnswer::Committed {
                partition_epoch,
                isr,
            } => {
                self.recovering = false;
                let delta = self.isr.on_answered(now, *partition_epoch, isr);
                self.on_isr_changed(now, delta, effects);
            }
            IsrAnswer::Refused => self.isr.on_refused(now),
            IsrAnswer::Outdated => self.isr.on_outdated(now),
            IsrAnswer::Unknown => self.isr.on_unknown(now),
        }
    }

    /// Time has passed: laggards leave, held-off and unanswered proposals are sent.
    pub(crate) fn on_tick(&mut self, now: MonotonicMs, effects: &mut Vec<Effect>) {
        self.append_times.forget_below(self.oldest_needed());
        if let Some(isr) = self.isr.retry(now) {
            effects.push(self.proposal(&isr));
        }
        self.advance(now, effects);
    }

    /// When `on_tick` may have something to do besides its regular turn.
    pub(crate) fn next_deadline(&self, now: MonotonicMs) -> Option<MonotonicMs> {
        self.isr.next_deadline(now)
    }

    fn on_isr_changed(&mut self, now: MonotonicMs, delta: IsrDelta, effects: &mut Vec<Effect>) {
        if !delta.is_empty() {
            effects.push(Effect::IsrChanged {
                joined: delta.joined,
                left: delta.left,
            });
        }
        self.advance(now, effects);
    }

    /// Proposes what is due, then moves the high watermark: in this order, so that a follower that
    /// has just reached it binds it before it runs away again.
    fn advance(&mut self, now: MonotonicMs, effects: &mut Vec<Effect>) {
        self.settle_flush_mode();
        self.propose(now, effects);
        self.advance_high_watermark(now, effects);
    }

    /// A topic switched to `Ack` counts as such once the ISR has flushed up to the high
    /// watermark: before, its records below it may be in page caches only.
    fn settle_flush_mode(&mut self) {
        if self.flush_mode == self.settings.flush_mode {
            return;
        }
        let flushed = self.isr.maximal().all(|member| {
            self.stored_in(member, FlushMode::Ack)
                .is_some_and(|at| at >= self.high_watermark)
        });
        if flushed {
            self.flush_mode = self.settings.flush_mode;
        }
    }

    fn advance_high_watermark(&mut self, now: MonotonicMs, effects: &mut Vec<Effect>) {
        if !self.has_min_isr() {
            return;
        }
        let mut reached = self.marks.log_end_offset;
        for member in self.isr.maximal() {
            match self.stored(member) {
                Some(stored) => reached = reached.min(stored),
                None => return,
            }
        }
        for (broker, follower) in &self.followers {
            if self.is_joining(now, *broker, follower) {
                reached = reached.min(self.stored(*broker).unwrap_or(reached));
            }
        }
        if reached > self.high_watermark {
            assert!(
                reached <= self.marks.log_end_offset,
                "high watermark {reached} would pass the log end {}",
                self.marks.log_end_offset
            );
            self.high_watermark = reached;
            effects.push(Effect::HighWatermark(reached));
        }
    }

    /// What a replica stores, in the measure in force; `None` if it has not said so in this epoch
    /// under its current registration.
    fn stored(&self, broker: BrokerId) -> Option<Offset> {
        self.stored_in(broker, self.flush_mode)
    }

    fn stored_in(&self, broker: BrokerId, mode: FlushMode) -> Option<Offset> {
        let pick = |stored: Stored| match mode {
            FlushMode::Ack => stored.flushed_offset,
            FlushMode::Page => stored.log_end_offset,
        };
        if broker == self.local {
            return Some(pick(Stored {
                log_end_offset: self.marks.log_end_offset,
                flushed_offset: self.marks.flushed_offset,
            }));
        }
        let follower = self.followers.get(&broker)?;
        let registered = self.registered.get(&broker)?;
        if follower.incarnation != Some(registered.epoch) {
            return None;
        }
        follower.stored.map(pick)
    }

    /// Outside the maximal ISR, able to join, and so close that the high watermark waits for it.
    fn is_joining(&self, now: MonotonicMs, broker: BrokerId, follower: &Follower) -> bool {
        !self.isr.in_maximal(broker)
            && self.may_join(broker, follower)
            && self.unconfirmed_ms(now, broker) <= NEARLY_CAUGHT_UP_MS
    }

    fn may_join(&self, broker: BrokerId, follower: &Follower) -> bool {
        follower.connected
            && !follower.no_space
            && self.stored(broker).is_some()
            && self
                .registered
                .get(&broker)
                .is_some_and(|registered| registered.eligible)
    }

    /// Age of the oldest offset that the follower has not confirmed; zero if there is none.
    fn unconfirmed_ms(&self, now: MonotonicMs, broker: BrokerId) -> u64 {
        let stored = self.stored(broker).unwrap_or(Offset::ZERO);
        if stored >= self.marks.log_end_offset {
            return 0;
        }
        now.ms_since(self.append_times.appended_at(stored))
    }

    fn propose(&mut self, now: MonotonicMs, effects: &mut Vec<Effect>) {
        if !self.isr.may_propose(now) {
            return;
        }
        let committed = self.isr.committed();
        let mut proposed: BTreeSet<BrokerId> = committed
            .iter()
            .copied()
            .filter(|member| !self.must_leave(now, *member))
            .collect();
        for (broker, follower) in &self.followers {
            // everything committed, and all from before this epoch. Well within the lag
            // limit too: one that was put out for lagging would otherwise be let in again while
            // the high watermark still stands where it left it.
            let reached = self.stored(*broker).is_some_and(|stored| {
                stored >= self.high_watermark && stored >= self.epoch_start_offset
            });
            if !committed.contains(broker)
                && reached
                && self.may_join(*broker, follower)
                && self.unconfirmed_ms(now, *broker) <= self.settings.replica_lag_time_ms_max / 2
            {
                proposed.insert(*broker);
            }
        }
        let recovered = self.recovering && self.high_watermark >= self.epoch_start_offset;
        if proposed == *committed && !recovered {
            return;
        }
        self.isr.propose(proposed.clone());
        effects.push(self.proposal(&proposed));
    }

    fn must_leave(&self, now: MonotonicMs, member: BrokerId) -> bool {
        if member == self.local {
            return false;
        }
        let no_space = self
            .followers
            .get(&member)
            .is_some_and(|follower| follower.no_space);
        no_space || self.unconfirmed_ms(now, member) > self.settings.replica_lag_time_ms_max
    }

    fn proposal(&self, isr: &BTreeSet<BrokerId>) -> Effect {
        let epoch_of = |member: &BrokerId| self.registered.get(member).map(|r| r.epoch);
        Effect::ProposeIsr(IsrProposal {
            leader_epoch: self.leader_epoch,
            partition_epoch: self.isr.partition_epoch(),
            isr: isr
                .iter()
                .map(|member| (*member, epoch_of(member)))
                .collect(),
            recovered: self.recovering,
        })
    }

    /// Append times below this are needed by nobody.
    fn oldest_needed(&self) -> Offset {
        let members = self.replicas.iter().filter(|broker| **broker != self.local);
        let stored = members.map(|broker| self.stored(*broker).unwrap_or(Offset::ZERO));
        stored.min().unwrap_or(self.marks.log_end_offset)
    }
}

#[cfg(test)]
mod tests;
