//! What a controller is told at its start.

use std::{collections::BTreeMap, time::Duration};

use ottla_config::ServerConfig;
use ottla_controller::{ControllerConfig, QuorumTiming, SnapshotPolicy, Voter};

/// What the file says of it becomes the cluster's default when the quorum first forms: eligible
/// leader replicas rest on one number that never differs between controllers.
const FORMATION_KEYS: [&str; 1] = ["min.insync.replicas"];
/// What the active controller's file says of it decides elections.
const FILE_KEYS: [&str; 1] = ["unclean.leader.election.enable"];

/// The controller's part of a node's configuration.
pub(crate) fn controller_config(server: &ServerConfig) -> ControllerConfig {
    let voters = server.controller_quorum_voters.iter().map(|voter| Voter {
        node_id: voter.id,
        host: voter.host.clone(),
        port: voter.port,
    });
    let cluster = &server.cluster;
    let mut config = ControllerConfig::new(
        server.node_id,
        voters.collect(),
        server.metadata_log_dir.clone(),
    );
    config.cluster_id.clone_from(&server.cluster_id);
    config.session_timeout = Duration::from_millis(cluster.broker_session_timeout_ms);
    config.session_grace = Duration::from_millis(cluster.broker_fencing_grace_ms);
    config.auto_leader_rebalance = cluster.auto_leader_rebalance_enable;
    config.leader_imbalance_check_interval =
        Duration::from_millis(cluster.leader_imbalance_check_interval_ms);
    config.initial_cluster_configs = explicit(server, &FORMATION_KEYS);
    config.file_configs = explicit(server, &FILE_KEYS);
    config.quorum = quorum_timing(
        cluster.controller_heartbeat_interval_ms,
        cluster.controller_election_timeout_ms,
    );
    config.snapshots = SnapshotPolicy {
        every_entries: cluster.controller_snapshot_entries,
        keep_entries: (cluster.controller_snapshot_entries / 5).max(1),
    };
    config
}

fn explicit(server: &ServerConfig, keys: &[&str]) -> BTreeMap<String, String> {
    let explicit = keys.iter().filter_map(|key| {
        let setting = server.statics().explicit(key)?;
        Some(((*key).to_owned(), setting.value.clone()))
    });
    explicit.collect()
}

/// An append must fail before a vote, and a vote before the lease that both serve is over.
fn quorum_timing(heartbeat_ms: u64, election_timeout_ms: u64) -> QuorumTiming {
    let lease = Duration::from_millis(election_timeout_ms);
    QuorumTiming {
        heartbeat: Duration::from_millis(heartbeat_ms),
        lease,
        election_jitter: lease / 2,
        append_timeout: lease / 2,
        vote_timeout: lease * 3 / 4,
        ..QuorumTiming::default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use ottla_types::BrokerId;

    use super::*;

    #[test]
    fn the_shortest_accepted_timing_is_one_that_a_controller_accepts() {
        let voters = vec![Voter {
            node_id: BrokerId(1),
            host: "a".to_owned(),
            port: 1,
        }];
        let mut config = ControllerConfig::new(BrokerId(1), voters, PathBuf::new());
        for (heartbeat_ms, election_timeout_ms) in [(10, 100), (50, 100), (100, 400)] {
            config.quorum = quorum_timing(heartbeat_ms, election_timeout_ms);
            assert_eq!(config.check(), Ok(()));
        }
    }

    #[test]
    fn the_default_timing_is_the_controllers_own() {
        assert_eq!(quorum_timing(75, 300), QuorumTiming::default());
    }
}
