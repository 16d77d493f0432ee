//! Who may commit offsets, and which of them are on their way into the log.

use ottla_types::PartitionIndex;

use crate::{CommitRequest, CommittedTopic, GroupError};

use super::{Group, GroupState, Now};

impl Group {
    /// Whether the request may move offsets now (G-2); a member that may has shown life.
    pub(crate) fn check_commit(
        &mut self,
        now: Now,
        request: &CommitRequest,
    ) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        if request.generation.is_none() && self.state == GroupState::Empty {
            // An administrator, or a consumer that assigns its own partitions.
            return Ok(());
        }
        let anonymous = request.generation.is_none()
            && request.member_id.is_none()
            && request.group_instance_id.is_none();
        if anonymous {
            return Err(GroupError::UnknownMemberId);
        }
        let member_id = request.member_id.as_deref().unwrap_or_default();
        self.check_member(member_id, request.group_instance_id.as_deref())?;
        self.check_generation(request.generation)?;
        if self.state == GroupState::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        if let Some(member) = self.members.get_mut(member_id) {
            member.alive(now.monotonic);
        }
        Ok(())
    }

    /// Offsets that were accepted and are on their way into the log.
    pub(crate) fn add_pending_offsets(&mut self, topics: &[CommittedTopic]) {
        for key in accepted(topics) {
            *self.pending_offsets.entry(key).or_default() += 1;
        }
    }

    /// They arrived, or did not.
    pub(crate) fn remove_pending_offsets(&mut self, topics: &[CommittedTopic]) {
        for key in accepted(topics) {
            if let Some(count) = self.pending_offsets.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.pending_offsets.remove(&key);
                }
            }
        }
    }

    pub(crate) fn pending_offsets(&self) -> impl Iterator<Item = &(String, PartitionIndex)> {
        self.pending_offsets.keys()
    }

    pub(crate) fn has_pending_offset(&self, topic: &str, partition: PartitionIndex) -> bool {
        self.pending_offsets
            .contains_key(&(topic.to_owned(), partition))
    }
}

fn accepted(topics: &[CommittedTopic]) -> impl Iterator<Item = (String, PartitionIndex)> {
    topics.iter().flat_map(|topic| {
        let accepted = topic.partitions.iter().filter(|(_, result)| result.is_ok());
        accepted.map(|(partition, _)| (topic.name.clone(), *partition))
    })
}
