//! One controller: its threads, its parts, its start and its end.
//!
//! Raft, its timers and the brokers' streams run on threads of their own, so that the data path,
//! however busy, cannot make a leader look dead.

use std::{
    net::TcpListener,
    sync::{Arc, OnceLock, atomic::AtomicU64},
    time::Duration,
};

use tokio::{
    runtime::Runtime,
    sync::{oneshot, watch},
    time::Instant,
};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Server;

use ottla_rpc::{controller::controller_server::ControllerServer, raft::raft_server::RaftServer};

use crate::{
    balance::Balance,
    cluster::Cluster,
    config::ControllerConfig,
    contact::Contact,
    election::Elections,
    formation::Formation,
    handle::ControllerHandle,
    leadership::Leadership,
    peers::{MESSAGE_BYTES_MAX, Peers},
    raft::{Quorum, QuorumStartError, RaftService, ReplicaKey, StoreError, open_disk},
    service::{ControllerService, proposal_permits},
    sessions::{Limits, SessionHub},
};

/// The directory of the controller's store within the data directory.
const STORE_DIRECTORY: &str = "__cluster_metadata";
/// Largest command from a broker: the gateway's request limit.
const COMMAND_BYTES_MAX: usize = 128 << 20;
/// Connections close by themselves within this time at the end.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);
/// Tasks end within this time.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Why a controller could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// Threads or the listener are not to be had.
    #[error("start the controller's threads: {0}")]
    Runtime(#[from] std::io::Error),
    /// The store cannot be opened or read.
    #[error("open the controller's store: {0}")]
    Store(String),
    /// The store belongs to another cluster.
    #[error("this directory belongs to cluster {found:?}, cluster.id is {configured:?}")]
    OtherCluster {
        /// What the store says.
        found: String,
        /// What the configuration says.
        configured: String,
    },
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> StartError {
        StartError::Store(error.to_string())
    }
}

impl From<QuorumStartError> for StartError {
    fn from(error: QuorumStartError) -> StartError {
        StartError::Store(error.to_string())
    }
}

/// A running controller.
pub struct Controller {
    runtime: Option<Runtime>,
    parts: Arc<Parts>,
    handle: ControllerHandle,
}

/// What [`Controller::stop`] needs, on the controller's own threads.
struct Parts {
    quorum: Arc<Quorum>,
    elections: Arc<Elections>,
    active: watch::Receiver<Option<Arc<crate::leadership::Active>>>,
    tasks: TaskTracker,
    resigning: CancellationToken,
    leadership: CancellationToken,
    shutdown: CancellationToken,
}

impl Controller {
    /// Starts a controller that serves `listener`. Returns once its store is open; forming or
    /// joining the quorum goes on by itself, see [`ControllerHandle::wait_formed`].
    ///
    /// # Errors
    /// If the configuration, the threads, the listener or the store are not usable.
    pub async fn start(
        config: ControllerConfig,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<Controller, StartError> {
        config.check().map_err(StartError::Config)?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            // A name server that does not answer holds one for each name that is looked up.
            .max_blocking_threads(64)
            .thread_name("ottla-control")
            .enable_all()
            .build()?;
        let (done, started) = oneshot::channel();
        runtime.handle().spawn(async move {
            // The caller has left: the runtime goes with it.
            let _ = done.send(assemble(config, listener, shutdown).await);
        });
        let result = started.await.unwrap_or_else(|_| {
            Err(StartError::Store(
                "the controller's thread ended".to_owned(),
            ))
        });
        match result {
            Ok((parts, handle)) => Ok(Controller {
                runtime: Some(runtime),
                parts: Arc::new(parts),
                handle,
            }),
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// A handle for the rest of the process.
    #[must_use]
    pub fn handle(&self) -> ControllerHandle {
        self.handle.clone()
    }

    /// Gives up leadership, ends all streams, closes the store.
    pub async fn stop(mut self) {
        self.end(true).await;
    }

    /// Stops without a word to anybody, as a process that is killed; for tests. The store is
    /// closed all the same, so that the same process can open it again.
    pub async fn kill(mut self) {
        self.end(false).await;
    }

    async fn end(&mut self, resign: bool) {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        let parts = self.parts.clone();
        let ending = runtime.spawn(async move { parts.end(resign).await });
        if tokio::time::timeout(STOP_LIMIT, ending).await.is_err() {
            tracing::warn!("the controller did not stop in time");
        }
        runtime.shutdown_background();
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.parts.shutdown.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Parts {
    async fn end(&self, resign: bool) {
        if resign {
            // First no more proposals, then a successor, then the streams.
            self.resigning.cancel();
            self.leadership.cancel();
            let inactive = self.active.clone().wait_for(Option::is_none).await.is_ok();
            tracing::debug!(inactive, "no longer accepting proposals");
            self.elections.resign().await;
        }
        self.shutdown.cancel();
        self.tasks.close();
        self.quorum.stop().await;
        self.tasks.wait().await;
    }
}

async fn assemble(
    config: ControllerConfig,
    listener: TcpListener,
    outer: CancellationToken,
) -> Result<(Parts, ControllerHandle), StartError> {
    let shutdown = outer.child_token();
    let tasks = TaskTracker::new();
    let disk = open_disk(&config.data_dir.join(STORE_DIRECTORY), config.node_id).await?;
    let identity = disk.identity();
    let me = ReplicaKey {
        node_id: identity.node_id,
        directory_id: identity.directory_id,
    };
    let cluster_id = Arc::new(OnceLock::new());
    let cluster = Arc::new(Cluster::new(cluster_id.clone()));
    let peers = Arc::new(Peers::new(me, &config.voters, cluster_id.clone()));
    let quorum = Quorum::start(
        &config,
        disk,
        peers.clone(),
        cluster.clone(),
        &tasks,
        shutdown.clone(),
    );
    let quorum = Arc::new(quorum.await?);
    if let Some(configured) = &config.cluster_id {
        let known = cluster_id.get_or_init(|| configured.clone());
        if known != configured {
            let (found, configured) = (known.clone(), configured.clone());
            quorum.stop().await;
            return Err(StartError::OtherCluster { found, configured });
        }
    }
    tracing::info!(replica = %me, cluster_id = peers.cluster_id(), "controller starts");
    Ok(wire(
        &config,
        listener,
        Wiring {
            quorum,
            cluster,
            peers,
            tasks,
            shutdown,
        },
    ))
}

struct Wiring {
    quorum: Arc<Quorum>,
    cluster: Arc<Cluster>,
    peers: Arc<Peers>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

fn wire(
    config: &ControllerConfig,
    listener: TcpListener,
    wiring: Wiring,
) -> (Parts, ControllerHandle) {
    let Wiring {
        quorum,
        cluster,
        peers,
        tasks,
        shutdown,
    } = wiring;
    let resigning = shutdown.child_token();
    let leadership_token = shutdown.child_token();
    let contact = Arc::new(Contact::new(config.quorum.lease));
    // The oldest answer of a majority may be one heartbeat old in good times.
    let quorum_limit = config.quorum.lease + config.quorum.heartbeat;

    let elections = Arc::new(Elections {
        quorum: quorum.clone(),
        peers: peers.clone(),
        contact: contact.clone(),
        timing: config.quorum,
        resigning: resigning.clone(),
        shutdown: shutdown.clone(),
    });
    tasks.spawn(elections.clone().send_heartbeats());
    tasks.spawn(elections.clone().stand());
    tasks.spawn(elections.clone().watch_leader());
    let formation = Arc::new(Formation {
        quorum: quorum.clone(),
        peers: peers.clone(),
        shutdown: shutdown.clone(),
    });
    tasks.spawn(formation.clone().form());

    let limits = Limits {
        session: config.session_timeout,
        grace: config.session_grace,
        dead: config.session_grace / 6,
        refused: config.session_grace * 2 / 5,
    };
    let sessions = Arc::new(SessionHub::new(
        quorum.clone(),
        cluster.clone(),
        peers.clone(),
        limits,
    ));
    let balance = Arc::new(Balance {
        quorum: quorum.clone(),
        cluster: cluster.clone(),
        sessions: sessions.clone(),
        interval: config.leader_imbalance_check_interval,
        preferred: config.auto_leader_rebalance,
    });
    let activations = Arc::new(AtomicU64::new(0));
    let leadership = Leadership {
        quorum: quorum.clone(),
        cluster: cluster.clone(),
        quorum_limit,
        cluster_id: config.cluster_id.clone(),
        initial_cluster_configs: config.initial_cluster_configs.clone(),
        file_configs: config.file_configs.clone(),
        activations: activations.clone(),
        shutdown: leadership_token.clone(),
    };
    let (publish, active) = watch::channel(None);
    let hub = sessions.clone();
    tasks.spawn(leadership.run(publish, move |active, period| {
        hub.begin(&active, period);
        period.spawn(formation.clone().mend(active.ended.clone()));
        period.spawn(balance.clone().run(active));
    }));

    let refusals = Arc::new(AtomicU64::new(0));
    let (report, lag) = watch::channel(0);
    tasks.spawn(measure_lag(quorum.clone(), report, shutdown.clone()));
    let raft = RaftService {
        quorum: quorum.clone(),
        peers: peers.clone(),
        contact,
        quorum_limit,
        resigning: resigning.clone(),
        shutdown: shutdown.clone(),
    };
    let brokers = ControllerService {
        quorum: quorum.clone(),
        cluster: cluster.clone(),
        peers,
        sessions: sessions.clone(),
        active: active.clone(),
        permits: proposal_permits(),
        tasks: tasks.clone(),
        shutdown: shutdown.clone(),
        refusals: refusals.clone(),
    };
    tasks.spawn(serve(listener, raft, brokers, shutdown.clone()));

    let handle = ControllerHandle {
        quorum: quorum.clone(),
        cluster,
        sessions,
        active: active.clone(),
        activations,
        refusals,
        lag,
    };
    let leadership = leadership_token;
    (
        Parts {
            quorum,
            elections,
            active,
            tasks,
            resigning,
            leadership,
            shutdown,
        },
        handle,
    )
}

async fn serve(
    listener: TcpListener,
    raft: RaftService,
    brokers: ControllerService,
    shutdown: CancellationToken,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot serve the controller listener");
            return;
        }
    };
    let raft = RaftServer::new(raft)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let brokers = ControllerServer::new(brokers)
        .max_decoding_message_size(COMMAND_BYTES_MAX)
        .max_encoding_message_size(usize::MAX);
    let server = Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(1)))
        .http2_keepalive_timeout(Some(Duration::from_secs(2)))
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .add_service(raft)
        .add_service(brokers);
    let incoming = TcpListenerStream::new(listener);
    let serving = server.serve_with_incoming_shutdown(incoming, shutdown.cancelled());
    tokio::pin!(serving);
    let drained = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN_LIMIT).await;
    };
    tokio::select! {
        served = &mut serving => if let Err(error) = served {
            tracing::error!(%error, "the controller listener failed");
        },
        () = drained => {}
    }
}

/// Follows how long the applied state has been behind the log (M-9).
async fn measure_lag(quorum: Arc<Quorum>, report: watch::Sender<u64>, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    let mut level_at = Instant::now();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let state = quorum.state();
        if state.applied >= state.last_log.map(|id| id.index) {
            level_at = Instant::now();
        }
        let lag = u64::try_from(level_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        report.send_replace(lag);
    }
}
