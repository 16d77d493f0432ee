//! Every advertised version of every request decodes to what a client encoded, byte for byte, and
//! damage to its bytes ends in an error or another request, never in a panic or a huge allocation.

mod versions {
    pub(crate) mod samples;
}

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::*,
    protocol::{Decodable, Encodable, Request},
};
use ottla_wire::{Api, ProduceRequest as OurProduceRequest, decode_request};
use proptest::prelude::*;

use versions::samples::sample;

fn decodes(api: Api, version: i16, body: Bytes) -> bool {
    fn run<R: Request + Decodable>(api: Api, version: i16, body: Bytes) -> bool {
        decode_request::<R>(api, version, body).is_ok()
    }
    match api {
        Api::Produce => OurProduceRequest::decode(BytesMut::from(&body[..]), version).is_ok(),
        Api::Fetch => run::<FetchRequest>(api, version, body),
        Api::ListOffsets => run::<ListOffsetsRequest>(api, version, body),
        Api::Metadata => run::<MetadataRequest>(api, version, body),
        Api::OffsetCommit => run::<OffsetCommitRequest>(api, version, body),
        Api::OffsetFetch => run::<OffsetFetchRequest>(api, version, body),
        Api::FindCoordinator => run::<FindCoordinatorRequest>(api, version, body),
        Api::JoinGroup => run::<JoinGroupRequest>(api, version, body),
        Api::Heartbeat => run::<HeartbeatRequest>(api, version, body),
        Api::LeaveGroup => run::<LeaveGroupRequest>(api, version, body),
        Api::SyncGroup => run::<SyncGroupRequest>(api, version, body),
        Api::DescribeGroups => run::<DescribeGroupsRequest>(api, version, body),
        Api::ListGroups => run::<ListGroupsRequest>(api, version, body),
        Api::ApiVersions => run::<ApiVersionsRequest>(api, version, body),
        Api::CreateTopics => run::<CreateTopicsRequest>(api, version, body),
        Api::DeleteTopics => run::<DeleteTopicsRequest>(api, version, body),
        Api::InitProducerId => run::<InitProducerIdRequest>(api, version, body),
        Api::OffsetForLeaderEpoch => run::<OffsetForLeaderEpochRequest>(api, version, body),
        Api::DescribeConfigs => run::<DescribeConfigsRequest>(api, version, body),
        Api::CreatePartitions => run::<CreatePartitionsRequest>(api, version, body),
        Api::IncrementalAlterConfigs => run::<IncrementalAlterConfigsRequest>(api, version, body),
        Api::DescribeCluster => run::<DescribeClusterRequest>(api, version, body),
        Api::DescribeLogDirs => run::<DescribeLogDirsRequest>(api, version, body),
        Api::DeleteGroups => run::<DeleteGroupsRequest>(api, version, body),
        Api::ListPartitionReassignments => {
            run::<ListPartitionReassignmentsRequest>(api, version, body)
        }
        Api::OffsetDelete => run::<OffsetDeleteRequest>(api, version, body),
        Api::DescribeQuorum => run::<DescribeQuorumRequest>(api, version, body),
        Api::DescribeTopicPartitions => run::<DescribeTopicPartitionsRequest>(api, version, body),
    }
}

fn every_version() -> impl Iterator<Item = (Api, i16)> {
    Api::ALL.iter().flat_map(|api| {
        (api.versions().min..=api.versions().max).map(move |version| (*api, version))
    })
}

#[test]
fn every_version_decodes_what_a_client_encodes() {
    for (api, version) in every_version() {
        let body = sample(api, version);
        assert!(decodes(api, version, body), "{} {version}", api.name());
    }
}

#[test]
fn every_truncation_is_an_error() {
    for (api, version) in every_version() {
        let body = sample(api, version);
        for len in 0..body.len() {
            assert!(
                !decodes(api, version, body.slice(..len)),
                "{} {version} {len}",
                api.name()
            );
        }
    }
}

/// wherever a length stands, a huge one is refused before anything is reserved for it.
#[test]
fn huge_lengths_anywhere_are_survived() {
    for (api, version) in every_version() {
        let body = sample(api, version);
        for huge in [
            &[0x7f, 0xff, 0xff, 0xff][..],
            &[0x80, 0, 0, 0],
            &[0xff, 0xff, 0xff, 0xff, 0x0f],
        ] {
            for at in 0..body.len() {
                let mut bytes = body.to_vec();
                let end = (at + huge.len()).min(bytes.len());
                bytes.splice(at..end, huge.iter().copied());
                decodes(api, version, bytes.clone().into());
                bytes.truncate(at + huge.len());
                decodes(api, version, bytes.into());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn noise_is_survived(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        for (api, version) in every_version() {
            decodes(api, version, body.clone().into());
        }
    }

    #[test]
    fn damage_is_survived(at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        for (api, version) in every_version() {
            let mut body = sample(api, version).to_vec();
            if !body.is_empty() {
                let at = at.index(body.len());
                body[at] = byte;
                decodes(api, version, body.into());
            }
        }
    }
}

#[test]
fn elements_and_tags_are_bounded_by_the_size_of_the_request() {
    // DescribeGroups 5: a compact array of compact strings, all empty.
    let mut many = vec![0x81, 0xb5, 0x18]; // 400 000 elements.
    many.resize(3 + 400_000, 1);
    many.extend_from_slice(&[0, 0]);
    assert!(!decodes(Api::DescribeGroups, 5, many.into()));
    // Heartbeat 4 with 20 000 unknown tags.
    let mut body = BytesMut::new();
    HeartbeatRequest::default().encode(&mut body, 4).unwrap();
    let mut tags = body[..body.len() - 1].to_vec();
    tags.extend_from_slice(&[0xa0, 0x9c, 0x01]);
    for _ in 0..20_000 {
        tags.extend_from_slice(&[9, 0]);
    }
    assert!(!decodes(Api::Heartbeat, 4, tags.into()));
}
