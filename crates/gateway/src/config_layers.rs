//! The dynamic levels of configuration as this broker's image has them.

use std::collections::BTreeMap;

use ottla_config::{ConfigEntry, ServerConfig, TopicConfig, describe_topic};
use ottla_metadata::{ConfigResource, Image};
use ottla_types::BrokerId;

/// What is set at run time for one broker and for all.
#[derive(Clone, Copy)]
pub(crate) struct DynamicLayers<'a> {
    pub(crate) broker: Option<&'a BTreeMap<String, String>>,
    pub(crate) cluster: Option<&'a BTreeMap<String, String>>,
}

impl<'a> DynamicLayers<'a> {
    pub(crate) fn of(image: &'a Image, broker_id: BrokerId) -> DynamicLayers<'a> {
        DynamicLayers {
            broker: image.configs_of(&ConfigResource::Broker(broker_id)),
            cluster: image.configs_of(&ConfigResource::ClusterDefault),
        }
    }
}

/// A topic's own configs.
pub(crate) fn topic_overrides<'a>(
    image: &'a Image,
    topic: &str,
) -> Option<&'a BTreeMap<String, String>> {
    image.configs_of(&ConfigResource::Topic(topic.to_owned()))
}

/// A topic's configuration with every level looked at.
pub(crate) fn topic_config(
    image: &Image,
    broker_id: BrokerId,
    server: &ServerConfig,
    topic: &str,
) -> TopicConfig {
    let layers = DynamicLayers::of(image, broker_id);
    TopicConfig::resolve(
        topic_overrides(image, topic),
        layers.broker,
        layers.cluster,
        server,
    )
}

/// Every config of a topic with these overrides.
pub(crate) fn describe(
    image: &Image,
    broker_id: BrokerId,
    server: &ServerConfig,
    overrides: Option<&BTreeMap<String, String>>,
    replication_factor: usize,
) -> Vec<ConfigEntry> {
    let layers = DynamicLayers::of(image, broker_id);
    describe_topic(
        overrides,
        layers.broker,
        layers.cluster,
        server,
        replication_factor,
    )
}
