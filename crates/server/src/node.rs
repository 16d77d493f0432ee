//! One node: its roles, from bound sockets to the last flush.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ottla_broker::{Broker, BrokerHandle, BrokerState};
use ottla_config::ServerConfig;
use ottla_controller::{Controller, ControllerHandle};
use ottla_gateway::{Gateway, GatewayConfig, GatewayMetrics, ListenerName};
use parking_lot::Mutex;
use tokio::{net::TcpListener, runtime::Handle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

use crate::{
    exit::ExitReason,
    health::Readiness,
    http::{self, Pages},
    listen::{Bound, BoundListeners},
    metrics::{self, Page, ProcessNumbers},
    wiring,
};

const REFUSAL_POLL: Duration = Duration::from_millis(250);

/// A running node.
pub(crate) struct Node {
    config: Arc<ServerConfig>,
    state: Arc<NodeState>,
    controller: Option<Controller>,
    broker: Option<Broker>,
    gateway: Option<Gateway>,
    http_shutdown: CancellationToken,
    http_tasks: TaskTracker,
}

impl Node {
    /// Starts every role that the configuration names. HTTP answers first, so that a node which
    /// waits for its quorum can say so.
    pub(crate) async fn start(
        config: Arc<ServerConfig>,
        bound: BoundListeners,
        control: &Handle,
    ) -> Result<Node, ExitReason> {
        let state = Arc::new(NodeState::new(&config));
        let mut node = Node {
            config: Arc::clone(&config),
            state: Arc::clone(&state),
            controller: None,
            broker: None,
            gateway: None,
            http_shutdown: CancellationToken::new(),
            http_tasks: TaskTracker::new(),
        };
        let broker_config = if config.roles.broker {
            Some(wiring::broker_config(&config, &bound)?)
        } else {
            None
        };
        let BoundListeners {
            clients,
            replication,
            controllers,
            http,
        } = bound;
        if let Some(socket) = http {
            node.start_http(socket, Arc::clone(&state), control)?;
        }
        // A node has one controller listener; more names of it would be more sockets.
        if let Some(Bound { socket, name, .. }) = controllers.into_iter().next() {
            let address = shown(socket.local_addr());
            info!(listener = name, %address, "controller starts");
            let controller = Controller::start(
                wiring::controller_config(&config),
                socket,
                CancellationToken::new(),
            );
            let controller = controller
                .await
                .map_err(|error| ExitReason::Start(with_causes(&error)))?;
            state.controller.lock().replace(controller.handle());
            node.controller = Some(controller);
        }
        if let (Some(broker_config), Some(replication)) = (broker_config, replication) {
            let address = shown(replication.socket.local_addr());
            info!(listener = replication.name, %address, "broker starts");
            let socket = into_tokio(replication)?;
            let started = Broker::start(broker_config, socket, CancellationToken::new()).await;
            let broker = started.map_err(|error| ExitReason::Start(with_causes(&error)))?;
            state.broker.lock().replace(broker.handle());
            let gateway = start_gateway(&config, broker.handle(), clients)?;
            state.gateway.lock().replace(gateway.metrics());
            node.broker = Some(broker);
            node.gateway = Some(gateway);
        }
        Ok(node)
    }

    fn start_http(
        &self,
        socket: std::net::TcpListener,
        state: Arc<NodeState>,
        control: &Handle,
    ) -> Result<(), ExitReason> {
        let address = shown(socket.local_addr());
        let _inside = control.enter();
        let listener = TcpListener::from_std(socket)
            .map_err(|error| ExitReason::Start(format!("http.listener: {error}")))?;
        info!(%address, "http listens");
        let tasks = self.http_tasks.clone();
        let serve = http::serve(listener, state, tasks, self.http_shutdown.clone());
        self.http_tasks.spawn_on(serve, control);
        Ok(())
    }

    /// Waits until `/readyz` would say yes. Polled: what it depends on changes in three crates.
    pub(crate) async fn wait_ready(&self) {
        while !self.state.readiness().is_ready() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Resolves when a role failed for good, with the reason.
    pub(crate) async fn failure(&self) -> String {
        let controller = async {
            match &self.controller {
                Some(controller) => controller.handle().failure().await,
                None => std::future::pending().await,
            }
        };
        let broker = async {
            match &self.broker {
                Some(broker) => refusal(&broker.handle()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            reason = controller => format!("the controller failed: {reason}"),
            reason = broker => format!("the quorum refuses this broker: {reason}"),
        }
    }

    /// Hands leaderships over while serving, where that is wanted and configured, and closes what
    /// clients and other brokers talk to: first their requests, then the logs.
    pub(crate) async fn stop_broker(&mut self, hand_over: bool) {
        if let Some(broker) = &self.broker
            && hand_over
            && self.config.cluster.controlled_shutdown_enable
        {
            broker.controlled_shutdown().await;
        }
        if let Some(gateway) = self.gateway.take() {
            gateway.stop().await;
        }
        if let Some(broker) = self.broker.take() {
            broker.stop().await;
        }
    }

    /// Stops the rest: the controller, which brokers need to the end, and HTTP.
    pub(crate) async fn stop_controller(&mut self) {
        if let Some(controller) = self.controller.take() {
            controller.stop().await;
        }
        self.http_shutdown.cancel();
        self.http_tasks.close();
        self.http_tasks.wait().await;
    }
}

/// An address for the log.
fn shown(address: std::io::Result<std::net::SocketAddr>) -> String {
    address.map_or_else(|error| error.to_string(), |address| address.to_string())
}

/// Waits until the quorum has refused a broker for good. Polled: nobody waits for it but the exit.
async fn refusal(broker: &BrokerHandle) -> String {
    loop {
        if let Some(reason) = broker.refused() {
            return reason;
        }
        tokio::time::sleep(REFUSAL_POLL).await;
    }
}

/// An error with everything behind it, for the one line that an operator reads.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some errors repeat their cause in their own text.
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn start_gateway(
    config: &Arc<ServerConfig>,
    broker: BrokerHandle,
    clients: Vec<Bound>,
) -> Result<Gateway, ExitReason> {
    let mut listeners = Vec::with_capacity(clients.len());
    for bound in clients {
        let address = shown(bound.socket.local_addr());
        let advertised = bound.advertised.as_ref();
        let advertised =
            advertised.map_or_else(String::new, |(host, port)| format!("{host}:{port}"));
        info!(listener = bound.name, %address, %advertised, "kafka listens");
        listeners.push((ListenerName(bound.name.clone()), into_tokio(bound)?));
    }
    let config = GatewayConfig::new(Arc::clone(config));
    Ok(Gateway::start(
        broker,
        config,
        listeners,
        CancellationToken::new(),
    ))
}

fn into_tokio(bound: Bound) -> Result<TcpListener, ExitReason> {
    TcpListener::from_std(bound.socket)
        .map_err(|error| ExitReason::Start(format!("listener {}: {error}", bound.name)))
}

/// What HTTP may look at, filled in as the roles come up.
struct NodeState {
    has_broker: bool,
    has_controller: bool,
    started_at_seconds: f64,
    controller: Mutex<Option<ControllerHandle>>,
    broker: Mutex<Option<BrokerHandle>>,
    gateway: Mutex<Option<Arc<GatewayMetrics>>>,
}

impl NodeState {
    fn new(config: &ServerConfig) -> NodeState {
        #[allow(
            clippy::disallowed_methods,
            reason = "the start time of the process, which only a dashboard reads"
        )]
        let now = SystemTime::now();
        NodeState {
            has_broker: config.roles.broker,
            has_controller: config.roles.controller,
            started_at_seconds: now
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs_f64(),
            controller: Mutex::new(None),
            broker: Mutex::new(None),
            gateway: Mutex::new(None),
        }
    }

    fn missing_of_broker(&self) -> Option<String> {
        let Some(broker) = self.broker.lock().clone() else {
            return Some("broker is starting".to_owned());
        };
        if self.gateway.lock().is_none() {
            return Some("client listeners are not open yet".to_owned());
        }
        if broker.is_ready() {
            return None;
        }
        Some(match broker.state() {
            BrokerState::Starting => "broker is looking for the controller quorum".to_owned(),
            BrokerState::Recovering => {
                "broker is recovering its logs or still fenced by the controller".to_owned()
            }
            BrokerState::Running => {
                "broker is running and not ready: its metadata is behind, or a log directory failed"
                    .to_owned()
            }
            BrokerState::PendingControlledShutdown | BrokerState::ShuttingDown => {
                "broker is shutting down".to_owned()
            }
        })
    }

    fn missing_of_controller(&self) -> Option<String> {
        let Some(controller) = self.controller.lock().clone() else {
            return Some("controller is starting".to_owned());
        };
        let formed = controller.cluster_id().is_some() && controller.leader().is_some();
        (!formed).then(|| "the controller quorum has no leader".to_owned())
    }
}

impl Pages for NodeState {
    fn metrics(&self) -> String {
        let mut page = Page::default();
        metrics::process(&mut page, &ProcessNumbers::read(), self.started_at_seconds);
        if let Some(broker) = self.broker.lock().clone() {
            metrics::broker(&mut page, &broker.metrics_snapshot());
        }
        if let Some(gateway) = self.gateway.lock().clone() {
            metrics::gateway(&mut page, &gateway.snapshot());
        }
        if let Some(controller) = self.controller.lock().clone() {
            metrics::controller(&mut page, &controller.metrics());
        }
        page.finish()
    }

    fn readiness(&self) -> Readiness {
        let mut missing = Vec::new();
        if self.has_broker {
            // A broker that serves has heard from the active controller: that its own controller
            // role may lag behind is no reason to keep clients away.
            missing.extend(self.missing_of_broker());
        } else if self.has_controller {
            missing.extend(self.missing_of_controller());
        }
        Readiness { missing }
    }
}

/// The limit of a node's shutdown.
pub(crate) fn shutdown_limit(config: &ServerConfig) -> Duration {
    Duration::from_millis(config.cluster.shutdown_timeout_ms)
}
