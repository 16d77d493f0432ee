//! Whether a config may be changed at run time, to a value that does what it says.

use std::collections::BTreeMap;

use crate::{
    error::ConfigError,
    key::{ConfigKey, Dynamic},
    server::parse_overrides_per_ip,
    tables::{broker_key, nearest, topic_key, topic_keys},
};

/// The longest value that Kafka stores.
const VALUE_CHARACTERS_MAX: usize = 32_767;

/// Which brokers a dynamic broker config is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerScope {
    /// One of them.
    One,
    /// All, as a default.
    All,
}

/// Why a dynamic broker config is refused; Kafka has two codes for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterBrokerError {
    /// Read-only, or not an acceptable value: INVALID_REQUEST.
    #[error("{0}")]
    InvalidRequest(ConfigError),
    /// Contradicts how eligible leader replicas work: INVALID_CONFIG.
    #[error("{0}")]
    InvalidConfig(ConfigError),
}

/// Checks one config of a topic, as users may set it.
pub fn check_topic_config(name: &str, value: &str) -> Result<(), ConfigError> {
    check_length(name, value)?;
    match topic_key(name) {
        Some(key) => key.check(value),
        None => {
            let mut error = ConfigError::new(name, value, "unknown topic config");
            error.nearest = nearest(name, topic_keys());
            Err(error)
        }
    }
}

/// Checks all configs of a topic, alone and against each other.
pub fn check_topic_configs(configs: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    for (name, value) in configs {
        check_topic_config(name, value)?;
    }
    let lag = |name: &str, default: i64| -> i64 {
        configs
            .get(name)
            .and_then(|value| value.trim().parse().ok())
            .unwrap_or(default)
    };
    const MIN: &str = "min.compaction.lag.ms";
    let (min, max) = (lag(MIN, 0), lag("max.compaction.lag.ms", i64::MAX));
    if min > max {
        let reason = format!("more than max.compaction.lag.ms={max}");
        return Err(ConfigError::new(MIN, &min.to_string(), reason));
    }
    Ok(())
}

/// Checks a dynamic broker config. Keys that are neither Kafka's nor ours are stored as they are,
/// as Kafka does for plug-ins.
pub fn check_broker_config(
    name: &str,
    value: &str,
    scope: BrokerScope,
) -> Result<(), AlterBrokerError> {
    use AlterBrokerError::{InvalidConfig, InvalidRequest};
    check_length(name, value).map_err(InvalidConfig)?;
    if THROTTLE_RATES.contains(&name) {
        let reason = "replication quotas are not available yet";
        return Err(InvalidRequest(ConfigError::new(name, value, reason)));
    }
    let Some(key) = broker_key(name) else {
        return Ok(());
    };
    if name == "min.insync.replicas" && scope == BrokerScope::One {
        return Err(InvalidConfig(
            key.refuse(value, MIN_ISR_PER_BROKER.to_owned()),
        ));
    }
    check_dynamic(key, value, scope).map_err(InvalidRequest)
}

/// Checks the removal of a dynamic broker config.
pub fn check_broker_config_removal(name: &str, scope: BrokerScope) -> Result<(), AlterBrokerError> {
    if name == "min.insync.replicas" {
        let reason = match scope {
            BrokerScope::One => MIN_ISR_PER_BROKER,
            BrokerScope::All => "with eligible leader replicas it can be set anew, not removed",
        };
        let error = ConfigError::without_value(name, reason);
        return Err(AlterBrokerError::InvalidConfig(error));
    }
    match broker_key(name) {
        Some(key) if key.dynamic == Dynamic::ReadOnly => {
            let error = ConfigError::without_value(name, READ_ONLY);
            Err(AlterBrokerError::InvalidRequest(error))
        }
        Some(_) | None => Ok(()),
    }
}

const READ_ONLY: &str = "read-only: it is set before the start and changed by a restart";
const MIN_ISR_PER_BROKER: &str =
    "with eligible leader replicas it cannot differ from broker to broker";

/// Set by Kafka's reassignment tool.
const THROTTLE_RATES: [&str; 3] = [
    "leader.replication.throttled.rate",
    "follower.replication.throttled.rate",
    "replica.alter.log.dirs.io.max.bytes.per.second",
];

fn check_dynamic(key: &ConfigKey, value: &str, scope: BrokerScope) -> Result<(), ConfigError> {
    let refuse = |reason: &str| Err(key.refuse(value, reason.to_owned()));
    match key.dynamic {
        Dynamic::ReadOnly => refuse(READ_ONLY),
        Dynamic::PerBroker if scope == BrokerScope::All => {
            refuse("it may be set for single brokers only")
        }
        Dynamic::PerBroker => refuse("it takes a restart here"),
        Dynamic::ClusterWide if !changes_at_run_time(key.name) => {
            refuse(&format!("changing it has no effect here: {}", key.doc))
        }
        Dynamic::ClusterWide => {
            key.check(value)?;
            if key.name == "max.connections.per.ip.overrides" {
                parse_overrides_per_ip(value).map_err(|reason| key.refuse(value, reason))?;
            }
            Ok(())
        }
    }
}

/// Broker keys that are looked at again whenever dynamic configs change.
pub(crate) fn changes_at_run_time(name: &str) -> bool {
    use crate::key::Effect;
    name.starts_with("max.connections")
        || topic_keys()
            .iter()
            .any(|key| key.effect == Effect::Used && key.synonyms.first() == Some(&name))
}

fn check_length(name: &str, value: &str) -> Result<(), ConfigError> {
    if value.len() > VALUE_CHARACTERS_MAX {
        let reason = format!("longer than {VALUE_CHARACTERS_MAX} bytes");
        return Err(ConfigError::without_value(name, reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_configs_are_checked_by_name_value_and_against_each_other() {
        assert_eq!(check_topic_config("retention.ms", "-1"), Ok(()));
        assert_eq!(check_topic_config("retention.ms", " 5 "), Ok(()));
        let error = check_topic_config("retention", "5").unwrap_err();
        assert_eq!(error.nearest, Some("retention.ms"));
        assert!(check_topic_config("segment.bytes", "14").is_err());
        assert!(check_topic_config("remote.storage.enable", "true").is_err());
        assert_eq!(check_topic_config("remote.storage.enable", "false"), Ok(()));
        let lags = BTreeMap::from([
            ("min.compaction.lag.ms".to_owned(), "9".to_owned()),
            ("max.compaction.lag.ms".to_owned(), "8".to_owned()),
        ]);
        assert_eq!(
            check_topic_configs(&lags).unwrap_err().key,
            "min.compaction.lag.ms"
        );
    }

    #[test]
    fn compact_is_refused_until_it_is_done() {
        for policy in ["compact", "delete,compact", "compact, delete"] {
            let error = check_topic_config("cleanup.policy", policy).unwrap_err();
            assert!(error.reason.contains("compaction"), "{error}");
        }
        assert_eq!(check_topic_config("cleanup.policy", "delete"), Ok(()));
    }

    #[test]
    fn only_what_takes_effect_may_change_at_run_time() {
        use AlterBrokerError::{InvalidConfig, InvalidRequest};
        use BrokerScope::{All, One};
        let check = check_broker_config;
        for scope in [One, All] {
            assert_eq!(check("log.retention.ms", "5", scope), Ok(()));
            assert_eq!(check("max.connections", "5", scope), Ok(()));
            assert_eq!(check("of.some.plugin", "5", scope), Ok(()));
            for (name, value) in [
                ("log.retention.hours", "5"),
                ("log.retention.ms", "x"),
                ("num.io.threads", "16"),
                ("listeners", "PLAINTEXT://:9092"),
                ("ottla.shards", "2"),
                ("log.cleanup.policy", "compact"),
                ("leader.replication.throttled.rate", "5"),
                ("max.connections.per.ip.overrides", "x"),
            ] {
                let refused = check(name, value, scope);
                assert!(
                    matches!(refused, Err(InvalidRequest(_))),
                    "{name} {refused:?}"
                );
            }
        }
        assert_eq!(check("min.insync.replicas", "2", All), Ok(()));
        assert!(matches!(
            check("min.insync.replicas", "2", One),
            Err(InvalidConfig(_))
        ));
        let removal = check_broker_config_removal;
        assert!(matches!(
            removal("min.insync.replicas", All),
            Err(InvalidConfig(_))
        ));
        assert!(matches!(removal("node.id", One), Err(InvalidRequest(_))));
        assert_eq!(removal("log.retention.ms", One), Ok(()));
    }
}
