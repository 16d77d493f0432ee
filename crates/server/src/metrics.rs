//! Every metric of `/metrics`: names, kinds and what they say, once (M-1 to M-13).
//!
//! Where Kafka has the number, the name is its MBean's in the form that Prometheus setups of Kafka
//! use: lower case, underscores, `…PerSec` as a counter ending in `_total`. Numbers of our own start
//! with `ottla_`, those of the process have the names of every Prometheus client.

mod page;
mod process;
mod render;

pub(crate) use page::Page;
pub(crate) use process::ProcessNumbers;
pub(crate) use render::{broker, controller, gateway, process};

use page::{Metric, MetricKind};

macro_rules! metrics {
    ($($constant:ident $kind:ident $name:literal $help:literal)*) => {
        $(const $constant: Metric =
            Metric { name: $name, kind: MetricKind::$kind, help: $help };)*

        /// All of them, for the test that compares names.
        #[cfg(test)]
        const ALL: &[&Metric] = &[$(&$constant),*];
    };
}

metrics! {
    RESIDENT_MEMORY Gauge "process_resident_memory_bytes" "Memory of the process in RAM."
    VIRTUAL_MEMORY Gauge "process_virtual_memory_bytes" "Address space of the process."
    CPU_SECONDS Counter "process_cpu_seconds_total" "Time on a processor, user and system."
    OPEN_FILES Gauge "process_open_fds" "Open files and sockets."
    THREADS Gauge "process_threads" "Threads of the process."
    START_TIME Gauge "process_start_time_seconds" "When the process started, since 1970."
    BUILD Gauge "ottla_build_info" "1, labelled with the version."

    UNDER_REPLICATED Gauge "kafka_server_replicamanager_underreplicatedpartitions"
        "Partitions led here with fewer in-sync replicas than assigned ones (M-1)."
    UNDER_MIN_ISR Gauge "kafka_server_replicamanager_underminisrpartitioncount"
        "Partitions led here with fewer in-sync replicas than min.insync.replicas (M-4)."
    AT_MIN_ISR Gauge "kafka_server_replicamanager_atminisrpartitioncount"
        "Partitions led here with exactly min.insync.replicas in sync."
    OFFLINE_REPLICAS Gauge "kafka_server_replicamanager_offlinereplicacount"
        "Replicas here whose log failed."
    LEADERS Gauge "kafka_server_replicamanager_leadercount" "Partitions led here."
    PARTITIONS Gauge "kafka_server_replicamanager_partitioncount" "Replicas here."
    ISR_SHRINKS Counter "kafka_server_replicamanager_isrshrinks_total"
        "Replicas that left an in-sync set led here (M-5)."
    ISR_EXPANDS Counter "kafka_server_replicamanager_isrexpands_total"
        "Replicas that joined an in-sync set led here (M-5)."
    FAILED_ISR_UPDATES Counter "kafka_server_replicamanager_failedisrupdates_total"
        "Changes of an in-sync set that were refused or not answered (M-5)."
    MESSAGES_IN Counter "kafka_server_brokertopicmetrics_messagesin_total"
        "Records appended for producers."
    BYTES_IN Counter "kafka_server_brokertopicmetrics_bytesin_total"
        "Bytes appended for producers."
    BYTES_OUT Counter "kafka_server_brokertopicmetrics_bytesout_total"
        "Bytes handed to consumers."
    REPLICATION_BYTES_IN Counter "kafka_server_brokertopicmetrics_replicationbytesin_total"
        "Bytes appended as a follower."
    REPLICATION_BYTES_OUT Counter "kafka_server_brokertopicmetrics_replicationbytesout_total"
        "Bytes sent to followers."
    FAILED_PRODUCE Counter "kafka_server_brokertopicmetrics_failedproducerequests_total"
        "Batches of producers that failed."
    FAILED_FETCH Counter "kafka_server_brokertopicmetrics_failedfetchrequests_total"
        "Partitions of fetches that failed."
    PURGATORY Gauge "kafka_server_delayedoperationpurgatory_purgatorysize"
        "Requests that wait for data, by kind (M-12)."
    GROUPS Gauge "kafka_coordinator_group_groupmetadatamanager_numgroups"
        "Consumer groups coordinated here."
    GROUPS_PREPARING Gauge "kafka_coordinator_group_groupmetadatamanager_numgroupspreparingrebalance"
        "Groups here that wait for members to join."
    GROUPS_COMPLETING Gauge "kafka_coordinator_group_groupmetadatamanager_numgroupscompletingrebalance"
        "Groups here that wait for an assignment."
    GROUPS_STABLE Gauge "kafka_coordinator_group_groupmetadatamanager_numgroupsstable"
        "Groups here whose members have their assignments."
    GROUPS_DEAD Gauge "kafka_coordinator_group_groupmetadatamanager_numgroupsdead"
        "Groups here that are being removed."
    GROUPS_EMPTY Gauge "kafka_coordinator_group_groupmetadatamanager_numgroupsempty"
        "Groups here without members."
    GROUP_OFFSETS Gauge "kafka_coordinator_group_groupmetadatamanager_numoffsets"
        "Offsets stored by groups coordinated here."
    LOG_BYTES Gauge "kafka_log_logmanager_size_bytes" "Bytes in all logs here."
    OFFLINE_LOG_DIRS Gauge "kafka_log_logmanager_offlinelogdirectorycount"
        "Log directories that failed (M-10)."
    FLUSHES Counter "kafka_log_logflushstats_logflush_total" "Flushes to disk (M-13)."
    FLUSH_SECONDS Counter "kafka_log_logflushstats_logflushtime_seconds_total"
        "Time spent in flushes (M-13)."
    METADATA_INDEX Gauge "kafka_server_brokermetadatametrics_lastappliedrecordoffset"
        "Index of this broker's image of the cluster."
    METADATA_LAG Gauge "ottla_broker_metadata_lag_entries"
        "Entries by which the image is behind what the controller has applied (M-9)."
    METADATA_ERRORS Counter "kafka_server_brokermetadatametrics_metadataloaderror_total"
        "Metadata streams that broke (M-9)."
    FENCED Gauge "ottla_broker_fenced" "1 while this broker is fenced or not registered."
    BATCHES_IN Counter "ottla_broker_batches_in_total" "Batches appended for producers."
    ADMISSION_BYTES Gauge "ottla_broker_admission_bytes"
        "Bytes of produce requests that wait to be appended."
    THROTTLED Counter "ottla_broker_throttled_produces_total"
        "Produces refused because too much was waiting."
    NO_SPACE Counter "ottla_broker_no_space_rejections_total"
        "Produces refused for lack of room on the disk."
    BECAME_LEADER Counter "ottla_broker_became_leader_total"
        "Times this broker became the leader of a partition."
    TRUNCATIONS Counter "ottla_broker_truncations_total" "Truncations as a follower (M-14)."
    TRUNCATIONS_BELOW Counter "ottla_broker_truncations_below_high_watermark_total"
        "Truncations below the replica's own high watermark (M-14)."
    SUBSCRIPTIONS_REFUSED Counter "ottla_broker_replica_subscriptions_refused_total"
        "Subscriptions of followers that were refused or diverged."
    FRAMES_DROPPED Counter "ottla_broker_replica_frames_dropped_total"
        "Frames from leaders that were late, repeated or out of order."
    REGISTRATIONS Counter "ottla_broker_registrations_total" "Times this broker registered."
    CORRUPT_BATCHES Counter "ottla_broker_corrupt_batches_total"
        "Batches found damaged, on the way or on disk (M-14)."

    REQUESTS Counter "kafka_network_requestmetrics_requests_total"
        "Requests answered, by API (M-12)."
    REQUEST_ERRORS Counter "kafka_network_requestmetrics_errors_total"
        "Errors inside the answers, by API (M-12)."
    REQUEST_TIME Histogram "kafka_network_requestmetrics_totaltime_seconds"
        "Time from a request's last byte to its answer, by API (M-12)."
    CONNECTIONS Gauge "kafka_server_socketservermetrics_connection_count"
        "Client connections that are open."
    CONNECTIONS_OPENED Counter "kafka_server_socketservermetrics_connection_creation_total"
        "Client connections accepted."
    CONNECTIONS_REFUSED Counter "ottla_gateway_connections_refused_total"
        "Client connections closed at once because of a limit."
    REQUESTS_REFUSED Counter "ottla_gateway_requests_refused_total"
        "Frames that closed their connection."
    IDLE_CLOSED Counter "ottla_gateway_idle_closed_total"
        "Client connections closed for being idle or stalled."
    SOCKET_BYTES_IN Counter "kafka_server_socketservermetrics_incoming_byte_total"
        "Bytes read from clients."
    SOCKET_BYTES_OUT Counter "kafka_server_socketservermetrics_outgoing_byte_total"
        "Bytes written to clients."

    ACTIVE_CONTROLLER Gauge "kafka_controller_kafkacontroller_activecontrollercount"
        "1 on the active controller, 0 on others (M-3)."
    OFFLINE_PARTITIONS Gauge "kafka_controller_kafkacontroller_offlinepartitionscount"
        "Partitions of the cluster without a leader (M-2)."
    ACTIVE_BROKERS Gauge "kafka_controller_kafkacontroller_activebrokercount"
        "Registered brokers that are not fenced (M-8)."
    FENCED_BROKERS Gauge "kafka_controller_kafkacontroller_fencedbrokercount"
        "Registered brokers that are fenced (M-8)."
    GLOBAL_TOPICS Gauge "kafka_controller_kafkacontroller_globaltopiccount"
        "Topics of the cluster."
    GLOBAL_PARTITIONS Gauge "kafka_controller_kafkacontroller_globalpartitioncount"
        "Partitions of the cluster."
    IMBALANCE Gauge "kafka_controller_kafkacontroller_preferredreplicaimbalancecount"
        "Partitions not led by their preferred replica."
    NEW_ACTIVE Counter "kafka_controller_kafkacontroller_newactivecontrollers_total"
        "Times this controller became the active one."
    APPLIED_INDEX Gauge "kafka_controller_kafkacontroller_lastappliedrecordoffset"
        "Index of the last entry applied here."
    APPLIED_LAG Gauge "kafka_controller_kafkacontroller_lastappliedrecordlagms"
        "Milliseconds for which the applied state has been behind the log (M-9)."
    FENCINGS Counter "ottla_controller_broker_fencings_total" "Brokers fenced by this controller."
    VOTERS Gauge "kafka_server_raftmetrics_number_of_voters" "Voters of the controller quorum."
    LEADER_ELECTIONS Counter "kafka_controller_controllerstats_leaderelections_total"
        "Leaders of partitions elected (M-7)."
    UNCLEAN_ELECTIONS Counter "kafka_controller_controllerstats_uncleanleaderelections_total"
        "Leaders elected from outside the in-sync set (M-6)."
    POSSIBLE_LOSS_ELECTIONS Counter "ottla_controller_possible_loss_elections_total"
        "Leaders elected for the longest log after every replica lost power (P-13)."
    TERM Gauge "kafka_server_raftmetrics_current_epoch" "Term of the controller quorum."
}

#[cfg(test)]
mod tests;
