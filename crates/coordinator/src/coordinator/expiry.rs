//! Offsets that nobody needs any more (G-8).
//!
//! Ages are measured on the monotonic clock from the instant at which this process first saw the
//! fact: a jump of the wall clock deletes nothing, and a restart can only make offsets live longer.

use std::collections::BTreeSet;

use ottla_types::{MonotonicMs, PartitionIndex};

use crate::{
    CommittedGroup, CommittedOffset, GroupState, OffsetsRecord,
    group::{Group, Now},
    outbox::Purpose,
};

use super::{Coordinator, Topics, admin::tombstone};

/// What may age in a group.
enum Aging {
    /// Nothing: its members may need everything.
    Nothing,
    /// All offsets, from this instant or their commit, whichever is later.
    AllSince(MonotonicMs),
    /// Offsets of topics that no member subscribes to, from their commit.
    Unsubscribed(BTreeSet<String>),
}

impl Aging {
    fn of(group: &Group) -> Aging {
        match group.state() {
            GroupState::Empty if group.is_simple() => Aging::AllSince(MonotonicMs(0)),
            GroupState::Empty => Aging::AllSince(group.state_since()),
            GroupState::Stable if group.is_consumer_group() => group
                .subscribed_topics()
                .map_or(Aging::Nothing, Aging::Unsubscribed),
            GroupState::Stable
            | GroupState::PreparingRebalance
            | GroupState::CompletingRebalance
            | GroupState::Dead => Aging::Nothing,
        }
    }

    fn has_expired(
        &self,
        now: MonotonicMs,
        topic: &str,
        offset: &CommittedOffset,
        retention_ms: u64,
    ) -> bool {
        let since = match self {
            Aging::Nothing => return false,
            Aging::AllSince(since) => (*since).max(offset.seen_at),
            Aging::Unsubscribed(topics) if topics.contains(topic) => return false,
            Aging::Unsubscribed(_) => offset.seen_at,
        };
        now.ms_since(since) >= offset.retention_ms(retention_ms)
    }
}

impl Coordinator {
    /// Writes tombstones for offsets past their retention or of topics that are gone, and for
    /// groups of which nothing is left. To be called now and then on the leader.
    pub fn expire(&mut self, now: Now, topics: &dyn Topics) {
        let ids: Vec<String> = self.groups.keys().cloned().collect();
        for group_id in ids {
            self.expire_group(now, &group_id, topics);
        }
    }

    fn expire_group(&mut self, now: Now, group_id: &str, topics: &dyn Topics) {
        let Some(group) = self.groups.get(group_id) else {
            return;
        };
        let Some(stored) = self.committed.group(group_id) else {
            self.settle(group_id);
            return;
        };
        if group.state() == GroupState::Dead || self.committed.has_open_transaction(group_id) {
            return;
        }
        let aging = Aging::of(group);
        let retention = self.rules.offsets_retention_ms;
        let due: Vec<(String, PartitionIndex)> = offsets_of(stored)
            .filter(|(topic, partition, offset)| {
                !group.has_pending_offset(topic, *partition)
                    && (is_orphan(topic, offset, topics)
                        || aging.has_expired(now.monotonic, topic, offset, retention))
            })
            .map(|(topic, partition, _)| (topic.clone(), partition))
            .collect();
        let none_left = due.len() == offsets_of(stored).count();
        if none_left && group.is_idle() {
            self.remove_group(now, group_id, None);
        } else if !due.is_empty() {
            self.write_tombstones(group_id, due);
        }
    }

    /// Topics were deleted: so are their offsets, in every group.
    pub fn on_topics_changed(&mut self, topics: &dyn Topics) {
        let mut orphans: Vec<(String, Vec<(String, PartitionIndex)>)> = Vec::new();
        for (group_id, stored) in self.committed.groups() {
            let of_group: Vec<_> = offsets_of(stored)
                .filter(|(topic, _, offset)| is_orphan(topic, offset, topics))
                .map(|(topic, partition, _)| (topic.clone(), partition))
                .collect();
            if !of_group.is_empty() {
                orphans.push((group_id.clone(), of_group));
            }
        }
        for (group_id, of_group) in orphans {
            self.write_tombstones(&group_id, of_group);
        }
    }

    fn write_tombstones(&mut self, group_id: &str, offsets: Vec<(String, PartitionIndex)>) {
        let records: Vec<OffsetsRecord> = offsets
            .into_iter()
            .map(|(topic, partition)| tombstone(group_id, &topic, partition))
            .collect();
        self.outbox.persist(records, Purpose::Housekeeping);
    }
}

fn offsets_of(
    group: &CommittedGroup,
) -> impl Iterator<Item = (&String, PartitionIndex, &CommittedOffset)> {
    group.offsets.iter().flat_map(|(topic, partitions)| {
        partitions
            .iter()
            .map(move |(partition, offset)| (topic, *partition, offset))
    })
}

/// The topic is gone, or another has taken its name.
fn is_orphan(topic: &str, offset: &CommittedOffset, topics: &dyn Topics) -> bool {
    match (topics.topic_id(topic), offset.topic_id) {
        (None, _) => true,
        (Some(current), Some(stored)) => current != stored,
        (Some(_), None) => false,
    }
}
