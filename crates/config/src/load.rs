//! File, environment and overrides become one set of checked settings.
//!
//! Precedence: override, then environment, then file, then default. Unknown keys of a file or an
//! override are errors; an unknown `KAFKA_…` variable, which may be meant for something else in
//! the container, is one warning.

use std::{collections::BTreeMap, fmt};

use crate::{
    env::{Variable, variable},
    error::{ConfigError, ConfigErrors},
    key::{ConfigKey, Effect},
    properties::parse_properties,
    server::ServerConfig,
    tables::{broker_key, broker_keys, nearest},
};

/// A configuration file, already read.
#[derive(Clone, Debug, Default)]
pub struct ConfigFile {
    /// Its path, for messages.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Everything a node's configuration is made of.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file.
    pub file: Option<ConfigFile>,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// `key=value` from the command line.
    pub overrides: Vec<String>,
    /// This machine's name, advertised where a listener has no host.
    pub hostname: String,
}

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Override,
    /// This variable.
    Environment(String),
    /// A line of the file.
    File {
        /// The file's path.
        name: String,
        /// The line, from 1.
        line: usize,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Override => f.write_str("--override"),
            Origin::Environment(name) => write!(f, "environment variable {name}"),
            Origin::File { name, line } => write!(f, "{name} line {line}"),
        }
    }
}

/// A value that was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The value, without blanks around it.
    pub value: String,
    /// Where it was set.
    pub origin: Origin,
}

/// The broker keys as they were set before the start; each value has been checked by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaticConfig {
    settings: BTreeMap<String, Setting>,
}

impl StaticConfig {
    /// What was set for this key.
    #[must_use]
    pub fn explicit(&self, name: &str) -> Option<&Setting> {
        self.settings.get(name)
    }

    /// What was set for this key, or its default.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        match self.settings.get(name) {
            Some(setting) => Some(&setting.value),
            None => broker_key(name)?.default_text(),
        }
    }

    /// Every setting, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.settings
            .iter()
            .map(|(key, setting)| (key.as_str(), setting))
    }

    /// An error about this key that says where its value stands.
    pub(crate) fn error(&self, key: &str, reason: impl Into<String>) -> ConfigError {
        match self.settings.get(key) {
            Some(setting) => ConfigError::new(key, &setting.value, reason).at(&setting.origin),
            None => ConfigError::without_value(key, reason),
        }
    }
}

/// A configuration that may start, and what the operator should know about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: ServerConfig,
    /// Oddities, one line each.
    pub warnings: Vec<String>,
    /// Decisions taken for the operator, one line each.
    pub notes: Vec<String>,
}

impl ServerConfig {
    /// Loads a node's configuration, or says everything that is wrong with it.
    pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
        let mut reader = Reader::default();
        // From the weakest source to the strongest: later ones replace earlier ones.
        reader.read_file(sources.file.as_ref());
        reader.read_environment(&sources.environment);
        reader.read_overrides(&sources.overrides);
        if !reader.errors.is_empty() {
            return Err(ConfigErrors(reader.errors));
        }
        reader.warn_of_keys_without_effect();
        let mut notes = Vec::new();
        let statics = StaticConfig {
            settings: reader.settings,
        };
        let config = ServerConfig::build(statics, &sources.hostname, &mut notes)?;
        Ok(Loaded {
            config,
            warnings: reader.warnings,
            notes,
        })
    }
}

#[derive(Default)]
struct Reader {
    settings: BTreeMap<String, Setting>,
    errors: Vec<ConfigError>,
    warnings: Vec<String>,
}

impl Reader {
    fn read_file(&mut self, file: Option<&ConfigFile>) {
        let Some(ConfigFile { name, text }) = file else {
            return;
        };
        let properties = match parse_properties(text) {
            Ok(properties) => properties,
            Err(error) => {
                let error = ConfigError::without_value(name, error.to_string());
                return self.errors.push(error);
            }
        };
        for property in properties {
            if self.settings.contains_key(&property.key) {
                let (key, line) = (&property.key, property.line);
                self.warnings
                    .push(format!("{key} is set twice in {name}; line {line} counts"));
            }
            let origin = Origin::File {
                name: name.clone(),
                line: property.line,
            };
            self.set(&property.key, &property.value, origin);
        }
    }

    fn read_environment(&mut self, environment: &[(String, String)]) {
        for (name, value) in environment {
            match variable(name, value) {
                Variable::Ignored => {}
                Variable::Sets(key) => self.set(&key, value, Origin::Environment(name.clone())),
                Variable::Unknown(key) => {
                    let hint = nearest(&key, broker_keys())
                        .map(|near| format!("; did you mean {near}?"))
                        .unwrap_or_default();
                    self.warnings.push(format!(
                        "environment variable {name} is ignored: there is no key {key}{hint}"
                    ));
                }
            }
        }
    }

    fn read_overrides(&mut self, overrides: &[String]) {
        for text in overrides {
            match text.split_once('=') {
                Some((key, value)) => self.set(key.trim(), value, Origin::Override),
                None => self.errors.push(
                    ConfigError::without_value(text, "not of the form key=value")
                        .at(Origin::Override),
                ),
            }
        }
    }

    fn set(&mut self, key: &str, value: &str, origin: Origin) {
        let value = value.trim();
        let checked = match broker_key(key) {
            Some(known) if value.is_empty() && may_be_empty(known) => Ok(()),
            Some(known) => known.check(value),
            None if is_open_ended(key) => Ok(()),
            None => Err(unknown_key(key, value)),
        };
        match checked {
            Err(error) => self.errors.push(error.at(&origin)),
            Ok(()) => {
                let setting = Setting {
                    value: value.to_owned(),
                    origin,
                };
                self.settings.insert(key.to_owned(), setting);
            }
        }
    }

    /// Kafka's files are full of keys that tune what does not exist here: one line names them.
    fn warn_of_keys_without_effect(&mut self) {
        let idle = self
            .settings
            .iter()
            .filter(|(key, setting)| match broker_key(key) {
                Some(key) => key.effect == Effect::None && !key.is_default(&setting.value),
                None => true,
            });
        let idle: Vec<&str> = idle.map(|(key, _)| key.as_str()).collect();
        if !idle.is_empty() {
            self.warnings
                .push(format!("accepted without effect: {}", idle.join(", ")));
        }
    }
}

/// An empty value of a key whose default is null or empty means "unset", as in Kafka's files.
fn may_be_empty(key: &ConfigKey) -> bool {
    use crate::key::{DefaultValue, Kind};
    let text = matches!(
        key.kind,
        Kind::String | Kind::List | Kind::Class | Kind::Password
    );
    text && matches!(key.default, DefaultValue::Null | DefaultValue::Value(""))
        || key.name == "http.listener"
}

/// Keys whose names are not fixed: per listener, or of plug-ins that Kafka hands them to.
pub(crate) fn is_open_ended(key: &str) -> bool {
    const PREFIXES: [&str; 4] = [
        "listener.name.",
        "config.providers.",
        "rlmm.config.",
        "rsm.config.",
    ];
    const OF_THE_AUTHORIZER: [&str; 2] = ["super.users", "allow.everyone.if.no.acl.found"];
    PREFIXES.iter().any(|prefix| key.starts_with(prefix)) || OF_THE_AUTHORIZER.contains(&key)
}

fn unknown_key(key: &str, value: &str) -> ConfigError {
    let removed = if key.starts_with("zookeeper.") || key == "broker.id.generation.enable" {
        Some("there is no ZooKeeper here: see controller.quorum.voters")
    } else {
        REMOVED
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, reason)| *reason)
    };
    match removed {
        Some(reason) => ConfigError::new(key, value, format!("removed from Kafka: {reason}")),
        None => {
            let mut error = ConfigError::new(key, value, "unknown key");
            error.nearest = nearest(key, broker_keys());
            error
        }
    }
}

/// Keys of Kafka 3 that old files still carry.
const REMOVED: [(&str, &str); 7] = [
    (
        "inter.broker.protocol.version",
        "versions follow the finalized features",
    ),
    ("log.message.format.version", "there is one record format"),
    (
        "log.message.downconversion.enable",
        "old record formats are not served",
    ),
    (
        "log.message.timestamp.difference.max.ms",
        "use log.message.timestamp.before.max.ms and log.message.timestamp.after.max.ms",
    ),
    (
        "offsets.commit.required.acks",
        "offset commits are always replicated",
    ),
    (
        "control.plane.listener.name",
        "controllers have a listener of their own",
    ),
    (
        "leader.imbalance.per.broker.percentage",
        "any imbalance is corrected",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@broker-1:9093
listeners=PLAINTEXT://broker-1:9092,CONTROLLER://:9093
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
";

    fn load(extra: &str, environment: &[(&str, &str)], overrides: &[&str]) -> Sources {
        Sources {
            file: Some(ConfigFile {
                name: "f".to_owned(),
                text: format!("{FILE}{extra}"),
            }),
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            overrides: overrides.iter().map(|text| (*text).to_owned()).collect(),
            hostname: "here".to_owned(),
        }
    }

    fn errors(sources: &Sources) -> Vec<ConfigError> {
        ServerConfig::load(sources).unwrap_err().0
    }

    #[test]
    fn an_override_beats_the_environment_which_beats_the_file() {
        let partitions = |sources: &Sources| {
            ServerConfig::load(sources)
                .unwrap()
                .config
                .topics
                .num_partitions
        };
        let env = [("KAFKA_NUM_PARTITIONS", "4")];
        assert_eq!(partitions(&load("", &[], &[])), 1);
        assert_eq!(partitions(&load("num.partitions=3", &[], &[])), 3);
        assert_eq!(partitions(&load("num.partitions=3", &env, &[])), 4);
        assert_eq!(
            partitions(&load("num.partitions=3", &env, &["num.partitions=5"])),
            5
        );
    }

    #[test]
    fn an_unknown_key_names_the_nearest_and_the_place() {
        let error = errors(&load("log.retension.ms=5", &[], &[])).remove(0);
        assert_eq!(error.nearest, Some("log.retention.ms"));
        assert_eq!(
            error.to_string(),
            "log.retension.ms=5 (f line 7): unknown key; did you mean log.retention.ms?"
        );
        let error = errors(&load("", &[], &["num.partition=5"])).remove(0);
        assert_eq!(error.origin.as_deref(), Some("--override"));
    }

    #[test]
    fn an_invalid_value_names_what_is_accepted() {
        let error = errors(&load("num.partitions=none", &[], &[])).remove(0);
        assert_eq!(
            error.to_string(),
            "num.partitions=none (f line 7): not of type int; accepted: 1.."
        );
        let error = errors(&load("", &[("KAFKA_NUM_PARTITIONS", "0")], &[])).remove(0);
        assert_eq!(
            error.origin.as_deref(),
            Some("environment variable KAFKA_NUM_PARTITIONS")
        );
    }

    #[test]
    fn every_error_is_reported_at_once() {
        assert_eq!(
            errors(&load("num.partitions=0\nfoo=1\n", &[], &["x"])).len(),
            3
        );
    }

    #[test]
    fn an_unknown_variable_is_one_warning() {
        let loaded = ServerConfig::load(&load("", &[("KAFKA_NUM_PARTITION", "4")], &[])).unwrap();
        assert_eq!(loaded.warnings.len(), 1);
        assert!(loaded.warnings[0].contains("num.partitions"));
    }

    #[test]
    fn what_is_not_available_is_refused_with_the_reason() {
        for (line, word) in [
            (
                "controller.quorum.bootstrap.servers=a:9093",
                "controller.quorum.voters",
            ),
            (
                "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "ACL",
            ),
            ("remote.log.storage.system.enable=true", "tiering"),
            ("zookeeper.connect=zk:2181", "ZooKeeper"),
            ("log.cleanup.policy=compact", "compaction"),
            ("log.dirs=/a,/b", "one directory"),
        ] {
            let error = errors(&load(line, &[], &[])).remove(0);
            assert!(error.reason.contains(word), "{error}");
        }
    }

    #[test]
    fn keys_without_effect_are_named_in_one_warning() {
        let sources = load(
            "num.io.threads=16\nnum.network.threads=3\nsuper.users=User:a",
            &[],
            &[],
        );
        let loaded = ServerConfig::load(&sources).unwrap();
        assert_eq!(
            loaded.warnings,
            ["accepted without effect: num.io.threads, super.users"]
        );
    }

    #[test]
    fn a_secret_is_not_repeated_in_a_message() {
        let error = errors(&load("delegation.token.secret.key=hunter2", &[], &[])).remove(0);
        assert!(!error.to_string().contains("hunter2"));
    }
}
