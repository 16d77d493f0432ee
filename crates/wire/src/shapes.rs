//! The shape of every request that is served, in the order of its fields on the wire.
//!
//! A test encodes requests of every version with the generated encoders and walks them with these,
//! so a field that is missing here fails the build rather than a client.

use crate::shape::{
    Field,
    Kind::{Bytes, Fixed, Numbers, Optional, Struct, Structs, Tag, Text, Texts},
    field,
};

const BOOL: Field = field(Fixed(1));
const I8: Field = field(Fixed(1));
const I16: Field = field(Fixed(2));
const I32: Field = field(Fixed(4));
const I64: Field = field(Fixed(8));
const UUID: Field = field(Fixed(16));
const TEXT: Field = field(Text);

/// Not walked: Produce has a decoder of its own, which reserves nothing by claimed lengths.
pub(crate) const PRODUCE: &[Field] = &[];

pub(crate) const FETCH: &[Field] = &[
    I32.until(14), // replica_id
    I32,           // max_wait_ms
    I32,           // min_bytes
    I32,           // max_bytes
    I8,            // isolation_level
    I32.since(7),  // session_id
    I32.since(7),  // session_epoch
    field(Structs(FETCH_TOPIC)),
    field(Structs(FORGOTTEN_TOPIC)).since(7),
    TEXT.since(11),                                // rack_id
    field(Tag(0, &Text)).since(12),                // cluster_id
    field(Tag(1, &Struct(&[I32, I64]))).since(15), // replica_state
];

const FETCH_TOPIC: &[Field] = &[
    TEXT.until(12),
    UUID.since(13),
    field(Structs(&[
        I32,                                 // partition
        I32.since(9),                        // current_leader_epoch
        I64,                                 // fetch_offset
        I32.since(12),                       // last_fetched_epoch
        I64.since(5),                        // log_start_offset
        I32,                                 // partition_max_bytes
        field(Tag(0, &Fixed(16))).since(17), // replica_directory_id
        field(Tag(1, &Fixed(8))).since(18),  // high_watermark
    ])),
];

const FORGOTTEN_TOPIC: &[Field] = &[TEXT.until(12), UUID.since(13), field(Numbers(4))];

pub(crate) const LIST_OFFSETS: &[Field] = &[
    I32,         // replica_id
    I8.since(2), // isolation_level
    field(Structs(&[
        TEXT,
        // partition_index, current_leader_epoch, timestamp
        field(Structs(&[I32, I32.since(4), I64])),
    ])),
    I32.since(10), // timeout_ms
];

pub(crate) const METADATA: &[Field] = &[
    field(Structs(&[UUID.since(10), TEXT])),
    BOOL.since(4),           // allow_auto_topic_creation
    BOOL.since(8).until(10), // include_cluster_authorized_operations
    BOOL.since(8),           // include_topic_authorized_operations
];

pub(crate) const OFFSET_COMMIT: &[Field] = &[
    TEXT,          // group_id
    I32,           // generation_id_or_member_epoch
    TEXT,          // member_id
    TEXT.since(7), // group_instance_id
    I64.until(4),  // retention_time_ms
    field(Structs(&[
        TEXT,
        // partition_index, committed_offset, committed_leader_epoch, committed_metadata
        field(Structs(&[I32, I64, I32.since(6), TEXT])),
    ])),
];

pub(crate) const OFFSET_FETCH: &[Field] = &[
    TEXT.until(7), // group_id
    field(Structs(OFFSET_FETCH_TOPIC)).until(7),
    // group_id, member_id, member_epoch, topics
    field(Structs(&[
        TEXT,
        TEXT.since(9),
        I32.since(9),
        field(Structs(OFFSET_FETCH_TOPIC)),
    ]))
    .since(8),
    BOOL.since(7), // require_stable
];

const OFFSET_FETCH_TOPIC: &[Field] = &[TEXT, field(Numbers(4))];

pub(crate) const FIND_COORDINATOR: &[Field] = &[
    TEXT.until(3), // key
    I8.since(1),   // key_type
    field(Texts).since(4),
];

pub(crate) const JOIN_GROUP: &[Field] = &[
    TEXT,          // group_id
    I32,           // session_timeout_ms
    I32.since(1),  // rebalance_timeout_ms
    TEXT,          // member_id
    TEXT.since(5), // group_instance_id
    TEXT,          // protocol_type
    field(Structs(&[TEXT, field(Bytes)])),
    TEXT.since(8), // reason
];

pub(crate) const HEARTBEAT: &[Field] = &[
    TEXT,          // group_id
    I32,           // generation_id
    TEXT,          // member_id
    TEXT.since(3), // group_instance_id
];

pub(crate) const LEAVE_GROUP: &[Field] = &[
    TEXT,          // group_id
    TEXT.until(2), // member_id
    // member_id, group_instance_id, reason
    field(Structs(&[TEXT, TEXT, TEXT.since(5)])).since(3),
];

pub(crate) const SYNC_GROUP: &[Field] = &[
    TEXT,          // group_id
    I32,           // generation_id
    TEXT,          // member_id
    TEXT.since(3), // group_instance_id
    TEXT.since(5), // protocol_type
    TEXT.since(5), // protocol_name
    field(Structs(&[TEXT, field(Bytes)])),
];

pub(crate) const DESCRIBE_GROUPS: &[Field] = &[field(Texts), BOOL.since(3)];

pub(crate) const LIST_GROUPS: &[Field] = &[field(Texts).since(4), field(Texts).since(5)];

pub(crate) const API_VERSIONS: &[Field] = &[TEXT.since(3), TEXT.since(3)];

pub(crate) const CREATE_TOPICS: &[Field] = &[
    field(Structs(&[
        TEXT,
        I32, // num_partitions
        I16, // replication_factor
        field(Structs(&[I32, field(Numbers(4))])),
        field(Structs(&[TEXT, TEXT])),
    ])),
    I32,  // timeout_ms
    BOOL, // validate_only
];

pub(crate) const DELETE_TOPICS: &[Field] = &[
    field(Structs(&[TEXT, UUID])).since(6),
    field(Texts).until(5),
    I32, // timeout_ms
];

pub(crate) const INIT_PRODUCER_ID: &[Field] = &[
    TEXT,         // transactional_id
    I32,          // transaction_timeout_ms
    I64.since(3), // producer_id
    I16.since(3), // producer_epoch
];

pub(crate) const OFFSET_FOR_LEADER_EPOCH: &[Field] = &[
    I32.since(3), // replica_id
    // partition, current_leader_epoch, leader_epoch
    field(Structs(&[TEXT, field(Structs(&[I32, I32, I32]))])),
];

pub(crate) const DESCRIBE_CONFIGS: &[Field] = &[
    // resource_type, resource_name, configuration_keys
    field(Structs(&[I8, TEXT, field(Texts)])),
    BOOL,          // include_synonyms
    BOOL.since(3), // include_documentation
];

pub(crate) const CREATE_PARTITIONS: &[Field] = &[
    field(Structs(&[TEXT, I32, field(Structs(&[field(Numbers(4))]))])),
    I32,  // timeout_ms
    BOOL, // validate_only
];

pub(crate) const INCREMENTAL_ALTER_CONFIGS: &[Field] = &[
    // resource_type, resource_name, configs: name, config_operation, value
    field(Structs(&[I8, TEXT, field(Structs(&[TEXT, I8, TEXT]))])),
    BOOL, // validate_only
];

pub(crate) const DESCRIBE_CLUSTER: &[Field] = &[
    BOOL,          // include_cluster_authorized_operations
    I8.since(1),   // endpoint_type
    BOOL.since(2), // include_fenced_brokers
];

pub(crate) const DESCRIBE_LOG_DIRS: &[Field] = &[field(Structs(&[TEXT, field(Numbers(4))]))];

pub(crate) const DELETE_GROUPS: &[Field] = &[field(Texts)];

pub(crate) const LIST_PARTITION_REASSIGNMENTS: &[Field] = &[
    I32, // timeout_ms
    field(Structs(&[TEXT, field(Numbers(4))])),
];

pub(crate) const OFFSET_DELETE: &[Field] = &[
    TEXT, // group_id
    field(Structs(&[TEXT, field(Structs(&[I32]))])),
];

pub(crate) const DESCRIBE_QUORUM: &[Field] = &[field(Structs(&[TEXT, field(Structs(&[I32]))]))];

pub(crate) const DESCRIBE_TOPIC_PARTITIONS: &[Field] = &[
    field(Structs(&[TEXT])),
    I32,                           // response_partition_limit
    field(Optional(&[TEXT, I32])), // cursor
];
