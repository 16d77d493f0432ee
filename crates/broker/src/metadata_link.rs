//! The broker's link to the controller quorum: registration, heartbeats, metadata, commands.
//!
//! Everything here runs on one thread of its own, so that load on the data path never delays a
//! heartbeat (F-9). Any controller may be asked; one that is not active says who is.

mod calls;
mod own_registration;
mod session;
mod subscription;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use ottla_metadata::{Command, Image, Outcome, Registration};
use ottla_types::{BrokerEpoch, BrokerId, PartitionId};

use own_registration::OwnRegistration;

use crate::{
    api::{ControllerError, QuorumDescription},
    config::BrokerConfig,
    metrics::BrokerMetrics,
    shard::input::Changed,
};

/// What the controller last said of this broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionState {
    /// A heartbeat was answered on the stream that is open now.
    pub(crate) connected: bool,
    /// Registered and serving.
    pub(crate) unfenced: bool,
    /// It leads nothing any more and everybody knows.
    pub(crate) may_shut_down: bool,
    /// Term of the active controller.
    pub(crate) term: u64,
}

/// Tells shards and waiters of new metadata.
pub(crate) type Feed = Box<dyn Fn(Arc<Image>, Changed) + Send + Sync>;

struct Inner {
    config: Arc<BrokerConfig>,
    metrics: Arc<BrokerMetrics>,
    runtime: tokio::runtime::Handle,
    channels: Mutex<HashMap<String, Channel>>,
    /// The active controller, as far as known.
    active: watch::Sender<Option<(BrokerId, String)>>,
    /// Turns when nobody knows who is active.
    next_voter: AtomicUsize,
    /// Addresses that lately could not be connected to.
    unreachable: Mutex<HashMap<String, Instant>>,
    registration: OwnRegistration,
    image: Arc<ArcSwap<Image>>,
    image_index: watch::Sender<u64>,
    applied_index: AtomicU64,
    session: watch::Sender<SessionState>,
    /// Since when controllers call the registration stale.
    stale_since: Mutex<Option<Instant>>,
    /// Heartbeat now: a flag changed.
    heartbeat: Notify,
    ready: AtomicBool,
    want_shutdown: AtomicBool,
    offline_directories: Mutex<Vec<uuid::Uuid>>,
    no_space: AtomicBool,
    stalled: AtomicBool,
    /// When a controller last accepted a heartbeat.
    accepted_at: Mutex<Option<Instant>>,
    /// Why this broker can never join, if so.
    refused: watch::Sender<Option<String>>,
    feed: Feed,
}

/// A cheap handle on the link.
#[derive(Clone)]
pub(crate) struct LinkHandle {
    inner: Arc<Inner>,
}

/// Where the link publishes.
pub(crate) struct LinkOutputs {
    pub(crate) broker_epoch: Arc<AtomicI64>,
    pub(crate) image: Arc<ArcSwap<Image>>,
    pub(crate) image_index: watch::Sender<u64>,
    pub(crate) feed: Feed,
}

impl LinkHandle {
    /// Starts the thread. It ends after `shutdown`.
    pub(crate) fn start(
        config: Arc<BrokerConfig>,
        metrics: Arc<BrokerMetrics>,
        outputs: LinkOutputs,
        shutdown: CancellationToken,
    ) -> std::io::Result<LinkHandle> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let inner = Arc::new(Inner {
            config,
            metrics,
            runtime: runtime.handle().clone(),
            channels: Mutex::new(HashMap::new()),
            active: watch::Sender::new(None),
            next_voter: AtomicUsize::new(0),
            unreachable: Mutex::new(HashMap::new()),
            registration: OwnRegistration::new(outputs.broker_epoch),
            image: outputs.image,
            image_index: outputs.image_index,
            applied_index: AtomicU64::new(0),
            session: watch::Sender::new(SessionState::default()),
            stale_since: Mutex::new(None),
            heartbeat: Notify::new(),
            ready: AtomicBool::new(false),
            want_shutdown: AtomicBool::new(false),
            offline_directories: Mutex::new(Vec::new()),
            no_space: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            accepted_at: Mutex::new(None),
            refused: watch::Sender::new(None),
            feed: outputs.feed,
        });
        let handle = LinkHandle {
            inner: Arc::clone(&inner),
        };
        std::thread::Builder::new()
            .name("metadata-link".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        () = session::run(&inner) => {}
                        () = subscription::run(&inner) => {}
                    }
                });
                // Calls in flight end here; whoever waits for them is told that they are gone.
                runtime.shutdown_background();
            })?;
        Ok(handle)
    }

    pub(crate) fn broker_id(&self) -> BrokerId {
        self.inner.config.broker_id
    }

    /// This broker's registration, while it has one.
    pub(crate) fn broker_epoch(&self) -> Option<BrokerEpoch> {
        self.inner.registration.epoch()
    }

    /// Registers under this; again with a fresh incarnation if it was registered before.
    pub(crate) fn register(&self, registration: Registration) {
        self.inner.registration.replace(registration);
        self.inner.heartbeat.notify_one();
    }

    /// Replicas here are worth less than the registration says: registers again, so that the
    /// controller counts on none of them until it is in sync anew.
    pub(crate) fn report_damage(&self, damaged: &[PartitionId]) {
        if damaged.is_empty() {
            return;
        }
        self.inner.registration.report_damage(damaged);
        self.inner.heartbeat.notify_one();
    }

    /// Logs are recovered and assignments taken: may be unfenced.
    pub(crate) fn set_ready(&self) {
        self.inner.ready.store(true, Ordering::SeqCst);
        self.inner.heartbeat.notify_one();
    }

    pub(crate) fn want_shutdown(&self) {
        self.inner.want_shutdown.store(true, Ordering::SeqCst);
        self.inner.heartbeat.notify_one();
    }

    pub(crate) fn report_offline_directory(&self, directory: uuid::Uuid) {
        let mut offline = self.inner.offline_directories.lock();
        if !offline.contains(&directory) {
            offline.push(directory);
            drop(offline);
            self.inner.heartbeat.notify_one();
        }
    }

    /// Whether the disk has room for producers' records: without, others should lead (P-23).
    pub(crate) fn set_no_space(&self, no_space: bool) {
        if self.inner.no_space.swap(no_space, Ordering::SeqCst) != no_space {
            self.inner.heartbeat.notify_one();
        }
    }

    /// Whether the disk has stopped answering: then others should lead too (P-24).
    pub(crate) fn set_stalled(&self, stalled: bool) {
        self.inner.stalled.store(stalled, Ordering::SeqCst);
        self.inner.heartbeat.notify_one();
    }

    /// Whether a controller has accepted a heartbeat within a session's time.
    pub(crate) fn is_heard(&self) -> bool {
        let session = Duration::from_millis(self.inner.config.session_timeout_ms);
        let accepted_at = *self.inner.accepted_at.lock();
        accepted_at.is_some_and(|at| at.elapsed() <= session)
    }

    pub(crate) fn session(&self) -> watch::Receiver<SessionState> {
        self.inner.session.subscribe()
    }

    /// Says why, once the quorum has refused this broker for good.
    pub(crate) fn refused(&self) -> watch::Receiver<Option<String>> {
        self.inner.refused.subscribe()
    }

    pub(crate) fn active_controller(&self) -> Option<BrokerId> {
        self.inner.active.borrow().as_ref().map(|(id, _)| *id)
    }

    /// How many entries the image is behind what the controller had applied.
    pub(crate) fn metadata_lag(&self) -> u64 {
        let applied = self.inner.applied_index.load(Ordering::Relaxed);
        applied.saturating_sub(self.inner.image.load().index)
    }

    /// Waits until the image includes `index`.
    pub(crate) async fn wait_for_image(&self, index: u64, limit: Duration) -> bool {
        let mut indexes = self.inner.image_index.subscribe();
        let reached = indexes.wait_for(|at| *at >= index);
        matches!(tokio::time::timeout(limit, reached).await, Ok(Ok(_)))
    }

    /// Takes a command to the active controller, again and again until the deadline.
    pub(crate) async fn execute(
        &self,
        command: Command,
        deadline: Instant,
    ) -> Result<(u64, Outcome), ControllerError> {
        let inner = Arc::clone(&self.inner);
        let call = async move { calls::execute_until(&inner, &command, deadline).await };
        let task = self.inner.runtime.spawn(call);
        task.await.unwrap_or_else(|_| {
            Err(ControllerError::Unavailable(
                "this broker is shutting down".to_owned(),
            ))
        })
    }

    /// One attempt; `None` if it is not known what became of it.
    pub(crate) async fn execute_once(
        &self,
        command: Command,
        limit: Duration,
    ) -> Option<(u64, Outcome)> {
        let inner = Arc::clone(&self.inner);
        let call = async move { calls::execute_once(&inner, &command, limit).await };
        self.inner.runtime.spawn(call).await.ok()?
    }

    pub(crate) async fn describe_quorum(
        &self,
        deadline: Instant,
    ) -> Result<QuorumDescription, ControllerError> {
        let inner = Arc::clone(&self.inner);
        let call = async move { calls::describe_quorum(&inner, deadline).await };
        self.inner.runtime.spawn(call).await.unwrap_or_else(|_| {
            Err(ControllerError::Unavailable(
                "this broker is shutting down".to_owned(),
            ))
        })
    }
}
