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

use super::{CountErrors, count};
use crate::{context::RequestContext, error_code};

type Refusal = (ErrorCode, String);

pub(super) async fn handle(
    cx: &RequestContext,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut seen = BTreeSet::new();
    let names = request.topics.iter().map(|topic| topic.name.as_str());
    let twice: BTreeSet<&str> = names.filter(|name| !seen.insert(*name)).collect();
    let is_single = |topic: &&CreatePartitionsTopic| !twice.contains(topic.name.as_str());
    let wanted: Vec<CreatePartitions> = request
        .topics
        .iter()
        .filter(is_single)
        .map(command)
        .collect();
    let mut results = execute(cx, wanted, &request).await.into_iter();
    let rows = request.topics.iter().map(|topic| {
        let row = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
        let result = if is_single(&topic) {
            results
                .next()
                .unwrap_or_else(|| Err((ErrorCode::UnknownServerError, String::new())))
        } else {
            Err((
                ErrorCode::InvalidRequest,
                "the topic is named twice".to_owned(),
            ))
        };
        match result {
            Ok(()) => row,
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

async fn execute(
    cx: &RequestContext,
    topics: Vec<CreatePartitions>,
    request: &CreatePartitionsRequest,
) -> Vec<Result<(), Refusal>> {
    if topics.is_empty() {
        return Vec::new();
    }
    let asked = topics.len();
    let all = |code: ErrorCode, message: String| vec![Err((code, message)); asked];
    let deadline = cx.controller_deadline(request.timeout_ms);
    let validate_only = request.validate_only;
    let command = Command::CreatePartitions {
        topics,
        validate_only,
        live: BTreeSet::new(),
    };
    match cx.broker().execute(command, deadline).await {
        Ok((index, Outcome::CreatedPartitions(results))) => {
            if !validate_only {
                cx.broker().wait_for_image(index, deadline).await;
            }
            let refused = |error| (error_code::command(&error), error.to_string());
            results
                .into_iter()
                .map(|result| result.map_err(refused))
                .collect()
        }
        Ok((_, Outcome::Refused(error))) => all(error_code::command(&error), error.to_string()),
        Ok((_, other)) => {
            tracing::error!(?other, "outcome of another command");
            all(ErrorCode::UnknownServerError, String::new())
        }
        Err(error) => all(error_code::controller(&error), error.to_string()),
    }
}

impl CountErrors for CreatePartitionsResponse {
    fn count_errors(&self) -> usize {
        count(self.results.iter().map(|result| result.error_code))
    }
}
