//! The few configs that decide about replicas, as controllers and leaders must both read them.
//!
//! Only what is in the image is seen: every controller applies a command alike, whatever its own
//! configuration file says (C-2). What the file of the active one says is in the image too.

use ottla_types::{BrokerId, FlushMode};

use crate::{ConfigResource, Image};

/// Replicas that must be in sync before records count as committed.
pub(crate) const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
/// Whether a replica that is not known to hold everything may lead.
pub(crate) const UNCLEAN_LEADER_ELECTION_ENABLE: &str = "unclean.leader.election.enable";
const FLUSH_MESSAGES: &str = "flush.messages";
const LOG_FLUSH_INTERVAL_MESSAGES: &str = "log.flush.interval.messages";

/// The rules of one topic's replicas.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TopicRules {
    min_insync_replicas: Option<usize>,
    /// Any live replica may lead where no in-sync one can.
    pub(crate) unclean_leader_election: bool,
}

impl TopicRules {
    /// Replicas that must be in sync, of a partition with this many.
    pub(crate) fn min_isr(&self, replicas: usize) -> usize {
        let unset = if replicas >= 3 { 2 } else { 1 };
        self.min_insync_replicas
            .unwrap_or(unset)
            .min(replicas)
            .max(1)
    }
}

impl Image {
    /// `min.insync.replicas` in effect for a partition with this many replicas: the topic's, else
    /// the cluster's, else 2 where there are 3 replicas or more and 1 elsewhere; never more than
    /// there are replicas.
    ///
    /// A leader must freeze its high watermark below this number (P-5): eligible leader replicas
    /// are elected on the strength of it.
    #[must_use]
    pub fn min_insync_replicas(&self, topic: &str, replicas: usize) -> usize {
        self.topic_rules(topic).min_isr(replicas)
    }

    /// Whether any live replica may lead this topic's partitions where no in-sync one can.
    #[must_use]
    pub fn unclean_leader_election_enabled(&self, topic: &str) -> bool {
        self.topic_rules(topic).unclean_leader_election
    }

    pub(crate) fn topic_rules(&self, topic: &str) -> TopicRules {
        let resource = ConfigResource::Topic(topic.to_owned());
        let value = |key: &str| {
            let default = || self.dynamic(&ConfigResource::ClusterDefault, key);
            self.dynamic(&resource, key).or_else(default)
        };
        TopicRules {
            min_insync_replicas: value(MIN_INSYNC_REPLICAS).and_then(parse_min_isr),
            unclean_leader_election: value(UNCLEAN_LEADER_ELECTION_ENABLE)
                .or_else(|| {
                    self.dynamic(
                        &ConfigResource::ControllerFile,
                        UNCLEAN_LEADER_ELECTION_ENABLE,
                    )
                })
                .is_some_and(|text| text.trim().eq_ignore_ascii_case("true")),
        }
    }

    /// When a broker's replicas of a topic counted a record as stored.
    pub(crate) fn flush_mode(
        &self,
        topic: &str,
        broker_id: BrokerId,
        unset: FlushMode,
    ) -> FlushMode {
        let levels = [
            (ConfigResource::Topic(topic.to_owned()), FLUSH_MESSAGES),
            (
                ConfigResource::Broker(broker_id),
                LOG_FLUSH_INTERVAL_MESSAGES,
            ),
            (ConfigResource::ClusterDefault, LOG_FLUSH_INTERVAL_MESSAGES),
        ];
        match levels
            .iter()
            .find_map(|(resource, key)| self.dynamic(resource, key))
        {
            Some(value) if value.trim() == "1" => FlushMode::Ack,
            Some(_) => FlushMode::Page,
            None => unset,
        }
    }

    fn dynamic(&self, resource: &ConfigResource, key: &str) -> Option<&str> {
        self.configs.get(resource)?.get(key).map(String::as_str)
    }
}

/// A legal value of `min.insync.replicas`.
pub(crate) fn parse_min_isr(value: &str) -> Option<usize> {
    let number: i32 = value.trim().parse().ok()?;
    usize::try_from(number).ok().filter(|&number| number >= 1)
}
