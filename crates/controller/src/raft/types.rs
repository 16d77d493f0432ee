//! The words of the quorum in openraft's terms: who votes, what is proposed, what comes back.

use std::{fmt, io::Cursor};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use ottla_metadata::{Command, Outcome};
use ottla_types::BrokerId;

/// A raft identity, as KRaft's replica key: a blank disk is another raft node by construction,
/// so it cannot vote or acknowledge for its predecessor (C-14).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub(crate) struct ReplicaKey {
    /// `node.id`.
    pub(crate) node_id: BrokerId,
    /// Drawn when the store was first created.
    pub(crate) directory_id: Uuid,
}

impl fmt::Display for ReplicaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.node_id, self.directory_id.simple())
    }
}

/// Where a replica listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// What a log entry carries.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly every entry is a command; a box would cost each of them an allocation"
)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Proposal {
    /// A leader begins to serve. Changes nothing; once applied, everything that an earlier leader
    /// may have answered for is applied here too (B-17).
    Activate,
    /// A change of the cluster.
    Command(Command),
}

/// What applying an entry answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Decision {
    /// The command's outcome; `None` for entries that carry none.
    pub(crate) outcome: Option<Outcome>,
}

openraft::declare_raft_types!(
    /// openraft's types, chosen.
    pub(crate) TypeConfig:
        D = Proposal,
        R = Decision,
        NodeId = ReplicaKey,
        Node = Address,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Cursor<Vec<u8>>,
);

pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type LogId = openraft::LogId<ReplicaKey>;
pub(crate) type Vote = openraft::Vote<ReplicaKey>;
pub(crate) type Membership = openraft::StoredMembership<ReplicaKey, Address>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<ReplicaKey, Address>;
pub(crate) type Snapshot = openraft::Snapshot<TypeConfig>;
pub(crate) type StorageError = openraft::StorageError<ReplicaKey>;
pub(crate) type StorageIoError = openraft::StorageIOError<ReplicaKey>;

/// openraft's storage suite names nodes by number.
#[cfg(test)]
impl From<u64> for ReplicaKey {
    fn from(number: u64) -> ReplicaKey {
        let node_id = BrokerId(i32::try_from(number).unwrap());
        ReplicaKey {
            node_id,
            directory_id: Uuid::nil(),
        }
    }
}
