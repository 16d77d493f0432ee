//! Takes ISR proposals of many partitions to the controller, and brings each one's answer back.
//!
//! # Invariants
//! * Each proposal is sent once and answered once; anything but a clear decision is `Unknown`,
//!   and the partition sends it again.
//! * An answer reaches the partition only after the image has: configs before it bind.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::{debug, warn};

use ottla_metadata::{AlterPartition, AlterPartitionError, Command, Outcome, PartitionRecord};
use ottla_replication::{IsrAnswer, IsrProposal};
use ottla_types::{LeaderEpoch, PartitionId};

use crate::{
    log_reporter::LogReporter,
    metadata_link::LinkHandle,
    shard::{env::Router, input::Input},
};

/// How long one attempt may take before its outcome counts as unknown.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// Proposals in one command.
const BATCH_MAX: usize = 4_096;

/// Where shards leave their proposals.
#[derive(Default)]
pub(crate) struct IsrProposer {
    queue: Mutex<Vec<(PartitionId, IsrProposal)>>,
    notify: Notify,
    /// What goes to the controller beside proposals.
    pub(crate) logs: LogReporter,
}

impl IsrProposer {
    pub(crate) fn propose(&self, id: PartitionId, proposal: IsrProposal) {
        self.queue.lock().push((id, proposal));
        self.notify.notify_one();
    }

    /// The task.
    pub(crate) async fn run(&self, link: LinkHandle, router: Arc<Router>) {
        tokio::join!(self.run_proposals(&link, &router), self.logs.run(&link));
    }

    /// One command in flight, everything that gathered meanwhile in the next.
    async fn run_proposals(&self, link: &LinkHandle, router: &Router) {
        loop {
            let batch = {
                let mut queue = self.queue.lock();
                let count = queue.len().min(BATCH_MAX);
                queue.drain(..count).collect::<Vec<_>>()
            };
            if batch.is_empty() {
                self.notify.notified().await;
                continue;
            }
            self.send(link, router, batch).await;
        }
    }

    async fn send(
        &self,
        link: &LinkHandle,
        router: &Router,
        batch: Vec<(PartitionId, IsrProposal)>,
    ) {
        let partitions = batch.iter().map(|(id, proposal)| AlterPartition {
            id: *id,
            leader_epoch: proposal.leader_epoch,
            partition_epoch: proposal.partition_epoch,
            isr: proposal.isr.clone(),
            recovered: proposal.recovered,
        });
        let partitions: Vec<AlterPartition> = partitions.collect();
        let decided = match link.broker_epoch() {
            Some(broker_epoch) => {
                let command = Command::AlterPartition {
                    broker_id: link.broker_id(),
                    broker_epoch,
                    partitions,
                    live: std::collections::BTreeSet::new(),
                };
                link.execute_once(command, ATTEMPT_TIMEOUT).await
            }
            None => None,
        };
        let mut answers = match decided {
            Some((index, Outcome::AlteredPartitions(answers))) => {
                let reached = link.wait_for_image(index, ATTEMPT_TIMEOUT).await;
                if reached { answers } else { Vec::new() }
            }
            Some((_, outcome)) => {
                debug!(?outcome, "isr proposals refused");
                Vec::new()
            }
            None => Vec::new(),
        };
        for (id, proposal) in batch {
            let at = answers.iter().position(|(answered, _)| *answered == id);
            let answer = at.map(|at| answers.swap_remove(at).1);
            answer_one(router, id, proposal.leader_epoch, answer);
        }
    }
}

fn answer_one(
    router: &Router,
    id: PartitionId,
    leader_epoch: LeaderEpoch,
    answer: Option<Result<PartitionRecord, AlterPartitionError>>,
) {
    let answer = match answer {
        Some(Ok(record)) => IsrAnswer::Committed {
            partition_epoch: record.partition_epoch,
            isr: record.isr,
        },
        Some(Err(
            error @ (AlterPartitionError::IneligibleReplica(_) | AlterPartitionError::Invalid(_)),
        )) => {
            warn!(%id, %error, "isr proposal refused");
            IsrAnswer::Refused
        }
        Some(Err(
            AlterPartitionError::UnknownPartition
            | AlterPartitionError::FencedLeaderEpoch { .. }
            | AlterPartitionError::InvalidUpdateVersion { .. },
        )) => IsrAnswer::Outdated,
        Some(Err(AlterPartitionError::ControllerBehind)) | None => IsrAnswer::Unknown,
    };
    router.of(id).post(Input::IsrAnswered {
        id,
        leader_epoch,
        answer,
    });
}
