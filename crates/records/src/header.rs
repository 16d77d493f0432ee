//! The fixed head of a batch: 61 bytes, parsed without looking at the records.
//!
//! A header that parses describes offsets that exist: not negative and not past the largest.

use bytes::Buf;

use ottla_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

/// Size of the head of a batch, and so of a batch without records.
pub const BATCH_OVERHEAD: usize = 61;

/// Bytes before and including the length field, which the length does not count.
pub(crate) const LENGTH_PREFIX: usize = 12;
/// Where the magic byte stands, in this format and in the older ones.
pub(crate) const MAGIC_AT: usize = 16;
/// Where the CRC stands.
pub(crate) const CRC_AT: usize = 17;
/// Where the bytes begin that the CRC covers.
pub(crate) const CRC_FROM: usize = 21;

/// The only format stored or accepted.
const MAGIC: i8 = 2;

/// Why bytes are not a batch of this format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end inside a batch.
    #[error("a batch of {needed} bytes ends after {have}")]
    Short {
        /// Bytes the batch says it has (or the size of the head, if that is not whole).
        needed: usize,
        /// Bytes there are.
        have: usize,
    },
    /// Another format.
    #[error("magic {0} instead of 2")]
    Magic(i8),
    /// The length field cannot be right.
    #[error("batch length {0} is out of bounds")]
    Length(i32),
    /// Offsets that cannot be.
    #[error("base offset {base_offset} with last offset delta {last_offset_delta}")]
    Offsets {
        /// The batch's base offset.
        base_offset: i64,
        /// The batch's last offset delta.
        last_offset_delta: i32,
    },
    /// The bytes are not those that were written.
    #[error("crc does not match")]
    Crc,
    /// A codec that does not exist.
    #[error("unknown compression codec {0}")]
    Codec(u8),
    /// The records cannot be decompressed.
    #[error("decompress {codec}: {reason}")]
    Decompress {
        /// The codec.
        codec: Codec,
        /// What its decoder said.
        reason: String,
    },
    /// Decompressed, the records would be larger than allowed.
    #[error("records decompress to more than {max_bytes} bytes")]
    DecompressedTooLarge {
        /// The limit.
        max_bytes: usize,
    },
    /// A record is malformed.
    #[error("record {index}: {reason}")]
    Record {
        /// The record's place in the batch.
        index: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// A compression codec, by its number in the attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Codec {
    /// Records as they are.
    None,
    /// gzip.
    Gzip,
    /// Snappy, as a raw block or in the Java library's framing.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Codec {
    /// The codec's number on the wire.
    #[must_use]
    pub const fn id(self) -> u16 {
        match self {
            Codec::None => 0,
            Codec::Gzip => 1,
            Codec::Snappy => 2,
            Codec::Lz4 => 3,
            Codec::Zstd => 4,
        }
    }

    /// The codec's name in `compression.type`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Codec::None => "uncompressed",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Whose clock a batch's timestamps are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's, one for each record.
    #[default]
    CreateTime,
    /// The leader's at the append: every record reads as the batch's `max_timestamp`.
    LogAppendTime,
}

/// The attribute bits of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(pub u16);

impl Attributes {
    const CODEC: u16 = 0b111;
    const LOG_APPEND_TIME: u16 = 1 << 3;
    const TRANSACTIONAL: u16 = 1 << 4;
    const CONTROL: u16 = 1 << 5;
    const DELETE_HORIZON: u16 = 1 << 6;

    /// The codec of the records.
    ///
    /// # Errors
    /// The three bits name no codec.
    pub const fn codec(self) -> Result<Codec, BatchError> {
        match self.0 & Self::CODEC {
            0 => Ok(Codec::None),
            1 => Ok(Codec::Gzip),
            2 => Ok(Codec::Snappy),
            3 => Ok(Codec::Lz4),
            4 => Ok(Codec::Zstd),
            5 => Err(BatchError::Codec(5)),
            6 => Err(BatchError::Codec(6)),
            _ => Err(BatchError::Codec(7)),
        }
    }

    /// Whose clock the timestamps are.
    #[must_use]
    pub const fn timestamp_type(self) -> TimestampType {
        if self.0 & Self::LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Part of a transaction (KIP-98).
    #[must_use]
    pub const fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// A control batch: one marker, which consumers skip.
    #[must_use]
    pub const fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// `base_timestamp` is a delete horizon, set by compaction.
    #[must_use]
    pub const fn has_delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }

    /// Bits that no producer may set: the delete horizon and those without a meaning.
    pub(crate) const fn has_broker_only_bits(self) -> bool {
        self.0 & !(Self::CODEC | Self::LOG_APPEND_TIME | Self::TRANSACTIONAL | Self::CONTROL) != 0
    }

    /// The same attributes with another codec.
    #[must_use]
    pub const fn with_codec(self, codec: Codec) -> Attributes {
        Attributes(self.0 & !Self::CODEC | codec.id())
    }

    /// The same attributes with another timestamp type.
    #[must_use]
    pub const fn with_timestamp_type(self, timestamp_type: TimestampType) -> Attributes {
        match timestamp_type {
            TimestampType::CreateTime => Attributes(self.0 & !Self::LOG_APPEND_TIME),
            TimestampType::LogAppendTime => Attributes(self.0 | Self::LOG_APPEND_TIME),
        }
    }

    /// The same attributes, transactional.
    #[must_use]
    pub const fn transactional(self) -> Attributes {
        Attributes(self.0 | Self::TRANSACTIONAL)
    }

    /// The same attributes, control.
    #[must_use]
    pub const fn control(self) -> Attributes {
        Attributes(self.0 | Self::CONTROL)
    }
}

/// The head of a batch, as it stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record (as produced; compaction may have removed it).
    pub base_offset: i64,
    /// Bytes after the length field.
    pub batch_length: i32,
    /// Leader epoch of the append; -1 from producers.
    pub partition_leader_epoch: i32,
    /// Format, 2.
    pub magic: i8,
    /// CRC-32C of everything after this field.
    pub crc: u32,
    /// The attribute bits.
    pub attributes: Attributes,
    /// Last offset less the base offset.
    pub last_offset_delta: i32,
    /// Timestamp that the records' deltas count from, or the delete horizon.
    pub base_timestamp: i64,
    /// Greatest timestamp of the batch.
    pub max_timestamp: i64,
    /// Producer id; -1 if none.
    pub producer_id: i64,
    /// Producer epoch; -1 if none.
    pub producer_epoch: i16,
    /// Sequence of the first record; -1 if none.
    pub base_sequence: i32,
    /// Number of records; 0 is legal after compaction.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the head of the batch that begins `bytes`, which may hold more than the batch or
    /// only its head.
    ///
    /// # Errors
    /// Less than a head, another format, or a length or offsets that cannot be.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let header = BatchHeader::parse_unchecked_offsets(bytes)?;
        let last_offset = header
            .base_offset
            .checked_add(i64::from(header.last_offset_delta));
        // The next offset must exist too.
        if header.base_offset < 0
            || header.last_offset_delta < 0
            || last_offset.is_none_or(|last| last == i64::MAX)
        {
            return Err(BatchError::Offsets {
                base_offset: header.base_offset,
                last_offset_delta: header.last_offset_delta,
            });
        }
        Ok(header)
    }

    /// As [`BatchHeader::parse`], leaving the offsets to the caller.
    pub(crate) fn parse_unchecked_offsets(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        if let Some(magic) = bytes.get(MAGIC_AT)
            && *magic != MAGIC.to_be_bytes()[0]
        {
            return Err(BatchError::Magic(i8::from_be_bytes([*magic])));
        }
        let mut head = bytes.get(..BATCH_OVERHEAD).ok_or(BatchError::Short {
            needed: BATCH_OVERHEAD,
            have: bytes.len(),
        })?;
        let header = BatchHeader {
            base_offset: head.get_i64(),
            batch_length: head.get_i32(),
            partition_leader_epoch: head.get_i32(),
            magic: head.get_i8(),
            crc: head.get_u32(),
            attributes: Attributes(head.get_u16()),
            last_offset_delta: head.get_i32(),
            base_timestamp: head.get_i64(),
            max_timestamp: head.get_i64(),
            producer_id: head.get_i64(),
            producer_epoch: head.get_i16(),
            base_sequence: head.get_i32(),
            record_count: head.get_i32(),
        };
        match usize::try_from(header.batch_length) {
            Ok(length) if length >= BATCH_OVERHEAD - LENGTH_PREFIX => Ok(header),
            Ok(_) | Err(_) => Err(BatchError::Length(header.batch_length)),
        }
    }

    /// Size of the whole batch.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        usize::try_from(self.batch_length).unwrap_or(0) + LENGTH_PREFIX
    }

    /// Offset of the first record.
    #[must_use]
    pub const fn first_offset(&self) -> Offset {
        Offset::saturating(self.base_offset)
    }

    /// Offset of the last record.
    #[must_use]
    pub const fn last_offset(&self) -> Offset {
        Offset::saturating(
            self.base_offset
                .saturating_add(self.last_offset_delta as i64),
        )
    }

    /// Offset after the last record.
    #[must_use]
    pub const fn next_offset(&self) -> Offset {
        self.last_offset().next()
    }

    /// Leader epoch of the append, if the batch carries one.
    #[must_use]
    pub const fn leader_epoch(&self) -> Option<LeaderEpoch> {
        LeaderEpoch::new(self.partition_leader_epoch)
    }

    /// The idempotent producer, if there is one.
    #[must_use]
    pub const fn producer(&self) -> Option<(ProducerId, ProducerEpoch)> {
        match (
            ProducerId::new(self.producer_id),
            ProducerEpoch::new(self.producer_epoch),
        ) {
            (Some(id), Some(epoch)) => Some((id, epoch)),
            _ => None,
        }
    }

    /// Sequence of the last record; the number after 2147483647 is 0.
    #[must_use]
    pub const fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return self.base_sequence;
        }
        let last = self.base_sequence as i64 + self.last_offset_delta as i64;
        let wrapped = last.rem_euclid(i32::MAX as i64 + 1);
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the remainder fits by construction"
        )]
        let sequence = wrapped as i32;
        sequence
    }
}

/// The sequence after `sequence`; the number after 2147483647 is 0.
#[must_use]
pub const fn next_sequence(sequence: i32) -> i32 {
    if sequence == i32::MAX {
        0
    } else {
        sequence + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchBuilder, stamp};

    #[test]
    fn sequences_wrap_to_zero_after_the_largest() {
        let mut builder =
            BatchBuilder::new(0).producer(ProducerId(1), ProducerEpoch::ZERO, i32::MAX - 1);
        for _ in 0..4 {
            builder.push(0, None, Some(b"v"), &[]);
        }
        let header = BatchHeader::parse(&builder.build()).unwrap();
        // MAX-1, MAX, 0, 1.
        assert_eq!(header.last_sequence(), 1);
        assert_eq!(next_sequence(i32::MAX), 0);
    }

    #[test]
    fn offsets_beyond_the_largest_are_refused() {
        let mut builder = BatchBuilder::new(0);
        builder.push(0, None, None, &[]);
        builder.push(0, None, None, &[]);
        let mut batch = builder.build();
        stamp(
            &mut batch,
            Offset::saturating(i64::MAX - 1),
            LeaderEpoch::ZERO,
        );
        assert!(matches!(
            BatchHeader::parse(&batch),
            Err(BatchError::Offsets { .. })
        ));
        stamp(
            &mut batch,
            Offset::saturating(i64::MAX - 2),
            LeaderEpoch::ZERO,
        );
        assert!(BatchHeader::parse(&batch).is_ok());
    }

    #[test]
    fn odd_heads_are_refused() {
        let batch = BatchBuilder::new(0).build();
        assert!(matches!(
            BatchHeader::parse(&batch[..60]),
            Err(BatchError::Short { .. })
        ));
        let mut old = batch.clone();
        old[MAGIC_AT] = 1;
        assert_eq!(BatchHeader::parse(&old), Err(BatchError::Magic(1)));
        for length in [i32::MIN, -1, 0, 48] {
            let mut odd = batch.clone();
            odd[8..12].copy_from_slice(&length.to_be_bytes());
            assert_eq!(BatchHeader::parse(&odd), Err(BatchError::Length(length)));
        }
    }
}
