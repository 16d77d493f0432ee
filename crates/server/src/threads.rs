//! The async runtimes of a process: data and control never share a thread.
//!
//! A process with gigabytes in flight must still answer a heartbeat within milliseconds, so
//! whatever decides about liveness runs on threads of its own.

use ottla_config::ThreadConfig;
use tokio::runtime::{Builder, Runtime};

use crate::exit::ExitReason;

/// Both runtimes.
pub(crate) struct Runtimes {
    /// Clients and replication.
    pub(crate) data: Runtime,
    /// Health, metrics and signals; the controller has threads of its own.
    pub(crate) control: Runtime,
}

impl Runtimes {
    pub(crate) fn start(threads: ThreadConfig) -> Result<Runtimes, ExitReason> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let data = match threads.data_threads {
            0 => cores.min(4),
            count => count,
        };
        Ok(Runtimes {
            data: runtime("ottla-data", data)?,
            control: runtime("ottla-control", threads.control_threads)?,
        })
    }
}

/// A broker has several files a partition and a socket a client: it takes what it may have.
pub(crate) fn raise_open_files_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised) {
        tracing::warn!(%error, current = ?limit.current, "raise the limit on open files");
    }
}

fn runtime(name: &str, threads: usize) -> Result<Runtime, ExitReason> {
    Builder::new_multi_thread()
        .worker_threads(threads)
        // File I/O has pools of its own: this one is for name lookups and the like, and an idle
        // thread of it goes away.
        .max_blocking_threads(16)
        .thread_name(name)
        .enable_all()
        .build()
        .map_err(|error| ExitReason::Start(format!("start the threads of {name}: {error}")))
}
