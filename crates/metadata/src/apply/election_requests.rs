//! Elections that somebody asks for: back to the preferred leader, or an unclean one.

use std::collections::BTreeSet;

use ottla_types::{BrokerId, PartitionId, PartitionIndex};

use super::Draft;
use crate::elections::{Electable, elect, electable, lead, seal};
use crate::{CommandError, ElectLeaders, ElectionKind, Outcome, PartitionRecord, Record};

/// One partition that is asked for, under the name it was asked by.
type Asked = (String, PartitionIndex, Option<PartitionId>);

impl Draft<'_> {
    /// Of partitions that were not named one by one, those that need no election are left out of
    /// the answer.
    pub(super) fn elect_leaders(
        &mut self,
        request: &ElectLeaders,
        live: &BTreeSet<BrokerId>,
    ) -> Outcome {
        let electable = electable(self.image, live);
        let mut answers = Vec::new();
        for (name, partition, id) in self.asked(request) {
            let result = match id {
                Some(id) => self.elect_one(id, &name, request.kind, &electable),
                None => Err(CommandError::UnknownTopicOrPartition),
            };
            let all_is_well = result == Err(CommandError::ElectionNotNeeded);
            if request.partitions.is_some() || !all_is_well {
                answers.push((name, partition, result));
            }
        }
        Outcome::Elections(answers)
    }

    fn asked(&self, request: &ElectLeaders) -> Vec<Asked> {
        let find = |name: &String, partition: PartitionIndex| {
            let id = PartitionId {
                topic_id: *self.image.topic_ids.get(name)?,
                partition,
            };
            self.image.partition(id).map(|_| id)
        };
        match &request.partitions {
            Some(named) => {
                let found = named
                    .iter()
                    .map(|(name, partition)| (name.clone(), *partition, find(name, *partition)));
                found.collect()
            }
            None => {
                let all = self.image.topics.values().flat_map(|topic| {
                    topic.partitions.keys().map(|&partition| {
                        let id = PartitionId {
                            topic_id: topic.topic_id,
                            partition,
                        };
                        (topic.name.clone(), partition, Some(id))
                    })
                });
                all.collect()
            }
        }
    }

    fn elect_one(
        &mut self,
        id: PartitionId,
        topic: &str,
        kind: ElectionKind,
        electable: &Electable,
    ) -> Result<(), CommandError> {
        let before = self.image.partition(id);
        let before = before.ok_or(CommandError::UnknownTopicOrPartition)?;
        let rules = self.image.topic_rules(topic);
        let min_isr = rules.min_isr(before.replicas.len());
        let mut after = before.clone();
        let result = match kind {
            ElectionKind::Preferred => {
                // One without any leader gets the best there is, preferred or not.
                elect(
                    &mut after,
                    electable,
                    min_isr,
                    rules.unclean_leader_election,
                );
                prefer(before, &mut after, electable)
            }
            ElectionKind::Unclean if before.leader.is_some() => {
                Err(CommandError::ElectionNotNeeded)
            }
            ElectionKind::Unclean => {
                elect(&mut after, electable, min_isr, true);
                let elected = after.leader.is_some();
                if elected {
                    Ok(())
                } else {
                    Err(CommandError::EligibleLeadersNotAvailable)
                }
            }
        };
        if let Some(state) = seal(before, after) {
            self.emit(Record::Partition { id, state });
        }
        result
    }
}

/// Makes the first replica of the assignment the leader, if it is in sync, in service and not
/// without room where the present leader has some.
fn prefer(
    before: &PartitionRecord,
    after: &mut PartitionRecord,
    electable: &Electable,
) -> Result<(), CommandError> {
    let preferred = after.replicas.first().copied();
    if preferred.is_some() && before.leader == preferred {
        return Err(CommandError::ElectionNotNeeded);
    }
    if after.leader == preferred {
        return Ok(());
    }
    let leader_is_full = after
        .leader
        .is_some_and(|leader| electable.full.contains(&leader));
    let fit = |id: &BrokerId| {
        after.isr.contains(id)
            && electable.brokers.contains(id)
            && (leader_is_full || !electable.full.contains(id))
    };
    match preferred.filter(fit) {
        Some(preferred) => {
            lead(after, preferred);
            Ok(())
        }
        None => Err(CommandError::PreferredLeaderNotAvailable),
    }
}
