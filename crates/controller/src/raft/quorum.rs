//! A running raft member in our own words: the one place that speaks to openraft's handle.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use openraft::error::{ClientWriteError, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{ChangeMembers, Raft, RaftMetrics, ServerState};
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use ottla_metadata::{Command, Outcome};
use ottla_types::BrokerId;

use super::disk::Disk;
use super::log_store::LogStore;
use super::network::Network;
use super::state_machine::StateMachine;
use super::store::StoreError;
use super::types::{Address, LogId, Proposal, ReplicaKey, TypeConfig};
use crate::{
    cluster::Cluster,
    config::{ControllerConfig, QuorumTiming},
    peers::Peers,
};

/// Bytes of one snapshot chunk on the wire.
const SNAPSHOT_CHUNK_BYTES: u64 = 1 << 20;

/// What this member does in the quorum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// Replicates only, or is not a member.
    #[default]
    Learner,
    /// Follows.
    Follower,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
    /// Stopped or failed.
    Stopped,
}

/// The quorum as this member sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct QuorumState {
    pub(crate) role: Role,
    pub(crate) term: u64,
    pub(crate) leader: Option<ReplicaKey>,
    /// As leader: the latest time at which a majority is known to have followed.
    pub(crate) quorum_acked: Option<Instant>,
    pub(crate) last_log: Option<LogId>,
    pub(crate) applied: Option<u64>,
    pub(crate) snapshot: Option<u64>,
    pub(crate) purged: Option<u64>,
    /// The voter sets; two while a change is under way.
    pub(crate) voters: Vec<BTreeSet<ReplicaKey>>,
    pub(crate) learners: BTreeSet<ReplicaKey>,
    /// As leader: the last entry each other member is known to hold.
    pub(crate) matched: BTreeMap<ReplicaKey, Option<u64>>,
    /// Why raft stopped by itself.
    pub(crate) failure: Option<String>,
}

impl QuorumState {
    fn of(metrics: &RaftMetrics<ReplicaKey, Address>) -> QuorumState {
        let membership = metrics.membership_config.membership();
        let acked = metrics
            .millis_since_quorum_ack
            .and_then(|ms| Instant::now().checked_sub(Duration::from_millis(ms)));
        QuorumState {
            role: match metrics.state {
                ServerState::Learner => Role::Learner,
                ServerState::Follower => Role::Follower,
                ServerState::Candidate => Role::Candidate,
                ServerState::Leader => Role::Leader,
                ServerState::Shutdown => Role::Stopped,
            },
            term: metrics.current_term,
            leader: metrics.current_leader,
            quorum_acked: acked,
            last_log: None,
            applied: metrics.last_applied.map(|id| id.index),
            snapshot: metrics.snapshot.map(|id| id.index),
            purged: metrics.purged.map(|id| id.index),
            voters: membership.get_joint_config().clone(),
            learners: membership.learner_ids().collect(),
            matched: metrics
                .replication
                .as_ref()
                .map_or_else(BTreeMap::new, |replication| {
                    replication
                        .iter()
                        .map(|(key, id)| (*key, id.map(|id| id.index)))
                        .collect()
                }),
            failure: match &metrics.running_state {
                Ok(()) | Err(openraft::error::Fatal::Stopped) => None,
                Err(fatal) => Some(fatal.to_string()),
            },
        }
    }

    /// Whether `key` votes.
    pub(crate) fn is_voter(&self, key: ReplicaKey) -> bool {
        self.voters.iter().any(|set| set.contains(&key))
    }

    /// Every voter.
    pub(crate) fn all_voters(&self) -> BTreeSet<ReplicaKey> {
        self.voters.iter().flatten().copied().collect()
    }

    /// Whether `granted` holds a majority of every voter set.
    pub(crate) fn is_majority(&self, granted: &BTreeSet<ReplicaKey>) -> bool {
        !self.voters.is_empty()
            && self
                .voters
                .iter()
                .all(|set| set.intersection(granted).count() * 2 > set.len())
    }

    /// Leads, and a majority followed within `limit`.
    pub(crate) fn leads_within(&self, limit: Duration) -> bool {
        self.role == Role::Leader && self.quorum_acked.is_some_and(|at| at.elapsed() <= limit)
    }
}

/// Why a proposal was not decided here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProposeError {
    /// Not the leader, or no longer: the proposal may yet be decided if it was appended.
    #[error("not the leader")]
    NotLeader { leader: Option<BrokerId> },
    /// A membership change is not possible now.
    #[error("membership change: {0}")]
    Membership(String),
    /// Raft has stopped.
    #[error("{0}")]
    Stopped(String),
}

/// Why raft could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuorumStartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("raft configuration: {0}")]
    Config(String),
    #[error("raft: {0}")]
    Raft(String),
}

/// A running member.
pub(crate) struct Quorum {
    raft: Raft<TypeConfig>,
    disk: Disk,
    me: ReplicaKey,
    state: watch::Receiver<Arc<QuorumState>>,
}

/// Opens the store, which tells who this member is.
pub(crate) async fn open_disk(path: &Path, node_id: BrokerId) -> Result<Disk, StoreError> {
    Disk::open(path, node_id).await
}

impl Quorum {
    /// Starts raft on an opened store. Elections and heartbeats are driven from outside.
    pub(crate) async fn start(
        config: &ControllerConfig,
        disk: Disk,
        peers: Arc<Peers>,
        cluster: Arc<Cluster>,
        tasks: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Result<Quorum, QuorumStartError> {
        let settings = raft_config(config).validate();
        let settings = settings.map_err(|error| QuorumStartError::Config(error.to_string()))?;
        let machine = StateMachine::open(disk.clone(), cluster).await?;
        let me = peers.me();
        let (log, network) = (LogStore::new(disk.clone()), Network::new(peers));
        let raft = Raft::new(me, Arc::new(settings), network, log, machine).await;
        let raft = raft.map_err(|error| QuorumStartError::Raft(error.to_string()))?;
        let (publish, state) = watch::channel(Arc::new(QuorumState::default()));
        tasks.spawn(follow_metrics(raft.clone(), publish, shutdown));
        Ok(Quorum {
            raft,
            disk,
            me,
            state,
        })
    }

    pub(crate) fn me(&self) -> ReplicaKey {
        self.me
    }

    /// The quorum now.
    pub(crate) fn state(&self) -> Arc<QuorumState> {
        self.state.borrow().clone()
    }

    /// Follows the quorum.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<QuorumState>> {
        self.state.clone()
    }

    /// Nobody has voted here and nothing was replicated to here.
    pub(crate) async fn is_blank(&self) -> Result<bool, StoreError> {
        self.disk.run(|store| store.is_blank()).await
    }

    /// Forms a new quorum of exactly these members.
    pub(crate) async fn form(
        &self,
        members: BTreeMap<ReplicaKey, Address>,
    ) -> Result<(), ProposeError> {
        self.raft
            .initialize(members)
            .await
            .map_err(|error| ProposeError::Stopped(error.to_string()))
    }

    /// Stands for election, whatever the lease says here.
    pub(crate) async fn elect(&self) {
        if let Err(error) = self.raft.trigger().elect().await {
            tracing::debug!(%error, "could not stand for election");
        }
    }

    /// As leader, sends a heartbeat to everybody.
    pub(crate) async fn heartbeat(&self) {
        if let Err(error) = self.raft.trigger().heartbeat().await {
            tracing::debug!(%error, "could not send heartbeats");
        }
    }

    /// Proposes a command and waits until it is applied here: its index and outcome.
    pub(crate) async fn propose(
        &self,
        command: Command,
    ) -> Result<(u64, Option<Outcome>), ProposeError> {
        self.write(Proposal::Command(command)).await
    }

    /// Proposes an entry that changes nothing: once it is applied, so is all before it.
    pub(crate) async fn barrier(&self) -> Result<u64, ProposeError> {
        Ok(self.write(Proposal::Activate).await?.0)
    }

    async fn write(&self, proposal: Proposal) -> Result<(u64, Option<Outcome>), ProposeError> {
        let written = self
            .raft
            .client_write(proposal)
            .await
            .map_err(propose_error)?;
        Ok((written.log_id.index, written.data.outcome))
    }

    /// Takes `key` out of voters and members.
    pub(crate) async fn remove_voter(&self, key: ReplicaKey) -> Result<(), ProposeError> {
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([key])), false)
            .await
    }

    /// Lets `key` replicate without a vote.
    pub(crate) async fn add_learner(
        &self,
        key: ReplicaKey,
        address: Address,
    ) -> Result<(), ProposeError> {
        self.change(
            ChangeMembers::AddNodes(BTreeMap::from([(key, address)])),
            true,
        )
        .await
    }

    /// Forgets a learner.
    pub(crate) async fn remove_learner(&self, key: ReplicaKey) -> Result<(), ProposeError> {
        self.change(ChangeMembers::RemoveNodes(BTreeSet::from([key])), true)
            .await
    }

    /// Gives a learner a vote.
    pub(crate) async fn promote(&self, key: ReplicaKey) -> Result<(), ProposeError> {
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([key])), true)
            .await
    }

    /// Completes a change that a crash left half done.
    pub(crate) async fn finish_change(&self) -> Result<(), ProposeError> {
        let Some(goal) = self.state().voters.last().cloned() else {
            return Ok(());
        };
        self.change(ChangeMembers::ReplaceAllVoters(goal), false)
            .await
    }

    async fn change(
        &self,
        change: ChangeMembers<ReplicaKey, Address>,
        retain: bool,
    ) -> Result<(), ProposeError> {
        self.raft
            .change_membership(change, retain)
            .await
            .map(|_| ())
            .map_err(propose_error)
    }

    pub(crate) async fn append_entries(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> Result<AppendEntriesResponse<ReplicaKey>, String> {
        self.raft
            .append_entries(request)
            .await
            .map_err(|error| error.to_string())
    }

    pub(crate) async fn vote(
        &self,
        request: VoteRequest<ReplicaKey>,
    ) -> Result<VoteResponse<ReplicaKey>, String> {
        self.raft
            .vote(request)
            .await
            .map_err(|error| error.to_string())
    }

    pub(crate) async fn install_snapshot(
        &self,
        request: InstallSnapshotRequest<TypeConfig>,
    ) -> Result<
        Result<InstallSnapshotResponse<ReplicaKey>, openraft::error::InstallSnapshotError>,
        String,
    > {
        match self.raft.install_snapshot(request).await {
            Ok(reply) => Ok(Ok(reply)),
            Err(RaftError::APIError(error)) => Ok(Err(error)),
            Err(RaftError::Fatal(error)) => Err(error.to_string()),
        }
    }

    /// Stops raft and closes the store.
    pub(crate) async fn stop(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
        self.disk.close().await;
    }

    /// Writes a snapshot now and purges the whole log behind it.
    #[cfg(test)]
    pub(crate) async fn snapshot_and_purge(&self) {
        let index = self.state().applied.unwrap();
        self.raft.trigger().snapshot().await.unwrap();
        let written = |metrics: &RaftMetrics<ReplicaKey, Address>| {
            metrics.snapshot.is_some_and(|id| id.index >= index)
        };
        let limit = Some(Duration::from_secs(10));
        self.raft
            .wait(limit)
            .metrics(written, "snapshot")
            .await
            .unwrap();
        self.raft.trigger().purge_log(index).await.unwrap();
        self.raft
            .wait(limit)
            .metrics(|m| m.purged.is_some(), "purge")
            .await
            .unwrap();
    }
}

async fn follow_metrics(
    raft: Raft<TypeConfig>,
    publish: watch::Sender<Arc<QuorumState>>,
    shutdown: CancellationToken,
) {
    let mut metrics = raft.metrics();
    let data = raft.data_metrics();
    loop {
        let mut state = QuorumState::of(&metrics.borrow_and_update());
        state.last_log = data.borrow().last_log;
        publish.send_replace(Arc::new(state));
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = metrics.changed() => if changed.is_err() { return },
        }
    }
}

fn propose_error(
    error: RaftError<ReplicaKey, ClientWriteError<ReplicaKey, Address>>,
) -> ProposeError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => ProposeError::NotLeader {
            leader: to.leader_id.map(|key| key.node_id),
        },
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            ProposeError::Membership(error.to_string())
        }
        RaftError::Fatal(error) => ProposeError::Stopped(error.to_string()),
    }
}

fn raft_config(config: &ControllerConfig) -> openraft::Config {
    let QuorumTiming {
        lease,
        append_timeout,
        vote_timeout,
        snapshot_timeout,
        ..
    } = config.quorum;
    openraft::Config {
        cluster_name: "controllers".to_owned(),
        // Deadline of a vote call.
        election_timeout_min: millis(vote_timeout),
        // The lease within which openraft itself refuses votes.
        election_timeout_max: millis(lease),
        // Deadline of an append call; heartbeats are triggered by `crate::election`.
        heartbeat_interval: millis(append_timeout),
        install_snapshot_timeout: millis(snapshot_timeout), // B-14
        snapshot_max_chunk_size: SNAPSHOT_CHUNK_BYTES,
        max_payload_entries: 1_000,
        replication_lag_threshold: config.snapshots.every_entries.saturating_mul(2),
        snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(config.snapshots.every_entries),
        max_in_snapshot_log_to_keep: config.snapshots.keep_entries,
        purge_batch_size: 1,
        enable_tick: true,
        enable_heartbeat: false,
        enable_elect: false,
        ..openraft::Config::default()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
