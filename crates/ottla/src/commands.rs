//! From a command to the library that does it, and to an exit code.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use ottla_server::{DevOptions, ExitReason, healthcheck, run_dev, run_server};

use crate::{
    arguments::{Arguments, Command, DevArguments, HealthcheckArguments},
    logging,
};

pub(crate) fn run(arguments: Arguments) -> ExitCode {
    match arguments.command {
        Command::Server(server) => match logging::start(&arguments.logging) {
            Ok(()) => exit(&run_server(server.config, server.overrides)),
            Err(error) => exit(&ExitReason::Config(format!("{error:#}"))),
        },
        Command::Dev(dev) => {
            let ran = logging::start(&arguments.logging).and_then(|()| run_dev_cluster(dev));
            exit(&ran.unwrap_or_else(|error| ExitReason::Start(format!("{error:#}"))))
        }
        Command::ConfigDocs => {
            print!("{}", ottla_config::configuration_markdown());
            ExitCode::SUCCESS
        }
        Command::Healthcheck(check) => run_healthcheck(&check),
    }
}

fn exit(reason: &ExitReason) -> ExitCode {
    match reason {
        ExitReason::Stopped => tracing::info!("stopped"),
        // The log may be filtered or not running yet; what ends the process is always said.
        ExitReason::Config(_)
        | ExitReason::Start(_)
        | ExitReason::Fatal(_)
        | ExitReason::ShutdownLimit
        | ExitReason::SecondSignal => eprintln!("ottla: {reason}"),
    }
    reason.into()
}

fn run_dev_cluster(arguments: DevArguments) -> Result<ExitReason> {
    // Dropped, and with it removed, when the cluster has stopped.
    let (data_dir, temporary) = match arguments.data_dir {
        Some(directory) => (directory, None),
        None => {
            let directory = tempfile::Builder::new()
                .prefix("ottla-dev-")
                .tempdir()
                .context("make a temporary data directory")?;
            (directory.path().to_owned(), Some(directory))
        }
    };
    let shown = data_dir.display().to_string();
    let kept = if temporary.is_some() {
        "removed at exit"
    } else {
        "kept"
    };
    let options = DevOptions {
        brokers: arguments.brokers,
        data_dir,
        port: arguments.port,
        http_port: arguments.http_port,
        overrides: arguments.overrides,
    };
    let http_port = options.http_port;
    let reason = run_dev(&options, |bootstrap| {
        println!("bootstrap.servers={bootstrap}");
        println!("metrics: http://127.0.0.1:{http_port}/metrics");
        println!("data: {shown} ({kept}); stop with ctrl-c");
    });
    Ok(reason)
}

fn run_healthcheck(arguments: &HealthcheckArguments) -> ExitCode {
    match healthcheck(&arguments.url, Duration::from_millis(arguments.timeout_ms)) {
        Ok(body) => {
            print!("{body}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("ottla: {error}");
            ExitCode::FAILURE
        }
    }
}
