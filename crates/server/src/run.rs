//! A process from its configuration to its exit code.

use std::{path::PathBuf, sync::Arc, time::Duration};

use ottla_config::{ConfigFile, ServerConfig, Sources};
use tracing::{error, info, warn};

use crate::{
    dev::{DevOptions, dev_sources},
    exit::ExitReason,
    hostname,
    listen::BoundListeners,
    node::{Node, shutdown_limit},
    signals::Signals,
    threads::{self, Runtimes},
};

/// `ottla server`: one node, until a signal or a failure ends it.
#[must_use]
pub fn run_server(file: Option<PathBuf>, overrides: Vec<String>) -> ExitReason {
    let sources = read_sources(file, overrides);
    match sources.and_then(|sources| load(&sources)) {
        Ok(config) => run_nodes(vec![config], |_| {}),
        Err(reason) => reason,
    }
}

/// `ottla dev`: several nodes in this process, until a signal or a failure ends them. `ready` is
/// told the bootstrap servers once all of them serve.
#[must_use]
pub fn run_dev(options: &DevOptions, ready: impl FnOnce(&str)) -> ExitReason {
    let configs = dev_sources(options)
        .and_then(|nodes| nodes.iter().map(load).collect::<Result<Vec<_>, _>>());
    match configs {
        Ok(configs) => run_nodes(configs, ready),
        Err(reason) => reason,
    }
}

fn read_sources(file: Option<PathBuf>, overrides: Vec<String>) -> Result<Sources, ExitReason> {
    let file = match file {
        None => None,
        Some(path) => {
            let name = path.display().to_string();
            let bytes = std::fs::read(&path)
                .map_err(|error| ExitReason::Config(format!("read {name}: {error}")))?;
            let text = String::from_utf8(bytes)
                .map_err(|_| ExitReason::Config(format!("{name} is not UTF-8 text")))?;
            Some(ConfigFile { name, text })
        }
    };
    // Variables that are not text cannot be ours.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let environment = environment.collect();
    Ok(Sources {
        file,
        environment,
        overrides,
        hostname: hostname::hostname(),
    })
}

fn load(sources: &Sources) -> Result<Arc<ServerConfig>, ExitReason> {
    let loaded = ServerConfig::load(sources).map_err(|errors| {
        ExitReason::Config(format!("the configuration is not acceptable:\n{errors}"))
    })?;
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    for note in &loaded.notes {
        info!("{note}");
    }
    Ok(Arc::new(loaded.config))
}

fn run_nodes(configs: Vec<Arc<ServerConfig>>, ready: impl FnOnce(&str)) -> ExitReason {
    let Some(first) = configs.first() else {
        return ExitReason::Config("no node to run".to_owned());
    };
    threads::raise_open_files_limit();
    let runtimes = match Runtimes::start(first.threads) {
        Ok(runtimes) => runtimes,
        Err(reason) => return reason,
    };
    let control = runtimes.control.handle().clone();
    let reason = runtimes.data.block_on(async {
        match serve(configs, &control, ready).await {
            Ok(reason) | Err(reason) => reason,
        }
    });
    // What still runs belongs to connections that are gone: it must not hold the exit up.
    runtimes.data.shutdown_timeout(Duration::from_millis(200));
    runtimes
        .control
        .shutdown_timeout(Duration::from_millis(200));
    reason
}

async fn serve(
    configs: Vec<Arc<ServerConfig>>,
    control: &tokio::runtime::Handle,
    ready: impl FnOnce(&str),
) -> Result<ExitReason, ExitReason> {
    let mut signals = Signals::listen()?;
    let limits = configs.iter().map(|config| shutdown_limit(config));
    let limit = limits.max().unwrap_or_default();
    let bound: Vec<BoundListeners> = configs
        .iter()
        .map(|config| BoundListeners::bind(config))
        .collect::<Result<_, _>>()?;
    let bootstrap = bootstrap_servers(&bound);
    for config in &configs {
        announce(config);
    }
    // All at once: a quorum forms only when every voter is there.
    let starts = configs
        .into_iter()
        .zip(bound)
        .map(|(config, bound)| Node::start(config, bound, control));
    let starting = futures::future::try_join_all(starts);
    let mut nodes = tokio::select! {
        nodes = starting => nodes?,
        signal = signals.next() => {
            info!(signal, "stopping before the start was over");
            return Ok(ExitReason::Stopped);
        }
    };
    info!(nodes = nodes.len(), "started");
    let failed = until_the_end(&nodes, &mut signals, || ready(&bootstrap)).await;
    stop(&mut nodes, &mut signals, limit).await;
    Ok(match failed {
        Some(failure) => ExitReason::Fatal(failure),
        None => ExitReason::Stopped,
    })
}

/// What clients connect to.
fn bootstrap_servers(bound: &[BoundListeners]) -> String {
    let listeners = bound.iter().flat_map(|bound| &bound.clients);
    let advertised = listeners.filter_map(|listener| listener.advertised.as_ref());
    let servers: Vec<String> = advertised
        .map(|(host, port)| format!("{host}:{port}"))
        .collect();
    servers.join(",")
}

/// Serves until a signal, or until a role fails for good: then with the reason.
async fn until_the_end(
    nodes: &[Node],
    signals: &mut Signals,
    ready: impl FnOnce(),
) -> Option<String> {
    let when_ready = async {
        futures::future::join_all(nodes.iter().map(Node::wait_ready)).await;
        info!(nodes = nodes.len(), "ready");
        ready();
        std::future::pending::<Option<String>>().await
    };
    let failures = nodes.iter().map(|node| Box::pin(node.failure()));
    tokio::select! {
        never = when_ready => never,
        (failure, _, _) = futures::future::select_all(failures) => {
            error!(failure, "a role failed");
            Some(failure)
        }
        signal = signals.next() => {
            info!(signal, "stopping");
            None
        }
    }
}

/// Stops every node within the limit; does not return if that fails.
async fn stop(nodes: &mut [Node], signals: &mut Signals, limit: Duration) {
    // Where every node stops there is nobody to hand leaderships to.
    let hand_over = nodes.len() == 1;
    let stop = async {
        futures::future::join_all(nodes.iter_mut().map(|node| node.stop_broker(hand_over))).await;
        futures::future::join_all(nodes.iter_mut().map(Node::stop_controller)).await;
    };
    tokio::select! {
        () = stop => {}
        () = tokio::time::sleep(limit) => end_now(&ExitReason::ShutdownLimit),
        _ = signals.next() => end_now(&ExitReason::SecondSignal),
    }
}

/// Ends the process where it stands, without a clean marker: what still runs may be stuck, and
/// nothing of it is waited for.
fn end_now(reason: &ExitReason) -> ! {
    error!(%reason, "ending at once");
    std::process::exit(reason.code().into())
}

fn announce(config: &ServerConfig) {
    let roles = match (config.roles.broker, config.roles.controller) {
        (true, true) => "broker,controller",
        (true, false) => "broker",
        (false, true) | (false, false) => "controller",
    };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        node_id = %config.node_id,
        roles,
        log_dir = %config.log_dir.display(),
        voters = config.controller_quorum_voters.len(),
        "ottla starts"
    );
}
