//! DeleteTopics, by name or by id.

use std::collections::BTreeSet;

use ottla_metadata::{Command, DeleteTopic, Outcome, TopicRef};
use ottla_types::TopicId;
use ottla_wire::{
    ErrorCode,
    messages::{
        DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
        delete_topics_request::DeleteTopicState, delete_topics_response::DeletableTopicResult,
    },
};

use super::{CountErrors, count};
use crate::{context::RequestContext, error_code};

type Refusal = (ErrorCode, String);

pub(super) async fn handle(
    cx: &RequestContext,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let asked: Vec<DeleteTopicState> = if cx.version() >= 6 {
        request.topics
    } else {
        let names = request.topic_names.into_iter();
        names
            .map(|name| DeleteTopicState::default().with_name(Some(name)))
            .collect()
    };
    let twice = duplicates(cx, &asked);
    let checked: Vec<Result<TopicRef, Refusal>> =
        asked.iter().map(|topic| check(cx, topic, &twice)).collect();
    let wanted: Vec<DeleteTopic> = checked
        .iter()
        .filter_map(|checked| checked.as_ref().ok().cloned())
        .map(|topic| DeleteTopic { topic })
        .collect();
    let mut deleted = execute(cx, wanted, request.timeout_ms).await.into_iter();
    let rows = asked.into_iter().zip(checked).map(|(topic, checked)| {
        let result = match checked {
            Ok(_) => deleted
                .next()
                .unwrap_or_else(|| Err((ErrorCode::UnknownServerError, String::new()))),
            Err(refusal) => Err(refusal),
        };
        row(cx.version(), topic, result)
    });
    DeleteTopicsResponse::default().with_responses(rows.collect())
}

/// Topics named twice, be it once by name and once by id.
fn duplicates(cx: &RequestContext, asked: &[DeleteTopicState]) -> BTreeSet<TopicId> {
    let image = cx.image();
    let mut seen = BTreeSet::new();
    let ids = asked.iter().filter_map(|topic| match &topic.name {
        Some(name) => image.topic(name).map(|topic| topic.topic_id),
        None => TopicId::new(topic.topic_id),
    });
    ids.filter(|id| !seen.insert(*id)).collect()
}

fn check(
    cx: &RequestContext,
    topic: &DeleteTopicState,
    twice: &BTreeSet<TopicId>,
) -> Result<TopicRef, Refusal> {
    let refuse = |code: ErrorCode, message: &str| Err((code, message.to_owned()));
    if !cx.config().server.topics.delete_topic_enable {
        let code = if cx.version() < 3 {
            ErrorCode::InvalidRequest
        } else {
            ErrorCode::TopicDeletionDisabled
        };
        return refuse(code, "delete.topic.enable is false");
    }
    let image = cx.image();
    let (topic_ref, id) = match (&topic.name, TopicId::new(topic.topic_id)) {
        (Some(_), Some(_)) => {
            return refuse(ErrorCode::InvalidRequest, "both a name and an id are given");
        }
        (Some(name), None) => {
            let id = image.topic(name).map(|topic| topic.topic_id);
            (TopicRef::Name(name.to_string()), id)
        }
        (None, Some(id)) => (TopicRef::Id(id), Some(id)),
        (None, None) => return refuse(ErrorCode::InvalidRequest, "neither name nor id is given"),
    };
    if id.is_some_and(|id| twice.contains(&id)) {
        return refuse(ErrorCode::InvalidRequest, "the topic is named twice");
    }
    Ok(topic_ref)
}

async fn execute(
    cx: &RequestContext,
    topics: Vec<DeleteTopic>,
    timeout_ms: i32,
) -> Vec<Result<(String, TopicId), Refusal>> {
    if topics.is_empty() {
        return Vec::new();
    }
    let asked = topics.len();
    let all = |code: ErrorCode, message: String| vec![Err((code, message)); asked];
    let deadline = cx.controller_deadline(timeout_ms);
    match cx
        .broker()
        .execute(Command::DeleteTopics { topics }, deadline)
        .await
    {
        Ok((index, Outcome::DeletedTopics(results))) => {
            cx.broker().wait_for_image(index, deadline).await;
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

fn row(
    version: i16,
    asked: DeleteTopicState,
    result: Result<(String, TopicId), Refusal>,
) -> DeletableTopicResult {
    match result {
        Ok((name, id)) => {
            let row = DeletableTopicResult::default().with_name(Some(TopicName(name.into())));
            if version >= 6 {
                row.with_topic_id(id.uuid())
            } else {
                row
            }
        }
        Err((code, message)) => {
            let row = DeletableTopicResult::default()
                .with_name(asked.name)
                .with_error_code(code.code());
            let row = if version >= 6 {
                row.with_topic_id(asked.topic_id)
            } else {
                row
            };
            if version >= 5 {
                row.with_error_message(Some(message.into()))
            } else {
                row
            }
        }
    }
}

impl CountErrors for DeleteTopicsResponse {
    fn count_errors(&self) -> usize {
        count(self.responses.iter().map(|response| response.error_code))
    }
}
