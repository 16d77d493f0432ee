//! Joining a group: one round of JoinGroup and SyncGroup, and the division if this member leads it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use ottla_wire::{
    ErrorCode,
    messages::{
        GroupId, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest,
        join_group_request::JoinGroupRequestProtocol,
        sync_group_request::SyncGroupRequestAssignment,
    },
};

use super::{
    assignor::{Assignments, Assignor, Counts, Member},
    protocol,
};
use crate::{
    error::code,
    group::{Coordinator, GroupError},
    leaders::text,
    metadata::TopicPartition,
};

const PROTOCOL_TYPE: &str = "consumer";
/// The coordinator answers a join once all members are here or their time is over; then some.
const JOIN_GRACE: Duration = Duration::from_secs(5);

/// What stays the same from round to round.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) topics: BTreeSet<Arc<str>>,
    pub(super) assignors: Vec<Assignor>,
    pub(super) instance_id: Option<String>,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    pub(super) request_timeout: Duration,
}

/// A place in a generation of the group.
#[derive(Clone, Debug)]
pub(super) struct Joined {
    pub(super) generation: i32,
    pub(super) assignment: Vec<TopicPartition>,
    /// Partition counts that the division was made of, if this member made it.
    pub(super) led_with: Option<Counts>,
}

/// Why a round did not end in one.
#[derive(Clone, Debug)]
pub(super) enum JoinError {
    /// Join again, after a pause.
    Again(String),
    /// The same, and as a new member.
    AsNewMember(String),
    /// For good.
    Fatal(GroupError),
}

/// One round. The member id is returned in any case: the coordinator may have given one.
pub(super) async fn join(
    coordinator: Coordinator,
    terms: Terms,
    member_id: String,
    owned: Vec<TopicPartition>,
    generation: i32,
) -> (String, Result<Joined, JoinError>) {
    let mut round = Round {
        coordinator,
        terms,
        member_id,
    };
    let result = round.run(&owned, generation).await;
    (round.member_id, result)
}

struct Round {
    coordinator: Coordinator,
    terms: Terms,
    member_id: String,
}

impl Round {
    async fn run(
        &mut self,
        owned: &[TopicPartition],
        generation: i32,
    ) -> Result<Joined, JoinError> {
        let subscription = protocol::encode_subscription(&self.terms.topics, owned, generation)
            .map_err(|error| JoinError::Fatal(GroupError::Request(error.into())))?;
        let answer = self.join_group(&subscription).await?;
        let leads = !answer.members.is_empty() && answer.leader == answer.member_id;
        let (assignments, led_with) = if leads && !answer.skip_assignment {
            let (assignments, counts) = self.divide(&answer).await?;
            (assignments, Some(counts))
        } else {
            (Assignments::new(), None)
        };
        let assignment = self.sync_group(&answer, &assignments).await?;
        Ok(Joined {
            generation: answer.generation_id,
            assignment,
            led_with,
        })
    }

    async fn join_group(&mut self, subscription: &Bytes) -> Result<JoinGroupResponse, JoinError> {
        loop {
            let terms = &self.terms;
            let member_id = &self.member_id;
            let group = self.coordinator.group().to_owned();
            let build = |version: i16| {
                let protocols = terms.assignors.iter().map(|assignor| {
                    JoinGroupRequestProtocol::default()
                        .with_name(text(assignor.name()))
                        .with_metadata(subscription.clone())
                });
                let mut request = JoinGroupRequest::default()
                    .with_group_id(GroupId(text(&group)))
                    .with_session_timeout_ms(millis(terms.session_timeout))
                    .with_member_id(text(member_id))
                    .with_protocol_type(text(PROTOCOL_TYPE))
                    .with_protocols(protocols.collect());
                request.rebalance_timeout_ms = millis(terms.rebalance_timeout);
                if version >= 5 {
                    request.group_instance_id = terms.instance_id.as_deref().map(text);
                }
                request
            };
            let wait = terms
                .request_timeout
                .max(terms.rebalance_timeout + JOIN_GRACE);
            let answer = self
                .coordinator
                .call_join(Instant::now() + wait, build)
                .await;
            let answer = answer.map_err(retry)?;
            match code(answer.error_code) {
                ErrorCode::None => {
                    self.member_id = answer.member_id.to_string();
                    return Ok(answer);
                }
                // KIP-394: the coordinator wants to see that the member knows its name.
                ErrorCode::MemberIdRequired => self.member_id = answer.member_id.to_string(),
                error => return Err(self.refused(error)),
            }
        }
    }

    fn refused(&self, error: ErrorCode) -> JoinError {
        if error.is_retriable() {
            self.coordinator.forget();
            return JoinError::Again(error.to_string());
        }
        match error {
            ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration => {
                JoinError::Again(error.to_string())
            }
            ErrorCode::UnknownMemberId => JoinError::AsNewMember(error.to_string()),
            _ => JoinError::Fatal(GroupError::Refused(error)),
        }
    }

    /// Divides the partitions of all that members subscribe to.
    async fn divide(&self, answer: &JoinGroupResponse) -> Result<(Assignments, Counts), JoinError> {
        let chosen = answer.protocol_name.as_deref().unwrap_or_default();
        let assignor = self
            .terms
            .assignors
            .iter()
            .find(|assignor| assignor.name() == chosen);
        let Some(assignor) = assignor else {
            let error = ErrorCode::InconsistentGroupProtocol;
            return Err(JoinError::Fatal(GroupError::Refused(error)));
        };
        let mut members = Vec::new();
        for member in &answer.members {
            let subscription = protocol::decode_subscription(member.metadata.clone())
                .map_err(|error| JoinError::Fatal(GroupError::Request(error.into())))?;
            members.push(Member {
                id: member.member_id.to_string(),
                instance_id: member.group_instance_id.as_ref().map(ToString::to_string),
                topics: subscription.topics,
                owned: subscription.owned,
                generation: subscription.generation,
            });
        }
        let topics: BTreeSet<Arc<str>> = members
            .iter()
            .flat_map(|member| member.topics.clone())
            .collect();
        let counts = self.count_partitions(topics).await?;
        Ok((assignor.assign(&members, &counts), counts))
    }

    /// Topics that do not exist are left out; this member joins again when they appear.
    async fn count_partitions(&self, topics: BTreeSet<Arc<str>>) -> Result<Counts, JoinError> {
        let cluster = self.coordinator.cluster();
        cluster.want(|wanted| wanted.topics.extend(topics.iter().cloned()));
        let deadline = Instant::now() + self.terms.request_timeout;
        let refreshed = cluster.refresh(deadline).await;
        refreshed.map_err(|error| JoinError::Again(error.to_string()))?;
        let metadata = cluster.metadata();
        let counted: BTreeMap<Arc<str>, i32> = topics
            .into_iter()
            .filter_map(|name| {
                let count = metadata.topic(&name)?.partitions.len();
                Some((name, i32::try_from(count).ok()?))
            })
            .collect();
        Ok(counted)
    }

    async fn sync_group(
        &self,
        joined: &JoinGroupResponse,
        assignments: &Assignments,
    ) -> Result<Vec<TopicPartition>, JoinError> {
        let mut rows = Vec::new();
        for (member, partitions) in assignments {
            let bytes = protocol::encode_assignment(partitions)
                .map_err(|error| JoinError::Fatal(GroupError::Request(error.into())))?;
            let row = SyncGroupRequestAssignment::default()
                .with_member_id(text(member))
                .with_assignment(bytes);
            rows.push(row);
        }
        let build = |version: i16| {
            let mut request = SyncGroupRequest::default()
                .with_group_id(GroupId(text(self.coordinator.group())))
                .with_generation_id(joined.generation_id)
                .with_member_id(text(&self.member_id))
                .with_assignments(rows);
            if version >= 3 {
                request.group_instance_id = self.terms.instance_id.as_deref().map(text);
            }
            if version >= 5 {
                request.protocol_type = Some(text(PROTOCOL_TYPE));
                request.protocol_name.clone_from(&joined.protocol_name);
            }
            request
        };
        let wait = self
            .terms
            .request_timeout
            .max(self.terms.rebalance_timeout + JOIN_GRACE);
        let deadline = Instant::now() + wait;
        let answer = self
            .coordinator
            .call_join(deadline, build)
            .await
            .map_err(retry)?;
        match code(answer.error_code) {
            ErrorCode::None => protocol::decode_assignment(answer.assignment)
                .map_err(|error| JoinError::Fatal(GroupError::Request(error.into()))),
            error => Err(self.refused(error)),
        }
    }
}

fn retry(error: GroupError) -> JoinError {
    match error {
        GroupError::NotInTime(last) => JoinError::Again(last.unwrap_or_default()),
        GroupError::Request(error) if error.is_retriable() => JoinError::Again(error.to_string()),
        GroupError::Refused(code) if code.is_retriable() => JoinError::Again(code.to_string()),
        error @ (GroupError::Request(_) | GroupError::Refused(_)) => JoinError::Fatal(error),
    }
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
