//! A broker's view of the cluster: the fold of all records up to an index.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use ottla_types::{BrokerId, PartitionId, PartitionIndex, ProducerId, TopicId};

use crate::{BrokerRecord, ConfigResource, PartitionRecord, Record};

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicImage {
    /// Its identity.
    pub topic_id: TopicId,
    /// Its name.
    pub name: String,
    /// Its partitions.
    pub partitions: BTreeMap<PartitionIndex, PartitionRecord>,
}

/// The cluster as of [`Image::index`].
///
/// Cheap to clone: topics are shared until one changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Index of the last controller log entry folded in; zero for none.
    pub index: u64,
    /// The cluster's id, once it has one.
    pub cluster_id: Option<String>,
    /// Every topic.
    pub topics: BTreeMap<TopicId, Arc<TopicImage>>,
    /// Topic ids by name.
    pub topic_ids: BTreeMap<String, TopicId>,
    /// Every registered broker.
    pub brokers: BTreeMap<BrokerId, Arc<BrokerRecord>>,
    /// Dynamic configs.
    pub configs: BTreeMap<ConfigResource, BTreeMap<String, String>>,
    /// Finalized feature levels.
    pub features: BTreeMap<String, i16>,
    /// First producer id of the next block.
    pub next_producer_id: ProducerId,
}

impl Image {
    /// Folds one record in. Records about unknown topics are ignored: a replay after a removal.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Cluster { cluster_id } => self.cluster_id = Some(cluster_id.clone()),
            Record::Topic { topic_id, name } => {
                self.topic_ids.insert(name.clone(), *topic_id);
                self.topics.entry(*topic_id).or_insert_with(|| {
                    Arc::new(TopicImage {
                        topic_id: *topic_id,
                        name: name.clone(),
                        partitions: BTreeMap::new(),
                    })
                });
            }
            Record::RemoveTopic { topic_id } => {
                if let Some(topic) = self.topics.remove(topic_id) {
                    if self.topic_ids.get(&topic.name) == Some(topic_id) {
                        self.topic_ids.remove(&topic.name);
                    }
                    self.configs
                        .remove(&ConfigResource::Topic(topic.name.clone()));
                }
            }
            Record::Partition { id, state } => {
                if let Some(topic) = self.topics.get_mut(&id.topic_id) {
                    Arc::make_mut(topic)
                        .partitions
                        .insert(id.partition, state.clone());
                }
            }
            Record::Broker(broker) => {
                self.brokers
                    .insert(broker.broker_id, Arc::new(broker.clone()));
            }
            Record::RemoveBroker { broker_id } => {
                self.brokers.remove(broker_id);
            }
            Record::Config {
                resource,
                key,
                value,
            } => self.apply_config(resource, key, value),
            Record::ProducerIds { next } => self.next_producer_id = *next,
            Record::Feature { name, level: 0 } => {
                self.features.remove(name);
            }
            Record::Feature { name, level } => {
                self.features.insert(name.clone(), *level);
            }
        }
    }

    fn apply_config(&mut self, resource: &ConfigResource, key: &str, value: &Option<String>) {
        match value {
            Some(value) => {
                let keys = self.configs.entry(resource.clone()).or_default();
                keys.insert(key.to_owned(), value.clone());
            }
            None => {
                if let Some(keys) = self.configs.get_mut(resource) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.configs.remove(resource);
                    }
                }
            }
        }
    }

    /// The topic of this name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(self.topic_ids.get(name)?)
    }

    /// The state of one partition.
    #[must_use]
    pub fn partition(&self, id: PartitionId) -> Option<&PartitionRecord> {
        self.topics.get(&id.topic_id)?.partitions.get(&id.partition)
    }

    /// Dynamic configs of a resource; `None` where none is set.
    #[must_use]
    pub fn configs_of(&self, resource: &ConfigResource) -> Option<&BTreeMap<String, String>> {
        self.configs.get(resource)
    }

    /// Brokers that clients are told of: registered and not fenced.
    pub fn live_brokers(&self) -> impl Iterator<Item = &Arc<BrokerRecord>> {
        self.brokers.values().filter(|broker| !broker.fenced)
    }
}
