//! The gateway's life: listeners, connections, and their end.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use ottla_broker::BrokerHandle;
use ottla_config::NetworkConfig;

use crate::{
    GatewayConfig,
    auto_create::AutoCreate,
    config_layers::DynamicLayers,
    connection::{Budget, Closed, Connection, ConnectionSettings},
    context::{Peer, Shared},
    fetch_session::FetchSessions,
    handlers::Handlers,
    limits::{ConnectionCounts, ConnectionPlace},
    metrics::GatewayMetrics,
    topic_rules::TopicRulesCache,
};

/// How long a listener rests when the process has no descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The name of a listener, upper case, as in `listeners`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenerName(pub String);

/// Serves Kafka clients.
pub struct Gateway {
    shared: Arc<Shared>,
    shutdown: CancellationToken,
}

impl Gateway {
    /// Starts to accept connections on every listener. Cancelling `shutdown` ends them as
    /// [`Gateway::stop`] does.
    #[must_use]
    pub fn start(
        broker: BrokerHandle,
        config: GatewayConfig,
        listeners: Vec<(ListenerName, TcpListener)>,
        shutdown: CancellationToken,
    ) -> Gateway {
        let network = &config.server.network;
        let slots = network.max_incremental_fetch_session_cache_slots;
        let budget = budget(network);
        let shared = Arc::new(Shared {
            broker,
            config,
            metrics: Arc::new(GatewayMetrics::default()),
            sessions: FetchSessions::new(slots),
            rules: TopicRulesCache::default(),
            auto_create: AutoCreate::default(),
            tasks: TaskTracker::new(),
        });
        let counts = Arc::new(ConnectionCounts::default());
        for (ListenerName(name), listener) in listeners {
            let accept = Accept {
                listener: name,
                shared: Arc::clone(&shared),
                counts: Arc::clone(&counts),
                budget: budget.clone(),
                shutdown: shutdown.clone(),
            };
            shared.tasks.spawn(accept.run(listener));
        }
        Gateway { shared, shutdown }
    }

    /// What the gateway counts.
    #[must_use]
    pub fn metrics(&self) -> Arc<GatewayMetrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// Stops accepting, lets what is in flight be answered within the drain limit, and closes.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.shared.tasks.close();
        let limit = self.shared.config.drain_limit + Duration::from_secs(1);
        if tokio::time::timeout(limit, self.shared.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                tasks = self.shared.tasks.len(),
                "gateway tasks outlive the stop"
            );
        }
    }
}

/// The budget of request bytes over all connections; large enough for any one request.
fn budget(network: &NetworkConfig) -> Option<Budget> {
    let bytes = network
        .queued_max_request_bytes?
        .max(network.socket_request_max_bytes);
    Some(Budget::new(bytes))
}

struct Accept {
    listener: String,
    shared: Arc<Shared>,
    counts: Arc<ConnectionCounts>,
    budget: Option<Budget>,
    shutdown: CancellationToken,
}

impl Accept {
    async fn run(self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => self.admit(stream, address),
                Err(error) => {
                    tracing::warn!(listener = self.listener, %error, "accept connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, address: SocketAddr) {
        let (broker, server) = (&self.shared.broker, &self.shared.config.server);
        let image = broker.image();
        let layers = DynamicLayers::of(&image, broker.broker_id());
        let limits = server.connection_limits(layers.broker, layers.cluster);
        let metrics = &self.shared.metrics;
        let Some(place) = self.counts.enter(address.ip(), &limits) else {
            metrics.connections_refused.fetch_add(1, Relaxed);
            tracing::debug!(listener = self.listener, %address, "connection limit reached");
            return;
        };
        if let Err(error) = prepare(&stream, &server.network) {
            tracing::debug!(%address, %error, "prepare socket");
            return;
        }
        let peer = Peer {
            listener: self.listener.clone(),
            address: address.ip().to_canonical(),
        };
        let handlers = Handlers::new(Arc::clone(&self.shared), peer);
        let connection = Connection::new(
            stream,
            handlers,
            settings(&self.shared.config),
            Arc::clone(metrics),
            self.budget.clone(),
            self.shutdown.clone(),
        );
        let span = tracing::debug_span!("connection", listener = self.listener, %address);
        let served = serve(connection, Arc::clone(metrics), place);
        self.shared.tasks.spawn(served.instrument(span));
    }
}

fn prepare(stream: &TcpStream, network: &NetworkConfig) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    if let Some(bytes) = network.socket_send_buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = network.socket_receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    Ok(())
}

fn settings(config: &GatewayConfig) -> ConnectionSettings {
    let network = &config.server.network;
    ConnectionSettings {
        frame_bytes_max: network.socket_request_max_bytes,
        requests_max: network.connection_requests_max.max(1),
        bytes_max: config.connection_bytes_max,
        unsent_bytes_max: config.unsent_bytes_max,
        idle_limit: network.connections_max_idle_ms.map(Duration::from_millis),
        stall_limit: config.stall_limit,
        drain_limit: config.drain_limit,
    }
}

async fn serve(
    connection: Connection<Handlers>,
    metrics: Arc<GatewayMetrics>,
    _place: ConnectionPlace,
) {
    metrics.connection_opened();
    let closed = connection.run().await;
    metrics.connection_closed();
    match &closed {
        Closed::Idle | Closed::Stalled => {
            metrics.idle_closed.fetch_add(1, Relaxed);
        }
        Closed::Refused | Closed::Frame(_) => {
            metrics.requests_refused.fetch_add(1, Relaxed);
        }
        Closed::ByPeer | Closed::Stopping | Closed::Answer | Closed::Socket(_) => {}
    }
    tracing::debug!(reason = %closed, "connection closed");
}
