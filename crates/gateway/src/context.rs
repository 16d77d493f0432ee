//! What a handler can reach: the broker, the settings, and who asks.

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use ottla_broker::BrokerHandle;
use ottla_metadata::Image;
use ottla_wire::{Encodable, RequestHeader, encode_response};

use crate::{
    GatewayConfig,
    auto_create::AutoCreate,
    connection::Answer,
    fetch_session::FetchSessions,
    handlers::{CountErrors, File},
    metrics::GatewayMetrics,
    topic_rules::TopicRulesCache,
};

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) broker: BrokerHandle,
    pub(crate) config: GatewayConfig,
    pub(crate) metrics: Arc<GatewayMetrics>,
    pub(crate) sessions: FetchSessions,
    pub(crate) rules: TopicRulesCache,
    pub(crate) auto_create: AutoCreate,
    pub(crate) tasks: TaskTracker,
}

/// Who is at the other end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    /// The listener it came through: answers carry addresses of this one.
    pub(crate) listener: String,
    /// Its address.
    pub(crate) address: IpAddr,
}

/// One request's surroundings.
#[derive(Clone)]
pub(crate) struct RequestContext {
    pub(crate) shared: Arc<Shared>,
    pub(crate) peer: Arc<Peer>,
    pub(crate) header: Arc<RequestHeader>,
    /// When its last byte was here.
    pub(crate) arrived: Instant,
}

impl RequestContext {
    pub(crate) fn broker(&self) -> &BrokerHandle {
        &self.shared.broker
    }

    pub(crate) fn image(&self) -> Arc<Image> {
        self.shared.broker.image()
    }

    pub(crate) fn config(&self) -> &GatewayConfig {
        &self.shared.config
    }

    pub(crate) fn version(&self) -> i16 {
        self.header.version
    }

    /// `client.id`, empty if there is none.
    pub(crate) fn client_id(&self) -> &str {
        self.header.client_id.as_deref().unwrap_or_default()
    }

    /// The client's address as Kafka writes it.
    pub(crate) fn client_host(&self) -> String {
        format!("/{}", self.peer.address)
    }

    /// When a request with this timeout must be answered; negative timeouts mean at once.
    pub(crate) fn deadline(&self, timeout_ms: i32) -> Instant {
        self.arrived + Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0))
    }

    /// As [`RequestContext::deadline`], for requests that need the controller: never so short
    /// that no answer could come.
    pub(crate) fn controller_deadline(&self, timeout_ms: i32) -> Instant {
        self.deadline(timeout_ms)
            .max(self.arrived + self.config().controller_wait_min)
    }

    /// Where the request's own timeout does not exist: `request.timeout.ms`.
    pub(crate) fn default_deadline(&self) -> Instant {
        self.arrived + Duration::from_millis(self.config().server.network.request_timeout_ms)
    }

    /// Encodes a response and counts it.
    pub(crate) fn answer<R: Encodable + CountErrors>(&self, response: &R) -> Answer<File> {
        let RequestHeader {
            api,
            version,
            correlation_id,
            ..
        } = *self.header;
        self.count(response.count_errors());
        match encode_response(api, version, correlation_id, response) {
            Ok(bytes) => Answer::Bytes(bytes),
            Err(error) => {
                // A handler set what this version cannot say: a fault of ours, never of the client.
                tracing::error!(%error, "encode response");
                Answer::Close
            }
        }
    }

    /// Counts the request as answered, with so many errors.
    pub(crate) fn count(&self, errors: usize) {
        if let Some(metrics) = self.shared.metrics.api(self.header.api) {
            metrics.answered(self.arrived.elapsed(), errors);
        }
    }
}
