//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  ottla dev
      three nodes in this process, Kafka on localhost:9092, data thrown away at the end
  ottla dev --brokers 1 --data-dir ./data --port 19092
      one node that keeps its data
  ottla server --config server.properties
      one node of a cluster
  ottla server --config server.properties --override num.partitions=12
      the same with one key changed
  KAFKA_NODE_ID=1 KAFKA_PROCESS_ROLES=broker,controller … ottla server
      a node configured by its environment alone, as in containers
  ottla healthcheck --url http://127.0.0.1:8080/readyz
      exit code 0 when the node serves";

/// A Kafka-compatible, replicated event-streaming cluster.
#[derive(Debug, Parser)]
#[command(version, about, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) logging: Logging,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How the log looks.
#[derive(Clone, Debug, Args)]
pub(crate) struct Logging {
    /// Format of the log on standard error
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// Levels by target, such as `info,ottla_broker=debug`
    #[arg(long, global = true, env = "OTTLA_LOG", default_value = "info")]
    pub(crate) log_level: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// A line for people
    Text,
    /// An object a line
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs one node of a cluster
    #[command(
        after_help = "Exit codes: 0 stopped by a signal, 1 a listener or directory could \
        not be opened, 2 the configuration is not acceptable, 3 a role failed while running, \
        4 the shutdown took too long, 143 a second signal."
    )]
    Server(ServerArguments),
    /// Runs a whole cluster in this process, for development
    Dev(DevArguments),
    /// Prints the documentation of every configuration key as Markdown
    ConfigDocs,
    /// Asks a node over HTTP; exit code 0 if it says 200
    Healthcheck(HealthcheckArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ServerArguments {
    /// Properties file with Kafka's keys; the environment alone is enough too
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Replaces one key of file and environment; may be repeated
    #[arg(long = "override", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DevArguments {
    /// Number of nodes, each broker and controller
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(crate) brokers: u16,
    /// Where the data goes; a temporary directory, removed at the end, if not given
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Kafka port of the first node; controllers are 10 higher, replication 20
    #[arg(long, default_value_t = 9092)]
    pub(crate) port: u16,
    /// HTTP port of the first node
    #[arg(long, default_value_t = 8080)]
    pub(crate) http_port: u16,
    /// Sets one key on every node; may be repeated
    #[arg(long = "override", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct HealthcheckArguments {
    /// What to ask
    #[arg(long, default_value = "http://127.0.0.1:8080/readyz")]
    pub(crate) url: String,
    /// How long to wait for the answer
    #[arg(long, default_value_t = 2000, value_name = "MS")]
    pub(crate) timeout_ms: u64,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn overrides_repeat_and_the_log_format_may_stand_last() {
        let line = [
            "ottla",
            "server",
            "-c",
            "f",
            "--override",
            "a=b",
            "--override",
            "c=d",
        ];
        let line = line.into_iter().chain(["--log-format", "json"]);
        let arguments = Arguments::try_parse_from(line).unwrap();
        assert_eq!(arguments.logging.log_format, LogFormat::Json);
        let Command::Server(server) = arguments.command else {
            panic!("not server")
        };
        assert_eq!(server.overrides, ["a=b", "c=d"]);
    }
}
