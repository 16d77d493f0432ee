//! What a controller must be told at start. Values come from the server's configuration; nothing
//! here reads a file or the environment.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use ottla_types::BrokerId;

/// One entry of `controller.quorum.voters`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    /// `node.id` of the controller.
    pub node_id: BrokerId,
    /// Host name or address.
    pub host: String,
    /// Port of its controller listener.
    pub port: u16,
}

/// Everything a controller needs.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// `node.id`; must be among `voters`.
    pub node_id: BrokerId,
    /// `controller.quorum.voters`.
    pub voters: Vec<Voter>,
    /// Directory in which `__cluster_metadata` is made.
    pub data_dir: PathBuf,
    /// `cluster.id`; drawn when the quorum first forms if absent, checked ever after.
    pub cluster_id: Option<String>,
    /// `broker.session.timeout.ms`: silence after which a broker is fenced.
    pub session_timeout: Duration,
    /// How long a broker whose stream broke may take to open another (design: 250 ms).
    pub session_grace: Duration,
    /// `auto.leader.rebalance.enable`.
    pub auto_leader_rebalance: bool,
    /// `leader.imbalance.check.interval.seconds`.
    pub leader_imbalance_check_interval: Duration,
    /// Cluster-wide default configs that the first leader writes right after formation, such as
    /// an explicit `min.insync.replicas`, so that elections see them.
    pub initial_cluster_configs: BTreeMap<String, String>,
    /// Configs of topics as this node's file gives their default, such as an explicit
    /// `unclean.leader.election.enable`: in force below every dynamic config while this controller
    /// is the active one, as in Kafka.
    pub file_configs: BTreeMap<String, String>,
    /// Timing of the quorum itself.
    pub quorum: QuorumTiming,
    /// Snapshots and log retention.
    pub snapshots: SnapshotPolicy,
}

/// Timing of raft among the controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuorumTiming {
    /// Interval of the leader's heartbeats.
    pub heartbeat: Duration,
    /// A follower that has heard from a leader within this time neither stands nor votes.
    pub lease: Duration,
    /// Random part of the wait before a follower stands.
    pub election_jitter: Duration,
    /// Deadline of one append or heartbeat call.
    pub append_timeout: Duration,
    /// Deadline of one vote call.
    pub vote_timeout: Duration,
    /// Deadline of one snapshot chunk, its installation included.
    pub snapshot_timeout: Duration,
}

impl Default for QuorumTiming {
    fn default() -> QuorumTiming {
        QuorumTiming {
            heartbeat: Duration::from_millis(75),
            lease: Duration::from_millis(300),
            election_jitter: Duration::from_millis(150),
            append_timeout: Duration::from_millis(150),
            vote_timeout: Duration::from_millis(225),
            snapshot_timeout: Duration::from_secs(10),
        }
    }
}

/// When to snapshot and how much of the log to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// A snapshot after this many entries.
    pub every_entries: u64,
    /// Entries kept behind a snapshot, so that a follower a little behind needs no snapshot.
    pub keep_entries: u64,
}

impl Default for SnapshotPolicy {
    fn default() -> SnapshotPolicy {
        SnapshotPolicy {
            every_entries: 10_000,
            keep_entries: 2_000,
        }
    }
}

impl ControllerConfig {
    /// Defaults for everything that can have one.
    #[must_use]
    pub fn new(node_id: BrokerId, voters: Vec<Voter>, data_dir: PathBuf) -> ControllerConfig {
        ControllerConfig {
            node_id,
            voters,
            data_dir,
            cluster_id: None,
            session_timeout: Duration::from_millis(2_000),
            session_grace: Duration::from_millis(250),
            auto_leader_rebalance: true,
            leader_imbalance_check_interval: Duration::from_secs(300),
            initial_cluster_configs: BTreeMap::new(),
            file_configs: BTreeMap::new(),
            quorum: QuorumTiming::default(),
            snapshots: SnapshotPolicy::default(),
        }
    }

    /// What is wrong with this configuration, if anything.
    ///
    /// # Errors
    /// With a sentence that names the key.
    pub fn check(&self) -> Result<(), String> {
        let mut ids: Vec<BrokerId> = self.voters.iter().map(|voter| voter.node_id).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("controller.quorum.voters lists a node id twice".to_owned());
        }
        if !ids.contains(&self.node_id) {
            let id = self.node_id;
            return Err(format!(
                "node.id {id} is not among controller.quorum.voters"
            ));
        }
        let timing = &self.quorum;
        if timing.append_timeout >= timing.vote_timeout || timing.vote_timeout >= timing.lease {
            return Err("append timeout < vote timeout < lease must hold".to_owned());
        }
        if timing.heartbeat * 2 > timing.lease {
            return Err("the lease must cover two heartbeats".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voter(id: i32) -> Voter {
        Voter {
            node_id: BrokerId(id),
            host: "127.0.0.1".to_owned(),
            port: 9093,
        }
    }

    #[test]
    fn a_node_outside_the_voters_and_a_voter_named_twice_are_refused() {
        let config = |id, voters| ControllerConfig::new(BrokerId(id), voters, PathBuf::new());
        assert!(config(1, vec![voter(1), voter(2)]).check().is_ok());
        assert!(config(3, vec![voter(1), voter(2)]).check().is_err());
        assert!(config(1, vec![voter(1), voter(1)]).check().is_err());
    }
}
