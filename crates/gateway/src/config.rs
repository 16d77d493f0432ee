//! What the gateway is told at its start.

use std::{sync::Arc, time::Duration};

use ottla_config::ServerConfig;

/// The gateway's settings: the node's configuration, and limits that have no key.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The node's configuration: network limits, topic defaults, and what DescribeConfigs shows.
    pub server: Arc<ServerConfig>,
    /// Bytes of requests that one connection may have in flight; one request may exceed it.
    pub connection_bytes_max: usize,
    /// Bytes of responses waiting in one connection above which it reads no further request.
    pub unsent_bytes_max: usize,
    /// How long a begun request or an unread response may stand still.
    pub stall_limit: Duration,
    /// How long requests in flight may still be answered once the client is gone or we stop.
    pub drain_limit: Duration,
    /// How long a request that must reach the controller may wait beyond its own timeout.
    pub controller_wait_min: Duration,
}

impl GatewayConfig {
    /// The settings of a node, with every limit that has no key at its default.
    #[must_use]
    pub fn new(server: Arc<ServerConfig>) -> GatewayConfig {
        GatewayConfig {
            server,
            connection_bytes_max: 32 << 20,
            unsent_bytes_max: 1 << 20,
            stall_limit: Duration::from_secs(60),
            drain_limit: Duration::from_secs(2),
            controller_wait_min: Duration::from_secs(1),
        }
    }
}
