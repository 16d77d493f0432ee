//! The levels at which a broker key, or the key behind a topic key, may be set.

use std::collections::BTreeMap;

use crate::{
    describe::{ConfigSource, ConfigSynonym},
    key::{ConfigKey, DefaultValue},
    load::StaticConfig,
    tables::broker_key,
};

/// Dynamic broker values over static ones; the strongest level first.
#[derive(Clone, Copy)]
pub(crate) struct Layers<'a> {
    /// Set for this broker.
    pub(crate) broker: Option<&'a BTreeMap<String, String>>,
    /// Set for all brokers.
    pub(crate) cluster: Option<&'a BTreeMap<String, String>>,
    /// Set before the start.
    pub(crate) statics: &'a StaticConfig,
}

impl Layers<'_> {
    /// Every level at which one of `names` has a value, the winning one first. `auto` stands for
    /// defaults that are decided when they are needed.
    pub(crate) fn synonyms(&self, names: &[&str], auto: Option<&str>) -> Vec<ConfigSynonym> {
        let mut found = Vec::new();
        let mut add = |name: &str, value: Option<&str>, source| {
            if let Some(value) = value {
                found.push(ConfigSynonym {
                    name: name.to_owned(),
                    value: value.to_owned(),
                    source,
                });
            }
        };
        let dynamic = [
            (self.broker, ConfigSource::DynamicBroker),
            (self.cluster, ConfigSource::DynamicDefaultBroker),
        ];
        for (level, source) in dynamic {
            for name in names {
                add(
                    name,
                    level.and_then(|level| level.get(*name)).map(String::as_str),
                    source,
                );
            }
        }
        for name in names {
            let setting = self
                .statics
                .explicit(name)
                .filter(|setting| !setting.value.is_empty());
            let value = setting.map(|setting| setting.value.as_str());
            add(name, value, ConfigSource::StaticBroker);
        }
        for name in names {
            let value = broker_key(name).and_then(|key| match key.default {
                DefaultValue::Value(text) => Some(text),
                DefaultValue::Auto => auto,
                DefaultValue::Null | DefaultValue::Required => None,
            });
            add(name, value, ConfigSource::Default);
        }
        found
    }

    /// The value of a topic key that has none of its own, in the topic key's unit.
    pub(crate) fn topic_default(&self, key: &ConfigKey, auto: Option<&str>) -> Option<String> {
        let synonyms = self.synonyms(&key.synonyms, auto);
        // A value that an older version stored and this one refuses falls through to the next.
        let usable = synonyms
            .iter()
            .map(|synonym| in_topic_unit(&synonym.name, &synonym.value))
            .find(|value| key.is_well_formed(value));
        usable.or_else(|| match key.default {
            DefaultValue::Value(text) => Some(text.to_owned()),
            DefaultValue::Auto => auto.map(str::to_owned),
            DefaultValue::Null | DefaultValue::Required => None,
        })
    }
}

/// Topic keys count in milliseconds where some broker keys behind them count in hours.
fn in_topic_unit(broker_key: &str, value: &str) -> String {
    let factor = if broker_key.ends_with(".hours") {
        3_600_000
    } else if broker_key.ends_with(".minutes") {
        60_000
    } else {
        return value.to_owned();
    };
    match value.parse::<i64>() {
        Ok(number) if number >= 0 => number.saturating_mul(factor).to_string(),
        Ok(_) | Err(_) => value.to_owned(),
    }
}

/// The keys that fall back on each other, for one of them; alone where there are none.
pub(crate) fn fallback_group(name: &str) -> &[&str] {
    const GROUPS: [&[&str]; 4] = [
        &[
            "log.retention.ms",
            "log.retention.minutes",
            "log.retention.hours",
        ],
        &["log.roll.ms", "log.roll.hours"],
        &["log.roll.jitter.ms", "log.roll.jitter.hours"],
        &["log.flush.interval.ms", "log.flush.scheduler.interval.ms"],
    ];
    GROUPS
        .iter()
        .find(|group| group.contains(&name))
        .copied()
        .unwrap_or(&[])
}
