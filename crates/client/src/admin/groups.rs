//! Groups: listing, describing, deleting, and their offsets.

use std::collections::BTreeMap;

use futures::future::try_join_all;

use ottla_wire::{
    ErrorCode,
    messages::{
        DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
        GroupId, ListGroupsRequest, OffsetDeleteRequest, OffsetDeleteResponse,
        offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
    },
};

use super::{Admin, AdminError, Refusal, item, route::unanswered};
use crate::{
    cluster::Lane,
    error::code,
    group::{self, CommittedOffset, Committer, Coordinator},
    leaders::{by_topic, text, wire_name},
    metadata::TopicPartition,
};

/// A group as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupListing {
    /// Its protocol type; "consumer" for consumers, empty if only offsets were committed.
    pub protocol_type: String,
    /// Its state; empty from brokers that do not say.
    pub state: String,
    /// "classic" or another kind; empty from brokers that do not say.
    pub kind: String,
}

/// A group of the classic protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its state.
    pub state: String,
    /// Its protocol type.
    pub protocol_type: String,
    /// The chosen protocol: for consumers the assignor.
    pub protocol: String,
    /// Its members.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// Its id.
    pub member_id: String,
    /// Its instance, if it is a static one.
    pub instance_id: Option<String>,
    /// What it calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// What it reads, if it is a consumer.
    pub assignment: Vec<TopicPartition>,
}

impl Admin {
    /// All groups of all brokers.
    ///
    /// # Errors
    /// One of the brokers did not answer.
    pub async fn list_groups(&self) -> Result<BTreeMap<String, GroupListing>, AdminError> {
        let brokers = self.brokers(self.deadline()).await?;
        let calls = brokers.into_iter().map(|broker| async move {
            let response = self
                .to_one(broker, |_| ListGroupsRequest::default())
                .await?;
            super::route::whole(response.error_code, None)?;
            Ok::<_, AdminError>(response.groups)
        });
        let groups = try_join_all(calls)
            .await?
            .into_iter()
            .flatten()
            .map(|group| {
                let listing = GroupListing {
                    protocol_type: group.protocol_type.to_string(),
                    state: group.group_state.to_string(),
                    kind: group.group_type.to_string(),
                };
                (group.group_id.0.to_string(), listing)
            });
        Ok(groups.collect())
    }

    /// One group and its members.
    ///
    /// # Errors
    /// It was refused, or the request did not succeed.
    pub async fn describe_group(&self, name: &str) -> Result<GroupDescription, AdminError> {
        let build =
            |_version: i16| DescribeGroupsRequest::default().with_groups(vec![GroupId(text(name))]);
        let error_of = |response: &DescribeGroupsResponse| {
            response
                .groups
                .first()
                .map_or(ErrorCode::None, |group| code(group.error_code))
        };
        let coordinator = self.coordinator(name);
        let response = coordinator
            .call(Lane::Control, self.deadline(), build, error_of)
            .await?;
        let group = response
            .groups
            .into_iter()
            .next()
            .ok_or_else(|| unanswered(name))?;
        item(group.error_code, group.error_message.as_ref())?;
        let is_consumer = &*group.protocol_type == "consumer";
        let members = group.members.into_iter().map(|member| GroupMember {
            member_id: member.member_id.to_string(),
            instance_id: member.group_instance_id.as_ref().map(ToString::to_string),
            client_id: member.client_id.to_string(),
            client_host: member.client_host.to_string(),
            assignment: if is_consumer {
                crate::consumer::decode_assignment(member.member_assignment).unwrap_or_default()
            } else {
                Vec::new()
            },
        });
        Ok(GroupDescription {
            state: group.group_state.to_string(),
            protocol_type: group.protocol_type.to_string(),
            protocol: group.protocol_data.to_string(),
            members: members.collect(),
        })
    }

    /// Deletes a group without members, and its offsets.
    ///
    /// # Errors
    /// It was refused, or the request did not succeed.
    pub async fn delete_group(&self, name: &str) -> Result<(), AdminError> {
        let build = |_version: i16| {
            DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(name))])
        };
        let error_of = |response: &DeleteGroupsResponse| {
            response
                .results
                .first()
                .map_or(ErrorCode::None, |group| code(group.error_code))
        };
        let coordinator = self.coordinator(name);
        coordinator
            .call(Lane::Control, self.deadline(), build, error_of)
            .await?;
        Ok(())
    }

    /// What a group has committed: of these partitions, or of all.
    ///
    /// # Errors
    /// It was refused, or the request did not succeed.
    pub async fn group_offsets(
        &self,
        name: &str,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, AdminError> {
        Ok(group::committed(&self.coordinator(name), partitions, self.deadline()).await?)
    }

    /// Sets offsets of a group without members.
    ///
    /// # Errors
    /// The request as a whole.
    pub async fn alter_group_offsets(
        &self,
        name: &str,
        offsets: &BTreeMap<TopicPartition, CommittedOffset>,
    ) -> Result<BTreeMap<TopicPartition, Result<(), Refusal>>, AdminError> {
        let coordinator = self.coordinator(name);
        let results = group::commit(
            &coordinator,
            &Committer::outside(),
            offsets,
            self.deadline(),
        )
        .await?;
        let rows = results.into_iter().map(|(partition, result)| {
            (
                partition,
                result.map_err(|code| Refusal {
                    code,
                    message: None,
                }),
            )
        });
        Ok(rows.collect())
    }

    /// Deletes offsets of partitions whose topics no member of the group reads.
    ///
    /// # Errors
    /// The request as a whole.
    pub async fn delete_group_offsets(
        &self,
        name: &str,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Result<(), Refusal>>, AdminError> {
        let build = |_version: i16| {
            let topics = by_topic(partitions.iter().map(|partition| (partition.clone(), ())));
            let topics = topics.into_iter().map(|(topic, rows)| {
                let rows = rows.into_iter().map(|(index, ())| {
                    OffsetDeleteRequestPartition::default().with_partition_index(index)
                });
                OffsetDeleteRequestTopic::default()
                    .with_name(wire_name(&topic))
                    .with_partitions(rows.collect())
            });
            OffsetDeleteRequest::default()
                .with_group_id(GroupId(text(name)))
                .with_topics(topics.collect())
        };
        let error_of = |response: &OffsetDeleteResponse| code(response.error_code);
        let coordinator = self.coordinator(name);
        let response = coordinator
            .call(Lane::Control, self.deadline(), build, error_of)
            .await?;
        let mut results = BTreeMap::new();
        for topic in &response.topics {
            for row in &topic.partitions {
                let partition = TopicPartition::new(&*topic.name.0, row.partition_index);
                results.insert(partition, item(row.error_code, None));
            }
        }
        Ok(results)
    }

    fn coordinator(&self, group: &str) -> Coordinator {
        Coordinator::new(self.cluster.clone(), group)
    }
}
