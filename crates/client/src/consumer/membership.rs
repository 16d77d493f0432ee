//! This consumer's place in its group, from joining to leaving.

use std::{collections::BTreeSet, sync::Arc};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use ottla_wire::{
    ErrorCode,
    messages::{
        GroupId, LeaveGroupRequest, LeaveGroupResponse, leave_group_request::MemberIdentity,
    },
};

use super::{
    assignor::Counts,
    config::ConsumerConfig,
    heartbeat::{Heart, Pulse, Rhythm, Verdict},
    join::{Joined, Terms},
};
use crate::{
    backoff::Backoff,
    cluster::Lane,
    error::code,
    group::{Committer, Coordinator},
    leaders::text,
    metadata::{Metadata, TopicPartition},
};

/// Where the membership stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Join at the next chance.
    Outside,
    /// A round is under way.
    Joining,
    /// In a generation.
    Member,
    /// Another process holds the instance id: no join until the next subscription.
    Fenced,
}

pub(super) struct Membership {
    pub(super) coordinator: Coordinator,
    pub(super) terms: Terms,
    pub(super) stage: Stage,
    pub(super) member_id: String,
    pub(super) generation: i32,
    pub(super) pulse: Arc<Pulse>,
    /// Partitions to give up before the next join.
    pub(super) leaving: BTreeSet<TopicPartition>,
    /// No join before this.
    pub(super) not_before: Option<Instant>,
    pub(super) backoff: Backoff,
    led_with: Option<Counts>,
    heart: Option<CancellationToken>,
    rhythm: Rhythm,
}

impl Membership {
    pub(super) fn new(
        coordinator: Coordinator,
        config: &ConsumerConfig,
        topics: BTreeSet<Arc<str>>,
    ) -> Membership {
        Membership {
            terms: Terms {
                topics,
                assignors: config.assignors.clone(),
                instance_id: config.group_instance_id.clone(),
                session_timeout: config.session_timeout,
                rebalance_timeout: config.max_poll_interval,
                request_timeout: config.client.request_timeout,
            },
            coordinator,
            stage: Stage::Outside,
            member_id: String::new(),
            generation: -1,
            pulse: Arc::new(Pulse::new()),
            leaving: BTreeSet::new(),
            not_before: None,
            backoff: Backoff::new(config.client.retry_backoff, config.client.retry_backoff_max),
            led_with: None,
            heart: None,
            rhythm: Rhythm {
                interval: config.heartbeat_interval,
                session_timeout: config.session_timeout,
                max_poll_interval: config.max_poll_interval,
            },
        }
    }

    /// Members keep their partitions through a rebalance only if every assignor allows it.
    pub(super) fn is_cooperative(&self) -> bool {
        self.terms
            .assignors
            .iter()
            .all(|assignor| assignor.is_cooperative())
    }

    pub(super) fn committer(&self) -> Committer {
        Committer {
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            instance_id: self.terms.instance_id.clone(),
        }
    }

    /// A heart for the generation that the round ahead ends in; the old one stops.
    pub(super) fn new_heart(&mut self) -> Heart {
        self.stop_heart();
        let stop = self.coordinator.cluster().shutdown().child_token();
        self.heart = Some(stop.clone());
        Heart {
            coordinator: self.coordinator.clone(),
            pulse: Arc::clone(&self.pulse),
            rhythm: self.rhythm,
            instance_id: self.terms.instance_id.clone(),
            stop,
        }
    }

    /// A round has ended well; the heart beats for the new generation already.
    pub(super) fn enter(&mut self, joined: &Joined) {
        self.stage = Stage::Member;
        self.generation = joined.generation;
        self.led_with.clone_from(&joined.led_with);
        self.backoff.reset();
        self.not_before = None;
    }

    /// Out of the group; `forget_name` if the coordinator no longer knows this member.
    pub(super) fn lose(&mut self, forget_name: bool) {
        self.stop_heart();
        self.stage = Stage::Outside;
        self.generation = -1;
        self.leaving.clear();
        self.pulse.set(Verdict::Member);
        if forget_name {
            self.member_id.clear();
        }
    }

    pub(super) fn stop_heart(&mut self) {
        if let Some(heart) = self.heart.take() {
            heart.cancel();
        }
    }

    /// Whether this member divided the partitions and there are others to divide now.
    pub(super) fn must_divide_again(&self, metadata: &Metadata) -> bool {
        let Some(led_with) = &self.led_with else {
            return false;
        };
        let count = |topic: &Arc<str>| {
            let topic = metadata.topic(topic)?;
            i32::try_from(topic.partitions.len()).ok()
        };
        self.stage == Stage::Member
            && self
                .terms
                .topics
                .iter()
                .chain(led_with.keys())
                .any(|topic| count(topic).is_some_and(|count| led_with.get(topic) != Some(&count)))
    }
}

/// Leaves the group, so that the others need not wait for the session to end. A static member
/// stays: it will be back (KIP-345).
pub(super) async fn leave(coordinator: &Coordinator, member: &Committer, deadline: Instant) {
    if member.member_id.is_empty() || member.instance_id.is_some() {
        return;
    }
    let build = |version: i16| {
        let mut request = LeaveGroupRequest::default();
        request.group_id = GroupId(text(coordinator.group()));
        if version >= 3 {
            let identity = MemberIdentity::default().with_member_id(text(&member.member_id));
            request.members = vec![identity];
        } else {
            request.member_id = text(&member.member_id);
        }
        request
    };
    let error_of = |response: &LeaveGroupResponse| code(response.error_code);
    let left = coordinator
        .call(Lane::Control, deadline, build, error_of)
        .await;
    match left {
        Ok(_) | Err(crate::group::GroupError::Refused(ErrorCode::UnknownMemberId)) => {}
        Err(error) => {
            tracing::debug!(group = coordinator.group(), %error, "did not leave the group")
        }
    }
}
