//! Why a group request was refused.

/// One list for all group APIs: Kafka's clients treat these errors alike wherever they appear.
///
/// Unless said otherwise nothing was changed. A request answered with one of the first three may
/// still take effect if its record had already been appended; repeating it is safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The internal topic has no leader here yet, or its replicas did not store the record in time.
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    /// The coordinator has just moved and has not yet applied its whole log (G-6).
    #[error("the coordinator is loading the group")]
    CoordinatorLoadInProgress,
    /// Another broker coordinates this group.
    #[error("this broker does not coordinate the group")]
    NotCoordinator,
    /// A group id is missing.
    #[error("the group id is empty")]
    InvalidGroupId,
    /// The member is not, or no longer, in the group.
    #[error("unknown member id")]
    UnknownMemberId,
    /// The member speaks of another generation (G-2).
    #[error("not the current generation")]
    IllegalGeneration,
    /// The member must join again.
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    /// Another member took over this `group.instance.id` (KIP-345).
    #[error("the group instance id is held by another member")]
    FencedInstanceId,
    /// No protocol, or not the protocol type, in common with the group.
    #[error("inconsistent group protocol")]
    InconsistentGroupProtocol,
    /// Outside `group.min.session.timeout.ms` and `group.max.session.timeout.ms`.
    #[error("the session timeout is out of bounds")]
    InvalidSessionTimeout,
    /// `group.max.size` is reached.
    #[error("the group is full")]
    GroupMaxSizeReached,
    /// Join again under this id (KIP-394).
    #[error("join again as member {member_id:?}")]
    MemberIdRequired {
        /// The id that was given to the member.
        member_id: String,
    },
    /// No such group.
    #[error("no such group")]
    GroupIdNotFound,
    /// The group has members.
    #[error("the group is not empty")]
    NonEmptyGroup,
    /// A member subscribes to the topic.
    #[error("the group is subscribed to the topic")]
    GroupSubscribedToTopic,
    /// `offset.metadata.max.bytes` is exceeded.
    #[error("the offset's metadata is too large")]
    OffsetMetadataTooLarge,
    /// No such topic or partition.
    #[error("unknown topic or partition")]
    UnknownTopicOrPartition,
    /// What would have to be stored does not fit one batch of the internal topic.
    #[error("the record is too large")]
    RecordTooLarge,
}
