//! Questions that only a partition's leader answers, asked of all leaders concerned at once, and
//! again where leadership has moved.

use std::collections::BTreeMap;

use futures::future::join_all;
use tokio::time::{Instant, sleep_until};

use ottla_types::BrokerId;
use ottla_wire::{ErrorCode, Request};

use crate::{
    backoff::Backoff,
    cluster::{Cluster, Lane},
    error::RequestError,
    metadata::TopicPartition,
};

/// Why a question about one partition has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PartitionError {
    /// The leader refuses to answer.
    #[error("{0}")]
    Refused(ErrorCode),
    /// No leader answered in time.
    #[error("no leader answered in time{}", .0.as_deref().map(|e| format!(", last: {e}")).unwrap_or_default())]
    NotInTime(Option<String>),
    /// The request cannot be made.
    #[error(transparent)]
    Request(RequestError),
}

/// What is asked of one partition.
#[derive(Clone, Debug)]
pub(crate) struct Question<Q> {
    pub(crate) partition: TopicPartition,
    pub(crate) asked: Q,
    /// The leadership that the question is for, if it is known.
    pub(crate) leader_epoch: Option<i32>,
}

/// Asks every partition's leader until `deadline`. `build` makes the request of one leader, `read`
/// takes its answer apart.
pub(crate) async fn ask_leaders<Q, R, T>(
    cluster: &Cluster,
    questions: BTreeMap<TopicPartition, Q>,
    deadline: Instant,
    build: impl Fn(&[Question<Q>], i16) -> R,
    read: impl Fn(R::Response) -> Vec<(TopicPartition, Result<T, ErrorCode>)>,
) -> BTreeMap<TopicPartition, Result<T, PartitionError>>
where
    Q: Clone,
    R: Request,
{
    let config = cluster.config();
    let mut backoff = Backoff::new(config.retry_backoff, config.retry_backoff_max);
    let mut open = questions;
    let mut answers = BTreeMap::new();
    let mut last: BTreeMap<TopicPartition, String> = BTreeMap::new();
    cluster.want(|wanted| {
        let topics = open.keys().map(|partition| partition.topic.clone());
        wanted.topics.extend(topics);
    });
    loop {
        let calls = by_leader(cluster, &open)
            .into_iter()
            .map(|(leader, questions)| {
                let build = &build;
                async move {
                    let request = |version| build(&questions, version);
                    let result = cluster.call(leader, Lane::Control, deadline, request).await;
                    (questions, result)
                }
            });
        for (questions, result) in join_all(calls).await {
            match result {
                Ok(response) => {
                    for (partition, result) in read(response) {
                        match result {
                            Ok(answer) => {
                                open.remove(&partition);
                                answers.insert(partition, Ok(answer));
                            }
                            Err(code) if code.is_retriable() => {
                                last.insert(partition, code.to_string());
                            }
                            Err(code) => {
                                open.remove(&partition);
                                answers.insert(partition, Err(PartitionError::Refused(code)));
                            }
                        }
                    }
                }
                Err(error) => {
                    for question in questions {
                        let partition = question.partition;
                        last.insert(partition.clone(), error.to_string());
                        if !error.is_retriable() && !matches!(error, RequestError::NotSentInTime) {
                            open.remove(&partition);
                            answers.insert(partition, Err(PartitionError::Request(error.clone())));
                        }
                    }
                }
            }
        }
        if open.is_empty() || Instant::now() >= deadline || cluster.shutdown().is_cancelled() {
            break;
        }
        sleep_until(deadline.min(Instant::now() + backoff.next())).await;
        // A failure here is met again in the next round, until the deadline.
        if let Err(error) = cluster.refresh(deadline).await {
            tracing::debug!(%error, "metadata refresh failed");
        }
    }
    for partition in open.into_keys() {
        let why = last.remove(&partition);
        answers.insert(partition, Err(PartitionError::NotInTime(why)));
    }
    answers
}

fn by_leader<Q: Clone>(
    cluster: &Cluster,
    open: &BTreeMap<TopicPartition, Q>,
) -> BTreeMap<BrokerId, Vec<Question<Q>>> {
    let metadata = cluster.metadata();
    let mut by_leader: BTreeMap<BrokerId, Vec<Question<Q>>> = BTreeMap::new();
    for (partition, asked) in open {
        let Some(leader) = metadata.leader(partition) else {
            continue;
        };
        let known = metadata.partition(partition);
        by_leader.entry(leader).or_default().push(Question {
            partition: partition.clone(),
            asked: asked.clone(),
            leader_epoch: known.and_then(|known| known.leader_epoch),
        });
    }
    by_leader
}

/// Groups items by topic, in the order of partitions, for requests that nest them so.
pub(crate) fn by_topic<T>(
    items: impl IntoIterator<Item = (TopicPartition, T)>,
) -> BTreeMap<std::sync::Arc<str>, Vec<(i32, T)>> {
    let mut topics: BTreeMap<std::sync::Arc<str>, Vec<(i32, T)>> = BTreeMap::new();
    for (partition, item) in items {
        topics
            .entry(partition.topic)
            .or_default()
            .push((partition.partition, item));
    }
    topics
}

/// A name as the wire carries it.
pub(crate) fn wire_name(name: &str) -> ottla_wire::messages::TopicName {
    ottla_wire::messages::TopicName(text(name))
}

/// A string as the wire carries it.
pub(crate) fn text(text: &str) -> ottla_wire::StrBytes {
    ottla_wire::StrBytes::from_string(text.to_owned())
}
