//! Keeping the metadata fresh: on demand, one refresh at a time, and now and then.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use ottla_wire::{
    ErrorCode, StrBytes,
    messages::{MetadataRequest, TopicName, metadata_request::MetadataRequestTopic},
};

use super::Cluster;
use crate::{
    backoff::Backoff,
    error::RequestError,
    metadata::{Metadata, Topic},
};

/// Which topics the client wants to know about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) all: bool,
    pub(crate) topics: BTreeSet<Arc<str>>,
    pub(crate) create_missing: bool,
}

/// Whoever holds the lock around this refreshes.
pub(super) struct Refreshing {
    backoff: Backoff,
    not_before: Option<Instant>,
}

impl Refreshing {
    pub(super) fn new(backoff: Backoff) -> Refreshing {
        Refreshing {
            backoff,
            not_before: None,
        }
    }
}

impl Cluster {
    /// Changes which topics are asked for from now on.
    pub(crate) fn want(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.inner.wanted.lock());
    }

    /// Asks for a refresh without waiting for it.
    pub(crate) fn request_refresh(&self) {
        self.inner.refresh_wanted.notify_one();
    }

    /// Refreshes the metadata, or waits for the refresh under way; one attempt with each broker.
    pub(crate) async fn refresh(&self, deadline: Instant) -> Result<(), RequestError> {
        let seen = self.inner.refreshes.load(Ordering::Acquire);
        let mut refreshing = timeout_at(deadline, self.inner.refreshing.lock())
            .await
            .map_err(|_| RequestError::NotSentInTime)?;
        if self.inner.refreshes.load(Ordering::Acquire) != seen {
            return Ok(());
        }
        if let Some(not_before) = refreshing.not_before {
            sleep_until(not_before.min(deadline)).await;
        }
        let result = self.fetch(deadline).await;
        if let Ok(true) = result {
            refreshing.backoff.reset();
        }
        refreshing.not_before = Some(Instant::now() + refreshing.backoff.next());
        self.inner.refreshes.fetch_add(1, Ordering::AcqRel);
        result.map(|_| ())
    }

    /// Asks for the wanted topics; says whether anything has changed.
    async fn fetch(&self, deadline: Instant) -> Result<bool, RequestError> {
        let wanted = self.inner.wanted.lock().clone();
        let all = wanted.all;
        let build = move |version: i16| request(&wanted, version);
        let response = self.call_any(deadline, build).await?;
        if response.error_code != 0 {
            return Err(RequestError::Connect {
                address: "any broker".to_owned(),
                reason: crate::error::code(response.error_code).to_string(),
            });
        }
        let changed = self.inner.metadata.send_if_modified(|metadata| {
            let updated = metadata.updated(&response, all);
            let changed = !is_same(metadata, &updated);
            *metadata = Arc::new(updated);
            changed
        });
        Ok(changed)
    }

    /// Waits until the topic is known, asking for it as often as the back-off allows.
    ///
    /// # Errors
    /// The topic cannot be used, or the deadline passed.
    pub(crate) async fn topic(
        &self,
        name: &str,
        deadline: Instant,
    ) -> Result<Arc<Metadata>, TopicError> {
        let mut last = None;
        loop {
            let metadata = self.metadata();
            if metadata
                .topic(name)
                .is_some_and(|topic| !topic.partitions.is_empty())
            {
                return Ok(metadata);
            }
            match metadata.topics.get(name).and_then(|topic| topic.error) {
                Some(error) if !error.is_retriable() => {
                    // The next caller may be luckier: rights are granted, names are corrected.
                    self.request_refresh();
                    return Err(TopicError::Refused(error));
                }
                Some(error) => last = Some(error),
                None => {}
            }
            if self.inner.shutdown.is_cancelled() {
                return Err(TopicError::Unreachable(RequestError::Closed));
            }
            if Instant::now() >= deadline {
                return Err(TopicError::NotInTime(last));
            }
            self.want(|wanted| {
                wanted.topics.insert(name.into());
            });
            if let Err(error) = self.refresh(deadline).await
                && !error.is_retriable()
                && !matches!(error, RequestError::NotSentInTime)
            {
                return Err(TopicError::Unreachable(error));
            }
        }
    }
}

/// Why a topic cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TopicError {
    /// The brokers refuse it.
    #[error("{0}")]
    Refused(ErrorCode),
    /// It did not appear in time.
    #[error("the topic was not known in time, last because of {0:?}")]
    NotInTime(Option<ErrorCode>),
    /// No broker could be asked.
    #[error(transparent)]
    Unreachable(RequestError),
}

fn request(wanted: &Wanted, version: i16) -> MetadataRequest {
    let mut request = MetadataRequest::default();
    request.topics = if wanted.all {
        None
    } else {
        let topics = wanted.topics.iter().map(|name| {
            let name = StrBytes::from_string(name.to_string());
            MetadataRequestTopic::default().with_name(Some(TopicName(name)))
        });
        Some(topics.collect())
    };
    if version >= 4 {
        request.allow_auto_topic_creation = wanted.create_missing;
    }
    request
}

fn is_same(a: &Metadata, b: &Metadata) -> bool {
    let same_topic =
        |a: &Topic, b: &Topic| a.id == b.id && a.error == b.error && a.partitions == b.partitions;
    a.brokers == b.brokers
        && a.topics.len() == b.topics.len()
        && a.topics
            .iter()
            .zip(&b.topics)
            .all(|((a, left), (b, right))| a == b && same_topic(left, right))
}

/// Refreshes when asked to, and when the metadata has become old.
pub(super) async fn upkeep(cluster: Cluster) {
    let max_age = cluster.config().metadata_max_age;
    loop {
        let wanted = timeout(max_age, cluster.inner.refresh_wanted.notified()).await;
        loop {
            let deadline = Instant::now() + cluster.config().request_timeout;
            match cluster.refresh(deadline).await {
                Ok(()) | Err(RequestError::Closed) => break,
                Err(error) => {
                    tracing::debug!(%error, asked_for = wanted.is_ok(), "metadata refresh failed");
                }
            }
        }
    }
}
