//! A rebalance round: from the first join to the generation that its members are told.

use std::collections::BTreeMap;

use ottla_types::MonotonicMs;

use crate::{
    GenerationId, GroupError, GroupRules,
    outbox::{Outbox, Purpose},
};

use super::{Group, GroupState, Now};

/// When a round stops waiting for members.
#[derive(Clone, Copy, Debug)]
pub(super) enum JoinTimer {
    /// The group was empty: it waits for more members to start, longer while they keep coming.
    Initial {
        at: MonotonicMs,
        remaining_ms: u64,
        new_member_added: bool,
    },
    /// Members have until then to rejoin.
    Round { at: MonotonicMs },
}

impl JoinTimer {
    pub(super) fn at(self) -> MonotonicMs {
        match self {
            JoinTimer::Initial { at, .. } | JoinTimer::Round { at } => at,
        }
    }
}

impl Group {
    pub(super) fn joined_count(&self) -> usize {
        self.members
            .values()
            .filter(|member| member.awaiting_join.is_some())
            .count()
    }

    fn everybody_joined(&self) -> bool {
        self.pending_members.is_empty()
            && self
                .members
                .values()
                .all(|member| member.awaiting_join.is_some())
    }

    /// Begins a round, or ends one that was only waiting for this.
    pub(super) fn rebalance_or_complete(&mut self, now: Now, rules: &GroupRules, out: &mut Outbox) {
        match self.state {
            GroupState::Empty | GroupState::CompletingRebalance | GroupState::Stable => {
                self.prepare_rebalance(now, rules, out);
            }
            GroupState::PreparingRebalance => self.complete_if_everybody_joined(now, out),
            GroupState::Dead => {}
        }
    }

    /// Somebody may have been the last that a round waited for. The initial delay is not cut short.
    pub(super) fn complete_if_everybody_joined(&mut self, now: Now, out: &mut Outbox) {
        let initial = matches!(self.join_timer, Some(JoinTimer::Initial { .. }));
        if self.state == GroupState::PreparingRebalance && !initial && self.everybody_joined() {
            self.complete_join(now, out);
        }
    }

    fn prepare_rebalance(&mut self, now: Now, rules: &GroupRules, out: &mut Outbox) {
        let initial = self.state == GroupState::Empty;
        self.end_sync_phase(&GroupError::RebalanceInProgress, out);
        self.set_state(now, GroupState::PreparingRebalance);
        if initial {
            let delay = rules.initial_rebalance_delay_ms;
            self.join_timer = Some(JoinTimer::Initial {
                at: now.monotonic.plus_ms(delay),
                remaining_ms: self.rebalance_timeout_ms().saturating_sub(delay),
                new_member_added: false,
            });
            return;
        }
        self.restart_round_timer(now);
        self.complete_if_everybody_joined(now, out);
    }

    pub(super) fn restart_round_timer(&mut self, now: Now) {
        let at = now.monotonic.plus_ms(self.rebalance_timeout_ms());
        self.join_timer = Some(JoinTimer::Round { at });
    }

    pub(super) fn prolong_initial_delay(&mut self) {
        if let Some(JoinTimer::Initial {
            new_member_added, ..
        }) = &mut self.join_timer
        {
            *new_member_added = true;
        }
    }

    /// The round's time is up.
    pub(super) fn on_join_timer(&mut self, now: Now, rules: &GroupRules, out: &mut Outbox) {
        match self.join_timer {
            Some(JoinTimer::Initial {
                remaining_ms,
                new_member_added: true,
                ..
            }) if remaining_ms > 0 => {
                let delay = rules.initial_rebalance_delay_ms.min(remaining_ms);
                self.join_timer = Some(JoinTimer::Initial {
                    at: now.monotonic.plus_ms(delay),
                    remaining_ms: remaining_ms.saturating_sub(delay),
                    new_member_added: false,
                });
            }
            Some(_) => self.complete_join(now, out),
            None => {}
        }
    }

    /// Ends the round: whoever is here forms the next generation. It is stored before any member
    /// is told (G-4).
    fn complete_join(&mut self, now: Now, out: &mut Outbox) {
        self.join_timer = None;
        let late: Vec<String> = self
            .members
            .values()
            .filter(|member| member.awaiting_join.is_none() && member.group_instance_id.is_none())
            .map(|member| member.member_id.clone())
            .collect();
        for member_id in late {
            self.remove_member(&member_id, out);
        }
        if !self.members.is_empty() && !self.elect_leader() {
            // Only static members are left and none has rejoined: their sessions decide.
            self.restart_round_timer(now);
            return;
        }
        self.generation = self.generation.next();
        if self.members.is_empty() {
            self.protocol = None;
            self.leader = None;
            self.set_state(now, GroupState::Empty);
            out.persist(
                vec![self.record(Some(&BTreeMap::new()))],
                Purpose::EmptyGeneration,
            );
            return;
        }
        self.protocol = self.select_protocol();
        self.generation_stored = false;
        self.set_state(now, GroupState::CompletingRebalance);
        let purpose = Purpose::Generation {
            group_id: self.id.clone(),
            generation: self.generation,
        };
        out.persist(vec![self.record(None)], purpose);
    }

    /// The leader stays if it rejoined; else the first that joined leads.
    fn elect_leader(&mut self) -> bool {
        let joined = |id: &String| {
            self.members
                .get(id)
                .is_some_and(|member| member.awaiting_join.is_some())
        };
        if self.leader.as_ref().is_some_and(joined) {
            return true;
        }
        let first = self
            .members
            .values()
            .filter(|member| member.awaiting_join.is_some())
            .min_by_key(|member| member.join_order);
        match first {
            Some(member) => {
                self.leader = Some(member.member_id.clone());
                true
            }
            None => false,
        }
    }

    /// Each member votes for the protocol it prefers among those that all support.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let common = |name: &str| self.members.values().all(|member| member.supports(name));
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let mut preferred = member
                .protocols
                .iter()
                .map(|protocol| protocol.name.as_str());
            if let Some(name) = preferred.find(|name| common(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        // Of equals the first by name wins, so that every replay decides alike.
        let best = votes.into_iter().rev().max_by_key(|(_, count)| *count);
        best.map(|(name, _)| name.to_owned())
    }

    /// The generation is stored, or may not be.
    pub(crate) fn on_generation_persisted(
        &mut self,
        now: Now,
        generation: GenerationId,
        result: &Result<(), GroupError>,
        out: &mut Outbox,
    ) {
        let current = self.state == GroupState::CompletingRebalance
            && self.generation == generation
            && !self.generation_stored;
        if !current {
            return; // Another round has begun; its own generation will be told.
        }
        match result {
            Ok(()) => self.tell_generation(now, out),
            Err(error) => {
                // The number may be in the log, so it is never used again: the next round's is higher.
                for member in self.members.values_mut() {
                    member.is_new = false;
                    member.alive(now.monotonic);
                    member.fail(error, out);
                }
                self.set_state(now, GroupState::PreparingRebalance);
                self.restart_round_timer(now);
            }
        }
    }

    fn tell_generation(&mut self, now: Now, out: &mut Outbox) {
        self.generation_stored = true;
        self.pending_sync = self.members.keys().cloned().collect();
        self.sync_deadline = Some(now.monotonic.plus_ms(self.rebalance_timeout_ms()));
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for member_id in ids {
            let joined = self.joined(&member_id, false);
            if let Some(member) = self.members.get_mut(&member_id) {
                member.is_new = false;
                member.alive(now.monotonic);
                if let Some(token) = member.awaiting_join.take() {
                    out.join(token, Ok(joined));
                }
            }
        }
    }
}
