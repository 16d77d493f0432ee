//! Creating and deleting topics.

use std::collections::BTreeSet;

use ottla_types::{BrokerId, TopicId};

use super::configs::check_topic_configs;
use super::partitions::{Assignments, check_partition_total};
use super::topic_names::{CLUSTER_METADATA, check_collision, check_name};
use super::{Draft, Named, PARTITIONS_PER_REQUEST_MAX};
use crate::elections::{Electable, startable};
use crate::placement::Placement;
use crate::{
    CommandError, ConfigResource, CreateTopic, CreatedTopic, DeleteTopic, Outcome, Record, TopicRef,
};

/// Replicas of a topic for which nobody asked for a number, as far as there are brokers.
const REPLICATION_FACTOR: usize = 3;

impl Draft<'_> {
    pub(super) fn create_topics(
        &mut self,
        topics: &[CreateTopic],
        live: &BTreeSet<BrokerId>,
    ) -> Outcome {
        let named = Named::count(topics.iter().map(|topic| topic.name.as_str()));
        let asked = topics.iter().map(|topic| match topic.partitions {
            Some(count) => usize::try_from(count).unwrap_or(0),
            None => topic.assignments.len().max(1),
        });
        let total = check_partition_total(asked);
        let create = |topic: &CreateTopic| {
            named.once(
                &topic.name.as_str(),
                &format_args!("topic {:?}", topic.name),
            )?;
            total.clone()?;
            self.create_topic(topic, live)
        };
        Outcome::CreatedTopics(topics.iter().map(create).collect())
    }

    fn create_topic(
        &mut self,
        topic: &CreateTopic,
        live: &BTreeSet<BrokerId>,
    ) -> Result<CreatedTopic, CommandError> {
        self.check_new_topic(topic)?;
        let startable = startable(self.image, live);
        let placed = if topic.assignments.is_empty() {
            self.place(topic, &startable)?
        } else {
            self.take_assignments(topic, &startable)?
        };
        check_topic_configs(&topic.configs)?;

        let replication_factor = placed.first().map_or(0, Vec::len);
        let created = CreatedTopic {
            topic_id: topic.topic_id,
            partitions: i32::try_from(placed.len()).unwrap_or(i32::MAX),
            replication_factor: i16::try_from(replication_factor).unwrap_or(i16::MAX),
        };
        self.emit(Record::Topic {
            topic_id: topic.topic_id,
            name: topic.name.clone(),
        });
        self.emit_new_partitions(topic.topic_id, 0, placed, &startable);
        for (key, value) in &topic.configs {
            self.emit(Record::Config {
                resource: ConfigResource::Topic(topic.name.clone()),
                key: key.clone(),
                value: Some(value.clone()),
            });
        }
        Ok(created)
    }

    fn check_new_topic(&self, topic: &CreateTopic) -> Result<(), CommandError> {
        if topic.name == CLUSTER_METADATA {
            let reason = format!("{CLUSTER_METADATA} is reserved");
            return Err(CommandError::InvalidRequest(reason));
        }
        check_name(&topic.name)?;
        if self.image.topic_ids.contains_key(&topic.name) {
            return Err(CommandError::TopicAlreadyExists(topic.name.clone()));
        }
        check_collision(self.image, &topic.name)?;
        if self.image.topics.contains_key(&topic.topic_id) {
            let reason = format!("topic id {} is taken", topic.topic_id);
            return Err(CommandError::InvalidRequest(reason));
        }
        Ok(())
    }

    fn place(
        &self,
        topic: &CreateTopic,
        startable: &Electable,
    ) -> Result<Vec<Vec<BrokerId>>, CommandError> {
        let count = topic.partitions.unwrap_or(1);
        let count = usize::try_from(count)
            .ok()
            .filter(|&count| count > 0)
            .ok_or_else(|| {
                CommandError::InvalidPartitions(format!("a topic cannot have {count} partitions"))
            })?;
        debug_assert!(
            count <= PARTITIONS_PER_REQUEST_MAX,
            "checked for the whole request"
        );
        let placement = Placement::new(self.image, &startable.brokers);
        // Fenced brokers count: a topic made during a restart is not to stay short of a replica.
        let replicas = match topic.replication_factor {
            None => REPLICATION_FACTOR.min(placement.capacity()).max(1),
            Some(factor) => check_replication_factor(factor)?,
        };
        check_capacity(&placement, replicas)?;
        Ok(placement.place(topic.seed, count, replicas))
    }

    fn take_assignments(
        &self,
        topic: &CreateTopic,
        startable: &Electable,
    ) -> Result<Vec<Vec<BrokerId>>, CommandError> {
        if topic.partitions.is_some() || topic.replication_factor.is_some() {
            let reason = "an assignment already says how many partitions and replicas".to_owned();
            return Err(CommandError::InvalidRequest(reason));
        }
        if !topic
            .assignments
            .keys()
            .copied()
            .eq((0..).take(topic.assignments.len()))
        {
            let reason = "the assigned partitions are not numbered from 0 without gaps".to_owned();
            return Err(CommandError::InvalidReplicaAssignment(reason));
        }
        let mut assignments = Assignments::new(self.image, startable, None);
        topic
            .assignments
            .values()
            .map(|replicas| assignments.check(replicas))
            .collect()
    }

    pub(super) fn delete_topics(&mut self, topics: &[DeleteTopic]) -> Outcome {
        let resolved: Vec<_> = topics
            .iter()
            .map(|topic| self.resolve(&topic.topic))
            .collect();
        let named = Named::count(resolved.iter().flatten().copied());
        let mut delete = |found: Result<TopicId, CommandError>| {
            let topic_id = found?;
            named.once(&topic_id, &format_args!("topic {topic_id}"))?;
            let name = self
                .image
                .topic_name(topic_id)
                .unwrap_or_default()
                .to_owned();
            self.emit(Record::RemoveTopic { topic_id });
            Ok((name, topic_id))
        };
        Outcome::DeletedTopics(resolved.into_iter().map(&mut delete).collect())
    }

    fn resolve(&self, topic: &TopicRef) -> Result<TopicId, CommandError> {
        match topic {
            TopicRef::Name(name) => {
                let found = self.image.topic_ids.get(name).copied();
                found.ok_or(CommandError::UnknownTopicOrPartition)
            }
            TopicRef::Id(topic_id) if self.image.topics.contains_key(topic_id) => Ok(*topic_id),
            TopicRef::Id(_) => Err(CommandError::UnknownTopicId),
        }
    }
}

fn check_replication_factor(factor: i16) -> Result<usize, CommandError> {
    usize::try_from(factor)
        .ok()
        .filter(|&factor| factor > 0)
        .ok_or_else(|| {
            CommandError::InvalidReplicationFactor(format!(
                "the replication factor cannot be {factor}"
            ))
        })
}

/// Refuses what cannot be placed.
pub(super) fn check_capacity(
    placement: &Placement<'_>,
    replicas: usize,
) -> Result<(), CommandError> {
    let available = placement.capacity();
    if replicas > available {
        let reason = format!(
            "replication factor {replicas} is larger than the number of brokers: {available}"
        );
        return Err(CommandError::InvalidReplicationFactor(reason));
    }
    if !placement.can_lead() {
        let reason = "every broker is fenced: none could lead".to_owned();
        return Err(CommandError::InvalidReplicationFactor(reason));
    }
    Ok(())
}
