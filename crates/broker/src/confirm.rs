//! Whether this broker still leads a partition, for answers that grant something (C-12).

use std::time::Duration;

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use ottla_metadata::Command;
use ottla_types::{LeaderEpoch, PartitionId};

use crate::{handle::BrokerHandle, partition::Confirmation, shard::input::Input};

/// How long a confirmation may take. Within it a dead member of the ISR has been fenced.
pub(crate) const CONFIRMATION_WAIT: Duration = Duration::from_secs(5);

/// How long the in-sync replicas are asked before the controller is.
const ROUND_WAIT: Duration = Duration::from_secs(1);

impl BrokerHandle {
    /// True if this broker led the partition in `leader_epoch` at some instant after the call: then
    /// nothing was committed in a later epoch before it. False if it did not, or if nobody who
    /// knows has said so before the deadline.
    pub async fn confirm_leadership(
        &self,
        id: PartitionId,
        leader_epoch: LeaderEpoch,
        deadline: Instant,
    ) -> bool {
        let (reply, answer) = oneshot::channel();
        self.shared.router.of(id).post(Input::Confirm {
            id,
            leader_epoch,
            reply,
        });
        let round = deadline.min(Instant::now() + ROUND_WAIT);
        match timeout_at(round, answer).await {
            Ok(Ok(Confirmation::Leads)) => true,
            // A member that answers nothing, and lacks nothing, may stay in the ISR for long.
            Ok(Ok(Confirmation::AskController)) | Err(_) => {
                self.confirm_with_controller(id, leader_epoch, deadline)
                    .await
            }
            // A shard that has ended, or that has no such partition, drops the question.
            Ok(Ok(Confirmation::NotLeader) | Err(_)) => false,
        }
    }

    /// An image that includes a command committed after the call says who leads.
    async fn confirm_with_controller(
        &self,
        id: PartitionId,
        leader_epoch: LeaderEpoch,
        deadline: Instant,
    ) -> bool {
        let nothing = Command::AlterConfigs {
            alterations: Vec::new(),
            validate_only: true,
        };
        let Ok((index, _)) = self.execute(nothing, deadline).await else {
            return false;
        };
        self.wait_for_image(index, deadline).await
            && self.image().partition(id).is_some_and(|record| {
                record.leader == Some(self.broker_id()) && record.leader_epoch == leader_epoch
            })
    }
}
