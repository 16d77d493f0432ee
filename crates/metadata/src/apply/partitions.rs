//! New partitions: their first state, manual assignments, and growing a topic.

use std::collections::BTreeSet;

use ottla_types::{BrokerId, PartitionId, PartitionIndex, TopicId};

use super::topics::check_capacity;
use super::{Draft, Named};
use crate::elections::{Electable, startable};
use crate::placement::Placement;
use crate::{CommandError, CreatePartitions, Image, Outcome, PartitionRecord, Record};

/// Partitions that one request may create.
pub const PARTITIONS_PER_REQUEST_MAX: usize = 10_000;

/// Refuses a whole request that would create too many partitions.
pub(super) fn check_partition_total(
    counts: impl Iterator<Item = usize>,
) -> Result<(), CommandError> {
    let total = counts.fold(0usize, usize::saturating_add);
    if total > PARTITIONS_PER_REQUEST_MAX {
        let reason = format!(
            "the request creates {total} partitions, {PARTITIONS_PER_REQUEST_MAX} are allowed"
        );
        return Err(CommandError::PolicyViolation(reason));
    }
    Ok(())
}

/// The first state of a partition: in sync is who can serve now, so that a broker that is fenced
/// or dying does not hold up the first acknowledgement.
fn new_partition(replicas: Vec<BrokerId>, startable: &Electable) -> PartitionRecord {
    let isr: Vec<_> = replicas
        .iter()
        .copied()
        .filter(|id| startable.brokers.contains(id))
        .collect();
    PartitionRecord {
        leader: startable.first_of(&isr),
        replicas,
        isr,
        ..PartitionRecord::default()
    }
}

/// The check of manual assignments: all of one topic have the same number of replicas.
pub(super) struct Assignments<'a> {
    image: &'a Image,
    startable: &'a Electable,
    replication_factor: Option<usize>,
}

impl<'a> Assignments<'a> {
    pub(super) fn new(
        image: &'a Image,
        startable: &'a Electable,
        replication_factor: Option<usize>,
    ) -> Assignments<'a> {
        Assignments {
            image,
            startable,
            replication_factor,
        }
    }

    pub(super) fn check(&mut self, replicas: &[BrokerId]) -> Result<Vec<BrokerId>, CommandError> {
        let invalid = |reason: String| Err(CommandError::InvalidReplicaAssignment(reason));
        if replicas.is_empty() {
            return invalid("an assignment has no replicas".to_owned());
        }
        let distinct: BTreeSet<_> = replicas.iter().collect();
        if distinct.len() < replicas.len() {
            return invalid("an assignment names a broker twice".to_owned());
        }
        if let Some(unknown) = replicas
            .iter()
            .find(|id| !self.image.brokers.contains_key(id))
        {
            return invalid(format!(
                "an assignment names broker {unknown}, which is not registered"
            ));
        }
        let factor = *self.replication_factor.get_or_insert(replicas.len());
        if factor != replicas.len() {
            let given = replicas.len();
            return invalid(format!(
                "an assignment has {given} replicas, another {factor}"
            ));
        }
        if !replicas
            .iter()
            .any(|replica| self.startable.brokers.contains(replica))
        {
            return invalid("all brokers of an assignment are fenced or shutting down".to_owned());
        }
        Ok(replicas.to_vec())
    }
}

impl Draft<'_> {
    pub(super) fn create_partitions(
        &mut self,
        topics: &[CreatePartitions],
        live: &BTreeSet<BrokerId>,
    ) -> Outcome {
        let named = Named::count(topics.iter().map(|topic| topic.name.as_str()));
        let added = topics.iter().map(|topic| {
            let present = self
                .image
                .topic(&topic.name)
                .map_or(0, |topic| topic.partitions.len());
            usize::try_from(topic.count)
                .unwrap_or(0)
                .saturating_sub(present)
        });
        let total = check_partition_total(added);
        let add = |topic: &CreatePartitions| {
            named.once(
                &topic.name.as_str(),
                &format_args!("topic {:?}", topic.name),
            )?;
            total.clone()?;
            self.add_partitions(topic, live)
        };
        Outcome::CreatedPartitions(topics.iter().map(add).collect())
    }

    fn add_partitions(
        &mut self,
        request: &CreatePartitions,
        live: &BTreeSet<BrokerId>,
    ) -> Result<(), CommandError> {
        let topic = self.image.topic(&request.name);
        let topic = topic.ok_or(CommandError::UnknownTopicOrPartition)?;
        let topic_id = topic.topic_id;
        let present = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
        let replicas = topic
            .partitions
            .values()
            .next()
            .map_or(1, |first| first.replicas.len());
        if request.count <= present {
            return Err(CommandError::InvalidPartitions(format!(
                "topic {:?} has {present} partitions, which cannot become {}",
                request.name, request.count
            )));
        }
        let added = usize::try_from(request.count - present).unwrap_or(0);
        let startable = startable(self.image, live);
        let placed = if request.assignments.is_empty() {
            let placement = Placement::new(self.image, &startable.brokers);
            check_capacity(&placement, replicas)?;
            // Go on around the ring where the present partitions ended.
            let seed = request
                .seed
                .wrapping_add(u64::try_from(present).unwrap_or(0));
            placement.place(seed, added, replicas)
        } else if request.assignments.len() == added {
            let mut assignments = Assignments::new(self.image, &startable, Some(replicas));
            let checked = request
                .assignments
                .iter()
                .map(|replicas| assignments.check(replicas));
            checked.collect::<Result<Vec<_>, _>>()?
        } else {
            let given = request.assignments.len();
            let reason = format!("{added} partitions are added, {given} are assigned");
            return Err(CommandError::InvalidReplicaAssignment(reason));
        };
        self.emit_new_partitions(topic_id, present, placed, &startable);
        Ok(())
    }

    /// Partitions from number `first` on, in their first state.
    pub(super) fn emit_new_partitions(
        &mut self,
        topic_id: TopicId,
        first: i32,
        placed: Vec<Vec<BrokerId>>,
        startable: &Electable,
    ) {
        for (partition, replicas) in (first..).zip(placed) {
            let id = PartitionId {
                topic_id,
                partition: PartitionIndex(partition),
            };
            let state = new_partition(replicas, startable);
            self.emit(Record::Partition { id, state });
        }
    }
}
