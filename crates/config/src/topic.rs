//! The configuration of one topic, typed, as logs and replicas use it.

use std::collections::BTreeMap;

use ottla_types::FlushMode;

use crate::{
    key::{ConfigKey, parse_bool, split_list},
    layers::Layers,
    server::ServerConfig,
    tables::topic_key,
};

/// What happens to old segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Segments past the retention are deleted.
    pub delete: bool,
    /// Older records of a key are removed.
    pub compact: bool,
}

/// `compression.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As the producer sent it.
    Producer,
    /// Not at all.
    Uncompressed,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// `message.timestamp.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's clock.
    CreateTime,
    /// The leader's clock at the append.
    LogAppendTime,
}

/// `min.insync.replicas`, where it may not be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinInsyncReplicas {
    /// Set on some level.
    Set(usize),
    /// Not set: 2 where there are three or more replicas, else 1.
    ByReplicationFactor,
}

impl MinInsyncReplicas {
    /// How many in-sync replicas a partition with that many replicas needs. Never more than it
    /// has: as Kafka, a topic of one replica under a broker default of 2 stays writable.
    #[must_use]
    pub fn required(self, replication_factor: usize) -> usize {
        match self {
            MinInsyncReplicas::Set(count) => count.min(replication_factor.max(1)),
            MinInsyncReplicas::ByReplicationFactor if replication_factor >= 3 => 2,
            MinInsyncReplicas::ByReplicationFactor => 1,
        }
    }
}

/// A topic's configuration after every level has been looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// `cleanup.policy`.
    pub cleanup_policy: CleanupPolicy,
    /// `compression.type`.
    pub compression_type: Compression,
    /// `file.delete.delay.ms`.
    pub file_delete_delay_ms: u64,
    /// `flush.messages`; 1 is mode `ack`.
    pub flush_messages: u64,
    /// `flush.ms`.
    pub flush_ms: u64,
    /// `index.interval.bytes`.
    pub index_interval_bytes: u32,
    /// `max.message.bytes`.
    pub max_message_bytes: u32,
    /// `message.timestamp.after.max.ms`.
    pub message_timestamp_after_max_ms: u64,
    /// `message.timestamp.before.max.ms`.
    pub message_timestamp_before_max_ms: u64,
    /// `message.timestamp.type`.
    pub message_timestamp_type: TimestampType,
    /// `min.insync.replicas`.
    pub min_insync_replicas: MinInsyncReplicas,
    /// `retention.bytes`; `None` is no limit.
    pub retention_bytes: Option<u64>,
    /// `retention.ms`; `None` is for ever.
    pub retention_ms: Option<u64>,
    /// `segment.bytes`.
    pub segment_bytes: u32,
    /// `segment.index.bytes`.
    pub segment_index_bytes: u32,
    /// `segment.jitter.ms`.
    pub segment_jitter_ms: u64,
    /// `segment.ms`.
    pub segment_ms: u64,
    /// `unclean.leader.election.enable`.
    pub unclean_leader_election_enable: bool,
}

impl TopicConfig {
    /// Topic over broker over cluster default over file over default.
    pub fn resolve<'a>(
        topic: impl Into<Option<&'a BTreeMap<String, String>>>,
        dynamic_broker: impl Into<Option<&'a BTreeMap<String, String>>>,
        cluster_default: impl Into<Option<&'a BTreeMap<String, String>>>,
        server: &'a ServerConfig,
    ) -> TopicConfig {
        let layers = server.layers(dynamic_broker.into(), cluster_default.into());
        let values = Values {
            topic: topic.into(),
            layers,
        };
        TopicConfig {
            cleanup_policy: values.cleanup_policy(),
            compression_type: values.compression(),
            file_delete_delay_ms: values.long("file.delete.delay.ms"),
            flush_messages: values.long("flush.messages"),
            flush_ms: values.long("flush.ms"),
            index_interval_bytes: values.int("index.interval.bytes"),
            max_message_bytes: values.int("max.message.bytes"),
            message_timestamp_after_max_ms: values.long("message.timestamp.after.max.ms"),
            message_timestamp_before_max_ms: values.long("message.timestamp.before.max.ms"),
            message_timestamp_type: if values.text("message.timestamp.type") == "LogAppendTime" {
                TimestampType::LogAppendTime
            } else {
                TimestampType::CreateTime
            },
            min_insync_replicas: values.min_insync_replicas(),
            retention_bytes: values.limit("retention.bytes"),
            retention_ms: values.limit("retention.ms"),
            segment_bytes: values.int("segment.bytes"),
            segment_index_bytes: values.int("segment.index.bytes"),
            segment_jitter_ms: values.long("segment.jitter.ms"),
            segment_ms: values.long("segment.ms"),
            unclean_leader_election_enable: values.flag("unclean.leader.election.enable"),
        }
    }

    /// When a replica of this topic may report an offset as stored.
    #[must_use]
    pub fn flush_mode(&self) -> FlushMode {
        if self.flush_messages == 1 {
            FlushMode::Ack
        } else {
            FlushMode::Page
        }
    }
}

struct Values<'a> {
    topic: Option<&'a BTreeMap<String, String>>,
    layers: Layers<'a>,
}

impl Values<'_> {
    /// The effective value; only of keys whose type it fits, so that parsing it succeeds.
    fn find(&self, name: &str) -> Option<String> {
        let key = topic_key(name)?;
        let own = self
            .topic
            .and_then(|topic| topic.get(name))
            .map(|value| value.trim());
        match own.filter(|value| key.is_well_formed(value)) {
            Some(value) => Some(value.to_owned()),
            None => self.layers.topic_default(key, None),
        }
    }

    fn text(&self, name: &str) -> String {
        self.find(name).unwrap_or_default()
    }

    fn long(&self, name: &str) -> u64 {
        self.limit(name).unwrap_or_default()
    }

    fn int(&self, name: &str) -> u32 {
        self.text(name).parse().unwrap_or_default()
    }

    /// A number, or `None` for -1.
    fn limit(&self, name: &str) -> Option<u64> {
        self.text(name).parse().ok()
    }

    fn flag(&self, name: &str) -> bool {
        parse_bool(&self.text(name)).unwrap_or_default()
    }

    fn cleanup_policy(&self) -> CleanupPolicy {
        let text = self.text("cleanup.policy");
        let has = |policy| split_list(&text).any(|item| item == policy);
        CleanupPolicy {
            delete: has("delete"),
            compact: has("compact"),
        }
    }

    fn compression(&self) -> Compression {
        match self.text("compression.type").as_str() {
            "uncompressed" => Compression::Uncompressed,
            "gzip" => Compression::Gzip,
            "snappy" => Compression::Snappy,
            "lz4" => Compression::Lz4,
            "zstd" => Compression::Zstd,
            _ => Compression::Producer,
        }
    }

    fn min_insync_replicas(&self) -> MinInsyncReplicas {
        match self
            .find("min.insync.replicas")
            .and_then(|text| text.parse().ok())
        {
            Some(count) => MinInsyncReplicas::Set(count),
            None => MinInsyncReplicas::ByReplicationFactor,
        }
    }
}

impl ConfigKey {
    /// Whether a value has the key's type and range; it may still ask for what is not available,
    /// as `cleanup.policy` of the internal topics does.
    pub(crate) fn is_well_formed(&self, value: &str) -> bool {
        self.check_form(value).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::server_with;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn defaults_are_ours() {
        let server = server_with("");
        let topic = TopicConfig::resolve(None, None, None, &server);
        assert_eq!(topic.flush_mode(), FlushMode::Ack);
        assert_eq!(topic.retention_ms, Some(604_800_000));
        assert_eq!(topic.retention_bytes, None);
        assert_eq!(topic.segment_bytes, 1 << 30);
        assert_eq!(topic.segment_ms, 604_800_000);
        assert_eq!(topic.flush_ms, i64::MAX.unsigned_abs());
        assert_eq!(topic.compression_type, Compression::Producer);
        assert_eq!(
            topic.cleanup_policy,
            CleanupPolicy {
                delete: true,
                compact: false
            }
        );
        assert_eq!(topic.min_insync_replicas.required(3), 2);
        assert_eq!(topic.min_insync_replicas.required(2), 1);
    }

    #[test]
    fn the_nearer_level_wins_and_hours_become_milliseconds() {
        let server = server_with("log.retention.hours=2\nmin.insync.replicas=2\n");
        let (topic, broker, cluster) = (
            map(&[("retention.ms", "-1")]),
            map(&[("log.retention.ms", "5")]),
            map(&[("log.retention.ms", "6"), ("message.max.bytes", "77")]),
        );
        let retention = |t: &BTreeMap<_, _>, b: &BTreeMap<_, _>, c: &BTreeMap<_, _>| {
            TopicConfig::resolve(t, b, c, &server).retention_ms
        };
        let none = BTreeMap::new();
        assert_eq!(retention(&none, &none, &none), Some(7_200_000));
        assert_eq!(retention(&none, &none, &cluster), Some(6));
        assert_eq!(retention(&none, &broker, &cluster), Some(5));
        assert_eq!(retention(&topic, &broker, &cluster), None);
        let resolved = TopicConfig::resolve(None, None, &cluster, &server);
        assert_eq!(resolved.max_message_bytes, 77);
        assert_eq!(resolved.min_insync_replicas, MinInsyncReplicas::Set(2));
        assert_eq!(resolved.min_insync_replicas.required(1), 1);
    }

    #[test]
    fn any_flush_messages_but_one_is_mode_page() {
        let server = server_with("");
        let topic = map(&[("flush.messages", "9223372036854775807")]);
        let topic = TopicConfig::resolve(&topic, None, None, &server);
        assert_eq!(topic.flush_mode(), FlushMode::Page);
    }

    #[test]
    fn an_internal_topic_may_carry_compact() {
        let server = server_with("");
        let topic = map(&[("cleanup.policy", "compact")]);
        let topic = TopicConfig::resolve(&topic, None, None, &server);
        assert_eq!(
            topic.cleanup_policy,
            CleanupPolicy {
                delete: false,
                compact: true
            }
        );
    }

    #[test]
    fn a_stored_value_that_is_refused_now_falls_through() {
        let server = server_with("");
        let cluster = map(&[("log.segment.bytes", "3")]);
        let topic = map(&[("segment.bytes", "x")]);
        let resolved = TopicConfig::resolve(&topic, None, &cluster, &server);
        assert_eq!(resolved.segment_bytes, 1 << 30);
    }
}
