//! Configs of topics, brokers and groups: describing and changing them.

use std::collections::BTreeMap;

use ottla_types::BrokerId;
use ottla_wire::{
    ErrorCode,
    messages::{
        DescribeConfigsRequest, DescribeConfigsResponse, IncrementalAlterConfigsRequest,
        describe_configs_request::DescribeConfigsResource,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    },
};

use super::{Admin, AdminError, Refusal, item, route::Repeat};
use crate::leaders::text;

/// Whose configs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfigResource {
    /// A topic's.
    Topic(String),
    /// One broker's; asked of that very broker.
    Broker(BrokerId),
    /// The defaults of all brokers.
    BrokerDefaults,
    /// A group's.
    Group(String),
}

impl ConfigResource {
    const fn kind(&self) -> i8 {
        match self {
            ConfigResource::Topic(_) => 2,
            ConfigResource::Broker(_) | ConfigResource::BrokerDefaults => 4,
            ConfigResource::Group(_) => 32,
        }
    }

    fn name(&self) -> String {
        match self {
            ConfigResource::Topic(name) | ConfigResource::Group(name) => name.clone(),
            ConfigResource::Broker(broker) => broker.to_string(),
            ConfigResource::BrokerDefaults => String::new(),
        }
    }

    const fn broker(&self) -> Option<BrokerId> {
        match self {
            ConfigResource::Broker(broker) => Some(*broker),
            ConfigResource::Topic(_)
            | ConfigResource::BrokerDefaults
            | ConfigResource::Group(_) => None,
        }
    }
}

/// One config as it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its value; `None` for secrets.
    pub value: Option<String>,
    /// Whether it can be changed at run time.
    pub is_read_only: bool,
    /// Whether it is a secret.
    pub is_sensitive: bool,
    /// Where the value comes from, by Kafka's number (1 topic, 2 broker, 3 all brokers, 4 file,
    /// 5 default).
    pub source: i8,
}

/// A change of one config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// To this value.
    Set(String),
    /// To what it is without a value of its own.
    Delete,
    /// These are added to a list.
    Append(String),
    /// These are taken from a list.
    Subtract(String),
}

/// All changes of one resource, by key.
pub type AlterConfig = BTreeMap<String, ConfigChange>;

impl Admin {
    /// The configs of one resource.
    ///
    /// # Errors
    /// It was refused, or the request did not succeed.
    pub async fn describe_configs(
        &self,
        resource: &ConfigResource,
    ) -> Result<BTreeMap<String, ConfigEntry>, AdminError> {
        let build = |_version: i16| {
            let row = DescribeConfigsResource::default()
                .with_resource_type(resource.kind())
                .with_resource_name(text(&resource.name()))
                .with_configuration_keys(None);
            DescribeConfigsRequest::default().with_resources(vec![row])
        };
        let response: DescribeConfigsResponse = match resource.broker() {
            Some(broker) => self.to_one(broker, build).await?,
            None => {
                self.to_any(Repeat::Freely, build, |_| ErrorCode::None)
                    .await?
            }
        };
        let Some(result) = response.results.into_iter().next() else {
            return Err(super::route::unanswered(&resource.name()));
        };
        item(result.error_code, result.error_message.as_ref())?;
        let rows = result.configs.into_iter().map(|config| {
            let entry = ConfigEntry {
                value: config.value.as_ref().map(ToString::to_string),
                is_read_only: config.read_only,
                is_sensitive: config.is_sensitive,
                source: config.config_source,
            };
            (config.name.to_string(), entry)
        });
        Ok(rows.collect())
    }

    /// Changes configs of one resource.
    ///
    /// # Errors
    /// It was refused, or the request did not succeed.
    pub async fn alter_configs(
        &self,
        resource: &ConfigResource,
        changes: &AlterConfig,
        validate_only: bool,
    ) -> Result<(), AdminError> {
        let build = |_version: i16| {
            let configs = changes.iter().map(|(key, change)| {
                let (operation, value) = match change {
                    ConfigChange::Set(value) => (0, Some(value)),
                    ConfigChange::Delete => (1, None),
                    ConfigChange::Append(value) => (2, Some(value)),
                    ConfigChange::Subtract(value) => (3, Some(value)),
                };
                AlterableConfig::default()
                    .with_name(text(key))
                    .with_config_operation(operation)
                    .with_value(value.map(|value| text(value)))
            });
            let row = AlterConfigsResource::default()
                .with_resource_type(resource.kind())
                .with_resource_name(text(&resource.name()))
                .with_configs(configs.collect());
            IncrementalAlterConfigsRequest::default()
                .with_resources(vec![row])
                .with_validate_only(validate_only)
        };
        // Setting and deleting twice is the same as once; adding to a list is, too.
        let response = match resource.broker() {
            Some(broker) => self.to_one(broker, build).await?,
            None => {
                self.to_any(Repeat::Freely, build, |_| ErrorCode::None)
                    .await?
            }
        };
        let Some(result) = response.responses.first() else {
            return Err(super::route::unanswered(&resource.name()));
        };
        let refused: Result<(), Refusal> = item(result.error_code, result.error_message.as_ref());
        Ok(refused?)
    }
}
