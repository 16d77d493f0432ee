//! The second half of a round: the leader's assignment is stored, then everybody gets their part.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    GenerationId, GroupError, GroupRules, ReplyToken, SyncRequest, Synced,
    outbox::{Outbox, Purpose},
};

use super::{Group, GroupState, Now};

impl Group {
    /// A member asks for its assignment; the leader brings everybody's.
    pub(crate) fn sync(
        &mut self,
        now: Now,
        request: &SyncRequest,
        token: ReplyToken,
        out: &mut Outbox,
    ) {
        if let Err(error) = self.check_sync(request) {
            out.sync(token, Err(error));
            return;
        }
        let result = match self.state {
            GroupState::Empty => Err(GroupError::UnknownMemberId),
            GroupState::Dead => Err(GroupError::CoordinatorNotAvailable),
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            // Nobody was told this generation yet: whoever names it guessed.
            GroupState::CompletingRebalance if !self.generation_stored => {
                Err(GroupError::IllegalGeneration)
            }
            GroupState::CompletingRebalance => {
                self.await_assignment(request, token, out);
                return;
            }
            GroupState::Stable => {
                self.pending_sync.remove(&request.member_id);
                self.assigned(now, &request.member_id)
            }
        };
        out.sync(token, result);
    }

    fn check_sync(&mut self, request: &SyncRequest) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.check_member(&request.member_id, request.group_instance_id.as_deref())?;
        self.check_generation(request.generation)?;
        let differs = |asked: &Option<String>, ours: &Option<String>| {
            asked.is_some() && ours.is_some() && asked != ours
        };
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol, &self.protocol)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn await_assignment(&mut self, request: &SyncRequest, token: ReplyToken, out: &mut Outbox) {
        self.pending_sync.remove(&request.member_id);
        if let Some(member) = self.members.get_mut(&request.member_id) {
            member.park_sync(token, out);
        }
        // One assignment a generation: a leader that repeats itself waits for the first (G-3).
        if !self.is_leader(&request.member_id) || self.assigning.is_some() {
            return;
        }
        let given: BTreeMap<&String, &Bytes> = request
            .assignments
            .iter()
            .map(|(member_id, bytes)| (member_id, bytes))
            .collect();
        let assignments: BTreeMap<String, Bytes> = self
            .members
            .keys()
            .map(|id| {
                (
                    id.clone(),
                    given
                        .get(id)
                        .map(|bytes| (*bytes).clone())
                        .unwrap_or_default(),
                )
            })
            .collect();
        let record = self.record(Some(&assignments));
        self.assigning = Some(assignments);
        let purpose = Purpose::Assignment {
            group_id: self.id.clone(),
            generation: self.generation,
        };
        out.persist(vec![record], purpose);
    }

    /// The assignment is stored, or may not be.
    pub(crate) fn on_assignment_persisted(
        &mut self,
        now: Now,
        rules: &GroupRules,
        generation: GenerationId,
        result: &Result<(), GroupError>,
        out: &mut Outbox,
    ) {
        if self.state != GroupState::CompletingRebalance || self.generation != generation {
            return; // Its waiters were told when the next round began.
        }
        let Some(assignments) = self.assigning.take() else {
            return;
        };
        if let Err(error) = result {
            // Nobody has been given it; the next round assigns anew.
            self.end_sync_phase(error, out);
            self.rebalance_or_complete(now, rules, out);
            return;
        }
        for (member_id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&member_id) {
                member.assignment = assignment;
            }
        }
        self.set_state(now, GroupState::Stable);
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for member_id in ids {
            let synced = self.assigned(now, &member_id);
            let waiting = self
                .members
                .get_mut(&member_id)
                .and_then(|m| m.awaiting_sync.take());
            if let Some(token) = waiting {
                out.sync(token, synced);
            }
        }
    }

    fn assigned(&mut self, now: Now, member_id: &str) -> Result<Synced, GroupError> {
        let protocol_type = self.protocol_type.clone();
        let protocol = self.protocol.clone();
        let member = self
            .members
            .get_mut(member_id)
            .ok_or(GroupError::UnknownMemberId)?;
        member.alive(now.monotonic);
        Ok(Synced {
            protocol_type,
            protocol,
            assignment: member.assignment.clone(),
        })
    }

    /// Whoever waits for an assignment of this generation gets none.
    pub(super) fn end_sync_phase(&mut self, error: &GroupError, out: &mut Outbox) {
        self.assigning = None;
        self.pending_sync.clear();
        self.sync_deadline = None;
        for member in self.members.values_mut() {
            if let Some(token) = member.awaiting_sync.take() {
                out.sync(token, Err(error.clone()));
            }
        }
    }
}
