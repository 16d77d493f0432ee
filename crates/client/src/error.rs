//! Why a request got no answer, and whether it may have been carried out all the same.

use ottla_types::BrokerId;
use ottla_wire::{ClientCodecError, ErrorCode};

/// One request to one broker got no usable answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RequestError {
    /// No connection could be made; nothing was sent.
    #[error("connect to {address}: {reason}")]
    Connect {
        /// Where to.
        address: String,
        /// What went wrong.
        reason: String,
    },
    /// The broker is not in the cluster's metadata; nothing was sent.
    #[error("broker {0} is not known")]
    UnknownBroker(BrokerId),
    /// The deadline passed before the request was sent.
    #[error("the deadline passed before the request was sent")]
    NotSentInTime,
    /// The connection ended with the request under way: it may have been carried out.
    #[error("connection to {address} lost: {reason}")]
    Disconnected {
        /// The broker's address.
        address: String,
        /// Why it ended.
        reason: String,
    },
    /// No answer came in time: the request may have been carried out.
    #[error("no answer from {address} in time")]
    TimedOut {
        /// The broker's address.
        address: String,
    },
    /// The broker does not speak any version of this request that we speak; nothing was sent.
    #[error("{api} is not served by {address} in a version known here")]
    UnsupportedVersion {
        /// Name of the request.
        api: &'static str,
        /// The broker's address.
        address: String,
    },
    /// The request cannot be encoded (nothing was sent), or the answer not decoded.
    #[error(transparent)]
    Codec(#[from] ClientCodecError),
    /// The client is closed; nothing was sent.
    #[error("the client is closed")]
    Closed,
}

impl RequestError {
    /// Whether the broker may have carried the request out.
    #[must_use]
    pub const fn may_have_happened(&self) -> bool {
        match self {
            RequestError::Disconnected { .. } | RequestError::TimedOut { .. } => true,
            RequestError::Codec(codec) => matches!(codec, ClientCodecError::Decode(_)),
            RequestError::Connect { .. }
            | RequestError::UnknownBroker(_)
            | RequestError::NotSentInTime
            | RequestError::UnsupportedVersion { .. }
            | RequestError::Closed => false,
        }
    }

    /// Whether another attempt, perhaps with another broker, may succeed.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        match self {
            RequestError::Connect { .. }
            | RequestError::UnknownBroker(_)
            | RequestError::Disconnected { .. }
            | RequestError::TimedOut { .. } => true,
            RequestError::NotSentInTime
            | RequestError::UnsupportedVersion { .. }
            | RequestError::Codec(_)
            | RequestError::Closed => false,
        }
    }
}

/// The code of a number on the wire; one that is newer than this client reads as unknown.
pub(crate) fn code(number: i16) -> ErrorCode {
    ErrorCode::from_code(number).unwrap_or(ErrorCode::UnknownServerError)
}

/// `Ok` for no error.
pub(crate) fn check(number: i16) -> Result<(), ErrorCode> {
    match code(number) {
        ErrorCode::None => Ok(()),
        error => Err(error),
    }
}

/// Whether the error says that what is known of leaders or topics is out of date.
pub(crate) const fn is_stale_metadata(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::NotLeaderOrFollower
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::ReplicaNotAvailable
            | ErrorCode::UnknownTopicOrPartition
            | ErrorCode::UnknownTopicId
            | ErrorCode::InconsistentTopicId
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::UnknownLeaderEpoch
            | ErrorCode::KafkaStorageError
            | ErrorCode::ListenerNotFound
            | ErrorCode::NetworkException
            | ErrorCode::OffsetNotAvailable
    )
}
