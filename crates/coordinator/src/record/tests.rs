//! Round trips, and bytes that Kafka 4.3.1 itself wrote.

use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use ottla_types::{LeaderEpoch, PartitionIndex, TopicId, WallClockMs};

use super::*;
use crate::GenerationId;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

fn offset_value() -> OffsetCommitValue {
    OffsetCommitValue {
        offset: 42,
        leader_epoch: LeaderEpoch::new(7),
        metadata: "meta".to_owned(),
        commit_timestamp: WallClockMs(1_700_000_000_000),
        expire_timestamp: None,
        topic_id: TopicId::new(Uuid::from_u64_pair(1, 2)),
    }
}

fn group_value() -> GroupMetadataValue {
    GroupMetadataValue {
        protocol_type: "consumer".to_owned(),
        generation: GenerationId(3),
        protocol: Some("range".to_owned()),
        leader: Some("m-1".to_owned()),
        current_state_timestamp: Some(WallClockMs(1_700_000_000_000)),
        members: vec![MemberMetadata {
            member_id: "m-1".to_owned(),
            group_instance_id: Some("i".to_owned()),
            client_id: "c".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            rebalance_timeout_ms: 300_000,
            session_timeout_ms: 45_000,
            subscription: Bytes::from_static(&[1, 2]),
            assignment: Bytes::from_static(&[3]),
        }],
    }
}

#[test]
fn every_version_of_an_offset_commit_that_kafka_wrote_is_read() {
    let none = OffsetCommitValue {
        leader_epoch: None,
        topic_id: None,
        ..offset_value()
    };
    let vectors = [
        (
            "0000000000000000002a00046d6574610000018bcfe56800",
            none.clone(),
        ),
        (
            "0001000000000000002a00046d6574610000018bcfe568000000018bcfe56be8",
            OffsetCommitValue {
                expire_timestamp: Some(WallClockMs(1_700_000_001_000)),
                ..none.clone()
            },
        ),
        ("0002000000000000002a00046d6574610000018bcfe56800", none),
        (
            "0003000000000000002a0000000700046d6574610000018bcfe56800",
            OffsetCommitValue {
                topic_id: None,
                ..offset_value()
            },
        ),
        (
            "0004000000000000002a00000007056d6574610000018bcfe5680001001000000000000000010000000000000002",
            offset_value(),
        ),
    ];
    for (bytes, expected) in vectors {
        assert_eq!(
            OffsetCommitValue::decode(&hex(bytes)).unwrap(),
            expected,
            "{bytes}"
        );
    }
}

#[test]
fn every_version_of_group_metadata_that_kafka_wrote_is_read() {
    let mut v0 = group_value();
    v0.current_state_timestamp = None;
    v0.members[0].group_instance_id = None;
    v0.members[0].rebalance_timeout_ms = 45_000;
    let mut v1 = v0.clone();
    v1.members[0].rebalance_timeout_ms = 300_000;
    let mut v2 = v1.clone();
    v2.current_state_timestamp = Some(WallClockMs(1_700_000_000_000));
    let vectors = [
        (
            "00000008636f6e73756d657200000003000572616e676500036d2d310000000100036d2d31000163000a2f3132372e302e302e310000afc80000000201020000000103",
            v0,
        ),
        (
            "00010008636f6e73756d657200000003000572616e676500036d2d310000000100036d2d31000163000a2f3132372e302e302e31000493e00000afc80000000201020000000103",
            v1,
        ),
        (
            "00020008636f6e73756d657200000003000572616e676500036d2d310000018bcfe568000000000100036d2d31000163000a2f3132372e302e302e31000493e00000afc80000000201020000000103",
            v2,
        ),
        (
            "00030008636f6e73756d657200000003000572616e676500036d2d310000018bcfe568000000000100036d2d31000169000163000a2f3132372e302e302e31000493e00000afc80000000201020000000103",
            group_value(),
        ),
        (
            "000409636f6e73756d6572000000030672616e6765046d2d310000018bcfe5680002046d2d31026902630b2f3132372e302e302e31000493e00000afc803010202030000",
            group_value(),
        ),
    ];
    for (bytes, expected) in vectors {
        assert_eq!(
            GroupMetadataValue::decode(&hex(bytes)).unwrap(),
            expected,
            "{bytes}"
        );
    }
}

#[test]
fn what_is_written_is_what_kafka_writes() {
    let record = OffsetsRecord::Offset {
        group_id: "g".to_owned(),
        topic: "t".to_owned(),
        partition: PartitionIndex(5),
        value: Some(offset_value()),
    };
    let (key, value) = record.encode().unwrap();
    assert_eq!(key, hex("000100016700017400000005"));
    assert_eq!(
        value.unwrap(),
        hex(
            "0004000000000000002a00000007056d6574610000018bcfe5680001001000000000000000010000000000000002"
        )
    );
    let record = OffsetsRecord::Group {
        group_id: "схема".to_owned(),
        value: Some(group_value()),
    };
    let (key, value) = record.encode().unwrap();
    assert_eq!(key, hex("0002000ad181d185d0b5d0bcd0b0"));
    assert_eq!(
        value.unwrap(),
        hex(
            "00030008636f6e73756d657200000003000572616e676500036d2d310000018bcfe568000000000100036d2d31000169000163000a2f3132372e302e302e31000493e00000afc80000000201020000000103"
        )
    );
}

#[test]
fn keys_of_other_kinds_of_groups_are_skipped() {
    assert_eq!(
        OffsetsRecord::decode(&hex("0003000167"), Some(&[0, 0])),
        Ok(None)
    );
    assert_eq!(OffsetsRecord::decode(&hex("7fff"), None), Ok(None));
    assert_eq!(OffsetsRecord::decode(&[], None), Err(DecodeError::Short));
}

#[test]
fn a_string_too_long_for_the_schema_is_refused_not_cut() {
    let record = OffsetsRecord::Group {
        group_id: "x".repeat(40_000),
        value: None,
    };
    assert_eq!(record.encode(), Err(EncodeError { bytes: 40_000 }));
}

fn any_offset() -> impl Strategy<Value = OffsetCommitValue> {
    (
        any::<i64>(),
        any::<Option<u16>>(),
        ".{0,40}",
        any::<i64>(),
        any::<Option<u32>>(),
        any::<u128>(),
    )
        .prop_map(|(offset, epoch, metadata, committed, expire, topic)| {
            let own_expiry = expire.is_some();
            OffsetCommitValue {
                offset,
                leader_epoch: epoch
                    .filter(|_| !own_expiry)
                    .and_then(|epoch| LeaderEpoch::new(i32::from(epoch))),
                metadata,
                commit_timestamp: WallClockMs(committed),
                expire_timestamp: expire.map(|at| WallClockMs(i64::from(at))),
                topic_id: TopicId::new(Uuid::from_u128(topic)).filter(|_| !own_expiry),
            }
        })
}

fn any_member() -> impl Strategy<Value = MemberMetadata> {
    (
        ".{1,20}",
        any::<Option<String>>(),
        ".{0,20}",
        any::<i32>(),
        any::<i32>(),
        any::<Vec<u8>>(),
        any::<Vec<u8>>(),
    )
        .prop_map(
            |(member_id, group_instance_id, client_id, rebalance, session, sub, assigned)| {
                MemberMetadata {
                    member_id,
                    group_instance_id,
                    client_host: format!("/{client_id}"),
                    client_id,
                    rebalance_timeout_ms: rebalance,
                    session_timeout_ms: session,
                    subscription: sub.into(),
                    assignment: assigned.into(),
                }
            },
        )
}

fn any_group() -> impl Strategy<Value = GroupMetadataValue> {
    (
        ".{0,20}",
        any::<i32>(),
        any::<Option<String>>(),
        any::<Option<String>>(),
        any::<Option<u32>>(),
        prop::collection::vec(any_member(), 0..5),
    )
        .prop_map(
            |(protocol_type, generation, protocol, leader, since, members)| GroupMetadataValue {
                protocol_type,
                generation: GenerationId(generation),
                protocol,
                leader,
                current_state_timestamp: since.map(|at| WallClockMs(i64::from(at))),
                members,
            },
        )
}

proptest! {
    #[test]
    fn offsets_round_trip(
        group_id in ".{0,30}", topic in ".{0,30}", partition in 0..i32::MAX,
        value in prop::option::of(any_offset()),
    ) {
        let record =
            OffsetsRecord::Offset { group_id, topic, partition: PartitionIndex(partition), value };
        let (key, value) = record.encode().unwrap();
        prop_assert_eq!(OffsetsRecord::decode(&key, value.as_deref()).unwrap(), Some(record));
    }

    #[test]
    fn groups_round_trip(group_id in ".{0,30}", value in prop::option::of(any_group())) {
        let record = OffsetsRecord::Group { group_id, value };
        let (key, value) = record.encode().unwrap();
        prop_assert_eq!(OffsetsRecord::decode(&key, value.as_deref()).unwrap(), Some(record));
    }

    #[test]
    fn arbitrary_bytes_never_panic(key in any::<Vec<u8>>(), value in any::<Option<Vec<u8>>>(), kind in 0i16..4, version in 0i16..6) {
        let _ = OffsetsRecord::decode(&key, value.as_deref());
        let mut keyed = kind.to_be_bytes().to_vec();
        keyed.extend([0, 1, b'g', 0, 1, b't', 0, 0, 0, 1]);
        let keyed = if kind == 2 { keyed[..5].to_vec() } else { keyed };
        let versioned = value.map(|value| [version.to_be_bytes().to_vec(), value].concat());
        let _ = OffsetsRecord::decode(&keyed, versioned.as_deref());
    }
}
