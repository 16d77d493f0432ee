//! Signs of life, and what happens without them.

use ottla_types::MonotonicMs;

use crate::{GroupError, GroupRules, HeartbeatRequest, outbox::Outbox};

use super::{Group, GroupState, Now, round::JoinTimer};

impl Group {
    /// A member is alive; it may be told to join again.
    pub(crate) fn heartbeat(
        &mut self,
        now: Now,
        request: &HeartbeatRequest,
    ) -> Result<(), GroupError> {
        let state = self.state;
        if state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.check_member(&request.member_id, request.group_instance_id.as_deref())?;
        self.check_generation(request.generation)?;
        if let Some(member) = self.members.get_mut(&request.member_id) {
            member.alive(now.monotonic);
        }
        match state {
            GroupState::Empty => Err(GroupError::UnknownMemberId),
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::CompletingRebalance | GroupState::Stable => Ok(()),
            GroupState::Dead => Err(GroupError::CoordinatorNotAvailable),
        }
    }

    /// The next instant at which [`Group::on_time`] has something to do.
    pub(crate) fn next_deadline(&self) -> Option<MonotonicMs> {
        let sessions = self.members.values().map(|member| member.session_deadline);
        let pending = self.pending_members.values().copied();
        sessions
            .chain(pending)
            .chain(self.join_timer.map(JoinTimer::at))
            .chain(self.sync_deadline)
            .min()
    }

    /// Whatever was due by now happens.
    pub(crate) fn on_time(&mut self, now: Now, rules: &GroupRules, out: &mut Outbox) {
        self.pending_members
            .retain(|_, until| *until > now.monotonic);
        self.complete_if_everybody_joined(now, out);
        if self.remove_silent_members(now, out) {
            self.rebalance_or_complete(now, rules, out);
        }
        if self
            .join_timer
            .is_some_and(|timer| timer.at() <= now.monotonic)
        {
            self.on_join_timer(now, rules, out);
        }
        if self.sync_deadline.is_some_and(|at| at <= now.monotonic) {
            self.on_sync_deadline(now, rules, out);
        }
    }

    fn remove_silent_members(&mut self, now: Now, out: &mut Outbox) -> bool {
        let mut silent = Vec::new();
        for member in self.members.values_mut() {
            if member.is_silent(now.monotonic) {
                silent.push(member.member_id.clone());
            } else if member.session_deadline <= now.monotonic {
                member.alive(now.monotonic); // Parked: it cannot speak, so it is not asked to.
            }
        }
        for member_id in &silent {
            self.remove_member(member_id, out);
        }
        !silent.is_empty()
    }

    /// Members that joined the generation but never fetched their assignment hold everybody up.
    fn on_sync_deadline(&mut self, now: Now, rules: &GroupRules, out: &mut Outbox) {
        self.sync_deadline = None;
        let missing = std::mem::take(&mut self.pending_sync);
        if missing.is_empty() {
            return;
        }
        for member_id in &missing {
            self.remove_member(member_id, out);
        }
        self.rebalance_or_complete(now, rules, out);
    }

    /// Moves every session on, after a stretch in which nobody could be heard.
    pub(crate) fn extend_sessions(&mut self, ms: u64) {
        for member in self.members.values_mut() {
            member.session_deadline = member.session_deadline.plus_ms(ms);
        }
    }
}
