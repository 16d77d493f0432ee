//! Offsets by time and by epoch: ListOffsets and OffsetForLeaderEpoch.

use std::sync::Arc;

use tokio::time::Instant;

use ottla_replication::lineage;
use ottla_types::{LeaderEpoch, Offset, PartitionId};

use crate::{
    api::{FoundOffset, Isolation, ListOffsetsError, OffsetQuery, ReplicaRole},
    confirm::CONFIRMATION_WAIT,
    handle::BrokerHandle,
    partition::view::View,
};

impl BrokerHandle {
    /// Finds one offset of a partition led here; `None` if no record matches. The end of the log is
    /// told only once the leadership has been confirmed, or an end told before by a later leader
    /// could seem to go back (P-42, P-29).
    ///
    /// # Errors
    /// See [`ListOffsetsError`].
    pub async fn list_offset(
        &self,
        id: PartitionId,
        current_leader_epoch: Option<LeaderEpoch>,
        query: OffsetQuery,
        isolation: Isolation,
    ) -> Result<Option<FoundOffset>, ListOffsetsError> {
        let view = self.led_view(id, current_leader_epoch)?;
        let upper = match isolation {
            Isolation::ReadUncommitted => view.high_watermark,
            Isolation::ReadCommitted => view.last_stable_offset(),
        };
        let epoch_of = |offset: Offset| lineage::epoch_at(&view.epochs, offset);
        if query == OffsetQuery::Earliest {
            let offset = view.log_start_offset;
            let leader_epoch = epoch_of(offset);
            return Ok(Some(FoundOffset {
                offset,
                timestamp: None,
                leader_epoch,
            }));
        }
        // P-42: what a new leader knows as committed may be less than clients were told before.
        if view
            .epoch_start_offset
            .is_some_and(|start| view.high_watermark < start)
        {
            return Err(ListOffsetsError::OffsetNotAvailable);
        }
        if query == OffsetQuery::Latest {
            let deadline = Instant::now() + CONFIRMATION_WAIT;
            if !self
                .confirm_leadership(id, view.leader_epoch, deadline)
                .await
            {
                let leader = None;
                return Err(ListOffsetsError::NotLeader { leader });
            }
            return Ok(Some(FoundOffset {
                offset: upper,
                timestamp: None,
                leader_epoch: Some(view.leader_epoch),
            }));
        }
        let Some(reader) = view.reader.clone() else {
            return Err(ListOffsetsError::Storage);
        };
        let found = self
            .shared
            .io_pool
            .run(move || match query {
                OffsetQuery::Timestamp(timestamp) => reader.offset_for_timestamp(timestamp, upper),
                OffsetQuery::MaxTimestamp | OffsetQuery::Latest | OffsetQuery::Earliest => {
                    reader.max_timestamp(upper)
                }
            })
            .await;
        match found {
            Some(Ok(Some((offset, timestamp, epoch)))) => Ok(Some(FoundOffset {
                offset,
                timestamp: Some(timestamp),
                leader_epoch: epoch.or_else(|| epoch_of(offset)),
            })),
            Some(Ok(None)) => Ok(None),
            Some(Err(_)) | None => Err(ListOffsetsError::Storage),
        }
    }

    /// Where an epoch ends in a log led here; `None` if the epoch is newer than any known.
    ///
    /// # Errors
    /// See [`ListOffsetsError`].
    pub async fn offset_for_leader_epoch(
        &self,
        id: PartitionId,
        current_leader_epoch: Option<LeaderEpoch>,
        asked: LeaderEpoch,
    ) -> Result<Option<(LeaderEpoch, Offset)>, ListOffsetsError> {
        let view = self.led_view(id, current_leader_epoch)?;
        Ok(lineage::end_offset_for_epoch(
            &view.epochs,
            view.log_end_offset,
            asked,
        ))
    }

    fn led_view(
        &self,
        id: PartitionId,
        current_leader_epoch: Option<LeaderEpoch>,
    ) -> Result<Arc<View>, ListOffsetsError> {
        let Some(handle) = self.shared.registry.get(id) else {
            return Err(match self.shared.image.load().partition(id) {
                Some(record) => ListOffsetsError::NotLeader {
                    leader: record.leader.map(|leader| (leader, record.leader_epoch)),
                },
                None => ListOffsetsError::UnknownPartition,
            });
        };
        let view = handle.view.load_full();
        if view.failed {
            return Err(ListOffsetsError::Storage);
        }
        if view.role != ReplicaRole::Leader {
            return Err(ListOffsetsError::NotLeader {
                leader: view.leader,
            });
        }
        match current_leader_epoch {
            Some(asked) if asked < view.leader_epoch => Err(ListOffsetsError::FencedLeaderEpoch {
                leader: view.leader,
            }),
            Some(asked) if asked > view.leader_epoch => Err(ListOffsetsError::UnknownLeaderEpoch),
            Some(_) | None => Ok(view),
        }
    }
}
