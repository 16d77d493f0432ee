//! Claims about a node's configuration as a whole.

use super::*;
use crate::error::ConfigError;
use crate::load::{ConfigFile, Sources};

/// A minimal combined node with more lines.
pub(crate) fn server_with(lines: &str) -> ServerConfig {
    load(lines).unwrap()
}

fn load(lines: &str) -> Result<ServerConfig, ConfigErrors> {
    let text = format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@a:9093\n\
         listeners=PLAINTEXT://a:9092,CONTROLLER://a:9093\n\
         controller.listener.names=CONTROLLER\n{lines}"
    );
    let file = ConfigFile {
        name: "f".to_owned(),
        text,
    };
    let sources = Sources {
        file: Some(file),
        hostname: "here".to_owned(),
        ..Sources::default()
    };
    ServerConfig::load(&sources).map(|loaded| loaded.config)
}

fn refused(lines: &str) -> ConfigError {
    load(lines).unwrap_err().0.remove(0)
}

#[test]
fn the_defaults_that_differ_from_kafka_are_ours() {
    let config = server_with("");
    assert_eq!(config.cluster.broker_session_timeout_ms, 2000);
    assert_eq!(config.cluster.broker_heartbeat_interval_ms, 500);
    assert_eq!(config.replication.replica_lag_time_max_ms, 10_000);
    assert_eq!(config.groups.group_initial_rebalance_delay_ms, 3000);
    assert_eq!(config.network.queued_max_request_bytes, Some(256 << 20));
    assert_eq!(config.topics.default_replication_factor, None);
    assert_eq!(config.groups.offsets_topic_replication_factor, None);
}

#[test]
fn no_limit_is_none() {
    let config = server_with("queued.max.request.bytes=-1\nsocket.send.buffer.bytes=-1\n");
    assert_eq!(config.network.queued_max_request_bytes, None);
    assert_eq!(config.network.socket_send_buffer_bytes, None);
    assert_eq!(config.network.socket_receive_buffer_bytes, Some(102_400));
    assert_eq!(
        config.network.connection_limits.max_connections,
        i32::MAX.unsigned_abs() as usize
    );
}

#[test]
fn node_id_and_its_older_name_agree() {
    assert_eq!(refused("broker.id=2").key, "broker.id");
    assert_eq!(server_with("broker.id=1").node_id, BrokerId(1));
}

#[test]
fn the_directories_default_to_each_other() {
    assert_eq!(server_with("").log_dir, PathBuf::from("/tmp/kafka-logs"));
    let config = server_with("log.dirs=/d\nlog.dir=/e\n");
    assert_eq!(
        (config.log_dir, config.metadata_log_dir),
        ("/d".into(), "/d".into())
    );
    assert_eq!(
        server_with("metadata.log.dir=/m").metadata_log_dir,
        PathBuf::from("/m")
    );
}

#[test]
fn voters_and_roles_agree() {
    assert!(refused("node.id=2").reason.contains("not among the voters"));
    let broker = "process.roles=broker\nlisteners=PLAINTEXT://a:9092\n";
    assert!(refused(broker).reason.contains("not a controller"));
    assert!(
        refused("process.roles=broker,broker")
            .accepted
            .unwrap()
            .contains("both")
    );
    assert!(
        refused("controller.quorum.voters=")
            .reason
            .contains("must name")
    );
}

#[test]
fn an_interval_is_not_longer_than_the_timeout_it_serves() {
    let error = refused("broker.heartbeat.interval.ms=3000");
    assert_eq!(error.key, "broker.heartbeat.interval.ms");
    assert_eq!(
        refused("group.min.session.timeout.ms=2000000").key,
        "group.min.session.timeout.ms"
    );
}

#[test]
fn limits_per_address_are_read_and_checked() {
    let config = server_with("max.connections.per.ip.overrides=127.0.0.1:5,[::1]:6");
    let overrides = &config
        .network
        .connection_limits
        .max_connections_per_ip_overrides;
    assert_eq!(overrides.values().copied().collect::<Vec<_>>(), [5, 6]);
    assert!(
        refused("max.connections.per.ip.overrides=a:b")
            .reason
            .contains("address:count")
    );
}

#[test]
fn connection_limits_follow_dynamic_configs() {
    let config = server_with("max.connections=7");
    let dynamic = BTreeMap::from([("max.connections".to_owned(), "9".to_owned())]);
    assert_eq!(config.connection_limits(None, None).max_connections, 7);
    assert_eq!(config.connection_limits(None, &dynamic).max_connections, 9);
}

#[test]
fn the_example_of_the_manual_starts() {
    let page = crate::docs::configuration_markdown();
    let text = page
        .split("```")
        .nth(1)
        .unwrap()
        .strip_prefix("properties")
        .unwrap();
    let file = ConfigFile {
        name: "f".to_owned(),
        text: text.to_owned(),
    };
    let loaded = ServerConfig::load(&Sources {
        file: Some(file),
        ..Sources::default()
    })
    .unwrap();
    assert!(loaded.warnings.is_empty() && loaded.notes.is_empty());
    assert_eq!(loaded.config.controller_quorum_voters.len(), 3);
}
