//! Administration: topics, configs, groups, partitions, the cluster itself.
//!
//! Each call goes to whom it concerns: any broker (they forward to the controller), the leaders of
//! partitions, the coordinators of groups, or brokers by name. What a broker does not serve is an
//! error that says so ([`RequestError::UnsupportedVersion`]).

mod cluster;
mod configs;
mod groups;
mod partitions;
mod route;
mod topics;

use std::time::Duration;

use tokio::time::Instant;

use ottla_wire::{ErrorCode, StrBytes};

pub use cluster::{ClusterDescription, LogDir, LogDirReplica, QuorumDescription, QuorumReplica};
pub use configs::{AlterConfig, ConfigChange, ConfigEntry, ConfigResource};
pub use groups::{GroupDescription, GroupListing, GroupMember};
pub use partitions::{ElectionType, ProducerState, Reassignment};
pub use topics::NewTopic;

use crate::{cluster::Cluster, config::ClientConfig, error::RequestError, producer::ConfigError};

/// An admin client; cheap to clone.
#[derive(Clone)]
pub struct Admin {
    cluster: Cluster,
    timeout: Duration,
}

/// A broker refused one item of a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}{}", .message.as_deref().map(|m| format!(": {m}")).unwrap_or_default())]
pub struct Refusal {
    /// The reason; only this is a contract.
    pub code: ErrorCode,
    /// The reason in words.
    pub message: Option<String>,
}

/// A request as a whole did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AdminError {
    /// A broker refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It was not answered: see [`RequestError::may_have_happened`].
    #[error(transparent)]
    Request(#[from] RequestError),
    /// It was not carried out in time.
    #[error("not carried out in time{}", .0.as_deref().map(|e| format!(", last: {e}")).unwrap_or_default())]
    NotInTime(Option<String>),
}

impl Admin {
    /// An admin of this cluster; nothing is asked of it yet.
    ///
    /// # Errors
    /// No brokers are named.
    pub fn new(config: ClientConfig) -> Result<Admin, ConfigError> {
        if config.bootstrap.is_empty() {
            return Err(ConfigError("no bootstrap brokers"));
        }
        Ok(Admin {
            cluster: Cluster::new(config),
            timeout: Duration::from_secs(60),
        })
    }

    /// With another limit for each call, retries included (60 s).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Admin {
        self.timeout = timeout;
        self
    }

    /// Ends all connections.
    pub async fn close(&self) {
        self.cluster.close().await;
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// The limit as requests carry it.
    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.timeout.as_millis()).unwrap_or(i32::MAX)
    }
}

/// `Ok` for no error.
fn item(number: i16, message: Option<&StrBytes>) -> Result<(), Refusal> {
    match crate::error::code(number) {
        ErrorCode::None => Ok(()),
        code => Err(Refusal {
            code,
            message: message.map(ToString::to_string),
        }),
    }
}
