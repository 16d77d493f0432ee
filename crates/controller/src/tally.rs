//! Counts over all partitions, kept up to date record by record, so that neither metrics nor a
//! broker that stops cost a walk over the cluster.

use std::collections::BTreeMap;

use ottla_metadata::{Image, PartitionRecord, Record};
use ottla_types::{BrokerId, LeaderEpoch, PartitionId, PartitionIndex, TopicId};

#[derive(Clone, Copy, Debug)]
struct Partition {
    leader: Option<BrokerId>,
    preferred: Option<BrokerId>,
    leader_epoch: LeaderEpoch,
    recovering: bool,
    possible_loss: bool,
}

/// How many partitions are in which state.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    partitions: BTreeMap<(TopicId, PartitionIndex), Partition>,
    led_by: BTreeMap<BrokerId, usize>,
    offline: usize,
    imbalanced: usize,
    elections: u64,
    unclean_elections: u64,
    possible_losses: u64,
}

impl Tally {
    /// Counts a whole image. Elections that led to it are not counted.
    pub(crate) fn of(image: &Image) -> Tally {
        let mut tally = Tally::default();
        for (id, record) in image.partitions() {
            tally.partition(id, record);
        }
        tally.elections = 0;
        tally.unclean_elections = 0;
        tally.possible_losses = 0;
        tally
    }

    /// Folds one record in.
    pub(crate) fn record(&mut self, record: &Record) {
        match record {
            Record::Partition { id, state } => self.partition(*id, state),
            Record::RemoveTopic { topic_id } => self.remove_topic(*topic_id),
            Record::Cluster { .. }
            | Record::Topic { .. }
            | Record::Broker(_)
            | Record::RemoveBroker { .. }
            | Record::Config { .. }
            | Record::ProducerIds { .. }
            | Record::Feature { .. } => {}
        }
    }

    fn partition(&mut self, id: PartitionId, record: &PartitionRecord) {
        let now = Partition {
            leader: record.leader,
            preferred: record.replicas.first().copied(),
            leader_epoch: record.leader_epoch,
            recovering: record.recovering,
            possible_loss: record.possible_loss,
        };
        let before = self.partitions.insert((id.topic_id, id.partition), now);
        if let Some(before) = before {
            self.uncount(before);
            if now.leader.is_some() && now.leader_epoch > before.leader_epoch {
                self.count_election(id, before, now);
            }
        }
        self.count(now);
    }

    fn count_election(&mut self, id: PartitionId, before: Partition, now: Partition) {
        self.elections += 1;
        if now.possible_loss {
            tracing::warn!(partition = %id, leader = ?now.leader, leader_epoch = %now.leader_epoch,
                "led by the longest log: records acknowledged before their flush may be lost");
            self.possible_losses += 1;
        } else if now.recovering && !before.recovering {
            self.unclean_elections += 1;
        }
    }

    fn remove_topic(&mut self, topic_id: TopicId) {
        let whole = (topic_id, PartitionIndex(0))..=(topic_id, PartitionIndex(i32::MAX));
        let keys: Vec<_> = self.partitions.range(whole).map(|(key, _)| *key).collect();
        for key in keys {
            if let Some(gone) = self.partitions.remove(&key) {
                self.uncount(gone);
            }
        }
    }

    fn count(&mut self, partition: Partition) {
        match partition.leader {
            Some(leader) => *self.led_by.entry(leader).or_default() += 1,
            None => self.offline += 1,
        }
        self.imbalanced += usize::from(partition.leader != partition.preferred);
    }

    fn uncount(&mut self, partition: Partition) {
        match partition.leader {
            Some(leader) => {
                if let Some(count) = self.led_by.get_mut(&leader) {
                    *count = count.saturating_sub(1);
                }
            }
            None => self.offline = self.offline.saturating_sub(1),
        }
        let imbalanced = usize::from(partition.leader != partition.preferred);
        self.imbalanced = self.imbalanced.saturating_sub(imbalanced);
    }

    /// Partitions that `broker` leads.
    pub(crate) fn led_by(&self, broker: BrokerId) -> usize {
        self.led_by.get(&broker).copied().unwrap_or(0)
    }

    /// Partitions in all.
    pub(crate) fn partitions(&self) -> usize {
        self.partitions.len()
    }

    /// Partitions that nobody leads (M-2).
    pub(crate) fn offline(&self) -> usize {
        self.offline
    }

    /// Partitions that their preferred replica does not lead.
    pub(crate) fn imbalanced(&self) -> usize {
        self.imbalanced
    }

    /// Leaders elected since the process started (M-7).
    pub(crate) fn elections(&self) -> u64 {
        self.elections
    }

    /// Leaders elected for the longest of logs that may all have lost something (P-13, R-14).
    pub(crate) fn possible_losses(&self) -> u64 {
        self.possible_losses
    }

    /// Leaders elected from outside ISR and ELR since the process started (M-6).
    pub(crate) fn unclean_elections(&self) -> u64 {
        self.unclean_elections
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn record(topic: u128, leader: Option<i32>, epoch: i32) -> Record {
        let topic_id = TopicId::new(Uuid::from_u128(topic)).unwrap();
        Record::Partition {
            id: PartitionId {
                topic_id,
                partition: PartitionIndex(0),
            },
            state: PartitionRecord {
                replicas: vec![BrokerId(1), BrokerId(2)],
                isr: vec![BrokerId(1), BrokerId(2)],
                leader: leader.map(BrokerId),
                leader_epoch: LeaderEpoch::saturating(epoch),
                ..PartitionRecord::default()
            },
        }
    }

    #[test]
    fn the_longest_log_is_counted_apart_from_unclean_elections() {
        let elected = |epoch, possible_loss| {
            let mut record = record(1, Some(1), epoch);
            if let Record::Partition { state, .. } = &mut record {
                state.recovering = true;
                state.possible_loss = possible_loss;
            }
            record
        };
        let mut tally = Tally::default();
        tally.record(&record(1, None, 0));
        tally.record(&elected(1, true));
        assert_eq!((tally.possible_losses(), tally.unclean_elections()), (1, 0));
        tally.record(&record(1, None, 2));
        tally.record(&elected(3, false));
        assert_eq!((tally.possible_losses(), tally.unclean_elections()), (1, 1));
    }

    #[test]
    fn counts_follow_the_records() {
        let mut tally = Tally::default();
        tally.record(&record(1, Some(1), 0));
        tally.record(&record(2, Some(1), 0));
        assert_eq!((tally.led_by(BrokerId(1)), tally.elections()), (2, 0));
        tally.record(&record(1, None, 1));
        assert_eq!(
            (
                tally.led_by(BrokerId(1)),
                tally.offline(),
                tally.imbalanced()
            ),
            (1, 1, 1)
        );
        tally.record(&record(1, Some(2), 2));
        assert_eq!(
            (
                tally.led_by(BrokerId(2)),
                tally.offline(),
                tally.elections()
            ),
            (1, 0, 1)
        );
        let topic_id = TopicId::new(Uuid::from_u128(1)).unwrap();
        tally.record(&Record::RemoveTopic { topic_id });
        assert_eq!(
            (
                tally.partitions(),
                tally.led_by(BrokerId(2)),
                tally.imbalanced()
            ),
            (1, 0, 0)
        );
    }
}
