//! The controller quorum: who is alive, who leads what, decided once and durably.
//!
//! # Invariants
//! * Whatever is answered was committed by a majority first and is on their disks (C-5, C-10).
//! * One active controller per term (C-1); being cut off from a majority ends it (B-10).
//! * `broker` and `controller` meet only in gRPC messages, even in one process.
//!
//! Start at [`Controller::start`]. `raft` is the only module that knows openraft; `cluster` holds
//! the applied state; `election`, `contact` and `formation` decide when to stand and who votes;
//! `leadership` says whether this controller is active, and `sessions` who of the brokers lives;
//! `service` is what brokers call.

mod balance;
mod changes;
mod cluster;
mod config;
mod contact;
mod controller;
mod election;
mod formation;
mod handle;
mod leadership;
mod peers;
mod raft;
mod service;
mod sessions;
mod tally;

#[cfg(test)]
mod cluster_tests;

pub use config::{ControllerConfig, QuorumTiming, SnapshotPolicy, Voter};
pub use controller::{Controller, StartError};
pub use handle::{ControllerHandle, ControllerMetrics};
