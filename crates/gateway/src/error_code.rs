//! The only place where a domain error becomes a Kafka error code.
//!
//! No `_` arm: a new error does not compile until someone has decided what clients are told.
//! Whether the write may still happen decides which code is honest (P-6, P-7).

use ottla_broker::{
    ControllerError, FetchError, LeaderHint, ListOffsetsError, ProduceError, groups::GroupError,
};
use ottla_config::AlterBrokerError;
use ottla_metadata::CommandError;
use ottla_records::InvalidBatch;
use ottla_wire::ErrorCode;

use crate::fetch_session::SessionError;

/// A produce that was not acknowledged.
pub(crate) fn produce(error: &ProduceError) -> ErrorCode {
    match error {
        ProduceError::NotLeader { .. }
        // As Kafka: the client refreshes its metadata for this code, and checkers count it "maybe".
        | ProduceError::OutcomeUnknown
        | ProduceError::ShuttingDown => ErrorCode::NotLeaderOrFollower,
        ProduceError::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        // Both mean "nothing was written, come again", without a refresh of metadata.
        ProduceError::NotEnoughReplicas { .. } | ProduceError::Throttled => {
            ErrorCode::NotEnoughReplicas
        }
        ProduceError::NotEnoughReplicasAfterAppend => ErrorCode::NotEnoughReplicasAfterAppend,
        ProduceError::TimedOut => ErrorCode::RequestTimedOut,
        ProduceError::OutOfOrderSequence => ErrorCode::OutOfOrderSequenceNumber,
        ProduceError::InvalidProducerEpoch => ErrorCode::InvalidProducerEpoch,
        ProduceError::InvalidTxnState => ErrorCode::InvalidTxnState,
        ProduceError::NoSpace | ProduceError::Storage => ErrorCode::KafkaStorageError,
        ProduceError::BatchTooLargeForSegment => ErrorCode::RecordListTooLarge,
        ProduceError::Corrupt => ErrorCode::CorruptMessage,
    }
}

/// The leader hint inside a produce error.
pub(crate) fn produce_hint(error: &ProduceError) -> LeaderHint {
    match error {
        ProduceError::NotLeader { leader } => *leader,
        ProduceError::UnknownPartition
        | ProduceError::NotEnoughReplicas { .. }
        | ProduceError::NotEnoughReplicasAfterAppend
        | ProduceError::TimedOut
        | ProduceError::OutOfOrderSequence
        | ProduceError::InvalidProducerEpoch
        | ProduceError::InvalidTxnState
        | ProduceError::NoSpace
        | ProduceError::Storage
        | ProduceError::OutcomeUnknown
        | ProduceError::Throttled
        | ProduceError::BatchTooLargeForSegment
        | ProduceError::Corrupt
        | ProduceError::ShuttingDown => None,
    }
}

/// A batch that was refused before it came near a log.
pub(crate) fn invalid_batch(error: &InvalidBatch) -> ErrorCode {
    match error {
        InvalidBatch::Corrupt(_) => ErrorCode::CorruptMessage,
        InvalidBatch::UnsupportedCompression => ErrorCode::UnsupportedCompressionType,
        InvalidBatch::TooLarge { .. } => ErrorCode::MessageTooLarge,
        InvalidBatch::Invalid(_) | InvalidBatch::InvalidRecords { .. } => ErrorCode::InvalidRecord,
        InvalidBatch::InvalidTimestamp { .. } => ErrorCode::InvalidTimestamp,
    }
}

/// A partition that could not be read. Up to version 5 clients do not know the storage error.
pub(crate) fn fetch(error: &FetchError, version: i16) -> ErrorCode {
    match error {
        FetchError::NotLeader { .. } | FetchError::ShuttingDown => ErrorCode::NotLeaderOrFollower,
        FetchError::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        FetchError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        FetchError::FencedLeaderEpoch { .. } => ErrorCode::FencedLeaderEpoch,
        FetchError::UnknownLeaderEpoch => ErrorCode::UnknownLeaderEpoch,
        FetchError::Storage if version <= 5 => ErrorCode::NotLeaderOrFollower,
        FetchError::Storage => ErrorCode::KafkaStorageError,
    }
}

/// The leader hint inside a fetch error.
pub(crate) fn fetch_hint(error: &FetchError) -> LeaderHint {
    match error {
        FetchError::NotLeader { leader } | FetchError::FencedLeaderEpoch { leader } => *leader,
        FetchError::ShuttingDown
        | FetchError::UnknownPartition
        | FetchError::OffsetOutOfRange { .. }
        | FetchError::UnknownLeaderEpoch
        | FetchError::Storage => None,
    }
}

/// Offsets that could not be listed. Up to version 4 clients do not know OFFSET_NOT_AVAILABLE.
pub(crate) fn list_offsets(error: &ListOffsetsError, version: i16) -> ErrorCode {
    match error {
        ListOffsetsError::NotLeader { .. } => ErrorCode::NotLeaderOrFollower,
        ListOffsetsError::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        ListOffsetsError::FencedLeaderEpoch { .. } => ErrorCode::FencedLeaderEpoch,
        ListOffsetsError::UnknownLeaderEpoch => ErrorCode::UnknownLeaderEpoch,
        ListOffsetsError::OffsetNotAvailable if version < 5 => ErrorCode::LeaderNotAvailable,
        ListOffsetsError::OffsetNotAvailable => ErrorCode::OffsetNotAvailable,
        ListOffsetsError::Storage => ErrorCode::KafkaStorageError,
    }
}

/// A request that the controller did not answer in time.
pub(crate) fn controller(error: &ControllerError) -> ErrorCode {
    match error {
        // Clients of a broker retry this one; they are never told of controllers.
        ControllerError::Unavailable(_) | ControllerError::TimedOut => ErrorCode::RequestTimedOut,
    }
}

/// A fetch session that cannot be used.
pub(crate) fn session(error: SessionError) -> ErrorCode {
    match error {
        SessionError::NotFound => ErrorCode::FetchSessionIdNotFound,
        SessionError::InvalidEpoch => ErrorCode::InvalidFetchSessionEpoch,
        SessionError::TopicIds => ErrorCode::FetchSessionTopicIdError,
    }
}

/// What the controller refused.
pub(crate) fn command(error: &CommandError) -> ErrorCode {
    match error {
        CommandError::StaleBrokerEpoch => ErrorCode::StaleBrokerEpoch,
        CommandError::BrokerNotRegistered(_) => ErrorCode::BrokerIdNotRegistered,
        CommandError::DuplicateBroker(_) => ErrorCode::DuplicateBrokerRegistration,
        CommandError::InconsistentClusterId { .. } => ErrorCode::InconsistentClusterId,
        CommandError::TopicAlreadyExists(_) => ErrorCode::TopicAlreadyExists,
        CommandError::InvalidTopic(_) => ErrorCode::InvalidTopicException,
        CommandError::InvalidPartitions(_) => ErrorCode::InvalidPartitions,
        CommandError::InvalidReplicationFactor(_) => ErrorCode::InvalidReplicationFactor,
        CommandError::InvalidReplicaAssignment(_) => ErrorCode::InvalidReplicaAssignment,
        CommandError::InvalidConfig(_) => ErrorCode::InvalidConfig,
        CommandError::InvalidRequest(_) => ErrorCode::InvalidRequest,
        CommandError::PolicyViolation(_) => ErrorCode::PolicyViolation,
        CommandError::UnknownTopicOrPartition => ErrorCode::UnknownTopicOrPartition,
        CommandError::UnknownTopicId => ErrorCode::UnknownTopicId,
        CommandError::ElectionNotNeeded => ErrorCode::ElectionNotNeeded,
        CommandError::PreferredLeaderNotAvailable => ErrorCode::PreferredLeaderNotAvailable,
        CommandError::EligibleLeadersNotAvailable => ErrorCode::EligibleLeadersNotAvailable,
    }
}

/// A dynamic broker config that was refused.
pub(crate) fn alter_broker(error: &AlterBrokerError) -> ErrorCode {
    match error {
        AlterBrokerError::InvalidRequest(_) => ErrorCode::InvalidRequest,
        AlterBrokerError::InvalidConfig(_) => ErrorCode::InvalidConfig,
    }
}

/// What a group coordinator refused.
pub(crate) fn group(error: &GroupError) -> ErrorCode {
    match error {
        GroupError::CoordinatorNotAvailable => ErrorCode::CoordinatorNotAvailable,
        GroupError::CoordinatorLoadInProgress => ErrorCode::CoordinatorLoadInProgress,
        GroupError::NotCoordinator => ErrorCode::NotCoordinator,
        GroupError::InvalidGroupId => ErrorCode::InvalidGroupId,
        GroupError::UnknownMemberId => ErrorCode::UnknownMemberId,
        GroupError::IllegalGeneration => ErrorCode::IllegalGeneration,
        GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        GroupError::FencedInstanceId => ErrorCode::FencedInstanceId,
        GroupError::InconsistentGroupProtocol => ErrorCode::InconsistentGroupProtocol,
        GroupError::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
        GroupError::GroupMaxSizeReached => ErrorCode::GroupMaxSizeReached,
        GroupError::MemberIdRequired { .. } => ErrorCode::MemberIdRequired,
        GroupError::GroupIdNotFound => ErrorCode::GroupIdNotFound,
        GroupError::NonEmptyGroup => ErrorCode::NonEmptyGroup,
        GroupError::GroupSubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
        GroupError::OffsetMetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
        GroupError::UnknownTopicOrPartition => ErrorCode::UnknownTopicOrPartition,
        GroupError::RecordTooLarge => ErrorCode::UnknownServerError,
    }
}
