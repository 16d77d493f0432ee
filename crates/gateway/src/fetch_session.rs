//! Fetch sessions (KIP-227): what a client wants to read, remembered between its requests.
//!
//! Pure but for the locks around it: time and fresh ids come in. A session is used by one request
//! at a time; a second one with the same epoch is told that its epoch is wrong.
//!
//! # Invariants
//! * A request and a session agree on topic ids or names, never a mix.
//! * After each request the expected epoch rises by one; after 2147483647 comes 1.
//! * There are never more than `slots` sessions; a new one may take the place of one that has been
//!   idle for two minutes, or of a smaller one.

mod cache;
mod session;

pub(crate) use cache::{FetchSessions, SessionRequest};
pub(crate) use session::{PartitionKey, Told, Wanted};

/// Why a request's session cannot be used; answered at the top level, without partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionError {
    /// No such session: evicted, or never here.
    NotFound,
    /// Not the epoch that comes next.
    InvalidEpoch,
    /// Names where ids were used, or the reverse.
    TopicIds,
}
