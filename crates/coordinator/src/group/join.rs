//! Who may join, and whether that begins a round (KIP-345, KIP-394, KIP-814).

use crate::{
    GroupError, GroupRules, JoinRequest, Joined, JoinedMember, ReplyToken,
    config::NEW_MEMBER_JOIN_TIMEOUT_MS,
    outbox::{Outbox, Purpose},
    subscribed_topics,
};

use super::{Group, GroupState, Now, member::Member};

impl Group {
    /// A member wants into the next generation. `unique` makes a new member's id unique.
    pub(crate) fn join(
        &mut self,
        now: Now,
        rules: &GroupRules,
        request: &JoinRequest,
        unique: &str,
        token: ReplyToken,
        out: &mut Outbox,
    ) {
        if let Err(error) = self.check_joinable(rules, request, out) {
            out.join(token, Err(error));
            self.complete_if_everybody_joined(now, out);
            return;
        }
        let result = match (&request.member_id, &request.group_instance_id) {
            (None, Some(instance)) => {
                self.join_static(now, rules, request, instance, unique, token, out);
                Ok(())
            }
            (None, None) => {
                let member_id = format!("{}-{unique}", request.client_id);
                if request.member_id_required {
                    let lapses = Member::new(member_id.clone(), request, now.monotonic);
                    let until = now
                        .monotonic
                        .plus_ms(u64::try_from(lapses.session_timeout_ms).unwrap_or(0));
                    self.pending_members.insert(member_id.clone(), until);
                    Err(GroupError::MemberIdRequired { member_id })
                } else {
                    self.admit(now, rules, request, member_id, token, out);
                    Ok(())
                }
            }
            (Some(member_id), None) if self.pending_members.contains_key(member_id) => {
                self.pending_members.remove(member_id);
                self.admit(now, rules, request, member_id.clone(), token, out);
                Ok(())
            }
            (Some(member_id), _) => self.rejoin(now, rules, request, member_id, token, out),
        };
        if let Err(error) = result {
            out.join(token, Err(error));
        }
    }

    fn check_joinable(
        &mut self,
        rules: &GroupRules,
        request: &JoinRequest,
        out: &mut Outbox,
    ) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        if !self.has_room_for(rules, request) {
            // It does not come in again: a smaller `group.max.size` sheds members by and by.
            if let Some(member_id) = &request.member_id {
                self.pending_members.remove(member_id);
                self.remove_member(member_id, out);
            }
            return Err(GroupError::GroupMaxSizeReached);
        }
        if !self.supports_protocols(request) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn has_room_for(&self, rules: &GroupRules, request: &JoinRequest) -> bool {
        let member = request
            .member_id
            .as_ref()
            .and_then(|id| self.members.get(id));
        match self.state {
            GroupState::Empty | GroupState::Dead => true,
            GroupState::PreparingRebalance => {
                member.is_some_and(|member| member.awaiting_join.is_some())
                    || self.joined_count() < rules.group_size_max
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                let replaces = request.group_instance_id.as_ref();
                let replaces = replaces.is_some_and(|id| self.static_members.contains_key(id));
                member.is_some() || replaces || self.members.len() < rules.group_size_max
            }
        }
    }

    /// One protocol in common with all members is enough.
    fn supports_protocols(&self, request: &JoinRequest) -> bool {
        if self.state == GroupState::Empty {
            return !request.protocol_type.is_empty() && !request.protocols.is_empty();
        }
        let common = |name: &str| self.members.values().all(|member| member.supports(name));
        self.protocol_type.as_ref() == Some(&request.protocol_type)
            && request
                .protocols
                .iter()
                .any(|protocol| common(&protocol.name))
    }

    /// Takes in a new member.
    fn admit(
        &mut self,
        now: Now,
        rules: &GroupRules,
        request: &JoinRequest,
        member_id: String,
        token: ReplyToken,
        out: &mut Outbox,
    ) {
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.clone());
        }
        let deadline = now.monotonic.plus_ms(NEW_MEMBER_JOIN_TIMEOUT_MS);
        let mut member = Member::new(member_id, request, deadline);
        member.awaiting_join = Some(token);
        self.insert_member(member);
        self.prolong_initial_delay();
        self.rebalance_or_complete(now, rules, out);
    }

    /// A known member comes back.
    fn rejoin(
        &mut self,
        now: Now,
        rules: &GroupRules,
        request: &JoinRequest,
        member_id: &str,
        token: ReplyToken,
        out: &mut Outbox,
    ) -> Result<(), GroupError> {
        let state = self.state;
        let generation_stored = self.generation_stored;
        let is_leader = self.is_leader(member_id);
        let member = self.check_member(member_id, request.group_instance_id.as_deref())?;
        let same = member.protocols == request.protocols;
        match state {
            GroupState::PreparingRebalance => {}
            // The round's answer was perhaps lost: it is given again, once it may be.
            GroupState::CompletingRebalance if same && generation_stored => {
                member.alive(now.monotonic);
                out.join(token, Ok(self.joined(member_id, false)));
                return Ok(());
            }
            GroupState::CompletingRebalance if same => {
                member.park_join(token, out);
                return Ok(());
            }
            GroupState::CompletingRebalance => {}
            GroupState::Stable if same && !is_leader => {
                member.alive(now.monotonic);
                out.join(token, Ok(self.joined(member_id, false)));
                return Ok(());
            }
            GroupState::Stable => {}
            GroupState::Empty | GroupState::Dead => return Err(GroupError::UnknownMemberId),
        }
        member.update(request);
        member.alive(now.monotonic);
        member.park_join(token, out);
        self.rebalance_or_complete(now, rules, out);
        Ok(())
    }

    /// A static member starts, or starts again under a new id (KIP-345).
    #[allow(
        clippy::too_many_arguments,
        reason = "one step of `join`, which carries them all"
    )]
    fn join_static(
        &mut self,
        now: Now,
        rules: &GroupRules,
        request: &JoinRequest,
        instance: &str,
        unique: &str,
        token: ReplyToken,
        out: &mut Outbox,
    ) {
        let member_id = format!("{instance}-{unique}");
        let Some(old_id) = self.static_members.get(instance).cloned() else {
            self.admit(now, rules, request, member_id, token, out);
            return;
        };
        let Some(mut member) = self.members.remove(&old_id) else {
            return;
        };
        // The former holder is fenced at once, before its replacement is even stored.
        member.fail(&GroupError::FencedInstanceId, out);
        let was_leader = self.is_leader(&old_id);
        let same_topics = self.subscribes_alike(&member, request);
        member.member_id.clone_from(&member_id);
        member.client_id.clone_from(&request.client_id);
        member.client_host.clone_from(&request.client_host);
        member.update(request);
        member.alive(now.monotonic);
        self.static_members
            .insert(instance.to_owned(), member_id.clone());
        if was_leader {
            self.leader = Some(member_id.clone());
        }
        if self.pending_sync.remove(&old_id) {
            self.pending_sync.insert(member_id.clone());
        }
        self.members.insert(member_id.clone(), member);
        let keeps_assignment = self.state == GroupState::Stable
            && same_topics
            && self.select_protocol() == self.protocol;
        if keeps_assignment {
            self.store_static_member(
                request,
                &member_id,
                was_leader.then_some(old_id),
                token,
                out,
            );
            return;
        }
        if let Some(member) = self.members.get_mut(&member_id) {
            member.park_join(token, out);
        }
        self.rebalance_or_complete(now, rules, out);
    }

    /// A consumer that comes back with other topics needs another assignment. Whatever is not a
    /// consumer's subscription counts as unchanged: it may hold state that every restart changes.
    fn subscribes_alike(&self, member: &Member, request: &JoinRequest) -> bool {
        let Some(protocol) = &self.protocol else {
            return false;
        };
        let Some(offered) = request
            .protocols
            .iter()
            .find(|offered| &offered.name == protocol)
        else {
            return false;
        };
        let before = subscribed_topics(&member.metadata(protocol));
        let after = subscribed_topics(&offered.metadata);
        match (before, after) {
            (Some(before), Some(after)) if self.protocol_type.as_deref() == Some("consumer") => {
                before == after
            }
            _ => true,
        }
    }

    /// The new id is stored before anybody is told; the group goes on undisturbed.
    fn store_static_member(
        &mut self,
        request: &JoinRequest,
        member_id: &str,
        formerly_leader_as: Option<String>,
        token: ReplyToken,
        out: &mut Outbox,
    ) {
        let joined = match formerly_leader_as {
            Some(_) if request.skip_assignment_supported => self.joined(member_id, true),
            // Older clients would assign anew if they thought that they lead.
            Some(old_id) => Joined {
                leader: old_id,
                members: Vec::new(),
                ..self.joined(member_id, false)
            },
            None => self.joined(member_id, false),
        };
        let assignments = self
            .members
            .values()
            .map(|member| (member.member_id.clone(), member.assignment.clone()))
            .collect();
        let record = self.record(Some(&assignments));
        let purpose = Purpose::StaticMember { token, joined };
        out.persist(vec![record], purpose);
    }

    /// The answer to a member of the current generation; only the leader hears of the others.
    pub(super) fn joined(&self, member_id: &str, skip_assignment: bool) -> Joined {
        let protocol = self.protocol.clone().unwrap_or_default();
        let describe = |member: &Member| JoinedMember {
            member_id: member.member_id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            metadata: member.metadata(&protocol),
        };
        let members = if self.is_leader(member_id) {
            self.members.values().map(describe).collect()
        } else {
            Vec::new()
        };
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: member_id.to_owned(),
            skip_assignment,
            members,
            protocol,
        }
    }
}
