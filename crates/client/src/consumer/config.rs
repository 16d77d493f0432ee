//! How a consumer fetches, commits and belongs to a group.

use std::time::Duration;

use super::assignor::Assignor;
use crate::{config::ClientConfig, offsets::IsolationLevel, producer::ConfigError};

/// Where to begin when there is no offset to begin from, or none that still exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OffsetReset {
    /// At the first record.
    Earliest,
    /// At the end.
    #[default]
    Latest,
    /// Nowhere: it is an error.
    None,
}

/// Settings of a consumer, with the defaults of Kafka's own.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// Where the cluster is.
    pub client: ClientConfig,
    /// The group whose offsets are used; needed for subscriptions.
    pub group_id: Option<String>,
    /// Makes the membership outlive restarts (KIP-345).
    pub group_instance_id: Option<String>,
    /// Ways to divide partitions, the preferred one first. Rebalances are cooperative if all are.
    pub assignors: Vec<Assignor>,
    /// Without a heartbeat for this long a member is taken out.
    pub session_timeout: Duration,
    /// Pause between heartbeats.
    pub heartbeat_interval: Duration,
    /// A member that does not poll for this long leaves; also the time for a rebalance.
    pub max_poll_interval: Duration,
    /// Where to begin without an offset.
    pub offset_reset: OffsetReset,
    /// What may be seen.
    pub isolation: IsolationLevel,
    /// Positions are committed this often, and before partitions are given up; `None`: only by
    /// [`commit`](super::Consumer::commit).
    pub auto_commit: Option<Duration>,
    /// The broker answers once it has this much ...
    pub fetch_bytes_min: i32,
    /// ... or after this long.
    pub fetch_wait_max: Duration,
    /// Largest answer, unless its first batch alone is larger.
    pub fetch_bytes_max: i32,
    /// The same of one partition.
    pub partition_bytes_max: i32,
    /// Largest batch, decompressed.
    pub batch_bytes_max: usize,
    /// Records that one poll returns at most.
    pub poll_records_max: usize,
    /// Lets brokers name a replica nearby (KIP-392).
    pub rack: Option<String>,
}

impl ConsumerConfig {
    /// The defaults, outside of any group.
    #[must_use]
    pub fn new(client: ClientConfig) -> ConsumerConfig {
        ConsumerConfig {
            client,
            group_id: None,
            group_instance_id: None,
            assignors: vec![Assignor::Range, Assignor::CooperativeSticky],
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            max_poll_interval: Duration::from_secs(300),
            offset_reset: OffsetReset::Latest,
            isolation: IsolationLevel::ReadUncommitted,
            auto_commit: Some(Duration::from_secs(5)),
            fetch_bytes_min: 1,
            fetch_wait_max: Duration::from_millis(500),
            fetch_bytes_max: 50 << 20,
            partition_bytes_max: 1 << 20,
            batch_bytes_max: 128 << 20,
            poll_records_max: 500,
            rack: None,
        }
    }

    /// In this group.
    #[must_use]
    pub fn group(mut self, group_id: impl Into<String>) -> ConsumerConfig {
        self.group_id = Some(group_id.into());
        self
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.client.bootstrap.is_empty() {
            return Err(ConfigError("no bootstrap brokers"));
        }
        if self.assignors.is_empty() {
            return Err(ConfigError("no assignor"));
        }
        if self.heartbeat_interval >= self.session_timeout {
            return Err(ConfigError(
                "the heartbeat interval must be below the session timeout",
            ));
        }
        if self.poll_records_max == 0 {
            return Err(ConfigError("a poll must be able to return a record"));
        }
        Ok(())
    }
}
