//! Every configuration key, its default, unit and check.
//!
//! The operator's keys are Kafka's. They stand once, as rows of `keys/broker.tsv` and
//! `keys/topic.tsv`: type, default, Kafka's default where ours differs, what is accepted, whether
//! it can change at run time, what it does here, and one sentence of documentation.
//! `docs/configuration.md` is generated from the same rows.
//!
//! Nothing is read globally: [`ServerConfig`] is built once from file, environment and overrides
//! and passed down, so that several nodes can run in one process.
//!
//! # Invariants
//! * A [`ServerConfig`] that exists is valid: every value was checked, alone and against others.
//! * An unknown key in the file or an override is an error that names the nearest known one.

mod alter;
mod describe;
mod docs;
mod env;
mod error;
mod key;
mod layers;
mod listeners;
mod load;
mod properties;
mod server;
mod tables;
mod topic;
mod valid;
mod values;
mod voters;

pub use alter::{
    AlterBrokerError, BrokerScope, check_broker_config, check_broker_config_removal,
    check_topic_config, check_topic_configs,
};
pub use describe::{
    ClusterFacts, ConfigEntry, ConfigSource, ConfigSynonym, describe_broker,
    describe_cluster_default, describe_topic, list_base,
};
pub use docs::configuration_markdown;
pub use error::{ConfigError, ConfigErrors};
pub use key::{ConfigKey, DefaultValue, Dynamic, Effect, Importance, Kind};
pub use listeners::{DEFAULT_REPLICATION_PORT, Listener, Listeners};
pub use load::{ConfigFile, Loaded, Origin, Setting, Sources, StaticConfig};
pub use properties::{PropertiesError, Property, parse_properties};
pub use server::{
    ClusterConfig, ConnectionLimits, GroupConfig, NetworkConfig, ReplicationConfig, Roles,
    ServerConfig, StorageConfig, ThreadConfig, TopicCreationConfig,
};
pub use tables::{broker_key, broker_keys, topic_key, topic_keys};
pub use topic::{CleanupPolicy, Compression, MinInsyncReplicas, TimestampType, TopicConfig};
pub use voters::{Voter, parse_voters};
