//! A client's view of the cluster: connections by broker, and the metadata that names the leaders.
//!
//! # Invariants
//! * One connection for each (address, lane): requests of one lane to one broker stay in order.
//! * Metadata is refreshed by one task at a time, and never faster than the retry back-off.

mod call;
mod refresh;

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use ottla_types::BrokerId;

use crate::{
    backoff::Backoff,
    config::ClientConfig,
    connection::{Connection, ConnectionConfig},
    error::RequestError,
    metadata::{Metadata, Node, TopicPartition},
};

pub use refresh::TopicError;
pub(crate) use refresh::Wanted;

/// Why there are several connections to one broker: it answers one after another, and a fetch or a
/// join that waits must not hold up what is urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Produce and fetch.
    Data,
    /// Metadata, offsets, administration: answered at once.
    Control,
    /// Joining and syncing a group, which wait for other members.
    Group,
}

/// A handle; cheap to clone.
#[derive(Clone)]
pub(crate) struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    config: ClientConfig,
    metadata: watch::Sender<Arc<Metadata>>,
    wanted: Mutex<Wanted>,
    refreshing: tokio::sync::Mutex<refresh::Refreshing>,
    /// Refreshes that succeeded; read without the lock to see whether one came meanwhile.
    refreshes: std::sync::atomic::AtomicU64,
    refresh_wanted: Notify,
    slots: Mutex<HashMap<(String, Lane), Arc<Slot>>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

/// The place of one connection, with its pauses after failures.
struct Slot {
    state: tokio::sync::Mutex<SlotState>,
}

struct SlotState {
    connection: Option<Connection>,
    backoff: Backoff,
    not_before: Option<Instant>,
}

impl Cluster {
    pub(crate) fn new(config: ClientConfig) -> Cluster {
        let backoff = Backoff::new(config.retry_backoff, config.retry_backoff_max);
        let cluster = Cluster {
            inner: Arc::new(Inner {
                metadata: watch::Sender::new(Arc::default()),
                wanted: Mutex::default(),
                refreshing: tokio::sync::Mutex::new(refresh::Refreshing::new(backoff)),
                refreshes: std::sync::atomic::AtomicU64::new(0),
                refresh_wanted: Notify::new(),
                slots: Mutex::default(),
                tasks: TaskTracker::new(),
                shutdown: CancellationToken::new(),
                config,
            }),
        };
        let upkeep = refresh::upkeep(cluster.clone());
        let shutdown = cluster.inner.shutdown.clone();
        cluster.inner.tasks.spawn(async move {
            shutdown.run_until_cancelled(upkeep).await;
        });
        cluster
    }

    pub(crate) fn config(&self) -> &ClientConfig {
        &self.inner.config
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.inner.tasks
    }

    /// Cancelled when the client is closed.
    pub(crate) fn shutdown(&self) -> &CancellationToken {
        &self.inner.shutdown
    }

    pub(crate) fn metadata(&self) -> Arc<Metadata> {
        self.inner.metadata.borrow().clone()
    }

    /// Told of every change.
    pub(crate) fn watch_metadata(&self) -> watch::Receiver<Arc<Metadata>> {
        self.inner.metadata.subscribe()
    }

    /// Ends all connections and waits for all tasks.
    pub(crate) async fn close(&self) {
        self.end();
        self.inner.tasks.wait().await;
    }

    /// Ends all connections; the tasks end soon after.
    pub(crate) fn end(&self) {
        self.inner.shutdown.cancel();
        self.inner.tasks.close();
    }

    /// Takes over a leader that an error named; true if that was news.
    pub(crate) fn learn_leader(
        &self,
        partition: &TopicPartition,
        leader: BrokerId,
        leader_epoch: i32,
        endpoint: Option<Node>,
    ) -> bool {
        self.inner.metadata.send_if_modified(|metadata| {
            match metadata.with_leader(partition, leader, leader_epoch, endpoint) {
                Some(updated) => {
                    *metadata = Arc::new(updated);
                    true
                }
                None => false,
            }
        })
    }

    /// Takes over a broker's address that an answer named, if it is not known.
    pub(crate) fn learn_node(&self, node: Node) {
        self.inner.metadata.send_if_modified(|metadata| {
            if metadata.brokers.contains_key(&node.id) {
                return false;
            }
            let mut updated = Metadata::clone(metadata);
            updated.brokers.insert(node.id, node);
            *metadata = Arc::new(updated);
            true
        });
    }

    /// The connection to a broker, made if need be.
    pub(crate) async fn connect(
        &self,
        broker: BrokerId,
        lane: Lane,
        deadline: Instant,
    ) -> Result<Connection, RequestError> {
        let address = self.metadata().brokers.get(&broker).map(Node::address);
        let address = address.ok_or(RequestError::UnknownBroker(broker))?;
        self.connect_to(&address, lane, deadline).await
    }

    /// Ends a connection whose broker does not answer, if there is one. By address: metadata no
    /// longer names a broker that is out of the cluster.
    pub(crate) fn disconnect(&self, address: &str, lane: Lane, reason: &str) {
        let slot = self.slot(address, lane);
        // Whoever holds the lock is connecting: there is nothing to end.
        if let Ok(state) = slot.state.try_lock()
            && let Some(connection) = &state.connection
        {
            connection.close(reason);
        }
    }

    async fn connect_to(
        &self,
        address: &str,
        lane: Lane,
        deadline: Instant,
    ) -> Result<Connection, RequestError> {
        if self.inner.shutdown.is_cancelled() {
            return Err(RequestError::Closed);
        }
        let slot = self.slot(address, lane);
        let mut state = timeout_at(deadline, slot.state.lock())
            .await
            .map_err(|_| RequestError::NotSentInTime)?;
        if let Some(connection) = &state.connection
            && connection.is_open()
        {
            return Ok(connection.clone());
        }
        if let Some(not_before) = state.not_before {
            sleep_until(not_before.min(deadline)).await;
            if not_before > deadline {
                return Err(RequestError::NotSentInTime);
            }
        }
        let config = ConnectionConfig {
            client_id: self.inner.config.client_id.clone(),
            connect_timeout: self.inner.config.connect_timeout,
            response_bytes_max: self.inner.config.response_bytes_max,
        };
        let (tasks, shutdown) = (&self.inner.tasks, &self.inner.shutdown);
        match Connection::open(address, &config, deadline, tasks, shutdown).await {
            Ok(connection) => {
                state.backoff.reset();
                // Even a connection that opens and ends at once is not opened again in a loop.
                state.not_before = Some(Instant::now() + self.inner.config.retry_backoff);
                state.connection = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                state.connection = None;
                state.not_before = Some(Instant::now() + state.backoff.next());
                Err(error)
            }
        }
    }

    fn slot(&self, address: &str, lane: Lane) -> Arc<Slot> {
        let mut slots = self.inner.slots.lock();
        let slot = slots.entry((address.to_owned(), lane)).or_insert_with(|| {
            let config = &self.inner.config;
            Arc::new(Slot {
                state: tokio::sync::Mutex::new(SlotState {
                    connection: None,
                    backoff: Backoff::new(config.retry_backoff, config.retry_backoff_max),
                    not_before: None,
                }),
            })
        });
        Arc::clone(slot)
    }

    /// Whether connecting to this address failed a moment ago.
    fn is_failing(&self, address: &str, lane: Lane) -> bool {
        let slots = self.inner.slots.lock();
        let slot = slots.get(&(address.to_owned(), lane));
        slot.and_then(|slot| {
            slot.state
                .try_lock()
                .ok()
                .map(|state| state.backoff.has_failed())
        })
        .unwrap_or(false)
    }
}
