//! Keys and values of the controller's store.
//!
//! | column family | key | value |
//! |---|---|---|
//! | `meta` | `identity`, `vote`, `committed`, `purged`, `snapshot` | see the types here |
//! | `log` | index, 8 bytes big-endian | entry |
//! | `snapshot` | snapshot number and chunk number, 8 + 4 bytes big-endian | raw bytes |
//!
//! Values are encoded by the metadata crate's codec: a version byte, then msgpack with names.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use ottla_types::BrokerId;

use super::types::SnapshotMeta;

pub(crate) const META: &str = "meta";
pub(crate) const LOG: &str = "log";
pub(crate) const SNAPSHOT: &str = "snapshot";

pub(crate) const KEY_IDENTITY: &[u8] = b"identity";
pub(crate) const KEY_VOTE: &[u8] = b"vote";
pub(crate) const KEY_COMMITTED: &[u8] = b"committed";
pub(crate) const KEY_PURGED: &[u8] = b"purged";
pub(crate) const KEY_SNAPSHOT: &[u8] = b"snapshot";

/// Bytes of a snapshot stored under one key, so that no single write is long.
pub(crate) const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;

/// Whose store this is; written once, when it is created (S-10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) node_id: BrokerId,
    pub(crate) directory_id: Uuid,
}

/// The current snapshot; its chunks stand under `number`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    pub(crate) meta: SnapshotMeta,
    pub(crate) number: u64,
    pub(crate) chunks: u32,
    pub(crate) size_bytes: u64,
    pub(crate) crc32c: u32,
}

/// Stored bytes are not what this version writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} in the controller's store: {reason}")]
pub(crate) struct BadValue {
    what: &'static str,
    reason: String,
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    ottla_metadata::encode(value)
}

pub(crate) fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, BadValue> {
    ottla_metadata::decode(bytes).map_err(|error| BadValue {
        what,
        reason: error.to_string(),
    })
}

pub(crate) fn log_key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

pub(crate) fn log_index(key: &[u8]) -> Result<u64, BadValue> {
    let bytes = <[u8; 8]>::try_from(key).map_err(|_| BadValue {
        what: "log key",
        reason: format!("{} bytes", key.len()),
    })?;
    Ok(u64::from_be_bytes(bytes))
}

pub(crate) fn chunk_key(number: u64, chunk: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key[8..].copy_from_slice(&chunk.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::{Entry, LogId, Proposal, ReplicaKey, Vote};
    use openraft::{CommittedLeaderId, EntryPayload, Membership};
    use ottla_metadata::Command;
    use std::collections::{BTreeMap, BTreeSet};

    fn key(node: i32) -> ReplicaKey {
        ReplicaKey {
            node_id: BrokerId(node),
            directory_id: Uuid::from_u128(77),
        }
    }

    #[test]
    fn log_keys_sort_as_their_indices() {
        for (low, high) in [(0, 1), (255, 256), (u64::MAX - 1, u64::MAX)] {
            assert!(log_key(low) < log_key(high));
            assert_eq!(log_index(&log_key(high)), Ok(high));
        }
        assert!(log_index(&[1, 2, 3]).is_err());
        assert!(chunk_key(1, u32::MAX) < chunk_key(2, 0));
    }

    #[test]
    fn entries_votes_and_memberships_survive_the_round_trip() {
        let log_id = LogId::new(CommittedLeaderId::new(3, key(1)), 9);
        let nodes = BTreeMap::from([(
            key(1),
            crate::raft::types::Address {
                host: "a".to_owned(),
                port: 1,
            },
        )]);
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(Proposal::Activate),
            EntryPayload::Normal(Proposal::Command(Command::UnregisterBroker {
                broker_id: BrokerId(4),
            })),
            EntryPayload::Membership(Membership::new(vec![BTreeSet::from([key(1)])], nodes)),
        ];
        for payload in payloads {
            let entry = Entry { log_id, payload };
            assert_eq!(decode::<Entry>("entry", &encode(&entry)), Ok(entry));
        }
        let vote = Vote::new_committed(7, key(2));
        assert_eq!(decode::<Vote>("vote", &encode(&vote)), Ok(vote));
        assert!(decode::<Vote>("vote", b"\x01junk").is_err());
    }

    #[test]
    fn a_snapshot_head_survives_the_round_trip() {
        let head = SnapshotHead {
            meta: SnapshotMeta::default(),
            number: 3,
            chunks: 2,
            size_bytes: 1_048_577,
            crc32c: 17,
        };
        assert_eq!(decode::<SnapshotHead>("snapshot", &encode(&head)), Ok(head));
    }
}
