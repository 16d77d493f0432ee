//! `ottla dev`: the configurations of a whole cluster on one machine.
//!
//! They are files like an operator's and go the same way, so that a dev cluster is a real one.

use std::path::PathBuf;

use ottla_config::{ConfigFile, Sources};

use crate::exit::ExitReason;

/// What `ottla dev` was asked for.
#[derive(Clone, Debug)]
pub struct DevOptions {
    /// Number of nodes, each broker and controller.
    pub brokers: u16,
    /// Where their data goes.
    pub data_dir: PathBuf,
    /// Kafka port of the first node.
    pub port: u16,
    /// HTTP port of the first node.
    pub http_port: u16,
    /// `key=value` for every node.
    pub overrides: Vec<String>,
}

/// How far the controller and replication ports lie above the Kafka ports.
const CONTROLLER_PORTS: u16 = 10;
const REPLICATION_PORTS: u16 = 20;

/// The configuration of each node.
pub fn dev_sources(options: &DevOptions) -> Result<Vec<Sources>, ExitReason> {
    check(options)?;
    let voters: Vec<String> = (1..=options.brokers)
        .map(|node| {
            format!(
                "{node}@127.0.0.1:{}",
                options.port + CONTROLLER_PORTS + node - 1
            )
        })
        .collect();
    let voters = voters.join(",");
    Ok((1..=options.brokers)
        .map(|node| Sources {
            file: Some(ConfigFile {
                name: format!("ottla dev, node {node}"),
                text: node_file(options, node, &voters),
            }),
            overrides: options.overrides.clone(),
            hostname: "localhost".to_owned(),
            ..Sources::default()
        })
        .collect())
}

/// Every port must exist, and the four ranges of them must not run into each other.
fn check(options: &DevOptions) -> Result<(), ExitReason> {
    let refuse = |reason: String| Err(ExitReason::Config(reason));
    let count = options.brokers;
    if count == 0 || count > CONTROLLER_PORTS {
        return refuse(format!("--brokers {count}: from 1 to {CONTROLLER_PORTS}"));
    }
    let highest = |first: u16, above: u16| first.checked_add(above + count - 1).is_some();
    if options.port == 0 || !highest(options.port, REPLICATION_PORTS) {
        return refuse(format!(
            "--port {}: the ports above it must exist",
            options.port
        ));
    }
    if options.http_port == 0 || !highest(options.http_port, 0) {
        return refuse(format!(
            "--http-port {}: the ports above it must exist",
            options.http_port
        ));
    }
    for first in [0, CONTROLLER_PORTS, REPLICATION_PORTS].map(|above| options.port + above) {
        if first < options.http_port + count && options.http_port < first + count {
            return refuse(format!(
                "--http-port {} is within --port's",
                options.http_port
            ));
        }
    }
    Ok(())
}

fn node_file(options: &DevOptions, node: u16, voters: &str) -> String {
    let kafka = options.port + node - 1;
    let controller = kafka + CONTROLLER_PORTS;
    let replication = kafka + REPLICATION_PORTS;
    let http = options.http_port + node - 1;
    // Backslashes are escapes in this format.
    let data = options.data_dir.join(format!("node-{node}"));
    let data = data.display().to_string().replace('\\', "\\\\");
    format!(
        "process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{kafka},CONTROLLER://127.0.0.1:{controller},\
REPLICATION://127.0.0.1:{replication}
advertised.listeners=PLAINTEXT://localhost:{kafka},REPLICATION://127.0.0.1:{replication}
listener.security.protocol.map=\
PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,REPLICATION:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=REPLICATION
http.listener=127.0.0.1:{http}
log.dirs={data}
group.initial.rebalance.delay.ms=0
"
    )
}

#[cfg(test)]
mod tests {
    use ottla_config::ServerConfig;

    use super::*;

    fn options(brokers: u16, port: u16) -> DevOptions {
        let data_dir = PathBuf::from("/tmp/ottla-dev");
        DevOptions {
            brokers,
            data_dir,
            port,
            http_port: 8080,
            overrides: Vec::new(),
        }
    }

    #[test]
    fn three_nodes_have_the_documented_ports() {
        let nodes: Vec<ServerConfig> = dev_sources(&options(3, 9092))
            .unwrap()
            .iter()
            .map(|sources| {
                let loaded = ServerConfig::load(sources).unwrap();
                assert!(loaded.warnings.is_empty() && loaded.notes.is_empty());
                loaded.config
            })
            .collect();
        let last = &nodes[2].listeners;
        assert_eq!(last.clients[0].port, 9094);
        assert_eq!(last.controllers[0].port, 9104);
        assert_eq!(last.replication.as_ref().unwrap().port, 9114);
        assert_eq!(last.http, Some(("127.0.0.1".to_owned(), 8082)));
        assert_eq!(nodes[0].groups.group_initial_rebalance_delay_ms, 0);
        assert_eq!(nodes[0].controller_quorum_voters.len(), 3);
    }

    #[test]
    fn ports_that_do_not_exist_or_meet_are_refused() {
        assert!(dev_sources(&options(0, 9092)).is_err());
        assert!(dev_sources(&options(11, 9092)).is_err());
        assert!(dev_sources(&options(3, 65_530)).is_err());
        assert!(dev_sources(&options(3, 8079)).is_err());
        assert!(dev_sources(&options(1, 19_092)).is_ok());
    }
}
