//! The list of all APIs: which handler answers which request.
//!
//! A handler is a file of the API's name with `handle(context, request) -> response`. Produce and
//! Fetch, which carry records, answer with what is to be written instead.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::time::Instant;

use ottla_wire::{Api, DecodeError, HeaderError, ProduceDecodeError, decode_request, take_header};

use crate::{
    connection::{Answer, Call, Service},
    context::{Peer, RequestContext, Shared},
};

mod api_versions;
mod configs;
mod controller_call;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_quorum;
mod describe_topic_partitions;
mod fetch;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod sync_group;

pub(crate) use fetch::File;

/// How many errors a response carries, for the metrics.
pub(crate) trait CountErrors {
    /// Errors anywhere in the response.
    fn count_errors(&self) -> usize;
}

/// How many of these codes are errors.
fn count(codes: impl IntoIterator<Item = i16>) -> usize {
    codes.into_iter().filter(|code| *code != 0).count()
}

/// Why a frame closes its connection.
#[derive(Debug, thiserror::Error)]
enum Unservable {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("decode: {0}")]
    Decode(#[from] DecodeError),
    #[error("decode produce: {0}")]
    Produce(#[from] ProduceDecodeError),
}

/// Serves one connection's requests.
pub(crate) struct Handlers {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
}

impl Handlers {
    pub(crate) fn new(shared: Arc<Shared>, peer: Peer) -> Handlers {
        Handlers {
            shared,
            peer: Arc::new(peer),
        }
    }

    fn try_call(&self, mut frame: BytesMut) -> Result<Call<File>, Unservable> {
        let header = match take_header(&mut frame) {
            Ok(header) => header,
            Err(HeaderError::UnsupportedApiVersions { correlation_id, .. }) => {
                let answer = api_versions::unsupported(correlation_id);
                return Ok(Call::Admitted(Box::pin(std::future::ready(answer))));
            }
            Err(error) => return Err(error.into()),
        };
        let cx = RequestContext {
            shared: Arc::clone(&self.shared),
            peer: Arc::clone(&self.peer),
            header: Arc::new(header),
            arrived: Instant::now(),
        };
        dispatch(cx, frame)
    }
}

impl Service for Handlers {
    type File = File;

    fn call(&mut self, frame: BytesMut) -> Call<File> {
        self.try_call(frame).unwrap_or_else(|error| {
            tracing::debug!(%error, "request refused");
            Call::Refused
        })
    }
}

fn dispatch(cx: RequestContext, body: BytesMut) -> Result<Call<File>, Unservable> {
    /// Decodes now, so that nonsense closes at once, and handles when the turn comes.
    macro_rules! handler {
        ($module:ident) => {{
            let request = decode_request(cx.header.api, cx.header.version, body.freeze())?;
            Call::Admitted(Box::pin(async move {
                let response = $module::handle(&cx, request).await;
                cx.answer(&response)
            }))
        }};
    }
    Ok(match cx.header.api {
        Api::Produce => produce::admit(cx, body)?,
        Api::Fetch => {
            let request = decode_request(cx.header.api, cx.header.version, body.freeze())?;
            Call::Admitted(Box::pin(async move { fetch::handle(&cx, request).await }))
        }
        Api::ListOffsets => handler!(list_offsets),
        Api::Metadata => handler!(metadata),
        Api::OffsetCommit => handler!(offset_commit),
        Api::OffsetFetch => handler!(offset_fetch),
        Api::FindCoordinator => handler!(find_coordinator),
        Api::JoinGroup => handler!(join_group),
        Api::Heartbeat => handler!(heartbeat),
        Api::LeaveGroup => handler!(leave_group),
        Api::SyncGroup => handler!(sync_group),
        Api::DescribeGroups => handler!(describe_groups),
        Api::ListGroups => handler!(list_groups),
        Api::ApiVersions => handler!(api_versions),
        Api::CreateTopics => handler!(create_topics),
        Api::DeleteTopics => handler!(delete_topics),
        Api::InitProducerId => handler!(init_producer_id),
        Api::OffsetForLeaderEpoch => handler!(offset_for_leader_epoch),
        Api::DescribeConfigs => handler!(describe_configs),
        Api::CreatePartitions => handler!(create_partitions),
        Api::IncrementalAlterConfigs => handler!(incremental_alter_configs),
        Api::DescribeCluster => handler!(describe_cluster),
        Api::DescribeLogDirs => handler!(describe_log_dirs),
        Api::DeleteGroups => handler!(delete_groups),
        Api::ListPartitionReassignments => handler!(list_partition_reassignments),
        Api::OffsetDelete => handler!(offset_delete),
        Api::DescribeQuorum => handler!(describe_quorum),
        Api::DescribeTopicPartitions => handler!(describe_topic_partitions),
    })
}

/// `None` for what the wire says with an empty string.
fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// What a request that was not answered in pieces answers: nothing to stream.
impl From<ottla_wire::EncodeError> for Answer<File> {
    fn from(error: ottla_wire::EncodeError) -> Answer<File> {
        tracing::error!(%error, "encode response");
        Answer::Close
    }
}
