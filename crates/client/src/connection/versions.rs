//! What a broker serves, asked for once on each connection.

use std::collections::BTreeMap;

use ottla_wire::{
    ErrorCode, Request, StrBytes, Versions,
    messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse},
    spoken_versions,
};
use tokio::time::Instant;

use super::Connection;
use crate::error::{RequestError, code};

/// The versions that a broker serves, by key of the API.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServedVersions {
    by_key: BTreeMap<i16, Versions>,
}

impl ServedVersions {
    pub(crate) fn get(&self, key: i16) -> Option<Versions> {
        self.by_key.get(&key).copied()
    }

    fn from_response(response: &ApiVersionsResponse) -> ServedVersions {
        let rows = response.api_keys.iter().map(|row| {
            let versions = Versions {
                min: row.min_version,
                max: row.max_version,
            };
            (row.api_key, versions)
        });
        ServedVersions {
            by_key: rows.collect(),
        }
    }
}

/// Asks with our highest version; a broker that does not know it answers in version 0, with its
/// own range.
pub(super) async fn ask(
    connection: &Connection,
    deadline: Instant,
) -> Result<ServedVersions, RequestError> {
    let highest = spoken_versions::<ApiVersionsRequest>().max;
    let mut version = highest;
    loop {
        let response = call(connection, version, deadline).await?;
        match code(response.error_code) {
            ErrorCode::None => return Ok(ServedVersions::from_response(&response)),
            ErrorCode::UnsupportedVersion if version > 0 => {
                let served = ServedVersions::from_response(&response).get(ApiVersionsRequest::KEY);
                // A broker that does not even say its range gets the version that all know.
                version = served.map_or(0, |served| served.max.clamp(0, version - 1));
            }
            error => {
                return Err(RequestError::Connect {
                    address: connection.address().to_owned(),
                    reason: format!("ApiVersions answered {error}"),
                });
            }
        }
    }
}

async fn call(
    connection: &Connection,
    version: i16,
    deadline: Instant,
) -> Result<ApiVersionsResponse, RequestError> {
    let mut request = ApiVersionsRequest::default();
    if version >= 3 {
        request.client_software_name = StrBytes::from_static_str("ottla-client");
        request.client_software_version = StrBytes::from_static_str(env!("CARGO_PKG_VERSION"));
    }
    let frame = ottla_wire::encode_request(version, connection.client_id(), &request)?;
    let bytes = connection.start(frame, true, deadline)?.wait().await?;
    // UNSUPPORTED_VERSION is always answered in version 0, whose error code stands where that of
    // the other versions stands.
    let is_refusal = bytes
        .first_chunk::<2>()
        .is_some_and(|number| i16::from_be_bytes(*number) == ErrorCode::UnsupportedVersion.code());
    let version = if is_refusal { 0 } else { version };
    Ok(ottla_wire::decode_response::<ApiVersionsRequest>(
        version, bytes,
    )?)
}

/// Kafka's name for an API, for messages.
pub(crate) fn api_name(key: i16) -> &'static str {
    macro_rules! names {
        ($($name:ident)*) => {
            match ApiKey::try_from(key) {
                $(Ok(ApiKey::$name) => stringify!($name),)*
                _ => "a request",
            }
        };
    }
    names!(
        Produce Fetch ListOffsets Metadata OffsetCommit OffsetFetch FindCoordinator JoinGroup
        Heartbeat LeaveGroup SyncGroup DescribeGroups ListGroups ApiVersions CreateTopics
        DeleteTopics DeleteRecords InitProducerId OffsetForLeaderEpoch DescribeConfigs
        IncrementalAlterConfigs AlterConfigs DescribeLogDirs CreatePartitions DeleteGroups
        ElectLeaders AlterPartitionReassignments ListPartitionReassignments OffsetDelete
        DescribeQuorum DescribeCluster DescribeProducers DescribeTopicPartitions
    )
}
