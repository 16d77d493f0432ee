//! Reading checked settings as typed values, and checking them against each other.

use std::{collections::BTreeSet, path::PathBuf};

use ottla_types::BrokerId;

use crate::{
    error::ConfigError,
    key::{parse_bool, split_list},
    load::StaticConfig,
    server::{
        ClusterConfig, ConnectionLimits, GroupConfig, NetworkConfig, Roles, parse_overrides_per_ip,
    },
    voters::{Voter, parse_voters},
};

/// Reads checked values as their types.
pub(crate) struct Values<'a>(pub(crate) &'a StaticConfig);

impl Values<'_> {
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        self.0
            .value(key)
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
    }

    pub(crate) fn flag(&self, key: &str) -> bool {
        parse_bool(self.0.value(key).unwrap_or_default()).unwrap_or_default()
    }

    /// A number whose row in the table fits the field's type.
    pub(crate) fn number<T: std::str::FromStr>(&self, key: &str) -> T {
        let parsed = self.0.value(key).and_then(|value| value.parse().ok());
        parsed.expect("the value was checked against the key's range when it was loaded")
    }

    /// A number, or `None` for -1.
    pub(crate) fn limit<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.0.value(key)?.parse().ok()
    }

    /// A number, or `None` where it is decided later.
    pub(crate) fn decided<T: std::str::FromStr>(&self, key: &str) -> Option<T> {
        self.0.value(key)?.parse().ok()
    }

    pub(crate) fn roles(&self) -> Result<Roles, ConfigError> {
        const KEY: &str = "process.roles";
        let text = self.text(KEY).unwrap_or_default();
        let roles: Vec<&str> = split_list(&text).collect();
        let distinct: BTreeSet<&&str> = roles.iter().collect();
        if roles.is_empty() || distinct.len() < roles.len() {
            let error = self.0.error(KEY, "must say what this process is");
            return Err(error.accepted("broker, controller, or both"));
        }
        Ok(Roles {
            broker: roles.contains(&"broker"),
            controller: roles.contains(&"controller"),
        })
    }

    pub(crate) fn node_id(&self) -> Result<BrokerId, ConfigError> {
        let node_id: Option<i32> = self.limit("node.id");
        let broker_id: Option<i32> = self.limit("broker.id").filter(|id| *id >= 0);
        match (node_id, broker_id) {
            (Some(node), Some(broker)) if node != broker => Err(self
                .0
                .error("broker.id", format!("differs from node.id={node}"))),
            (Some(id), _) | (None, Some(id)) => Ok(BrokerId(id)),
            (None, None) => {
                let error = self.0.error("node.id", "must be set");
                Err(error.accepted("a number of 0 or more, unique in the cluster"))
            }
        }
    }

    pub(crate) fn cluster_id(&self) -> Result<Option<String>, ConfigError> {
        const KEY: &str = "cluster.id";
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        match self.text(KEY) {
            Some(id) if id.len() > 64 || !id.chars().all(legal) => {
                let error = self.0.error(KEY, "not a cluster id");
                Err(error.accepted("up to 64 letters, digits, - . and _"))
            }
            id => Ok(id),
        }
    }

    pub(crate) fn voters(
        &self,
        roles: Roles,
        node_id: BrokerId,
    ) -> Result<Vec<Voter>, ConfigError> {
        const KEY: &str = "controller.quorum.voters";
        let text = self.text(KEY).unwrap_or_default();
        let origin = self.0.explicit(KEY).map(|setting| &setting.origin);
        let voters = parse_voters(&text).map_err(|error| match origin {
            Some(origin) => error.at(origin),
            None => error,
        })?;
        let votes = voters.iter().any(|voter| voter.id == node_id);
        if roles.controller && !votes {
            let reason = format!("node.id={node_id} is a controller and not among the voters");
            return Err(self.0.error(KEY, reason));
        }
        if !roles.controller && votes {
            let reason = format!("node.id={node_id} is a voter and not a controller");
            return Err(self.0.error(KEY, reason));
        }
        Ok(voters)
    }

    pub(crate) fn log_dir(&self) -> Result<PathBuf, ConfigError> {
        let key = if self.text("log.dirs").is_some() {
            "log.dirs"
        } else {
            "log.dir"
        };
        let text = self.text(key).unwrap_or_default();
        let directories: Vec<&str> = split_list(&text).collect();
        match directories[..] {
            [directory] => Ok(PathBuf::from(directory)),
            [] => Err(self.0.error(key, "must name a directory")),
            _ => {
                let reason = "several log directories are not available yet: one directory per \
                              broker, on a RAID or volume group where it must span disks";
                Err(self.0.error(key, reason).accepted("one directory"))
            }
        }
    }

    pub(crate) fn check_pairs(&self) -> Result<(), ConfigError> {
        // The last column: how often the first must fit into the second.
        let pairs = [
            (
                "broker.heartbeat.interval.ms",
                "broker.session.timeout.ms",
                2,
            ),
            (
                "group.min.session.timeout.ms",
                "group.max.session.timeout.ms",
                1,
            ),
            (
                "ottla.controller.heartbeat.interval.ms",
                "ottla.controller.election.timeout.ms",
                2,
            ),
            (
                "ottla.replication.free.bytes.min",
                "ottla.produce.free.bytes.min",
                1,
            ),
        ];
        for (smaller, larger, times) in pairs {
            let (a, b): (u64, u64) = (self.number(smaller), self.number(larger));
            if a.saturating_mul(times) > b {
                let much = if times == 1 {
                    "more than"
                } else {
                    "more than half of"
                };
                return Err(self.0.error(smaller, format!("{a} is {much} {larger}={b}")));
            }
        }
        Ok(())
    }

    pub(crate) fn check_overrides_per_ip(&self) -> Result<(), ConfigError> {
        const KEY: &str = "max.connections.per.ip.overrides";
        let text = self.text(KEY).unwrap_or_default();
        parse_overrides_per_ip(&text)
            .map(|_| ())
            .map_err(|reason| self.0.error(KEY, reason))
    }

    pub(crate) fn cluster(&self) -> ClusterConfig {
        let seconds: u64 = self.number("leader.imbalance.check.interval.seconds");
        ClusterConfig {
            auto_leader_rebalance_enable: self.flag("auto.leader.rebalance.enable"),
            leader_imbalance_check_interval_ms: seconds.saturating_mul(1000),
            broker_heartbeat_interval_ms: self.number("broker.heartbeat.interval.ms"),
            broker_session_timeout_ms: self.number("broker.session.timeout.ms"),
            broker_fencing_grace_ms: self.number("ottla.broker.fencing.grace.ms"),
            controlled_shutdown_enable: self.flag("controlled.shutdown.enable"),
            controller_heartbeat_interval_ms: self.number("ottla.controller.heartbeat.interval.ms"),
            controller_election_timeout_ms: self.number("ottla.controller.election.timeout.ms"),
            controller_snapshot_entries: self.number("ottla.controller.snapshot.entries"),
            shutdown_timeout_ms: self.number("ottla.shutdown.timeout.ms"),
        }
    }

    pub(crate) fn network(&self) -> NetworkConfig {
        NetworkConfig {
            socket_request_max_bytes: self.number("socket.request.max.bytes"),
            socket_send_buffer_bytes: self.limit("socket.send.buffer.bytes"),
            socket_receive_buffer_bytes: self.limit("socket.receive.buffer.bytes"),
            socket_listen_backlog_size: self.number("socket.listen.backlog.size"),
            connections_max_idle_ms: self.limit("connections.max.idle.ms"),
            connection_limits: ConnectionLimits::read(|key| self.text(key).unwrap_or_default()),
            queued_max_request_bytes: self.limit("queued.max.request.bytes"),
            connection_requests_max: self.number("ottla.connection.requests.max"),
            fetch_max_bytes: self.number("fetch.max.bytes"),
            max_incremental_fetch_session_cache_slots: self
                .number("max.incremental.fetch.session.cache.slots"),
            max_request_partition_size_limit: self.number("max.request.partition.size.limit"),
            request_timeout_ms: self.number("request.timeout.ms"),
        }
    }

    pub(crate) fn groups(&self) -> GroupConfig {
        let minutes: u64 = self.number("offsets.retention.minutes");
        GroupConfig {
            group_initial_rebalance_delay_ms: self.number("group.initial.rebalance.delay.ms"),
            group_min_session_timeout_ms: self.number("group.min.session.timeout.ms"),
            group_max_session_timeout_ms: self.number("group.max.session.timeout.ms"),
            group_max_size: self.number("group.max.size"),
            offset_metadata_max_bytes: self.number("offset.metadata.max.bytes"),
            offsets_commit_timeout_ms: self.number("offsets.commit.timeout.ms"),
            offsets_retention_ms: minutes.saturating_mul(60_000),
            offsets_retention_check_interval_ms: self.number("offsets.retention.check.interval.ms"),
            offsets_topic_num_partitions: self.number("offsets.topic.num.partitions"),
            offsets_topic_replication_factor: self.decided("offsets.topic.replication.factor"),
            offsets_topic_segment_bytes: self.number("offsets.topic.segment.bytes"),
        }
    }
}
