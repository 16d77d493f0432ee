//! ISR changes that leaders propose (KIP-497, KIP-903): compare and set on the partition epoch.

use std::collections::BTreeSet;

use ottla_types::{BrokerEpoch, BrokerId, PartitionId};

use super::Draft;
use crate::elections::{electable, relieve, replace_isr, seal};
use crate::{AlterPartition, AlterPartitionError, CommandError, Outcome, PartitionRecord, Record};

impl Draft<'_> {
    pub(super) fn alter_partitions(
        &mut self,
        broker_id: BrokerId,
        broker_epoch: BrokerEpoch,
        proposals: &[AlterPartition],
        live: &BTreeSet<BrokerId>,
    ) -> Outcome {
        if self
            .image
            .broker(broker_id)
            .is_none_or(|broker| broker.epoch != broker_epoch)
        {
            return Outcome::Refused(CommandError::StaleBrokerEpoch);
        }
        let answer = |proposal: &AlterPartition| {
            (proposal.id, self.alter_partition(broker_id, proposal, live))
        };
        Outcome::AlteredPartitions(proposals.iter().map(answer).collect())
    }

    fn alter_partition(
        &mut self,
        sender: BrokerId,
        proposal: &AlterPartition,
        live: &BTreeSet<BrokerId>,
    ) -> Result<PartitionRecord, AlterPartitionError> {
        let PartitionId {
            topic_id,
            partition,
        } = proposal.id;
        let topic = self.image.topics.get(&topic_id);
        let topic = topic.ok_or(AlterPartitionError::UnknownPartition)?;
        let before = topic.partitions.get(&partition);
        let before = before.ok_or(AlterPartitionError::UnknownPartition)?;
        check_epochs(sender, proposal, before)?;
        check_shape(sender, proposal, before)?;
        self.check_members(proposal, before, live)?;

        let min_isr = self
            .image
            .min_insync_replicas(&topic.name, before.replicas.len());
        let mut after = before.clone();
        if proposal.recovered {
            after.recovering = false;
        }
        let isr = proposal.isr.iter().map(|&(member, _)| member).collect();
        replace_isr(&mut after, isr, min_isr);
        relieve(&mut after, &electable(self.image, live));
        let state = seal(before, after).unwrap_or_else(|| PartitionRecord {
            // The committed ISR proposed again settles an earlier proposal whose outcome the leader
            // does not know: with the epoch raised, that one can no longer win.
            partition_epoch: before.partition_epoch.next(),
            ..before.clone()
        });
        self.emit(Record::Partition {
            id: proposal.id,
            state: state.clone(),
        });
        Ok(state)
    }

    /// a member is in service under the very registration in which it was seen (B-3).
    fn check_members(
        &self,
        proposal: &AlterPartition,
        before: &PartitionRecord,
        live: &BTreeSet<BrokerId>,
    ) -> Result<(), AlterPartitionError> {
        for &(member, seen) in &proposal.isr {
            let joins = !before.isr.contains(&member);
            let eligible = self.image.broker(member).is_some_and(|broker| {
                let same_life = match seen {
                    Some(epoch) => epoch == broker.epoch,
                    // A join that does not say whom it means cannot be told from one that raced
                    // with a wipe of that broker's disk.
                    None => !joins,
                };
                // A dying broker is not let in again just before it is fenced.
                let reachable = !joins || live.is_empty() || live.contains(&member);
                same_life && reachable && broker.in_service()
            });
            if !eligible {
                return Err(AlterPartitionError::IneligibleReplica(member));
            }
        }
        Ok(())
    }
}

fn check_epochs(
    sender: BrokerId,
    proposal: &AlterPartition,
    current: &PartitionRecord,
) -> Result<(), AlterPartitionError> {
    if proposal.leader_epoch > current.leader_epoch {
        return Err(AlterPartitionError::ControllerBehind);
    }
    if proposal.leader_epoch < current.leader_epoch {
        return Err(AlterPartitionError::FencedLeaderEpoch {
            current: current.leader_epoch,
        });
    }
    if current.leader != Some(sender) {
        let reason = format!("broker {sender} is not the leader");
        return Err(AlterPartitionError::Invalid(reason));
    }
    if proposal.partition_epoch < current.partition_epoch {
        return Err(AlterPartitionError::InvalidUpdateVersion {
            current: current.partition_epoch,
        });
    }
    if proposal.partition_epoch > current.partition_epoch {
        return Err(AlterPartitionError::ControllerBehind);
    }
    Ok(())
}

fn check_shape(
    sender: BrokerId,
    proposal: &AlterPartition,
    current: &PartitionRecord,
) -> Result<(), AlterPartitionError> {
    let invalid = |reason: &str| Err(AlterPartitionError::Invalid(reason.to_owned()));
    let members: BTreeSet<_> = proposal.isr.iter().map(|&(member, _)| member).collect();
    if members.is_empty() {
        return invalid("it is empty");
    }
    if members.len() < proposal.isr.len() {
        return invalid("it names a broker twice");
    }
    if !members
        .iter()
        .all(|member| current.replicas.contains(member))
    {
        return invalid("it names a broker that is no replica");
    }
    if !members.contains(&sender) {
        return invalid("it lacks the leader");
    }
    if current.recovering && !proposal.recovered && members.len() > 1 {
        return invalid("a leader that recovers cannot have followers in sync");
    }
    Ok(())
}
