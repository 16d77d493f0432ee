//! CreateTopics: checked here as far as the request and the table of configs go, decided by the
//! controller.

use std::collections::{BTreeMap, BTreeSet};

use ottla_config::check_topic_configs;
use ottla_metadata::{Command, CreateTopic, CreatedTopic, Outcome};
use ottla_types::BrokerId;
use ottla_wire::{
    ErrorCode,
    messages::{
        CreateTopicsRequest, CreateTopicsResponse,
        create_topics_request::CreatableTopic,
        create_topics_response::{CreatableTopicConfigs, CreatableTopicResult},
    },
};

use super::{
    CountErrors,
    configs::source,
    controller_call::{self, Call, Refusal, answers, named_twice, refuse},
    count,
};
use crate::{auto_create::fresh_topic_id, config_layers, context::RequestContext, topic_names};

/// Most partitions that one request may create, as in Kafka.
const PARTITIONS_MAX: i64 = 10_000;
/// "The broker's default".
const DEFAULT: i32 = -1;

pub(super) async fn handle(
    cx: &RequestContext,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let checked = check_all(cx, &request.topics);
    let tried: Vec<CreateTopic> = checked.iter().flatten().cloned().collect();
    let created = execute(cx, tried, &request).await;
    let rows = request
        .topics
        .iter()
        .zip(answers(checked, created))
        .map(|(topic, answer)| {
            let row = CreatableTopicResult::default().with_name(topic.name.clone());
            match answer {
                Ok((wanted, created)) => succeeded(cx, row, &wanted, &created),
                Err(refusal) => failed(row, refusal),
            }
        });
    CreateTopicsResponse::default().with_topics(rows.collect())
}

fn check_all(cx: &RequestContext, topics: &[CreatableTopic]) -> Vec<Result<CreateTopic, Refusal>> {
    let twice = named_twice(topics.iter().map(|topic| topic.name.as_str()));
    let partitions: i64 = topics
        .iter()
        .map(|topic| match topic.assignments.len() {
            0 if topic.num_partitions == DEFAULT => {
                i64::from(cx.config().server.topics.num_partitions)
            }
            0 => i64::from(topic.num_partitions),
            listed => i64::try_from(listed).unwrap_or(i64::MAX),
        })
        .fold(0, |sum, partitions| sum.saturating_add(partitions.max(0)));
    let check = |topic: &CreatableTopic| {
        if twice.contains(topic.name.as_str()) {
            return refuse(ErrorCode::InvalidRequest, "the topic is named twice");
        }
        if partitions > PARTITIONS_MAX {
            let message = format!("more than {PARTITIONS_MAX} partitions in one request");
            return refuse(ErrorCode::PolicyViolation, message);
        }
        check(cx, topic)
    };
    topics.iter().map(check).collect()
}

fn check(cx: &RequestContext, topic: &CreatableTopic) -> Result<CreateTopic, Refusal> {
    let name = topic.name.as_str();
    if name == topic_names::METADATA_TOPIC {
        return refuse(ErrorCode::InvalidRequest, "the name is reserved");
    }
    if let Err(reason) = topic_names::check(name) {
        return refuse(ErrorCode::InvalidTopicException, reason);
    }
    let (partitions, replication_factor) = size(cx, topic)?;
    Ok(CreateTopic {
        name: name.to_owned(),
        topic_id: fresh_topic_id(),
        partitions,
        replication_factor,
        assignments: assignments(topic)?,
        configs: configs(topic)?,
        seed: rand::random(),
    })
}

/// Partitions and replication factor; neither is given together with a manual placement.
fn size(
    cx: &RequestContext,
    topic: &CreatableTopic,
) -> Result<(Option<i32>, Option<i16>), Refusal> {
    let defaults = &cx.config().server.topics;
    let (partitions, factor) = (topic.num_partitions, topic.replication_factor);
    if !topic.assignments.is_empty() {
        if partitions != DEFAULT || i32::from(factor) != DEFAULT {
            let message = "with a manual placement neither partitions nor factor may be given";
            return refuse(ErrorCode::InvalidRequest, message);
        }
        return Ok((None, None));
    }
    let partitions = if partitions == DEFAULT {
        defaults.num_partitions
    } else {
        partitions
    };
    if partitions <= 0 {
        return refuse(
            ErrorCode::InvalidPartitions,
            "the number of partitions must be positive",
        );
    }
    let factor = match factor {
        -1 => defaults.default_replication_factor,
        factor if factor <= 0 => {
            let message = "the replication factor must be positive";
            return refuse(ErrorCode::InvalidReplicationFactor, message);
        }
        factor => Some(factor),
    };
    Ok((Some(partitions), factor))
}

fn assignments(topic: &CreatableTopic) -> Result<BTreeMap<i32, Vec<BrokerId>>, Refusal> {
    let mut placed = BTreeMap::new();
    for assignment in &topic.assignments {
        let brokers = assignment
            .broker_ids
            .iter()
            .map(|broker| BrokerId(broker.0))
            .collect();
        if placed.insert(assignment.partition_index, brokers).is_some() {
            return refuse(
                ErrorCode::InvalidReplicaAssignment,
                "a partition is placed twice",
            );
        }
    }
    Ok(placed)
}

fn configs(topic: &CreatableTopic) -> Result<BTreeMap<String, String>, Refusal> {
    let mut configs = BTreeMap::new();
    for config in &topic.configs {
        let Some(value) = &config.value else {
            return refuse(
                ErrorCode::InvalidConfig,
                format!("{}: null value", config.name),
            );
        };
        if configs
            .insert(config.name.to_string(), value.to_string())
            .is_some()
        {
            return refuse(
                ErrorCode::InvalidConfig,
                format!("{}: named twice", config.name),
            );
        }
    }
    check_topic_configs(&configs).map_err(|error| (ErrorCode::InvalidConfig, error.to_string()))?;
    Ok(configs)
}

async fn execute(
    cx: &RequestContext,
    topics: Vec<CreateTopic>,
    request: &CreateTopicsRequest,
) -> Vec<Result<CreatedTopic, Refusal>> {
    let call = Call {
        items: topics.len(),
        deadline: cx.controller_deadline(request.timeout_ms),
        validate_only: request.validate_only,
        command: Command::CreateTopics {
            topics,
            validate_only: request.validate_only,
            live: BTreeSet::new(),
        },
    };
    controller_call::execute(cx, call, |outcome| match outcome {
        Outcome::CreatedTopics(results) => Ok(results),
        other => Err(other),
    })
    .await
}

fn succeeded(
    cx: &RequestContext,
    row: CreatableTopicResult,
    wanted: &CreateTopic,
    created: &CreatedTopic,
) -> CreatableTopicResult {
    let version = cx.version();
    if version < 5 {
        return row;
    }
    let factor = usize::try_from(created.replication_factor).unwrap_or(1);
    let (broker_id, server) = (cx.broker().broker_id(), &cx.config().server);
    let entries = config_layers::describe(
        &cx.image(),
        broker_id,
        server,
        Some(&wanted.configs),
        factor,
    );
    let configs = entries.into_iter().map(|entry| {
        CreatableTopicConfigs::default()
            .with_name(entry.name.into())
            .with_value(entry.value.map(Into::into))
            .with_read_only(entry.read_only)
            .with_config_source(source(entry.source))
            .with_is_sensitive(entry.sensitive)
    });
    let row = row
        .with_num_partitions(created.partitions)
        .with_replication_factor(created.replication_factor)
        .with_configs(Some(configs.collect()));
    if version >= 7 {
        row.with_topic_id(created.topic_id.uuid())
    } else {
        row
    }
}

fn failed(row: CreatableTopicResult, (code, message): Refusal) -> CreatableTopicResult {
    row.with_error_code(code.code())
        .with_error_message(Some(message.into()))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_configs(Some(Vec::new()))
}

impl CountErrors for CreateTopicsResponse {
    fn count_errors(&self) -> usize {
        count(self.topics.iter().map(|topic| topic.error_code))
    }
}
