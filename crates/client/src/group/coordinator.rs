//! The broker that serves one group: found, remembered, and found again when it has moved.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use ottla_types::BrokerId;
use ottla_wire::{
    ErrorCode, Request,
    messages::{FindCoordinatorRequest, FindCoordinatorResponse},
};

use super::GroupError;
use crate::{
    backoff::Backoff,
    cluster::{Cluster, Lane},
    error::{RequestError, code},
    leaders::text,
    metadata::Node,
};

/// A handle; cheap to clone.
#[derive(Clone)]
pub(crate) struct Coordinator {
    cluster: Cluster,
    group: Arc<str>,
    known: Arc<Mutex<Option<BrokerId>>>,
}

impl Coordinator {
    pub(crate) fn new(cluster: Cluster, group: &str) -> Coordinator {
        Coordinator {
            cluster,
            group: group.into(),
            known: Arc::default(),
        }
    }

    pub(crate) fn group(&self) -> &str {
        &self.group
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The coordinator was asked in vain: look for it again.
    pub(crate) fn forget(&self) {
        *self.known.lock() = None;
    }

    /// One attempt with the coordinator, which is looked for first if need be.
    pub(crate) async fn call_once<R: Request>(
        &self,
        lane: Lane,
        deadline: Instant,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, GroupError> {
        let broker = self.find(deadline).await?;
        let result = self.cluster.call(broker, lane, deadline, build).await;
        result.map_err(|error| {
            self.forget();
            GroupError::Request(error)
        })
    }

    /// One attempt that may take as long as a round of the group: an answer is waited for until
    /// `deadline`, beyond the usual time for a request, as long as this is the coordinator. One that
    /// was replaced may never answer: it is given up.
    pub(crate) async fn call_join<R: Request>(
        &self,
        deadline: Instant,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, GroupError> {
        let broker = self.find(deadline).await?;
        let address = self
            .cluster
            .metadata()
            .brokers
            .get(&broker)
            .map(Node::address);
        let call = self.cluster.call_long(broker, Lane::Group, deadline, build);
        let result = tokio::select! {
            biased;
            result = call => result,
            () = self.replaced(broker, deadline) => {
                let reason = "another broker coordinates the group now";
                let address = address.unwrap_or_default();
                self.cluster.disconnect(&address, Lane::Group, reason);
                let reason = reason.to_owned();
                Err(RequestError::Disconnected { address, reason })
            }
        };
        result.map_err(|error| {
            self.forget();
            GroupError::Request(error)
        })
    }

    /// Ends when the brokers name another coordinator than this one, asked now and then.
    async fn replaced(&self, broker: BrokerId, deadline: Instant) {
        loop {
            tokio::time::sleep(self.cluster.config().stall_probe_after).await;
            match self.ask(deadline).await {
                Ok(node) if node.id != broker => return,
                Ok(_) => {}
                Err(error) => {
                    let group = self.group();
                    tracing::debug!(
                        group,
                        ?error,
                        "whether the coordinator is another is not known"
                    );
                }
            }
        }
    }

    /// Attempts until `deadline`. `error_of` finds the error that concerns the whole request.
    pub(crate) async fn call<R: Request>(
        &self,
        lane: Lane,
        deadline: Instant,
        build: impl Fn(i16) -> R,
        error_of: impl Fn(&R::Response) -> ErrorCode,
    ) -> Result<R::Response, GroupError> {
        let config = self.cluster.config();
        let mut backoff = Backoff::new(config.retry_backoff, config.retry_backoff_max);
        loop {
            // A silent coordinator must not take up all of the time.
            let attempt_by = deadline.min(Instant::now() + ATTEMPT_MAX);
            let last = match self.call_once(lane, attempt_by, &build).await {
                Ok(response) => match error_of(&response) {
                    ErrorCode::None => return Ok(response),
                    error if error.is_retriable() => {
                        if is_elsewhere(error) {
                            self.forget();
                        }
                        error.to_string()
                    }
                    error => return Err(GroupError::Refused(error)),
                },
                Err(GroupError::NotInTime(last)) => {
                    last.unwrap_or_else(|| RequestError::NotSentInTime.to_string())
                }
                Err(GroupError::Request(error))
                    if error.is_retriable() || matches!(error, RequestError::NotSentInTime) =>
                {
                    error.to_string()
                }
                Err(error) => return Err(error),
            };
            let pause = Instant::now() + backoff.next();
            if pause >= deadline || self.cluster.shutdown().is_cancelled() {
                return Err(GroupError::NotInTime(Some(last)));
            }
            sleep_until(pause).await;
        }
    }

    /// The coordinator, asked for until `deadline`.
    pub(crate) async fn find(&self, deadline: Instant) -> Result<BrokerId, GroupError> {
        let known = *self.known.lock();
        if let Some(broker) = known
            && self.cluster.metadata().brokers.contains_key(&broker)
        {
            return Ok(broker);
        }
        let config = self.cluster.config();
        let mut backoff = Backoff::new(config.retry_backoff, config.retry_backoff_max);
        loop {
            let last = match self.ask(deadline).await {
                Ok(node) => {
                    let id = node.id;
                    self.cluster.learn_node(node);
                    *self.known.lock() = Some(id);
                    return Ok(id);
                }
                Err(GroupError::Refused(error)) if error.is_retriable() => error.to_string(),
                Err(GroupError::Request(error)) if error.is_retriable() => error.to_string(),
                Err(GroupError::Request(RequestError::NotSentInTime)) => {
                    return Err(GroupError::NotInTime(None));
                }
                Err(error) => return Err(error),
            };
            let pause = Instant::now() + backoff.next();
            if pause >= deadline {
                return Err(GroupError::NotInTime(Some(last)));
            }
            sleep_until(pause).await;
        }
    }

    /// Who the coordinator is, in the words of whichever broker answers first.
    async fn ask(&self, deadline: Instant) -> Result<Node, GroupError> {
        let group = Arc::clone(&self.group);
        let build = move |version: i16| {
            let mut request = FindCoordinatorRequest::default();
            if version >= 4 {
                request.coordinator_keys = vec![text(&group)];
            } else {
                request.key = text(&group);
            }
            request
        };
        let response = self.cluster.call_any(deadline, build).await;
        let response = response.map_err(GroupError::Request)?;
        found(&response).map_err(GroupError::Refused)
    }
}

/// One attempt with a coordinator that should answer at once ends after this long.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);

/// Whether the error says that another broker serves the group now.
pub(crate) const fn is_elsewhere(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable
    )
}

fn found(response: &FindCoordinatorResponse) -> Result<Node, ErrorCode> {
    let node = |id: i32, host: &str, port: i32| Node {
        id: BrokerId(id),
        host: host.to_owned(),
        port,
        rack: None,
    };
    if let Some(row) = response.coordinators.first() {
        return match code(row.error_code) {
            ErrorCode::None => Ok(node(row.node_id.0, &row.host, row.port)),
            error => Err(error),
        };
    }
    match code(response.error_code) {
        ErrorCode::None => Ok(node(response.node_id.0, &response.host, response.port)),
        error => Err(error),
    }
}
