//! Producer state on disk: Kafka's `.snapshot` with the newest batch of each producer, and beside
//! it our own `.producers` with the last five, so that a retry of the first of five batches in
//! flight is still recognized after a restart (P-8).

use bytes::{Buf, BufMut};

use crate::producers::{BATCHES_KEPT, Producer, Producers, WrittenBatch};

/// Version of Kafka's file.
const KAFKA_VERSION: i16 = 1;
/// Size of an entry of Kafka's file.
const KAFKA_ENTRY: usize = 46;
/// Magic of our file: "OTPS".
const MAGIC: u32 = 0x4f54_5053;
/// Version of our file.
const VERSION: u16 = 1;
/// Size of a producer in our file, without its batches.
const ENTRY: usize = 31;
/// Size of a batch in our file.
const BATCH: usize = 24;

/// About what both files take.
pub(crate) fn size_bytes(producers: &Producers) -> u64 {
    (producers.len() * (KAFKA_ENTRY + ENTRY + BATCHES_KEPT * BATCH)) as u64
}

/// Kafka's file.
pub(crate) fn encode_kafka(producers: &Producers) -> Vec<u8> {
    let mut body = Vec::with_capacity(4 + producers.len() * KAFKA_ENTRY);
    body.put_i32(i32::try_from(producers.len()).unwrap_or(i32::MAX));
    let mut all: Vec<_> = producers.iter().collect();
    all.sort_unstable_by_key(|(id, _)| *id);
    for (id, producer) in all {
        let last = producer.last();
        body.put_i64(id);
        body.put_i16(producer.epoch);
        body.put_i32(last.map_or(-1, |batch| batch.last_sequence));
        body.put_i64(last.map_or(-1, |batch| batch.last_offset));
        body.put_i32(last.map_or(0, |batch| batch.offset_delta));
        body.put_i64(producer.last_timestamp);
        body.put_i32(producer.coordinator_epoch);
        body.put_i64(producer.open_transaction.unwrap_or(-1));
    }
    let mut out = Vec::with_capacity(6 + body.len());
    out.put_i16(KAFKA_VERSION);
    out.put_u32(crc32c::crc32c(&body));
    out.put_slice(&body);
    out
}

/// Reads Kafka's file; `None` if it is damaged.
pub(crate) fn decode_kafka(bytes: &[u8]) -> Option<Producers> {
    let mut head = bytes;
    if head.remaining() < 10 || head.get_i16() != KAFKA_VERSION {
        return None;
    }
    let crc = head.get_u32();
    if crc32c::crc32c(head) != crc {
        return None;
    }
    let count = usize::try_from(head.get_i32()).ok()?;
    if head.remaining() != count.checked_mul(KAFKA_ENTRY)? {
        return None;
    }
    let mut producers = Producers::default();
    for _ in 0..count {
        let id = head.get_i64();
        let mut producer = Producer::new(head.get_i16());
        let batch = WrittenBatch {
            last_sequence: head.get_i32(),
            last_offset: head.get_i64(),
            offset_delta: head.get_i32(),
            timestamp: head.get_i64(),
        };
        if batch.last_sequence >= 0 {
            producer.push(batch);
        }
        producer.last_timestamp = batch.timestamp;
        producer.coordinator_epoch = head.get_i32();
        producer.open_transaction = Some(head.get_i64()).filter(|first| *first >= 0);
        producers.insert(id, producer);
    }
    Some(producers)
}

/// Our file.
pub(crate) fn encode(producers: &Producers) -> Vec<u8> {
    let mut body = Vec::with_capacity(4 + producers.len() * (ENTRY + BATCH));
    body.put_u32(u32::try_from(producers.len()).unwrap_or(u32::MAX));
    let mut all: Vec<_> = producers.iter().collect();
    all.sort_unstable_by_key(|(id, _)| *id);
    for (id, producer) in all {
        body.put_i64(id);
        body.put_i16(producer.epoch);
        body.put_i32(producer.coordinator_epoch);
        body.put_i64(producer.open_transaction.unwrap_or(-1));
        body.put_i64(producer.last_timestamp);
        body.put_u8(u8::try_from(producer.batches().len()).unwrap_or(0));
        for batch in producer.batches() {
            body.put_i32(batch.last_sequence);
            body.put_i64(batch.last_offset);
            body.put_i32(batch.offset_delta);
            body.put_i64(batch.timestamp);
        }
    }
    let mut out = Vec::with_capacity(10 + body.len());
    out.put_u32(MAGIC);
    out.put_u16(VERSION);
    out.put_u32(crc32c::crc32c(&body));
    out.put_slice(&body);
    out
}

/// Reads our file; `None` if it is damaged.
pub(crate) fn decode(bytes: &[u8]) -> Option<Producers> {
    let mut head = bytes;
    if head.remaining() < 14 || head.get_u32() != MAGIC || head.get_u16() != VERSION {
        return None;
    }
    let crc = head.get_u32();
    if crc32c::crc32c(head) != crc {
        return None;
    }
    let count = head.get_u32();
    let mut producers = Producers::default();
    for _ in 0..count {
        if head.remaining() < ENTRY {
            return None;
        }
        let id = head.get_i64();
        let mut producer = Producer::new(head.get_i16());
        producer.coordinator_epoch = head.get_i32();
        producer.open_transaction = Some(head.get_i64()).filter(|first| *first >= 0);
        let last_timestamp = head.get_i64();
        let batches = usize::from(head.get_u8());
        if head.remaining() < batches * BATCH {
            return None;
        }
        for _ in 0..batches {
            producer.push(WrittenBatch {
                last_sequence: head.get_i32(),
                last_offset: head.get_i64(),
                offset_delta: head.get_i32(),
                timestamp: head.get_i64(),
            });
        }
        producer.last_timestamp = last_timestamp;
        producers.insert(id, producer);
    }
    (!head.has_remaining()).then_some(producers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Producers {
        let mut producers = Producers::default();
        for id in 0..3i64 {
            let mut producer = Producer::new(7);
            for n in 0..(id * 3) {
                producer.push(WrittenBatch {
                    last_sequence: i32::try_from(n * 10 + 9).unwrap(),
                    last_offset: n * 10 + 9,
                    offset_delta: 9,
                    timestamp: 1000 + n,
                });
            }
            producer.open_transaction = (id == 2).then_some(55);
            producers.insert(id, producer);
        }
        producers
    }

    #[test]
    fn our_file_round_trips_whole() {
        let producers = some();
        assert_eq!(decode(&encode(&producers)), Some(producers.clone()));
        assert_eq!(
            producers
                .first_open_transaction()
                .map(ottla_types::Offset::get),
            Some(55)
        );
    }

    #[test]
    fn kafkas_file_keeps_the_newest_batch() {
        let producers = some();
        let back = decode_kafka(&encode_kafka(&producers)).unwrap();
        assert_eq!(back.len(), 3);
        for (id, producer) in back.iter() {
            let (_, original) = producers.iter().find(|(other, _)| *other == id).unwrap();
            assert_eq!(producer.last(), original.last());
            assert_eq!(producer.epoch, original.epoch);
        }
    }

    #[test]
    fn s3_a_damaged_file_is_no_file() {
        for bytes in [encode(&some()), encode_kafka(&some())] {
            for at in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[at] ^= 0x10;
                assert_eq!(decode(&bad), None, "byte {at}");
                assert_eq!(decode_kafka(&bad), None, "byte {at}");
                assert_eq!(decode(&bytes[..at]), None);
                assert_eq!(decode_kafka(&bytes[..at]), None);
            }
        }
    }
}
