//! Every config of a topic or broker with its value, where it comes from and what is behind it.

use std::collections::BTreeMap;

use crate::{
    alter::changes_at_run_time,
    key::{ConfigKey, DefaultValue, Kind},
    layers::{Layers, fallback_group},
    server::ServerConfig,
    tables::{broker_key, broker_keys, topic_key, topic_keys},
    topic::MinInsyncReplicas,
};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// Set on the topic.
    DynamicTopic,
    /// Set for one broker at run time.
    DynamicBroker,
    /// Set for all brokers at run time.
    DynamicDefaultBroker,
    /// Set before the start.
    StaticBroker,
    /// Not set.
    Default,
}

/// One level at which a value, or the one behind it, is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSynonym {
    /// The key on that level.
    pub name: String,
    /// Its value there.
    pub value: String,
    /// The level.
    pub source: ConfigSource,
}

/// One config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// The key.
    pub name: String,
    /// Its effective value; `None` for null and for secrets.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: ConfigSource,
    /// Every level at which it is set, the winning one first.
    pub synonyms: Vec<ConfigSynonym>,
    /// Its type; `None` for a key that is stored without being known.
    pub kind: Option<Kind>,
    /// It cannot change at run time.
    pub read_only: bool,
    /// Its value is secret.
    pub sensitive: bool,
    /// One sentence.
    pub doc: &'static str,
}

/// What the defaults that are decided late depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterFacts {
    /// How many brokers are registered.
    pub registered_brokers: usize,
}

impl ClusterFacts {
    fn replication_factor(self) -> usize {
        self.registered_brokers.clamp(1, 3)
    }

    fn auto(self, name: &str) -> String {
        let factor = self.replication_factor();
        if name == "min.insync.replicas" {
            MinInsyncReplicas::ByReplicationFactor
                .required(factor)
                .to_string()
        } else {
            factor.to_string()
        }
    }
}

/// Every config of a topic whose partitions have `replication_factor` replicas.
pub fn describe_topic<'a>(
    overrides: impl Into<Option<&'a BTreeMap<String, String>>>,
    dynamic_broker: impl Into<Option<&'a BTreeMap<String, String>>>,
    dynamic_default: impl Into<Option<&'a BTreeMap<String, String>>>,
    server: &'a ServerConfig,
    replication_factor: usize,
) -> Vec<ConfigEntry> {
    let layers = server.layers(dynamic_broker.into(), dynamic_default.into());
    let overrides = overrides.into();
    let auto = MinInsyncReplicas::ByReplicationFactor
        .required(replication_factor)
        .to_string();
    topic_keys()
        .iter()
        .map(|key| topic_entry(key, overrides, &layers, &auto))
        .collect()
}

fn topic_entry(
    key: &ConfigKey,
    overrides: Option<&BTreeMap<String, String>>,
    layers: &Layers<'_>,
    auto: &str,
) -> ConfigEntry {
    let mut synonyms = layers.synonyms(&key.synonyms, Some(auto));
    let own = overrides.and_then(|overrides| overrides.get(key.name));
    if let Some(value) = own {
        let source = ConfigSource::DynamicTopic;
        let synonym = ConfigSynonym {
            name: key.name.to_owned(),
            value: value.clone(),
            source,
        };
        synonyms.insert(0, synonym);
    }
    if key.synonyms.is_empty()
        && let DefaultValue::Value(value) = key.default
    {
        synonyms.push(ConfigSynonym {
            name: key.name.to_owned(),
            value: value.to_owned(),
            source: ConfigSource::Default,
        });
    }
    ConfigEntry {
        name: key.name.to_owned(),
        value: own
            .cloned()
            .or_else(|| layers.topic_default(key, Some(auto))),
        source: synonyms
            .first()
            .map_or(ConfigSource::Default, |synonym| synonym.source),
        synonyms,
        kind: Some(key.kind),
        read_only: false,
        sensitive: false,
        doc: key.doc,
    }
}

/// Every config of one broker: the table's keys, and what else was set.
pub fn describe_broker<'a>(
    dynamic_broker: impl Into<Option<&'a BTreeMap<String, String>>>,
    dynamic_default: impl Into<Option<&'a BTreeMap<String, String>>>,
    server: &'a ServerConfig,
    facts: ClusterFacts,
) -> Vec<ConfigEntry> {
    let layers = server.layers(dynamic_broker.into(), dynamic_default.into());
    let mut entries: Vec<ConfigEntry> = broker_keys()
        .iter()
        .map(|key| broker_entry(key, &layers, facts))
        .collect();
    let statics = server.statics().iter().map(|(name, _)| name);
    let dynamic = [layers.broker, layers.cluster].into_iter().flatten();
    let dynamic = dynamic.flat_map(|level| level.keys().map(String::as_str));
    let mut unknown: Vec<&str> = statics
        .chain(dynamic)
        .filter(|name| broker_key(name).is_none())
        .collect();
    unknown.sort_unstable();
    unknown.dedup();
    entries.extend(unknown.into_iter().map(|name| unknown_entry(name, &layers)));
    entries
}

/// What was set at run time as the default of all brokers.
#[must_use]
pub fn describe_cluster_default(dynamic_default: &BTreeMap<String, String>) -> Vec<ConfigEntry> {
    let source = ConfigSource::DynamicDefaultBroker;
    dynamic_default
        .iter()
        .map(|(name, value)| {
            let key = broker_key(name);
            let sensitive = key.is_none_or(ConfigKey::is_sensitive);
            let shown = (!sensitive).then(|| value.clone());
            let synonym = shown.clone().map(|value| ConfigSynonym {
                name: name.clone(),
                value,
                source,
            });
            ConfigEntry {
                name: name.clone(),
                value: shown,
                source,
                synonyms: synonym.into_iter().collect(),
                kind: key.map(|key| key.kind),
                read_only: false,
                sensitive,
                doc: key.map_or("", |key| key.doc),
            }
        })
        .collect()
}

/// The value of a topic's list where the topic sets none: what APPEND and SUBTRACT start from.
pub fn list_base<'a>(
    name: &str,
    dynamic_broker: impl Into<Option<&'a BTreeMap<String, String>>>,
    dynamic_default: impl Into<Option<&'a BTreeMap<String, String>>>,
    server: &'a ServerConfig,
) -> Option<String> {
    let layers = server.layers(dynamic_broker.into(), dynamic_default.into());
    let key = topic_key(name).filter(|key| key.kind == Kind::List)?;
    Some(layers.topic_default(key, None).unwrap_or_default())
}

fn broker_entry(key: &ConfigKey, layers: &Layers<'_>, facts: ClusterFacts) -> ConfigEntry {
    let auto = facts.auto(key.name);
    let own = layers.synonyms(&[key.name], Some(&auto));
    let group = fallback_group(key.name);
    let mut synonyms = if group.is_empty() {
        own.clone()
    } else {
        layers.synonyms(group, Some(&auto))
    };
    let sensitive = key.is_sensitive();
    if sensitive {
        synonyms.clear();
    }
    ConfigEntry {
        name: key.name.to_owned(),
        value: own
            .into_iter()
            .next()
            .map(|own| own.value)
            .filter(|_| !sensitive),
        source: synonyms
            .first()
            .map_or(ConfigSource::Default, |synonym| synonym.source),
        synonyms,
        kind: Some(key.kind),
        read_only: !changes_at_run_time(key.name),
        sensitive,
        doc: key.doc,
    }
}

/// As Kafka: nobody knows what it is, so it may be a secret.
fn unknown_entry(name: &str, layers: &Layers<'_>) -> ConfigEntry {
    let levels = layers.synonyms(&[name], None);
    ConfigEntry {
        name: name.to_owned(),
        value: None,
        source: levels
            .first()
            .map_or(ConfigSource::Default, |level| level.source),
        synonyms: Vec::new(),
        kind: None,
        read_only: false,
        sensitive: true,
        doc: "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::server_with;

    fn one<'a>(entries: &'a [ConfigEntry], name: &str) -> &'a ConfigEntry {
        entries.iter().find(|entry| entry.name == name).unwrap()
    }

    fn map(key: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn synonyms_list_every_level_and_end_with_the_default() {
        let server = server_with("log.retention.minutes=3\n");
        let topic = map("retention.ms", "1");
        let cluster = map("log.retention.ms", "2");
        let entries = describe_topic(&topic, None, &cluster, &server, 3);
        let entry = one(&entries, "retention.ms");
        assert_eq!(entry.value.as_deref(), Some("1"));
        assert_eq!(entry.source, ConfigSource::DynamicTopic);
        let synonyms: Vec<(&str, &str, ConfigSource)> = entry
            .synonyms
            .iter()
            .map(|synonym| {
                (
                    synonym.name.as_str(),
                    synonym.value.as_str(),
                    synonym.source,
                )
            })
            .collect();
        assert_eq!(
            synonyms,
            [
                ("retention.ms", "1", ConfigSource::DynamicTopic),
                ("log.retention.ms", "2", ConfigSource::DynamicDefaultBroker),
                ("log.retention.minutes", "3", ConfigSource::StaticBroker),
                ("log.retention.hours", "168", ConfigSource::Default),
            ]
        );
    }

    #[test]
    fn an_untouched_topic_has_only_defaults_and_they_are_ours() {
        let server = server_with("");
        let entries = describe_topic(None, None, None, &server, 3);
        assert_eq!(entries.len(), 33);
        for entry in &entries {
            assert_eq!(entry.source, ConfigSource::Default, "{}", entry.name);
            assert!(entry.value.is_some(), "{}", entry.name);
        }
        assert_eq!(one(&entries, "flush.messages").value.as_deref(), Some("1"));
        assert_eq!(
            one(&entries, "min.insync.replicas").value.as_deref(),
            Some("2")
        );
        assert_eq!(
            one(&entries, "retention.ms").value.as_deref(),
            Some("604800000")
        );
        assert_eq!(
            one(&entries, "segment.ms").value.as_deref(),
            Some("604800000")
        );
        let entries = describe_topic(None, None, None, &server, 1);
        assert_eq!(
            one(&entries, "min.insync.replicas").value.as_deref(),
            Some("1")
        );
    }

    #[test]
    fn a_static_broker_value_shows_as_such_on_the_topic() {
        let server = server_with("log.segment.bytes=2000000\n");
        let entries = describe_topic(None, None, None, &server, 3);
        let entry = one(&entries, "segment.bytes");
        assert_eq!(entry.source, ConfigSource::StaticBroker);
        assert_eq!(entry.value.as_deref(), Some("2000000"));
    }

    #[test]
    fn brokers_show_decided_defaults_and_hide_secrets() {
        let server = server_with("sasl.jaas.config=hunter2\nlistener.name.a.ssl.key.password=p\n");
        let facts = ClusterFacts {
            registered_brokers: 5,
        };
        let entries = describe_broker(None, None, &server, facts);
        assert_eq!(
            one(&entries, "default.replication.factor").value.as_deref(),
            Some("3")
        );
        assert_eq!(
            one(&entries, "min.insync.replicas").value.as_deref(),
            Some("2")
        );
        assert_eq!(one(&entries, "node.id").value.as_deref(), Some("1"));
        assert!(one(&entries, "node.id").read_only);
        assert!(!one(&entries, "log.retention.ms").read_only);
        assert_eq!(one(&entries, "log.retention.ms").value, None);
        for secret in ["sasl.jaas.config", "listener.name.a.ssl.key.password"] {
            let entry = one(&entries, secret);
            assert!(entry.sensitive && entry.value.is_none() && entry.synonyms.is_empty());
        }
    }

    #[test]
    fn the_cluster_default_shows_only_what_is_set() {
        let entries = describe_cluster_default(&map("log.retention.ms", "5"));
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].source, ConfigSource::DynamicDefaultBroker);
    }

    #[test]
    fn a_list_starts_from_its_broker_value() {
        let server = server_with("");
        assert_eq!(
            list_base("cleanup.policy", None, None, &server).as_deref(),
            Some("delete")
        );
        assert_eq!(list_base("retention.ms", None, None, &server), None);
    }
}
