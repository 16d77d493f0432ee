//! Topics: creating, deleting, growing, describing.

use std::{collections::BTreeMap, sync::Arc};

use ottla_types::BrokerId;
use ottla_wire::{
    ErrorCode,
    messages::{
        CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest,
        create_partitions_request::CreatePartitionsTopic,
        create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
        delete_topics_request::DeleteTopicState,
        metadata_request::MetadataRequestTopic,
    },
};

use super::{
    Admin, AdminError, Refusal, item,
    route::{Repeat, passing_of},
};
use crate::{
    leaders::{text, wire_name},
    metadata::Metadata,
};

/// A topic to be created.
#[derive(Clone, Debug, Default)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Number of partitions; the brokers' default if not given.
    pub partitions: Option<i32>,
    /// Number of replicas; the brokers' default if not given.
    pub replication_factor: Option<i16>,
    /// Replicas by partition, instead of numbers.
    pub assignments: BTreeMap<i32, Vec<BrokerId>>,
    /// Configs that differ from the defaults.
    pub configs: BTreeMap<String, String>,
}

impl NewTopic {
    /// A topic with the brokers' defaults.
    pub fn new(name: impl Into<String>) -> NewTopic {
        NewTopic {
            name: name.into(),
            ..NewTopic::default()
        }
    }

    /// With this number of partitions.
    #[must_use]
    pub fn partitions(mut self, partitions: i32) -> NewTopic {
        self.partitions = Some(partitions);
        self
    }

    /// With this number of replicas.
    #[must_use]
    pub fn replication_factor(mut self, factor: i16) -> NewTopic {
        self.replication_factor = Some(factor);
        self
    }

    /// With a config.
    #[must_use]
    pub fn config(mut self, key: impl Into<String>, value: impl Into<String>) -> NewTopic {
        self.configs.insert(key.into(), value.into());
        self
    }
}

/// How each item of a request fared.
pub(super) type Results = BTreeMap<String, Result<(), Refusal>>;

impl Admin {
    /// Creates topics; `validate_only` checks without creating.
    ///
    /// # Errors
    /// The request as a whole; if it may have happened, look before trying again.
    pub async fn create_topics(
        &self,
        topics: &[NewTopic],
        validate_only: bool,
    ) -> Result<BTreeMap<String, Result<(), Refusal>>, AdminError> {
        let build = |_version: i16| {
            CreateTopicsRequest::default()
                .with_topics(topics.iter().map(creatable).collect())
                .with_timeout_ms(self.timeout_ms())
                .with_validate_only(validate_only)
        };
        let error_of = |response: &ottla_wire::messages::CreateTopicsResponse| {
            passing_of(response.topics.iter().map(|topic| topic.error_code))
        };
        let response = self.to_any(Repeat::IfNotSent, build, error_of).await?;
        let rows = response.topics.iter().map(|topic| {
            let result = item(topic.error_code, topic.error_message.as_ref());
            (topic.name.0.to_string(), result)
        });
        Ok(rows.collect())
    }

    /// Creates one topic.
    ///
    /// # Errors
    /// It was refused, or the request did not succeed.
    pub async fn create_topic(&self, topic: NewTopic) -> Result<(), AdminError> {
        let name = topic.name.clone();
        let mut results = self.create_topics(&[topic], false).await?;
        match results.remove(&name) {
            Some(result) => Ok(result?),
            None => Err(super::route::unanswered(&name)),
        }
    }

    /// Deletes topics by name.
    ///
    /// # Errors
    /// The request as a whole.
    pub async fn delete_topics(&self, names: &[&str]) -> Result<Results, AdminError> {
        let build = |version: i16| {
            let mut request = DeleteTopicsRequest::default().with_timeout_ms(self.timeout_ms());
            if version >= 6 {
                let rows = names
                    .iter()
                    .map(|name| DeleteTopicState::default().with_name(Some(wire_name(name))));
                request.topics = rows.collect();
            } else {
                request.topic_names = names.iter().map(|name| wire_name(name)).collect();
            }
            request
        };
        let error_of = |response: &ottla_wire::messages::DeleteTopicsResponse| {
            passing_of(response.responses.iter().map(|topic| topic.error_code))
        };
        let response = self.to_any(Repeat::IfNotSent, build, error_of).await?;
        let rows = response.responses.iter().filter_map(|topic| {
            let name = topic.name.as_ref()?.0.to_string();
            Some((name, item(topic.error_code, topic.error_message.as_ref())))
        });
        Ok(rows.collect())
    }

    /// Gives topics more partitions: the whole number that each is to have.
    ///
    /// # Errors
    /// The request as a whole.
    pub async fn create_partitions(
        &self,
        counts: &BTreeMap<String, i32>,
        validate_only: bool,
    ) -> Result<Results, AdminError> {
        let build = |_version: i16| {
            let topics = counts.iter().map(|(name, count)| {
                CreatePartitionsTopic::default()
                    .with_name(wire_name(name))
                    .with_count(*count)
                    .with_assignments(None)
            });
            CreatePartitionsRequest::default()
                .with_topics(topics.collect())
                .with_timeout_ms(self.timeout_ms())
                .with_validate_only(validate_only)
        };
        let error_of = |response: &ottla_wire::messages::CreatePartitionsResponse| {
            passing_of(response.results.iter().map(|topic| topic.error_code))
        };
        let response = self.to_any(Repeat::IfNotSent, build, error_of).await?;
        let rows = response.results.iter().map(|topic| {
            let result = item(topic.error_code, topic.error_message.as_ref());
            (topic.name.0.to_string(), result)
        });
        Ok(rows.collect())
    }

    /// The cluster with these topics, or with all; a topic's own error stands in its entry.
    ///
    /// # Errors
    /// The request as a whole.
    pub async fn describe_topics(&self, names: Option<&[&str]>) -> Result<Metadata, AdminError> {
        let names: Option<Vec<Arc<str>>> =
            names.map(|names| names.iter().map(|name| Arc::from(*name)).collect());
        let build = |version: i16| {
            let topics = names.as_ref().map(|names| {
                let rows = names
                    .iter()
                    .map(|name| MetadataRequestTopic::default().with_name(Some(wire_name(name))));
                rows.collect()
            });
            let mut request = MetadataRequest::default().with_topics(topics);
            if version >= 4 {
                request.allow_auto_topic_creation = false;
            }
            request
        };
        let error_of = |response: &ottla_wire::messages::MetadataResponse| {
            crate::error::code(response.error_code)
        };
        let response = self.to_any(Repeat::Freely, build, error_of).await?;
        Ok(Metadata::default().updated(&response, true))
    }

    /// Waits until every partition of the topic has a leader in the brokers' metadata.
    ///
    /// # Errors
    /// It did not come to that in time.
    pub async fn wait_for_leaders(&self, name: &str) -> Result<Metadata, AdminError> {
        let deadline = self.deadline();
        loop {
            let metadata = self.describe_topics(Some(&[name])).await?;
            let is_led = metadata.topic(name).is_some_and(|topic| {
                !topic.partitions.is_empty()
                    && topic
                        .partitions
                        .values()
                        .all(|partition| partition.leader.is_some())
            });
            if is_led {
                return Ok(metadata);
            }
            let error = metadata.topics.get(name).and_then(|topic| topic.error);
            let pause = tokio::time::Instant::now() + self.cluster.config().retry_backoff_max;
            if pause >= deadline {
                let last = error.unwrap_or(ErrorCode::LeaderNotAvailable);
                return Err(AdminError::NotInTime(Some(last.to_string())));
            }
            tokio::time::sleep_until(pause).await;
        }
    }
}

fn creatable(topic: &NewTopic) -> CreatableTopic {
    let assignments = topic.assignments.iter().map(|(index, replicas)| {
        CreatableReplicaAssignment::default()
            .with_partition_index(*index)
            .with_broker_ids(replicas.iter().map(|broker| broker.get().into()).collect())
    });
    let configs = topic.configs.iter().map(|(key, value)| {
        CreatableTopicConfig::default()
            .with_name(text(key))
            .with_value(Some(text(value)))
    });
    CreatableTopic::default()
        .with_name(wire_name(&topic.name))
        .with_num_partitions(topic.partitions.unwrap_or(-1))
        .with_replication_factor(topic.replication_factor.unwrap_or(-1))
        .with_assignments(assignments.collect())
        .with_configs(configs.collect())
}
