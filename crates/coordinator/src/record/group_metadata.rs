//! The value of a classic group's metadata, versions 0 to 4.

use bytes::{BufMut, Bytes};

use ottla_types::WallClockMs;

use crate::GenerationId;

use super::{
    DecodeError, EncodeError,
    wire::{Reader, put_bytes, put_nullable_string, put_string},
};

const NEWEST: i16 = 4;
const WRITTEN: i16 = 3;

/// A generation of a group with its members and their assignments.
///
/// A value with members but no leader is a generation whose assignment was not stored yet: it
/// reserves the number (G-4), and a coordinator that loads it begins a new round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadataValue {
    /// For example `consumer`.
    pub protocol_type: String,
    /// The generation.
    pub generation: GenerationId,
    /// The chosen protocol.
    pub protocol: Option<String>,
    /// The member that assigned.
    pub leader: Option<String>,
    /// When the group entered its state; absent in old versions.
    pub current_state_timestamp: Option<WallClockMs>,
    /// The members.
    pub members: Vec<MemberMetadata>,
}

/// One member of a stored generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberMetadata {
    /// Its id.
    pub member_id: String,
    /// Its instance id, if static.
    pub group_instance_id: Option<String>,
    /// `client.id`.
    pub client_id: String,
    /// Where it connected from.
    pub client_host: String,
    /// How long it needs to rejoin.
    pub rebalance_timeout_ms: i32,
    /// How long it may be silent.
    pub session_timeout_ms: i32,
    /// Its subscription under the chosen protocol.
    pub subscription: Bytes,
    /// Its assignment.
    pub assignment: Bytes,
}

impl GroupMetadataValue {
    /// Version 3: Kafka reads version 4 but does not write it.
    pub(super) fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let members = i32::try_from(self.members.len()).map_err(|_| EncodeError {
            bytes: self.members.len(),
        })?;
        let mut out = Vec::with_capacity(128);
        out.put_i16(WRITTEN);
        put_string(&mut out, &self.protocol_type)?;
        out.put_i32(self.generation.0);
        put_nullable_string(&mut out, self.protocol.as_deref())?;
        put_nullable_string(&mut out, self.leader.as_deref())?;
        out.put_i64(self.current_state_timestamp.map_or(-1, |at| at.0));
        out.put_i32(members);
        for member in &self.members {
            put_string(&mut out, &member.member_id)?;
            put_nullable_string(&mut out, member.group_instance_id.as_deref())?;
            put_string(&mut out, &member.client_id)?;
            put_string(&mut out, &member.client_host)?;
            out.put_i32(member.rebalance_timeout_ms);
            out.put_i32(member.session_timeout_ms);
            put_bytes(&mut out, &member.subscription)?;
            put_bytes(&mut out, &member.assignment)?;
        }
        Ok(out)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<GroupMetadataValue, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.i16()?;
        if !(0..=NEWEST).contains(&version) {
            return Err(DecodeError::UnsupportedVersion {
                value: "GroupMetadataValue",
                version,
                newest: NEWEST,
            });
        }
        let flexible = version >= 4;
        let string = if flexible {
            Reader::compact_string
        } else {
            Reader::string
        };
        let nullable = if flexible {
            Reader::compact_nullable_string
        } else {
            Reader::nullable_string
        };
        let protocol_type = string(&mut reader)?;
        let generation = GenerationId(reader.i32()?);
        let protocol = nullable(&mut reader)?;
        let leader = nullable(&mut reader)?;
        let current_state_timestamp = match version {
            0 | 1 => None,
            _ => Some(reader.i64()?).filter(|at| *at >= 0).map(WallClockMs),
        };
        let count = if flexible {
            reader.compact_array_length()?
        } else {
            reader.array_length()?
        };
        // A member takes more than a byte: no count can ask for more room than the record's size.
        let mut members = Vec::with_capacity(count.min(reader.remaining() / 16));
        for _ in 0..count {
            members.push(MemberMetadata::decode(&mut reader, version)?);
        }
        if flexible {
            reader.tagged_fields(|_, _| Ok(()))?;
        }
        match reader.remaining() {
            0 => Ok(GroupMetadataValue {
                protocol_type,
                generation,
                protocol,
                leader,
                current_state_timestamp,
                members,
            }),
            trailing => Err(DecodeError::Trailing(trailing)),
        }
    }
}

impl MemberMetadata {
    fn decode(reader: &mut Reader<'_>, version: i16) -> Result<MemberMetadata, DecodeError> {
        let flexible = version >= 4;
        let string = if flexible {
            Reader::compact_string
        } else {
            Reader::string
        };
        let nullable = if flexible {
            Reader::compact_nullable_string
        } else {
            Reader::nullable_string
        };
        let bytes = if flexible {
            Reader::compact_bytes
        } else {
            Reader::bytes
        };
        let member_id = string(reader)?;
        let group_instance_id = if version >= 3 {
            nullable(reader)?
        } else {
            None
        };
        let client_id = string(reader)?;
        let client_host = string(reader)?;
        let rebalance_timeout_ms = if version >= 1 {
            Some(reader.i32()?)
        } else {
            None
        };
        let session_timeout_ms = reader.i32()?;
        let subscription = bytes(reader)?;
        let assignment = bytes(reader)?;
        if flexible {
            reader.tagged_fields(|_, _| Ok(()))?;
        }
        Ok(MemberMetadata {
            member_id,
            group_instance_id,
            client_id,
            client_host,
            rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(session_timeout_ms),
            session_timeout_ms,
            subscription,
            assignment,
        })
    }
}
