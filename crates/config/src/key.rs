//! One row of a table of keys, and the check of a value against it.

use crate::{error::ConfigError, valid::Valid};

/// The type of a value; the names are Kafka's, and so is their number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// Text.
    String,
    /// A number of 32 bits.
    Int,
    /// A number of 16 bits.
    Short,
    /// A number of 64 bits.
    Long,
    /// A floating-point number.
    Double,
    /// Texts, comma separated.
    List,
    /// The name of a Java class.
    Class,
    /// A secret, never shown.
    Password,
}

impl Kind {
    /// The name as Kafka's documentation writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "boolean",
            Kind::String => "string",
            Kind::Int => "int",
            Kind::Short => "short",
            Kind::Long => "long",
            Kind::Double => "double",
            Kind::List => "list",
            Kind::Class => "class",
            Kind::Password => "password",
        }
    }
}

/// How often a key matters to an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Importance {
    /// Most will look at it.
    High,
    /// Some will.
    Medium,
    /// Few will.
    Low,
}

/// Whether a broker key can change while the broker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dynamic {
    /// Only by a restart.
    ReadOnly,
    /// For one broker at a time.
    PerBroker,
    /// For one broker or as the default of all.
    ClusterWide,
}

/// What a key does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// What its documentation says.
    Used,
    /// It is accepted, so that Kafka's files load, and changes nothing.
    None,
    /// What it turns on is not available: any value but the default is refused.
    DefaultOnly,
}

/// The value of a key that is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultValue {
    /// None at all.
    Null,
    /// It must be set.
    Required,
    /// Decided from the cluster when it is needed; the documentation says how.
    Auto,
    /// This.
    Value(&'static str),
}

/// One key.
#[derive(Clone, Debug)]
pub struct ConfigKey {
    /// Its name.
    pub name: &'static str,
    /// The type of its value.
    pub kind: Kind,
    /// Its value when not set.
    pub default: DefaultValue,
    /// Kafka's default, where ours differs; `none` for keys of our own.
    pub kafka_default: Option<&'static str>,
    /// What is accepted, for people; empty where the type says it all.
    pub accepted: &'static str,
    /// How much it matters.
    pub importance: Importance,
    /// Whether a broker key can change at run time; topic keys always can.
    pub dynamic: Dynamic,
    /// What it does here.
    pub effect: Effect,
    /// Broker keys behind a topic key, the winning one first; the last has a default.
    pub synonyms: Vec<&'static str>,
    /// One sentence.
    pub doc: &'static str,
    pub(crate) valid: Valid,
}

impl ConfigKey {
    /// Whether the key is one that Kafka does not have.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.kafka_default == Some("none")
    }

    /// Whether the value must never be shown.
    #[must_use]
    pub fn is_sensitive(&self) -> bool {
        self.kind == Kind::Password
    }

    /// The default as text; `None` for null, required and decided ones.
    #[must_use]
    pub const fn default_text(&self) -> Option<&'static str> {
        match self.default {
            DefaultValue::Value(text) => Some(text),
            DefaultValue::Null | DefaultValue::Required | DefaultValue::Auto => None,
        }
    }

    /// Checks a value: its type, its range, and that what it asks for exists here.
    pub fn check(&self, value: &str) -> Result<(), ConfigError> {
        let value = value.trim();
        self.check_form(value)?;
        // Internal topics carry `compact` and simply grow, so the form is known and the wish is not.
        if self.name.ends_with("cleanup.policy") && split_list(value).any(|item| item == "compact")
        {
            let reason = "compaction is not available yet".to_owned();
            return Err(self.refuse(value, reason).accepted("delete"));
        }
        if self.effect == Effect::DefaultOnly && !self.is_default(value) {
            let default = self.default_text().unwrap_or("unset");
            let accepted = if default.is_empty() { "empty" } else { default };
            let reason = format!("not available: {}", self.doc);
            let error = self.refuse(value, reason);
            return Err(error.accepted(accepted));
        }
        Ok(())
    }

    /// Checks a value's type and range only.
    pub(crate) fn check_form(&self, value: &str) -> Result<(), ConfigError> {
        self.check_kind(value)
            .and_then(|()| self.valid.check(value))
            .map_err(|reason| self.refuse(value, reason).accepted(self.accepted_text()))
    }

    /// A refusal that does not repeat a secret.
    pub(crate) fn refuse(&self, value: &str, reason: String) -> ConfigError {
        if self.is_sensitive() {
            ConfigError::without_value(self.name, reason)
        } else {
            ConfigError::new(self.name, value, reason)
        }
    }

    /// What is accepted, for people.
    #[must_use]
    pub fn accepted_text(&self) -> String {
        if self.accepted.is_empty() {
            match self.kind {
                Kind::Boolean => "true or false".to_owned(),
                kind => format!("any {}", kind.name()),
            }
        } else {
            self.accepted.to_owned()
        }
    }

    pub(crate) fn is_default(&self, value: &str) -> bool {
        match self.default {
            DefaultValue::Value(text) => text == value,
            DefaultValue::Null | DefaultValue::Required | DefaultValue::Auto => value.is_empty(),
        }
    }

    fn check_kind(&self, value: &str) -> Result<(), String> {
        let well_formed = match self.kind {
            Kind::Boolean => parse_bool(value).is_some(),
            Kind::Int => value.parse::<i32>().is_ok(),
            Kind::Short => value.parse::<i16>().is_ok(),
            Kind::Long => value.parse::<i64>().is_ok(),
            Kind::Double => value.parse::<f64>().is_ok_and(f64::is_finite),
            Kind::String | Kind::List | Kind::Class | Kind::Password => true,
        };
        if well_formed {
            Ok(())
        } else {
            Err(format!("not of type {}", self.kind.name()))
        }
    }
}

/// Kafka accepts any case.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// The elements of a list.
pub(crate) fn split_list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}
