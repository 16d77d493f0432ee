//! gRPC messages and stubs between Ottla nodes, generated from `proto/`.
//!
//! Knows nothing of Kafka's protocol. Conversions to and from the words of `ottla-types` are in
//! [`convert`].

pub mod convert;

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::unwrap_used,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod raft {
    //! Between controllers.
    tonic::include_proto!("ottla.raft.v1");
}

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::unwrap_used,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod controller {
    //! Brokers to the active controller.
    tonic::include_proto!("ottla.controller.v1");
}

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::unwrap_used,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod replication {
    //! Followers to leaders.
    tonic::include_proto!("ottla.replication.v1");
}
