//! What other controllers may ask of this one.
//!
//! # Invariants
//! * A message of another cluster, or for another identity than this store's, changes nothing
//!   (C-14, P-30).
//! * A vote is refused while this controller leads with a majority behind it, or follows within
//!   the lease (P-19).

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use openraft::raft::AppendEntriesResponse;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use ottla_rpc::{
    convert,
    raft::{IdentifyReply, IdentifyRequest, RaftMessage, raft_server},
};
use ottla_types::BrokerId;

use super::message::{PreVoteReply, PreVoteRequest, decode_body, decode_snapshot};
use super::quorum::{Quorum, Role};
use super::types::ReplicaKey;
use crate::{contact::Contact, peers::Peers};

/// The gRPC service between controllers.
pub(crate) struct RaftService {
    pub(crate) quorum: Arc<Quorum>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) contact: Arc<Contact>,
    /// A leader whose majority is older than this no longer counts as one.
    pub(crate) quorum_limit: Duration,
    /// This leader is about to stop and wants a successor.
    pub(crate) resigning: CancellationToken,
    pub(crate) shutdown: CancellationToken,
}

impl RaftService {
    /// Checks the envelope and tells who sent it.
    fn open(&self, message: &RaftMessage) -> Result<ReplicaKey, Status> {
        if !self.peers.same_cluster(&message.cluster_id) {
            return Err(other_cluster(&self.peers.cluster_id()));
        }
        let to = key(message.to_node_id, &message.to_directory_id)?;
        if to != self.quorum.me() {
            let me = self.quorum.me();
            return Err(Status::not_found(format!("this is {me}, not {to}")));
        }
        key(message.from_node_id, &message.from_directory_id)
    }

    fn reply<T: serde::Serialize>(
        &self,
        to: ReplicaKey,
        body: &T,
    ) -> Result<Response<RaftMessage>, Status> {
        Ok(Response::new(
            self.peers.envelope(to, ottla_metadata::encode(body)),
        ))
    }

    /// Whether this controller has, or hears, a leader that others should not depose.
    fn has_leader(&self) -> bool {
        if self.resigning.is_cancelled() {
            return false;
        }
        let state = self.quorum.state();
        state.leads_within(self.quorum_limit)
            || (state.role != Role::Leader && self.contact.binds())
    }
}

fn key(node_id: i32, directory_id: &[u8]) -> Result<ReplicaKey, Status> {
    let directory_id = convert::uuid(directory_id, "directory_id")
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok(ReplicaKey {
        node_id: BrokerId(node_id),
        directory_id,
    })
}

/// The answer to whoever names another cluster.
pub(crate) fn other_cluster(own: &str) -> Status {
    Status::failed_precondition(format!("the cluster id is {own:?}"))
}

type Silence = Pin<Box<dyn Stream<Item = Result<RaftMessage, Status>> + Send>>;

#[tonic::async_trait]
impl raft_server::Raft for RaftService {
    async fn identify(
        &self,
        request: Request<IdentifyRequest>,
    ) -> Result<Response<IdentifyReply>, Status> {
        let request = request.into_inner();
        if !self.peers.same_cluster(&request.cluster_id) {
            return Err(other_cluster(&self.peers.cluster_id()));
        }
        let blank = self.quorum.is_blank().await;
        let blank = blank.map_err(|error| Status::unavailable(error.to_string()))?;
        let me = self.quorum.me();
        Ok(Response::new(IdentifyReply {
            node_id: me.node_id.get(),
            directory_id: convert::uuid_bytes(me.directory_id),
            cluster_id: self.peers.cluster_id(),
            blank,
            leader_id: self
                .quorum
                .state()
                .leader
                .map_or(-1, |leader| leader.node_id.get()),
        }))
    }

    async fn pre_vote(
        &self,
        request: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        let message = request.into_inner();
        let from = self.open(&message)?;
        let asked: PreVoteRequest = decode_body(&message.body)?;
        let granted = !self.has_leader() && asked.last_log_id >= self.quorum.state().last_log;
        self.reply(from, &PreVoteReply { granted })
    }

    async fn vote(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let message = request.into_inner();
        let from = self.open(&message)?;
        if self.has_leader() {
            return Err(Status::failed_precondition("there is a leader"));
        }
        let answer = self.quorum.vote(decode_body(&message.body)?).await;
        let answer = answer.map_err(Status::unavailable)?;
        if answer.vote_granted {
            self.contact.hold();
        }
        self.reply(from, &answer)
    }

    async fn append_entries(
        &self,
        request: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        let message = request.into_inner();
        let from = self.open(&message)?;
        let answer = self
            .quorum
            .append_entries(decode_body(&message.body)?)
            .await;
        let answer = answer.map_err(Status::unavailable)?;
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            self.contact.heard(from);
        }
        self.reply(from, &answer)
    }

    async fn install_snapshot(
        &self,
        request: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        let message = request.into_inner();
        let from = self.open(&message)?;
        let chunk = decode_snapshot(&message.body)?;
        let vote = chunk.vote;
        let answer = self
            .quorum
            .install_snapshot(chunk)
            .await
            .map_err(Status::unavailable)?;
        if answer.as_ref().is_ok_and(|reply| reply.vote <= vote) {
            self.contact.heard(from);
        }
        self.reply(from, &answer)
    }

    type WatchStream = Silence;

    async fn watch(&self, request: Request<RaftMessage>) -> Result<Response<Silence>, Status> {
        self.open(request.get_ref())?;
        let silence = futures::stream::pending();
        let ended = self.shutdown.clone().cancelled_owned();
        Ok(Response::new(Box::pin(silence.take_until(ended))))
    }

    async fn take_over(
        &self,
        request: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        let from = self.open(request.get_ref())?;
        if self.quorum.state().leader != Some(from) {
            return Err(Status::failed_precondition("only the leader may resign"));
        }
        self.contact.release();
        self.contact.hold();
        self.quorum.elect().await;
        self.reply(from, &())
    }
}
