//! ApiVersions: what is served, and which features are finalized (KIP-35, KIP-584).

use ottla_wire::{
    Api, ErrorCode, StrBytes, encode_response,
    messages::{
        ApiVersionsRequest, ApiVersionsResponse,
        api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey},
    },
};

use super::{CountErrors, File, count};
use crate::{connection::Answer, context::RequestContext};

/// Features that this software knows, with the levels it can work at.
const SUPPORTED: [(&str, i16, i16); 2] = [
    ("metadata.version", 7, 27),
    ("eligible.leader.replicas.version", 0, 1),
];

pub(super) async fn handle(
    cx: &RequestContext,
    request: ApiVersionsRequest,
) -> ApiVersionsResponse {
    let version = cx.version();
    let named = is_software_name(&request.client_software_name)
        && is_software_name(&request.client_software_version);
    if version >= 3 && !named {
        return ApiVersionsResponse::default().with_error_code(ErrorCode::InvalidRequest.code());
    }
    let response = ApiVersionsResponse::default()
        .with_api_keys(Api::ALL.iter().map(|api| api_version(*api)).collect());
    if version < 3 {
        return response;
    }
    let image = cx.image();
    // Clients of versions up to 3 misread a range that begins at 0.
    let supported = SUPPORTED
        .iter()
        .filter(|(_, min, _)| *min > 0 || version >= 4);
    let supported = supported.map(|(name, min, max)| {
        SupportedFeatureKey::default()
            .with_name(StrBytes::from_static_str(name))
            .with_min_version(*min)
            .with_max_version(*max)
    });
    let finalized = image.features.iter().map(|(name, level)| {
        FinalizedFeatureKey::default()
            .with_name(name.clone().into())
            .with_min_version_level(*level)
            .with_max_version_level(*level)
    });
    response
        .with_supported_features(supported.collect())
        .with_finalized_features_epoch(i64::try_from(image.index).unwrap_or(i64::MAX))
        .with_finalized_features(finalized.collect())
}

/// The answer to a version above ours: in version 0, with our range, never a closed connection.
pub(super) fn unsupported(correlation_id: i32) -> Answer<File> {
    let response = ApiVersionsResponse::default()
        .with_error_code(ErrorCode::UnsupportedVersion.code())
        .with_api_keys(vec![api_version(Api::ApiVersions)]);
    encode_response(Api::ApiVersions, 0, correlation_id, &response)
        .map_or_else(Answer::from, Answer::Bytes)
}

fn api_version(api: Api) -> ApiVersion {
    let versions = api.advertised_versions();
    ApiVersion::default()
        .with_api_key(api.key())
        .with_min_version(versions.min)
        .with_max_version(versions.max)
}

/// `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?` (KIP-511).
fn is_software_name(name: &str) -> bool {
    let outer = |byte: &u8| byte.is_ascii_alphanumeric();
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let bytes = name.as_bytes();
    bytes.first().is_some_and(outer)
        && bytes.last().is_some_and(outer)
        && bytes.iter().copied().all(inner)
}

impl CountErrors for ApiVersionsResponse {
    fn count_errors(&self) -> usize {
        count([self.error_code])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_follow_kip_511() {
        for name in ["a", "apache-kafka-java", "4.1.0", "x-1.b"] {
            assert!(is_software_name(name), "{name}");
        }
        for name in ["", "-a", "a.", "a b", "a_b", "é"] {
            assert!(!is_software_name(name), "{name}");
        }
    }

    #[test]
    fn produce_is_advertised_from_zero_and_the_answer_to_a_future_version_is_in_version_0() {
        let produce = api_version(Api::Produce);
        assert_eq!((produce.min_version, produce.max_version), (0, 13));
        let Answer::Bytes(frame) = unsupported(9) else {
            panic!("no bytes")
        };
        // Length, correlation id, error 35, one entry: ApiVersions 0 to 4.
        assert_eq!(
            &frame[..],
            b"\0\0\0\x10\0\0\0\x09\0\x23\0\0\0\x01\0\x12\0\0\0\x04"
        );
    }
}
