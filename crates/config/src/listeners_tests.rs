//! Claims about listeners.

use super::*;
use crate::{
    load::{ConfigFile, Sources},
    server::ServerConfig,
};

fn load(lines: &[&str]) -> Result<(Listeners, Vec<String>), ConfigError> {
    let mut text = "controller.quorum.voters=1@c:9093\ncontroller.listener.names=CONTROLLER\n\
                    node.id=1\nprocess.roles=broker,controller\n"
        .to_owned();
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    let file = ConfigFile {
        name: "f".to_owned(),
        text,
    };
    let sources = Sources {
        file: Some(file),
        hostname: "here".to_owned(),
        ..Sources::default()
    };
    match ServerConfig::load(&sources) {
        Ok(loaded) => Ok((loaded.config.listeners, loaded.notes)),
        Err(mut errors) => Err(errors.0.remove(0)),
    }
}

fn refused(lines: &[&str]) -> String {
    load(lines).unwrap_err().to_string()
}

const OURS: [&str; 4] = [
    "listeners=PLAINTEXT://0.0.0.0:9092,CONTROLLER://0.0.0.0:9093,REPLICATION://0.0.0.0:9094",
    "advertised.listeners=PLAINTEXT://broker-1:9092,REPLICATION://broker-1:9094",
    "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,REPLICATION:PLAINTEXT",
    "inter.broker.listener.name=REPLICATION",
];

#[test]
fn the_three_kinds_are_told_apart_by_their_names() {
    let (listeners, notes) = load(&OURS).unwrap();
    assert_eq!(listeners.clients.len(), 1);
    assert_eq!(
        listeners.clients[0].advertised,
        Some(("broker-1".to_owned(), 9092))
    );
    assert_eq!(
        listeners.replication.unwrap().advertised,
        Some(("broker-1".to_owned(), 9094))
    );
    assert_eq!(listeners.controllers[0].port, 9093);
    assert_eq!(listeners.http, Some(("0.0.0.0".to_owned(), 8080)));
    assert!(notes.is_empty());
}

#[test]
fn a_file_written_for_kafka_gets_a_replication_port() {
    for inter_broker in ["", "inter.broker.listener.name=PLAINTEXT"] {
        let (listeners, notes) = load(&[
            "listeners=PLAINTEXT://:9092,CONTROLLER://:9093",
            "advertised.listeners=PLAINTEXT://localhost:9092",
            inter_broker,
        ])
        .unwrap();
        assert_eq!(listeners.clients[0].name, "PLAINTEXT");
        let replication = listeners.replication.unwrap();
        assert_eq!((replication.host.as_str(), replication.port), ("", 9094));
        assert_eq!(replication.advertised, Some(("localhost".to_owned(), 9094)));
        assert!(notes[0].contains("9094"), "{notes:?}");
    }
}

#[test]
fn a_client_listener_under_another_name_stays_one_if_it_is_the_only_one() {
    let (listeners, _) = load(&[
        "listeners=BROKER://a:9092,CONTROLLER://a:9093",
        "listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name=BROKER",
    ])
    .unwrap();
    assert_eq!(listeners.clients[0].name, "BROKER");
    assert_eq!(listeners.replication.unwrap().port, 9094);
}

#[test]
fn a_listener_that_kafkas_files_share_with_clients_stays_theirs() {
    let file = |inter_broker: &str, port: u16| {
        load(&[
            &format!("listeners={inter_broker}://:{port},EXTERNAL://:9092,CONTROLLER://:9093"),
            &format!(
                "listener.security.protocol.map={inter_broker}:PLAINTEXT,EXTERNAL:PLAINTEXT,\
                 CONTROLLER:PLAINTEXT"
            ),
            &format!(
                "advertised.listeners={inter_broker}://kafka:{port},EXTERNAL://localhost:9092"
            ),
            &format!("inter.broker.listener.name={inter_broker}"),
        ])
        .unwrap()
    };
    for name in [
        "INTERNAL",
        "INSIDE",
        "LISTENER_DOCKER_INTERNAL",
        "PLAINTEXT_HOST",
    ] {
        let (listeners, notes) = file(name, 29092);
        assert_eq!(listeners.clients.len(), 2, "{name}");
        let replication = listeners.replication.unwrap();
        assert_eq!(replication.advertised, Some(("kafka".to_owned(), 9094)));
        assert!(notes[0].contains("9094"), "{notes:?}");
    }
    for (name, port) in [("BROKER", 9091), ("INTERNAL", 9094)] {
        let (listeners, notes) = file(name, port);
        assert_eq!(listeners.clients.len(), 1, "{name}");
        assert_eq!(listeners.replication.unwrap().port, port);
        assert!(notes[0].contains("clients cannot use it"), "{notes:?}");
    }
}

#[test]
fn an_unset_host_is_advertised_as_this_machine_and_a_wildcard_is_not() {
    let (listeners, _) = load(&["listeners=PLAINTEXT://:9092,CONTROLLER://:9093"]).unwrap();
    assert_eq!(
        listeners.clients[0].advertised,
        Some(("here".to_owned(), 9092))
    );
    let error = refused(&["listeners=PLAINTEXT://0.0.0.0:9092,CONTROLLER://:9093"]);
    assert!(error.contains("nobody can connect to 0.0.0.0"), "{error}");
}

#[test]
fn security_that_is_not_available_is_refused() {
    let error = refused(&[
        "listeners=SSL://a:9092,CONTROLLER://a:9093",
        "listener.security.protocol.map=SSL:SSL,CONTROLLER:PLAINTEXT",
    ]);
    assert!(error.contains("TLS and SASL are not available"), "{error}");
    let error = refused(&[
        "listeners=A://a:9092,CONTROLLER://a:9093",
        "listener.security.protocol.map=A:X",
    ]);
    assert!(error.contains("not a security protocol"), "{error}");
    let error = refused(&["listeners=A://a:9092,CONTROLLER://a:9093"]);
    assert!(error.contains("says nothing of listener A"), "{error}");
}

#[test]
fn contradictions_are_refused_by_name() {
    for (lines, word) in [
        (vec!["listeners=PLAINTEXT://a:9092"], "CONTROLLER://:9093"),
        (
            vec!["listeners=CONTROLLER://a:9093"],
            "listener for clients",
        ),
        (
            vec!["listeners=PLAINTEXT://a:1,PLAINTEXT://a:2,CONTROLLER://a:3"],
            "occurs twice",
        ),
        (
            vec!["listeners=PLAINTEXT://a:1,CONTROLLER://:1"],
            "share port 1",
        ),
        (
            vec!["listeners=PLAINTEXT://a:9094,CONTROLLER://a:1"],
            "9094",
        ),
        (vec!["listeners=PLAINTEXT//a:9094,CONTROLLER://a:1"], "://"),
        (
            vec!["listeners=PLAINTEXT://a:99999,CONTROLLER://a:1"],
            "port",
        ),
        (
            vec![
                OURS[0],
                OURS[2],
                OURS[3],
                "advertised.listeners=PLAINTEXT://b:1",
            ],
            "REPLICATION",
        ),
        (
            vec![OURS[0], OURS[1], OURS[2], "inter.broker.listener.name=X"],
            "X is not in listeners",
        ),
        (
            vec![
                "listeners=PLAINTEXT://a:1,CONTROLLER://a:2",
                "advertised.listeners=B://a:1",
            ],
            "B is not in listeners",
        ),
        (
            vec![
                "process.roles=controller",
                "listeners=PLAINTEXT://a:1,CONTROLLER://a:2",
            ],
            "pure controller",
        ),
        (
            vec![
                "process.roles=broker",
                "node.id=4",
                "listeners=PLAINTEXT://a:1,CONTROLLER://a:2",
            ],
            "pure broker",
        ),
        (
            vec![
                "listeners=PLAINTEXT://a:1,CONTROLLER://a:2",
                "http.listener=8080",
            ],
            "http.listener",
        ),
    ] {
        let error = refused(&lines);
        assert!(error.contains(word), "{lines:?}: {error}");
    }
}

#[test]
fn the_same_port_on_two_addresses_is_no_contradiction() {
    let lines = ["listeners=PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.2:1"];
    assert_eq!(load(&lines).unwrap().0.clients.len(), 1);
}

#[test]
fn pure_roles_have_only_their_listeners() {
    let (listeners, _) =
        load(&["process.roles=controller", "listeners=CONTROLLER://a:9093"]).unwrap();
    assert!(listeners.clients.is_empty() && listeners.replication.is_none());
    let (listeners, _) = load(&[
        "process.roles=broker",
        "node.id=4",
        "listeners=PLAINTEXT://a:9092",
        "http.listener=",
    ])
    .unwrap();
    assert!(listeners.controllers.is_empty() && listeners.replication.is_some());
    assert_eq!(listeners.http, None);
}

#[test]
fn addresses_may_be_ipv6() {
    assert_eq!(
        parse_listener("a://[::1]:5"),
        Ok(("A".to_owned(), "::1".to_owned(), 5))
    );
    assert!(parse_listener("a://::1:5").is_err());
    assert!(parse_listener("a://[::1:5").is_err());
}
