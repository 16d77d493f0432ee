//! One classic consumer group: who is in it, in which generation, with which assignment.
//!
//! # Invariants
//! * A generation is stored before a join is answered with it, an assignment before a sync is
//!   (G-4), so no two coordinators ever give out one generation with different members.
//! * Members get assignments of the current generation only, all from its one leader (G-3).
//! * In `Empty` and `Dead` there are no members; in `Stable` nobody waits for an answer.

mod commit;
mod describe;
mod join;
mod leave;
mod member;
mod round;
mod session;
mod sync;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use ottla_types::{MonotonicMs, PartitionIndex, WallClockMs};

use crate::{GenerationId, GroupError, GroupMetadataValue, OffsetsRecord, outbox::Outbox};

use self::{member::Member, round::JoinTimer};

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// No members; offsets perhaps.
    Empty,
    /// Waiting for members to join the next generation.
    PreparingRebalance,
    /// The generation is formed; waiting for its assignment.
    CompletingRebalance,
    /// Everybody has, or can have, an assignment.
    Stable,
    /// Being removed.
    Dead,
}

impl GroupState {
    /// The name that tools show.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        }
    }
}

/// The instant of an input, on both clocks. Timers use the first; the second only ends up in
/// records (P-22).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For every deadline.
    pub monotonic: MonotonicMs,
    /// For timestamps in records.
    pub wall: WallClockMs,
}

/// A group as its coordinator drives it.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: String,
    state: GroupState,
    /// When it entered its state.
    state_since: MonotonicMs,
    state_timestamp: WallClockMs,
    protocol_type: Option<String>,
    generation: GenerationId,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Holders of `group.instance.id`s.
    static_members: BTreeMap<String, String>,
    /// Ids given out that have not come back yet (KIP-394), until when.
    pending_members: BTreeMap<String, MonotonicMs>,
    join_timer: Option<JoinTimer>,
    /// `CompletingRebalance` only: the generation is committed and its joins are answered.
    generation_stored: bool,
    /// Members of this generation that have not asked for their assignment, and until when.
    pending_sync: BTreeSet<String>,
    sync_deadline: Option<MonotonicMs>,
    /// The leader's assignment while it is being stored.
    assigning: Option<BTreeMap<String, Bytes>>,
    /// Offsets on their way into the log, by how many records.
    pending_offsets: BTreeMap<(String, PartitionIndex), usize>,
    next_join_order: u64,
}

impl Group {
    /// A group without members.
    pub(crate) fn new(id: &str, now: Now) -> Group {
        Group {
            id: id.to_owned(),
            state: GroupState::Empty,
            state_since: now.monotonic,
            state_timestamp: now.wall,
            protocol_type: None,
            generation: GenerationId::default(),
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_members: BTreeMap::new(),
            join_timer: None,
            generation_stored: false,
            pending_sync: BTreeSet::new(),
            sync_deadline: None,
            assigning: None,
            pending_offsets: BTreeMap::new(),
            next_join_order: 0,
        }
    }

    /// A group as it was stored: its members go on with heartbeats, their sessions start now.
    /// A generation without an assignment (no leader) begins a new round instead.
    pub(crate) fn load(
        id: &str,
        now: Now,
        seen_at: MonotonicMs,
        value: &GroupMetadataValue,
    ) -> Group {
        let mut group = Group::new(id, now);
        group.state_since = seen_at;
        group.state_timestamp = value.current_state_timestamp.unwrap_or(now.wall);
        group.protocol_type = Some(value.protocol_type.clone()).filter(|name| !name.is_empty());
        group.generation = value.generation;
        group.protocol = value.protocol.clone();
        for stored in &value.members {
            let member = Member::load(now.monotonic, stored, value.protocol.as_deref());
            group.insert_member(member);
        }
        if group.members.is_empty() {
            return group;
        }
        match &value.leader {
            Some(leader) => {
                group.leader = Some(leader.clone());
                group.state = GroupState::Stable;
            }
            None => {
                group.state = GroupState::PreparingRebalance;
                let at = now.monotonic.plus_ms(group.rebalance_timeout_ms());
                group.join_timer = Some(JoinTimer::Round { at });
            }
        }
        group
    }

    pub(crate) fn state(&self) -> GroupState {
        self.state
    }

    fn set_state(&mut self, now: Now, state: GroupState) {
        self.state = state;
        self.state_since = now.monotonic;
        self.state_timestamp = now.wall;
    }

    /// Takes the group out of service while its removal is being stored.
    pub(crate) fn kill(&mut self, now: Now) {
        self.set_state(now, GroupState::Dead);
        self.pending_members.clear();
    }

    /// The removal could not be stored.
    pub(crate) fn revive(&mut self, now: Now) {
        self.set_state(now, GroupState::Empty);
    }

    /// Nothing waits for this group and nobody is about to join it.
    pub(crate) fn is_idle(&self) -> bool {
        self.state == GroupState::Empty
            && self.pending_members.is_empty()
            && self.pending_offsets.is_empty()
    }

    fn insert_member(&mut self, mut member: Member) {
        member.join_order = self.next_join_order;
        self.next_join_order += 1;
        if let Some(instance) = &member.group_instance_id {
            self.static_members
                .insert(instance.clone(), member.member_id.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(member.member_id.clone());
        }
        self.members.insert(member.member_id.clone(), member);
    }

    /// Takes a member out; whoever waits for it hears that it is unknown and may join anew.
    fn remove_member(&mut self, member_id: &str, out: &mut Outbox) {
        let Some(mut member) = self.members.remove(member_id) else {
            return;
        };
        member.fail(&GroupError::UnknownMemberId, out);
        if let Some(instance) = &member.group_instance_id {
            self.static_members.remove(instance);
        }
        self.pending_sync.remove(member_id);
        if self.leader.as_deref() == Some(member_id) {
            let first = self.members.values().min_by_key(|member| member.join_order);
            self.leader = first.map(|member| member.member_id.clone());
        }
    }

    fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    /// The member of this id, unless it is a stranger or lost its instance id to another (G-2).
    fn check_member(
        &mut self,
        member_id: &str,
        group_instance_id: Option<&str>,
    ) -> Result<&mut Member, GroupError> {
        if let Some(instance) = group_instance_id {
            let holder = self
                .static_members
                .get(instance)
                .ok_or(GroupError::UnknownMemberId)?;
            if holder != member_id {
                return Err(GroupError::FencedInstanceId);
            }
        }
        self.members
            .get_mut(member_id)
            .ok_or(GroupError::UnknownMemberId)
    }

    fn check_generation(&self, generation: Option<GenerationId>) -> Result<(), GroupError> {
        if generation == Some(self.generation) {
            Ok(())
        } else {
            Err(GroupError::IllegalGeneration)
        }
    }

    /// The longest that any member needs to rejoin.
    fn rebalance_timeout_ms(&self) -> u64 {
        self.members
            .values()
            .map(Member::rebalance_timeout)
            .max()
            .unwrap_or(0)
    }

    /// The group as a record. Without `assignments` it only reserves the generation.
    fn record(&self, assignments: Option<&BTreeMap<String, Bytes>>) -> OffsetsRecord {
        let none = Bytes::new();
        let assigned = |member: &Member| {
            assignments
                .and_then(|all| all.get(&member.member_id))
                .unwrap_or(&none)
                .clone()
        };
        let members = self
            .members
            .values()
            .map(|member| member.stored(self.protocol.as_deref(), assigned(member)))
            .collect();
        let value = GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone().filter(|_| assignments.is_some()),
            current_state_timestamp: Some(self.state_timestamp),
            members,
        };
        OffsetsRecord::Group {
            group_id: self.id.clone(),
            value: Some(value),
        }
    }

    /// Answers everybody who waits: this broker no longer coordinates the group.
    pub(crate) fn abandon(&mut self, error: &GroupError, out: &mut Outbox) {
        for member in self.members.values_mut() {
            member.fail(error, out);
        }
    }

    /// Tokens of everybody who waits, for checks in tests.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> Vec<crate::ReplyToken> {
        let of = |member: &Member| [member.awaiting_join, member.awaiting_sync];
        self.members.values().flat_map(of).flatten().collect()
    }
}
