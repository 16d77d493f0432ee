//! The records of `__consumer_offsets`, byte for byte Kafka's.
//!
//! A key begins with its type, a value with the version of its schema; a missing value removes
//! what the key names. Every version ever written is read; the newest that Kafka itself writes is
//! written.

mod group_metadata;
mod offset_commit;
mod wire;

use bytes::{BufMut, Bytes};

use ottla_types::PartitionIndex;

pub use self::{
    group_metadata::{GroupMetadataValue, MemberMetadata},
    offset_commit::OffsetCommitValue,
};

use self::wire::{Reader, put_string};

const OFFSET_COMMIT_LEGACY: i16 = 0;
const OFFSET_COMMIT: i16 = 1;
const GROUP_METADATA: i16 = 2;

/// Bytes that are not a record of a kind we know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends too early.
    #[error("record ends too early")]
    Short,
    /// A field has an impossible value.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// Bytes are left over after the last field.
    #[error("{0} bytes after the last field")]
    Trailing(usize),
    /// A newer schema of a value than we read.
    #[error("version {version} of {value} is newer than {newest}")]
    UnsupportedVersion {
        /// Which value.
        value: &'static str,
        /// Its version.
        version: i16,
        /// The newest known.
        newest: i16,
    },
}

/// A string or byte array is longer than the schema can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a field of {bytes} bytes does not fit the record's schema")]
pub struct EncodeError {
    /// Its length.
    pub bytes: usize,
}

/// One fact about a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OffsetsRecord {
    /// The offset of one partition; without a value it is removed.
    Offset {
        /// The group.
        group_id: String,
        /// The topic, by name.
        topic: String,
        /// The partition.
        partition: PartitionIndex,
        /// The offset.
        value: Option<OffsetCommitValue>,
    },
    /// The group's generation and members; without a value the group is removed.
    Group {
        /// The group.
        group_id: String,
        /// The members.
        value: Option<GroupMetadataValue>,
    },
}

impl OffsetsRecord {
    /// Key and value as they stand in the log.
    pub fn encode(&self) -> Result<(Bytes, Option<Bytes>), EncodeError> {
        let mut key = Vec::with_capacity(64);
        let value = match self {
            OffsetsRecord::Offset {
                group_id,
                topic,
                partition,
                value,
            } => {
                key.put_i16(OFFSET_COMMIT);
                put_string(&mut key, group_id)?;
                put_string(&mut key, topic)?;
                key.put_i32(partition.get());
                value.as_ref().map(OffsetCommitValue::encode).transpose()?
            }
            OffsetsRecord::Group { group_id, value } => {
                key.put_i16(GROUP_METADATA);
                put_string(&mut key, group_id)?;
                value.as_ref().map(GroupMetadataValue::encode).transpose()?
            }
        };
        Ok((key.into(), value.map(Bytes::from)))
    }

    /// Reads a record back; `None` for a type of key that belongs to other kinds of groups.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<OffsetsRecord>, DecodeError> {
        let mut reader = Reader::new(key);
        let record = match reader.i16()? {
            OFFSET_COMMIT_LEGACY | OFFSET_COMMIT => OffsetsRecord::Offset {
                group_id: reader.string()?,
                topic: reader.string()?,
                partition: PartitionIndex::new(reader.i32()?)
                    .ok_or(DecodeError::Malformed("partition"))?,
                value: value.map(OffsetCommitValue::decode).transpose()?,
            },
            GROUP_METADATA => OffsetsRecord::Group {
                group_id: reader.string()?,
                value: value.map(GroupMetadataValue::decode).transpose()?,
            },
            _ => return Ok(None),
        };
        match reader.remaining() {
            0 => Ok(Some(record)),
            trailing => Err(DecodeError::Trailing(trailing)),
        }
    }
}

#[cfg(test)]
mod tests;
