//! What the gateway counts: per API requests, errors and total time, and its connections.
//!
//! Plain atomics, read by whoever publishes them; names and labels are theirs.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use ottla_wire::Api;

/// Upper bounds of the latency histogram's buckets; the last bucket has none.
pub const LATENCY_BUCKETS_SECONDS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// Counters of one API.
#[derive(Debug, Default)]
pub(crate) struct ApiMetrics {
    requests: AtomicU64,
    errors: AtomicU64,
    total_micros: AtomicU64,
    buckets: [AtomicU64; LATENCY_BUCKETS_SECONDS.len() + 1],
}

impl ApiMetrics {
    /// A request was answered after this long, with so many errors inside the answer.
    pub(crate) fn answered(&self, elapsed: Duration, errors: usize) {
        self.requests.fetch_add(1, Relaxed);
        if errors > 0 {
            self.errors
                .fetch_add(u64::try_from(errors).unwrap_or(u64::MAX), Relaxed);
        }
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        self.total_micros.fetch_add(micros, Relaxed);
        let seconds = elapsed.as_secs_f64();
        let bucket = LATENCY_BUCKETS_SECONDS.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Relaxed);
        }
    }
}

/// Everything the gateway counts.
#[derive(Debug)]
pub struct GatewayMetrics {
    apis: Vec<ApiMetrics>,
    connections: AtomicI64,
    pub(crate) connections_opened: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) requests_refused: AtomicU64,
    pub(crate) idle_closed: AtomicU64,
    pub(crate) bytes_read: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
}

impl Default for GatewayMetrics {
    fn default() -> GatewayMetrics {
        GatewayMetrics {
            apis: Api::ALL.iter().map(|_| ApiMetrics::default()).collect(),
            connections: AtomicI64::new(0),
            connections_opened: AtomicU64::new(0),
            connections_refused: AtomicU64::new(0),
            requests_refused: AtomicU64::new(0),
            idle_closed: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
        }
    }
}

/// One API's numbers at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiSnapshot {
    /// Kafka's name of the API.
    pub api: &'static str,
    /// Requests answered.
    pub requests: u64,
    /// Errors inside the answers; a request can have several.
    pub errors: u64,
    /// Sum of the time from a request's last byte to its answer.
    pub total_seconds: f64,
    /// How many answers fell into each of [`LATENCY_BUCKETS_SECONDS`], not cumulative; the last
    /// one counts what took longer than every bound.
    pub buckets: Vec<u64>,
}

/// The gateway's numbers at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewaySnapshot {
    /// Each API that is served, in the order of the keys.
    pub apis: Vec<ApiSnapshot>,
    /// Connections open now.
    pub connections: i64,
    /// Connections accepted since the start.
    pub connections_opened: u64,
    /// Connections closed at once because of a limit.
    pub connections_refused: u64,
    /// Frames that closed their connection: unknown API or version, wrong lengths.
    pub requests_refused: u64,
    /// Connections closed for being idle or stalled.
    pub idle_closed: u64,
    /// Bytes read from clients.
    pub bytes_read: u64,
    /// Bytes written to clients.
    pub bytes_written: u64,
}

impl GatewayMetrics {
    pub(crate) fn api(&self, api: Api) -> Option<&ApiMetrics> {
        let position = Api::ALL.binary_search(&api).ok()?;
        self.apis.get(position)
    }

    pub(crate) fn connection_opened(&self) {
        self.connections_opened.fetch_add(1, Relaxed);
        self.connections.fetch_add(1, Relaxed);
    }

    pub(crate) fn connection_closed(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    /// All numbers now.
    #[must_use]
    pub fn snapshot(&self) -> GatewaySnapshot {
        let api = |(api, metrics): (&Api, &ApiMetrics)| ApiSnapshot {
            api: api.name(),
            requests: metrics.requests.load(Relaxed),
            errors: metrics.errors.load(Relaxed),
            total_seconds: Duration::from_micros(metrics.total_micros.load(Relaxed)).as_secs_f64(),
            buckets: metrics
                .buckets
                .iter()
                .map(|bucket| bucket.load(Relaxed))
                .collect(),
        };
        GatewaySnapshot {
            apis: Api::ALL.iter().zip(&self.apis).map(api).collect(),
            connections: self.connections.load(Relaxed),
            connections_opened: self.connections_opened.load(Relaxed),
            connections_refused: self.connections_refused.load(Relaxed),
            requests_refused: self.requests_refused.load(Relaxed),
            idle_closed: self.idle_closed.load(Relaxed),
            bytes_read: self.bytes_read.load(Relaxed),
            bytes_written: self.bytes_written.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_lands_in_its_bucket() {
        let metrics = GatewayMetrics::default();
        let api = metrics.api(Api::Metadata).unwrap();
        api.answered(Duration::from_micros(100), 0);
        api.answered(Duration::from_millis(3), 2);
        api.answered(Duration::from_secs(60), 0);
        let snapshot = metrics.snapshot();
        let metadata = snapshot
            .apis
            .iter()
            .find(|api| api.api == "Metadata")
            .unwrap();
        assert_eq!((metadata.requests, metadata.errors), (3, 2));
        assert_eq!(metadata.buckets[0], 1);
        assert_eq!(metadata.buckets[5], 1);
        assert_eq!(metadata.buckets[16], 1);
        assert!(metadata.total_seconds > 60.0);
    }
}
