//! What the broker counts and measures.
//!
//! Counters move where things happen; gauges are read off the published views and the image when
//! somebody asks. Names are given where they are exported.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn add_len(&self, count: usize) {
        self.add(u64::try_from(count).unwrap_or(u64::MAX));
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }

    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one broker.
        #[derive(Debug, Default)]
        pub struct BrokerMetrics {
            $($(#[$doc])* pub $name: Counter,)*
        }

        /// The counters' values at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct CounterValues {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl BrokerMetrics {
            /// All counters as they are now.
            #[must_use]
            pub fn values(&self) -> CounterValues {
                CounterValues { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// Bytes appended for producers.
    bytes_in,
    /// Bytes handed to consumers.
    bytes_out,
    /// Records appended for producers.
    messages_in,
    /// Batches appended for producers.
    batches_in,
    /// Bytes appended as follower.
    replication_bytes_in,
    /// Bytes sent to followers.
    replication_bytes_out,
    /// Members that left an ISR led here.
    isr_shrinks,
    /// Members that joined an ISR led here.
    isr_expands,
    /// ISR proposals refused or without answer.
    failed_isr_updates,
    /// Produce entries that failed.
    failed_produce_requests,
    /// Fetched partitions that failed.
    failed_fetch_requests,
    /// Flushes completed.
    log_flushes,
    /// Microseconds spent in them.
    log_flush_micros,
    /// Times this broker became the leader of a partition.
    became_leader,
    /// Truncations as follower.
    truncations,
    /// Truncations below the follower's own high watermark: after an unclean election only.
    truncations_below_high_watermark,
    /// Subscriptions of followers that were refused or diverged.
    replica_subscriptions_refused,
    /// Frames dropped: late, repeated or out of order.
    replica_frames_dropped,
    /// Produces refused for lack of room on the disk.
    no_space_rejections,
    /// Produces refused because the admission budget was spent.
    throttled_produces,
    /// Times the broker registered.
    registrations,
    /// Metadata updates folded.
    metadata_updates,
    /// Metadata streams that broke.
    metadata_errors,
    /// Batches found damaged, on the way or on disk.
    corrupt_batches,
}

/// Counters and gauges at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricsSnapshot {
    /// The counters.
    pub counters: CounterValues,
    /// Partitions led here with fewer in sync than assigned (M-1).
    pub under_replicated_partitions: usize,
    /// Partitions led here with fewer in sync than required (M-4).
    pub under_min_isr_partitions: usize,
    /// Partitions led here with exactly as many in sync as required.
    pub at_min_isr_partitions: usize,
    /// Replicas here whose log failed.
    pub offline_replicas: usize,
    /// Partitions led here.
    pub leader_count: usize,
    /// Replicas here.
    pub partition_count: usize,
    /// Partitions of the cluster without a leader, in this broker's image (M-2).
    pub offline_partitions: usize,
    /// Fetches that wait for data.
    pub fetch_purgatory_size: usize,
    /// Bytes of produce requests that wait in shards.
    pub admission_bytes: usize,
    /// Index of the metadata image.
    pub metadata_index: u64,
    /// How far the image is behind what the controller had applied when it last said so.
    pub metadata_lag: u64,
    /// 1 while fenced or unregistered.
    pub fenced: bool,
    /// Failed log directories (M-10).
    pub offline_log_directories: usize,
    /// Bytes in all logs.
    pub log_bytes: u64,
    /// Groups coordinated here.
    pub groups: crate::groups::GroupNumbers,
}
