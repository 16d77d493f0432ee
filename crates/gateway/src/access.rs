//! Which operations a client may do on what, as the bit fields that some answers carry.
//!
//! No authorizer is served yet, so everyone may do everything that the resource supports, as in a
//! Kafka without one.

/// The client did not ask.
pub(crate) const NOT_ASKED: i32 = i32::MIN;

const READ: i32 = 1 << 3;
const WRITE: i32 = 1 << 4;
const CREATE: i32 = 1 << 5;
const DELETE: i32 = 1 << 6;
const ALTER: i32 = 1 << 7;
const DESCRIBE: i32 = 1 << 8;
const CLUSTER_ACTION: i32 = 1 << 9;
const DESCRIBE_CONFIGS: i32 = 1 << 10;
const ALTER_CONFIGS: i32 = 1 << 11;
const IDEMPOTENT_WRITE: i32 = 1 << 12;

/// On a topic.
pub(crate) const fn topic_operations(asked: bool) -> i32 {
    let all = READ | WRITE | CREATE | DELETE | ALTER | DESCRIBE | DESCRIBE_CONFIGS | ALTER_CONFIGS;
    if asked { all } else { NOT_ASKED }
}

/// On the cluster.
pub(crate) const fn cluster_operations(asked: bool) -> i32 {
    let all = CREATE
        | CLUSTER_ACTION
        | DESCRIBE_CONFIGS
        | ALTER_CONFIGS
        | IDEMPOTENT_WRITE
        | ALTER
        | DESCRIBE;
    if asked { all } else { NOT_ASKED }
}

/// On a group.
pub(crate) const fn group_operations(asked: bool) -> i32 {
    if asked {
        READ | DESCRIBE | DELETE | DESCRIBE_CONFIGS | ALTER_CONFIGS
    } else {
        NOT_ASKED
    }
}
