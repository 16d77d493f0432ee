//! The gRPC service that brokers use.
//!
//! Any controller answers; one that is not active says who is. A request that names another
//! cluster is refused before anything else (S-10).

mod execute;
mod session;
mod subscribe;

use std::{
    pin::Pin,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use futures::Stream;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};

use ottla_rpc::{
    controller::{
        DescribeQuorumReply, DescribeQuorumRequest, ExecuteReply, ExecuteRequest, Heartbeat,
        HeartbeatReply, LeaderHint, MetadataUpdate, QuorumReplica, SubscribeRequest,
        controller_server,
    },
    convert,
};
use ottla_types::BrokerId;

use crate::{
    cluster::Cluster,
    leadership::{Active, ActiveWatch},
    peers::Peers,
    raft::{Quorum, ReplicaKey, Role},
    sessions::SessionHub,
};

/// Proposals under way at once; more are told to come back.
const PROPOSALS_MAX: usize = 256;
/// A leader that is about to be active is waited for this long.
const ACTIVATION_WAIT: Duration = Duration::from_millis(500);

/// Serves brokers.
#[derive(Clone)]
pub(crate) struct ControllerService {
    pub(crate) quorum: Arc<Quorum>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) sessions: Arc<SessionHub>,
    pub(crate) active: ActiveWatch,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
    pub(crate) refusals: Arc<AtomicU64>,
}

/// What bounds the proposals under way.
pub(crate) fn proposal_permits() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(PROPOSALS_MAX))
}

impl ControllerService {
    fn check_cluster(&self, cluster_id: &str) -> Result<(), Status> {
        if self.peers.same_cluster(cluster_id) {
            return Ok(());
        }
        self.refusals
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Err(crate::raft::other_cluster(&self.peers.cluster_id()))
    }

    /// The present period, if this controller is active; one that has just been elected is given
    /// a moment.
    async fn active(&self) -> Option<Arc<Active>> {
        if let Some(active) = self.active.borrow().clone() {
            return Some(active);
        }
        if self.quorum.state().role != Role::Leader {
            return None;
        }
        let mut active = self.active.clone();
        let begun = active.wait_for(Option::is_some);
        let begun = tokio::time::timeout(ACTIVATION_WAIT, begun).await;
        begun.ok()?.ok()?.clone()
    }

    /// Who is active, as far as known.
    fn hint(&self) -> LeaderHint {
        let leader = self.quorum.state().leader.map(|leader| leader.node_id);
        let leader = leader.filter(|leader| *leader != self.quorum.me().node_id);
        self.hint_of(leader)
    }

    fn hint_of(&self, leader: Option<BrokerId>) -> LeaderHint {
        LeaderHint {
            node_id: leader.map_or(-1, BrokerId::get),
            address: leader
                .and_then(|id| self.peers.address(id))
                .unwrap_or_default(),
        }
    }

    fn replica(&self, key: ReplicaKey) -> QuorumReplica {
        let state = self.quorum.state();
        let me = self.quorum.me();
        let (end, ago) = if key == me {
            (state.last_log.map(|id| id.index), Some(0))
        } else {
            let ago = self
                .peers
                .last_answer(key)
                .map(|at| at.elapsed().as_millis());
            (state.matched.get(&key).copied().flatten(), ago)
        };
        QuorumReplica {
            node_id: key.node_id.get(),
            directory_id: convert::uuid_bytes(key.directory_id),
            log_end_index: end.and_then(|end| i64::try_from(end).ok()).unwrap_or(-1),
            last_answer_ms_ago: ago.and_then(|ago| i64::try_from(ago).ok()).unwrap_or(-1),
        }
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl controller_server::Controller for ControllerService {
    async fn execute(
        &self,
        request: Request<ExecuteRequest>,
    ) -> Result<Response<ExecuteReply>, Status> {
        let request = request.into_inner();
        self.check_cluster(&request.cluster_id)?;
        let result = self.propose(&request.command).await?;
        Ok(Response::new(ExecuteReply {
            result: Some(result),
        }))
    }

    type SessionStream = Answers<HeartbeatReply>;

    async fn session(
        &self,
        request: Request<Streaming<Heartbeat>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Ok(Response::new(self.open_session(request.into_inner())))
    }

    type SubscribeStream = Answers<MetadataUpdate>;

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let request = request.into_inner();
        self.check_cluster(&request.cluster_id)?;
        let Some(active) = self.active().await else {
            let hint = self.hint();
            let text = format!("not active; {} is, at {:?}", hint.node_id, hint.address);
            return Err(Status::failed_precondition(text));
        };
        Ok(Response::new(
            self.open_subscription(active, request.from_index),
        ))
    }

    async fn describe_quorum(
        &self,
        request: Request<DescribeQuorumRequest>,
    ) -> Result<Response<DescribeQuorumReply>, Status> {
        self.check_cluster(&request.into_inner().cluster_id)?;
        let state = self.quorum.state();
        Ok(Response::new(DescribeQuorumReply {
            leader_id: state.leader.map_or(-1, |leader| leader.node_id.get()),
            term: state.term,
            committed_index: state.applied.unwrap_or(0),
            voters: state
                .all_voters()
                .into_iter()
                .map(|key| self.replica(key))
                .collect(),
            observers: state
                .learners
                .iter()
                .map(|key| self.replica(*key))
                .collect(),
        }))
    }
}
