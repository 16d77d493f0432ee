//! Why a configuration is refused: always the key, the value, the reason and what would do.

use std::fmt;

/// One key that is unknown, or whose value is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The key as it was written.
    pub key: String,
    /// The value; `None` where it is missing, or must not be shown.
    pub value: Option<String>,
    /// Where it stands: a line of the file, a variable, an override.
    pub origin: Option<Box<str>>,
    /// What is wrong.
    pub reason: String,
    /// What is accepted instead.
    pub accepted: Option<Box<str>>,
    /// The known key nearest to an unknown one.
    pub nearest: Option<&'static str>,
}

impl ConfigError {
    /// A refusal of `value`.
    pub(crate) fn new(key: &str, value: &str, reason: impl Into<String>) -> ConfigError {
        ConfigError {
            key: key.to_owned(),
            value: Some(value.chars().take(256).collect()),
            origin: None,
            reason: reason.into(),
            accepted: None,
            nearest: None,
        }
    }

    /// A refusal without a value: the key is missing, or the value is secret.
    pub(crate) fn without_value(key: &str, reason: impl Into<String>) -> ConfigError {
        ConfigError {
            value: None,
            ..ConfigError::new(key, "", reason)
        }
    }

    pub(crate) fn accepted(mut self, accepted: impl Into<Box<str>>) -> ConfigError {
        self.accepted = Some(accepted.into());
        self
    }

    pub(crate) fn at(mut self, origin: impl fmt::Display) -> ConfigError {
        self.origin = Some(origin.to_string().into());
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key)?;
        if let Some(value) = &self.value {
            write!(f, "={value}")?;
        }
        if let Some(origin) = &self.origin {
            write!(f, " ({origin})")?;
        }
        write!(f, ": {}", self.reason)?;
        if let Some(accepted) = &self.accepted {
            write!(f, "; accepted: {accepted}")?;
        }
        if let Some(nearest) = &self.nearest {
            write!(f, "; did you mean {nearest}?")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a node's configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, error) in self.0.iter().enumerate() {
            if position > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> ConfigErrors {
        ConfigErrors(vec![error])
    }
}
