//! Writing the leader's fields into a batch in place.
//!
//! Base offset and leader epoch stand outside the CRC and cost two stores. The timestamps stand
//! inside it and cost one CRC.

use ottla_types::{LeaderEpoch, Offset, WallClockMs};

use crate::batches::compute_crc;
use crate::header::{Attributes, CRC_AT, CRC_FROM, TimestampType};

const LEADER_EPOCH_AT: usize = 12;
const MAX_TIMESTAMP_AT: usize = 35;

/// Gives `batch` its place in the log. Bytes shorter than a head stay as they are.
pub fn stamp(batch: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    put(batch, 0, base_offset.get().to_be_bytes());
    put(batch, LEADER_EPOCH_AT, leader_epoch.get().to_be_bytes());
}

/// Makes `now` the timestamp of every record of `batch` and computes the CRC again.
pub fn stamp_log_append_time(batch: &mut [u8], now: WallClockMs) {
    if let Some(bits) = batch.get(CRC_FROM..).and_then(|bytes| bytes.first_chunk()) {
        let attributes =
            Attributes(u16::from_be_bytes(*bits)).with_timestamp_type(TimestampType::LogAppendTime);
        put(batch, CRC_FROM, attributes.0.to_be_bytes());
    }
    stamp_max_timestamp(batch, now.0);
}

/// Sets the batch's greatest timestamp, which a producer may have got wrong, and computes the CRC
/// again.
pub fn stamp_max_timestamp(batch: &mut [u8], max_timestamp: i64) {
    put(batch, MAX_TIMESTAMP_AT, max_timestamp.to_be_bytes());
    let crc = compute_crc(batch);
    put(batch, CRC_AT, crc.to_be_bytes());
}

/// Stores `bytes` at `at`, or nothing if the batch is too short for them.
pub(crate) fn put<const N: usize>(batch: &mut [u8], at: usize, bytes: [u8; N]) {
    if let Some(slot) = batch.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *slot = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchBuilder, BatchHeader, check_crc, decode_records};

    #[test]
    fn a_stamp_leaves_the_crc_right() {
        let mut builder = BatchBuilder::new(5);
        builder.push(5, None, Some(b"v"), &[]);
        let mut batch = builder.build();
        stamp(
            &mut batch,
            Offset::saturating(77),
            LeaderEpoch::saturating(3),
        );
        assert!(check_crc(&batch));
        let header = BatchHeader::parse(&batch).unwrap();
        assert_eq!((header.base_offset, header.partition_leader_epoch), (77, 3));
    }

    #[test]
    fn log_append_time_is_the_time_of_every_record() {
        let mut builder = BatchBuilder::new(5);
        builder.push(5, None, Some(b"a"), &[]);
        builder.push(900, None, Some(b"b"), &[]);
        let mut batch = builder.build();
        stamp_log_append_time(&mut batch, WallClockMs(1234));
        assert!(check_crc(&batch));
        let header = BatchHeader::parse(&batch).unwrap();
        assert_eq!(
            header.attributes.timestamp_type(),
            TimestampType::LogAppendTime
        );
        let times: Vec<i64> = decode_records(&batch, 1 << 20)
            .unwrap()
            .iter()
            .map(|r| r.timestamp)
            .collect();
        assert_eq!(times, [1234, 1234]);
    }
}
