//! Gives leadership back to preferred replicas, and leaders to partitions that can have one,
//! every `leader.imbalance.check.interval.seconds` (surface 9.3).

use std::{sync::Arc, time::Duration};

use tokio::time::MissedTickBehavior;

use ottla_metadata::{Command, ElectLeaders, ElectionKind};

use crate::{cluster::Cluster, leadership::Active, raft::Quorum, sessions::SessionHub};

/// Proposes elections of preferred leaders while this controller is active.
pub(crate) struct Balance {
    pub(crate) quorum: Arc<Quorum>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) sessions: Arc<SessionHub>,
    pub(crate) interval: Duration,
    /// `auto.leader.rebalance.enable`; without it only partitions without a leader matter.
    pub(crate) preferred: bool,
}

impl Balance {
    /// Runs until the period ends.
    pub(crate) async fn run(self: Arc<Self>, active: Arc<Active>) {
        let mut ticks = tokio::time::interval(self.interval.max(Duration::from_secs(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        loop {
            tokio::select! {
                () = active.ended.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let worth = self
                .cluster
                .read(|_, tally| tally.offline() > 0 || (self.preferred && tally.imbalanced() > 0));
            if worth {
                self.elect(&active).await;
            }
        }
    }

    async fn elect(&self, active: &Active) {
        let request = ElectLeaders {
            kind: ElectionKind::Preferred,
            partitions: None,
        };
        let command = Command::ElectLeaders {
            request,
            live: self.sessions.live(),
        };
        let proposal = active
            .ended
            .run_until_cancelled(self.quorum.propose(command))
            .await;
        if let Some(Err(error)) = proposal {
            tracing::info!(%error, "preferred leaders were not elected");
        }
    }
}
