//! A group as tools and the rules of expiry see it.

use std::collections::BTreeSet;

use bytes::Bytes;

use ottla_types::MonotonicMs;

use crate::{DescribedMember, GroupDescription, GroupListing, subscribed_topics};

use super::{Group, GroupState};

const CONSUMER: &str = "consumer";

impl Group {
    /// One line of a list.
    pub(crate) fn listing(&self) -> GroupListing {
        GroupListing {
            group_id: self.id.clone(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            state: self.state,
        }
    }

    /// Members with their subscriptions and assignments, which are shown only while they hold.
    pub(crate) fn describe(&self) -> GroupDescription {
        let protocol = match self.state {
            GroupState::Stable => self.protocol.clone(),
            _ => None,
        };
        let members = self.members.values().map(|member| DescribedMember {
            member_id: member.member_id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: protocol
                .as_deref()
                .map(|name| member.metadata(name))
                .unwrap_or_default(),
            assignment: match self.state {
                GroupState::Stable => member.assignment.clone(),
                _ => Bytes::new(),
            },
        });
        GroupDescription {
            group_id: self.id.clone(),
            state: self.state,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            members: members.collect(),
            protocol: protocol.unwrap_or_default(),
        }
    }

    /// True of a group that has, or had, members that speak the consumer protocol.
    pub(crate) fn is_consumer_group(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    /// True of a group that only stores offsets and never had a member.
    pub(crate) fn is_simple(&self) -> bool {
        self.protocol_type.is_none()
    }

    /// Every topic that any member says it subscribes to under any protocol; `None` if one of
    /// them cannot be read.
    pub(crate) fn subscribed_topics(&self) -> Option<BTreeSet<String>> {
        let mut topics = BTreeSet::new();
        for protocol in self.members.values().flat_map(|member| &member.protocols) {
            topics.extend(subscribed_topics(&protocol.metadata)?);
        }
        Some(topics)
    }

    /// When it entered its state.
    pub(crate) fn state_since(&self) -> MonotonicMs {
        self.state_since
    }
}
