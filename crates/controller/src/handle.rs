//! What the rest of the process may ask a running controller.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::watch;

use ottla_types::BrokerId;
use uuid::Uuid;

use crate::{
    cluster::Cluster,
    leadership::ActiveWatch,
    raft::{Quorum, Role},
    sessions::SessionHub,
};

/// A cheap handle to a running controller.
#[derive(Clone)]
pub struct ControllerHandle {
    pub(crate) quorum: Arc<Quorum>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) sessions: Arc<SessionHub>,
    pub(crate) active: ActiveWatch,
    pub(crate) activations: Arc<AtomicU64>,
    pub(crate) refusals: Arc<AtomicU64>,
    pub(crate) lag: watch::Receiver<u64>,
}

/// The controller's gauges and counters; Kafka's names in the comments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControllerMetrics {
    /// `ActiveControllerCount`: whether this is the active controller (M-3).
    pub active: bool,
    /// The raft term.
    pub term: u64,
    /// The leader of the quorum, as far as known.
    pub leader: Option<BrokerId>,
    /// Last entry of the log.
    pub log_end_index: u64,
    /// Last entry applied.
    pub applied_index: u64,
    /// Last entry in the newest snapshot.
    pub snapshot_index: u64,
    /// Last entry purged from the log.
    pub purged_index: u64,
    /// `LastAppliedRecordLagMs`: how long the applied state has been behind the log (M-9).
    pub last_applied_lag_ms: u64,
    /// Voters of the quorum.
    pub voters: usize,
    /// `ActiveBrokerCount` (M-8).
    pub active_brokers: usize,
    /// `FencedBrokerCount` (M-8).
    pub fenced_brokers: usize,
    /// `GlobalTopicCount`.
    pub topics: usize,
    /// `GlobalPartitionCount`.
    pub partitions: usize,
    /// `OfflinePartitionsCount` (M-2).
    pub offline_partitions: usize,
    /// `PreferredReplicaImbalanceCount`.
    pub preferred_replica_imbalance: usize,
    /// Leaders elected, as this process applied them (M-7).
    pub leader_elections: u64,
    /// Of these, from outside ISR and ELR (M-6).
    pub unclean_leader_elections: u64,
    /// Of these, for the longest of logs that may all have lost something (P-13, R-14).
    pub possible_loss_elections: u64,
    /// How often this controller became active.
    pub activations: u64,
    /// Brokers fenced by this controller.
    pub broker_fencings: u64,
    /// Requests that named another cluster.
    pub refused_requests: u64,
}

impl ControllerHandle {
    /// Whether this is the active controller.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active.borrow().is_some()
    }

    /// The leader of the quorum, as far as known here.
    #[must_use]
    pub fn leader(&self) -> Option<BrokerId> {
        self.quorum.state().leader.map(|leader| leader.node_id)
    }

    /// The id of this controller's directory.
    #[must_use]
    pub fn directory_id(&self) -> Uuid {
        self.quorum.me().directory_id
    }

    /// The cluster's id, once known.
    #[must_use]
    pub fn cluster_id(&self) -> Option<String> {
        self.cluster.read(|image, _| image.cluster_id.clone())
    }

    /// Waits until the cluster has an id here: it has been formed.
    pub async fn wait_formed(&self) -> Option<String> {
        let mut index = self.cluster.index_changes();
        loop {
            index.mark_unchanged();
            if let Some(cluster_id) = self.cluster_id() {
                return Some(cluster_id);
            }
            index.changed().await.ok()?;
        }
    }

    /// Waits until this controller is the active one; `false` if it stops instead.
    pub async fn wait_active(&self) -> bool {
        self.active.clone().wait_for(Option::is_some).await.is_ok()
    }

    /// Waits until raft has failed, and tells why; the process must not go on as controller.
    pub async fn failure(&self) -> String {
        let mut changes = self.quorum.changes();
        match changes.wait_for(|state| state.failure.is_some()).await {
            Ok(state) => state.failure.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Gauges and counters now.
    #[must_use]
    pub fn metrics(&self) -> ControllerMetrics {
        let state = self.quorum.state();
        let mut metrics = ControllerMetrics {
            active: self.is_active() && state.role == Role::Leader,
            term: state.term,
            leader: state.leader.map(|leader| leader.node_id),
            log_end_index: state.last_log.map_or(0, |id| id.index),
            applied_index: state.applied.unwrap_or(0),
            snapshot_index: state.snapshot.unwrap_or(0),
            purged_index: state.purged.unwrap_or(0),
            last_applied_lag_ms: *self.lag.borrow(),
            voters: state.all_voters().len(),
            activations: self.activations.load(Ordering::Relaxed),
            broker_fencings: self.sessions.fencings(),
            refused_requests: self.refusals.load(Ordering::Relaxed),
            ..ControllerMetrics::default()
        };
        self.cluster.read(|image, tally| {
            metrics.fenced_brokers = image.fenced_brokers().count();
            metrics.active_brokers = image.brokers.len() - metrics.fenced_brokers;
            metrics.topics = image.topics.len();
            metrics.partitions = tally.partitions();
            metrics.offline_partitions = tally.offline();
            metrics.preferred_replica_imbalance = tally.imbalanced();
            metrics.leader_elections = tally.elections();
            metrics.unclean_leader_elections = tally.unclean_elections();
            metrics.possible_loss_elections = tally.possible_losses();
        });
        metrics
    }

    /// A fingerprint of the applied state: equal at equal applied index on every node (C-2).
    #[must_use]
    pub fn state_hash(&self) -> (u64, u64) {
        let (state, index) = self.cluster.state();
        (index, state.state_hash())
    }
}
