//! Commands from brokers: checked, completed with what only the active controller knows, proposed,
//! answered once applied.
//!
//! A caller that leaves stops the waiting, not the proposal.

use std::{collections::BTreeSet, time::Duration};

use tonic::Status;

use ottla_metadata::{Command, ConfigResource};
use ottla_rpc::controller::{Applied, execute_reply};
use ottla_types::BrokerId;

use super::ControllerService;
use crate::raft::ProposeError;

/// Longest wait for a decision; without a quorum it never comes.
const DECISION_LIMIT: Duration = Duration::from_secs(10);

impl ControllerService {
    pub(super) async fn propose(&self, body: &[u8]) -> Result<execute_reply::Result, Status> {
        let mut command: Command = ottla_metadata::decode(body)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if only_for_controllers(&command) {
            return Err(Status::invalid_argument("only a controller proposes this"));
        }
        let Some(active) = self.active().await else {
            return Ok(execute_reply::Result::NotActive(self.hint()));
        };
        let Ok(permit) = self.permits.clone().try_acquire_owned() else {
            return Ok(unavailable(
                "too many proposals are under way; nothing was decided",
            ));
        };
        if let Some(live) = live_of(&mut command) {
            self.sessions.settled().await;
            *live = self.sessions.live();
        }
        let (quorum, ended) = (self.quorum.clone(), active.ended.clone());
        let proposal = self.tasks.spawn(async move {
            let _permit = permit;
            tokio::select! {
                decided = tokio::time::timeout(DECISION_LIMIT, quorum.propose(command)) => {
                    decided.ok()
                }
                () = ended.cancelled() => None,
            }
        });
        Ok(match proposal.await {
            Ok(Some(Ok((index, Some(outcome))))) => execute_reply::Result::Applied(Applied {
                index,
                outcome: ottla_metadata::encode(&outcome).into(),
            }),
            Ok(Some(Err(ProposeError::NotLeader { leader }))) => {
                execute_reply::Result::NotActive(self.hint_of(leader))
            }
            Ok(Some(Err(error))) => unavailable(&format!("{error}; the outcome is not known")),
            Ok(Some(Ok((_, None))) | None) | Err(_) => {
                unavailable("the leadership ended or the quorum is slow; the outcome is not known")
            }
        })
    }
}

fn unavailable(reason: &str) -> execute_reply::Result {
    execute_reply::Result::Unavailable(reason.to_owned())
}

/// What begins a cluster, or speaks of a controller's own file.
fn only_for_controllers(command: &Command) -> bool {
    match command {
        Command::Bootstrap { .. } => true,
        Command::AlterConfigs { alterations, .. } => alterations
            .iter()
            .any(|alteration| alteration.resource == ConfigResource::ControllerFile),
        _ => false,
    }
}

/// The field that the active controller fills in, whatever the sender wrote there.
fn live_of(command: &mut Command) -> Option<&mut BTreeSet<BrokerId>> {
    match command {
        Command::RegisterBroker(registration) => Some(&mut registration.live),
        Command::FenceBroker { live, .. }
        | Command::UnfenceBroker { live, .. }
        | Command::BeginControlledShutdown { live, .. }
        | Command::FailDirectories { live, .. }
        | Command::ReportSpace { live, .. }
        | Command::ReportLogs { live, .. }
        | Command::CreateTopics { live, .. }
        | Command::CreatePartitions { live, .. }
        | Command::AlterPartition { live, .. }
        | Command::ElectLeaders { live, .. } => Some(live),
        Command::Bootstrap { .. }
        | Command::UnregisterBroker { .. }
        | Command::DeleteTopics { .. }
        | Command::AlterConfigs { .. }
        | Command::AllocateProducerIds { .. } => None,
    }
}
