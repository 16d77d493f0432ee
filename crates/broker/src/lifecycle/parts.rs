//! A broker put together: its threads, tasks and what they share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU8},
    },
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::server::TcpIncoming;
use tracing::error;

use ottla_metadata::Image;
use ottla_rpc::replication::replication_server::ReplicationServer;
use ottla_storage::{LogDir, OpenedDir};

use crate::{
    api::BrokerState,
    clock::Clock,
    config::BrokerConfig,
    feed::MetadataFeed,
    handle::Shared,
    isr_proposer::IsrProposer,
    maintenance::Maintenance,
    metadata_link::{LinkHandle, LinkOutputs},
    metrics::BrokerMetrics,
    partition::view::PartitionRegistry,
    replica_fetcher::{Fetchers, HTTP2_WINDOW_BYTES, MESSAGE_BYTES_MAX},
    replica_stream::{FollowerStreams, ReplicationService},
    shard::{
        Shard,
        env::{Env, Router, Space, Trash},
        input::Input,
        mailbox::Mailbox,
    },
    stall::{Flushes, StallWatch},
    worker_pool::WorkerPool,
};

use super::{
    StartError,
    joining::{Joining, registration},
    state_number,
};

/// What a broker is made of, while it is put together.
pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) log_dir: Arc<LogDir>,
    pub(super) clock: Clock,
    pub(super) router: Arc<Router>,
    pub(super) feed: Arc<MetadataFeed>,
    pub(super) link: LinkHandle,
    pub(super) proposer: Arc<IsrProposer>,
    pub(super) fetchers: Arc<Fetchers>,
    pub(super) streams: Arc<FollowerStreams>,
    pub(super) space: Arc<Space>,
    pub(super) trash: Arc<Trash>,
    pub(super) flush_pool: Arc<WorkerPool>,
    pub(super) flushes: Arc<Flushes>,
    pub(super) directory_failed: Arc<Notify>,
    pub(super) stop: CancellationToken,
    pub(super) stop_link: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Parts {
    pub(super) fn new(
        config: Arc<BrokerConfig>,
        log_dir: LogDir,
        clock: Clock,
        shutdown: &CancellationToken,
    ) -> Result<Parts, StartError> {
        // The caller's token does not cut a shutdown short: stopping has an order of its own.
        let (stop, stop_link) = (CancellationToken::new(), CancellationToken::new());
        let _ = shutdown;
        let tasks = TaskTracker::new();
        let metrics = Arc::new(BrokerMetrics::default());
        let image = Arc::new(ArcSwap::from_pointee(Image::default()));
        let broker_epoch = Arc::new(AtomicI64::new(-1));
        let mailboxes = (0..config.shard_count()).map(|_| {
            Arc::new(Mailbox::new(
                config.admission_bytes_max,
                config.admission_entries_max,
            ))
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
        let flushes = Arc::new(Flushes::new(config.flush_threads.max(1)));
        let space = Arc::new(Space::default());
        let log_dir = Arc::new(log_dir);
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
            fetchers: Arc::downgrade(&fetchers),
            log_dir: Arc::downgrade(&log_dir),
            producer_ids: tokio::sync::Mutex::default(),
            space: Arc::clone(&space),
            space_bytes: Mutex::new(None),
        });
        Ok(Parts {
            shared,
            log_dir,
            clock,
            router,
            feed,
            link,
            proposer: Arc::new(IsrProposer::default()),
            fetchers,
            streams,
            space,
            trash: Arc::new(Trash::default()),
            flush_pool,
            flushes,
            directory_failed: Arc::new(Notify::new()),
            stop,
            stop_link,
            tasks,
        })
    }

    pub(super) fn start_shards(&self) -> std::io::Result<Vec<JoinHandle<()>>> {
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
                log_dir: Arc::clone(&self.log_dir),
                flush_pool: Arc::clone(&self.flush_pool),
                flushes: Arc::clone(&self.flushes),
                io_pool: Arc::clone(&self.shared.io_pool),
                fetchers: Arc::clone(&self.fetchers),
                streams: Arc::clone(&self.streams),
                proposer: Arc::clone(&self.proposer),
                space: Arc::clone(&self.space),
                trash: Arc::clone(&self.trash),
                registry: Arc::clone(&self.shared.registry),
                first_subscription,
                directory_failed: Arc::clone(&self.directory_failed),
                link: self.link.clone(),
            };
            let shard = Shard::new(number, count, env);
            let thread = std::thread::Builder::new().name(format!("shard-{number}"));
            threads.push(thread.spawn(move || shard.run())?);
        }
        Ok(threads)
    }

    pub(super) fn serve_replication(&self, listener: TcpListener) -> std::io::Result<()> {
        let service = ReplicationService {
            streams: Arc::clone(&self.streams),
        };
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

    pub(super) fn start_tasks(&self, opened: &OpenedDir) {
        self.link
            .register(registration(&self.shared.config, opened));
        let joining = Joining {
            shared: Arc::clone(&self.shared),
            log_dir: Arc::clone(&self.log_dir),
            feed: Arc::clone(&self.feed),
            clock: self.clock,
            stop: self.stop.clone(),
        };
        self.spawn(async move { joining.run().await });
        let maintenance = Maintenance {
            shared: Arc::clone(&self.shared),
            log_dir: Arc::clone(&self.log_dir),
            space: Arc::clone(&self.space),
            trash: Arc::clone(&self.trash),
            clock: self.clock,
            directory_failed: Arc::clone(&self.directory_failed),
            shutdown: self.stop.clone(),
        };
        self.tasks.spawn(maintenance.run());
        let watch = StallWatch {
            flushes: Arc::clone(&self.flushes),
            space: Arc::clone(&self.space),
            link: self.link.clone(),
            router: Arc::clone(&self.router),
            clock: self.clock,
            shutdown: self.stop.clone(),
        };
        self.tasks.spawn(watch.run());
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
