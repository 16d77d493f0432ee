//! What administrators ask: list, describe, delete.

use std::collections::BTreeSet;

use ottla_types::PartitionIndex;

use crate::{
    GroupDescription, GroupError, GroupListing, GroupState, OffsetsRecord, Reply, ReplyToken,
    group::{Group, Now},
    outbox::{DeletedOffset, Purpose},
};

use super::{Coordinator, Topics, check_group_id};

impl Coordinator {
    /// Every group that is not being removed.
    pub fn list(&self) -> impl Iterator<Item = GroupListing> {
        let living = self
            .groups
            .values()
            .filter(|group| group.state() != GroupState::Dead);
        living.map(Group::listing)
    }

    /// The state of every group, those that are being removed too.
    pub fn states(&self) -> impl Iterator<Item = GroupState> {
        self.groups.values().map(Group::state)
    }

    /// One group with its members.
    pub fn describe(&self, group_id: &str) -> Result<GroupDescription, GroupError> {
        check_group_id(group_id)?;
        match self.groups.get(group_id) {
            Some(group) if group.state() != GroupState::Dead => Ok(group.describe()),
            _ => Err(GroupError::GroupIdNotFound),
        }
    }

    /// Removes a group without members, and all its offsets: answered when that is committed.
    pub fn delete_group(&mut self, now: Now, group_id: &str, token: ReplyToken) {
        let result = check_group_id(group_id).and_then(|()| match self.groups.get(group_id) {
            None => Err(GroupError::GroupIdNotFound),
            Some(group) => match group.state() {
                GroupState::Empty => Ok(()),
                GroupState::Dead => Err(GroupError::GroupIdNotFound),
                _ => Err(GroupError::NonEmptyGroup),
            },
        });
        match result {
            Ok(()) => self.remove_group(now, group_id, Some(token)),
            Err(error) => self.outbox.reply(token, Reply::DeleteGroup(Err(error))),
        }
    }

    /// Writes tombstones for everything that is stored of the group or on its way there.
    pub(super) fn remove_group(&mut self, now: Now, group_id: &str, token: Option<ReplyToken>) {
        let Some(group) = self.groups.get_mut(group_id) else {
            return;
        };
        let mut offsets: BTreeSet<(String, PartitionIndex)> =
            group.pending_offsets().cloned().collect();
        if let Some(stored) = self.committed.group(group_id) {
            let partitions = stored.offsets.iter().flat_map(|(topic, partitions)| {
                partitions
                    .keys()
                    .map(|partition| (topic.clone(), *partition))
            });
            offsets.extend(partitions);
        }
        group.kill(now);
        let mut records: Vec<OffsetsRecord> = offsets
            .into_iter()
            .map(|(topic, partition)| tombstone(group_id, &topic, partition))
            .collect();
        records.push(OffsetsRecord::Group {
            group_id: group_id.to_owned(),
            value: None,
        });
        let purpose = Purpose::DeleteGroup {
            group_id: group_id.to_owned(),
            token,
        };
        self.outbox.persist(records, purpose);
        self.schedule(group_id);
    }

    pub(super) fn on_group_deleted(
        &mut self,
        now: Now,
        group_id: &str,
        token: Option<ReplyToken>,
        result: Result<(), GroupError>,
    ) {
        if result.is_ok() {
            self.groups.remove(group_id);
        } else if let Some(group) = self.groups.get_mut(group_id) {
            group.revive(now);
        }
        if let Some(token) = token {
            self.outbox.reply(token, Reply::DeleteGroup(result));
        }
        self.settle(group_id);
    }

    /// Removes single offsets that no member needs: answered when that is committed.
    pub fn delete_offsets(
        &mut self,
        group_id: &str,
        wanted: &[(String, Vec<PartitionIndex>)],
        topics: &dyn Topics,
        token: ReplyToken,
    ) {
        let subscribed = match self.undeletable_topics(group_id) {
            Ok(subscribed) => subscribed,
            Err(error) => {
                self.outbox.reply(token, Reply::DeleteOffsets(Err(error)));
                return;
            }
        };
        let mut answer: Vec<DeletedOffset> = Vec::new();
        let mut records = Vec::new();
        for (topic, partitions) in wanted {
            for partition in partitions {
                let result = if !topics.has_partition(topic, *partition) {
                    Err(GroupError::UnknownTopicOrPartition)
                } else if subscribed.contains(topic) {
                    Err(GroupError::GroupSubscribedToTopic)
                } else {
                    if self.is_stored_or_pending(group_id, topic, *partition) {
                        records.push(tombstone(group_id, topic, *partition));
                    }
                    Ok(())
                };
                answer.push((topic.clone(), *partition, result));
            }
        }
        if records.is_empty() {
            self.outbox.reply(token, Reply::DeleteOffsets(Ok(answer)));
        } else {
            self.outbox
                .persist(records, Purpose::DeleteOffsets { token, answer });
        }
    }

    /// Topics that a member of the group subscribes to; every topic of the request counts as one
    /// of them while a member's subscription cannot be read.
    fn undeletable_topics(&self, group_id: &str) -> Result<Subscribed, GroupError> {
        check_group_id(group_id)?;
        let group = self
            .groups
            .get(group_id)
            .ok_or(GroupError::GroupIdNotFound)?;
        match group.state() {
            GroupState::Dead => Err(GroupError::GroupIdNotFound),
            GroupState::Empty => Ok(Subscribed::To(BTreeSet::new())),
            _ if !group.is_consumer_group() => Err(GroupError::NonEmptyGroup),
            _ => Ok(group
                .subscribed_topics()
                .map_or(Subscribed::Unknown, Subscribed::To)),
        }
    }

    fn is_stored_or_pending(&self, group_id: &str, topic: &str, partition: PartitionIndex) -> bool {
        let stored = self.committed.group(group_id);
        stored.is_some_and(|group| group.offset(topic, partition).is_some())
            || self
                .groups
                .get(group_id)
                .is_some_and(|group| group.has_pending_offset(topic, partition))
    }
}

enum Subscribed {
    To(BTreeSet<String>),
    Unknown,
}

impl Subscribed {
    fn contains(&self, topic: &str) -> bool {
        match self {
            Subscribed::To(topics) => topics.contains(topic),
            Subscribed::Unknown => true,
        }
    }
}

pub(super) fn tombstone(group_id: &str, topic: &str, partition: PartitionIndex) -> OffsetsRecord {
    OffsetsRecord::Offset {
        group_id: group_id.to_owned(),
        topic: topic.to_owned(),
        partition,
        value: None,
    }
}
