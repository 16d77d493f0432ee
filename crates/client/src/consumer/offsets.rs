//! Offsets, as the user sets and asks for them: positions, commits, seeking, looking up by time.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{
    Consumer,
    partition::{PartitionState, Phase, Position},
    record::ConsumerError,
};
use crate::{
    group::{self, CommittedOffset, Committer, Coordinator, GroupError},
    leaders::PartitionError,
    metadata::TopicPartition,
    offsets::{self, ListedOffset, OffsetSpec},
};

use ottla_wire::ErrorCode;

impl Consumer {
    /// The next offset that a poll will return; `None` while it is being looked for.
    #[must_use]
    pub fn position(&self, partition: &TopicPartition) -> Option<i64> {
        let position = self.partitions.get(partition)?.position()?;
        Some(position.offset)
    }

    /// First offset not yet readable, as the last fetch said.
    #[must_use]
    pub fn high_watermark(&self, partition: &TopicPartition) -> Option<i64> {
        self.partitions.get(partition)?.high_watermark
    }

    /// End for readers of committed records, as the last fetch said.
    #[must_use]
    pub fn last_stable_offset(&self, partition: &TopicPartition) -> Option<i64> {
        self.partitions.get(partition)?.last_stable_offset
    }

    /// First offset still readable, as the last fetch said.
    #[must_use]
    pub fn log_start_offset(&self, partition: &TopicPartition) -> Option<i64> {
        self.partitions.get(partition)?.log_start_offset
    }

    /// Goes on reading at this offset.
    ///
    /// # Errors
    /// The partition is not assigned.
    pub fn seek(&mut self, partition: &TopicPartition, offset: i64) -> Result<(), ConsumerError> {
        self.restart(partition, Phase::Ready(Position::at(offset, None)))
    }

    /// Goes on reading at the beginning, at the end, or at a time.
    ///
    /// # Errors
    /// The partition is not assigned.
    pub fn seek_to(
        &mut self,
        partition: &TopicPartition,
        to: OffsetSpec,
    ) -> Result<(), ConsumerError> {
        self.restart(partition, Phase::NeedsOffset(to))
    }

    /// Returns no records of the partition until [`Consumer::resume`].
    ///
    /// # Errors
    /// The partition is not assigned.
    pub fn pause(&mut self, partition: &TopicPartition) -> Result<(), ConsumerError> {
        self.state(partition)?.is_paused = true;
        Ok(())
    }

    /// Returns records of the partition again.
    ///
    /// # Errors
    /// The partition is not assigned.
    pub fn resume(&mut self, partition: &TopicPartition) -> Result<(), ConsumerError> {
        self.state(partition)?.is_paused = false;
        Ok(())
    }

    fn restart(&mut self, partition: &TopicPartition, phase: Phase) -> Result<(), ConsumerError> {
        let generation = self.generations.next();
        self.state(partition)?.restart(phase, generation);
        Ok(())
    }

    fn state(&mut self, partition: &TopicPartition) -> Result<&mut PartitionState, ConsumerError> {
        let state = self.partitions.get_mut(partition);
        state.ok_or(ConsumerError::Misused("the partition is not assigned"))
    }

    /// Commits what polls have returned so far.
    ///
    /// # Errors
    /// Not committed, or not known to be.
    pub async fn commit(&mut self) -> Result<(), ConsumerError> {
        self.commit_until(Instant::now() + self.config.client.request_timeout)
            .await
    }

    /// Commits these offsets: the next ones to be read.
    ///
    /// # Errors
    /// Not committed, or not known to be.
    pub async fn commit_offsets(
        &mut self,
        offsets: &BTreeMap<TopicPartition, CommittedOffset>,
    ) -> Result<(), ConsumerError> {
        let deadline = Instant::now() + self.config.client.request_timeout;
        self.end_background_commit().await;
        commit(self.coordinator()?, &self.committer()?, offsets, deadline).await
    }

    pub(super) async fn commit_until(&mut self, deadline: Instant) -> Result<(), ConsumerError> {
        self.end_background_commit().await;
        let offsets = self.positions();
        if offsets.is_empty() {
            return Ok(());
        }
        commit(self.coordinator()?, &self.committer()?, &offsets, deadline).await
    }

    /// An automatic commit that is still retried must not come after a newer one.
    async fn end_background_commit(&mut self) {
        if let Some(task) = &mut self.committing {
            task.abort();
            // Aborted or finished: either way it sends nothing more.
            let _ = task.await;
        }
        self.committing = None;
    }

    fn coordinator(&self) -> Result<&Coordinator, ConsumerError> {
        let coordinator = self.coordinator.as_ref();
        coordinator.ok_or(ConsumerError::Misused(
            "offsets are committed to a group: none is set",
        ))
    }

    /// Who commits. A member that is in no generation must not: as nobody in particular it could
    /// overwrite what others have committed since.
    fn committer(&self) -> Result<Committer, ConsumerError> {
        match &self.membership {
            Some(membership) if membership.generation < 0 => Err(ConsumerError::NotAMember),
            Some(membership) => Ok(membership.committer()),
            None => Ok(Committer::outside()),
        }
    }

    fn positions(&self) -> BTreeMap<TopicPartition, CommittedOffset> {
        let positions = self.partitions.iter().filter_map(|(partition, state)| {
            let position = state.position()?;
            let committed = CommittedOffset {
                leader_epoch: position.offset_epoch,
                ..CommittedOffset::new(position.offset)
            };
            Some((partition.clone(), committed))
        });
        positions.collect()
    }

    /// Commits in the background when it is time.
    pub(super) fn auto_commit(&mut self, now: Instant) {
        let (Some(every), Some(due)) = (self.config.auto_commit, self.next_auto_commit) else {
            return;
        };
        let Some(coordinator) = self.coordinator.clone() else {
            return;
        };
        // Nothing is committed in the middle of a rebalance: the positions have been.
        let is_member = self.membership.as_ref().is_none_or(|membership| {
            membership.stage == super::membership::Stage::Member && membership.leaving.is_empty()
        });
        if now < due || !is_member {
            return;
        }
        self.next_auto_commit = Some(now + every);
        let is_under_way = self.committing.as_ref();
        if is_under_way.is_some_and(|task| !task.is_finished()) {
            return;
        }
        let offsets = self.positions();
        if offsets.is_empty() {
            return;
        }
        let Ok(committer) = self.committer() else {
            return;
        };
        let deadline = now + self.config.client.request_timeout;
        let task = self.spawn_silent(async move {
            if let Err(error) = commit(&coordinator, &committer, &offsets, deadline).await {
                tracing::debug!(%error, "automatic commit failed");
            }
        });
        self.committing = Some(task);
    }

    /// What the group has committed; partitions without an offset are left out.
    ///
    /// # Errors
    /// The coordinator did not say.
    pub async fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, ConsumerError> {
        let deadline = Instant::now() + self.config.client.request_timeout;
        Ok(group::committed(self.coordinator()?, Some(partitions), deadline).await?)
    }

    /// Offsets by time, or of the beginning or the end.
    ///
    /// # Errors
    /// The first partition whose leader did not say.
    pub async fn list_offsets(
        &self,
        wanted: BTreeMap<TopicPartition, OffsetSpec>,
        timeout: Duration,
    ) -> Result<BTreeMap<TopicPartition, ListedOffset>, ConsumerError> {
        let deadline = Instant::now() + timeout;
        let answers = offsets::list_offsets(&self.cluster, wanted, self.config.isolation, deadline);
        let mut found = BTreeMap::new();
        for (partition, answer) in answers.await {
            let offset = answer.map_err(|error: PartitionError| ConsumerError::Partition {
                partition: partition.clone(),
                error,
            })?;
            found.insert(partition, offset);
        }
        Ok(found)
    }
}

async fn commit(
    coordinator: &Coordinator,
    committer: &Committer,
    offsets: &BTreeMap<TopicPartition, CommittedOffset>,
    deadline: Instant,
) -> Result<(), ConsumerError> {
    let results = group::commit(coordinator, committer, offsets, deadline).await;
    let results = results.map_err(|error| match error {
        GroupError::Refused(
            ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration | ErrorCode::FencedInstanceId,
        ) => ConsumerError::NotAMember,
        other => ConsumerError::Group(other),
    })?;
    for (partition, result) in results {
        result.map_err(|code| ConsumerError::Commit { partition, code })?;
    }
    Ok(())
}
