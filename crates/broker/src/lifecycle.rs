//! A broker's life: start, registration while logs recover, controlled shutdown, the end.
//!
//! Shutdown is a protocol (M-22): hand leaderships over while still serving, stop accepting,
//! answer and flush, write the clean marker, exit.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU8, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::{
    net::TcpListener,
    sync::{Notify, oneshot, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::server::TcpIncoming;
use tracing::{error, info, warn};
use uuid::Uuid;

use ottla_metadata::{Image, Registration};
use ottla_rpc::replication::replication_server::ReplicationServer;
use ottla_storage::{LogDir, LogDirError, OpenedDir, OsFiles, PartitionMarks};
use ottla_types::BrokerId;

use crate::{
    api::BrokerState,
    clock::Clock,
    config::BrokerConfig,
    feed::MetadataFeed,
    groups::Groups,
    handle::{BrokerHandle, Shared},
    isr_proposer::IsrProposer,
    maintenance::Maintenance,
    metadata_link::{LinkHandle, LinkOutputs},
    metrics::BrokerMetrics,
    partition::view::PartitionRegistry,
    recovery,
    replica_fetcher::{Fetchers, HTTP2_WINDOW_BYTES, MESSAGE_BYTES_MAX},
    replica_stream::{FollowerStreams, ReplicationService},
    shard::{
        Shard,
        env::{Env, Router, Space, Trash},
        input::Input,
        mailbox::Mailbox,
    },
    worker_pool::WorkerPool,
};

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log directory.
    #[error("log directory")]
    LogDir(#[from] LogDirError),
    /// The log directory belongs to another cluster (S-10).
    #[error("the log directory belongs to cluster {found:?}, `cluster.id` says {expected:?}")]
    ClusterId {
        /// As configured.
        expected: String,
        /// On disk.
        found: String,
    },
    /// A thread or socket could not be had.
    #[error("start threads")]
    Io(#[from] std::io::Error),
}

/// A running broker.
pub struct Broker {
    handle: BrokerHandle,
    groups: Groups,
    directory_id: Uuid,
    /// Ends tasks, streams and the link.
    stop: CancellationToken,
    /// Ends the link, last of all.
    stop_link: CancellationToken,
    tasks: TaskTracker,
    shards: Vec<JoinHandle<()>>,
    flush_pool: Arc<WorkerPool>,
}

impl Broker {
    /// Starts a broker. It registers at once and recovers its logs meanwhile, so its Kafka
    /// listeners should be bound by now; followers connect to `replication_listener`.
    ///
    /// # Errors
    /// See [`StartError`]. What goes wrong later is logged and seen in [`BrokerHandle::state`].
    pub async fn start(
        config: BrokerConfig, replication_listener: TcpListener, shutdown: CancellationToken,
    ) -> Result<Broker, StartError> {
        let clock = Clock::new();
        let (log_dir, opened) = open_log_dir(&config).await?;
        let config = Arc::new(with_cluster_id(config, &opened)?);
        let parts = Parts::new(Arc::clone(&config), log_dir, clock, &shutdown)?;
        let shards = parts.start_shards()?;
        parts.serve_replication(replication_listener)?;
        let link = parts.link.clone();
        let proposer = Arc::clone(&parts.proposer);
        let router = Arc::clone(&parts.router);
        let stop = parts.stop.clone();
        parts.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = proposer.run(link, router) => {}
            }
        });
        let base = BrokerHandle { shared: Arc::clone(&parts.shared), groups: None };
        let groups =
            Groups::start(Arc::new(base), config.groups.clone(), parts.stop.child_token());
        let handle =
            BrokerHandle { shared: Arc::clone(&parts.shared), groups: Some(groups.handle()) };
        parts.start_tasks(&opened);
        Ok(Broker {
            handle,
            groups,
            directory_id: opened.directory_id,
            stop: parts.stop,
            stop_link: parts.stop_link,
            tasks: parts.tasks,
            shards,
            flush_pool: parts.flush_pool,
        })
    }

    /// A handle for everybody else.
    #[must_use]
    pub fn handle(&self) -> BrokerHandle {
        self.handle.clone()
    }

    /// Id of the log directory.
    #[must_use]
    pub fn directory_id(&self) -> Uuid {
        self.directory_id
    }

    /// Hands every leadership over that somebody else can take, while still serving.
    ///
    /// Ends at once without a quorum or when nobody else can lead, and at the limit.
    pub async fn controlled_shutdown(&self) {
        let shared = &self.handle.shared;
        shared.state.store(state_number(BrokerState::PendingControlledShutdown), Ordering::SeqCst);
        let mut session = shared.link.session();
        let connected = session.borrow().connected && session.borrow().unfenced;
        if !connected || !self.can_hand_over() {
            info!("nothing to hand over, or nobody to hand it to");
            return;
        }
        shared.link.want_shutdown();
        let limit = Duration::from_millis(shared.config.controlled_shutdown_ms_max);
        let deadline = Instant::now() + limit;
        let begun = Instant::now();
        loop {
            let (may_shut_down, connected) = {
                let state = session.borrow_and_update();
                (state.may_shut_down, state.connected)
            };
            if may_shut_down {
                info!(ms = begun.elapsed().as_millis(), "handed over");
                return;
            }
            if !connected && begun.elapsed() > Duration::from_secs(3) {
                warn!("no quorum: leaderships are not handed over");
                return;
            }
            let turn = Duration::from_millis(50);
            let changed = tokio::time::timeout(turn, session.changed()).await;
            if matches!(changed, Ok(Err(_))) || Instant::now() >= deadline {
                warn!("leaderships are not handed over");
                return;
            }
            if !self.can_hand_over() && !self.leads_anything() {
                // The controller moved what could be moved; its word that all know follows soon.
                let quick = tokio::time::timeout(
                    Duration::from_millis(500),
                    session.wait_for(|state| state.may_shut_down),
                );
                let _ = quick.await;
                return;
            }
        }
    }

    fn leads_anything(&self) -> bool {
        let image = self.handle.image();
        image.partitions_led_by(self.handle.broker_id()).next().is_some()
    }

    /// Some partition led here, or in whose ISR this broker is, has another live member.
    fn can_hand_over(&self) -> bool {
        let image = self.handle.image();
        let me = self.handle.broker_id();
        let live = |id: &BrokerId| {
            *id != me && image.brokers.get(id).is_some_and(|broker| !broker.fenced)
        };
        image.partitions().any(|(_, record)| {
            record.isr.contains(&me) && record.isr.iter().chain(&record.elr).any(live)
        })
    }

    /// Stops accepting, answers everybody, flushes and closes the logs, writes the clean marker.
    pub async fn stop(self) {
        let shared = Arc::clone(&self.handle.shared);
        shared.state.store(state_number(BrokerState::ShuttingDown), Ordering::SeqCst);
        self.groups.stop().await;
        let mut marks: Vec<PartitionMarks> = Vec::new();
        let mut closing = Vec::new();
        for mailbox in shared.router.all() {
            let (done, closed) = oneshot::channel();
            mailbox.post(Input::Close { done });
            closing.push(closed);
        }
        for closed in closing {
            marks.extend(closed.await.unwrap_or_default());
        }
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let epoch = self.handle.broker_epoch();
        let log_dir = Arc::clone(&shared.log_dir);
        let (shards, flush_pool) = (self.shards, self.flush_pool);
        let io_pool = Arc::clone(&shared.io_pool);
        let closed = tokio::task::spawn_blocking(move || {
            for shard in shards {
                let _ = shard.join();
            }
            flush_pool.close();
            io_pool.close();
            log_dir.write_checkpoints(&marks)?;
            match epoch {
                Some(epoch) if !log_dir.failed() => log_dir.mark_clean_shutdown(Some(epoch)),
                Some(_) | None => Ok(()),
            }
        })
        .await;
        match closed {
            Ok(Ok(())) => info!("stopped"),
            Ok(Err(error)) => error!(%error, "no clean shutdown marker"),
            Err(error) => error!(%error, "closing the log directory"),
        }
        self.stop_link.cancel();
    }

    /// Ends as a killed process would: nothing is flushed, marked or handed over. For tests.
    pub async fn kill(self) {
        let shared = Arc::clone(&self.handle.shared);
        shared.state.store(state_number(BrokerState::ShuttingDown), Ordering::SeqCst);
        self.stop_link.cancel();
        self.stop.cancel();
        shared.router.post_all(|| Input::Kill);
        self.tasks.close();
        self.tasks.wait().await;
        self.groups.stop().await;
        let (shards, flush_pool) = (self.shards, self.flush_pool);
        let io_pool = Arc::clone(&shared.io_pool);
        let _ = tokio::task::spawn_blocking(move || {
            for shard in shards {
                let _ = shard.join();
            }
            flush_pool.close();
            io_pool.close();
        })
        .await;
    }
}

fn state_number(state: BrokerState) -> u8 {
    match state {
        BrokerState::Starting => 0,
        BrokerState::Recovering => 1,
        BrokerState::Running => 2,
        BrokerState::PendingControlledShutdown => 3,
        BrokerState::ShuttingDown => 4,
    }
}

async fn open_log_dir(config: &BrokerConfig) -> Result<(LogDir, OpenedDir), StartError> {
    let (path, broker_id) = (config.log_dir.clone(), config.broker_id);
    let opening =
        tokio::task::spawn_blocking(move || LogDir::open(&path, broker_id, Arc::new(OsFiles)));
    let opened = opening.await.map_err(|error| StartError::Io(error.into()))?;
    Ok(opened?)
}

/// The cluster is the one on disk, if there is one there.
fn with_cluster_id(
    mut config: BrokerConfig, opened: &OpenedDir,
) -> Result<BrokerConfig, StartError> {
    match (&config.cluster_id, &opened.cluster_id) {
        (Some(expected), Some(found)) if expected != found => {
            return Err(StartError::ClusterId {
                expected: expected.clone(),
                found: found.clone(),
            });
        }
        (None, Some(found)) => config.cluster_id = Some(found.clone()),
        _ => {}
    }
    Ok(config)
}

/// What a broker is made of, while it is put together.
struct Parts {
    shared: Arc<Shared>,
    clock: Clock,
    router: Arc<Router>,
    feed: Arc<MetadataFeed>,
    link: LinkHandle,
    proposer: Arc<IsrProposer>,
    fetchers: Arc<Fetchers>,
    streams: Arc<FollowerStreams>,
    space: Arc<Space>,
    trash: Arc<Trash>,
    flush_pool: Arc<WorkerPool>,
    directory_failed: Arc<Notify>,
    stop: CancellationToken,
    stop_link: CancellationToken,
    tasks: TaskTracker,
}

impl Parts {
    fn new(
        config: Arc<BrokerConfig>, log_dir: LogDir, clock: Clock, shutdown: &CancellationToken,
    ) -> Result<Parts, StartError> {
        // The caller's token does not cut a shutdown short: stopping has an order of its own.
        let (stop, stop_link) = (CancellationToken::new(), CancellationToken::new());
        let _ = shutdown;
        let tasks = TaskTracker::new();
        let metrics = Arc::new(BrokerMetrics::default());
        let image = Arc::new(ArcSwap::from_pointee(Image::default()));
        let broker_epoch = Arc::new(AtomicI64::new(-1));
        let mailboxes = (0..config.shard_count()).map(|_| {
            Arc::new(Mailbox::new(config.admission_bytes_max, config.admission_entries_max))
        });
        let router = Arc::new(Router::new(mailboxes.collect()));
        let feed = Arc::new(MetadataFeed::new(
            Arc::clone(&image),
            Arc::clone(&broker_epoch),
            Arc::clone(&router),
        ));
        let image_index = watch::Sender::new(0);
        let feeding = Arc::clone(&feed);
        let outputs = LinkOutputs {
            broker_epoch: Arc::clone(&broker_epoch),
            image: Arc::clone(&image),
            image_index: image_index.clone(),
            feed: Box::new(move |_, changed| feeding.feed(changed)),
        };
        let link = LinkHandle::start(
            Arc::clone(&config),
            Arc::clone(&metrics),
            outputs,
            stop_link.clone(),
        )?;
        let fetchers = Fetchers::new(
            config.broker_id,
            Arc::clone(&broker_epoch),
            Arc::clone(&image),
            Arc::clone(&router),
            tasks.clone(),
            stop.clone(),
        );
        let known = Arc::clone(&image);
        let streams = Arc::new(FollowerStreams::new(
            config.broker_id,
            Arc::clone(&router),
            config.live_window_bytes,
            config.catch_up_window_bytes,
            Arc::new(move || known.load().cluster_id.clone()),
            tasks.clone(),
            stop.clone(),
        ));
        let io_pool = Arc::new(WorkerPool::start("io", config.io_threads)?);
        let flush_pool = Arc::new(WorkerPool::start("flush", config.flush_threads)?);
        let shared = Arc::new(Shared {
            config,
            metrics,
            image,
            image_index,
            broker_epoch,
            state: AtomicU8::new(state_number(BrokerState::Starting)),
            registry: Arc::new(PartitionRegistry::default()),
            router: Arc::clone(&router),
            io_pool,
            link: link.clone(),
            log_dir: Arc::new(log_dir),
            producer_ids: tokio::sync::Mutex::default(),
            space_bytes: Mutex::new(None),
        });
        Ok(Parts {
            shared,
            clock,
            router,
            feed,
            link,
            proposer: Arc::new(IsrProposer::default()),
            fetchers,
            streams,
            space: Arc::new(Space::default()),
            trash: Arc::new(Trash::default()),
            flush_pool,
            directory_failed: Arc::new(Notify::new()),
            stop,
            stop_link,
            tasks,
        })
    }

    fn start_shards(&self) -> std::io::Result<Vec<JoinHandle<()>>> {
        let count = self.router.all().len();
        // Above every subscription of an earlier life of this process, whose frames may be late.
        let first_subscription = self.clock.wall().0.unsigned_abs() << 20;
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let env = Env {
                broker_id: self.shared.config.broker_id,
                config: Arc::clone(&self.shared.config),
                clock: self.clock,
                metrics: Arc::clone(&self.shared.metrics),
                mailbox: Arc::clone(self.router.mailbox(number)),
                log_dir: Arc::clone(&self.shared.log_dir),
                flush_pool: Arc::clone(&self.flush_pool),
                io_pool: Arc::clone(&self.shared.io_pool),
                fetchers: Arc::clone(&self.fetchers),
                streams: Arc::clone(&self.streams),
                proposer: Arc::clone(&self.proposer),
                space: Arc::clone(&self.space),
                trash: Arc::clone(&self.trash),
                registry: Arc::clone(&self.shared.registry),
                first_subscription,
                directory_failed: Arc::clone(&self.directory_failed),
            };
            let shard = Shard::new(number, count, env);
            let thread = std::thread::Builder::new().name(format!("shard-{number}"));
            threads.push(thread.spawn(move || shard.run())?);
        }
        Ok(threads)
    }

    fn serve_replication(&self, listener: TcpListener) -> std::io::Result<()> {
        let service = ReplicationService { streams: Arc::clone(&self.streams) };
        let service = ReplicationServer::new(service)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let stop = self.stop.clone();
        let server = tonic::transport::Server::builder()
            .initial_stream_window_size(HTTP2_WINDOW_BYTES)
            .initial_connection_window_size(HTTP2_WINDOW_BYTES)
            .max_frame_size(1 << 20)
            .http2_keepalive_interval(Some(Duration::from_secs(2)))
            .http2_keepalive_timeout(Some(Duration::from_secs(2)))
            .add_service(service);
        self.tasks.spawn(async move {
            let serving = server.serve_with_incoming(incoming);
            tokio::select! {
                () = stop.cancelled() => {}
                outcome = serving => {
                    if let Err(error) = outcome {
                        error!(%error, "replication listener");
                    }
                }
            }
        });
        Ok(())
    }

    fn start_tasks(&self, opened: &OpenedDir) {
        let registration = registration(&self.shared.config, opened);
        self.link.register(registration.clone());
        let joining = Joining {
            shared: Arc::clone(&self.shared),
            feed: Arc::clone(&self.feed),
            clock: self.clock,
            registration,
        };
        self.spawn(async move { joining.run().await });
        let maintenance = Maintenance {
            shared: Arc::clone(&self.shared),
            space: Arc::clone(&self.space),
            trash: Arc::clone(&self.trash),
            clock: self.clock,
            shutdown: self.stop.clone(),
        };
        self.tasks.spawn(maintenance.run());
        let (failed, router) = (Arc::clone(&self.directory_failed), Arc::clone(&self.router));
        let (link, directory_id) = (self.link.clone(), opened.directory_id);
        self.spawn(async move {
            failed.notified().await;
            error!(%directory_id, "log directory failed");
            link.report_offline_directory(directory_id);
            router.post_all(|| Input::DirectoryFailed);
        });
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }
}

/// What this life of the broker tells the controller.
fn registration(config: &BrokerConfig, opened: &OpenedDir) -> Registration {
    let default_mode = (config.topic_settings)(&Image::default(), "").flush_mode;
    let power_cut = !opened.clean_shutdown && opened.boot_id_changed && !opened.new_directory;
    Registration {
        broker_id: config.broker_id,
        cluster_id: config.cluster_id.clone(),
        incarnation: Uuid::new_v4(),
        directory_ids: vec![opened.directory_id],
        endpoints: config.endpoints.clone(),
        replication_address: config.replication_address.clone(),
        rack: config.rack.clone(),
        unclean: opened.new_directory,
        power_cut: power_cut.then_some(default_mode),
        live: std::collections::BTreeSet::new(),
    }
}

/// From registered to running.
struct Joining {
    shared: Arc<Shared>,
    feed: Arc<MetadataFeed>,
    clock: Clock,
    registration: Registration,
}

impl Joining {
    async fn run(mut self) {
        let state = |state| self.shared.state.store(state_number(state), Ordering::SeqCst);
        state(BrokerState::Recovering);
        let (config, log_dir) = (Arc::clone(&self.shared.config), Arc::clone(&self.shared.log_dir));
        let (router, clock) = (Arc::clone(&self.shared.router), self.clock);
        let recovering = tokio::task::spawn_blocking(move || {
            recovery::recover(&config, &log_dir, &router, clock)
        });
        match recovering.await {
            Ok(Ok(recovered)) if recovered.damaged => {
                self.registration.unclean = true;
                self.registration.incarnation = Uuid::new_v4();
                self.shared.link.register(self.registration.clone());
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                error!(%error, "logs are not recovered");
                return;
            }
            Err(error) => {
                error!(%error, "recovery");
                return;
            }
        }
        self.feed.open();
        let mut indexes = self.shared.image_index.subscribe();
        while !self.feed.is_fed() {
            let turn = tokio::time::timeout(Duration::from_millis(20), indexes.changed());
            let _ = turn.await;
        }
        self.keep_cluster_id().await;
        self.shared.link.set_ready();
        let mut session = self.shared.link.session();
        if session.wait_for(|session| session.unfenced).await.is_ok() {
            let starting = state_number(BrokerState::Recovering);
            let running = state_number(BrokerState::Running);
            let moved = self.shared.state.compare_exchange(
                starting,
                running,
                Ordering::SeqCst,
                Ordering::SeqCst,
            );
            if moved.is_ok() {
                info!("running");
            }
        }
    }

    /// The directory remembers which cluster it belongs to (S-10).
    async fn keep_cluster_id(&self) {
        let Some(cluster_id) = self.shared.image.load().cluster_id.clone() else { return };
        let log_dir = Arc::clone(&self.shared.log_dir);
        let kept = self.shared.io_pool.run(move || {
            log_dir.set_cluster_id(&cluster_id)?;
            // The registration that told how the last life ended has been taken.
            log_dir.confirm_boot()
        });
        if let Some(Err(error)) = kept.await {
            warn!(%error, "remember the cluster and the boot");
        }
    }
}
