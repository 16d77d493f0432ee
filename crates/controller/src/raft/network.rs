//! openraft's calls to other controllers, over gRPC.

use std::{io, sync::Arc, time::Duration};

use openraft::error::{
    InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use serde::{Serialize, de::DeserializeOwned};
use tonic::{Code, Request, Response, Status, transport::Channel};

use ottla_rpc::raft::{RaftMessage, raft_client::RaftClient};

use super::message::{decode_body, encode_snapshot};
use super::types::{Address, ReplicaKey, TypeConfig};
use crate::peers::Peers;

/// Pause after a call that could not be delivered.
const BACKOFF: Duration = Duration::from_millis(100);

type CallError<E = openraft::error::Infallible> =
    RPCError<ReplicaKey, Address, RaftError<ReplicaKey, E>>;

/// Makes connections to other controllers.
pub(crate) struct Network {
    peers: Arc<Peers>,
}

impl Network {
    pub(crate) fn new(peers: Arc<Peers>) -> Network {
        Network { peers }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: ReplicaKey, node: &Address) -> Link {
        // This node's configuration is newer than the membership in the log.
        let client = self
            .peers
            .client(target.node_id)
            .or_else(|| self.peers.client_at(&node.host, node.port));
        Link {
            peers: self.peers.clone(),
            target,
            client,
        }
    }
}

/// The way to one replica. Messages name its identity: whoever took its place refuses them.
pub(crate) struct Link {
    peers: Arc<Peers>,
    target: ReplicaKey,
    client: Option<RaftClient<Channel>>,
}

impl Link {
    fn prepare(
        &self,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<(RaftClient<Channel>, Request<RaftMessage>), Unreachable> {
        let client = self.client.clone().ok_or_else(|| {
            Unreachable::new(&io::Error::other(format!("no address for {}", self.target)))
        })?;
        let mut request = Request::new(self.peers.envelope(self.target, body));
        request.set_timeout(limit);
        Ok((client, request))
    }

    #[allow(clippy::result_large_err, reason = "openraft's own error type")]
    fn answer<T: DeserializeOwned, E: std::error::Error>(
        &self,
        reply: Result<Response<RaftMessage>, Status>,
    ) -> Result<T, CallError<E>> {
        match reply {
            Ok(reply) => {
                self.peers.answered(self.target);
                decode_body(&reply.into_inner().body)
                    .map_err(|status| RPCError::Network(NetworkError::new(&status)))
            }
            Err(status) => match status.code() {
                Code::Cancelled | Code::DeadlineExceeded => {
                    Err(RPCError::Network(NetworkError::new(&status)))
                }
                _ => Err(RPCError::Unreachable(Unreachable::new(&status))),
            },
        }
    }
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    ottla_metadata::encode(value)
}

impl RaftNetwork<TypeConfig> for Link {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<ReplicaKey>, CallError> {
        let (mut client, request) = self.prepare(encode(&rpc), option.hard_ttl())?;
        self.answer(client.append_entries(request).await)
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<ReplicaKey>, CallError<InstallSnapshotError>> {
        let (mut client, request) = self.prepare(encode_snapshot(rpc), option.hard_ttl())?;
        let reply = client.install_snapshot(request).await;
        let answer: Result<InstallSnapshotResponse<ReplicaKey>, InstallSnapshotError> =
            self.answer(reply)?;
        answer.map_err(|error| {
            RPCError::RemoteError(RemoteError::new(self.target, RaftError::APIError(error)))
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<ReplicaKey>,
        option: RPCOption,
    ) -> Result<VoteResponse<ReplicaKey>, CallError> {
        let (mut client, request) = self.prepare(encode(&rpc), option.hard_ttl())?;
        self.answer(client.vote(request).await)
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}
