//! The value of an offset commit, versions 0 to 4.

use bytes::BufMut;
use uuid::Uuid;

use ottla_types::{LeaderEpoch, TopicId, WallClockMs};

use super::{
    DecodeError, EncodeError,
    wire::{Reader, put_compact_string, put_string, put_uvarint},
};

const NEWEST: i16 = 4;
const TAG_TOPIC_ID: u32 = 0;

/// One committed offset as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommitValue {
    /// The offset of the next record to read.
    pub offset: i64,
    /// The epoch of the last record read; not stored together with an expiry of its own.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The client's own words.
    pub metadata: String,
    /// When it was committed.
    pub commit_timestamp: WallClockMs,
    /// When it lapses, if the client said so.
    pub expire_timestamp: Option<WallClockMs>,
    /// Which topic of that name; not stored together with an expiry of its own.
    pub topic_id: Option<TopicId>,
}

impl OffsetCommitValue {
    /// Version 4, or version 1 for a commit with an expiry of its own, as Kafka does: later
    /// versions have no place for it.
    pub(super) fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::with_capacity(48 + self.metadata.len());
        match self.expire_timestamp {
            Some(expire_timestamp) => {
                out.put_i16(1);
                out.put_i64(self.offset);
                put_string(&mut out, &self.metadata)?;
                out.put_i64(self.commit_timestamp.0);
                out.put_i64(expire_timestamp.0);
            }
            None => {
                out.put_i16(NEWEST);
                out.put_i64(self.offset);
                out.put_i32(self.leader_epoch.map_or(-1, LeaderEpoch::get));
                put_compact_string(&mut out, &self.metadata)?;
                out.put_i64(self.commit_timestamp.0);
                match self.topic_id {
                    Some(topic_id) => {
                        put_uvarint(&mut out, 1);
                        put_uvarint(&mut out, TAG_TOPIC_ID);
                        put_uvarint(&mut out, 16);
                        out.put_u128(topic_id.uuid().as_u128());
                    }
                    None => put_uvarint(&mut out, 0),
                }
            }
        }
        Ok(out)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<OffsetCommitValue, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.i16()?;
        if !(0..=NEWEST).contains(&version) {
            return Err(DecodeError::UnsupportedVersion {
                value: "OffsetCommitValue",
                version,
                newest: NEWEST,
            });
        }
        let offset = reader.i64()?;
        let leader_epoch = if version >= 3 {
            LeaderEpoch::new(reader.i32()?)
        } else {
            None
        };
        let metadata = if version >= 4 {
            reader.compact_string()?
        } else {
            reader.string()?
        };
        let commit_timestamp = WallClockMs(reader.i64()?);
        let expire_timestamp = match version {
            1 => Some(reader.i64()?).filter(|at| *at >= 0).map(WallClockMs),
            _ => None,
        };
        let mut topic_id = None;
        if version >= 4 {
            reader.tagged_fields(|tag, mut field| {
                if tag == TAG_TOPIC_ID {
                    topic_id = TopicId::new(Uuid::from_u128(field.u128()?));
                }
                Ok(())
            })?;
        }
        match reader.remaining() {
            0 => Ok(OffsetCommitValue {
                offset,
                leader_epoch,
                metadata,
                commit_timestamp,
                expire_timestamp,
                topic_id,
            }),
            trailing => Err(DecodeError::Trailing(trailing)),
        }
    }
}
