//! The coordinator of the groups of one offsets partition.
//!
//! On a follower it is only the committed base, folded as records arrive. On the leader it also
//! drives live groups, which begin as the base says and run ahead of it: whatever they promise is
//! answered when its record has come down into the base. Losing the leadership drops them (G-6).

mod admin;
mod expiry;
mod offsets;

use std::collections::{BTreeMap, BTreeSet};

use ottla_types::{MonotonicMs, PartitionIndex, ProducerId, TopicId};

use crate::{
    CommittedState, Effect, GroupError, GroupRules, HeartbeatRequest, JoinRequest, LeaveRequest,
    OffsetsRecord, PersistToken, Reply, ReplyToken, SyncRequest,
    group::{Group, Now},
    outbox::{Outbox, Purpose},
};

/// The longest group id that a record's key can hold.
const GROUP_ID_BYTES_MAX: usize = 32_767;

/// Which topics exist, as the host's metadata says.
pub trait Topics {
    /// The identity of the topic of this name.
    fn topic_id(&self, name: &str) -> Option<TopicId>;
    /// Whether the topic exists and has this partition.
    fn has_partition(&self, name: &str, partition: PartitionIndex) -> bool;
}

/// Coordinates the groups of one offsets partition.
#[derive(Debug)]
pub struct Coordinator {
    rules: GroupRules,
    committed: CommittedState,
    groups: BTreeMap<String, Group>,
    /// When each group next wants to be woken. A deadline that has since moved to later stays
    /// until it fires: sessions are prolonged far more often than they end.
    deadlines: BTreeSet<(MonotonicMs, String)>,
    scheduled: BTreeMap<String, MonotonicMs>,
    outbox: Outbox,
    active: bool,
}

impl Coordinator {
    /// A coordinator that has seen no record yet.
    #[must_use]
    pub fn new(rules: GroupRules) -> Coordinator {
        Coordinator {
            rules,
            committed: CommittedState::default(),
            groups: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            scheduled: BTreeMap::new(),
            outbox: Outbox::default(),
            active: false,
        }
    }

    /// The committed base.
    #[must_use]
    pub fn committed(&self) -> &CommittedState {
        &self.committed
    }

    /// Folds in a committed record. Records arrive in the order of the log, each once.
    pub fn apply(&mut self, now: Now, record: OffsetsRecord) {
        self.committed.apply(now.monotonic, record);
    }

    /// Folds in a committed record of a transaction that is still open (G-7).
    pub fn apply_transactional(&mut self, producer_id: ProducerId, record: OffsetsRecord) {
        self.committed.apply_transactional(producer_id, record);
    }

    /// Folds in the end of a transaction.
    pub fn end_transaction(&mut self, now: Now, producer_id: ProducerId, commit: bool) {
        self.committed
            .end_transaction(now.monotonic, producer_id, commit);
    }

    /// This broker leads the partition and has applied all of it: groups come to life.
    pub fn activate(&mut self, now: Now) {
        self.groups.clear();
        self.deadlines.clear();
        self.scheduled.clear();
        self.active = true;
        for (group_id, stored) in self.committed.groups() {
            let group = match &stored.metadata {
                Some((seen_at, value)) => Group::load(group_id, now, *seen_at, value),
                None => Group::new(group_id, now),
            };
            self.groups.insert(group_id.clone(), group);
        }
        let ids: Vec<String> = self.groups.keys().cloned().collect();
        for group_id in ids {
            self.schedule(&group_id);
        }
    }

    /// The leadership is gone: everybody who waits is told, and what was pending is dropped.
    pub fn deactivate(&mut self) {
        self.active = false;
        let error = GroupError::NotCoordinator;
        for group in self.groups.values_mut() {
            group.abandon(&error, &mut self.outbox);
        }
        for purpose in self.outbox.drop_pending() {
            answer_with(purpose, &error, &mut self.outbox);
        }
        self.groups.clear();
        self.deadlines.clear();
        self.scheduled.clear();
    }

    /// What is to be done since the last call, in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        self.outbox.take_effects()
    }

    /// When [`Coordinator::on_time`] next has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonotonicMs> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Whatever was due by now happens.
    pub fn on_time(&mut self, now: Now) {
        while let Some((at, group_id)) = self.deadlines.first().cloned() {
            if at > now.monotonic {
                break;
            }
            self.deadlines.pop_first();
            self.scheduled.remove(&group_id);
            if let Some(group) = self.groups.get_mut(&group_id) {
                group.on_time(now, &self.rules, &mut self.outbox);
            }
            self.settle(&group_id);
        }
    }

    /// For `ms` milliseconds this process could not hear anybody (it was paused, say): silence
    /// within them ends no session.
    pub fn extend_sessions(&mut self, ms: u64) {
        for group in self.groups.values_mut() {
            group.extend_sessions(ms);
        }
    }

    /// The records of an [`Effect::Persist`] are committed, and were given to
    /// [`Coordinator::apply`] before; or they may not be.
    pub fn on_persisted(&mut self, now: Now, token: PersistToken, result: Result<(), GroupError>) {
        let Some(purpose) = self.outbox.take_pending(token) else {
            return;
        };
        let out = &mut self.outbox;
        match purpose {
            Purpose::Generation {
                group_id,
                generation,
            } => {
                if let Some(group) = self.groups.get_mut(&group_id) {
                    group.on_generation_persisted(now, generation, &result, out);
                }
                self.settle(&group_id);
            }
            Purpose::Assignment {
                group_id,
                generation,
            } => {
                if let Some(group) = self.groups.get_mut(&group_id) {
                    group.on_assignment_persisted(now, &self.rules, generation, &result, out);
                }
                self.settle(&group_id);
            }
            Purpose::StaticMember { token, joined } => {
                out.join(token, result.map(|()| joined));
            }
            Purpose::Commit {
                group_id,
                token,
                answer,
            } => {
                if let Some(group) = self.groups.get_mut(&group_id) {
                    group.remove_pending_offsets(&answer);
                }
                out.reply(token, Reply::Commit(result.map(|()| answer)));
                self.settle(&group_id);
            }
            Purpose::DeleteGroup { group_id, token } => {
                self.on_group_deleted(now, &group_id, token, result);
            }
            Purpose::DeleteOffsets { token, answer } => {
                out.reply(token, Reply::DeleteOffsets(result.map(|()| answer)));
            }
            Purpose::EmptyGeneration | Purpose::Housekeeping => {}
        }
    }

    /// A member wants into a group. `unique` makes its id unique, should it need a new one.
    pub fn join(&mut self, now: Now, request: &JoinRequest, unique: &str, token: ReplyToken) {
        if let Err(error) = self.check_join(request) {
            self.outbox.join(token, Err(error));
            return;
        }
        let group_id = &request.group_id;
        let group = self
            .groups
            .entry(group_id.clone())
            .or_insert_with(|| Group::new(group_id, now));
        group.join(now, &self.rules, request, unique, token, &mut self.outbox);
        self.settle(group_id);
    }

    fn check_join(&self, request: &JoinRequest) -> Result<(), GroupError> {
        check_group_id(&request.group_id)?;
        let allowed = self.rules.session_timeout_min_ms..=self.rules.session_timeout_max_ms;
        if !allowed.contains(&request.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        // An id names a member of a group that exists, a fresh one creates it.
        if request.member_id.is_some() && !self.groups.contains_key(&request.group_id) {
            return Err(GroupError::UnknownMemberId);
        }
        Ok(())
    }

    /// A member asks for its assignment.
    pub fn sync(&mut self, now: Now, request: &SyncRequest, token: ReplyToken) {
        let result = check_group_id(&request.group_id);
        match (result, self.groups.get_mut(&request.group_id)) {
            (Err(error), _) => self.outbox.sync(token, Err(error)),
            (Ok(()), None) => self.outbox.sync(token, Err(GroupError::UnknownMemberId)),
            (Ok(()), Some(group)) => {
                group.sync(now, request, token, &mut self.outbox);
                self.settle(&request.group_id);
            }
        }
    }

    /// A member is alive.
    pub fn heartbeat(&mut self, now: Now, request: &HeartbeatRequest) -> Result<(), GroupError> {
        check_group_id(&request.group_id)?;
        let group = self
            .groups
            .get_mut(&request.group_id)
            .ok_or(GroupError::UnknownMemberId)?;
        group.heartbeat(now, request)
    }

    /// Members leave; one answer for each.
    pub fn leave(
        &mut self,
        now: Now,
        request: &LeaveRequest,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        check_group_id(&request.group_id)?;
        let Some(group) = self.groups.get_mut(&request.group_id) else {
            return Ok(vec![
                Err(GroupError::UnknownMemberId);
                request.members.len()
            ]);
        };
        let answer = group.leave(now, &self.rules, &request.members, &mut self.outbox);
        self.settle(&request.group_id);
        answer
    }

    /// After a step of a group: forget it if nothing of it is left, else note its deadline.
    fn settle(&mut self, group_id: &str) {
        let vestigial = self.groups.get(group_id).is_some_and(Group::is_idle)
            && self.committed.group(group_id).is_none();
        if vestigial {
            // A group that was only asked about, or whose first commit failed, was never stored.
            // One whose removal from the log is on its way is kept by its state.
            self.groups.remove(group_id);
        }
        self.schedule(group_id);
    }

    fn schedule(&mut self, group_id: &str) {
        let wanted = self.groups.get(group_id).and_then(Group::next_deadline);
        let scheduled = self.scheduled.get(group_id).copied();
        match (wanted, scheduled) {
            (Some(wanted), Some(scheduled)) if wanted >= scheduled => {}
            (wanted, scheduled) => {
                if let Some(at) = scheduled {
                    self.deadlines.remove(&(at, group_id.to_owned()));
                    self.scheduled.remove(group_id);
                }
                if let Some(at) = wanted {
                    self.deadlines.insert((at, group_id.to_owned()));
                    self.scheduled.insert(group_id.to_owned(), at);
                }
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn live_group(&self, group_id: &str) -> Option<&Group> {
        self.groups.get(group_id)
    }
}

fn check_group_id(group_id: &str) -> Result<(), GroupError> {
    if group_id.is_empty() || group_id.len() > GROUP_ID_BYTES_MAX {
        return Err(GroupError::InvalidGroupId);
    }
    Ok(())
}

/// Answers whoever waits for this to be stored.
fn answer_with(purpose: Purpose, error: &GroupError, out: &mut Outbox) {
    let error = error.clone();
    match purpose {
        Purpose::StaticMember { token, .. } => out.join(token, Err(error)),
        Purpose::Commit { token, .. } => out.reply(token, Reply::Commit(Err(error))),
        Purpose::DeleteGroup {
            token: Some(token), ..
        } => {
            out.reply(token, Reply::DeleteGroup(Err(error)));
        }
        Purpose::DeleteOffsets { token, .. } => {
            out.reply(token, Reply::DeleteOffsets(Err(error)));
        }
        // Their waiters are parked in the group itself, or there are none.
        Purpose::Generation { .. }
        | Purpose::Assignment { .. }
        | Purpose::DeleteGroup { token: None, .. }
        | Purpose::EmptyGeneration
        | Purpose::Housekeeping => {}
    }
}
