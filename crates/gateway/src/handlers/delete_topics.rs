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

use super::{
    CountErrors,
    controller_call::{Call, Refusal, answers, execute, named_twice, refuse},
    count,
};
use crate::context::RequestContext;

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
    let tried: Vec<DeleteTopic> = checked
        .iter()
        .flatten()
        .map(|topic| DeleteTopic {
            topic: topic.clone(),
        })
        .collect();
    let call = Call {
        items: tried.len(),
        deadline: cx.controller_deadline(request.timeout_ms),
        validate_only: false,
        command: Command::DeleteTopics { topics: tried },
    };
    let deleted = execute(cx, call, |outcome| match outcome {
        Outcome::DeletedTopics(results) => Ok(results),
        other => Err(other),
    })
    .await;
    let rows = asked
        .into_iter()
        .zip(answers(checked, deleted))
        .map(|(topic, answer)| row(cx.version(), topic, answer.map(|(_, deleted)| deleted)));
    DeleteTopicsResponse::default().with_responses(rows.collect())
}

/// Topics named twice, be it once by name and once by id.
fn duplicates(cx: &RequestContext, asked: &[DeleteTopicState]) -> BTreeSet<TopicId> {
    let image = cx.image();
    let ids = asked.iter().filter_map(|topic| match &topic.name {
        Some(name) => image.topic(name).map(|topic| topic.topic_id),
        None => TopicId::new(topic.topic_id),
    });
    named_twice(ids)
}

fn check(
    cx: &RequestContext,
    topic: &DeleteTopicState,
    twice: &BTreeSet<TopicId>,
) -> Result<TopicRef, Refusal> {
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
