//! From each role's numbers to the page. One function a role; a node renders those it has.

use ottla_broker::MetricsSnapshot;
use ottla_controller::ControllerMetrics;
use ottla_gateway::{GatewaySnapshot, LATENCY_BUCKETS_SECONDS};

use super::*;

/// The process: the same numbers whatever it is.
pub(crate) fn process(page: &mut Page, numbers: &ProcessNumbers, started_at_seconds: f64) {
    page.labelled(
        &BUILD,
        concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""),
        1_u64,
    );
    page.number(&START_TIME, started_at_seconds);
    if let Some(seconds) = numbers.cpu_seconds {
        page.number(&CPU_SECONDS, seconds);
    }
    for (metric, value) in [
        (&RESIDENT_MEMORY, numbers.resident_bytes),
        (&VIRTUAL_MEMORY, numbers.virtual_bytes),
        (&OPEN_FILES, numbers.open_files),
        (&THREADS, numbers.threads),
    ] {
        if let Some(value) = value {
            page.number(metric, value);
        }
    }
}

/// The broker role.
pub(crate) fn broker(page: &mut Page, numbers: &MetricsSnapshot) {
    let counters = &numbers.counters;
    page.number(&UNDER_REPLICATED, numbers.under_replicated_partitions);
    page.number(&UNDER_MIN_ISR, numbers.under_min_isr_partitions);
    page.number(&AT_MIN_ISR, numbers.at_min_isr_partitions);
    page.number(&OFFLINE_REPLICAS, numbers.offline_replicas);
    page.number(&LEADERS, numbers.leader_count);
    page.number(&PARTITIONS, numbers.partition_count);
    page.number(&ISR_SHRINKS, counters.isr_shrinks);
    page.number(&ISR_EXPANDS, counters.isr_expands);
    page.number(&FAILED_ISR_UPDATES, counters.failed_isr_updates);
    page.number(&MESSAGES_IN, counters.messages_in);
    page.number(&BATCHES_IN, counters.batches_in);
    page.number(&BYTES_IN, counters.bytes_in);
    page.number(&BYTES_OUT, counters.bytes_out);
    page.number(&REPLICATION_BYTES_IN, counters.replication_bytes_in);
    page.number(&REPLICATION_BYTES_OUT, counters.replication_bytes_out);
    page.number(&FAILED_PRODUCE, counters.failed_produce_requests);
    page.number(&FAILED_FETCH, counters.failed_fetch_requests);
    page.labelled(
        &PURGATORY,
        "delayedoperation=\"Fetch\"",
        numbers.fetch_purgatory_size,
    );
    let groups = &numbers.groups;
    page.number(&GROUPS, groups.groups);
    page.number(&GROUPS_PREPARING, groups.preparing_rebalance);
    page.number(&GROUPS_COMPLETING, groups.completing_rebalance);
    page.number(&GROUPS_STABLE, groups.stable);
    page.number(&GROUPS_DEAD, groups.dead);
    page.number(&GROUPS_EMPTY, groups.empty);
    page.number(&GROUP_OFFSETS, groups.offsets);
    page.number(&LOG_BYTES, numbers.log_bytes);
    page.number(&OFFLINE_LOG_DIRS, numbers.offline_log_directories);
    page.number(&FLUSHES, counters.log_flushes);
    page.number(&FLUSH_SECONDS, seconds_of_micros(counters.log_flush_micros));
    page.number(&METADATA_INDEX, numbers.metadata_index);
    page.number(&METADATA_LAG, numbers.metadata_lag);
    page.number(&METADATA_ERRORS, counters.metadata_errors);
    page.number(&FENCED, numbers.fenced);
    page.number(&ADMISSION_BYTES, numbers.admission_bytes);
    page.number(&THROTTLED, counters.throttled_produces);
    page.number(&NO_SPACE, counters.no_space_rejections);
    page.number(&BECAME_LEADER, counters.became_leader);
    page.number(&TRUNCATIONS, counters.truncations);
    page.number(
        &TRUNCATIONS_BELOW,
        counters.truncations_below_high_watermark,
    );
    page.number(
        &SUBSCRIPTIONS_REFUSED,
        counters.replica_subscriptions_refused,
    );
    page.number(&FRAMES_DROPPED, counters.replica_frames_dropped);
    page.number(&REGISTRATIONS, counters.registrations);
    page.number(&CORRUPT_BATCHES, counters.corrupt_batches);
}

/// What faces clients.
pub(crate) fn gateway(page: &mut Page, numbers: &GatewaySnapshot) {
    // An API that nobody has called yet shows a zero: a rate needs it.
    let label = |api: &str| format!("request=\"{api}\"");
    for api in &numbers.apis {
        page.labelled(&REQUESTS, &label(api.api), api.requests);
    }
    for api in &numbers.apis {
        page.labelled(&REQUEST_ERRORS, &label(api.api), api.errors);
    }
    for api in numbers.apis.iter().filter(|api| api.requests > 0) {
        let bounds = &LATENCY_BUCKETS_SECONDS;
        let label = label(api.api);
        page.histogram(
            &REQUEST_TIME,
            &label,
            bounds,
            &api.buckets,
            api.total_seconds,
        );
    }
    page.number(&CONNECTIONS, numbers.connections);
    page.number(&CONNECTIONS_OPENED, numbers.connections_opened);
    page.number(&CONNECTIONS_REFUSED, numbers.connections_refused);
    page.number(&REQUESTS_REFUSED, numbers.requests_refused);
    page.number(&IDLE_CLOSED, numbers.idle_closed);
    page.number(&SOCKET_BYTES_IN, numbers.bytes_read);
    page.number(&SOCKET_BYTES_OUT, numbers.bytes_written);
}

/// The controller role.
pub(crate) fn controller(page: &mut Page, numbers: &ControllerMetrics) {
    page.number(&ACTIVE_CONTROLLER, numbers.active);
    page.number(&OFFLINE_PARTITIONS, numbers.offline_partitions);
    page.number(&ACTIVE_BROKERS, numbers.active_brokers);
    page.number(&FENCED_BROKERS, numbers.fenced_brokers);
    page.number(&GLOBAL_TOPICS, numbers.topics);
    page.number(&GLOBAL_PARTITIONS, numbers.partitions);
    page.number(&IMBALANCE, numbers.preferred_replica_imbalance);
    page.number(&NEW_ACTIVE, numbers.activations);
    page.number(&APPLIED_INDEX, numbers.applied_index);
    page.number(&APPLIED_LAG, numbers.last_applied_lag_ms);
    page.number(&FENCINGS, numbers.broker_fencings);
    page.number(&VOTERS, numbers.voters);
    page.number(&LEADER_ELECTIONS, numbers.leader_elections);
    page.number(&UNCLEAN_ELECTIONS, numbers.unclean_leader_elections);
    page.number(&POSSIBLE_LOSS_ELECTIONS, numbers.possible_loss_elections);
    page.number(&TERM, numbers.term);
}

fn seconds_of_micros(micros: u64) -> f64 {
    std::time::Duration::from_micros(micros).as_secs_f64()
}
