//! ListPartitionReassignments: partitions that are moving.

use std::collections::BTreeSet;

use ottla_metadata::{PartitionRecord, TopicImage};
use ottla_types::BrokerId;
use ottla_wire::messages::{
    self, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, TopicName,
    list_partition_reassignments_response::{
        OngoingPartitionReassignment, OngoingTopicReassignment,
    },
};

use super::{CountErrors, count};
use crate::context::RequestContext;

pub(super) async fn handle(
    cx: &RequestContext,
    request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let image = cx.image();
    let topics: Vec<OngoingTopicReassignment> = match &request.topics {
        None => image
            .topics
            .values()
            .filter_map(|topic| ongoing(topic, None))
            .collect(),
        Some(asked) => {
            let found = asked.iter().filter_map(|asked| {
                let wanted = asked.partition_indexes.iter().copied().collect();
                ongoing(image.topic(&asked.name)?, Some(&wanted))
            });
            found.collect()
        }
    };
    ListPartitionReassignmentsResponse::default().with_topics(topics)
}

/// The topic's partitions in motion; `None` if there are none.
fn ongoing(topic: &TopicImage, wanted: Option<&BTreeSet<i32>>) -> Option<OngoingTopicReassignment> {
    let moving = topic.partitions.iter().filter(|(index, state)| {
        wanted.is_none_or(|wanted| wanted.contains(&index.get())) && is_moving(state)
    });
    let rows: Vec<OngoingPartitionReassignment> = moving
        .map(|(index, state)| {
            OngoingPartitionReassignment::default()
                .with_partition_index(index.get())
                .with_replicas(ids(&state.replicas))
                .with_adding_replicas(ids(&state.adding_replicas))
                .with_removing_replicas(ids(&state.removing_replicas))
        })
        .collect();
    let name = TopicName(topic.name.clone().into());
    let topic = OngoingTopicReassignment::default().with_name(name);
    (!rows.is_empty()).then(|| topic.with_partitions(rows))
}

fn is_moving(state: &PartitionRecord) -> bool {
    !state.adding_replicas.is_empty() || !state.removing_replicas.is_empty()
}

fn ids(brokers: &[BrokerId]) -> Vec<messages::BrokerId> {
    brokers
        .iter()
        .map(|broker| messages::BrokerId(broker.get()))
        .collect()
}

impl CountErrors for ListPartitionReassignmentsResponse {
    fn count_errors(&self) -> usize {
        count([self.error_code])
    }
}
