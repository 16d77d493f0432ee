//! The two codecs of our own against the generated ones, in both directions.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        BrokerId, FetchResponse as TheirFetchResponse, ProduceRequest as TheirProduceRequest,
        ResponseHeader, TopicName, TransactionalId, fetch_response,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::{Decodable, Encodable, StrBytes},
};
use ottla_wire::{
    Chunk, CurrentLeader, EpochEnd, ErrorCode, FetchPartitionResponse, FetchResponse,
    FetchTopicResponse, NodeEndpoint, ProduceRequest, Records, TopicKey,
};
use proptest::{collection::vec, option, prelude::*};
use uuid::Uuid;

fn text() -> impl Strategy<Value = StrBytes> {
    "[a-z]{0,20}".prop_map(StrBytes::from_string)
}

fn produce_request() -> impl Strategy<Value = (i16, TheirProduceRequest)> {
    let partition =
        (any::<i32>(), option::of(vec(any::<u8>(), 0..300))).prop_map(|(index, bytes)| {
            PartitionProduceData::default()
                .with_index(index)
                .with_records(bytes.map(Bytes::from))
        });
    let topic = (text(), any::<u128>(), vec(partition, 0..4));
    (
        3i16..=13,
        option::of(text()),
        any::<i16>(),
        any::<i32>(),
        vec(topic, 0..4),
    )
        .prop_map(|(version, transactional_id, acks, timeout_ms, topics)| {
            let topics = topics.into_iter().map(|(name, id, partitions)| {
                let topic = TopicProduceData::default().with_partition_data(partitions);
                if version >= 13 {
                    topic.with_topic_id(Uuid::from_u128(id))
                } else {
                    topic.with_name(TopicName(name))
                }
            });
            let request = TheirProduceRequest::default()
                .with_transactional_id(transactional_id.map(TransactionalId))
                .with_acks(acks)
                .with_timeout_ms(timeout_ms)
                .with_topic_data(topics.collect());
            (version, request)
        })
}

type File = Bytes;

fn records() -> impl Strategy<Value = Records<File>> {
    let bytes = || vec(any::<u8>(), 1..5_000).prop_map(Bytes::from);
    prop_oneof![
        Just(()).prop_map(|()| Records::Empty),
        bytes().prop_map(Records::Memory),
        bytes().prop_map(|slice| Records::File {
            bytes: slice.len(),
            slice
        }),
    ]
}

fn fetch_partition() -> impl Strategy<Value = FetchPartitionResponse<File>> {
    let epochs =
        (any::<i32>(), any::<i64>()).prop_map(|(epoch, end_offset)| EpochEnd { epoch, end_offset });
    let leader = (any::<i32>(), any::<i32>()).prop_map(|(leader_id, leader_epoch)| CurrentLeader {
        leader_id,
        leader_epoch,
    });
    (
        any::<i32>(),
        any::<[i64; 3]>(),
        option::of(epochs),
        option::of(leader),
        option::of(vec(any::<(i64, i64)>(), 0..3)),
        any::<i32>(),
        records(),
    )
        .prop_map(
            |(index, marks, diverging_epoch, current_leader, aborted, preferred, records)| {
                FetchPartitionResponse {
                    partition_index: index,
                    error_code: ErrorCode::NotLeaderOrFollower,
                    high_watermark: marks[0],
                    last_stable_offset: marks[1],
                    log_start_offset: marks[2],
                    diverging_epoch,
                    current_leader,
                    aborted_transactions: aborted,
                    preferred_read_replica: preferred,
                    records,
                }
            },
        )
}

fn fetch_response() -> impl Strategy<Value = (i16, FetchResponse<File>)> {
    let topic = (text(), any::<u128>(), vec(fetch_partition(), 0..4));
    let endpoint = (any::<i32>(), text(), any::<i32>(), option::of(text())).prop_map(
        |(node_id, host, port, rack)| NodeEndpoint {
            node_id,
            host,
            port,
            rack,
        },
    );
    (
        4i16..=18,
        any::<[i32; 2]>(),
        vec(topic, 0..4),
        vec(endpoint, 0..3),
    )
        .prop_map(|(version, numbers, topics, node_endpoints)| {
            let topics = topics
                .into_iter()
                .map(|(name, id, partitions)| FetchTopicResponse {
                    topic: match version {
                        13.. => TopicKey::Id(Uuid::from_u128(id)),
                        _ => TopicKey::Name(name),
                    },
                    partitions,
                });
            let response = FetchResponse {
                throttle_time_ms: numbers[0],
                error_code: ErrorCode::InvalidFetchSessionEpoch,
                session_id: numbers[1],
                topics: topics.collect(),
                node_endpoints,
            };
            (version, response)
        })
}

fn bytes_of(records: &Records<File>) -> Bytes {
    match records {
        Records::Empty => Bytes::new(),
        Records::Memory(bytes) | Records::File { slice: bytes, .. } => bytes.clone(),
    }
}

/// What the generated decoder should make of our response.
fn expected(version: i16, ours: &FetchResponse<File>) -> TheirFetchResponse {
    let partition = |p: &FetchPartitionResponse<File>| {
        let mut theirs = fetch_response::PartitionData::default()
            .with_partition_index(p.partition_index)
            .with_error_code(p.error_code.code())
            .with_high_watermark(p.high_watermark)
            .with_last_stable_offset(p.last_stable_offset)
            .with_aborted_transactions(p.aborted_transactions.as_ref().map(|aborted| {
                let row = |(producer_id, first_offset): &(i64, i64)| {
                    fetch_response::AbortedTransaction::default()
                        .with_producer_id((*producer_id).into())
                        .with_first_offset(*first_offset)
                };
                aborted.iter().map(row).collect()
            }))
            .with_records(Some(bytes_of(&p.records)));
        if version >= 5 {
            theirs.log_start_offset = p.log_start_offset;
        }
        if version >= 11 {
            theirs.preferred_read_replica = BrokerId(p.preferred_read_replica);
        }
        if let (12.., Some(end)) = (version, p.diverging_epoch) {
            theirs.diverging_epoch = fetch_response::EpochEndOffset::default()
                .with_epoch(end.epoch)
                .with_end_offset(end.end_offset);
        }
        if let (12.., Some(leader)) = (version, p.current_leader) {
            theirs.current_leader = fetch_response::LeaderIdAndEpoch::default()
                .with_leader_id(BrokerId(leader.leader_id))
                .with_leader_epoch(leader.leader_epoch);
        }
        theirs
    };
    let topics = ours.topics.iter().map(|topic| {
        let theirs = fetch_response::FetchableTopicResponse::default()
            .with_partitions(topic.partitions.iter().map(partition).collect());
        match &topic.topic {
            TopicKey::Name(name) => theirs.with_topic(TopicName(name.clone())),
            TopicKey::Id(id) => theirs.with_topic_id(*id),
        }
    });
    let mut theirs = TheirFetchResponse::default()
        .with_throttle_time_ms(ours.throttle_time_ms)
        .with_responses(topics.collect());
    if version >= 7 {
        theirs.error_code = ours.error_code.code();
        theirs.session_id = ours.session_id;
    }
    if version >= 16 {
        let endpoint = |e: &NodeEndpoint| {
            fetch_response::NodeEndpoint::default()
                .with_node_id(BrokerId(e.node_id))
                .with_host(e.host.clone())
                .with_port(e.port)
                .with_rack(e.rack.clone())
        };
        theirs.node_endpoints = ours.node_endpoints.iter().map(endpoint).collect();
    }
    theirs
}

proptest! {
    #[test]
    fn produce_decodes_what_clients_encode((version, request) in produce_request()) {
        let mut body = BytesMut::new();
        request.encode(&mut body, version).unwrap();
        let frame = body.as_ptr_range();
        let ours = ProduceRequest::decode(body, version).unwrap();
        prop_assert_eq!(
            ours.transactional_id,
            request.transactional_id.map(|id| id.0)
        );
        prop_assert_eq!((ours.acks, ours.timeout_ms), (request.acks, request.timeout_ms));
        prop_assert_eq!(ours.topics.len(), request.topic_data.len());
        for (ours, theirs) in ours.topics.iter().zip(&request.topic_data) {
            match &ours.topic {
                TopicKey::Name(name) => prop_assert_eq!(name, &theirs.name.0),
                TopicKey::Id(id) => prop_assert_eq!(id, &theirs.topic_id),
            }
            prop_assert_eq!(ours.partitions.len(), theirs.partition_data.len());
            for (ours, theirs) in ours.partitions.iter().zip(&theirs.partition_data) {
                prop_assert_eq!(ours.index, theirs.index);
                prop_assert_eq!(ours.records.as_deref(), theirs.records.as_deref());
                if let Some(records) = ours.records.as_ref().filter(|r| !r.is_empty()) {
                    prop_assert!(frame.contains(&records.as_ptr()), "records were copied");
                }
            }
        }
    }

    #[test]
    fn clients_decode_the_fetch_responses_that_we_encode((version, ours) in fetch_response()) {
        let expected = expected(version, &ours);
        let mut frame = BytesMut::new();
        for chunk in ours.encode(version, 77).unwrap() {
            match chunk {
                Chunk::Bytes(bytes) => frame.put(bytes),
                Chunk::File { slice, bytes } => {
                    prop_assert_eq!(slice.len(), bytes);
                    frame.put(slice);
                }
            }
        }
        let mut frame = frame.freeze();
        let len = i32::from_be_bytes(frame.split_to(4)[..].try_into().unwrap());
        prop_assert_eq!(usize::try_from(len).unwrap(), frame.len());
        let header = ResponseHeader::decode(&mut frame, i16::from(version >= 12)).unwrap();
        prop_assert_eq!(header.correlation_id, 77);
        let theirs = TheirFetchResponse::decode(&mut frame, version).unwrap();
        prop_assert!(frame.is_empty());
        prop_assert_eq!(theirs, expected);
    }
}

#[test]
fn large_records_are_chunks_and_small_ones_are_not() {
    let partition = |records| FetchPartitionResponse::<()> {
        partition_index: 0,
        error_code: ErrorCode::None,
        high_watermark: 0,
        last_stable_offset: 0,
        log_start_offset: 0,
        diverging_epoch: None,
        current_leader: None,
        aborted_transactions: None,
        preferred_read_replica: -1,
        records,
    };
    let large = Bytes::from(vec![1; 100_000]);
    let response = FetchResponse {
        throttle_time_ms: 0,
        error_code: ErrorCode::None,
        session_id: 0,
        topics: vec![FetchTopicResponse {
            topic: TopicKey::Id(Uuid::nil()),
            partitions: vec![
                partition(Records::Memory(Bytes::from_static(b"small"))),
                partition(Records::Memory(large.clone())),
            ],
        }],
        node_endpoints: Vec::new(),
    };
    let chunks = response.encode(18, 1).unwrap();
    assert_eq!(chunks.len(), 3);
    let Chunk::Bytes(records) = &chunks[1] else {
        panic!("a file")
    };
    assert_eq!(records.as_ptr(), large.as_ptr(), "records were copied");
}
