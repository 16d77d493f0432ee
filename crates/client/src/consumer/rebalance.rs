//! Rebalances, between one poll and the next: what is given up is announced first, and given up
//! when the user polls again.

use std::collections::BTreeSet;

use tokio::time::Instant;

use ottla_wire::ErrorCode;

use super::{
    Consumer, Event,
    heartbeat::Verdict,
    join::{self, JoinError, Joined},
    membership::{self, Stage},
    partition::{PartitionState, Phase},
    record::{ConsumerError, RebalanceEvent},
};
use crate::{
    group::{Committer, GroupError},
    metadata::TopicPartition,
};

impl Consumer {
    /// What was announced as revoked takes effect.
    pub(super) fn give_up_leaving(&mut self) {
        let Some(membership) = &mut self.membership else {
            return;
        };
        if membership.leaving.is_empty() {
            return;
        }
        for partition in std::mem::take(&mut membership.leaving) {
            self.partitions.remove(&partition);
        }
        // Others wait for what was just given up.
        if membership.stage == Stage::Member {
            membership.stage = Stage::Outside;
        }
    }

    /// Moves the membership on as far as it goes without waiting for others.
    pub(super) async fn tend_membership(&mut self) -> Result<(), ConsumerError> {
        if let Some(joined) = self.joined.clone() {
            self.enter(&joined).await;
            self.joined = None;
        }
        let metadata = self.cluster.metadata();
        let Some(membership) = &mut self.membership else {
            return Ok(());
        };
        if !membership.leaving.is_empty() {
            return Ok(());
        }
        if membership.stage == Stage::Member {
            match membership.pulse.verdict() {
                Verdict::Member if membership.must_divide_again(&metadata) => {
                    self.begin_round().await;
                }
                Verdict::Member => {}
                Verdict::Rebalancing => self.begin_round().await,
                Verdict::Lost { forget_name } => self.lose(forget_name),
                Verdict::Fenced(code) => {
                    self.lose(true);
                    self.stop_joining_if_fenced(code);
                    return Err(GroupError::Refused(code).into());
                }
            }
        }
        self.join(Instant::now());
        Ok(())
    }

    /// A round begins: eager members give everything up first, cooperative ones join as they are.
    async fn begin_round(&mut self) {
        let is_cooperative = self.membership.as_ref().is_some_and(|m| m.is_cooperative());
        if is_cooperative || self.partitions.is_empty() {
            if let Some(membership) = &mut self.membership {
                membership.stage = Stage::Outside;
            }
            return;
        }
        let all: BTreeSet<TopicPartition> = self.partitions.keys().cloned().collect();
        self.announce_revoked(all).await;
        if let Some(membership) = &mut self.membership {
            membership.stage = Stage::Outside;
        }
    }

    /// Commits, if that is wanted, and tells the user, who may commit more before the next poll.
    async fn announce_revoked(&mut self, leaving: BTreeSet<TopicPartition>) {
        for partition in &leaving {
            if let Some(state) = self.partitions.get_mut(partition) {
                state.is_leaving = true;
            }
        }
        if self.config.auto_commit.is_some() {
            let deadline = Instant::now() + self.config.client.request_timeout.min(COMMIT_MAX);
            if let Err(error) = self.commit_until(deadline).await {
                tracing::debug!(%error, "offsets were not committed before the rebalance");
            }
        }
        let revoked = leaving.iter().cloned().collect();
        self.rebalances.push_back(RebalanceEvent::Revoked(revoked));
        if let Some(membership) = &mut self.membership {
            membership.leaving = leaving;
        }
    }

    /// Out of the group: everything may be read by others already.
    fn lose(&mut self, forget_name: bool) {
        let lost: Vec<TopicPartition> = self.partitions.keys().cloned().collect();
        self.partitions.clear();
        if let Some(membership) = &mut self.membership {
            membership.lose(forget_name);
        }
        if !lost.is_empty() {
            self.rebalances.push_back(RebalanceEvent::Lost(lost));
        }
    }

    /// Joining on would take the instance id back and forth between two processes.
    fn stop_joining_if_fenced(&mut self, code: ErrorCode) {
        if let Some(membership) = &mut self.membership
            && code == ErrorCode::FencedInstanceId
        {
            membership.stage = Stage::Fenced;
        }
    }

    fn join(&mut self, now: Instant) {
        let Some(membership) = &mut self.membership else {
            return;
        };
        let waits = membership
            .not_before
            .is_some_and(|not_before| now < not_before);
        if membership.stage != Stage::Outside || waits || !membership.leaving.is_empty() {
            return;
        }
        membership.stage = Stage::Joining;
        let heart = membership.new_heart();
        let round = join::join(
            membership.coordinator.clone(),
            membership.terms.clone(),
            membership.member_id.clone(),
            self.partitions.keys().cloned().collect(),
            membership.generation,
        );
        let subscription = self.subscription_number;
        let patience = self.config.client.request_timeout;
        self.spawn(|report| async move {
            let (member_id, result) = round.await;
            if heart.stop.is_cancelled() {
                // The subscription ended meanwhile: without this member the others need not wait.
                let member = stale(member_id, heart.instance_id);
                let deadline = Instant::now() + patience;
                return membership::leave(&heart.coordinator, &member, deadline).await;
            }
            if let Ok(joined) = &result {
                heart.start(member_id.clone(), joined.generation);
            }
            let event = Event::Joined {
                subscription,
                member_id,
                result,
            };
            let _ = report.send(event).await;
        });
    }

    pub(super) fn on_joined(
        &mut self,
        subscription: u64,
        member_id: String,
        result: Result<Joined, JoinError>,
    ) {
        if subscription != self.subscription_number {
            // It ended after the round did; a member of that name may still be in the group.
            if let Some(coordinator) = self.coordinator.clone() {
                let member = stale(member_id, self.config.group_instance_id.clone());
                let deadline = Instant::now() + self.config.client.request_timeout;
                self.spawn_silent(async move {
                    membership::leave(&coordinator, &member, deadline).await;
                });
            }
            return;
        }
        let Some(membership) = &mut self.membership else {
            return;
        };
        membership.member_id = member_id;
        let pause = |membership: &mut super::membership::Membership| {
            membership.stage = Stage::Outside;
            membership.not_before = Some(Instant::now() + membership.backoff.next());
        };
        match result {
            Ok(joined) => self.joined = Some(joined),
            Err(JoinError::Again(reason)) => {
                tracing::debug!(%reason, "join again");
                pause(membership);
            }
            Err(JoinError::AsNewMember(reason)) => {
                tracing::debug!(%reason, "join as a new member");
                pause(membership);
                self.lose(true);
            }
            Err(JoinError::Fatal(error)) => {
                pause(membership);
                if let GroupError::Refused(code @ ErrorCode::FencedInstanceId) = error {
                    self.lose(true);
                    self.stop_joining_if_fenced(code);
                }
                self.errors.push_back(error.into());
            }
        }
    }

    /// A generation begins.
    async fn enter(&mut self, joined: &Joined) {
        let Some(membership) = &mut self.membership else {
            return;
        };
        if membership.stage == Stage::Joining {
            membership.enter(joined);
        }
        let new: BTreeSet<TopicPartition> = joined.assignment.iter().cloned().collect();
        let topics = new.iter().map(|partition| partition.topic.clone());
        self.cluster.want(|wanted| wanted.topics.extend(topics));
        self.cluster.request_refresh();
        let old: BTreeSet<TopicPartition> = self.partitions.keys().cloned().collect();
        let added: Vec<TopicPartition> = new.difference(&old).cloned().collect();
        let gone: BTreeSet<TopicPartition> = old.difference(&new).cloned().collect();
        for partition in &added {
            let state = PartitionState::new(Phase::NeedsCommitted, self.generations.next());
            self.partitions.insert(partition.clone(), state);
        }
        if !added.is_empty() {
            self.rebalances.push_back(RebalanceEvent::Assigned(added));
        }
        if !gone.is_empty() {
            self.announce_revoked(gone).await;
        }
    }
}

/// A member whose round outlived its subscription.
fn stale(member_id: String, instance_id: Option<String>) -> Committer {
    Committer {
        member_id,
        instance_id,
        ..Committer::outside()
    }
}

/// Longest wait for a commit while others wait for the rebalance.
const COMMIT_MAX: std::time::Duration = std::time::Duration::from_secs(5);
