//! One request of every API in every version, with every field and array filled.

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::*,
    protocol::{Encodable, Request, StrBytes},
};
use ottla_wire::{Api, ProduceRequest as OurProduceRequest, decode_request};
use uuid::Uuid;

/// A request of this version with every field and array filled, as bytes that decoded well.
pub(crate) fn sample(api: Api, v: i16) -> Bytes {
    let ids = || vec![BrokerId(1), BrokerId(2)];
    match api {
        Api::Produce => produce(v),
        Api::Fetch => round_trip(api, v, &fetch(v)),
        Api::ListOffsets => {
            use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
            let partition = ListOffsetsPartition::default().with_partition_index(3);
            let topic = ListOffsetsTopic::default()
                .with_name(name("t"))
                .with_partitions(vec![partition.clone().with_timestamp(-2), partition]);
            round_trip(
                api,
                v,
                &ListOffsetsRequest::default().with_topics(vec![topic]),
            )
        }
        Api::Metadata => {
            let topic =
                metadata_request::MetadataRequestTopic::default().with_name(Some(name("t")));
            let mut request =
                MetadataRequest::default().with_topics(Some(vec![topic.clone(), topic]));
            if v >= 8 {
                request.include_topic_authorized_operations = true;
            }
            if v >= 1 {
                round_trip(api, v, &MetadataRequest::default().with_topics(None));
            }
            round_trip(api, v, &request)
        }
        Api::OffsetCommit => {
            use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
            let partition = OffsetCommitRequestPartition::default()
                .with_committed_offset(7)
                .with_committed_metadata(opt(true, "meta"));
            let topic = OffsetCommitRequestTopic::default()
                .with_name(name("t"))
                .with_partitions(vec![partition.clone(), partition]);
            let request = OffsetCommitRequest::default()
                .with_group_id(group())
                .with_member_id(text("member"))
                .with_group_instance_id(opt(v >= 7, "instance"))
                .with_topics(vec![topic]);
            round_trip(api, v, &request)
        }
        Api::OffsetFetch => round_trip(api, v, &offset_fetch(v)),
        Api::FindCoordinator => {
            let request = if v >= 4 {
                FindCoordinatorRequest::default().with_coordinator_keys(vec![text("a"), text("b")])
            } else {
                FindCoordinatorRequest::default().with_key(text("a"))
            };
            round_trip(api, v, &request)
        }
        Api::JoinGroup => {
            let protocol = join_group_request::JoinGroupRequestProtocol::default()
                .with_name(text("range"))
                .with_metadata(Bytes::from_static(b"subscription"));
            let request = JoinGroupRequest::default()
                .with_group_id(group())
                .with_group_instance_id(opt(v >= 5, "instance"))
                .with_reason(opt(v >= 8, "why"))
                .with_protocols(vec![protocol.clone(), protocol]);
            round_trip(api, v, &request)
        }
        Api::Heartbeat => {
            let request = HeartbeatRequest::default()
                .with_group_id(group())
                .with_group_instance_id(opt(v >= 3, "instance"));
            round_trip(api, v, &request)
        }
        Api::LeaveGroup => {
            let request = if v >= 3 {
                let member = leave_group_request::MemberIdentity::default()
                    .with_member_id(text("member"))
                    .with_reason(opt(v >= 5, "why"));
                LeaveGroupRequest::default().with_members(vec![member.clone(), member])
            } else {
                LeaveGroupRequest::default().with_member_id(text("member"))
            };
            round_trip(api, v, &request.with_group_id(group()))
        }
        Api::SyncGroup => {
            let assignment = sync_group_request::SyncGroupRequestAssignment::default()
                .with_member_id(text("member"))
                .with_assignment(Bytes::from_static(b"assignment"));
            let request = SyncGroupRequest::default()
                .with_group_id(group())
                .with_group_instance_id(opt(v >= 3, "instance"))
                .with_protocol_type(opt(v >= 5, "consumer"))
                .with_protocol_name(opt(v >= 5, "range"))
                .with_assignments(vec![assignment.clone(), assignment]);
            round_trip(api, v, &request)
        }
        Api::DescribeGroups => {
            let request = DescribeGroupsRequest::default().with_groups(vec![group(), group()]);
            round_trip(api, v, &request.with_include_authorized_operations(v >= 3))
        }
        Api::ListGroups => {
            let mut request = ListGroupsRequest::default();
            if v >= 4 {
                request.states_filter = vec![text("Stable")];
            }
            if v >= 5 {
                request.types_filter = vec![text("classic"), text("consumer")];
            }
            round_trip(api, v, &request)
        }
        Api::ApiVersions => {
            let mut request = ApiVersionsRequest::default();
            if v >= 3 {
                request.client_software_name = text("client");
                request.client_software_version = text("1.0");
            }
            round_trip(api, v, &request)
        }
        Api::CreateTopics => {
            use create_topics_request::*;
            let assignment = CreatableReplicaAssignment::default().with_broker_ids(ids());
            let config = CreatableTopicConfig::default().with_name(text("k"));
            let topic = CreatableTopic::default()
                .with_name(name("t"))
                .with_assignments(vec![assignment.clone(), assignment])
                .with_configs(vec![config.clone().with_value(opt(true, "v")), config]);
            round_trip(
                api,
                v,
                &CreateTopicsRequest::default().with_topics(vec![topic.clone(), topic]),
            )
        }
        Api::DeleteTopics => {
            let request = if v >= 6 {
                let topic = delete_topics_request::DeleteTopicState::default();
                let by_name = topic.clone().with_name(Some(name("t")));
                let by_id = topic.with_topic_id(Uuid::from_u128(7)).with_name(None);
                DeleteTopicsRequest::default().with_topics(vec![by_name, by_id])
            } else {
                DeleteTopicsRequest::default().with_topic_names(vec![name("a"), name("b")])
            };
            round_trip(api, v, &request)
        }
        Api::InitProducerId => {
            let request = InitProducerIdRequest::default()
                .with_transactional_id(Some(TransactionalId(text("txn"))));
            round_trip(api, v, &request)
        }
        Api::OffsetForLeaderEpoch => {
            use offset_for_leader_epoch_request::*;
            let partition = OffsetForLeaderPartition::default().with_leader_epoch(3);
            let topic = OffsetForLeaderTopic::default()
                .with_topic(name("t"))
                .with_partitions(vec![partition.clone(), partition]);
            round_trip(
                api,
                v,
                &OffsetForLeaderEpochRequest::default().with_topics(vec![topic]),
            )
        }
        Api::DescribeConfigs => {
            let resource = describe_configs_request::DescribeConfigsResource::default()
                .with_resource_name(text("t"))
                .with_resource_type(2);
            let all = resource.clone().with_configuration_keys(None);
            let some = resource.with_configuration_keys(Some(vec![text("a"), text("b")]));
            let request = DescribeConfigsRequest::default().with_resources(vec![all, some]);
            round_trip(api, v, &request)
        }
        Api::CreatePartitions => {
            use create_partitions_request::*;
            let assignment = CreatePartitionsAssignment::default().with_broker_ids(ids());
            let topic = CreatePartitionsTopic::default().with_name(name("t"));
            let some = topic
                .clone()
                .with_assignments(Some(vec![assignment.clone(), assignment]));
            let none = topic.with_assignments(None);
            let request = CreatePartitionsRequest::default().with_topics(vec![some, none]);
            round_trip(api, v, &request)
        }
        Api::IncrementalAlterConfigs => {
            use incremental_alter_configs_request::*;
            let config = AlterableConfig::default().with_name(text("k"));
            let set = config.clone().with_value(opt(true, "v"));
            let resource = AlterConfigsResource::default()
                .with_resource_name(text("t"))
                .with_configs(vec![set, config.with_value(None)]);
            let request = IncrementalAlterConfigsRequest::default();
            round_trip(
                api,
                v,
                &request.with_resources(vec![resource.clone(), resource]),
            )
        }
        Api::DescribeCluster => round_trip(api, v, &DescribeClusterRequest::default()),
        Api::DescribeLogDirs => {
            let topic = describe_log_dirs_request::DescribableLogDirTopic::default()
                .with_topic(name("t"))
                .with_partitions(vec![1, 2]);
            let request = DescribeLogDirsRequest::default();
            round_trip(
                api,
                v,
                &request.with_topics(Some(vec![topic.clone(), topic])),
            )
        }
        Api::DeleteGroups => {
            let request = DeleteGroupsRequest::default().with_groups_names(vec![group(), group()]);
            round_trip(api, v, &request)
        }
        Api::ListPartitionReassignments => {
            use list_partition_reassignments_request::ListPartitionReassignmentsTopics;
            let topic = ListPartitionReassignmentsTopics::default()
                .with_name(name("t"))
                .with_partition_indexes(vec![1, 2]);
            let request = ListPartitionReassignmentsRequest::default();
            round_trip(
                api,
                v,
                &request.with_topics(Some(vec![topic.clone(), topic])),
            )
        }
        Api::OffsetDelete => {
            use offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
            let partition = OffsetDeleteRequestPartition::default();
            let topic = OffsetDeleteRequestTopic::default()
                .with_name(name("t"))
                .with_partitions(vec![partition.clone(), partition]);
            let request = OffsetDeleteRequest::default().with_group_id(group());
            round_trip(api, v, &request.with_topics(vec![topic.clone(), topic]))
        }
        Api::DescribeQuorum => {
            use describe_quorum_request::{PartitionData, TopicData};
            let topic = TopicData::default()
                .with_topic_name(name("t"))
                .with_partitions(vec![PartitionData::default()]);
            let request = DescribeQuorumRequest::default();
            round_trip(api, v, &request.with_topics(vec![topic.clone(), topic]))
        }
        Api::DescribeTopicPartitions => {
            use describe_topic_partitions_request::{Cursor, TopicRequest};
            let topic = TopicRequest::default().with_name(name("t"));
            let request = DescribeTopicPartitionsRequest::default().with_topics(vec![topic]);
            round_trip(api, v, &request);
            let cursor = Cursor::default().with_topic_name(name("t"));
            round_trip(api, v, &request.with_cursor(Some(cursor)))
        }
    }
}

fn produce(v: i16) -> Bytes {
    use produce_request::{PartitionProduceData, TopicProduceData};
    let partition =
        PartitionProduceData::default().with_records(Some(Bytes::from_static(b"records")));
    let mut topic =
        TopicProduceData::default().with_partition_data(vec![partition.clone(), partition]);
    if v >= 13 {
        topic.topic_id = Uuid::from_u128(7);
    } else {
        topic.name = name("t");
    }
    let mut body = BytesMut::new();
    let request = ProduceRequest::default().with_topic_data(vec![topic.clone(), topic]);
    request.encode(&mut body, v).expect("encode a request");
    assert!(OurProduceRequest::decode(body.clone(), v).is_ok());
    body.freeze()
}

fn fetch(v: i16) -> FetchRequest {
    use fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
    let mut partition = FetchPartition::default()
        .with_partition(1)
        .with_fetch_offset(9);
    if v >= 17 {
        partition.replica_directory_id = Uuid::from_u128(5);
    }
    if v >= 18 {
        partition.high_watermark = 17;
    }
    let mut topic = FetchTopic::default().with_partitions(vec![partition.clone(), partition]);
    let mut forgotten = ForgottenTopic::default().with_partitions(vec![1, 2, 3]);
    if v >= 13 {
        topic.topic_id = Uuid::from_u128(7);
        forgotten.topic_id = Uuid::from_u128(8);
    } else {
        topic.topic = name("t");
        forgotten.topic = name("f");
    }
    let mut request = FetchRequest::default().with_topics(vec![topic.clone(), topic]);
    if v >= 7 {
        request.forgotten_topics_data = vec![forgotten];
    }
    if v >= 11 {
        request.rack_id = text("rack");
    }
    if v >= 12 {
        request.cluster_id = opt(true, "cluster");
    }
    if v >= 15 {
        request.replica_state = ReplicaState::default().with_replica_id(BrokerId(3));
    }
    request
}

fn offset_fetch(v: i16) -> OffsetFetchRequest {
    use offset_fetch_request::*;
    if v < 8 {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(name("t"))
            .with_partition_indexes(vec![1, 2]);
        return OffsetFetchRequest::default()
            .with_group_id(group())
            .with_require_stable(v >= 7)
            .with_topics(Some(vec![topic.clone(), topic]));
    }
    let topic = OffsetFetchRequestTopics::default()
        .with_name(name("t"))
        .with_partition_indexes(vec![1, 2]);
    let all = OffsetFetchRequestGroup::default()
        .with_group_id(group())
        .with_member_id(opt(v >= 9, "member"))
        .with_topics(None);
    let some = all.clone().with_topics(Some(vec![topic.clone(), topic]));
    OffsetFetchRequest::default().with_groups(vec![all, some])
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn name(name: &'static str) -> TopicName {
    TopicName(text(name))
}

fn group() -> GroupId {
    GroupId(text("group"))
}

fn opt(set: bool, value: &'static str) -> Option<StrBytes> {
    set.then(|| text(value))
}

/// Encodes a request with the generated encoder, decodes it with ours, and gives its bytes.
fn round_trip<R: Request + PartialEq + std::fmt::Debug>(
    api: Api,
    version: i16,
    request: &R,
) -> Bytes {
    let mut body = BytesMut::new();
    request
        .encode(&mut body, version)
        .expect("encode a request");
    let body = body.freeze();
    let decoded: R = decode_request(api, version, body.clone())
        .unwrap_or_else(|error| panic!("{} {version}: {error}", api.name()));
    let mut again = BytesMut::new();
    decoded
        .encode(&mut again, version)
        .expect("encode what was decoded");
    assert_eq!(body, again, "{} {version}", api.name());
    let mut longer = BytesMut::from(&body[..]);
    longer.extend_from_slice(b"\0");
    assert!(
        decode_request::<R>(api, version, longer.freeze()).is_ok(),
        "librdkafka leaves bytes behind"
    );
    body
}
