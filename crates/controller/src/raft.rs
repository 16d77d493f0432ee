//! The quorum on openraft 0.9: everything that knows openraft's types is in this module, so that
//! an upgrade touches one place.
//!
//! * [`types`]: who votes, what is proposed; [`layout`], [`store`], [`disk`]: RocksDB and its
//!   thread; [`log_store`], [`state_machine`]: openraft's traits over it;
//! * [`message`], [`network`], [`service`]: raft over gRPC;
//! * [`quorum`]: the running member in our own words, which the rest of the crate uses.

mod disk;
mod layout;
mod log_store;
mod message;
mod network;
mod quorum;
mod service;
mod state_machine;
mod store;
mod types;

#[cfg(test)]
mod store_tests;

pub(crate) use message::{PreVoteReply, PreVoteRequest, decode_body};
pub(crate) use quorum::{ProposeError, Quorum, QuorumStartError, QuorumState, Role, open_disk};
pub(crate) use service::{RaftService, other_cluster};
pub(crate) use store::StoreError;
pub(crate) use types::{Address, ReplicaKey};
