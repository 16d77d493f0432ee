//! What is known of the cluster: brokers, topics, leaders. A snapshot, replaced and never changed.
//!
//! # Invariants
//! * What is known of a partition's leader never goes back to an older leader epoch of the same
//!   topic: brokers learn of a change at different times (KIP-320).

use std::{collections::BTreeMap, fmt, sync::Arc};

use ottla_types::{BrokerId, TopicId};
use ottla_wire::{ErrorCode, messages};

use crate::error::code;

/// A partition by its topic's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
}

impl TopicPartition {
    /// The partition of this topic and number.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> TopicPartition {
        TopicPartition {
            topic: topic.into(),
            partition,
        }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A snapshot of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    /// The cluster's id, if the brokers say it.
    pub cluster_id: Option<String>,
    /// A broker to send administrative requests to.
    pub controller: Option<BrokerId>,
    /// The live brokers.
    pub brokers: BTreeMap<BrokerId, Node>,
    /// The topics that were asked for.
    pub topics: BTreeMap<Arc<str>, Topic>,
}

/// A broker's address on the listener in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The broker.
    pub id: BrokerId,
    /// Host.
    pub host: String,
    /// Port.
    pub port: i32,
    /// Rack.
    pub rack: Option<String>,
}

impl Node {
    /// `host:port`, as sockets want it.
    #[must_use]
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            return format!("[{}]:{}", self.host, self.port);
        }
        format!("{}:{}", self.host, self.port)
    }
}

/// A topic.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its id, if the brokers know ids.
    pub id: Option<TopicId>,
    /// Whether it is one of the brokers' own.
    pub is_internal: bool,
    /// Why nothing more is known of it.
    pub error: Option<ErrorCode>,
    /// Its partitions, by number.
    pub partitions: BTreeMap<i32, Partition>,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Who leads it, if anybody does.
    pub leader: Option<BrokerId>,
    /// The leadership this is about; `None` from brokers before 2.1.
    pub leader_epoch: Option<i32>,
    /// Its assigned replicas.
    pub replicas: Vec<BrokerId>,
    /// Those in sync.
    pub isr: Vec<BrokerId>,
    /// Those on a broken disk or a dead broker.
    pub offline_replicas: Vec<BrokerId>,
}

impl Metadata {
    /// The topic, if it exists and may be seen.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics
            .get(name)
            .filter(|topic| topic.error.is_none_or(|error| error == ErrorCode::None))
    }

    /// The partition, if it is known.
    #[must_use]
    pub fn partition(&self, partition: &TopicPartition) -> Option<&Partition> {
        self.topic(&partition.topic)?
            .partitions
            .get(&partition.partition)
    }

    /// Who leads the partition, if that is a broker whose address is known.
    #[must_use]
    pub fn leader(&self, partition: &TopicPartition) -> Option<BrokerId> {
        let leader = self.partition(partition)?.leader?;
        self.brokers.contains_key(&leader).then_some(leader)
    }

    /// The name of a topic by its id.
    #[must_use]
    pub fn topic_name(&self, id: TopicId) -> Option<&Arc<str>> {
        self.topics
            .iter()
            .find(|(_, topic)| topic.id == Some(id))
            .map(|(name, _)| name)
    }

    /// This snapshot with an answer folded in; the topics that were not asked for stay, unless
    /// all were asked for.
    pub(crate) fn updated(&self, response: &messages::MetadataResponse, all: bool) -> Metadata {
        let brokers = response.brokers.iter().map(|broker| {
            let id = BrokerId(broker.node_id.0);
            let node = Node {
                id,
                host: broker.host.to_string(),
                port: broker.port,
                rack: broker.rack.as_ref().map(ToString::to_string),
            };
            (id, node)
        });
        let mut topics = if all {
            BTreeMap::new()
        } else {
            self.topics.clone()
        };
        for answered in &response.topics {
            let Some(name) = &answered.name else { continue };
            let name: Arc<str> = name.as_str().into();
            let topic = updated_topic(self.topics.get(&name), answered);
            topics.insert(name, topic);
        }
        Metadata {
            cluster_id: response.cluster_id.as_ref().map(ToString::to_string),
            controller: BrokerId::new(response.controller_id.0),
            brokers: brokers.collect(),
            topics,
        }
    }

    /// This snapshot with a leader that an error named (KIP-951); `None` if that is no news.
    pub(crate) fn with_leader(
        &self,
        partition: &TopicPartition,
        leader: BrokerId,
        leader_epoch: i32,
        endpoint: Option<Node>,
    ) -> Option<Metadata> {
        let known = self.partition(partition)?;
        if known
            .leader_epoch
            .is_some_and(|known| known >= leader_epoch)
        {
            return None;
        }
        let mut updated = self.clone();
        if let Some(node) = endpoint {
            updated.brokers.insert(leader, node);
        }
        if !updated.brokers.contains_key(&leader) {
            return None;
        }
        let topic = updated.topics.get_mut(&partition.topic)?;
        let known = topic.partitions.get_mut(&partition.partition)?;
        known.leader = Some(leader);
        known.leader_epoch = Some(leader_epoch);
        Some(updated)
    }
}

fn updated_topic(
    known: Option<&Topic>,
    answered: &messages::metadata_response::MetadataResponseTopic,
) -> Topic {
    let id = TopicId::new(answered.topic_id);
    let error = code(answered.error_code);
    // A topic that is created again under its name begins its epochs anew.
    let known = known.filter(|known| known.id == id);
    let partitions = answered.partitions.iter().map(|partition| {
        let ids = |nodes: &[messages::BrokerId]| nodes.iter().map(|id| BrokerId(id.0)).collect();
        let fresh = Partition {
            leader: BrokerId::new(partition.leader_id.0),
            leader_epoch: (partition.leader_epoch >= 0).then_some(partition.leader_epoch),
            replicas: ids(&partition.replica_nodes),
            isr: ids(&partition.isr_nodes),
            offline_replicas: ids(&partition.offline_replicas),
        };
        let newer = known
            .and_then(|topic| topic.partitions.get(&partition.partition_index))
            .filter(|known| {
                known.leader_epoch > fresh.leader_epoch && fresh.leader_epoch.is_some()
            });
        (partition.partition_index, newer.cloned().unwrap_or(fresh))
    });
    Topic {
        id,
        is_internal: answered.is_internal,
        error: (error != ErrorCode::None).then_some(error),
        partitions: partitions.collect(),
    }
}

#[cfg(test)]
mod tests {
    use ottla_wire::messages::metadata_response::{
        MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    };
    use uuid::Uuid;

    use super::*;

    fn response(topic_id: u128, leader: i32, epoch: i32) -> messages::MetadataResponse {
        let brokers = (1..=3).map(|id| {
            MetadataResponseBroker::default()
                .with_node_id(id.into())
                .with_host("h".to_owned().into())
                .with_port(9092)
        });
        let partition = MetadataResponsePartition::default()
            .with_leader_id(leader.into())
            .with_leader_epoch(epoch);
        let topic = MetadataResponseTopic::default()
            .with_name(Some(messages::TopicName("t".to_owned().into())))
            .with_topic_id(Uuid::from_u128(topic_id))
            .with_partitions(vec![partition]);
        messages::MetadataResponse::default()
            .with_brokers(brokers.collect())
            .with_topics(vec![topic])
    }

    #[test]
    fn leaders_do_not_go_back_to_an_older_epoch_of_the_same_topic() {
        let partition = TopicPartition::new("t", 0);
        let first = Metadata::default().updated(&response(7, 1, 5), false);
        assert_eq!(first.leader(&partition), Some(BrokerId(1)));
        let stale = first.updated(&response(7, 2, 4), false);
        assert_eq!(stale.leader(&partition), Some(BrokerId(1)));
        let newer = first.updated(&response(7, 2, 6), false);
        assert_eq!(newer.leader(&partition), Some(BrokerId(2)));
        let created_again = first.updated(&response(8, 3, 0), false);
        assert_eq!(created_again.leader(&partition), Some(BrokerId(3)));
    }

    #[test]
    fn a_leader_named_by_an_error_counts_only_if_it_is_newer_and_can_be_reached() {
        let partition = TopicPartition::new("t", 0);
        let known = Metadata::default().updated(&response(7, 1, 5), false);
        assert!(
            known
                .with_leader(&partition, BrokerId(2), 5, None)
                .is_none()
        );
        assert!(
            known
                .with_leader(&partition, BrokerId(9), 6, None)
                .is_none()
        );
        let hinted = known.with_leader(&partition, BrokerId(2), 6, None).unwrap();
        assert_eq!(hinted.leader(&partition), Some(BrokerId(2)));
    }

    #[test]
    fn topics_not_asked_for_stay_known() {
        let known = Metadata::default().updated(&response(7, 1, 5), false);
        let empty = messages::MetadataResponse::default();
        assert!(known.updated(&empty, false).topic("t").is_some());
        assert!(known.updated(&empty, true).topic("t").is_none());
    }
}
