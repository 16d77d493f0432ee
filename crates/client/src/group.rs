//! What a client needs of a group's coordinator, shared by consumer and admin.

mod commit;
mod coordinator;

pub use commit::CommittedOffset;
pub(crate) use commit::{Committer, commit, committed};
pub(crate) use coordinator::Coordinator;

use ottla_wire::ErrorCode;

use crate::error::RequestError;

/// Why the coordinator did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GroupError {
    /// It refuses.
    #[error("{0}")]
    Refused(ErrorCode),
    /// No coordinator answered in time; what was asked may have been done.
    #[error("no coordinator answered in time{}", .0.as_deref().map(|e| format!(", last: {e}")).unwrap_or_default())]
    NotInTime(Option<String>),
    /// The request cannot be made.
    #[error(transparent)]
    Request(RequestError),
}
