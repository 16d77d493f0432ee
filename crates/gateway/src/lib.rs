//! Kafka connections: request, broker call, response.
//!
//! The gateway is thin: it decodes, checks what can be checked without a log, calls the broker in
//! domain terms and encodes the answer. It holds no partition state. A produce enters at
//! `connection.rs`, goes to `handlers/produce.rs` and from there to the broker.
//!
//! # Invariants
//! * Responses leave a connection in the order of its requests; a produce request's place in every
//!   log is fixed before the next request of its connection is looked at.
//! * Everything a client can make us hold is bounded: requests and bytes a connection, bytes over
//!   all connections, connections an address and in total.
//! * A domain error becomes a Kafka error code in `error_code.rs` and nowhere else.

mod access;
mod auto_create;
mod clock;
mod config;
mod config_layers;
mod connection;
mod context;
mod endpoints;
mod error_code;
mod fetch_session;
mod gateway;
mod handlers;
mod leader_hint;
mod limits;
mod metrics;
mod outbox;
mod topic_names;
mod topic_rules;

pub use config::GatewayConfig;
pub use gateway::{Gateway, ListenerName};
pub use metrics::{ApiSnapshot, GatewayMetrics, GatewaySnapshot, LATENCY_BUCKETS_SECONDS};
