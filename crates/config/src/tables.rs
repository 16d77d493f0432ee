//! The two tables of keys, read once from the rows compiled into the binary.

use std::sync::LazyLock;

use crate::{
    key::{ConfigKey, DefaultValue, Dynamic, Effect, Importance, Kind},
    valid::Valid,
};

static BROKER: LazyLock<Vec<ConfigKey>> =
    LazyLock::new(|| rows(include_str!("keys/broker.tsv"), false));
static TOPIC: LazyLock<Vec<ConfigKey>> =
    LazyLock::new(|| rows(include_str!("keys/topic.tsv"), true));

/// Every broker key, sorted by name.
#[must_use]
pub fn broker_keys() -> &'static [ConfigKey] {
    &BROKER
}

/// Every topic key, sorted by name.
#[must_use]
pub fn topic_keys() -> &'static [ConfigKey] {
    &TOPIC
}

/// The broker key of this name.
#[must_use]
pub fn broker_key(name: &str) -> Option<&'static ConfigKey> {
    find(&BROKER, name)
}

/// The topic key of this name.
#[must_use]
pub fn topic_key(name: &str) -> Option<&'static ConfigKey> {
    find(&TOPIC, name)
}

fn find(table: &'static [ConfigKey], name: &str) -> Option<&'static ConfigKey> {
    table
        .binary_search_by(|key| key.name.cmp(name))
        .ok()
        .map(|position| &table[position])
}

/// The known key that is written most like `name`, if any is near.
pub(crate) fn nearest(name: &str, known: &'static [ConfigKey]) -> Option<&'static str> {
    known
        .iter()
        .map(|key| (strsim::jaro_winkler(name, key.name), key.name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

fn rows(table: &'static str, of_topics: bool) -> Vec<ConfigKey> {
    let row = |line| row(line, of_topics).expect("the tests read every row of the tables");
    table.lines().skip(1).map(row).collect()
}

fn row(line: &'static str, of_topics: bool) -> Option<ConfigKey> {
    let mut columns = line.split('\t');
    let mut next = || columns.next();
    let (name, kind, default, kafka_default) = (next()?, next()?, next()?, next()?);
    let (valid, importance, dynamic_or_synonyms) = (next()?, next()?, next()?);
    let (effect, doc) = (next()?, next()?);
    Some(ConfigKey {
        name,
        kind: kind_of(kind)?,
        default: default_of(default),
        kafka_default: (!kafka_default.is_empty()).then_some(kafka_default),
        accepted: valid,
        importance: importance_of(importance)?,
        dynamic: if of_topics {
            Dynamic::ClusterWide
        } else {
            dynamic_of(dynamic_or_synonyms)?
        },
        effect: effect_of(effect)?,
        synonyms: if of_topics {
            dynamic_or_synonyms
                .split(',')
                .filter(|name| !name.is_empty())
                .collect()
        } else {
            Vec::new()
        },
        doc,
        valid: Valid::parse(valid)?,
    })
}

fn kind_of(text: &str) -> Option<Kind> {
    Some(match text {
        "boolean" => Kind::Boolean,
        "string" => Kind::String,
        "int" => Kind::Int,
        "short" => Kind::Short,
        "long" => Kind::Long,
        "double" => Kind::Double,
        "list" => Kind::List,
        "class" => Kind::Class,
        "password" => Kind::Password,
        _ => return None,
    })
}

fn default_of(text: &'static str) -> DefaultValue {
    match text {
        "null" => DefaultValue::Null,
        "required" => DefaultValue::Required,
        "auto" => DefaultValue::Auto,
        value => DefaultValue::Value(value),
    }
}

fn importance_of(text: &str) -> Option<Importance> {
    Some(match text {
        "high" => Importance::High,
        "medium" => Importance::Medium,
        "low" => Importance::Low,
        _ => return None,
    })
}

fn dynamic_of(text: &str) -> Option<Dynamic> {
    Some(match text {
        "read-only" => Dynamic::ReadOnly,
        "per-broker" => Dynamic::PerBroker,
        "cluster-wide" => Dynamic::ClusterWide,
        _ => return None,
    })
}

fn effect_of(text: &str) -> Option<Effect> {
    Some(match text {
        "used" => Effect::Used,
        "none" => Effect::None,
        "default" => Effect::DefaultOnly,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_well_formed_sorted_and_its_default_is_accepted() {
        for (table, text) in [
            (broker_keys(), include_str!("keys/broker.tsv")),
            (topic_keys(), include_str!("keys/topic.tsv")),
        ] {
            assert_eq!(table.len() + 1, text.lines().count());
            assert!(table.is_sorted_by(|a, b| a.name < b.name));
            for key in table {
                if let Some(default) = key.default_text() {
                    assert_eq!(key.check(default), Ok(()), "{}", key.name);
                }
                assert!(key.doc.ends_with('.') && key.doc.len() > 20, "{}", key.name);
            }
        }
    }

    #[test]
    fn kafka_4_3_has_340_broker_keys_and_33_topic_keys() {
        assert_eq!(
            broker_keys().iter().filter(|key| !key.is_ours()).count(),
            340
        );
        assert_eq!(topic_keys().iter().filter(|key| !key.is_ours()).count(), 33);
    }

    #[test]
    fn the_broker_keys_behind_a_topic_key_exist() {
        for key in topic_keys() {
            for synonym in &key.synonyms {
                let behind = broker_key(synonym).unwrap_or_else(|| panic!("{synonym}"));
                assert_eq!(behind.effect, key.effect, "{synonym}");
            }
            // The last synonym, or the topic key itself, supplies the value when nothing is set.
            let last = key
                .synonyms
                .last()
                .map_or(Some(key), |name| broker_key(name));
            assert!(
                last.is_some_and(|last| last.default != DefaultValue::Null),
                "{}",
                key.name
            );
        }
    }

    #[test]
    fn keys_of_our_own_are_recognizable() {
        for key in broker_keys().iter().filter(|key| key.is_ours()) {
            let named = key.name.starts_with("ottla.");
            assert!(
                named || ["http.listener", "cluster.id"].contains(&key.name),
                "{}",
                key.name
            );
        }
    }

    #[test]
    fn the_nearest_key_is_the_one_that_was_meant() {
        let near = |name| nearest(name, broker_keys());
        assert_eq!(near("log.retension.hours"), Some("log.retention.hours"));
        assert_eq!(near("nodeid"), Some("node.id"));
        assert_eq!(near("zzz"), None);
    }
}
