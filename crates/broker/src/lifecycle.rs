//! A broker's life: start, registration while logs recover, controlled shutdown, the end.
//!
//! Shutdown is a protocol (M-22): hand leaderships over while still serving, stop accepting,
//! answer and flush, write the clean marker, exit.

mod joining;
mod parts;

use std::{
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use tokio::{net::TcpListener, sync::oneshot, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};
use uuid::Uuid;

use ottla_storage::{LogDir, LogDirError, OpenedDir, PartitionMarks};
use ottla_types::BrokerId;

use crate::{
    api::BrokerState, clock::Clock, config::BrokerConfig, groups::Groups, handle::BrokerHandle,
    shard::input::Input, worker_pool::WorkerPool,
};

use parts::Parts;

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
    log_dir: Arc<LogDir>,
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
        config: BrokerConfig,
        replication_listener: TcpListener,
        shutdown: CancellationToken,
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
        let base = BrokerHandle {
            shared: Arc::clone(&parts.shared),
            groups: None,
        };
        let groups = Groups::start(
            Arc::new(base),
            config.groups.clone(),
            parts.stop.child_token(),
        );
        let handle = BrokerHandle {
            shared: Arc::clone(&parts.shared),
            groups: Some(groups.handle()),
        };
        parts.start_tasks(&opened);
        Ok(Broker {
            handle,
            groups,
            log_dir: parts.log_dir,
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
        shared.state.store(
            state_number(BrokerState::PendingControlledShutdown),
            Ordering::SeqCst,
        );
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
        image
            .partitions_led_by(self.handle.broker_id())
            .next()
            .is_some()
    }

    /// Some partition led here, or in whose ISR this broker is, has another live member.
    fn can_hand_over(&self) -> bool {
        let image = self.handle.image();
        let me = self.handle.broker_id();
        let live =
            |id: &BrokerId| *id != me && image.brokers.get(id).is_some_and(|broker| !broker.fenced);
        image.partitions().any(|(_, record)| {
            record.isr.contains(&me) && record.isr.iter().chain(&record.elr).any(live)
        })
    }

    /// Stops accepting, answers everybody, flushes and closes the logs, writes the clean marker.
    pub async fn stop(self) {
        let shared = Arc::clone(&self.handle.shared);
        shared
            .state
            .store(state_number(BrokerState::ShuttingDown), Ordering::SeqCst);
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
        let log_dir = self.log_dir;
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
        shared
            .state
            .store(state_number(BrokerState::ShuttingDown), Ordering::SeqCst);
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
    let files = Arc::clone(&config.files);
    let opening = tokio::task::spawn_blocking(move || LogDir::open(&path, broker_id, files));
    let opened = opening
        .await
        .map_err(|error| StartError::Io(error.into()))?;
    Ok(opened?)
}

/// The cluster is the one on disk, if there is one there.
fn with_cluster_id(
    mut config: BrokerConfig,
    opened: &OpenedDir,
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
