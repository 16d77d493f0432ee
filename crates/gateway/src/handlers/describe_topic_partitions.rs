//! DescribeTopicPartitions: topics with their eligible leader replicas, page by page (KIP-966).

use std::collections::BTreeSet;

use ottla_metadata::{Image, PartitionRecord, TopicImage};
use ottla_types::{BrokerId, PartitionIndex};
use ottla_wire::{
    ErrorCode,
    messages::{
        self, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
        describe_topic_partitions_response::{
            Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
        },
    },
};

use super::{CountErrors, count};
use crate::{access, context::RequestContext, endpoints::live_endpoint, topic_names};

pub(super) async fn handle(
    cx: &RequestContext,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let image = cx.image();
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(0);
    let limit = limit
        .min(cx.config().server.network.max_request_partition_size_limit)
        .max(1);
    let (from_topic, from_partition) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.as_str(), cursor.partition_index),
        None => ("", 0),
    };
    // Sorted by name; an empty list asks for all.
    let names: BTreeSet<&str> = if request.topics.is_empty() {
        image.topic_ids.keys().map(String::as_str).collect()
    } else {
        request
            .topics
            .iter()
            .map(|topic| topic.name.as_str())
            .collect()
    };
    let cursor_is_known =
        request.cursor.is_none() || request.topics.is_empty() || names.contains(from_topic);
    if !cursor_is_known {
        let row = unknown(from_topic, ErrorCode::InvalidRequest);
        return DescribeTopicPartitionsResponse::default().with_topics(vec![row]);
    }
    let mut page = Page {
        left: limit,
        topics: Vec::new(),
        next: None,
    };
    for name in names.into_iter().filter(|name| *name >= from_topic) {
        let first = if name == from_topic {
            from_partition
        } else {
            0
        };
        page.add(&image, &cx.peer.listener, name, first);
        if page.next.is_some() {
            break;
        }
    }
    DescribeTopicPartitionsResponse::default()
        .with_topics(page.topics)
        .with_next_cursor(page.next)
}

/// One response: at most so many partitions, then where to go on.
struct Page {
    left: usize,
    topics: Vec<DescribeTopicPartitionsResponseTopic>,
    next: Option<Cursor>,
}

impl Page {
    fn add(&mut self, image: &Image, listener: &str, name: &str, first: i32) {
        let Some(topic) = image.topic(name) else {
            let code = match topic_names::check(name) {
                Ok(()) => ErrorCode::UnknownTopicOrPartition,
                Err(_) => ErrorCode::InvalidTopicException,
            };
            self.topics.push(unknown(name, code));
            return;
        };
        let cursor = |partition: i32| {
            let name = TopicName(name.to_owned().into());
            Cursor::default()
                .with_topic_name(name)
                .with_partition_index(partition)
        };
        if self.left == 0 {
            self.next = Some(cursor(first));
            return;
        }
        let mut rows = Vec::new();
        for (index, state) in topic.partitions.range(PartitionIndex(first.max(0))..) {
            if self.left == 0 {
                self.next = Some(cursor(index.get()));
                break;
            }
            self.left -= 1;
            rows.push(partition(image, listener, *index, state));
        }
        self.topics.push(described(topic, rows));
    }
}

fn unknown(name: &str, code: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(TopicName(name.to_owned().into())))
        .with_error_code(code.code())
}

fn described(
    topic: &TopicImage,
    rows: Vec<DescribeTopicPartitionsResponsePartition>,
) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(TopicName(topic.name.clone().into())))
        .with_topic_id(topic.topic_id.uuid())
        .with_is_internal(topic_names::is_internal(&topic.name))
        .with_topic_authorized_operations(access::topic_operations(true))
        .with_partitions(rows)
}

fn partition(
    image: &Image,
    listener: &str,
    index: PartitionIndex,
    state: &PartitionRecord,
) -> DescribeTopicPartitionsResponsePartition {
    let reachable = |broker: &BrokerId| live_endpoint(image, *broker, listener).is_some();
    let leader = state.leader.filter(reachable);
    let leader_lives = state
        .leader
        .and_then(|leader| image.brokers.get(&leader))
        .is_some_and(|b| !b.fenced);
    let code = match leader {
        Some(_) => ErrorCode::None,
        None if leader_lives => ErrorCode::ListenerNotFound,
        None => ErrorCode::LeaderNotAvailable,
    };
    let replicas = state.replicas.iter().copied();
    let offline: Vec<BrokerId> = replicas
        .filter(|broker| image.is_replica_offline(*broker))
        .collect();
    DescribeTopicPartitionsResponsePartition::default()
        .with_error_code(code.code())
        .with_partition_index(index.get())
        .with_leader_id(messages::BrokerId(leader.map_or(-1, BrokerId::get)))
        .with_leader_epoch(state.leader_epoch.get())
        .with_replica_nodes(ids(&state.replicas))
        .with_isr_nodes(ids(&state.isr))
        .with_eligible_leader_replicas(Some(ids(&state.elr)))
        .with_last_known_elr(Some(ids(&state.last_known_elr)))
        .with_offline_replicas(ids(&offline))
}

fn ids(brokers: &[BrokerId]) -> Vec<messages::BrokerId> {
    brokers
        .iter()
        .map(|broker| messages::BrokerId(broker.get()))
        .collect()
}

impl CountErrors for DescribeTopicPartitionsResponse {
    fn count_errors(&self) -> usize {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        count(self.topics.iter().map(|topic| topic.error_code))
            + count(partitions.map(|partition| partition.error_code))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use ottla_types::TopicId;
    use uuid::Uuid;

    use super::*;
    use crate::endpoints::tests::image_of_brokers;

    fn image() -> Image {
        let mut image = image_of_brokers(1, &[]);
        let state = PartitionRecord {
            replicas: vec![BrokerId(1)],
            isr: vec![BrokerId(1)],
            leader: Some(BrokerId(1)),
            ..PartitionRecord::default()
        };
        for (number, name) in [(1, "a"), (2, "b")] {
            let topic_id = TopicId::new(Uuid::from_u128(number)).unwrap();
            let partitions: BTreeMap<_, _> = (0..3)
                .map(|index| (PartitionIndex(index), state.clone()))
                .collect();
            let topic = TopicImage {
                topic_id,
                name: name.into(),
                partitions,
            };
            image.topics.insert(topic_id, Arc::new(topic));
            image.topic_ids.insert(name.into(), topic_id);
        }
        image
    }

    #[test]
    fn a_page_ends_at_its_limit_and_says_where_to_go_on() {
        let image = image();
        let mut page = Page {
            left: 4,
            topics: Vec::new(),
            next: None,
        };
        page.add(&image, "CLIENTS", "a", 0);
        assert!(page.next.is_none());
        page.add(&image, "CLIENTS", "b", 0);
        assert_eq!(page.topics[1].partitions.len(), 1);
        let next = page.next.unwrap();
        assert_eq!((next.topic_name.as_str(), next.partition_index), ("b", 1));

        let mut rest = Page {
            left: 4,
            topics: Vec::new(),
            next: None,
        };
        rest.add(&image, "CLIENTS", "b", 1);
        assert_eq!(rest.topics[0].partitions.len(), 2);
        assert!(rest.next.is_none());
    }

    #[test]
    fn a_page_that_is_full_between_two_topics_goes_on_with_the_second() {
        let image = image();
        let mut page = Page {
            left: 3,
            topics: Vec::new(),
            next: None,
        };
        page.add(&image, "CLIENTS", "a", 0);
        page.add(&image, "CLIENTS", "b", 0);
        assert_eq!(page.topics.len(), 1);
        assert_eq!(page.next.unwrap().topic_name.as_str(), "b");
    }
}
