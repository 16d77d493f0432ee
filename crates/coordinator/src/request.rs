//! What members and tools ask of a group, and what they are answered.
//!
//! Domain words only: an empty id or a generation of -1 on the wire is `None` here.

use bytes::Bytes;

use ottla_types::{LeaderEpoch, PartitionIndex};

use crate::{CommittedOffset, GenerationId, GroupError, GroupState};

/// A name of an assignment strategy with what the member says about itself under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// For example `range`.
    pub name: String,
    /// The subscription, opaque to the coordinator.
    pub metadata: Bytes,
}

/// A member wants into the next generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// The group.
    pub group_id: String,
    /// The id given earlier.
    pub member_id: Option<String>,
    /// `group.instance.id` of a static member.
    pub group_instance_id: Option<String>,
    /// `client.id`, the beginning of a new member's id.
    pub client_id: String,
    /// Where the member connects from, as `/address`.
    pub client_host: String,
    /// How long the member may be silent.
    pub session_timeout_ms: i32,
    /// How long the member needs to rejoin; version 0 had none and means the session timeout.
    pub rebalance_timeout_ms: Option<i32>,
    /// For example `consumer` or `connect`.
    pub protocol_type: String,
    /// What the member supports, the most preferred first.
    pub protocols: Vec<Protocol>,
    /// A new dynamic member must come back with an id before it is admitted (KIP-394).
    pub member_id_required: bool,
    /// A returning static leader can be told to keep the assignment (KIP-814).
    pub skip_assignment_supported: bool,
}

/// A member in the answer to the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub member_id: String,
    /// Its instance id, if static.
    pub group_instance_id: Option<String>,
    /// Its subscription under the chosen protocol.
    pub metadata: Bytes,
}

/// The member is in this generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The generation.
    pub generation: GenerationId,
    /// The group's protocol type.
    pub protocol_type: String,
    /// The chosen protocol.
    pub protocol: String,
    /// The member that computes the assignment.
    pub leader: String,
    /// The member's own id.
    pub member_id: String,
    /// The leader need not assign anew (KIP-814).
    pub skip_assignment: bool,
    /// All members, for the leader only.
    pub members: Vec<JoinedMember>,
}

/// A member asks for its assignment; the leader brings everybody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncRequest {
    /// The group.
    pub group_id: String,
    /// The generation joined.
    pub generation: Option<GenerationId>,
    /// Who asks.
    pub member_id: String,
    /// Its instance id, if static.
    pub group_instance_id: Option<String>,
    /// Must be the group's, if given.
    pub protocol_type: Option<String>,
    /// Must be the chosen one, if given.
    pub protocol: Option<String>,
    /// Assignments by member id, from the leader.
    pub assignments: Vec<(String, Bytes)>,
}

/// A member's assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// The group's protocol type.
    pub protocol_type: Option<String>,
    /// The chosen protocol.
    pub protocol: Option<String>,
    /// The assignment, opaque to the coordinator.
    pub assignment: Bytes,
}

/// A member says that it is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatRequest {
    /// The group.
    pub group_id: String,
    /// The generation it lives in.
    pub generation: Option<GenerationId>,
    /// Who.
    pub member_id: String,
    /// Its instance id, if static.
    pub group_instance_id: Option<String>,
}

/// One member that leaves, or is made to by an administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeavingMember {
    /// Its id; `None` when an administrator names the instance only.
    pub member_id: Option<String>,
    /// Its instance id, if static.
    pub group_instance_id: Option<String>,
}

/// Members leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveRequest {
    /// The group.
    pub group_id: String,
    /// Who leaves.
    pub members: Vec<LeavingMember>,
}

/// One partition of an offset commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPartition {
    /// The partition.
    pub partition: PartitionIndex,
    /// The offset of the next record to read, stored as the client sent it.
    pub offset: i64,
    /// The epoch of the last record read (KIP-320).
    pub leader_epoch: Option<LeaderEpoch>,
    /// The client's own words.
    pub metadata: String,
}

/// One topic of an offset commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitTopic {
    /// The topic.
    pub name: String,
    /// Its partitions.
    pub partitions: Vec<CommitPartition>,
}

/// A member, or a tool, stores offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitRequest {
    /// The group.
    pub group_id: String,
    /// The generation the member lives in.
    pub generation: Option<GenerationId>,
    /// Who.
    pub member_id: Option<String>,
    /// Its instance id, if static.
    pub group_instance_id: Option<String>,
    /// A retention of its own, from requests before version 5.
    pub retention_ms: Option<i64>,
    /// The offsets.
    pub topics: Vec<CommitTopic>,
}

/// The fate of one topic of an offset commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedTopic {
    /// The topic.
    pub name: String,
    /// Its partitions, in the order of the request.
    pub partitions: Vec<(PartitionIndex, Result<(), GroupError>)>,
}

/// A member, or a tool, asks for stored offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchOffsetsRequest {
    /// The group.
    pub group_id: String,
    /// Member id and epoch of a KIP-848 member; classic groups do not check them.
    pub member: Option<(String, i32)>,
    /// The partitions wanted, `None` for all that are stored.
    pub topics: Option<Vec<(String, Vec<PartitionIndex>)>>,
    /// Say so if a transaction that would move the offset is still open (G-7).
    pub require_stable: bool,
}

/// The stored offset of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedOffset {
    /// The partition.
    pub partition: PartitionIndex,
    /// What is stored, if anything.
    pub committed: Option<CommittedOffset>,
    /// An open transaction would move it, and the caller asked for stable offsets.
    pub unstable: bool,
}

/// The stored offsets of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedTopic {
    /// The topic.
    pub name: String,
    /// Its partitions.
    pub partitions: Vec<FetchedOffset>,
}

/// One line of a list of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupListing {
    /// The group.
    pub group_id: String,
    /// Empty for a group that only stores offsets.
    pub protocol_type: String,
    /// Its state.
    pub state: GroupState,
}

/// A member as tools see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    /// Its id.
    pub member_id: String,
    /// Its instance id, if static.
    pub group_instance_id: Option<String>,
    /// `client.id`.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// Its subscription under the chosen protocol; empty unless the group is stable.
    pub metadata: Bytes,
    /// Its assignment; empty unless the group is stable.
    pub assignment: Bytes,
}

/// A group as tools see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// The group.
    pub group_id: String,
    /// Its state.
    pub state: GroupState,
    /// Empty for a group that only stores offsets.
    pub protocol_type: String,
    /// The chosen protocol; empty unless the group is stable.
    pub protocol: String,
    /// Its members.
    pub members: Vec<DescribedMember>,
}
