//! What a client may send and what it is told otherwise.

use bytes::BytesMut;
use ottla_records::{
    BatchBuilder, BatchError, BatchHeader, Codec, Compression, InvalidBatch, ProduceRules,
    TimestampType, admit_client_batch, check_crc, decode_records, stamp_max_timestamp,
    validate_client_batch,
};
use ottla_types::{ProducerEpoch, ProducerId, WallClockMs};

const NOW: i64 = 1_700_000_000_000;

fn rules() -> ProduceRules {
    ProduceRules {
        max_message_bytes: 10_000,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: None,
        timestamp_after_max_ms: Some(3_600_000),
        now: WallClockMs(NOW),
        zstd_allowed: true,
        compacted: false,
        allow_control: false,
    }
}

fn builder(codec: Codec) -> BatchBuilder {
    let mut builder = BatchBuilder::new(NOW).codec(codec);
    for n in 0..10u8 {
        builder.push(
            NOW + i64::from(n),
            Some(&[n]),
            Some(&[n; 20]),
            &[("h", None)],
        );
    }
    builder
}

/// Sets bytes and makes the CRC right again, so that only the rule under test can refuse.
fn with(mut batch: BytesMut, at: usize, bytes: &[u8]) -> BytesMut {
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    let max = BatchHeader::parse(&batch).map_or(NOW, |header| header.max_timestamp);
    stamp_max_timestamp(&mut batch, max);
    batch
}

#[test]
fn x4_each_broken_rule_has_its_answer() {
    let good = || builder(Codec::None).build();
    let invalid = |batch: BytesMut| match validate_client_batch(&batch, &rules()) {
        Err(InvalidBatch::Invalid(reason)) => reason,
        other => panic!("{other:?}"),
    };
    assert!(validate_client_batch(&good(), &rules()).is_ok());
    invalid(BytesMut::new());
    invalid(with(good(), 16, &[1]));
    let mut two = good();
    two.extend_from_slice(&good());
    assert_eq!(invalid(two), "more than one batch");
    invalid(with(good(), 7, &[1]));
    // Record count against the offsets, either way, and none at all.
    invalid(with(good(), 57, &9i32.to_be_bytes()));
    invalid(with(good(), 23, &10i32.to_be_bytes()));
    invalid(with(good(), 57, &0i32.to_be_bytes()));
    invalid(with(good(), 57, &(-1i32).to_be_bytes()));
    invalid(with(good(), 23, &i32::MAX.to_be_bytes()));
    // Attributes: control, the delete horizon, an unknown bit, an unknown codec.
    for bits in [1u16 << 5, 1 << 6, 1 << 7, 1 << 15, 7] {
        invalid(with(good(), 21, &bits.to_be_bytes()));
    }
    // A producer id without sequence or epoch.
    invalid(with(good(), 43, &5i64.to_be_bytes()));
    let no_epoch = with(good(), 43, &5i64.to_be_bytes());
    invalid(with(no_epoch, 53, &5i32.to_be_bytes()));
    // Transactional without producer.
    invalid(with(good(), 21, &(1u16 << 4).to_be_bytes()));
    // The first record's length, its attributes, and a byte too many.
    invalid(with(good(), 61, &[0x7f]));
    invalid(with(good(), 62, &[1]));
    let mut long = good();
    long.extend_from_slice(&[0]);
    let length = i32::try_from(long.len() - 12).unwrap();
    invalid(with(long, 8, &length.to_be_bytes()));
}

#[test]
fn x4_damage_is_corruption_and_not_a_rule() {
    let good = builder(Codec::None).build();
    let mut flipped = good.clone();
    flipped[70] ^= 1;
    assert_eq!(
        validate_client_batch(&flipped, &rules()),
        Err(InvalidBatch::Corrupt(BatchError::Crc))
    );
    assert!(matches!(
        validate_client_batch(&good[..good.len() - 1], &rules()),
        Err(InvalidBatch::Corrupt(BatchError::Short { .. }))
    ));
    assert!(matches!(
        validate_client_batch(&good[..30], &rules()),
        Err(InvalidBatch::Corrupt(BatchError::Short { .. }))
    ));
}

#[test]
fn size_is_checked_before_the_crc() {
    let mut batch = builder(Codec::None).build();
    batch[70] ^= 1;
    let tight = ProduceRules {
        max_message_bytes: 100,
        ..rules()
    };
    assert!(matches!(
        validate_client_batch(&batch, &tight),
        Err(InvalidBatch::TooLarge { .. })
    ));
}

#[test]
fn zstd_needs_a_request_that_knows_it() {
    let batch = builder(Codec::Zstd).build();
    let old = ProduceRules {
        zstd_allowed: false,
        ..rules()
    };
    assert!(validate_client_batch(&batch, &rules()).is_ok());
    assert_eq!(
        validate_client_batch(&batch, &old),
        Err(InvalidBatch::UnsupportedCompression)
    );
}

#[test]
fn a_compacted_topic_names_each_record_without_a_key() {
    for codec in [Codec::None, Codec::Lz4] {
        let mut builder = BatchBuilder::new(NOW).codec(codec);
        for n in 0..4u8 {
            let key = [n];
            builder.push(NOW, (n % 2 == 0).then_some(&key), Some(b"v"), &[]);
        }
        let batch = builder.build();
        assert!(validate_client_batch(&batch, &rules()).is_ok());
        let compacted = ProduceRules {
            compacted: true,
            ..rules()
        };
        match validate_client_batch(&batch, &compacted) {
            Err(InvalidBatch::InvalidRecords { records }) => {
                let indexes: Vec<i32> = records.iter().map(|r| r.batch_index).collect();
                assert_eq!(indexes, [1, 3]);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn timestamps_out_of_bounds_are_refused_on_both_sides() {
    let at = |timestamp: i64, codec| {
        let mut builder = BatchBuilder::new(timestamp).codec(codec);
        builder.push(timestamp, None, Some(b"v"), &[]);
        builder.build()
    };
    let bounded = ProduceRules {
        timestamp_before_max_ms: Some(1000),
        ..rules()
    };
    for codec in [Codec::None, Codec::Gzip] {
        let late = at(NOW - 1001, codec);
        assert!(validate_client_batch(&late, &rules()).is_ok());
        assert!(matches!(
            validate_client_batch(&late, &bounded),
            Err(InvalidBatch::InvalidTimestamp { .. })
        ));
        assert!(validate_client_batch(&at(NOW - 1000, codec), &bounded).is_ok());
        // No timestamp at all is always fine.
        assert!(validate_client_batch(&at(-1, codec), &bounded).is_ok());
        let early = at(NOW + 3_600_001, codec);
        assert!(matches!(
            validate_client_batch(&early, &rules()),
            Err(InvalidBatch::InvalidTimestamp { .. })
        ));
        // With the leader's clock the producer's does not matter.
        let append = ProduceRules {
            timestamp_type: TimestampType::LogAppendTime,
            ..bounded
        };
        assert!(validate_client_batch(&early, &append).is_ok());
    }
    let chosen = with(at(NOW, Codec::None), 21, &(1u16 << 3).to_be_bytes());
    assert!(matches!(
        validate_client_batch(&chosen, &rules()),
        Err(InvalidBatch::InvalidTimestamp { .. })
    ));
}

#[test]
fn an_ordinary_batch_is_admitted_in_place() {
    let batch = builder(Codec::Lz4)
        .producer(ProducerId(3), ProducerEpoch::ZERO, 0)
        .build();
    let (address, copy) = (batch.as_ptr(), batch.clone());
    let (stored, header) = admit_client_batch(batch, &rules(), Compression::Producer).unwrap();
    assert_eq!((stored.as_ptr(), &stored[..]), (address, &copy[..]));
    assert_eq!(header.record_count, 10);
}

#[test]
fn a_wrong_greatest_timestamp_is_put_right() {
    let mut batch = builder(Codec::None).build();
    stamp_max_timestamp(&mut batch, 5);
    let (stored, header) = admit_client_batch(batch, &rules(), Compression::Producer).unwrap();
    assert_eq!(header.max_timestamp, NOW + 9);
    assert!(check_crc(&stored));
}

#[test]
fn compression_type_recompresses() {
    let plain = builder(Codec::None).build();
    let expected = decode_records(&plain, 1 << 20).unwrap();
    for from in [Codec::None, Codec::Snappy] {
        for to in [
            Codec::None,
            Codec::Gzip,
            Codec::Snappy,
            Codec::Lz4,
            Codec::Zstd,
        ] {
            let (stored, header) =
                admit_client_batch(builder(from).build(), &rules(), Compression::Topic(to))
                    .unwrap();
            assert_eq!(header.attributes.codec(), Ok(to));
            assert!(check_crc(&stored));
            assert_eq!(decode_records(&stored, 1 << 20).unwrap(), expected);
            assert!(validate_client_batch(&stored, &rules()).is_ok());
        }
    }
}

#[test]
fn sparse_offset_deltas_are_made_dense() {
    let mut batch = builder(Codec::None).build();
    // The second record: length 1 byte, attributes, timestamp delta 1, offset delta 1.
    let first = usize::from(batch[61] >> 1) + 62;
    assert_eq!(batch[first + 3], 2);
    batch[first + 3] = 14;
    let max = NOW + 9;
    stamp_max_timestamp(&mut batch, max);
    let (stored, _) = admit_client_batch(batch, &rules(), Compression::Producer).unwrap();
    let offsets: Vec<i64> = decode_records(&stored, 1 << 20)
        .unwrap()
        .iter()
        .map(|r| r.offset)
        .collect();
    assert_eq!(offsets, (0..10).collect::<Vec<i64>>());
}
