//! Bodies of raft messages: the metadata crate's codec, snapshot bytes beside it as they are.

use openraft::raft::InstallSnapshotRequest;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tonic::Status;

use super::types::{LogId, TypeConfig};

/// Would you vote for me?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PreVoteRequest {
    /// The candidate's last entry.
    pub(crate) last_log_id: Option<LogId>,
}

/// Whether it would.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PreVoteReply {
    /// No leader is heard here and the candidate's log is at least as long.
    pub(crate) granted: bool,
}

/// Decodes a body; a broken one is the sender's fault.
pub(crate) fn decode_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, Status> {
    ottla_metadata::decode(body).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// Header length, header without data, data: msgpack would store each byte as a number.
pub(crate) fn encode_snapshot(mut request: InstallSnapshotRequest<TypeConfig>) -> Vec<u8> {
    let data = std::mem::take(&mut request.data);
    let header = ottla_metadata::encode(&request);
    let length = u32::try_from(header.len()).unwrap_or(u32::MAX);
    let mut body = Vec::with_capacity(4 + header.len() + data.len());
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(&header);
    body.extend_from_slice(&data);
    body
}

/// The reverse of [`encode_snapshot`].
pub(crate) fn decode_snapshot(body: &[u8]) -> Result<InstallSnapshotRequest<TypeConfig>, Status> {
    let short = || Status::invalid_argument("the snapshot chunk is cut short");
    let (length, rest) = body.split_first_chunk::<4>().ok_or_else(short)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| short())?;
    let (header, data) = rest.split_at_checked(length).ok_or_else(short)?;
    let mut request: InstallSnapshotRequest<TypeConfig> = decode_body(header)?;
    request.data = data.to_vec();
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::{ReplicaKey, SnapshotMeta, Vote};

    #[test]
    fn a_snapshot_chunk_survives_the_round_trip_and_a_cut_one_is_refused() {
        let request = InstallSnapshotRequest::<TypeConfig> {
            vote: Vote::new_committed(3, ReplicaKey::default()),
            meta: SnapshotMeta::default(),
            offset: 17,
            data: (0..=255).collect(),
            done: true,
        };
        let body = encode_snapshot(request.clone());
        assert_eq!(decode_snapshot(&body).unwrap(), request);
        for cut in 0..40 {
            assert!(decode_snapshot(&body[..cut]).is_err());
        }
    }
}
