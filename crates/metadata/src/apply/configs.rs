//! Dynamic configs (KIP-339). Keys and values have been checked against the table of configs at
//! the edge; here stand the rules that need the cluster's exact state, or that elections rest on.

use std::collections::{BTreeMap, BTreeSet};

use super::{Draft, Named};
use crate::elections::{forget_elr_if_enough, revise};
use crate::settings::{MIN_INSYNC_REPLICAS, parse_min_isr};
use crate::{AlterConfigOp, CommandError, ConfigAlteration, ConfigResource, Outcome, Record};

const VALUE_BYTES_MAX: usize = 32_767;
const MIN_COMPACTION_LAG_MS: &str = "min.compaction.lag.ms";
const MAX_COMPACTION_LAG_MS: &str = "max.compaction.lag.ms";

/// The configs of a resource as they would be, and which of them changed.
struct Altered {
    values: BTreeMap<String, String>,
    changed: BTreeMap<String, Option<String>>,
}

impl Draft<'_> {
    pub(super) fn alter_configs(&mut self, alterations: &[ConfigAlteration]) -> Outcome {
        let named = Named::count(alterations.iter().map(|alteration| &alteration.resource));
        let alter = |alteration: &ConfigAlteration| {
            named.once(&&alteration.resource, &"a resource")?;
            self.alter_resource(alteration)
        };
        Outcome::AlteredConfigs(alterations.iter().map(alter).collect())
    }

    /// All of one resource's changes, or none.
    fn alter_resource(&mut self, alteration: &ConfigAlteration) -> Result<(), CommandError> {
        let resource = &alteration.resource;
        self.check_resource(resource)?;
        let mut altered = Altered {
            values: self.image.configs_of(resource).cloned().unwrap_or_default(),
            changed: BTreeMap::new(),
        };
        let mut seen = BTreeSet::new();
        for (key, op) in &alteration.ops {
            if !seen.insert(key) {
                return Err(CommandError::InvalidRequest(format!(
                    "{key} is altered twice"
                )));
            }
            check_min_isr_scope(resource, key, op)?;
            altered.alter(key, op)?;
        }
        match resource {
            ConfigResource::Topic(_) => check_topic_configs(&altered.values)?,
            ConfigResource::ClusterDefault => check_min_isr(&altered.values)?,
            ConfigResource::Broker(_)
            | ConfigResource::ControllerFile
            | ConfigResource::Group(_) => {}
        }
        let min_isr_changed = altered.changed.contains_key(MIN_INSYNC_REPLICAS);
        for (key, value) in altered.changed {
            self.emit(Record::Config {
                resource: resource.clone(),
                key,
                value,
            });
        }
        if min_isr_changed {
            self.forget_elrs_that_min_isr_does_not_protect();
        }
        Ok(())
    }

    fn check_resource(&self, resource: &ConfigResource) -> Result<(), CommandError> {
        match resource {
            ConfigResource::Topic(name) if self.image.topic(name).is_none() => {
                Err(CommandError::UnknownTopicOrPartition)
            }
            ConfigResource::Broker(id) if !self.image.brokers.contains_key(id) => {
                Err(CommandError::BrokerNotRegistered(*id))
            }
            ConfigResource::Group(id) if id.is_empty() => Err(CommandError::InvalidRequest(
                "the group id is empty".to_owned(),
            )),
            ConfigResource::Topic(_)
            | ConfigResource::Broker(_)
            | ConfigResource::ClusterDefault
            | ConfigResource::ControllerFile
            | ConfigResource::Group(_) => Ok(()),
        }
    }

    /// With a lower min ISR records are committed again without the ELR: from this command on it
    /// must not be elected (KIP-966).
    fn forget_elrs_that_min_isr_does_not_protect(&mut self) {
        let changed = revise(
            self.image,
            |record| !record.elr.is_empty(),
            |_, rules, record| forget_elr_if_enough(record, rules.min_isr(record.replicas.len())),
        );
        self.emit_partitions(changed);
    }
}

impl Altered {
    fn alter(&mut self, key: &str, op: &AlterConfigOp) -> Result<(), CommandError> {
        if key.is_empty() {
            return Err(CommandError::InvalidRequest(
                "a config key is empty".to_owned(),
            ));
        }
        let before = self.values.get(key);
        let after = match op {
            AlterConfigOp::Set(value) => Some(value.clone()),
            AlterConfigOp::Delete => None,
            AlterConfigOp::Append { base, value } => {
                let mut list = elements(before.unwrap_or(base));
                for element in elements(value) {
                    if !list.contains(&element) {
                        list.push(element);
                    }
                }
                Some(list.join(","))
            }
            AlterConfigOp::Subtract { base, value } => {
                let mut list = elements(before.unwrap_or(base));
                let removed = elements(value);
                list.retain(|element| !removed.contains(element));
                Some(list.join(","))
            }
        };
        if after
            .as_ref()
            .is_some_and(|value| value.len() > VALUE_BYTES_MAX)
        {
            let reason = format!("the value of {key} is longer than {VALUE_BYTES_MAX} bytes");
            return Err(CommandError::InvalidConfig(reason));
        }
        if before != after.as_ref() {
            match &after {
                Some(value) => self.values.insert(key.to_owned(), value.clone()),
                None => self.values.remove(key),
            };
            self.changed.insert(key.to_owned(), after);
        }
        Ok(())
    }
}

/// The elements of a list as it is written: separated by commas.
fn elements(list: &str) -> Vec<&str> {
    list.split(',')
        .map(str::trim)
        .filter(|element| !element.is_empty())
        .collect()
}

/// Eligible leader replicas rest on one min ISR that the whole cluster sees alike.
fn check_min_isr_scope(
    resource: &ConfigResource,
    key: &str,
    op: &AlterConfigOp,
) -> Result<(), CommandError> {
    if key != MIN_INSYNC_REPLICAS {
        return Ok(());
    }
    let invalid = |reason: &str| Err(CommandError::InvalidConfig(reason.to_owned()));
    match (resource, op) {
        (ConfigResource::Broker(_), _) => {
            invalid("min.insync.replicas cannot differ between brokers")
        }
        (ConfigResource::ClusterDefault, AlterConfigOp::Delete) => {
            invalid("the cluster's min.insync.replicas cannot be removed, only changed")
        }
        _ => Ok(()),
    }
}

/// Rules between the configs of one topic.
pub(super) fn check_topic_configs(configs: &BTreeMap<String, String>) -> Result<(), CommandError> {
    check_min_isr(configs)?;
    let lag_ms = |key: &str| {
        configs
            .get(key)
            .and_then(|value| value.trim().parse::<i64>().ok())
    };
    let least = lag_ms(MIN_COMPACTION_LAG_MS).unwrap_or(0);
    let most = lag_ms(MAX_COMPACTION_LAG_MS).unwrap_or(i64::MAX);
    if least > most {
        return Err(CommandError::InvalidConfig(format!(
            "{MIN_COMPACTION_LAG_MS} ({least}) is above {MAX_COMPACTION_LAG_MS} ({most})"
        )));
    }
    if let Some((key, _)) = configs
        .iter()
        .find(|(_, value)| value.len() > VALUE_BYTES_MAX)
    {
        let reason = format!("the value of {key} is longer than {VALUE_BYTES_MAX} bytes");
        return Err(CommandError::InvalidConfig(reason));
    }
    Ok(())
}

fn check_min_isr(configs: &BTreeMap<String, String>) -> Result<(), CommandError> {
    match configs.get(MIN_INSYNC_REPLICAS) {
        Some(value) if parse_min_isr(value).is_none() => {
            let value: String = value.chars().take(32).collect();
            let reason = format!("{MIN_INSYNC_REPLICAS} is a number from 1 up, not {value:?}");
            Err(CommandError::InvalidConfig(reason))
        }
        _ => Ok(()),
    }
}
