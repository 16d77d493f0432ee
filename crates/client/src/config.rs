//! What every client of a cluster needs to know.

use std::time::Duration;

/// Addresses, names and times shared by producer, consumer and admin.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `host:port` of brokers to begin with; any one that answers names all others.
    pub bootstrap: Vec<String>,
    /// What the brokers' logs call this client.
    pub client_id: String,
    /// Longest wait for one answer; then the connection is given up and the request retried.
    pub request_timeout: Duration,
    /// Longest wait for a connection, negotiation of versions included.
    pub connect_timeout: Duration,
    /// Pause before the first retry; doubles up to `retry_backoff_max`.
    pub retry_backoff: Duration,
    /// Longest pause between two retries.
    pub retry_backoff_max: Duration,
    /// Metadata is asked for again after this long even if nothing went wrong.
    pub metadata_max_age: Duration,
    /// Another broker is asked for metadata as well when one has been silent for this long.
    pub metadata_hedge_after: Duration,
    /// Metadata is asked for when a request to a leader has been unanswered for this long: the
    /// leader may have been replaced without its connection closing.
    pub stall_probe_after: Duration,
    /// Largest response that is accepted.
    pub response_bytes_max: usize,
}

impl ClientConfig {
    /// The defaults, for the brokers named.
    pub fn new(bootstrap: impl IntoIterator<Item = impl Into<String>>) -> ClientConfig {
        ClientConfig {
            bootstrap: bootstrap.into_iter().map(Into::into).collect(),
            client_id: "ottla-client".to_owned(),
            request_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            retry_backoff: Duration::from_millis(20),
            retry_backoff_max: Duration::from_millis(100),
            metadata_max_age: Duration::from_secs(300),
            metadata_hedge_after: Duration::from_millis(250),
            stall_probe_after: Duration::from_millis(500),
            response_bytes_max: 128 << 20,
        }
    }

    /// The defaults, for a comma-separated list of brokers.
    #[must_use]
    pub fn from_list(bootstrap: &str) -> ClientConfig {
        let entries = bootstrap.split(',').map(str::trim);
        ClientConfig::new(entries.filter(|entry| !entry.is_empty()))
    }
}
