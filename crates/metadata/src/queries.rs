//! Questions that brokers, gateways and controllers ask an [`Image`].

use ottla_types::{BrokerId, PartitionId, TopicId};

use crate::{BrokerRecord, Image, PartitionRecord, Record};

impl Image {
    /// Folds in everything that one index decided.
    pub fn fold(&mut self, index: u64, records: &[Record]) {
        for record in records {
            self.apply(record);
        }
        self.index = index;
    }

    /// The whole image as records: folded into an empty image they give this one, but for its
    /// index.
    #[must_use]
    pub fn to_records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        if let Some(cluster_id) = &self.cluster_id {
            records.push(Record::Cluster {
                cluster_id: cluster_id.clone(),
            });
        }
        for (name, &level) in &self.features {
            records.push(Record::Feature {
                name: name.clone(),
                level,
            });
        }
        for broker in self.brokers.values() {
            records.push(Record::Broker(broker.as_ref().clone()));
        }
        for topic in self.topics.values() {
            let topic_id = topic.topic_id;
            records.push(Record::Topic {
                topic_id,
                name: topic.name.clone(),
            });
        }
        for (id, state) in self.partitions() {
            records.push(Record::Partition {
                id,
                state: state.clone(),
            });
        }
        for (resource, values) in &self.configs {
            for (key, value) in values {
                let (resource, key, value) = (resource.clone(), key.clone(), Some(value.clone()));
                records.push(Record::Config {
                    resource,
                    key,
                    value,
                });
            }
        }
        if self.next_producer_id.get() != 0 {
            records.push(Record::ProducerIds {
                next: self.next_producer_id,
            });
        }
        records
    }

    /// The name of a topic.
    #[must_use]
    pub fn topic_name(&self, topic_id: TopicId) -> Option<&str> {
        self.topics.get(&topic_id).map(|topic| topic.name.as_str())
    }

    /// A broker's registration.
    #[must_use]
    pub fn broker(&self, broker_id: BrokerId) -> Option<&BrokerRecord> {
        self.brokers.get(&broker_id).map(AsRef::as_ref)
    }

    /// Whether clients are told that replicas on this broker are offline: it is not registered,
    /// fenced, or its disk has failed.
    #[must_use]
    pub fn is_replica_offline(&self, broker_id: BrokerId) -> bool {
        self.broker(broker_id)
            .is_none_or(|broker| broker.fenced || !broker.offline_directories.is_empty())
    }

    /// Every partition, by topic id.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionId, &PartitionRecord)> {
        self.topics.values().flat_map(|topic| {
            topic.partitions.iter().map(|(&partition, record)| {
                (
                    PartitionId {
                        topic_id: topic.topic_id,
                        partition,
                    },
                    record,
                )
            })
        })
    }

    /// The partitions that a broker leads.
    pub fn partitions_led_by(
        &self,
        broker_id: BrokerId,
    ) -> impl Iterator<Item = (PartitionId, &PartitionRecord)> {
        self.partitions()
            .filter(move |(_, record)| record.leader == Some(broker_id))
    }

    /// The partitions of which a broker holds a replica.
    pub fn partitions_of(
        &self,
        broker_id: BrokerId,
    ) -> impl Iterator<Item = (PartitionId, &PartitionRecord)> {
        self.partitions()
            .filter(move |(_, record)| record.replicas.contains(&broker_id))
    }

    /// How many partitions nobody leads (M-2).
    #[must_use]
    pub fn offline_partitions(&self) -> usize {
        self.partitions()
            .filter(|(_, record)| record.leader.is_none())
            .count()
    }

    /// How many partitions have a replica outside the ISR (M-1).
    #[must_use]
    pub fn under_replicated_partitions(&self) -> usize {
        self.partitions()
            .filter(|(_, record)| record.isr.len() < record.replicas.len())
            .count()
    }

    /// How many partitions have fewer replicas in sync than `min.insync.replicas` (M-4).
    #[must_use]
    pub fn under_min_isr_partitions(&self) -> usize {
        let under = self.topics.values().map(|topic| {
            let rules = self.topic_rules(&topic.name);
            let records = topic.partitions.values();
            records
                .filter(|record| record.isr.len() < rules.min_isr(record.replicas.len()))
                .count()
        });
        under.sum()
    }

    /// Brokers that are registered but fenced (M-8).
    pub fn fenced_brokers(&self) -> impl Iterator<Item = &BrokerRecord> {
        self.brokers
            .values()
            .map(AsRef::as_ref)
            .filter(|broker| broker.fenced)
    }
}
