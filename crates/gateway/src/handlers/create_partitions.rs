//! CreatePartitions: more partitions for a topic.

use std::collections::BTreeSet;

use ottla_metadata::{Command, CreatePartitions, Outcome};
use ottla_types::BrokerId;
use ottla_wire::{
    ErrorCode,
    messages::{
        CreatePartitionsRequest, CreatePartitionsResponse,
        create_partitions_request::CreatePartitionsTopic,
        create_partitions_response::CreatePartitionsTopicResult,
    },
};

use super::{
    CountErrors,
    controller_call::{Call, Refusal, answers, execute, named_twice, refuse},
    count,
};
use crate::context::RequestContext;

pub(super) async fn handle(
    cx: &RequestContext,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let twice = named_twice(request.topics.iter().map(|topic| topic.name.as_str()));
    let check = |topic: &CreatePartitionsTopic| match twice.contains(topic.name.as_str()) {
        true => refuse(ErrorCode::InvalidRequest, "the topic is named twice"),
        false => Ok(command(topic)),
    };
    let checked: Vec<Result<CreatePartitions, Refusal>> =
        request.topics.iter().map(check).collect();
    let tried: Vec<CreatePartitions> = checked.iter().flatten().cloned().collect();
    let call = Call {
        items: tried.len(),
        deadline: cx.controller_deadline(request.timeout_ms),
        validate_only: request.validate_only,
        command: Command::CreatePartitions {
            topics: tried,
            validate_only: request.validate_only,
            live: BTreeSet::new(),
        },
    };
    let created = execute(cx, call, |outcome| match outcome {
        Outcome::CreatedPartitions(results) => Ok(results),
        other => Err(other),
    })
    .await;
    let rows = request
        .topics
        .iter()
        .zip(answers(checked, created))
        .map(|(topic, answer)| {
            let row = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
            match answer {
                Ok(_) => row,
                Err((code, message)) => row
                    .with_error_code(code.code())
                    .with_error_message(Some(message.into())),
            }
        });
    CreatePartitionsResponse::default().with_results(rows.collect())
}

fn command(topic: &CreatePartitionsTopic) -> CreatePartitions {
    let assignments = topic.assignments.iter().flatten().map(|assignment| {
        assignment
            .broker_ids
            .iter()
            .map(|broker| BrokerId(broker.0))
            .collect()
    });
    CreatePartitions {
        name: topic.name.to_string(),
        count: topic.count,
        assignments: assignments.collect(),
        seed: rand::random(),
    }
}

impl CountErrors for CreatePartitionsResponse {
    fn count_errors(&self) -> usize {
        count(self.results.iter().map(|result| result.error_code))
    }
}
