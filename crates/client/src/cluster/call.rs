//! One request to one broker, to any broker, or to a broker of the caller's choice with retries.

use std::time::Duration;

use rand::seq::SliceRandom;
use tokio::{sync::mpsc, time::Instant};

use ottla_types::BrokerId;
use ottla_wire::Request;

use super::{Cluster, Lane};
use crate::{error::RequestError, metadata::Node};

/// One attempt with any broker ends after this long: another one is as good.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);

impl Cluster {
    /// One attempt with one broker. `build` gets the version that was agreed on.
    pub(crate) async fn call<R: Request>(
        &self,
        broker: BrokerId,
        lane: Lane,
        deadline: Instant,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, RequestError> {
        self.call_capped(broker, lane, i16::MAX, deadline, build)
            .await
    }

    /// As [`Cluster::call`], with a version of at most `cap`.
    pub(crate) async fn call_capped<R: Request>(
        &self,
        broker: BrokerId,
        lane: Lane,
        cap: i16,
        deadline: Instant,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, RequestError> {
        let connection = self.connect(broker, lane, deadline).await?;
        let version = connection.version_of::<R>(cap)?;
        let request = build(version);
        let answer_by = deadline.min(Instant::now() + self.config().request_timeout);
        connection.call(version, &request, answer_by).await
    }

    /// As [`Cluster::call`], for answers that may take longer than others: until `deadline`.
    pub(crate) async fn call_long<R: Request>(
        &self,
        broker: BrokerId,
        lane: Lane,
        deadline: Instant,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, RequestError> {
        let connection = self.connect(broker, lane, deadline).await?;
        let version = connection.version_of::<R>(i16::MAX)?;
        let request = build(version);
        connection.call(version, &request, deadline).await
    }

    /// One attempt with whichever broker answers first: the next one is asked as well when one
    /// has been silent for a while. Only for requests that may be carried out twice.
    pub(crate) async fn call_any<R>(
        &self,
        deadline: Instant,
        build: impl Fn(i16) -> R + Clone + Send + Sync + 'static,
    ) -> Result<R::Response, RequestError>
    where
        R: Request + Send + Sync + 'static,
        R::Response: Send + 'static,
    {
        let candidates = self.candidates();
        let (results, mut answers) = mpsc::channel(candidates.len().max(1));
        let mut candidates = candidates.into_iter();
        let mut under_way = 0usize;
        let mut last_error = RequestError::NotSentInTime;
        let hedge_after = self.config().metadata_hedge_after;
        loop {
            if let Some(address) = candidates.next() {
                let (cluster, build, results) = (self.clone(), build.clone(), results.clone());
                let attempt_by = deadline.min(Instant::now() + ATTEMPT_MAX);
                under_way += 1;
                // A task of its own: a loser runs into its deadline and ends its connection.
                self.tasks().spawn(async move {
                    let result = cluster.call_at(&address, attempt_by, build).await;
                    let _ = results.send(result).await;
                });
            } else if under_way == 0 {
                return Err(last_error);
            }
            let silent = if candidates.len() == 0 {
                deadline
            } else {
                deadline.min(Instant::now() + hedge_after)
            };
            tokio::select! {
                biased;
                () = self.shutdown().cancelled() => return Err(RequestError::Closed),
                answer = answers.recv() => {
                    under_way -= 1;
                    match answer {
                        Some(Ok(response)) => return Ok(response),
                        Some(Err(error)) => last_error = error,
                        None => return Err(RequestError::Closed),
                    }
                }
                () = tokio::time::sleep_until(silent) => {
                    if silent >= deadline {
                        return Err(last_error);
                    }
                }
            }
        }
    }

    async fn call_at<R: Request>(
        &self,
        address: &str,
        deadline: Instant,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, RequestError> {
        let connection = self.connect_to(address, Lane::Control, deadline).await?;
        let version = connection.version_of::<R>(i16::MAX)?;
        let request = build(version);
        connection.call(version, &request, deadline).await
    }

    /// Addresses to try, in order: brokers that answer, brokers that failed of late, and the
    /// addresses of the beginning.
    fn candidates(&self) -> Vec<String> {
        let metadata = self.metadata();
        let mut known: Vec<String> = metadata.brokers.values().map(Node::address).collect();
        known.shuffle(&mut rand::rng());
        known.sort_by_key(|address| self.is_failing(address, Lane::Control));
        let mut bootstrap = self.config().bootstrap.clone();
        bootstrap.shuffle(&mut rand::rng());
        bootstrap.retain(|address| !known.contains(address));
        bootstrap.sort_by_key(|address| self.is_failing(address, Lane::Control));
        known.extend(bootstrap);
        known
    }
}
